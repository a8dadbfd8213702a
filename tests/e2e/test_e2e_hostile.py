"""Whatever names, errors, labels, statuses and answers hold does no harm, neither at a receiver nor on a terminal."""

import json
import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Any
from uuid import UUID

from e2e.stage import Stage, document_of
from receivers_rules import CHECKS, texts_of
from sample_events import hostile_text

from watcher.runtime.clock import Clock
from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.world import Lifecycle, Node, StatusPhase, World

KEY = "k" * 32
ENDS = {"events": ["execution.failed", "execution.unrecognized"]}
KINDS: Mapping[str, tuple[Callable[[bytes], Any], Mapping[str, Any]]] = {
    "plain": (json.loads, {}),
    "batch": (json.loads, {"group": {"wait": "200ms"}}),
    **{name: (check, {"template": name, "rate_limit": "1000/s"}) for name, check in CHECKS.items()},
    "pagerduty": (CHECKS["pagerduty"], {"template": "pagerduty", "routing_key": KEY, "rate_limit": "1000/s", **ENDS}),
}
COUNT = 40
OBEYED = re.compile(rb"[\x00-\x1f\x7f]")
STYLE = re.compile(r"\x1b\[[0-9;]*m|\x1b\[[012]?K|\x1b\[1A|\x1b\[[?]25[lh]|\r")


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


async def test_no_terminal_obeys_what_a_receiver_answers_to_a_test(stage: Stage) -> None:
    said = hostile_text(Random(400), count=60).encode()
    receiver = await stage.listener(code=400, body=said)
    sinks = {kind: {"type": "webhook", "url": f"{receiver.url}/hush", **keys} for kind, (_, keys) in KINDS.items()}
    document = document_of({}, sinks) | {"watch": [{"pipeline": str(UUID(int=1))}]}
    document["accounts"] = {"default": {"api_key": "k", "base_url": receiver.url}}
    screen = await stage.terminal("check", "--send", "--config", str(stage.write(document)), columns=120)
    await screen.end()
    rest = STYLE.sub("", screen.written)
    assert "sinks.slack  http://127.0.0.1" in rest
    assert all(each.isprintable() for each in rest if each != "\n")
    assert "hush" not in rest
    assert KEY not in rest
