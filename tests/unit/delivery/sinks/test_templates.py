"""What each template makes of events, judged by what its receiver accepts."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from receivers_rules import check_alertmanager, check_pagerduty, check_slack, ended_after, texts_of
from sample_events import (
    AT,
    HOSTILE,
    KINDS_OF_CLOSINGS,
    OPENED_AT,
    PIPELINE,
    PROBLEM,
    closing_overdue,
    data_of,
    execution_id,
    failed,
    problem_block,
    sample,
)
from worker_rig import FakeClock

from watcher.delivery.sinks.alert import Alert
from watcher.delivery.sinks.alert_text import clean, shorten
from watcher.delivery.sinks.alertmanager import AlertmanagerTemplate
from watcher.delivery.sinks.pagerduty import PagerDutyTemplate
from watcher.delivery.sinks.protocol import SentProblem
from watcher.delivery.sinks.slack import MESSAGE_LENGTH, SlackTemplate
from watcher.delivery.sinks.template import BatchTemplate, EventTemplate, Template
from watcher.domain.delivery import Delivery
from watcher.domain.envelope import timestamp
from watcher.domain.event import EventKey, EventType
from watcher.domain.event_ids import group_id
from watcher.domain.problems import PROBLEM_KINDS, Problem

KEY = "k" * 32


def clock() -> FakeClock:
    """Return a clock that stands at when the samples were seen."""
    clock = FakeClock()
    clock.passed_s = (AT - clock.now()).total_seconds()
    return clock


def slack(*batch: Delivery) -> list[dict[str, Any]]:
    return [check_slack(message.body) for message in SlackTemplate().messages(batch)]


def pagerduty(*batch: Delivery) -> list[dict[str, Any]]:
    return [check_pagerduty(message.body) for message in PagerDutyTemplate(KEY).messages(batch)]


def alertmanager(*batch: Delivery) -> list[dict[str, Any]]:
    messages = AlertmanagerTemplate(clock()).messages(batch)
    return [alert for message in messages for alert in check_alertmanager(message.body)]


CHECKS: Sequence[tuple[Template, Callable[[bytes], Any]]] = (
    (SlackTemplate(), check_slack),
    (PagerDutyTemplate(KEY), check_pagerduty),
    (AlertmanagerTemplate(clock()), check_alertmanager),
)
NAMES = ("slack", "pagerduty", "alertmanager")
OVERDUE_ENDS = [closing_overdue(EventType(f"execution.{word}")) for word in ("paused", "success", "failed", "lost")]
EVERYTHING = [*map(sample, EventType), *OVERDUE_ENDS]


@pytest.mark.parametrize(("template", "check"), CHECKS, ids=NAMES)
@pytest.mark.parametrize("delivery", EVERYTHING, ids=lambda delivery: delivery.type)
def test_a_receiver_takes_every_event_also_in_minimal_form(
    template: Template, check: Callable[[bytes], Any], delivery: Delivery
) -> None:
    for message in template.messages([delivery]):
        check(message.body)
        assert not message.is_cut
        assert message.id == str(delivery.event_id)
        if message.minimal is not None:
            check(message.minimal())


def huge(type_: EventType, number: int = 1) -> Delivery:
    """Return an event with as much in it as one may hold, all of it hostile."""
    data = data_of(type_, number)
    text = (HOSTILE + '"\\' * 10) * 30
    data["labels"] = {f"{number}.{HOSTILE}"[:256]: HOSTILE * 4 for number in range(32)}
    data["link"] = "https://example.com/" + "x" * 2900
    if "pipeline" in data:
        data["pipeline"]["name"] = text[:2000]
    if "execution" in data:
        data["execution"] |= {"error": text[:2000], "failedNodes": [{"id": "n", "name": text, "error": text}] * 20}
    data["cause"] = text
    return sample(type_, number=number, data=data)


@pytest.mark.parametrize(("template", "check"), CHECKS, ids=NAMES)
@pytest.mark.parametrize("type_", EventType)
def test_a_receiver_takes_the_largest_and_most_hostile_event(
    template: Template, check: Callable[[bytes], Any], type_: EventType
) -> None:
    for message in template.messages([huge(type_)]):
        check(message.body)
        assert all(
            clean(text.replace("\n", "")) == text.replace("\n", "") for text in texts_of(json.loads(message.body))
        )


@pytest.mark.parametrize(("template", "check"), CHECKS, ids=NAMES)
@pytest.mark.parametrize("count", [2, 100, 5_000])
def test_a_receiver_takes_a_group_of_any_size(template: Template, check: Callable[[bytes], Any], count: int) -> None:
    messages = template.messages([failed(number) for number in range(count)])
    for message in messages:
        check(message.body)
        assert message.minimal is not None
        check(message.minimal())
    assert len(messages) == (-(-count // 256) if isinstance(template, AlertmanagerTemplate) else 1)


@pytest.mark.parametrize(("template", "check"), CHECKS, ids=NAMES)
def test_a_receiver_takes_a_group_of_the_largest_and_most_hostile_events(
    template: Template, check: Callable[[bytes], Any]
) -> None:
    for message in template.messages([huge(EventType.EXECUTION_FAILED, number) for number in range(40)]):
        check(message.body)


def test_an_event_is_posted_as_it_is_and_a_batch_is_an_array_of_them() -> None:
    batch = [failed(1), failed(2)]
    (message,) = BatchTemplate().messages(batch)
    assert json.loads(message.body) == [json.loads(delivery.body) for delivery in batch]
    assert message.body == b"[%b,%b]" % (batch[0].body, batch[1].body)
    assert UUID(message.id) == group_id([batch[0].event_id, batch[1].event_id])
    (single,) = BatchTemplate().messages(batch[:1])
    assert (json.loads(single.body), single.id != str(batch[0].event_id)) == ([json.loads(batch[0].body)], True)
    (plain,) = EventTemplate().messages(batch[:1])
    assert (plain.body, plain.id) == (batch[0].body, str(batch[0].event_id))


@pytest.mark.parametrize(("template", "check"), CHECKS, ids=NAMES)
@pytest.mark.parametrize("type_", EventType)
def test_what_people_see_begins_with_the_headline_and_is_harmless_and_holds_no_secret(
    template: Template,
    check: Callable[[bytes], Any],  # noqa: ARG001 (a column of the table)
    type_: EventType,
) -> None:
    for delivery in (sample(type_), huge(type_)):
        for message in template.messages([delivery]):
            lines = template.shown(message.body)
            title = shorten(clean(Alert.read(delivery.body).title), 100)
            assert title.removesuffix("…") in lines[0] or lines[0].startswith("resolves ")
            assert all(clean(line) == line for line in lines)
            assert KEY not in "".join(lines)


def test_a_plain_webhook_is_shown_the_beginning_of_the_event() -> None:
    (line,) = EventTemplate().shown(failed().body)
    assert line == f"{failed().body.decode()[:499]}…"


# Slack


def plain_texts(payload: dict[str, Any]) -> str:
    return "\n".join(texts_of(payload["blocks"]))


def test_slack_says_since_when_a_problem_is_open_though_its_execution_has_ended() -> None:
    failed = data_of(EventType.EXECUTION_FAILED)["execution"]
    reminder = data_of(EventType.PROBLEM_REMINDER) | {"execution": failed}
    (payload,) = slack(sample(EventType.PROBLEM_REMINDER, data=reminder))
    fields = next(block["fields"] for block in payload["blocks"] if "fields" in block)
    opened_at = datetime.fromisoformat(reminder["problem"]["openedAt"])
    assert fields[-1]["text"].startswith(f"Since\n<!date^{int(opened_at.timestamp())}^")


def test_slack_shows_headline_error_facts_ids_and_a_button() -> None:
    data = data_of(EventType.EXECUTION_FAILED) | {"link": "https://example.com/runs/1"}
    (payload,) = slack(sample(EventType.EXECUTION_FAILED, data=data))
    assert payload["text"] == "✕ Sales agent failed at Greeting\nupstream timeout after 30 s"
    kinds = [block["type"] for block in payload["blocks"]]
    assert kinds == ["header", "section", "section", "context", "actions"]
    fields = [field["text"] for field in payload["blocks"][2]["fields"]]
    assert fields[:3] == ["Status\nfailed, was running", "Ran\n2 m 31 s", "Seen after\n0.8 s"]
    assert fields[-1].startswith("Ended\n<!date^1795521631^")
    assert execution_id() in payload["blocks"][3]["elements"][0]["text"]
    assert payload["blocks"][4]["elements"][0]["url"] == "https://example.com/runs/1"


def test_people_see_the_texts_of_slacks_blocks_in_their_order() -> None:
    (message,) = SlackTemplate().messages([failed(link="https://example.com/runs/1")])
    assert SlackTemplate().shown(message.body) == [
        "✕ Sales agent failed at Greeting",
        "upstream timeout after 30 s",
        "Status: failed, was running      Ran: 2 m 31 s",
        "Seen after: 0.8 s                Labels: team=sales",
        "Account: default                 Severity: error",
        "Ended: 2026-11-24 12:00:31 UTC",
        f"pipeline {PIPELINE} · execution {execution_id()} · event {failed().event_id}",
        "[Open]",
    ]


def test_people_see_a_group_as_slack_shows_it() -> None:
    batch = [failed(number, link=f"https://example.com/runs/{number}") for number in range(7)]
    (message,) = SlackTemplate().messages(batch)
    lines = SlackTemplate().shown(message.body)
    assert lines[:6] == [
        "✕ 7 failed in Sales agent (12:00:31-12:00:31 UTC)",
        "7 \N{MULTIPLICATION SIGN} Greeting: upstream timeout after 30 s",
        "The newest 5:",
        "✕ Sales agent failed at Greeting   [Open]",
        "upstream timeout after 30 s",
        execution_id(6),
    ]
    assert lines[-1] == "7 events, 12:00:31-12:00:31 UTC. All of them are on the watcher's stdout."


def test_names_and_errors_are_shown_at_slack_as_they_are_and_obeyed_nowhere() -> None:
    (payload,) = slack(failed(error=HOSTILE, pipeline={"id": PIPELINE, "name": HOSTILE[:60]}))
    shown = clean(HOSTILE)
    assert payload["text"].endswith(shown.replace("<", "&lt;").replace(">", "&gt;"))
    assert payload["blocks"][1]["text"] == {"type": "plain_text", "text": shown, "emoji": False}
    assert payload["blocks"][0]["text"]["text"].startswith("✕ </x> *b* <!channel> @everyone [a](http://e)")


def test_slack_says_since_when_a_problem_is_open_and_how_long_an_execution_was_overdue() -> None:
    (opening,) = slack(sample(EventType.PIPELINE_SILENT))
    assert f"Since\n<!date^{int(OPENED_AT.timestamp())}^" in plain_texts(opening)
    (closing,) = slack(closing_overdue(EventType.EXECUTION_PAUSED))
    assert "Was overdue\n41 m" in plain_texts(closing)


def test_slack_names_other_nodes_that_failed() -> None:
    data = data_of(EventType.EXECUTION_FAILED)
    data["execution"]["failedNodes"] += [{"name": "Booking", "error": "no slot"}]
    (payload,) = slack(sample(EventType.EXECUTION_FAILED, data=data))
    assert "Also failed:\nBooking: no slot" in plain_texts(payload)


def test_slack_gives_up_labels_first_then_other_nodes_then_the_end_of_the_error() -> None:
    data = data_of(EventType.EXECUTION_FAILED)
    data["labels"] = {f"label{number}": "x" * 250 for number in range(10)}
    (message,) = SlackTemplate().messages([sample(EventType.EXECUTION_FAILED, data=data)])
    assert "chars)" in message.body.decode()
    assert message.is_cut
    data["link"] = "https://example.com/" + "x" * 2000
    data["labels"] = {"label": '"' * 250, "other": '"' * 250}
    others = [{"name": "Booking", "error": '"' * 290}] * 4
    data["execution"]["failedNodes"] = [{"name": "Greeting", "error": '"' * 1500}, *others]
    (message,) = SlackTemplate().messages([sample(EventType.EXECUTION_FAILED, data=data)])
    texts = plain_texts(check_slack(message.body))
    assert (len(message.body.decode()) <= MESSAGE_LENGTH, message.is_cut) == (True, True)
    assert ("label=" in texts, "Booking" in texts, '"' * 1500 in texts) == (False, True, True)


def test_good_and_bad_news_never_share_a_message_at_slack() -> None:
    good, bad = slack(failed(1), closing_overdue(EventType.EXECUTION_SUCCESS, 2), failed(3), failed(4))
    assert good["text"].startswith("✓ Sales agent succeeded, no longer overdue")
    assert bad["text"].startswith("✕ 3 failed in Sales agent")


def test_a_group_at_slack_shows_clusters_the_newest_five_and_where_the_rest_is() -> None:
    batch = [failed(number, link=f"https://example.com/{number}") for number in range(5_000)]
    (payload,) = slack(*batch)
    texts = plain_texts(payload)
    assert payload["text"].startswith("✕ 5,000 failed in Sales agent (12:00:31-12:00:31 UTC)")
    assert "5,000 \N{MULTIPLICATION SIGN} Greeting: upstream timeout after 30 s" in texts
    buttons = [block["accessory"]["url"] for block in payload["blocks"] if "accessory" in block]
    assert buttons == [f"https://example.com/{number}" for number in (4999, 4998, 4997, 4996, 4995)]
    shown = sum(execution_id(number) in texts for number in range(5_000))
    assert f"{5_000 - shown:,} ids are left out here" in texts
    assert shown > 150
    assert not SlackTemplate().messages(batch)[0].is_cut


def test_a_group_of_one_looks_like_a_single_message() -> None:
    assert slack(failed())[0]["blocks"][0]["text"]["text"] == "✕ Sales agent failed at Greeting"


# PagerDuty


def test_people_see_an_incident_and_what_is_resolved() -> None:
    template = PagerDutyTemplate(KEY)
    batch = [failed(link="https://example.com/runs/1"), sample(EventType.PIPELINE_RECOVERED)]
    (trigger,), (resolve,) = (template.messages([each]) for each in batch)
    assert template.shown(trigger.body) == [
        "Sales agent failed at Greeting: upstream timeout after 30 s",
        f"severity error · source default/{PIPELINE} · component Greeting · group Sales agent · class execution.failed",
        "[Open execution]",
        f"dedup key {failed().event_id}",
    ]
    assert template.shown(resolve.body) == [f"resolves dedup key {PROBLEM}"]


@pytest.mark.parametrize("type_", EventType)
def test_pagerduty_triggers_and_resolves_under_the_problems_key(type_: EventType) -> None:
    (event,) = pagerduty(sample(type_))
    has_problem = type_ in {*PROBLEM_KINDS, *KINDS_OF_CLOSINGS, EventType.PROBLEM_REMINDER}
    assert event["dedup_key"] == (PROBLEM if has_problem else str(sample(type_).event_id))
    assert event["event_action"] == ("resolve" if type_ in KINDS_OF_CLOSINGS else "trigger")


def test_pagerduty_is_sent_both_where_trouble_ends_a_problem_the_closing_first() -> None:
    resolve, trigger = pagerduty(closing_overdue(EventType.EXECUTION_FAILED))
    assert (resolve["event_action"], resolve["dedup_key"]) == ("resolve", PROBLEM)
    assert trigger["event_action"] == "trigger"
    assert trigger["dedup_key"] == str(closing_overdue(EventType.EXECUTION_FAILED).event_id)
    (only,) = pagerduty(closing_overdue(EventType.EXECUTION_SUCCESS))
    assert only["event_action"] == "resolve"
    (only,) = pagerduty(replace(closing_overdue(EventType.EXECUTION_FAILED), closes_only=True))
    assert only["event_action"] == "resolve"


def test_pagerduty_gets_all_that_is_known() -> None:
    (event,) = pagerduty(failed(link="https://example.com/runs/1"))
    assert event["links"] == [{"href": "https://example.com/runs/1", "text": "Open execution"}]
    assert event["client"] == "clerk-watcher"
    assert event["payload"] == {
        "summary": "Sales agent failed at Greeting: upstream timeout after 30 s",
        "source": f"default/{PIPELINE}",
        "severity": "error",
        "timestamp": timestamp(AT),
        "component": "Greeting",
        "group": "Sales agent",
        "class": "execution.failed",
        "custom_details": json.loads(failed(link="https://example.com/runs/1").body)["data"],
    }


def test_a_group_at_pagerduty_is_one_event_with_all_ids_and_each_problem_its_own() -> None:
    batch = [failed(1), sample(EventType.EXECUTION_OVERDUE, number=2), failed(3), sample(EventType.EXECUTION_SUCCESS)]
    overdue, good, bad = pagerduty(*batch)
    assert overdue["dedup_key"] == PROBLEM
    assert good["payload"]["class"] == "execution.success"
    assert bad["payload"]["custom_details"]["executions"] == [execution_id(3), execution_id(1)]
    assert bad["payload"]["custom_details"]["events"] == [str(failed(3).event_id), str(failed(1).event_id)]
    assert UUID(bad["dedup_key"]) == group_id([failed(1).event_id, failed(3).event_id])


def test_of_the_largest_group_pagerduty_still_gets_every_execution() -> None:
    (message,) = PagerDutyTemplate(KEY).messages([failed(number) for number in range(10_000)])
    details = check_pagerduty(message.body)["payload"]["custom_details"]
    assert (len(details["executions"]), "events" in details, message.is_cut) == (10_000, False, True)


# Alertmanager


def test_people_see_an_alert_with_its_labels() -> None:
    template = AlertmanagerTemplate(clock())
    (message,) = template.messages([sample(EventType.PIPELINE_FAILING)])
    summary, labels, ends = template.shown(message.body)
    assert (summary, ends) == ("Sales agent keeps failing", "ends at 2026-11-24T12:03:31.000Z")
    assert labels.startswith('team="sales", alertname="ClerkPipelineFailing", severity="critical", account="default"')


def test_alertmanager_is_told_what_it_is_and_for_how_long() -> None:
    (alert,) = alertmanager(failed(link="https://example.com/runs/1"))
    assert alert == {
        "labels": {
            "alertname": "ClerkExecutionFailed",
            "severity": "error",
            "account": "default",
            "pipeline": PIPELINE,
            "execution": execution_id(),
            "team": "sales",
        },
        "annotations": {
            "summary": "Sales agent failed at Greeting",
            "description": "upstream timeout after 30 s",
            "node": "Greeting",
            "event_id": str(failed().event_id),
        },
        "startsAt": timestamp(AT),
        "endsAt": timestamp(AT + timedelta(minutes=15)),
        "generatorURL": "https://example.com/runs/1",
    }


@pytest.mark.parametrize(("closing", "kind"), KINDS_OF_CLOSINGS.items())
def test_a_closing_ends_the_alert_of_its_opening_at_alertmanager(closing: EventType, kind: EventType) -> None:
    data = data_of(kind)
    opened = alertmanager(sample(kind))[0]
    closed = alertmanager(sample(closing, data=data | {"problem": problem_block(kind, closed=True)}))[0]
    reminded = alertmanager(sample(EventType.PROBLEM_REMINDER, data=data))[0]
    assert opened["labels"] == closed["labels"] == reminded["labels"]
    assert opened["startsAt"] == closed["startsAt"] == timestamp(OPENED_AT)
    assert opened["endsAt"] == reminded["endsAt"] == timestamp(AT + timedelta(minutes=3))
    assert closed["endsAt"] == timestamp(AT)


def test_alertmanager_is_sent_both_where_trouble_ends_a_problem_the_closing_first() -> None:
    overdue = alertmanager(sample(EventType.EXECUTION_OVERDUE))[0]
    closed, lost = alertmanager(closing_overdue(EventType.EXECUTION_LOST))
    assert closed["labels"] == overdue["labels"]
    assert (closed["endsAt"], lost["labels"]["alertname"]) == (timestamp(AT), "ClerkExecutionLost")
    (only,) = alertmanager(closing_overdue(EventType.EXECUTION_SUCCESS))
    assert only["labels"] == overdue["labels"]
    (only,) = alertmanager(replace(closing_overdue(EventType.EXECUTION_LOST), closes_only=True))
    assert only["labels"] == overdue["labels"]


def test_a_sink_that_is_disabled_while_it_fails_is_the_same_alert() -> None:
    data = data_of(EventType.SINK_DISABLED) | {"problem": problem_block(EventType.SINK_FAILING)}
    (disabled,) = alertmanager(sample(EventType.SINK_DISABLED, data=data))
    assert disabled["labels"] == alertmanager(sample(EventType.SINK_FAILING))[0]["labels"]
    assert disabled["annotations"]["summary"] == "Sink ops is disabled (503)"


def test_labels_of_the_user_get_names_that_alertmanager_takes_and_never_ours() -> None:
    labels = {"team.name": "sales", "1st": "x", "größe": "L", "severity": "low", "alertname": "Mine", "empty": ""}
    (alert,) = alertmanager(failed(labels=labels))
    assert alert["labels"] | {"team_name": "sales", "_1st": "x", "gr__e": "L"} == alert["labels"]
    assert (alert["labels"]["severity"], alert["labels"]["alertname"]) == ("error", "ClerkExecutionFailed")
    assert "empty" not in alert["labels"]


def test_no_alert_ends_before_it_starts_however_the_clocks_stand() -> None:
    now = clock()
    template = AlertmanagerTemplate(now)
    for passed_s in (-86_400.0, 0.0, 86_400.0):
        now.passed_s = passed_s
        for delivery in EVERYTHING:
            for message in template.messages([delivery]):
                check_alertmanager(message.body)


def test_what_is_posted_late_is_still_an_alert_for_five_minutes() -> None:
    now = clock()
    now.passed_s += 3600
    (message,) = AlertmanagerTemplate(now).messages([failed()])
    (alert,) = check_alertmanager(message.body)
    assert alert["endsAt"] == timestamp(AT + timedelta(minutes=65))
    assert ended_after(alert) == timedelta(minutes=65)


def problem(kind: EventType) -> Problem:
    return Problem(UUID(PROBLEM), kind, OPENED_AT, EventKey(b"s", 1))


@pytest.mark.parametrize("kind", sorted(PROBLEM_KINDS))
def test_a_refresh_is_the_alert_of_the_opening_for_longer_or_until_it_was_closed(kind: EventType) -> None:
    now = clock()
    template = AlertmanagerTemplate(now)
    opened = alertmanager(sample(kind))[0]
    now.passed_s += 60
    (message,) = template.refresh([SentProblem(sample(kind).body, problem(kind))])
    (refreshed,) = check_alertmanager(message.body)
    assert refreshed == opened | {"endsAt": timestamp(AT + timedelta(minutes=4))}
    (message,) = template.refresh([SentProblem(sample(kind).body, problem(kind), closed_at=AT)])
    (closed,) = check_alertmanager(message.body)
    assert closed == opened | {"endsAt": timestamp(AT)}


def test_a_problem_opened_by_an_event_of_an_earlier_version_is_refreshed() -> None:
    data = data_of(EventType.ACCOUNT_DEGRADED)
    del data["problem"]
    sent = SentProblem(sample(EventType.ACCOUNT_DEGRADED, data=data).body, problem(EventType.ACCOUNT_DEGRADED))
    (message,) = AlertmanagerTemplate(clock()).refresh([sent])
    assert check_alertmanager(message.body)[0]["labels"]["alertname"] == "ClerkAccountDegraded"


def test_many_problems_are_refreshed_in_several_requests() -> None:
    sent = SentProblem(sample(EventType.PIPELINE_SILENT).body, problem(EventType.PIPELINE_SILENT))
    messages = AlertmanagerTemplate(clock()).refresh([sent] * 600)
    assert [len(check_alertmanager(message.body)) for message in messages] == [256, 256, 88]
