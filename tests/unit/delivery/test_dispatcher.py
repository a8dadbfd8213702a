"""What is settled, taken and sent next, and until when the worker rests: tables over the step that decides it."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import pytest
from worker_rig import BUSY, DELIVERED, FAILED, GONE, RULES, FakeClock

from watcher.delivery.dispatcher import REST_S, SHARED_REST_S, Dispatcher, Hindrance
from watcher.delivery.retries import Request, Unsettled
from watcher.delivery.sink_queue import NOW
from watcher.delivery.sink_state import WorkerDependencies
from watcher.domain.delivery import AttemptRecord, Delivery, DeliveryState
from watcher.domain.routing import Silences
from watcher.domain.timestamps import LATEST, NEVER, Monotonic
from watcher.sinks.protocol import SendResult, Sink
from watcher.store.changes import BackoffState, Lease, SinkRecord, Taken


class Step(Dispatcher):
    """The step of a sink that is well, and a clock, a trust and a store that a test changes."""

    def __init__(self, *, rate_per_s: float = 100.0) -> None:
        self.clock, self.is_trusted = FakeClock(), True
        self.monitor = SimpleNamespace(failing_since=None)
        self.store = SimpleNamespace(lease=Lease("sink", "ops", 1), exclusive=True, monitor=self.monitor)
        rules, also = replace(RULES, rate_per_s=rate_per_s), {"jitter": lambda: 0.5, "silences": Silences()}
        deps = SimpleNamespace(
            store=self.store, rules=rules, clock=self.clock, is_trusted=lambda: self.is_trusted, **also
        )
        record = SinkRecord(0, None, 0.0, BackoffState())
        super().__init__(Sink(), record, cast("WorkerDependencies", deps))
        self.clock.elapsed_s += 1  # the rate limit lets one go

    @property
    def now(self) -> Monotonic:
        return self.clock.monotonic()

    def send(self, *results: SendResult) -> None:
        """Let a delivery be taken and sent for each of these answers. Then nothing more is pending."""
        step = self.turn(self.now)
        assert step is not None
        self.recorded(step, Taken([[delivery(number)] for number, _ in enumerate(results)], None))
        for request, result in zip(self.requests(self.now), results, strict=True):
            self.ended(request, result)


def delivery(number: int) -> Delivery:
    return Delivery("ops", number, b"%d" % number, UUID(int=number), "execution.failed", b"{}", NEVER, NEVER)


@pytest.mark.parametrize(
    ("unsettled", "blocks", "sending", "ready", "rate_per_s", "after_s"),
    [
        (1, False, 0, 0, 100.0, 0.0),  # nothing else goes
        (1, False, 1, 0, 100.0, 0.1),  # another answer may come meanwhile
        (63, False, 1, 0, 100.0, 0.1),
        (64, False, 1, 0, 100.0, 0.0),
        (1, True, 1, 15, 100.0, 0.0),  # the next event of its execution waits
        (1, True, 1, 16, 100.0, 0.1),  # and would not be taken yet
        (1, False, 0, 1, 100.0, 0.1),  # the next request goes in 10 ms
        (1, False, 0, 1, 5.0, 0.0),  # in 200 ms
    ],
)
def test_an_answer_is_settled_at_once_or_with_those_of_the_next_100_ms(
    unsettled: int, blocks: bool, sending: int, ready: int, rate_per_s: float, after_s: float
) -> None:
    step = Step(rate_per_s=rate_per_s)
    now, queue = step.now, step.queue
    step.take_slot()
    queue.due_at, queue.blocking = inf, frozenset({b"0"} if blocks else ())
    for number in range(unsettled):
        queue.add(Unsettled(now, [AttemptRecord(delivery(number), DeliveryState.DELIVERED)], DELIVERED))
    queue.sending |= {Request([delivery(100 + number)], None, now) for number in range(sending)}
    queue.ready.extend([delivery(200 + number)] for number in range(ready))
    if after_s:
        assert step.turn(Monotonic(now + after_s - 0.001)) is None
    turn = step.turn(Monotonic(now + after_s))
    assert turn is not None
    assert len(turn[1]) == unsettled


@pytest.mark.parametrize(
    ("happens", "reason", "for_s"),
    [
        (lambda step: setattr(step, "is_trusted", False), "trust", inf),
        (lambda step: setattr(step, "store_retry_at", Monotonic(step.now + 1)), "store", 1),
        (lambda step: setattr(step.monitor, "failing_since", step.now), "store", inf),
        (lambda step: step.send(GONE), "disabled", inf),
        (lambda step: step.send(BUSY), "pause", 60),
        (lambda step: (step.send(*[FAILED] * 5), step.send()), "breaker", 1),
        (lambda step: (step.send(*[BUSY] * 5), step.take_slot()), "pause", 60),
    ],
)
def test_what_keeps_a_sink_from_sending_until_when_and_then_all_is_taken_again(
    happens: Callable[[Step], object], reason: str, for_s: float
) -> None:
    step = Step(rate_per_s=inf)
    happens(step)
    step.queue.due_at = NOW
    assert step.hindrance(step.now) == Hindrance(Monotonic(step.now + for_s), reason)
    assert step.next_try_at() == (None if for_s == inf else step.clock.steady_us() + for_s * 1_000_000)
    step.queue.ready.append([delivery(9)])
    step.queue.due_at, step.queue.trial = inf, None
    assert (step.requests(step.now), step.queue.ready, step.queue.due_at) == ([], deque(), NOW)


def test_the_rate_keeps_what_is_ready_and_delays_no_taking() -> None:
    step = Step(rate_per_s=1 / 0.98)
    step.take_slot()
    assert (step.hindrance(step.now), step.turn(step.now) is None) == (None, False)
    step.queue.ready.append([delivery(1)])
    hindrance = step.hindrance(step.now)
    assert hindrance is not None
    assert hindrance.reason == "rate"
    assert hindrance.until - step.now == pytest.approx(1, abs=0.021)
    assert (step.requests(step.now), len(step.queue.ready)) == ([], 1)
    assert step.rest_s(step.now, LATEST, LATEST) == pytest.approx(1, abs=0.021)


@pytest.mark.parametrize(
    ("due_s", "report_s", "remind_s", "changes", "rest_s"),
    [
        (inf, inf, inf, {}, REST_S),
        (7, 8, 9, {}, 7),
        (9, 7, 8, {}, 7),
        (9, 8, 7, {}, 7),
        (-1, 8, 7, {}, 0),
        (9, inf, 7, {"paused": 8}, 8),  # nobody is reminded in a pause
        (inf, inf, inf, {"exclusive": False}, SHARED_REST_S),
        (inf, inf, inf, {"failing_since": 0}, SHARED_REST_S),
        (inf, -1, inf, {"store_retry_in": 0.5}, 0.5),
    ],
)
def test_the_worker_rests_until_the_first_of_what_is_due(
    due_s: float, report_s: float, remind_s: float, changes: Mapping[str, float], rest_s: float
) -> None:
    step = Step()
    now = step.now
    step.queue.due_at = step.clock.steady_us() + due_s * 1e6
    step.state.held_until = Monotonic(now + changes.get("paused", 0))
    step.store.exclusive = changes.get("exclusive", True)
    step.monitor.failing_since = changes.get("failing_since")
    step.store_retry_at = Monotonic(now + changes.get("store_retry_in", 0))
    assert step.rest_s(now, Monotonic(now + report_s), Monotonic(now + remind_s)) == pytest.approx(rest_s)
