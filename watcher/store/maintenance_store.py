"""The store for the maintenance: deletes old rows, closes problems that have no owner any more, and records reports.

Each function `prune_…` deletes a page of rows in its caller's transaction. It returns how many executions lost all
their events, and where the next page begins (`None` after the last page).
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

from sqlalchemy import Connection, delete, text

from watcher.domain.event import OutboxEntry
from watcher.domain.history import DAY_US
from watcher.domain.problems import ProblemChange
from watcher.domain.timestamps import Micros
from watcher.store.changes import About, Emitted, Lease
from watcher.store.problems import WRITE_PROBLEM, parameters_of
from watcher.store.recording import DELETE_UNJUDGED, FORGET_SCAN, MARK_SOURCE, is_forgotten
from watcher.store.sources import Source, execution_id, pipeline, pipeline_id, sink
from watcher.store.sql_store import SqlStore
from watcher.store.tables import OPENS, AnyRow, action, incident, problem, problem_message, reminder, silence

EXECUTIONS_COUNT = 250
"""Executions of one page. With about four events each, and two deliveries per event, they are a few thousand rows."""

ROWS_COUNT = 1_000
"""Most rows of any other page."""

T = TypeVar("T")

KeepsId = Callable[[str, str, str, Micros], bool]
"""A function that returns whether the id of an ended execution must stay.

It is called with the account, the pipeline, the execution and the time of its end (microseconds UTC, steady clock).
"""

PageStart = Mapping[str, Any]
Pruned = tuple[int, PageStart | None]

FIRST_PAGE: PageStart = {"ended_at": -1, "account_id": -1, "execution": b"", "recorded_at": -1, "id": -1}
"""The start of the first page, before every row."""

_ENDED = text(
    "SELECT execution.ended_at, execution.account_id, execution.execution, execution.stream, account.name AS account,"
    " pipeline.name AS pipeline FROM execution JOIN source AS account ON account.id = execution.account_id"
    " JOIN source AS pipeline ON pipeline.id = execution.pipeline_id WHERE execution.ended_at < :before"
    " AND (execution.ended_at, execution.account_id, execution.execution) > (:ended_at, :account_id, :execution)"
    " ORDER BY execution.ended_at, execution.account_id, execution.execution LIMIT :limit"
)
# The opening of an open problem stays, because the closing goes to the sinks that have a delivery of the opening.
_OPENS_NOTHING = f"NOT EXISTS (SELECT 1 FROM problem WHERE {OPENS} AND problem.closed_at IS NULL)"
# A dead letter can be replayed, so it stays until it has been dead for the whole retention.
_DELETE_DELIVERIES = (
    f"DELETE FROM delivery WHERE number IN (SELECT id FROM event WHERE %s AND {_OPENS_NOTHING})"
    " AND state <> 'waiting' AND (state <> 'dead' OR settled_at < :before)"
)
_DELETE_EVENTS = (
    "DELETE FROM event WHERE %s AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.number = event.id)"
    f" AND {_OPENS_NOTHING}"
)
_OF_STREAM, _OF_EVENT = "event.stream = :of_stream", "event.id = :of_event"
_DELETE_STREAM_DELIVERIES = text(_DELETE_DELIVERIES % _OF_STREAM)
_DELETE_STREAM_EVENTS = text(_DELETE_EVENTS % _OF_STREAM)
_DELETE_EVENT_DELIVERIES, _DELETE_EVENT = text(_DELETE_DELIVERIES % _OF_EVENT), text(_DELETE_EVENTS % _OF_EVENT)
_NOTE_EMPTY = text(
    "UPDATE execution SET stream = NULL WHERE account_id = :account_id AND execution = :execution"
    " AND NOT EXISTS (SELECT 1 FROM event WHERE event.stream = execution.stream)"
)
_DELETE_EMPTY = text(
    "DELETE FROM execution WHERE account_id = :account_id AND execution = :execution AND stream IS NULL"
)


def prune_executions(connection: Connection, *, before: int, after: PageStart, keep: KeepsId) -> Pruned:
    """Delete a page of executions that ended before `before`, with their events and settled deliveries.

    The row of an execution stays if `keep` says so, and as long as any of its events stays: otherwise the next sight of
    the execution would emit sequence 1 again.
    """
    rows = connection.execute(_ENDED, {**after, "before": before, "limit": EXECUTIONS_COUNT}).all()
    by_key = sorted(rows, key=attrgetter("account_id", "execution"))
    gone_count, streams = 0, sorted(row.stream for row in rows if row.stream is not None)
    if streams:
        keys = [{"of_stream": stream, "before": before} for stream in streams]
        connection.execute(_DELETE_STREAM_DELIVERIES, keys)
        connection.execute(_DELETE_STREAM_EVENTS, keys)
        with_events = [row._asdict() for row in by_key if row.stream is not None]
        gone_count = connection.execute(_NOTE_EMPTY, with_events).rowcount
    forgotten = [
        row._asdict()
        for row in by_key
        if not keep(row.account, pipeline_id(row.pipeline), execution_id(row.execution), row.ended_at)
    ]
    if forgotten:
        connection.execute(_DELETE_EMPTY, forgotten)
    return gone_count, rows[-1]._asdict() if len(rows) == EXECUTIONS_COUNT else None


_OLD_EVENTS = text(
    "SELECT id, recorded_at FROM event WHERE execution IS NULL AND recorded_at < :before"
    " AND (recorded_at, id) > (:recorded_at, :id) ORDER BY recorded_at, id LIMIT :limit"
)


def prune_source_events(connection: Connection, *, before: int, after: PageStart) -> Pruned:
    """Delete a page of events without an execution that were recorded before `before`, with settled deliveries."""
    rows = connection.execute(_OLD_EVENTS, {**after, "before": before, "limit": ROWS_COUNT}).all()
    if rows:
        keys = [{"of_event": number, "before": before} for number in sorted(row.id for row in rows)]
        connection.execute(_DELETE_EVENT_DELIVERIES, keys)
        connection.execute(_DELETE_EVENT, keys)
    return 0, rows[-1]._asdict() if len(rows) == ROWS_COUNT else None


# The problems of an incident stay until the pager accepted the end of the incident, or is no longer configured.
_CLOSED = text(
    "SELECT problem.id FROM problem WHERE closed_at < :before AND NOT EXISTS (SELECT 1 FROM incident"
    " JOIN source ON source.id = incident.sink_id WHERE incident.problem_id = problem.id AND incident.resolved = false"
    " AND source.absent_since IS NULL) ORDER BY problem.id LIMIT :limit"
)


def prune_problems(connection: Connection, *, before: int, after: PageStart) -> Pruned:
    """Delete a page of the problems that were closed before `before`. The next page begins at the first one left."""
    ids = connection.execute(_CLOSED, {"before": before, "limit": ROWS_COUNT}).scalars().all()
    if ids:
        for key in (reminder.c.problem_id, problem_message.c.problem_id, incident.c.problem_id, problem.c.id):
            connection.execute(delete(key.table).where(key.in_(ids)))
    return 0, after if len(ids) == ROWS_COUNT else None


_PRUNE = (
    "DELETE FROM {0} WHERE (pipeline_id, {1}) IN"
    f" (SELECT pipeline_id, {{1}} FROM {{0}} WHERE from_at < :before ORDER BY from_at LIMIT {ROWS_COUNT})"
)
_PRUNE_HOURS = text(_PRUNE.format("pipeline_hour", "from_at"))
_PRUNE_DAYS = text(_PRUNE.format("pipeline_day", "from_at"))
_PRUNE_ERRORS = text(_PRUNE.format("error_kind", "from_at, fingerprint"))


def prune_history(connection: Connection, *, before: int, after: PageStart) -> Pruned:
    """Delete a page of the hours that began before `before`, and of what is counted by the day and ended before it."""
    counts = [connection.execute(_PRUNE_HOURS, {"before": before}).rowcount]
    counts += [connection.execute(each, {"before": before - DAY_US}).rowcount for each in (_PRUNE_DAYS, _PRUNE_ERRORS)]
    return 0, after if ROWS_COUNT in counts else None


_SINKS = text("SELECT id, name, absent_since FROM source WHERE kind = 'sink'")
_EXPIRE = text(
    "UPDATE delivery SET state = 'dead', settled_at = :now, answer = 'sink_removed' WHERE (number, sink_id) IN"
    " (SELECT number, sink_id FROM delivery WHERE sink_id = :of_sink AND state = 'waiting' LIMIT :limit)"
)
_SCANNED = text(
    "SELECT account_id, pipeline_id, source.name, absent_since FROM scan JOIN source ON source.id = pipeline_id"
)
_WITH_RULES = text("SELECT id, name FROM source WHERE kind = 'pipeline' AND rules IS NOT NULL")
_FORGET_RULES = text("UPDATE source SET rules = NULL WHERE id = :of_source")


def prune_operations(connection: Connection, *, before: int, after: PageStart, now: Micros) -> Pruned:
    """Delete the silences that ended before `before`, and the actions that no owner did within 24 h."""
    # `id > 0` and `kind > ""` make the database use the primary key.
    connection.execute(delete(silence).where(silence.c.id > 0, silence.c.ends_at < before))
    long_ago = now - 24 * 3600 * 1_000_000  # no HTTP request still waits for them
    connection.execute(delete(action).where(action.c.kind > "", action.c.asked_at < long_ago))
    return 0, None


_ABOUT = text(
    "SELECT id AS of_problem, source_id AS of_source, pipeline_id, execution AS of_execution, sequence AS of_sequence"
    " FROM problem WHERE id = :of_problem"
)
_END_OVERDUE = text(
    "UPDATE execution SET overdue_sequence = NULL, overdue_at = NULL"
    " WHERE account_id = :of_source AND execution = :of_execution AND overdue_sequence = :of_sequence"
)
_END_STATE = text(
    "UPDATE source SET state = NULL WHERE id = :of_source"
    " AND EXISTS (SELECT 1 FROM problem WHERE id = :of_problem AND closed_at IS NULL)"
)


_REPORTS = text("SELECT id, name, sequence, moment_at FROM report JOIN source ON source.id = source_id")
_ADD_REPORT = text("INSERT INTO report (source_id, moment_at) VALUES (:of_source, :moment) ON CONFLICT DO NOTHING")
_MOVE_REPORT = text("UPDATE report SET moment_at = :moment WHERE source_id = :of_source AND moment_at = :before")
_HAS_EVENT = text("SELECT 1 FROM event WHERE stream = :stream AND event_id = :event_id")
_COUNT_REPORT = text("UPDATE source SET sequence = sequence + 1 WHERE id = :of_source")
_FORGET_REPORT = text("DELETE FROM report WHERE source_id = :of_source")


class MaintenanceStore:
    """The store for the holder of the maintenance lease. Each write fails once another process holds the lease."""

    def __init__(self, store: SqlStore, lease: Lease) -> None:
        self._store = store
        self._lease = lease

    async def mark_absent_sinks(self, *, present: Collection[str], now: Micros, dead_after_us: int) -> int:
        """Mark the sinks that are not in `present` as absent; return how many of their deliveries became dead letters.

        The pending deliveries of a sink become dead letters once the sink is absent for `dead_after_us`.
        """

        def mark(connection: Connection) -> dict[int, int]:
            sinks = connection.execute(_SINKS).all()
            absent = {row.id: min(row.absent_since or now, now) for row in sinks if row.name not in present}
            if sinks:  # sorted, so that two writers cannot deadlock
                marks = [{"of_source": row.id, "since": absent.get(row.id)} for row in sinks]
                connection.execute(MARK_SOURCE, sorted(marks, key=itemgetter("of_source")))
            return absent

        def expire(connection: Connection, sink_id: int) -> int:
            return connection.execute(_EXPIRE, {"of_sink": sink_id, "now": now, "limit": ROWS_COUNT}).rowcount

        died_count = 0
        for sink_id, since in (await self._write(mark)).items():
            while since <= now - dead_after_us and (count := await self._write(partial(expire, sink_id=sink_id))):
                died_count += count
        return died_count

    async def close_problems(self, closings: Sequence[tuple[OutboxEntry, ProblemChange]]) -> int:
        """Close problems without an owner, each with its event; return how many of them were still open."""
        by_id = sorted(closings, key=lambda closing: closing[1].problem.id.bytes)

        def close(connection: Connection) -> tuple[int, set[str]]:
            keys = [{"of_problem": change.problem.id.bytes} for _, change in by_id]
            abouts = [connection.execute(_ABOUT, key).one()._asdict() for key in keys]
            # In the order in which owners write, so that two writers cannot deadlock: executions, then accounts and
            # sinks, then problems, each sorted.
            overdue = [each for each in abouts if each["of_execution"] is not None]
            of_sources = [each for each in abouts if each["of_execution"] is None and each["pipeline_id"] is None]
            for about in sorted(overdue, key=itemgetter("of_source", "of_execution")):
                connection.execute(_END_OVERDUE, about)
            for about in sorted(of_sources, key=itemgetter("of_source")):
                connection.execute(_END_STATE, about)
            emitted: list[Emitted] = []
            for about, (entry, change) in zip(abouts, by_id, strict=True):
                if connection.execute(WRITE_PROBLEM, parameters_of(change)).rowcount:
                    columns = {"source_id": about["of_source"], "pipeline_id": about["pipeline_id"], "execution": None}
                    emitted.append((entry, columns))  # no execution: the event is pruned by its own age
            return len(emitted), self._store.outbox.write(connection, emitted, now=self._store.clock.steady_us())

        count, names = await self._write(close)
        self._store.wake(names)
        return count

    async def forget_rules(self, *, present: Collection[tuple[str, str]]) -> None:
        """Delete the stored states of rules, except for the pipelines in `present`, given as (account, pipeline)."""
        names = {pipeline(account, pipeline_id).name for account, pipeline_id in present}

        def forget(connection: Connection) -> None:
            ids = sorted(row.id for row in connection.execute(_WITH_RULES) if row.name not in names)
            gone = [{"of_source": each} for each in ids]
            if gone:  # in the order of `_write_sources`
                connection.execute(DELETE_UNJUDGED, gone)
                connection.execute(_FORGET_RULES, gone)

        await self._write(forget)

    async def mark_absent_pipelines(self, *, present: Collection[tuple[str, str]], now: Micros) -> None:
        """Mark the pipelines that are no longer watched whole. `present` has those that are, as (account, pipeline).

        Deletes the cursor of each pipeline that was absent for more than 24 h, even if the pipeline is present again:
        the result must not depend on which runs first, the maintenance or the owner of the account.
        """
        names = {pipeline(account, pipeline_id).name for account, pipeline_id in present}

        def mark(connection: Connection) -> None:
            # In the order of `_write_sources`, so that two writers cannot deadlock.
            rows = sorted(connection.execute(_SCANNED), key=attrgetter("pipeline_id"))
            forgotten = [row._asdict() for row in rows if is_forgotten(row, now=now)]
            marks = [
                {"of_source": row.pipeline_id, "since": None if row.name in names else row.absent_since or now}
                for row in rows
            ]
            if marks:
                connection.execute(MARK_SOURCE, marks)
            if forgotten:
                connection.execute(FORGET_SCAN, forgotten)

        await self._write(mark)

    async def prune(self, *, ended_before: Micros, keep: KeepsId) -> AsyncIterator[int]:
        """Delete rows older than `ended_before`: executions, events, deliveries, problems, history, silences, actions.

        `keep` returns whether the id of an execution must stay. Each step is a short transaction, and yields the number
        of executions that lost all their events in it.
        """
        operations = partial(prune_operations, now=self._store.clock.steady_us())
        executions = partial(prune_executions, keep=keep)
        for prune in (prune_source_events, executions, prune_problems, prune_history, operations):
            after: PageStart | None = FIRST_PAGE
            while after is not None:
                gone_count, after = await self._write(partial(prune, before=ended_before, after=after))
                yield gone_count

    async def reports(self) -> Mapping[str, AnyRow]:
        """Return the known reports by name: `id`, `sequence` of the last event, and `moment_at`, the last due time."""
        rows = await self._store.read(lambda connection: connection.execute(_REPORTS).all())
        return {row.name: row for row in rows}

    async def add_report(self, name: str, moment: Micros) -> None:
        """Add a new report. `moment` is the last time (wall clock) at which it would have been due."""
        row = {"of_source": await self._store.number_of(Source("report", name)), "moment": moment}
        await self._write(lambda connection: connection.execute(_ADD_REPORT, row))

    async def record_report(self, known: AnyRow, moment: Micros, entry: OutboxEntry) -> bool:
        """Record the event of a report that is due at `moment`; return `False` if another process has done so."""
        for name in entry.sinks:
            await self._store.number_of(sink(name))
        key = {"of_source": known.id, "before": known.moment_at, "moment": moment}
        itself = {"stream": entry.event.stream, "event_id": entry.event.id.bytes}

        def record(connection: Connection) -> set[str] | None:
            is_moved = connection.execute(_MOVE_REPORT, key).rowcount
            # If the wall clock was set back, this report may have been recorded already.
            if not is_moved or connection.scalar(_HAS_EVENT, itself):
                return None
            connection.execute(_COUNT_REPORT, key)
            about: About = {"source_id": known.id, "pipeline_id": None, "execution": None}
            return self._store.outbox.write(connection, [(entry, about)], now=self._store.clock.steady_us())

        names = await self._write(record)
        self._store.wake(names or ())
        return names is not None

    async def forget_reports(self, gone: Iterable[AnyRow]) -> None:
        """Delete the due times of these reports. A report that is configured again counts as new."""
        if keys := [{"of_source": row.id} for row in gone]:
            await self._write(lambda connection: connection.execute(_FORGET_REPORT, keys))

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await self._store.write(work, lease=self._lease)
