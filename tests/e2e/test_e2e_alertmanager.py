"""The whole program beside the real Alertmanager: what a person on call is notified of, and when it is over."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import pytest
from aiohttp import web
from alertmanager import Alertmanager, Notifications, installed
from e2e.programme import Life
from e2e.stage import Stage, all_have_ended, document_of, world_of

from watcher.runtime.clock import Clock
from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.world import Lifecycle, StatusPhase, World
from watcher.sinks.alertmanager import REFRESH_EVERY_S

pytestmark = [installed, pytest.mark.untraced]


@asynccontextmanager
async def alerting(stage: Stage, world: World) -> AsyncIterator[tuple[Life, Alertmanager, Notifications]]:
    """Let the program watch a world and alert by a real Alertmanager, whose notifications are noted."""
    notifications = Notifications()

    async def take(request: web.BaseRequest) -> web.Response:
        notifications.take(await request.read())
        stage.board.notice()
        return web.Response()

    async with AsyncExitStack() as stack:
        runner = web.ServerRunner(web.Server(take), shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        hook = f"http://127.0.0.1:{runner.addresses[0][1]}"
        alertmanager = await stack.enter_async_context(Alertmanager(stage.folder, hook=hook))
        sinks = {"alerts": {"type": "webhook", "template": "alertmanager", "url": alertmanager.url}}
        document = document_of({"eu": await stage.simulator(world)}, sinks)
        for watch in document["watch"]:
            watch["overdue_after"] = {"running": "500ms"}
        life = await stage.start(document)
        yield life, alertmanager, notifications
    assert await life.stop() == 0


async def test_each_failure_is_notified_once_and_each_overdue_execution_is_over_when_it_moves(stage: Stage) -> None:
    world = world_of(40, ends_within_s=9.0, ends_after_s=3.0)
    async with alerting(stage, world) as (life, alertmanager, notifications):
        await life.until(lambda: all_have_ended(life.events(), world), what="all had ended")
        failed = {f"ClerkExecutionFailed {event['subject']}" for event in life.events("execution.failed")}
        # one that runs again after a pause may be overdue again
        overdue = Counter(f"ClerkExecutionOverdue {event['subject']}" for event in life.events("execution.overdue"))
        assert failed
        assert overdue
        await alertmanager.until(failed, within_s=10)
        await stage.board.until(
            lambda: failed <= set(notifications.names("firing")) == failed | set(notifications.names("resolved")),
            what="each beginning and end was notified",
        )
    assert Counter(notifications.names("firing")) <= overdue + Counter(failed)
    assert Counter(notifications.names("resolved")) <= overdue


@pytest.mark.long
async def test_killed_it_has_an_open_problem_again_within_a_refresh_and_resolves_it(stage: Stage) -> None:
    world = World(Clock())
    phases = (StatusPhase("running", 0.0), StatusPhase("success", REFRESH_EVERY_S + 20))
    execution = world.add(Lifecycle(str(UUID(int=1)), phases), pipeline=pipeline_named("Sales agent"))
    overdue = f"ClerkExecutionOverdue {execution.id}"
    async with alerting(stage, world) as (life, alertmanager, notifications):
        await life.until(lambda: life.events("execution.overdue"), what="it was overdue")
        await alertmanager.until({overdue}, within_s=10)
        await alertmanager.kill()
        await alertmanager.start()
        assert await alertmanager.alerts() == {}
        await alertmanager.until({overdue}, within_s=REFRESH_EVERY_S + 5)
        assert len(life.events("execution.overdue")) == 1
        await life.until(lambda: life.events("execution.success"), what="it had ended")
        await alertmanager.until(frozenset(), within_s=10)
        await stage.board.until(lambda: notifications.names("resolved") == [overdue], what="its end was notified")
