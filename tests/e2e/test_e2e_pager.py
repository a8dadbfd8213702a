"""A pager and the real program: executions that hang together page once, over kills and a reload, and are resolved."""

import json

import pytest
from e2e.stage import Document, Stage, all_have_ended, document_of, watches_of, world_of
from pager_rig import FakePagerDuty
from receiver import Receiver
from worker_rig import FakeClock

pytestmark = pytest.mark.ci


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
