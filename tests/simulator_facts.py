"""What the simulator knows and only tests ask: what it was asked, what it answered, and what was true."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import NamedTuple

from watcher.simulator.server import LoggedRequest, RequestLog
from watcher.simulator.world import SimExecution, World


def busiest_second(request_log: RequestLog, *, keys_each: int = 1) -> int:
    """Return the most requests one account made within any second, each of which has so many keys in turn."""
    by_account: dict[int | None, list[float]] = {}
    for entry in request_log.entries:
        by_account.setdefault(None if entry.key is None else entry.key // keys_each, []).append(entry.at)
    return max((_busiest(times) for times in by_account.values()), default=0)


def _busiest(times: Sequence[float]) -> int:
    busiest = oldest = 0
    for newest, at in enumerate(times):
        while at - times[oldest] >= 1:
            oldest += 1
        busiest = max(busiest, newest - oldest + 1)
    return busiest


def requests_of(request_log: RequestLog, execution: str) -> list[LoggedRequest]:
    """Return the requests for one execution."""
    return [entry for entry in request_log.entries if entry.execution == execution]


def answered_statuses(request_log: RequestLog, execution: str) -> list[str]:
    """Return the statuses that answers had, without repetitions: what a watcher can know at least."""
    emitted = (_shown_of(entry, execution) for entry in request_log.entries)
    return [status for status, _ in groupby(status for status in emitted if status)]


def _shown_of(entry: LoggedRequest, execution: str) -> str | None:
    return entry.answered if entry.execution == execution else (entry.rows or {}).get(execution)


class StatusTime(NamedTuple):
    """A status and when it began."""

    status: str
    at_s: float


def path(execution: SimExecution, until_s: float) -> tuple[StatusTime, ...]:
    """Return every status it had up to a moment, or to its deletion, and since when."""
    moments = (StatusTime(phase.status, execution.begins_s + phase.begins_s) for phase in execution.lifecycle.phases)
    return tuple(moment for moment in moments if moment.at_s <= min(until_s, execution.deleted_s))


def true_path(world: World, execution: str) -> tuple[StatusTime, ...]:
    """Return every status an execution has had so far, and since when."""
    found = world.find(execution)
    assert found is not None
    return path(found, world.now_s())


def time_at(world: World, moment_s: float) -> datetime:
    """Return a moment of the world as a date."""
    return world.epoch + timedelta(seconds=moment_s)


def forget(world: World, execution: str) -> None:
    """Let the API forget an execution from now on."""
    known = world.find(execution)
    assert known is not None
    world.replace(replace(known, deleted_s=world.now_s()))
