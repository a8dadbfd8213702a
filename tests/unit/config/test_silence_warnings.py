"""Which silences are likely a mistake: those that keep nothing back, and those that do not seem to end."""

from collections.abc import Callable

import pytest

Warned = Callable[..., list[str]]

SALES = "3f6c1a52-94d0-4b7e-8a11-5c0d9e7f2b31"
OTHER = "7be2f0c4-1d5a-4c39-9f60-2a8e4d1b7c05"
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
ACCOUNTS = "accounts: {us: {api_key: k}, eu: {api_key: l}}\n"
WATCH = (
    f"watch:\n  - {{account: us, pipeline: {SALES}, labels: {{team: sales}}}}\n  - {{account: eu, pipeline: {OTHER}}}\n"
)
BASE = ACCOUNTS + WATCH
SINKS = (
    f"sinks:\n  ops: {{type: webhook, url: 'https://h.example/x', secret: {SECRET}}}\n"
    f"  night: {{type: webhook, url: 'https://h.example/y', secret: {SECRET}, events: [execution.failed]}}\n"
)
FROM, UNTIL = "from: 2026-11-01T00:00:00Z", "until: 2026-12-01T00:00:00Z"
RELABEL = "ive a watch these labels, or remove them here"
NO_LABELS = (
    "none of these events has labels, so nothing is kept back; remove labels, or name events such as execution.*"
)
COMPARE = "compare it with the events of the sinks, or remove the silence"


def silence(match: str, *, from_at: str = FROM, until: str = UNTIL, sinks: str = SINKS) -> str:
    return f"{BASE}{sinks}silences:\n  - match: {{{match}}}\n    {from_at}\n    {until}\n"


@pytest.mark.parametrize(
    ("from_at", "until", "lines"),
    [
        (
            FROM,
            "until: 2026-11-24T13:00:00+01:00",
            [
                (
                    '11:12: silences[0].until: "2026-11-24T13:00:00+01:00" has passed: this silence keeps nothing '
                    "back; remove the silence, or write a later moment"
                )
            ],
        ),
        (FROM, "until: 2026-11-24T12:00:01Z", []),
        (
            FROM,
            "until: 2062-12-01T00:00:00Z",
            [
                (
                    '11:12: silences[0].until: "2062-12-01T00:00:00Z" is more than a year away; '
                    "check the year; what a sink is never to get is for its events and match"
                )
            ],
        ),
        (FROM, "until: 2027-11-24T00:00:00Z", []),
        ("from: 2026-12-24T00:00:00Z", "until: 2026-12-27T00:00:00Z", []),
    ],
)
def test_a_silence_ends_and_not_yet(from_at: str, until: str, lines: list[str], warned: Warned) -> None:
    assert warned(silence("sinks: [ops]", from_at=from_at, until=until)) == lines


@pytest.mark.parametrize(
    ("match", "lines"),
    [
        (
            "labels: {team: slaes}",
            [f'9:21: silences[0].match.labels: no watch has these labels; did you mean "team: sales"? G{RELABEL}'],
        ),
        (
            "pipelines: [11111111-2222-4333-8444-555555555555]",
            ["9:25: silences[0].match.pipelines[0]: no watch has this pipeline; add a watch for it, or remove it here"],
        ),
        (
            f"labels: {{team: sales}}, pipelines: [{OTHER}]",
            [
                (
                    "9:12: silences[0].match: no watch has both these labels and one of these pipelines; "
                    "give the pipeline's watch these labels, or remove one of the two"
                )
            ],
        ),
        (
            f"accounts: [us], pipelines: [{OTHER}]",
            ["9:12: silences[0].match: no watch fits all of what is given; remove a key, or change what it names"],
        ),
        (
            "events: [pipeline.recovered, problem.closed]",
            [
                (
                    "9:21: silences[0].match.events: what only says that a problem is over is never kept back; "
                    "name what opened the problem, or remove the silence"
                )
            ],
        ),
        ("labels: {team: sales}, events: ['account.*']", [f"9:44: silences[0].match.events: {NO_LABELS}"]),
        (
            "accounts: [us], events: ['sink.*']",
            [
                (
                    "9:37: silences[0].match.events: none of these events has accounts, so nothing is kept back; "
                    "remove accounts, or name events such as execution.*"
                )
            ],
        ),
        (
            "sinks: [night], events: ['account.*']",
            [f"9:12: silences[0].match: none of this is ever sent to these sinks; {COMPARE}"],
        ),
        (
            "events: [execution.overdue]",
            [f"9:12: silences[0].match: none of this is ever sent to a sink that can be silenced; {COMPARE}"],
        ),
        (f"accounts: [us], labels: {{team: sales}}, pipelines: [{SALES}], events: ['execution.*']", []),
        ("accounts: [eu], events: ['account.*']", []),
        ("sinks: [night], events: [execution.failed]", []),
        ("labels: {team: sales}, events: [problem.reminder], sinks: [ops]", []),
    ],
)
def test_a_silence_keeps_something_back(match: str, lines: list[str], warned: Warned) -> None:
    assert warned(silence(match)) == lines


def test_without_a_sink_but_stdout_there_is_nothing_to_silence(warned: Warned) -> None:
    (line,) = warned(silence("labels: {team: sales}", sinks=""))
    assert line == f"6:12: silences[0].match: none of this is ever sent to a sink that can be silenced; {COMPARE}"


def test_what_an_overdue_execution_does_next_is_sent_too_and_can_be_silenced(warned: Warned) -> None:
    base = BASE.replace("labels:", "overdue_after: {new: 1m}, labels:")
    sinks = SINKS.replace("execution.failed", "execution.overdue")
    text = (
        f"{base}{sinks}silences:\n  - match: {{sinks: [night], events: [execution.success]}}\n    {FROM}\n    {UNTIL}\n"
    )
    assert warned(text) == []
