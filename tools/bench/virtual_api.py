"""An API without a network, in virtual time: it answers at once from the world, and notes what it showed and when."""

import asyncio
import math
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from watcher.clerk.api import PAGE_ROWS, Reply
from watcher.clerk.schemas import ApiDates, parse_execution, parse_page
from watcher.domain.execution import Outcome
from watcher.simulator.responses import encode, full, row
from watcher.simulator.world import SimExecution, World
from watcher.store.changes import Change, ChangeSet, ExecutionChange, SourceChange

GET = 0
"""Stands for a GET where the number of a page stands."""


@dataclass(slots=True)
class Notes:
    """What was asked and seen. Counts only while `counting`; seconds are the world's.

    `requests` counts by page; `ended` were shown as ended, `emitted` is when that was reported, `emitted_count` how
    often; `gaps` are the gaps reported. `longest_wait_s` is the longest time between two polls of one.
    """

    counting: bool = False
    requests: Counter[int] = field(default_factory=Counter)
    ended: set[str] = field(default_factory=set)
    emitted: dict[str, float] = field(default_factory=dict)
    emitted_count: Counter[str] = field(default_factory=Counter)
    gaps: list[bytes] = field(default_factory=list)
    longest_wait_s: float = 0.0
    _polled: dict[str, float] = field(default_factory=dict)

    def asked(self, page: int, shown: Iterable[SimExecution], *, now_s: float) -> None:
        """Note a request and what it showed."""
        self.requests[page] += self.counting
        for execution in shown:
            if execution.id not in self.ended:
                self._showed(execution, now_s=now_s)

    def recorded(self, change: Change, *, now_s: float) -> None:
        """Note that the end of an execution, or a gap, was reported."""
        for each in change.changes if isinstance(change, ChangeSet) else (change,):
            if isinstance(each, ExecutionChange) and each.entries and each.known.end_seen_at is not None:
                self.emitted.setdefault(each.known.execution, now_s)
                self.emitted_count[each.known.execution] += 1
            elif isinstance(each, SourceChange) and each.cursor is not None:
                self.gaps += [entry.event.body for entry in each.entries]

    def stop(self, now_s: float) -> None:
        """Count no more; who still waits has waited until now."""
        for polled_s in self._polled.values():
            self._waited(now_s - polled_s)
        self.counting = False

    def _showed(self, execution: SimExecution, *, now_s: float) -> None:
        self._waited(now_s - self._polled.pop(execution.id, now_s))
        if execution.phase_at(now_s).has_ended:
            self.ended.add(execution.id)
        else:
            self._polled[execution.id] = now_s

    def _waited(self, wait_s: float) -> None:
        if self.counting:
            self.longest_wait_s = max(self.longest_wait_s, wait_s)


@dataclass(slots=True)
class _Shelf:
    """A pipeline's executions in the order they begin: thousands are listed page by page, over and over."""

    executions: list[SimExecution] = field(default_factory=list)
    begins_s: list[float] = field(default_factory=list)

    def add(self, execution: SimExecution) -> None:
        self.executions.append(execution)
        self.begins_s.append(execution.begins_s)

    def count(self, now_s: float) -> int:
        return bisect(self.begins_s, now_s)

    def page(self, number: int, *, now_s: float) -> list[SimExecution]:
        last = self.count(now_s) - (number - 1) * PAGE_ROWS
        return self.executions[max(0, last - PAGE_ROWS) : max(0, last)][::-1]


def next_change_s(execution: SimExecution, now_s: float) -> float:
    """Return the next moment at which anything of an execution changes, infinity if nothing will."""
    lifecycle, t = execution.lifecycle, now_s - execution.begins_s
    of_phases = (phase.begins_s for phase in lifecycle.phases)
    of_nodes = (moment for node in lifecycle.nodes for moment in (node.begins_s, node.ends_s))
    return execution.begins_s + min((moment for moment in (*of_phases, *of_nodes) if moment > t), default=math.inf)


class WorldApi:
    """Answers with the bytes the simulator would send, read by the parser of the real client; newest first."""

    ahead_us = 0

    def __init__(self, world: World, notes: Notes) -> None:
        """Answer from that world, to which nothing is added."""
        self._world = world
        self._notes = notes
        self.gate = asyncio.Event()
        self.gate.set()
        self._bodies: dict[str, tuple[float, bytes]] = {}
        self._rows: dict[str, tuple[float, bytes]] = {}
        self._shelves: defaultdict[str, _Shelf] = defaultdict(_Shelf)
        for execution in sorted(world.executions(), key=lambda each: each.begins_s):
            self._shelves[execution.pipeline.id].add(execution)

    async def get(self, *, pipeline: str, execution: str, known_hash: int | None = None) -> Reply:
        """Fetch one execution, at once; each answer is another."""
        now_s = self._world.now_s()
        found = self._world.find(execution, pipeline=pipeline)
        assert found is not None
        self._notes.asked(GET, [found], now_s=now_s)
        facts = parse_execution(self._body(found, now_s=now_s), asked=execution, dates=self._dates())
        return Reply(Outcome.OK, self._world.clock.monotonic(), facts, 200)

    async def list(self, *, pipeline: str, page: int, known: Reply | None = None) -> Reply:
        """Fetch one page of a pipeline's list, at once; each answer is another."""
        now_s, shelf = self._world.now_s(), self._shelves[pipeline]
        executions = shelf.page(page, now_s=now_s)
        self._notes.asked(page, executions, now_s=now_s)
        rows = b",".join(self._row(each, now_s=now_s) for each in executions)
        body = b'{"data":[%b],"total":%d,"links":{}}' % (rows, shelf.count(now_s))
        parsed = parse_page(body, dates=self._dates())
        return Reply(Outcome.OK, self._world.clock.monotonic(), None, 200, None, None, None, *parsed)

    def _dates(self) -> ApiDates:
        return ApiDates(0, self._world.clock.steady_us())

    def _body(self, execution: SimExecution, *, now_s: float) -> bytes:
        """Return an answer's bytes, kept until they change."""
        return self._kept(self._bodies, full, execution, now_s)

    def _row(self, execution: SimExecution, *, now_s: float) -> bytes:
        """Return a row's bytes, kept until they change; its `runTime`, which nobody reads, stands still until then."""
        return self._kept(self._rows, row, execution, now_s)

    def _kept(
        self, cache: dict[str, tuple[float, bytes]], make: Callable[..., Any], execution: SimExecution, now_s: float
    ) -> bytes:
        until_s, body = cache.get(execution.id, (now_s, b""))
        if now_s >= until_s:
            body = encode(make(execution, world=self._world, now_s=now_s))
            cache[execution.id] = (next_change_s(execution, now_s), body)
        return body
