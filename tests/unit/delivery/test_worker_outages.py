"""What a sink's outage, and deliveries that never get through, cost the others: in virtual time, over a real store."""

from collections import Counter
from dataclasses import replace

import pytest
from structlog.testing import capture_logs
from worker_rig import BUSY, DELIVERED, FAILED, RULES, Rig, do, name_of

from watcher.domain.delivery import Delivery
from watcher.sinks.protocol import SendOutcome, SendResult

DEFAULTS = replace(RULES, schedule_s=(1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 10_800.0), give_up_after_s=259_200.0)
PACED = replace(DEFAULTS, rate_per_s=100.0)

AWAY_FROM_S = 63.0


@pytest.fixture(autouse=True)
def _with_defaults(rig: Rig) -> None:
    do(rig.restart(rules=DEFAULTS))


class World:
    """A receiver that is away for a while, and never takes some deliveries; what is sent to it, every so often."""

    def __init__(self, rig: Rig, *, every_s: float, poisoned: int, away_s: float, answer: SendResult) -> None:
        self.rig = rig
        self.every_s = every_s
        self.back_s = AWAY_FROM_S + away_s
        self.answer = answer
        self.tries: Counter[str] = Counter()
        self.poisoned = {f"p{index}-1" for index in range(poisoned)}
        self.recorded_at: dict[str, float] = {}
        self.arrived_at: dict[str, float] = {}
        rig.sink.answer = self._answer

    def _answer(self, delivery: Delivery) -> SendResult:
        now = self.rig.clock.elapsed_s
        self.tries[name_of(delivery)] += 1
        if AWAY_FROM_S <= now < self.back_s:
            return self.answer
        if name_of(delivery) in self.poisoned:
            return UNAVAILABLE
        self.arrived_at.setdefault(name_of(delivery), now)
        return DELIVERED

    async def run(self, until_s: float, *, rest_s: float) -> None:
        """Run ticks as the daemon's clock would; record until then, and go on for a while."""
        rig, clock = self.rig, self.rig.clock
        for index in range(len(self.poisoned)):
            await rig.record(f"p{index}-")
        next_record_at, wanted_at = clock.elapsed_s, clock.elapsed_s
        while (now := min(wanted_at, next_record_at)) < until_s + rest_s:
            clock.elapsed_s = max(clock.elapsed_s, now)
            if next_record_at <= clock.elapsed_s and next_record_at < until_s:
                name = f"e{len(self.recorded_at)}-"
                await rig.record(name)
                self.recorded_at[f"{name}1"] = clock.elapsed_s
                next_record_at += self.every_s
            elif next_record_at >= until_s:
                next_record_at = float("inf")
            wanted_at = clock.elapsed_s + max(0.002, await rig.go())

    def delays_s(self) -> list[float]:
        """Return for how long each waited, from when it could first have been taken."""
        return [
            self.arrived_at.get(name, float("inf")) - (self.back_s if AWAY_FROM_S <= at < self.back_s else at)
            for name, at in self.recorded_at.items()
        ]


USERS = (1.0, 60.0, 3600.0)
UNAVAILABLE = SendResult(SendOutcome.RETRY, "503")
IN_AN_HOUR = SendResult(SendOutcome.RETRY, "503", retry_after_s=3600.0)


@pytest.mark.parametrize(
    ("away_s", "every_s", "poisoned", "schedule", "answer"),
    [
        (20, 50, 3, DEFAULTS.schedule_s, UNAVAILABLE),
        (120, 50, 0, USERS, UNAVAILABLE),
        (120, 7, 1, DEFAULTS.schedule_s, IN_AN_HOUR),
        (600, 50, 3, USERS, IN_AN_HOUR),
        (600, 50, 0, DEFAULTS.schedule_s, UNAVAILABLE),
        *(
            pytest.param(away_s, every_s, poisoned, schedule, answer, marks=pytest.mark.soak)
            for away_s, every_s in ((20, 0.5), (120, 0.5), (600, 2), (7200, 7), (7200, 50))
            for poisoned in (0, 3)
            for schedule in (DEFAULTS.schedule_s, USERS)
            for answer in (UNAVAILABLE, IN_AN_HOUR)
        ),
    ],
)
def test_after_an_outage_everything_arrives_within_ninety_seconds(
    rig: Rig, away_s: float, every_s: float, poisoned: int, schedule: tuple[float, ...], answer: SendResult
) -> None:
    do(rig.restart(rules=replace(PACED, schedule_s=schedule)))
    world = World(rig, every_s=every_s, poisoned=poisoned, away_s=away_s, answer=answer)
    do(world.run(AWAY_FROM_S + away_s + 60, rest_s=120))
    assert max(world.delays_s()) <= 90
    assert (rig.counted("dead"), rig.ends) == (0, [])


@pytest.mark.ci
@pytest.mark.parametrize(
    ("every_s", "poisoned", "schedule"),
    [
        (50, 1, DEFAULTS.schedule_s),
        (50, 3, USERS),
        (10, 3, DEFAULTS.schedule_s),
        pytest.param(0.5, 3, DEFAULTS.schedule_s, marks=pytest.mark.soak),
        pytest.param(0.5, 1, USERS, marks=pytest.mark.soak),
    ],
)
def test_what_never_gets_through_is_seldom_tried_and_holds_up_nothing_else(
    rig: Rig, every_s: float, poisoned: int, schedule: tuple[float, ...]
) -> None:
    do(rig.restart(rules=replace(PACED, schedule_s=schedule)))
    world = World(rig, every_s=every_s, poisoned=poisoned, away_s=0, answer=UNAVAILABLE)
    do(world.run(3600, rest_s=0))
    delays_s = sorted(world.delays_s())
    assert delays_s[round(0.95 * len(delays_s))] < 5
    assert all(3 <= world.tries[name] < 20 for name in world.poisoned), world.tries
    assert rig.emitted == []


def away(rig: Rig) -> None:
    rig.sink.answer = lambda _: FAILED


def back(rig: Rig) -> None:
    rig.sink.answer = lambda _: DELIVERED


def test_a_receiver_that_counts_failures_is_not_given_reason_to_ban_anybody(rig: Rig) -> None:
    """Discord bans an address for 10,000 failures in 10 minutes: what waits must not make more of them."""
    do(rig.restart(rules=PACED))
    rig.sink.answer = lambda _: replace(BUSY, retry_after_s=0.0)
    do(rig.record(*(f"e{number}-" for number in range(200))))
    wanted_at = rig.clock.elapsed_s
    while wanted_at < 600:
        rig.clock.elapsed_s = max(rig.clock.elapsed_s, wanted_at)
        wanted_at = rig.clock.elapsed_s + max(0.002, do(rig.go()))
    assert 100 < len(rig.sink.sent) < 1000


def test_a_sink_that_takes_nothing_is_tried_with_one_delivery_at_a_time(rig: Rig) -> None:
    away(rig)
    do(rig.record(*(f"s{index:02}-" for index in range(40))))
    first = do(rig.sent_after(0.1))
    assert len(first) == 17  # what was in flight when it opened, and one that shows whether it works
    assert [len(do(rig.sent_after(1))) for _ in range(5)] == [
        2,
        1,
        2,
        1,
        1,
    ]  # one a second that never was, and others


def test_while_the_breaker_is_open_what_was_never_tried_goes_first_one_a_second(rig: Rig) -> None:
    away(rig)
    do(rig.record(*"abcde"))
    do(rig.go(1))
    do(rig.record("f", "g"))
    sent = [do(rig.sent_after(after_s)) for after_s in (0.5, 0.5, 0.5, 0.5)]
    assert [names for names in sent if names] == [["f1", "a1"], ["g1"]]
    assert rig.row("f1")["attempts"] == 1


def test_then_the_one_goes_that_was_tried_longest_ago_whatever_its_own_wait(rig: Rig) -> None:
    failing = {"p1"}
    rig.sink.answer = lambda delivery: FAILED if name_of(delivery) in failing else DELIVERED
    do(rig.record("p"))
    do(rig.go_for(40))  # its next step is two minutes
    failing.update(f"{name}1" for name in "abcde")
    do(rig.record(*"abcde"))
    assert do(rig.sent_after()) == ["a1", "b1", "c1", "d1", "e1"]
    assert do(rig.sent_after(0.9)) == []
    assert do(rig.go_for(100)) == ["p1", "a1", "b1", "c1", "d1", "e1", "p1"]


def test_a_success_calls_all_that_waits_forward_evenly_within_a_minute(rig: Rig) -> None:
    rig.sink.answer = lambda _: IN_AN_HOUR
    names = [f"s{number:02}-" for number in range(16)]
    do(rig.send(*names))
    do(rig.record(*names, "new"))  # those that follow come with what they follow
    back(rig)
    assert do(rig.go_for(1.5)) == ["new1"]
    sent = [do(rig.go_for(9)) for _ in range(5)]
    expected = [f"{name}{nth}" for name in names for nth in (1, 2)]
    assert sorted(name for batch in sent for name in batch) == sorted(expected)
    assert all(2 <= len(part) <= 10 for part in sent)


def test_neither_a_pause_nor_what_waits_while_the_breaker_is_closed_is_called_forward(rig: Rig) -> None:
    rig.sink.answer = lambda delivery: IN_AN_HOUR if name_of(delivery) == "a1" else DELIVERED
    do(rig.send("a"))
    do(rig.record("b"))
    assert do(rig.go_for(300)) == ["b1"]
    rig.sink.answer = lambda _: replace(BUSY, retry_after_s=600)
    do(rig.send(*"cdefg"))
    back(rig)
    assert do(rig.go_for(590)) == []
    assert len(do(rig.go_for(80))) == 6


@pytest.mark.parametrize(("failures", "tried"), [(4, 4), (5, 0)])
def test_a_restart_goes_on_with_the_breaker_as_it_was(rig: Rig, failures: int, tried: int) -> None:
    do(rig.send(*"abcdefgh"[:failures], answer=FAILED))
    do(rig.restart(rules=DEFAULTS))
    assert len(do(rig.sent_after(0.5))) == 0
    assert len(do(rig.sent_after(0.5))) == (tried or 1)


def test_a_restart_after_a_success_begins_with_a_closed_breaker(rig: Rig) -> None:
    rig.sink.answer = lambda delivery: FAILED if name_of(delivery) == "a1" else DELIVERED
    do(rig.record("a"))
    do(rig.go_for(800))
    assert rig.row("a1")["attempts"] >= 5
    do(rig.record("b"))
    do(rig.go_for(65))
    do(rig.restart(rules=DEFAULTS))
    away(rig)
    do(rig.record("c", "d", "e", "f"))
    assert do(rig.sent_after()) == ["c1", "d1", "e1", "f1"]


def test_stdout_has_no_breaker(rig: Rig) -> None:
    do(rig.restart(rules=replace(RULES, breaks=False)))
    do(rig.send(*"abcdefgh", answer=FAILED))
    assert len(do(rig.sent_after(1))) == 8


def test_what_never_was_tried_is_given_up_too_once_it_waited_long_enough(rig: Rig) -> None:
    do(rig.restart(rules=replace(RULES, schedule_s=(1.0,), give_up_after_s=200.0)))
    rig.sink.answer = lambda _: SendResult(SendOutcome.BUSY, "429", retry_after_s=3600)
    do(rig.send("a"))
    do(rig.record("b", "b"))
    do(rig.worker.flush())
    with capture_logs() as logs:
        for _ in range(19):
            do(rig.go(10, flushes=True))
        assert [rig.row(name)["state"] for name in ("a1", "b1", "b2")] == ["waiting"] * 3
        do(rig.go(20, flushes=True))
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


def test_a_store_in_trouble_while_the_breaker_is_open_is_asked_again_and_has_recovered(rig: Rig) -> None:
    do(rig.send(*"abcde", answer=FAILED))
    rig.store.broken.add("trial")
    do(rig.go(1))
    rig.store.broken.clear()
    back(rig)
    assert "a1" in do(rig.sent_after(1))


def test_with_nothing_left_to_try_an_open_breaker_lets_the_worker_rest(rig: Rig) -> None:
    do(rig.restart(rules=replace(RULES, schedule_s=(1.0,), give_up_after_s=60.0)))
    do(rig.send(*"abcde", answer=FAILED))
    do(rig.worker.flush())
    for _ in range(20):
        do(rig.go(5, flushes=True))
    assert [rig.row(f"{name}1")["state"] for name in "abcde"] == ["dead"] * 5
    assert do(rig.go(60)) == 10
    back(rig)
    do(rig.record("f"))
    assert do(rig.go_for(1.1)) == ["f1"]
