"""The whole program beside the real Alertmanager: what a person on call is notified of, and when it is over."""

from collections import Counter
from contextlib import AsyncExitStack
from uuid import UUID

import pytest
from aiohttp import web
from alertmanager import Alertmanager, Notifications, installed
from e2e.stage import Stage, all_have_ended, document_of, world_of

from watcher.runtime.clock import Clock
from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.world import Lifecycle, StatusPhase, World
from watcher.sinks.alertmanager import REFRESH_EVERY_S

pytestmark = installed


async def serve(notifications: Notifications, stage: Stage, stack: AsyncExitStack) -> str:
    """Take notifications of Alertmanager; return where."""

    async def take(request: web.BaseRequest) -> web.Response:
        notifications.take(await request.read())
        stage.board.notice()
        return web.Response()

    runner = web.ServerRunner(web.Server(take), shutdown_timeout=0.1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


async def test_each_failure_is_notified_once_and_each_overdue_execution_is_over_when_it_moves(stage: Stage) -> None:
    world, notifications = world_of(40, ends_within_s=9.0, ends_after_s=3.0), Notifications()
    simulator = await stage.simulator(world)
    async with AsyncExitStack() as stack:
        hook = await serve(notifications, stage, stack)
        alertmanager = await stack.enter_async_context(Alertmanager(stage.folder, hook=hook))
        sinks = {"alerts": {"type": "webhook", "template": "alertmanager", "url": alertmanager.url}}
        document = document_of({"eu": simulator}, sinks)
        for watch in document["watch"]:
            watch["overdue_after"] = {"running": "500ms"}
        life = await stage.start(document)
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
    assert await life.stop() == 0


@pytest.mark.long
async def test_killed_it_has_an_open_problem_again_within_a_refresh_and_resolves_it(stage: Stage) -> None:
    world, notifications = World(Clock()), Notifications()
    phases = (StatusPhase("running", 0.0), StatusPhase("success", REFRESH_EVERY_S + 20))
    execution = world.add(Lifecycle(str(UUID(int=1)), phases), pipeline=pipeline_named("Sales agent"))
    simulator = await stage.simulator(world)
    overdue = f"ClerkExecutionOverdue {execution.id}"
    async with AsyncExitStack() as stack:
        hook = await serve(notifications, stage, stack)
        alertmanager = await stack.enter_async_context(Alertmanager(stage.folder, hook=hook))
        sinks = {"alerts": {"type": "webhook", "template": "alertmanager", "url": alertmanager.url}}
        document = document_of({"eu": simulator}, sinks)
        document["watch"][0]["overdue_after"] = {"running": "500ms"}
        life = await stage.start(document)
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
    assert await life.stop() == 0
