"""What a sink's outage, and deliveries that never get through, cost the others: in virtual time, over a real store."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from worker_rig import BUSY, DELIVERED, FAILED, REFUSED, RULES, Rig, name_of

from watcher.domain.delivery import Delivery
from watcher.sinks.protocol import RetryRules, SendOutcome, SendResult

DEFAULTS = replace(RULES, retry=RetryRules((1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 10_800.0), give_up_after_s=259_200.0))
PACED = replace(DEFAULTS, rate_per_s=100.0)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path / "watcher.db")
    await rig.start(rules=DEFAULTS)
    yield rig
    await rig.stop()


class World:
    """A receiver that is away for a while, and never takes some deliveries; what is sent to it, every so often."""

    def __init__(self, rig: Rig, *, every_s: float, poisoned: int, away_from_s: float, away_s: float) -> None:
        self.rig = rig
        self.every_s = every_s
        self.away_from_s, self.back_s = away_from_s, away_from_s + away_s
        self.poisoned = {f"p{index}-1" for index in range(poisoned)}
        self.recorded_at: dict[str, float] = {}
        self.arrived_at: dict[str, float] = {}
        rig.sink.answer = self._answer

    def _answer(self, delivery: Delivery) -> SendResult:
        now = self.rig.clock.passed_s
        if name_of(delivery) in self.poisoned or self.away_from_s <= now < self.back_s:
            return FAILED
        self.arrived_at.setdefault(name_of(delivery), now)
        return DELIVERED

    async def run(self, until_s: float, *, rest_s: float) -> None:
        """Run ticks as the daemon's clock would; record until then, and go on for a while."""
        rig, clock = self.rig, self.rig.clock
        for index in range(len(self.poisoned)):
            await rig.record(f"p{index}-")
        next_record_at, wanted_at = clock.passed_s, clock.passed_s
        while (now := min(wanted_at, next_record_at)) < until_s + rest_s:
            clock.passed_s = max(clock.passed_s, now)
            if next_record_at <= clock.passed_s and next_record_at < until_s:
                name = f"e{len(self.recorded_at)}-"
                await rig.record(name)
                self.recorded_at[f"{name}1"] = clock.passed_s
                next_record_at += self.every_s
            elif next_record_at >= until_s:
                next_record_at = float("inf")
            wanted_at = clock.passed_s + max(0.002, await rig.go())

    def delays_s(self) -> list[float]:
        """Return for how long each waited, from when it could first have been taken."""
        return [
            self.arrived_at.get(name, float("inf")) - (self.back_s if self.away_from_s <= at < self.back_s else at)
            for name, at in self.recorded_at.items()
        ]


@pytest.mark.untraced
@pytest.mark.parametrize(
    ("every_s", "poisoned", "away_s"),
    [
        (50, 0, 20),
        (50, 3, 71),
        (7, 1, 613),
        (0.9, 3, 71),
        *(pytest.param(*each, marks=pytest.mark.soak) for each in ((50, 0, 7200), (7, 3, 1800), (0.9, 0, 200))),
    ],
)
async def test_after_an_outage_everything_arrives_within_about_a_minute(
    rig: Rig, every_s: float, poisoned: int, away_s: float
) -> None:
    await rig.restart(rules=PACED)
    world = World(rig, every_s=every_s, poisoned=poisoned, away_from_s=63, away_s=away_s)
    await world.run(63 + away_s + 60, rest_s=120)
    assert max(world.delays_s()) <= 76
    assert (rig.counted("dead"), rig.ends) == (0, [])


@pytest.mark.untraced
@pytest.mark.parametrize(("every_s", "poisoned"), [(50, 1), (10, 3)])
async def test_what_never_gets_through_holds_up_nothing_else(rig: Rig, every_s: float, poisoned: int) -> None:
    await rig.restart(rules=PACED)
    world = World(rig, every_s=every_s, poisoned=poisoned, away_from_s=0, away_s=0)
    await world.run(1800, rest_s=60)
    delays_s = sorted(world.delays_s())
    assert delays_s[-1] <= 5
    assert rig.row("p0-1")["steps"] >= 4


def away(rig: Rig) -> None:
    rig.sink.answer = lambda _: FAILED


def back(rig: Rig) -> None:
    rig.sink.answer = lambda _: DELIVERED


async def test_a_receiver_that_counts_failures_is_not_given_reason_to_ban_anybody(rig: Rig) -> None:
    """Discord bans an address for 10,000 failures in 10 minutes: what waits must not make more of them."""
    await rig.restart(rules=PACED)
    rig.sink.answer = lambda _: replace(BUSY, retry_after_s=None)
    await rig.record(*(f"e{number}-" for number in range(200)))
    wanted_at = rig.clock.passed_s
    while wanted_at < 600:
        rig.clock.passed_s = max(rig.clock.passed_s, wanted_at)
        wanted_at = rig.clock.passed_s + max(0.002, await rig.go())
    assert 100 < len(rig.sink.sent) < 1000


async def test_a_sink_that_takes_nothing_is_tried_with_one_delivery_at_a_time(rig: Rig) -> None:
    away(rig)
    await rig.record(*(f"s{index:02}-" for index in range(40)))
    first = await rig.sent_after(0.1)
    assert len(first) == 17  # what was in flight when it opened, and one that shows whether it works
    assert [len(await rig.sent_after(1)) for _ in range(5)] == [1] * 5


async def test_while_the_breaker_is_open_what_was_never_tried_goes_first_one_a_second(rig: Rig) -> None:
    away(rig)
    await rig.record(*"abcde")
    await rig.go(1)
    await rig.record("f", "g")
    sent = [await rig.sent_after(after_s) for after_s in (0.5, 0.5, 0.5, 0.5)]
    assert [names for names in sent if names] == [
        ["f1"],
        ["g1", "a1"],
    ]  # and as nothing else was never tried, one that was
    assert rig.row("f1")["attempts"] == 1


async def test_then_the_one_goes_with_the_fewest_steps_that_was_tried_longest_ago_whatever_its_own_wait(
    rig: Rig,
) -> None:
    failing = {"p1"}
    rig.sink.answer = lambda delivery: FAILED if name_of(delivery) in failing else DELIVERED
    await rig.record("p")
    for after_s in (0, 1, 1, 6):
        await rig.go(after_s)
        await rig.record("z")
        await rig.go()
    assert rig.row("p1")["steps"] == 3
    failing.update(("a1", "b1", "c1", "d1", "e1"))
    await rig.record(*"abcde")
    assert await rig.sent_after() == ["a1", "b1", "c1", "d1", "e1"]
    assert await rig.sent_after(0.9) == []
    tried = [name for _ in range(100) for name in await rig.sent_after(1)]
    assert tried == ["a1", "b1", "c1", "d1", "e1", "a1", "b1"]
    assert rig.row("p1")["due_at"] < rig.clock.steady_us()


async def test_what_an_open_breaker_holds_back_counts_no_attempt(rig: Rig) -> None:
    away(rig)
    await rig.record(*(f"s{index:02}-" for index in range(40)))
    await rig.go(1)
    assert [rig.row(f"s{index:02}-1")["attempts"] for index in (30, 39)] == [0, 0]


async def test_the_first_success_lets_all_that_is_due_go_never_tried_first(rig: Rig) -> None:
    away(rig)
    await rig.record(*"abcde")
    await rig.go()
    await rig.go(1)
    await rig.record(*"fgh")
    back(rig)
    assert await rig.sent_after(3) == ["f1", "g1", "h1", "b1", "c1", "d1", "e1", "a1"]


async def test_a_refused_body_shows_that_the_sink_works(rig: Rig) -> None:
    away(rig)
    await rig.record(*"abcdefgh")
    await rig.go(1)
    rig.sink.answer = lambda _: REFUSED
    await rig.record("i", "j")
    assert (await rig.sent_after(1))[:2] == ["i1", "j1"]
    assert rig.row("h1")["attempts"] > 1


async def test_stdout_has_no_breaker(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, breaks=False))
    away(rig)
    await rig.record(*"abcdefgh")
    await rig.go()
    assert len(await rig.sent_after(1)) == 8


async def test_a_restart_forgets_the_breaker(rig: Rig) -> None:
    away(rig)
    await rig.record(*"abcdefgh")
    await rig.go(40)
    await rig.restart(rules=DEFAULTS)
    back(rig)
    await rig.record("i")
    assert "i1" in await rig.sent_after(1)


async def test_what_never_was_tried_is_given_up_too_once_it_waited_long_enough(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, retry=RetryRules((1.0,), give_up_after_s=200.0)))
    rig.sink.answer = lambda _: SendResult(SendOutcome.BUSY, "429", retry_after_s=3600)
    await rig.record("a")
    await rig.go()
    await rig.record("b", "b")
    await rig.worker.flush()
    with capture_logs() as logs:
        for _ in range(19):
            await rig.go(10)
            await rig.worker.flush()
        assert [rig.row(name)["state"] for name in ("a1", "b1", "b2")] == ["waiting"] * 3
        await rig.go(20)
        await rig.worker.flush()
    assert [rig.row(name)["state"] for name in ("a1", "b1", "b2")] == ["dead", "dead", "waiting"]
    assert [rig.row(name)["answer"] for name in ("a1", "b1")] == ["429", "never_tried"]
    assert rig.counted("dead") == 2
    assert [each for each in logs if each["event"] == "deliveries.died"] == [
        {
            "event": "deliveries.died",
            "log_level": "warning",
            "sink": "ops",
            "count": 2,
            "why": "give_up_after has passed",
        }
    ]


async def test_what_is_in_flight_is_not_given_up(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, retry=RetryRules((1.0,), give_up_after_s=200.0)))
    held = asyncio.get_running_loop().create_future()
    rig.sink.answer = lambda _: held
    await rig.record("a")
    await rig.worker.tick()
    await rig.worker.flush()
    rig.clock.passed_s += 300
    await rig.worker.flush()
    held.set_result(DELIVERED)
    await rig.go()
    assert (rig.row("a1")["state"], rig.counted("dead")) == ("delivered", 0)


async def test_what_is_being_taken_is_not_given_up(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, retry=RetryRules((1.0,), give_up_after_s=200.0)))
    rig.sink.answer = lambda _: BUSY
    await rig.record("a")
    await rig.go()
    await rig.record("b")
    await rig.worker.flush()
    rig.clock.passed_s += 300
    rig.sink.answer = lambda _: DELIVERED
    taken, go_on = asyncio.Event(), asyncio.Event()
    next_deliveries, save_sink_state = rig.store.next_deliveries, rig.store.save_sink_state

    async def take_slowly(*args: Any, **options: Any) -> DueDeliveries:
        due = await next_deliveries(*args, **options)
        taken.set()
        await go_on.wait()
        return due

    async def save_and_go_on(*args: Any, **options: Any) -> None:
        await save_sink_state(*args, **options)
        asyncio.get_running_loop().call_soon(go_on.set)  # not before what is to be left alone is settled

    rig.store.next_deliveries = take_slowly  # type: ignore[method-assign]
    rig.store.save_sink_state = save_and_go_on  # type: ignore[method-assign]
    tick = asyncio.create_task(rig.worker.tick())
    await taken.wait()
    await rig.worker.flush()
    await tick
    await rig.settle()
    assert [rig.row(name)["state"] for name in ("a1", "b1")] == ["delivered"] * 2
    assert rig.counted("dead") == 0


async def test_a_store_in_trouble_while_the_breaker_is_open_is_asked_again_and_has_recovered(rig: Rig) -> None:
    away(rig)
    await rig.record(*"abcde")
    await rig.go()
    rig.store.broken.add("trial")
    await rig.go(1)
    rig.store.broken.clear()
    back(rig)
    assert "a1" in await rig.sent_after(1)


async def test_with_nothing_left_to_try_an_open_breaker_lets_the_worker_rest(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, retry=RetryRules((1.0,), give_up_after_s=60.0)))
    away(rig)
    await rig.record(*"abcde")
    await rig.go()
    await rig.worker.flush()
    for _ in range(20):
        await rig.go(5)
        await rig.worker.flush()
    assert [rig.row(f"{name}1")["state"] for name in "abcde"] == ["dead"] * 5
    assert await rig.go(60) == 10
    back(rig)
    await rig.record("f")
    assert await rig.sent_after() == ["f1"]


async def test_a_trial_waits_for_the_pace(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, rate_per_s=0.01))
    away(rig)
    await rig.record(*"abcdef")
    while rig.trial() is None:
        await rig.go(10)
    back(rig)
    assert await rig.sent_after(1) == []
    sent = [name for _ in range(70) for name in await rig.sent_after(10)]
    assert sorted(sent) == ["a1", "b1", "c1", "d1", "e1", "f1"]


async def test_a_trial_that_waits_is_given_back_with_the_rest_when_the_store_takes_no_state(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, rate_per_s=1 / 55))
    rig.store.broken.add("record")
    away(rig)
    await rig.record(*"abcdef")
    while not rig.store.asked["record"]:
        waiting = rig.trial()
        await rig.go(5)
    assert waiting is not None
    assert rig.trial() is None
    rig.store.broken.clear()
    back(rig)
    sent = [name for _ in range(70) for name in await rig.sent_after(10)]
    assert sorted(sent) == ["a1", "b1", "c1", "d1", "e1", "f1"]


async def test_a_trial_goes_with_the_others_once_one_that_was_on_its_way_got_through(rig: Rig) -> None:
    slow = asyncio.get_running_loop().create_future()
    await rig.restart(rules=replace(RULES, rate_per_s=10.0))
    rig.sink.answer = lambda delivery: slow if name_of(delivery) == "a1" else FAILED
    await rig.record(*"abcdefg")
    rig.worker._pacer.spend(rig.clock.monotonic())
    while rig.trial() is None:
        rig.clock.passed_s += 0.05
        await rig.worker.tick()
        while len(rig.worker._sending) > 1:
            await asyncio.wait(rig.worker._sending, return_when=asyncio.FIRST_COMPLETED)
    slow.set_result(DELIVERED)
    await asyncio.wait(rig.worker._sending)
    back(rig)
    sent = [name for _ in range(30) for name in await rig.sent_after(1)]
    assert len(sent) == len(set(sent)) == 6
