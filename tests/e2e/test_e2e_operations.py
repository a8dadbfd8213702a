"""What people do with running programs, over the store as any replica does it: kept through a kill, done elsewhere."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from e2e.endpoint import Answer, Receiver
from e2e.stage import FAILING, Document, Stage, document_of, failing_world, webhook
from stores import operator_of

from watcher.runtime.clock import Clock
from watcher.simulator.server import Simulator
from watcher.store.operator_store import OperatorStore
from watcher.store.sql_store import open_store

pytestmark = pytest.mark.ci


def watching(simulator: Simulator, receiver: Receiver, *events: str, every: str = "300ms") -> Document:
    document = document_of({"default": simulator}, {"ops": webhook(receiver, events=list(events))})
    document["watch"] = [{"pipeline": FAILING.id, "account": "default", "rules": {"failing": {"consecutive": 3}}}]
    document["polling"] = {"min_interval": every, "max_interval": every, "first_sight": "notify", "cadence": "fixed"}
    return document


@asynccontextmanager
async def another_replica(stage: Stage) -> AsyncIterator[OperatorStore]:
    """Give what a replica of this process does for people, which owns nothing."""
    store = await open_store(stage.store_url, clock=Clock())
    yield operator_of(store)
    await store.close()


async def all_done(operator: OperatorStore, *, within_s: float) -> None:
    """Return once all is done that owners are asked for."""
    deadline = time.monotonic() + within_s
    while asked := await operator.load_actions():
        assert time.monotonic() < deadline, asked


async def test_a_problem_that_was_taken_stays_taken_through_a_kill_and_whoever_was_told_hears_of_it(
    postgres_stage: Stage,
) -> None:
    stage = postgres_stage
    simulator, receiver = await stage.simulator(failing_world()), await stage.receiver()
    document = watching(simulator, receiver, "pipeline.failing")
    document["sinks"]["ops"]["remind_every"] = "2s"
    document["sinks"]["other"] = webhook(await stage.receiver(), events=["execution.lost"])
    life = await stage.start(document)
    await life.until(lambda: receiver.events("problem.reminder"), what="it was reminded of")
    problem = UUID(receiver.events("pipeline.failing")[0]["data"]["problem"]["id"])
    async with another_replica(stage) as operator:
        assert await operator.acknowledge(problem, by="dana", comment="on it", until=None)
        await life.kill()
        life = await stage.start(document)
        await life.until(lambda: receiver.events("problem.acknowledged"), what="it was said that somebody took it")
        (taken,) = receiver.events("problem.acknowledged")
        assert taken["data"]["acknowledgement"] == {"by": "dana", "comment": "on it"}
        assert taken["sequence"] == "0000000001"
        count = len(receiver.events("problem.reminder"))
        assert await operator.unacknowledge(problem)
        await life.until(lambda: len(receiver.events("problem.reminder")) > count, what="it was reminded of again")
    told = {"pipeline.failing", "problem.reminder", "problem.acknowledged"}
    assert {event["type"] for event in receiver.events()} == told
    assert await life.stop() == 0


async def test_a_silence_holds_within_a_second_and_right_after_a_start_until_it_is_ended(postgres_stage: Stage) -> None:
    stage = postgres_stage
    simulator, receiver = await stage.simulator(failing_world(40, last_at_s=40.0)), await stage.receiver()
    document = watching(simulator, receiver, "execution.failed", "pipeline.failing")
    life = await stage.start(document)
    await life.until(lambda: receiver.events("execution.failed"), what="something was sent")
    async with another_replica(stage) as operator:
        now = Clock().now()
        match = '{"events": ["execution.*"]}'
        made = await operator.add_silence(match, starts_at=now, ends_at=now + timedelta(hours=1), by=None, comment="x")
        made_at = time.monotonic()
        await life.until(lambda: life.logged("silence.began"), what="the silence began")
        assert time.monotonic() - made_at < 2.5  # a second, and a busy machine
        before = len(receiver.events("execution.failed"))
        await life.kill()
        life = await stage.start(document)
        await life.until(lambda: len(life.events("execution.failed")) >= 2, what="more failed, and stdout heard of it")
        assert len(receiver.events("execution.failed")) - before <= 1  # that was on its way
        assert await operator.end_silence(made.id)
        await life.until(lambda: life.logged("silence.ended"), what="the silence ended")
        before = len(receiver.events("execution.failed"))
        await life.until(lambda: len(receiver.events("execution.failed")) > before, what="something was sent again")
    assert await life.stop() == 0


async def test_owners_elsewhere_read_a_list_and_serve_a_sink_again_and_dead_letters_are_sent_again(
    postgres_stage: Stage,
) -> None:
    stage = postgres_stage
    simulator, receiver = await stage.simulator(failing_world(2, last_at_s=2.0)), await stage.receiver()
    receiver.choose = lambda _: Answer.REJECT
    document = watching(simulator, receiver, "execution.failed", every="60s")
    life = await stage.start(document)
    await life.started()
    async with another_replica(stage) as operator:
        deadline = time.monotonic() + 20
        while not life.events("execution.failed"):
            assert time.monotonic() < deadline
            await operator.request_action("scan", f"default/{FAILING.id}")
            await all_done(operator, within_s=5)
        await life.until(lambda: life.logged("delivery.dead"), what="it was refused for good")
        receiver.choose = lambda _: Answer.TAKE
        assert await operator.replay("ops", None) >= 1
        await life.until(receiver.events, what="it was sent again")
        await operator.request_action("enable", "ops")
        await all_done(operator, within_s=5)
        await life.until(lambda: life.logged("sink.enabled"), what="it was enabled")
    assert await life.stop() == 0
