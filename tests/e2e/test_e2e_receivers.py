"""What receivers are told together: a storm in few requests, a pager once, and the real Alertmanager's notices."""

import json
import re
from collections import Counter
from typing import Any

import pytest
from alertmanager import Alertmanager, Notifications, installed
from e2e.programme import PATIENCE_S
from e2e.stage import ENDS, Document, Stage, all_have_ended, document_of, grouped, watches_of, world_of
from night import SHORT, WHOLE, Night, broken, spend, table
from pager_rig import FakePagerDuty
from receiver import Receiver
from worker_rig import FakeClock

BATCH_TYPE = "application/cloudevents-batch+json; charset=utf-8"


async def test_a_storm_of_ends_arrives_in_few_batches_and_messages_with_all_of_them(stage: Stage) -> None:
    count, most = 300, 50
    simulator = await stage.simulator(world_of(count, ends_after_s=2.0, ends_within_s=6.0))
    batches, chat = await stage.receiver(), await stage.listener(body=b"ok")
    slack = {"type": "webhook", "template": "slack", "url": chat.url, "events": ["execution.failed"]}
    sinks = {
        "ops": grouped(batches, wait_s=2.0, most=most, events=sorted(ENDS)),
        "slack": slack | {"group": {"by": ["account"], "wait": "2s"}},
    }
    life = await stage.start(document_of({"default": simulator}, sinks))
    await life.until(lambda: all_have_ended(batches.events(), simulator.world), what="all ends were told")
    failed = batches.events("execution.failed")
    await life.until(lambda: sum(map(_failed_count, chat.requests)) == len(failed), what="the chat counted them all")
    assert await life.stop() == 0
    sent = [event["id"] for attempt in batches.attempts for event in attempt.events]
    assert (len(sent), len(set(sent))) == (count, count)
    assert {attempt.headers["Content-Type"] for attempt in batches.attempts} == {BATCH_TYPE}
    assert max(len(attempt.events) for attempt in batches.attempts) == most
    assert len(batches.attempts) + len(chat.requests) < count / 10
    assert batches.forgeries == []


def _failed_count(request: Any) -> int:
    found = re.match(r"✕ ([\d,]+) failed ", json.loads(request.body)["text"])
    return 1 if found is None else int(found[1].replace(",", ""))


def pager(listener: Receiver, *, by: str) -> Document:
    return {
        "type": "webhook",
        "template": "pagerduty",
        "routing_key": "k" * 32,
        "url": listener.url,
        "events": ["execution.overdue"],
        "rate_limit": "50/s",
        "group": {"by": [by], "wait": "1s"},
    }


def as_pagerduty_has_it(listener: Receiver) -> FakePagerDuty:
    pagerduty = FakePagerDuty(FakeClock())
    for request in listener.requests:
        pagerduty.take(json.loads(request.body))
    return pagerduty


@pytest.mark.ci
async def test_executions_that_hang_together_page_once_and_are_resolved_over_kills_and_a_reload(stage: Stage) -> None:
    listener = await stage.listener(code=202)
    simulator = await stage.simulator(world_of(24, ends_after_s=10, ends_within_s=20))
    document = document_of({"default": simulator}, {"phone": pager(listener, by="account")})
    limits = dict.fromkeys(("new", "running", "paused"), "300ms")
    document["watch"] = [watch | {"overdue_after": limits} for watch in watches_of(simulator.world, "default")]
    life = await stage.start(document)
    await life.until(lambda: listener.requests, what="it paged")
    await life.kill()
    document["sinks"]["phone"] = pager(listener, by="pipeline")
    again = await stage.start(document)
    await again.until(lambda: len(listener.requests) > 5, what="it said how the incidents stand")
    await again.kill()
    last = await stage.start(document)
    lives = (life, again, last)
    await last.until(
        lambda: (
            all_have_ended([event for each in lives for event in each.events()], simulator.world)
            and not as_pagerduty_has_it(listener).open()
        ),
        what="all have ended, and all is resolved",
    )
    assert await last.stop() == 0
    pagerduty = as_pagerduty_has_it(listener)
    assert (pagerduty.complaints, pagerduty.open()) == ([], [])
    assert "executions overdue in account default" in pagerduty.summaries()[0]
    assert len(pagerduty.pages) < 8


def notified(hook: Receiver, status: str) -> list[str]:
    """Return the alerts of which the hook was notified with this status."""
    notifications = Notifications()
    for request in hook.requests:
        notifications.take(request.body)
    return notifications.names(status)


@pytest.mark.ci
@installed
async def test_each_failure_is_notified_once_and_each_overdue_execution_is_over_when_it_moves(stage: Stage) -> None:
    world = world_of(30, ends_within_s=12.0, ends_after_s=4.0)
    hook = await stage.listener()
    alertmanager = await stage.enter(Alertmanager(stage.folder, hook=hook.url))
    sinks = {"alerts": {"type": "webhook", "template": "alertmanager", "url": alertmanager.url}}
    document = document_of({"eu": await stage.simulator(world)}, sinks)
    document["watch"] = [watch | {"overdue_after": {"running": "500ms"}} for watch in document["watch"]]
    life = await stage.start(document)
    await life.until(lambda: all_have_ended(life.events(), world), what="all had ended")
    failed = {f"ClerkExecutionFailed {event['subject']}" for event in life.events("execution.failed")}
    # one that runs again after a pause may be overdue again
    overdue = Counter(f"ClerkExecutionOverdue {event['subject']}" for event in life.events("execution.overdue"))
    assert failed
    assert overdue
    await alertmanager.until(failed, within_s=PATIENCE_S)
    await stage.board.until(
        lambda: failed <= set(notified(hook, "firing")) == failed | set(notified(hook, "resolved")),
        what="each beginning and end was notified",
    )
    assert await life.stop() == 0
    assert Counter(notified(hook, "firing")) <= overdue + Counter(failed)
    assert Counter(notified(hook, "resolved")) <= overdue


@pytest.mark.soak
@pytest.mark.parametrize("night", [SHORT, WHOLE], ids=["short", "whole"])
async def test_a_night_of_trouble_rings_for_the_outage_and_does_not_drown_the_chat(stage: Stage, night: Night) -> None:
    outcome = await spend(stage, night)
    assert broken(outcome) == [], table(outcome)
