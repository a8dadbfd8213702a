"""The whole program beside the real Alertmanager: what a person on call is notified of, and when it is over."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from alertmanager import Alertmanager, Notifications, installed
from e2e.programme import Life
from e2e.stage import Stage, all_have_ended, document_of, world_of
from receiver import Receiver

from watcher.runtime.clock import Clock
from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.world import Lifecycle, StatusPhase, World
from watcher.sinks.alertmanager import REFRESH_EVERY_S

pytestmark = [installed]


@asynccontextmanager
async def alerting(stage: Stage, world: World) -> AsyncIterator[tuple[Life, Alertmanager, Receiver]]:
    """Let the program watch a world and alert by a real Alertmanager, whose notifications go to a hook."""
    hook = await stage.listener()
    async with Alertmanager(stage.folder, hook=hook.url) as alertmanager:
        sinks = {"alerts": {"type": "webhook", "template": "alertmanager", "url": alertmanager.url}}
        document = document_of({"eu": await stage.simulator(world)}, sinks)
        for watch in document["watch"]:
            watch["overdue_after"] = {"running": "500ms"}
        life = await stage.start(document)
        yield life, alertmanager, hook
    assert await life.stop() == 0


def notified(hook: Receiver, status: str) -> list[str]:
    """Return the alerts of which the hook was notified with this status."""
    notifications = Notifications()
    for request in hook.requests:
        notifications.take(request.body)
    return notifications.names(status)


@pytest.mark.ci
async def test_each_failure_is_notified_once_and_each_overdue_execution_is_over_when_it_moves(stage: Stage) -> None:
    world = world_of(40, ends_within_s=9.0, ends_after_s=3.0)
    async with alerting(stage, world) as (life, alertmanager, hook):
        await life.until(lambda: all_have_ended(life.events(), world), what="all had ended")
        failed = {f"ClerkExecutionFailed {event['subject']}" for event in life.events("execution.failed")}
        # one that runs again after a pause may be overdue again
        overdue = Counter(f"ClerkExecutionOverdue {event['subject']}" for event in life.events("execution.overdue"))
        assert failed
        assert overdue
        await alertmanager.until(failed, within_s=10)
        await stage.board.until(
            lambda: failed <= set(notified(hook, "firing")) == failed | set(notified(hook, "resolved")),
            what="each beginning and end was notified",
        )
    assert Counter(notified(hook, "firing")) <= overdue + Counter(failed)
    assert Counter(notified(hook, "resolved")) <= overdue


@pytest.mark.ci
async def test_killed_it_has_an_open_problem_again_within_a_refresh_and_resolves_it(stage: Stage) -> None:
    world = World(Clock())
    phases = (StatusPhase("running", 0.0), StatusPhase("success", REFRESH_EVERY_S + 20))
    execution = world.add(Lifecycle(str(UUID(int=1)), phases), pipeline=pipeline_named("Sales agent"))
    overdue = f"ClerkExecutionOverdue {execution.id}"
    async with alerting(stage, world) as (life, alertmanager, hook):
        await life.until(lambda: life.events("execution.overdue"), what="it was overdue")
        await alertmanager.until({overdue}, within_s=10)
        await alertmanager.kill()
        await alertmanager.start()
        assert await alertmanager.alerts() == {}
        await alertmanager.until({overdue}, within_s=REFRESH_EVERY_S + 5)
        assert len(life.events("execution.overdue")) == 1
        await life.until(lambda: life.events("execution.success"), what="it had ended")
        await alertmanager.until(frozenset(), within_s=10)
        await stage.board.until(lambda: notified(hook, "resolved") == [overdue], what="its end was notified")
