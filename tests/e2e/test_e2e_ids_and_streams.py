"""One id for an event wherever it is told, one line for each however slowly it is read, and no text is obeyed."""

import json
import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Any
from uuid import UUID

import pytest
from e2e import checks
from e2e.programme import Life
from e2e.stage import ENDS, Stage, all_have_ended, document_of, webhook, world_of
from receivers_rules import CHECKS, texts_of
from sample_events import hostile_text

from watcher.runtime.clock import Clock
from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.world import Lifecycle, Node, StatusPhase, World


@pytest.mark.ci
async def test_a_failure_has_one_id_in_two_programs_and_from_an_empty_store(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(20, ends_after_s=1.0, ends_within_s=2.0))
    document = document_of({"default": simulator})

    async def begin(name: str) -> Life:
        return await stage.start(document | {"store": {"url": f"sqlite:///{name}.db"}}, name=name)

    lives = [await begin("first"), await begin("other")]
    await lives[0].until(
        lambda: all(all_have_ended(each.events(), simulator.world) for each in lives), what="both told all"
    )
    assert [await each.stop() for each in lives] == [0, 0]
    (stage.folder / "first.db").unlink()
    again = await begin("first")
    await again.until(lambda: all_have_ended(again.events(), simulator.world), what="all was told from an empty store")
    assert await again.stop() == 0
    ends = [
        {(event["subject"], event["id"]) for event in life.events() if event["type"] in ENDS} for life in stage.lives
    ]
    assert ends[0] == ends[1] == ends[2]
    assert {UUID(id_).version for _, id_ in ends[0]} == {5}


@pytest.mark.ci
async def test_a_reader_that_stands_still_loses_nothing_and_delays_nobody(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(60, ends_after_s=3.0, ends_within_s=4.0))
    receiver = await stage.receiver()
    life = await stage.start(document_of({"default": simulator}, {"ops": webhook(receiver)}))
    life.stdout.stop_reading()
    await life.until(lambda: all_have_ended(receiver.events(), simulator.world), what="all was sent")
    unread_count = len(life.emitted)
    life.stdout.read_on()
    await life.until(lambda: all_have_ended(life.events(), simulator.world), what="all was printed")
    assert await life.stop() == 0

    assert unread_count < len(life.emitted) / 2
    assert life.stdout.lines.tail == b""
    assert sorted(life.emitted) == sorted(receiver.kept())
    assert checks.of_everything_answered(life.emitted, simulator) == []


async def test_a_reader_that_leaves_ends_the_program_and_the_next_one_gets_the_rest(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(20, ends_after_s=2.0, ends_within_s=15.0))
    document = document_of({"default": simulator})
    life = await stage.start(document)
    await life.until(lambda: life.emitted, what="a line was printed")
    life.stdout.leave()
    assert await life.end() == 1
    assert "stdout was closed by its reader" in life.stderr.lines.everything().decode()

    second = await stage.start(document)
    await second.until(
        lambda: all_have_ended([*life.events(), *second.events()], simulator.world), what="all was printed"
    )
    assert await second.stop() == 0
    bodies = [*life.emitted, *second.emitted]
    assert checks.of_sequences(bodies) == []
    assert checks.of_truth(bodies, simulator) == []


KEY = "k" * 32
FAILURES = {"rate_limit": "1000/s", "events": ["execution.failed", "execution.unrecognized"]}
KINDS: Mapping[str, tuple[Callable[[bytes], Any], Mapping[str, Any]]] = {
    "plain": (json.loads, {}),
    "batch": (json.loads, {"group": {"wait": "200ms"}}),
    **{name: (check, {"template": name, "rate_limit": "1000/s"}) for name, check in CHECKS.items()},
    "pagerduty": (
        CHECKS["pagerduty"],
        {"template": "pagerduty", "routing_key": KEY, **FAILURES},
    ),
}
COUNT = 24
OBEYED = re.compile(rb"[\x00-\x1f\x7f]")


def hostile_world(seed: int) -> World:
    """Return executions of which each second fails, and the others are in a status that nobody documented."""
    world, dice = World(Clock()), Random(seed)
    for number in range(COUNT):
        node = Node(str(UUID(int=number + 1)), "1", hostile_text(dice), 0.0, 1.0, error=hostile_text(dice, count=40))
        phases = (StatusPhase("running", 0.0), StatusPhase(hostile_text(dice) if number % 2 else "failed", 1.0))
        lifecycle = Lifecycle(
            str(UUID(int=dice.getrandbits(128), version=4)), phases, nodes=(node,) * dice.randint(1, 3)
        )
        world.add(lifecycle, pipeline=pipeline_named(hostile_text(dice), seed=number % 4))
    return world


async def test_no_receiver_obeys_what_the_api_or_the_file_calls_something(stage: Stage) -> None:
    dice, world = Random(2), hostile_world(1)
    simulator = await stage.simulator(world)
    said = {"discord": b'{"embeds":[]}'}
    receivers = {kind: await stage.listener(body=said.get(kind, b"ok")) for kind in KINDS}
    sinks = {kind: {"type": "webhook", "url": receivers[kind].url, **keys} for kind, (_, keys) in KINDS.items()}
    document = document_of({"eu": simulator}, sinks)
    document["accounts"]["eu"]["link"] = "https://example.com/{executionId}"
    for watch in document["watch"]:
        watch["labels"] = {hostile_text(dice, count=3): hostile_text(dice) for _ in range(3)}
    life = await stage.start(document)
    ids = {execution.id for execution in world.executions()}

    def all_delivered() -> bool:
        bodies = [b"\n".join(request.body for request in receiver.requests) for receiver in receivers.values()]
        return all(id_.encode() in body for body in bodies for id_ in ids)

    await life.until(all_delivered, what="everything was delivered everywhere")
    assert await life.stop() == 0
    assert len(life.events("execution.failed")) == len(life.events("execution.unrecognized")) == COUNT / 2
    assert not any(OBEYED.search(line) for line in life.emitted)
    for kind, receiver in receivers.items():
        for request in receiver.requests:
            KINDS[kind][0](request.body)
            assert not OBEYED.search(request.body)
            if kind not in {"plain", "batch"}:
                assert all(text.replace("\n", "").isprintable() for text in texts_of(json.loads(request.body)))
