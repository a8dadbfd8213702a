"""The rules `slow`, `also`, `tokens` and `new_error` of the real program, over a `kill -9`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from e2e import checks
from e2e.stage import ENDS, POLLING, Stage, document_of, webhook

from watcher.domain.history import error_kind_of
from watcher.runtime.clock import Clock
from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.world import Kind, Lifecycle, Node, StatusPhase, World, make_lifecycle

pytestmark = pytest.mark.ci

SALES = pipeline_named("Sales agent", seed=1)
RULES = {
    "failing": {"consecutive": 3, "also": {"shorter_than": "150ms"}},
    "slow": {"times": 3, "at_least": "3s"},
    "tokens": {"execution": 1000, "per_day": 4000},
    "new_error": True,
}
KNOWN, LATER, LAST = "upstream timeout after 30 s", "the contact has opted out", "the model returned no answer"


class Pipeline:
    """A pipeline whose executions begin when a test says so."""

    def __init__(self) -> None:
        self.world = World(Clock())
        self.world.pipelines[SALES.id] = SALES
        self.count = 0

    def begin(self, *, seconds: float, tokens: int = 0, error: str | None = None, in_s: float = 0.0) -> str:
        """Begin an execution that takes so long and uses so many tokens; return its id."""
        self.count += 1
        node = Node("n1", "1", "Greeting", 0.0, seconds, error=error, tokens=tokens)
        status = "success" if error is None else "failed"
        phases = StatusPhase("running", 0.0), StatusPhase(status, seconds)
        model = make_lifecycle(1, index=self.count, kind=Kind.QUICK)
        lifecycle: Lifecycle = replace(model, phases=phases, nodes=(node,), error=error and f"Greeting: {error}")
        return self.world.add(lifecycle, pipeline=SALES, begins_s=self.world.now_s() + in_s).id


def ids_of(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["data"]["execution"]["id"] for event in events]


async def test_what_is_slow_expensive_and_new_is_reported_once_over_a_kill(stage: Stage) -> None:
    pipeline = Pipeline()
    first_error = pipeline.begin(seconds=0.5, error=KNOWN)
    simulator = await stage.simulator(pipeline.world)
    receiver = await stage.receiver()
    document = document_of({"default": simulator}, {"ops": webhook(receiver)}, rate_limit="40/s")
    document["watch"] = [{"pipeline": SALES.id, "account": "default", "rules": RULES}]
    document["polling"] = POLLING | {"first_sight": "notify", "details": "failed"}

    def ended_count() -> int:
        return len({event["subject"] for event in receiver.events() if event["type"] in ENDS})

    life = await stage.start(document)
    await life.started()
    for number in range(32):
        pipeline.begin(seconds=0.6 + number / 100, tokens=100, in_s=number / 10)
    pipeline.begin(seconds=0.8, error=KNOWN.replace("30", "31"), in_s=3.0)
    expensive = [pipeline.begin(seconds=2.0, tokens=1001, in_s=3.0)]
    await life.until(lambda: ended_count() == pipeline.count, what="all had ended")
    slow = pipeline.begin(seconds=14.0, tokens=5000)
    expensive.append(slow)
    await life.until(lambda: receiver.events("pipeline.slow"), what="an execution was slow")
    await life.kill()

    second_error = pipeline.begin(seconds=0.5, error=LATER)
    pipeline.begin(seconds=0.5, error=LATER, in_s=0.2)
    pipeline.begin(seconds=0.6, tokens=10, in_s=0.5)
    again = await stage.start(document)
    await again.started()
    await again.until(lambda: receiver.events("pipeline.on_time"), what="it was slow no longer")
    third_error = pipeline.begin(seconds=0.5, error=LAST)
    pipeline.begin(seconds=0.6, in_s=0.2)
    await again.until(lambda: ended_count() == pipeline.count, what="all had ended")
    assert receiver.events("pipeline.failing") == []
    for number in range(3):
        short = pipeline.begin(seconds=0.1, in_s=number)
    await again.until(lambda: receiver.events("pipeline.failing"), what="short successes counted as failures")
    assert await again.stop() == 0

    printed = [line for each in stage.lives for line in each.emitted]
    assert checks.of_all(simulator, list(dict.fromkeys(printed)), receiver) == []
    opening, closing = (receiver.events(f"pipeline.{word}") for word in ("slow", "on_time"))
    assert (ids_of(opening), len(closing)) == ([slow], 1)
    assert closing[0]["data"]["problem"]["id"] == opening[0]["data"]["problem"]["id"]
    assert opening[0]["data"]["limitSeconds"] <= opening[0]["data"]["runningSeconds"] < 14  # both are rounded
    assert 0.8 < opening[0]["data"]["usualSeconds"] < 2.5
    assert sorted(ids_of(receiver.events("execution.expensive"))) == sorted(expensive)
    new = receiver.events("pipeline.new_error")
    assert sorted(event["data"]["error"]["fingerprint"] for event in new) == sorted(
        error_kind_of("Greeting", text).fingerprint.hex() for text in (KNOWN, LATER, LAST)
    )
    assert {first_error, third_error} < set(ids_of(new))
    assert second_error in {*ids_of(new), *ids_of(receiver.events("execution.failed"))}
    shares = Counter(
        (event["data"]["day"], event["data"]["percent"]) for event in receiver.events("pipeline.overspending")
    )
    assert set(shares.values()) == {1}
    if len({event["time"][:10] for event in receiver.events()}) == 1:  # not at midnight
        assert sorted(percent for _, percent in shares) == [80, 100]
    (failing,) = receiver.events("pipeline.failing")
    assert failing["data"]["execution"]["id"] == short
    assert failing["data"]["execution"]["error"].startswith("succeeded after 0.1 s, in less than 0.15 s")
