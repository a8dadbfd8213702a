"""Rows that say an execution has ended, until a GET has said what happened. Pure."""

import heapq
import itertools
from dataclasses import dataclass, field

from watcher.domain.models import Details, Execution, Status
from watcher.domain.transitions import is_terminal
from watcher.polling.poll_queue import NEVER_TRIED, Entry

DENIED_FOR_S = 10.0
"""After a GET said that an execution is open its rows make no new claim for so long."""


def selects(details: Details, execution: Execution) -> bool:
    """Tell whether this row is a claim: it has ended, and the configuration wants such ends fetched one by one."""
    if details is Details.NEVER or not is_terminal(execution):
        return False
    return details is Details.ALWAYS or execution.status == Status.FAILED


@dataclass(slots=True)
class _Line:
    """One pipeline: how many of it wait, whose turn it is among the pipelines, and who may be confirmed now.

    `queued` is the turn that stands in the heap of turns, if it does.
    """

    turn: int
    queued: int | None = None
    count: int = 0
    ready: list[tuple[int, Entry]] = field(default_factory=list)


class Confirmations:
    """Those that wait for a GET to confirm their claim: the pipelines by turns, and in each the oldest claim first.

    All is in heaps: what comes next is found in a few steps, however many wait. One that was let go of stays in them
    until it comes first. Its `number` tells one that waits again from what it left there.
    """

    def __init__(self, *, in_time_count: float) -> None:
        """Start with nobody. `in_time_count` are the GETs that can be had within the time a claim may wait."""
        self._in_time_count = max(1.0, in_time_count)
        self._numbers: dict[Entry, int] = {}
        self._lines: dict[str, _Line] = {}
        self._turns: list[tuple[int, str]] = []
        self._retries: list[tuple[float, int, Entry]] = []
        self._expiries: list[tuple[float, int, Entry]] = []
        self._hopeless: list[Entry] = []
        self._counter = itertools.count()

    def add(self, entry: Entry) -> None:
        """Let one with a claim wait, or wait again. One whose first turn cannot come in time has waited long enough."""
        claim = entry.claim
        assert claim is not None  # noqa: S101 (who has none is not added)
        if claim.retry_at == NEVER_TRIED and self._turn_of_next(claim.pipeline) > self._in_time_count:
            self._hopeless.append(entry)
            return
        number = self._numbers[entry] = next(self._counter)
        line = self._lines.setdefault(claim.pipeline, _Line(number))
        line.count += 1
        heapq.heappush(self._expiries, (claim.expires_at, number, entry))
        if claim.retry_at == NEVER_TRIED:
            self._make_ready(entry, number=number)
        else:
            heapq.heappush(self._retries, (claim.retry_at, number, entry))

    def first(self, now: float) -> Entry | None:
        """Return the next to confirm."""
        while (waiting := self._peek(self._retries)) is not None and waiting[0] <= now:
            heapq.heappop(self._retries)
            self._make_ready(waiting[2], number=waiting[1])
        return self._first_ready()

    def take(self, entry: Entry) -> None:
        """Let go of one; its pipeline's next comes after all others'."""
        assert entry.claim is not None  # noqa: S101 (it waits)
        del self._numbers[entry]
        pipeline = entry.claim.pipeline
        line = self._lines[pipeline]
        line.count -= 1
        line.turn = next(self._counter)
        if not line.count:
            del self._lines[pipeline]
        elif line.ready:
            self._queue(pipeline, line)

    def expired(self, now: float) -> list[Entry]:
        """Return, and let go of, those whose claims are too old to wait on, or would be before their turn came."""
        expired, self._hopeless = self._hopeless, []
        while (waiting := self._peek(self._expiries)) is not None and waiting[0] <= now:
            self.take(waiting[2])
            expired.append(waiting[2])
        return expired

    def wanted_at(self) -> float:
        """Return when the first may be confirmed, infinity while nobody waits."""
        if self._first_ready() is not None:
            return float("-inf")
        waiting = self._peek(self._retries)
        return float("inf") if waiting is None else waiting[0]

    def next_expiry_at(self) -> float:
        """Return when the first claim is too old to wait on."""
        if self._hopeless:
            return float("-inf")
        waiting = self._peek(self._expiries)
        return float("inf") if waiting is None else waiting[0]

    def _make_ready(self, entry: Entry, *, number: int) -> None:
        assert entry.claim is not None  # noqa: S101 (it waits)
        line = self._lines[entry.claim.pipeline]
        heapq.heappush(line.ready, (number, entry))
        self._queue(entry.claim.pipeline, line)

    def _queue(self, pipeline: str, line: _Line) -> None:
        """Let a pipeline have its turn."""
        if line.queued != line.turn:
            line.queued = line.turn
            heapq.heappush(self._turns, (line.turn, pipeline))

    def _first_ready(self) -> Entry | None:
        while self._turns:
            turn, pipeline = self._turns[0]
            line = self._lines.get(pipeline)
            if line is not None and line.turn == turn:
                if (entry := self._first_of(line)) is not None:
                    return entry
                line.queued = None
            heapq.heappop(self._turns)
        return None

    def _first_of(self, line: _Line) -> Entry | None:
        while line.ready:
            number, entry = line.ready[0]
            if self._numbers.get(entry) == number:
                return entry
            heapq.heappop(line.ready)
        return None

    def _peek(self, heap: list[tuple[float, int, Entry]]) -> tuple[float, int, Entry] | None:
        """Return the first who waits still."""
        while heap:
            _, number, entry = heap[0]
            if self._numbers.get(entry) == number:
                return heap[0]
            heapq.heappop(heap)
        return None

    def _turn_of_next(self, pipeline: str) -> int:
        """Return how many GETs later the turn comes of one that is added now."""
        line = self._lines.get(pipeline)
        place = 1 if line is None else line.count + 1
        return place + sum(min(place, other.count) for other in self._lines.values() if other is not line)
