"""Rows that say an execution has ended, until a GET has said what happened. Pure."""

import heapq
import itertools
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from watcher.models import Details, Execution, Status
from watcher.transitions import is_terminal

CONFIRM_WITHIN_S = 30.0
"""A claim that cannot be confirmed in this time becomes the status."""

DENIED_FOR_S = 10.0
"""After a GET said that an execution is open its rows make no new claim for so long."""


NEVER_TRIED = AT_ONCE = float("-inf")


@dataclass(slots=True)
class Claim:
    """A row of a pipeline that says an execution has ended: when its page was asked for, when it was read.

    Both, and `retry_at`, before which no GET is to be tried again, are monotonic seconds.
    """

    pipeline: str
    execution: Execution
    sent_at: float
    at: float
    retry_at: float = NEVER_TRIED

    @property
    def expires_at(self) -> float:
        """Return when it need wait no longer; what cannot be written then is tried again later."""
        return max(self.at + CONFIRM_WITHIN_S, self.retry_at)

    def retry_after(self, wait_s: float, *, now: float) -> None:
        """Wait before another try, but not beyond the time in which the claim is to be confirmed."""
        due_at = self.at + CONFIRM_WITHIN_S
        self.retry_at = min(now + wait_s, due_at) if now < due_at else now + wait_s


def selects(details: Details, execution: Execution) -> bool:
    """Tell whether this row is a claim: it has ended, and the configuration wants such ends fetched one by one."""
    if details is Details.NEVER or not is_terminal(execution):
        return False
    return details is Details.ALWAYS or execution.status == Status.FAILED


class Claimant(Hashable, Protocol):
    """Whatever has a claim."""

    claim: Claim | None


AnyClaimant = TypeVar("AnyClaimant", bound=Claimant)


@dataclass(slots=True)
class _Line(Generic[AnyClaimant]):
    """One pipeline: how many of it wait, whose turn it is among the pipelines, and who may be confirmed now.

    `queued` is the turn that stands in the heap of turns, if it does.
    """

    turn: int
    queued: int | None = None
    count: int = 0
    ready: list[tuple[int, AnyClaimant]] = field(default_factory=list)


class Confirmations(Generic[AnyClaimant]):
    """Those that wait for a GET to confirm their claim: the pipelines by turns, and in each the oldest claim first.

    All is in heaps: what comes next is found in a few steps, however many wait. One that was let go of stays in them
    until it comes first. Its `number` tells one that waits again from what it left there.
    """

    def __init__(self, *, in_time_count: float) -> None:
        """Start with nobody. `in_time_count` are the GETs that can be had within the time a claim may wait."""
        self._in_time_count = max(1.0, in_time_count)
        self._numbers: dict[AnyClaimant, int] = {}
        self._lines: dict[str, _Line[AnyClaimant]] = {}
        self._turns: list[tuple[int, str]] = []
        self._retries: list[tuple[float, int, AnyClaimant]] = []
        self._expiries: list[tuple[float, int, AnyClaimant]] = []
        self._hopeless: list[AnyClaimant] = []
        self._counter = itertools.count()

    def add(self, claimant: AnyClaimant) -> None:
        """Let one with a claim wait, or wait again. One whose first turn cannot come in time has waited long enough."""
        claim = claimant.claim
        assert claim is not None  # noqa: S101 (who has none is not added)
        if claim.retry_at == NEVER_TRIED and self._turn_of_next(claim.pipeline) > self._in_time_count:
            self._hopeless.append(claimant)
            return
        number = self._numbers[claimant] = next(self._counter)
        line = self._lines.setdefault(claim.pipeline, _Line(number))
        line.count += 1
        heapq.heappush(self._expiries, (claim.expires_at, number, claimant))
        if claim.retry_at == NEVER_TRIED:
            self._make_ready(claimant, number=number)
        else:
            heapq.heappush(self._retries, (claim.retry_at, number, claimant))

    def first(self, now: float) -> AnyClaimant | None:
        """Return the next to confirm."""
        while (waiting := self._peek(self._retries)) is not None and waiting[0] <= now:
            heapq.heappop(self._retries)
            self._make_ready(waiting[2], number=waiting[1])
        return self._first_ready()

    def take(self, claimant: AnyClaimant) -> None:
        """Let go of one; its pipeline's next comes after all others'."""
        assert claimant.claim is not None  # noqa: S101 (it waits)
        del self._numbers[claimant]
        pipeline = claimant.claim.pipeline
        line = self._lines[pipeline]
        line.count -= 1
        line.turn = next(self._counter)
        if not line.count:
            del self._lines[pipeline]
        elif line.ready:
            self._queue(pipeline, line)

    def expired(self, now: float) -> list[AnyClaimant]:
        """Return, and let go of, those whose claims are too old to wait on, or would be before their turn came."""
        expired, self._hopeless = self._hopeless, []
        while (waiting := self._peek(self._expiries)) is not None and waiting[0] <= now:
            self.take(waiting[2])
            expired.append(waiting[2])
        return expired

    def wanted_at(self) -> float:
        """Return when the first may be confirmed, infinity while nobody waits."""
        if self._first_ready() is not None:
            return AT_ONCE
        waiting = self._peek(self._retries)
        return float("inf") if waiting is None else waiting[0]

    def next_expiry_at(self) -> float:
        """Return when the first claim is too old to wait on."""
        if self._hopeless:
            return float("-inf")
        waiting = self._peek(self._expiries)
        return float("inf") if waiting is None else waiting[0]

    def _make_ready(self, claimant: AnyClaimant, *, number: int) -> None:
        assert claimant.claim is not None  # noqa: S101 (it waits)
        line = self._lines[claimant.claim.pipeline]
        heapq.heappush(line.ready, (number, claimant))
        self._queue(claimant.claim.pipeline, line)

    def _queue(self, pipeline: str, line: _Line[AnyClaimant]) -> None:
        """Let a pipeline have its turn."""
        if line.queued != line.turn:
            line.queued = line.turn
            heapq.heappush(self._turns, (line.turn, pipeline))

    def _first_ready(self) -> AnyClaimant | None:
        while self._turns:
            turn, pipeline = self._turns[0]
            line = self._lines.get(pipeline)
            if line is not None and line.turn == turn:
                if (claimant := self._first_of(line)) is not None:
                    return claimant
                line.queued = None
            heapq.heappop(self._turns)
        return None

    def _first_of(self, line: _Line[AnyClaimant]) -> AnyClaimant | None:
        while line.ready:
            number, claimant = line.ready[0]
            if self._numbers.get(claimant) == number:
                return claimant
            heapq.heappop(line.ready)
        return None

    def _peek(self, heap: list[tuple[float, int, AnyClaimant]]) -> tuple[float, int, AnyClaimant] | None:
        """Return the first who waits still."""
        while heap:
            _, number, claimant = heap[0]
            if self._numbers.get(claimant) == number:
                return heap[0]
            heapq.heappop(heap)
        return None

    def _turn_of_next(self, pipeline: str) -> int:
        """Return how many GETs later the turn comes of one that is added now."""
        line = self._lines.get(pipeline)
        place = 1 if line is None else line.count + 1
        return place + sum(min(place, other.count) for other in self._lines.values() if other is not line)
