"""Which events, groups, reminders and URLs of a sink are likely a mistake. Each is reported where it stands."""

from collections.abc import Callable

import pytest

Warned = Callable[..., list[str]]

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
SALES = "3f6c1a52-94d0-4b7e-8a11-5c0d9e7f2b31"
RULES = "rules: {failing: {consecutive: 3}}, overdue_after: {new: 1m}"
BASE = f"accounts: {{default: {{api_key: k}}}}\nwatch:\n  - {{pipeline: {SALES}, labels: {{team: sales}}, {RULES}}}\n"
HOOK = f"{BASE}sinks:\n  ops:\n    type: webhook\n    url: https://hooks.example.com/s3cret\n    secret: {SECRET}\n"
ALONE = "comes only where its problem's opening went; add"
OPENINGS = "what opens problems, such as pipeline.failing, or remove it"
NOTHING_OPENS = (
    "this sink is sent no opening of a problem, so there is nothing to remind of; "
    "add openings to its events, such as pipeline.failing or account.degraded, or remove this"
)


def hook(url: str, *, more: str = "") -> str:
    return f"{BASE}sinks:\n  ops:\n    type: webhook\n    url: {url}\n{more}"


@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        (
            "events: [execution.failed, pipeline.recovered]",
            [f'9:32: sinks.ops.events[1]: "pipeline.recovered" {ALONE} pipeline.failing, or remove it'],
        ),
        (
            "events: [sink.recovered]",
            [f'9:14: sinks.ops.events[0]: "sink.recovered" {ALONE} sink.disabled or sink.failing, or remove it'],
        ),
        ("events: ['problem.*']", [f'9:14: sinks.ops.events[0]: "problem.*" {ALONE} {OPENINGS}']),
        ("events: [problem.closed]", [f'9:14: sinks.ops.events[0]: "problem.closed" {ALONE} {OPENINGS}']),
        ("events: [problem.reminder]", [f'9:14: sinks.ops.events[0]: "problem.reminder" {ALONE} {OPENINGS}']),
        ("events: [pipeline.failing, pipeline.recovered]", []),
        ("events: ['account.*', 'problem.*']", []),
        (
            "events: [pipeline.failing, problem.reminder]",
            [
                (
                    '9:32: sinks.ops.events[1]: "problem.reminder" never comes without remind_every; '
                    "add remind_every: 4h, or remove it"
                )
            ],
        ),
        ("events: [pipeline.failing, problem.reminder]\n    remind_every: 4h", []),
    ],
)
def test_what_follows_on_something_else_is_not_asked_for_alone(keys: str, lines: list[str], warned: Warned) -> None:
    assert warned(f"{HOOK}    {keys}\n") == lines


@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        (
            "remind_every: 10s",
            [
                (
                    "9:19: sinks.ops.remind_every: sends one message every 10s for each open problem; "
                    "write 4h, or at least 1m"
                )
            ],
        ),
        ("remind_every: 1m", []),
        ("remind_every: 4h\n    events: [execution.failed]", [f"9:5: sinks.ops.remind_every: {NOTHING_OPENS}"]),
        ("remind_every: 4h\n    events: [execution.overdue]", []),
    ],
)
def test_reminders_are_rare_and_of_something(keys: str, lines: list[str], warned: Warned) -> None:
    assert warned(f"{HOOK}    {keys}\n") == lines


@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        (
            "group: {by: [pipeline, pipeline]}",
            [
                (
                    '9:28: sinks.ops.group.by[1]: "pipeline" stands there twice; '
                    "remove it, or write what else events of one group have in common"
                )
            ],
        ),
        (
            "group: {by: [labels.taem]}",
            [
                (
                    "9:18: sinks.ops.group.by[0]: no watch has this label, so no events are grouped; "
                    'did you mean "labels.team"? Give a watch this label, or remove it here'
                )
            ],
        ),
        (
            "group: {by: ['labels.${TAEM:-taem}']}",
            [
                (
                    "9:18: sinks.ops.group.by[0]: no watch has this label, so no events are grouped; "
                    "give a watch this label, or remove it here"
                )
            ],
        ),
        ("group: {by: [pipeline, account, type, labels.team]}", []),
        (
            "group: {by: [account]}\n    events: ['account.*']",
            [
                (
                    "9:5: sinks.ops.group: only execution.* and pipeline.gap are grouped, and this sink asks for none "
                    "of them; remove it, or add them to events"
                )
            ],
        ),
        ("group: {by: [account]}\n    events: [pipeline.gap]", []),
    ],
)
def test_a_group_holds_something(keys: str, lines: list[str], warned: Warned) -> None:
    assert warned(f"{HOOK}    {keys}\n") == lines


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("https://hooks.slack.com/triggers/T/1/x", f"    secret: {SECRET}\n"),
        ("https://hooks.slack.com/services/T/B/x", "    template: slack\n"),
        ("https://chat.example.com/hooks/x", "    template: slack\n"),
        ("https://hooks.slack-gov.com/services/T/B/x", "    template: slack\n"),
        ("https://discord.com/api/webhooks/1/T-_x", "    template: discord\n"),
        ("https://ptb.discord.com/api/v10/webhooks/1/T/?thread_id=7", "    template: discord\n"),
        ("https://relay.example/api/webhooks/1/T/github", "    template: discord\n"),
        ("https://discord.com/api/interactions", f"    secret: {SECRET}\n"),
        ("https://prod-1.westeurope.logic.azure.com/workflows/x?sig=y", "    template: teams\n"),
        ("https://x.1.environment.api.powerplatform.com/x?api-version=1&sig=y", "    template: teams\n"),
        ("https://relay.example/logic.azure.com/workflows/x", "    template: teams\n"),
        ("https://prod-1.westeurope.logic.azure.com/workflows/x", f"    secret: {SECRET}\n"),
        ("http://alertmanager:9093", "    template: alertmanager\n"),
        ("http://alertmanager:9093/api/v2/alerts", "    template: alertmanager\n"),
    ],
)
def test_of_other_receivers_nothing_is_known(url: str, more: str, warned: Warned) -> None:
    assert warned(hook(url, more=more)) == []
