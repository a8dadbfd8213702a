"""The store as pages and API read it: lists, page by page behind a cursor, each looking at a bounded number of rows.

A list is walked along an index in parts. What is wanted of it is decided here, row by row, so that a page can end early
and say where. All that is shown of a row, names and bodies too, is read for the rows of the page alone.
"""

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Select, bindparam, case, func, literal_column, null, select, tuple_

from watcher.domain.event import EventType
from watcher.domain.execution import OPEN_STATUSES, TERMINAL_STATUSES
from watcher.domain.timestamps import NEVER, Micros
from watcher.store.deliveries import EARLIER, backlog, labels_of
from watcher.store.records import Backlog
from watcher.store.sql_store import SqlStore
from watcher.store.states import execution_key
from watcher.store.tables import DEAD, WAITING, AnyRow, delivery, event, execution, problem, scan, snapshot, source

LOOKED_AT_COUNT = 20_000
"""Rows that a page looks at, at most: then it ends early, with a cursor."""

PART_COUNT = 500
"""Rows of one statement, but for the first, which brings as many as the page may need."""

SETTLED_AFTER_US = 10_000_000
"""A transaction is over by then: numbers of events that are missing longer stay missing."""

DETAIL_COUNT = 200
"""Events of one execution, or of one problem, that are shown with it."""

NEEDS_COUNT = 100
"""Open problems of other kinds than `execution.overdue`, and gaps, that the overview shows."""

DEAD_COUNT = 10_000
"""Dead letters of one sink that the overview counts, at most."""


class Position(NamedTuple):
    """Where a list goes on: behind the row of this time, or number, and key. `part` is which part of the list."""

    part: str
    at: int
    key: Any


Rows = tuple[Sequence[AnyRow], Position | None]
"""A page of a list, and where the list goes on, if there is more."""

Told = tuple[Sequence[bytes], Sequence[AnyRow]]
"""The bodies of events, in order, and their deliveries."""

_TOP = Position("", 2**63 - 1, b"\xff" * 17)
"""Behind it is all of a list that goes down."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What the first view needs of the store.

    `sources` are all accounts, pipelines and sinks with their snapshots, `titles` what the API calls pipelines;
    `problems` those that are open, but overdue executions, which are apart. `dead` counts dead letters by sink, of all
    and of late.
    """

    sources: Sequence[AnyRow]
    titles: Mapping[str, str | None]
    problems: Sequence[AnyRow]
    overdue: Sequence[AnyRow]
    gaps: Sequence[AnyRow]
    dead: Mapping[str, AnyRow]
    backlog: Mapping[str, Backlog]


class ConsoleStore:
    """What people ask of what is recorded. Nothing here writes; each method raises `StoreError`.

    Rows have the columns of their table and the names of what they are of: `account`, `sink`, `pipeline_name` (account
    and id), `title` (what the API calls the pipeline), `body` (of an execution's last event, a problem's first).
    """

    def __init__(self, store: SqlStore) -> None:
        """Ask nothing yet."""
        self._store = store

    async def executions(
        self,
        *,
        is_of_pipeline: Callable[[str], bool] = lambda _: True,
        statuses: Collection[str] = (),
        ended_since: Micros = NEVER,
        id_beginning: str | None = None,
        after: Position | None = None,
        limit: int,
    ) -> Rows:
        """Return open executions, newest first, then ended ones, the latest end first; `lost` counts as a status.

        Of pipelines by their names (account/id). With an `id_beginning` (hexadecimal digits) in the order of ids.
        """

        def read(connection: Connection) -> Rows:
            names = _numbers(connection, "pipeline")
            numbers = [number for number, name in names.items() if is_of_pipeline(name)]
            only, behind, count = statuses or ("",), after, limit + 1
            rows: Iterator[AnyRow] = iter(())
            if id_beginning is not None:
                rows = _by_id(connection, id_beginning, after, first_count=count)
            else:
                if behind is None or behind.part == "o":
                    keys = [{"of_pipeline": each} for each in numbers if not TERMINAL_STATUSES.issuperset(only)]
                    share = count if len(keys) == 1 else 2 * limit // max(1, len(keys)) + 10
                    walks = [_walk(connection, _OPEN, key, behind or _TOP, first_count=share) for key in keys]
                    rows, behind = heapq.merge(*walks, key=_place, reverse=True), None
                if not OPEN_STATUSES.issuperset(only):
                    key = {"since": ended_since}
                    rows = chain(rows, _walk(connection, _ENDED, key, behind or _TOP, first_count=count))
            wanted = frozenset(numbers)

            def is_wanted(row: AnyRow) -> bool:
                is_it = row.status in statuses or (row.lost is not None and "lost" in statuses)
                return row.pipeline_id in wanted and row.status is not None and (is_it or not statuses)

            found, last, is_more = _page(rows, is_wanted, limit)
            of_page = {"accounts": [row.account_id for row in found], "executions": [row.key for row in found]}
            by_key = {(row.account_id, row.execution): row for row in connection.execute(_EXECUTIONS, of_page)}
            shown = [by_key[row.account_id, row.key] for row in found if (row.account_id, row.key) in by_key]
            return shown, _position(last) if is_more else None

        return await self._store.read(read)

    async def execution(self, pipeline: str, name: str) -> tuple[AnyRow, Told] | None:
        """Return an execution of a pipeline (account/id) with what was told of it. `ValueError`: its name is no id."""
        key = execution_key(name)

        def read(connection: Connection) -> tuple[AnyRow, Told] | None:
            keys = {"accounts": list(_numbers(connection, "account")), "executions": [key]}
            for row in connection.execute(_EXECUTIONS, keys).all():
                if row.pipeline_name == pipeline:
                    return row, _told(connection, connection.execute(_LAST_OF_STREAM, {"of_stream": row.stream}))
            return None

        return await self._store.read(read)

    async def events(
        self,
        *,
        types: Collection[EventType] | None = None,
        pipelines: Collection[str] = (),
        has_labels: Callable[[Mapping[str, str]], bool] = lambda _: True,
        execution: str | None = None,
        since: Micros = NEVER,
        after: int | None = None,
        limit: int,
    ) -> tuple[Sequence[bytes], int]:
        """Return the bodies of events in the order of recording, and the number to go on behind.

        Whoever goes on with that misses none. Other processes may have transactions under way, whose events have lower
        numbers: so a page ends before a number that is missing, unless the event behind it is older than those last.
        """
        settled_at = self._store.clock.steady_us() - SETTLED_AFTER_US

        def is_wanted(row: AnyRow) -> bool:
            return (
                row.recorded_at >= since
                and (types is None or row.type in types)
                and (not pipelines or row.pipeline in pipelines)
                and has_labels(labels_of(row.labels))
            )

        def read(connection: Connection) -> tuple[Sequence[bytes], int]:
            start = after
            if start is None:
                start = _number_before(connection, since - SETTLED_AFTER_US) if since else 0
            if execution is not None:
                rows = _of_execution(connection, execution_key(execution), after=start)
            else:
                rows = _walk(connection, _EVENTS, {}, Position("", start, None), first_count=limit + 1)
                if not self._store.exclusive:
                    rows = _before_gap(rows, start, settled_at=settled_at)
            found, last, _ = _page(rows, is_wanted, limit)
            bodies = {row.id: row.body for row in connection.execute(_BODIES, {"numbers": [row.at for row in found]})}
            return [bodies[row.at] for row in found if row.at in bodies], start if last is None else last.at

        return await self._store.read(read)

    async def deliveries(
        self, *, state: str | None = None, sink: str | None = None, after: Position | None = None, limit: int
    ) -> Rows:
        """Return deliveries, those of the newest events first. `earlier` is there if one holds it back."""

        def read(connection: Connection) -> Rows:
            sinks = [number for number, name in _numbers(connection, "sink").items() if sink in (None, name)]
            behind = after or Position("", 2**62, 2**62)
            rows = None
            if state in _FEW_DELIVERIES:
                few = [connection.execute(_FEW_DELIVERIES[state], {"of_sink": number}).all() for number in sinks]
                rows = _sorted(chain.from_iterable(few), behind)
            if rows is None:
                rows = _walk(connection, _DELIVERY_KEYS, {}, behind, first_count=limit + 1)
            found, last, is_more = _page(rows, lambda row: row.key in sinks and state in (None, row.state), limit)
            return _deliveries(connection, [_place(row) for row in found]), _position(last) if is_more else None

        return await self._store.read(read)

    async def problems(self, *, is_open: bool | None = None, after: Position | None = None, limit: int) -> Rows:
        """Return problems, the last opened first."""

        def read(connection: Connection) -> Rows:
            rows = _sorted(connection.execute(_OPEN_PROBLEMS), after or _TOP) if is_open else None
            if rows is None:
                rows = _walk(connection, _PROBLEM_KEYS, {}, after or _TOP, first_count=limit + 1)
            found, last, is_more = _page(rows, lambda row: is_open in (None, row.closed_at is None), limit)
            by_id = {row.id: row for row in connection.execute(_PROBLEMS, {"ids": [row.key for row in found]})}
            return [by_id[row.key] for row in found if row.key in by_id], _position(last) if is_more else None

        return await self._store.read(read)

    async def problem(self, id_: UUID) -> tuple[AnyRow, Told] | None:
        """Return a problem with what was told of it."""

        def read(connection: Connection) -> tuple[AnyRow, Told] | None:
            row = connection.execute(_PROBLEMS, {"ids": [id_.bytes]}).one_or_none()
            if row is None:
                return None
            key = {"of_stream": row.stream, "of_sequence": row.sequence, "of_problem": row.id}
            events = connection.execute(_PROBLEM_STREAM, key).all()
            if events:  # reminders and the like have streams of their own, and no execution
                key = {"since": events[0].recorded_at, "of_problem": row.id}
                events = [*events, *connection.execute(_PROBLEM_EVENTS, key)]
            return row, _told(connection, events)

        return await self._store.read(read)

    async def overview(self, *, since: Micros) -> Overview:
        """Return what the first view needs; gaps and late dead letters since that moment."""
        return await self._store.read(partial(_overview, since=since))


# How a list is walked: each statement has its order in the columns `at` and `key`.


def _place(row: AnyRow) -> tuple[int, Any]:
    return row.at, row.key


def _position(row: AnyRow | None) -> Position | None:
    return None if row is None else Position(getattr(row, "part", ""), row.at, row.key)


def _down(statement: Select[Any], at: Any, key: Any) -> Select[Any]:
    """Return a part of a list that goes down by `at` and `key`: the rows behind a position."""
    is_behind = tuple_(at, key) < tuple_(bindparam("at"), bindparam("key"))
    statement = statement.add_columns(at.label("at"), key.label("key")).where(at <= bindparam("at"), is_behind)
    return statement.order_by(at.desc(), key.desc()).limit(bindparam("limit"))


def _walk(
    connection: Connection, statement: Select[Any], key: Mapping[str, Any], after: Position, *, first_count: int
) -> Iterator[AnyRow]:
    """Yield the rows behind a position, in parts."""
    count = first_count
    while True:
        part = connection.execute(statement, {**key, "at": after.at, "key": after.key, "limit": count}).all()
        yield from part
        if len(part) < count:
            return
        after, count = Position("", part[-1].at, part[-1].key), PART_COUNT


def _page(
    rows: Iterable[AnyRow], is_wanted: Callable[[AnyRow], bool], limit: int
) -> tuple[list[AnyRow], AnyRow | None, bool]:
    """Return the first rows that are wanted, the last that was looked at, and whether there is one behind that."""
    found: list[AnyRow] = []
    last: AnyRow | None = None
    for looked_at_count, row in enumerate(rows):
        if len(found) == limit or looked_at_count == LOOKED_AT_COUNT:
            return found, last, True
        if is_wanted(row):
            found.append(row)
        last = row
    return found, last, False


def _sorted(rows: Iterable[AnyRow], behind: Position) -> Iterator[AnyRow] | None:
    """Return few rows, those behind a position, in order; `None` if they are not few.

    What waits, is dead or is open is found by an index of that alone, however much else there is, but in no order.
    """
    found = list(rows)
    if len(found) > LOOKED_AT_COUNT:
        return None
    found.sort(key=_place, reverse=True)
    return (row for row in found if _place(row) < (behind.at, behind.key))


def _numbers(connection: Connection, kind: str) -> dict[int, str]:
    """Return the names of all accounts, pipelines or sinks, by their numbers."""
    rows = connection.execute(select(source.c.id, source.c.name).where(source.c.kind == kind))
    return {row.id: row.name for row in rows}


# Executions

_EXECUTION_KEY = (execution.c.account_id, execution.c.pipeline_id, execution.c.status, execution.c.lost)
_OPEN = _down(
    select(*_EXECUTION_KEY, literal_column("'o'").label("part")).where(
        execution.c.pipeline_id == bindparam("of_pipeline"), execution.c.ended_at.is_(None)
    ),
    execution.c.since_at,
    execution.c.execution,
)
_ENDED = _down(
    select(*_EXECUTION_KEY, literal_column("'e'").label("part")).where(execution.c.ended_at >= bindparam("since")),
    execution.c.ended_at,
    execution.c.execution,
)
_ID = execution.c.execution
_BY_ID = (
    select(*_EXECUTION_KEY, literal_column("'i'").label("part"), execution.c.account_id.label("at"), _ID.label("key"))
    .where(execution.c.account_id == bindparam("at"), bindparam("key") < _ID)
    .where(_ID.between(bindparam("first"), bindparam("last")))
    .order_by(_ID)
    .limit(bindparam("limit"))
)
_account, _pipeline = source.alias("account"), source.alias("pipeline")
_EXECUTIONS = (
    select(
        execution,
        _account.c.name.label("account"),
        _pipeline.c.name.label("pipeline_name"),
        scan.c.name.label("title"),
        event.c.body,
    )
    .join(_account, _account.c.id == execution.c.account_id)
    .join(_pipeline, _pipeline.c.id == execution.c.pipeline_id)
    .outerjoin(scan, (scan.c.account_id == execution.c.account_id) & (scan.c.pipeline_id == execution.c.pipeline_id))
    .outerjoin(event, (event.c.stream == execution.c.stream) & (event.c.sequence == execution.c.sequence))
    .where(
        execution.c.account_id.in_(bindparam("accounts", expanding=True)),
        execution.c.execution.in_(bindparam("executions", expanding=True)),
    )
)


def _by_id(connection: Connection, beginning: str, after: Position | None, *, first_count: int) -> Iterator[AnyRow]:
    """Yield executions whose id begins like that, by account and id."""
    ids = {"first": bytes.fromhex(beginning.ljust(32, "0")), "last": bytes.fromhex(beginning.ljust(32, "f"))}
    behind = after or Position("i", 0, b"")
    for account_id in sorted(_numbers(connection, "account")):
        if account_id >= behind.at:
            key = behind.key if account_id == behind.at else b""
            yield from _walk(connection, _BY_ID, ids, Position("i", account_id, key), first_count=first_count)


# Events

_EVENT_FACTS = (event.c.id.label("at"), *(event.c[name] for name in ("recorded_at", "type", "pipeline", "labels")))
_EVENTS = (
    select(*_EVENT_FACTS, null().label("key"))
    .where(event.c.id > bindparam("at"))
    .order_by(event.c.id)
    .limit(bindparam("limit"))
)
_BODIES = select(event.c.id, event.c.body).where(event.c.id.in_(bindparam("numbers", expanding=True)))
_LAST_NUMBER = select(event.c.id).order_by(event.c.id.desc()).limit(1)
_NEXT = select(event.c.id, event.c.recorded_at).where(event.c.id > bindparam("at")).order_by(event.c.id).limit(1)
_IN_STREAM = (
    select(*_EVENT_FACTS)
    .where(event.c.stream == bindparam("of_stream"), event.c.id > bindparam("at"))
    .order_by(event.c.sequence)
    .limit(LOOKED_AT_COUNT + 1)
)
_LAST_OF_STREAM = (
    select(event.c.id, event.c.body)
    .where(event.c.stream == bindparam("of_stream"))
    .order_by(event.c.sequence.desc())
    .limit(DETAIL_COUNT)
)


def _number_before(connection: Connection, moment: int) -> int:
    """Return the number behind which are the events that were recorded since then, as far as these are in order."""
    low, high = 0, connection.execute(_LAST_NUMBER).scalar() or 0
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(_NEXT, {"at": middle}).one_or_none()
        if row is None or row.recorded_at >= moment:
            high = middle
        else:
            low = row.id
    return low


def _of_execution(connection: Connection, key: bytes, *, after: int) -> Iterator[AnyRow]:
    """Yield the events of an execution. Nothing is missing in between: its owner writes one after the other."""
    keys = {"accounts": list(_numbers(connection, "account")), "executions": [key]}
    for row in connection.execute(_EXECUTIONS, keys).all():
        yield from connection.execute(_IN_STREAM, {"of_stream": row.stream, "at": after})


def _before_gap(rows: Iterable[AnyRow], previous: int, *, settled_at: int) -> Iterator[AnyRow]:
    """Yield events up to the first number that is missing and may still come."""
    for row in rows:
        if row.at != previous + 1 and row.recorded_at > settled_at:
            return
        yield row
        previous = row.at


def _told(connection: Connection, events: Iterable[AnyRow]) -> Told:
    bodies = dict(sorted((row.id, row.body) for row in events)[-DETAIL_COUNT:])
    return list(bodies.values()), connection.execute(_DELIVERIES, {"numbers": list(bodies)}).all()


# Deliveries

_DELIVERY_KEYS = _down(select(delivery.c.state), delivery.c.number, delivery.c.sink_id)
_OF_SINK = (
    select(delivery.c.number.label("at"), delivery.c.sink_id.label("key"), delivery.c.state)
    .where(delivery.c.sink_id == bindparam("of_sink"))
    .limit(LOOKED_AT_COUNT + 1)
)
_FEW_DELIVERIES: Mapping[str | None, Select[Any]] = {
    "waiting": _OF_SINK.where(delivery.c.state == WAITING),
    "dead": _OF_SINK.where(delivery.c.state == DEAD),
}
_DELIVERIES = (
    select(
        delivery,
        source.c.name.label("sink"),
        source.c.state.label("sink_state"),
        source.c.paused_until,
        case((delivery.c.state == WAITING, EARLIER)).label("earlier"),
        *(event.c[name] for name in ("event_id", "type", "account", "pipeline", "execution")),
    )
    .join(event, event.c.id == delivery.c.number)
    .join(source, source.c.id == delivery.c.sink_id)
    .where(delivery.c.number.in_(bindparam("numbers", expanding=True)))
    .order_by(delivery.c.number, delivery.c.sink_id)
)


def _deliveries(connection: Connection, keys: Collection[tuple[int, int]]) -> list[AnyRow]:
    rows = connection.execute(_DELIVERIES, {"numbers": sorted({number for number, _ in keys})})
    return [row for row in rows if (row.number, row.sink_id) in keys][::-1]


# Problems

_PROBLEM_KEYS = _down(select(problem.c.closed_at), problem.c.opened_at, problem.c.id)
_OPEN_PROBLEMS = (
    select(problem.c.opened_at.label("at"), problem.c.id.label("key"), problem.c.closed_at)
    .where(problem.c.closed_at.is_(None))
    .limit(LOOKED_AT_COUNT + 1)
)
_SHOWN_PROBLEMS = (
    select(
        problem,
        source.c.kind.label("owner_kind"),
        source.c.name.label("owner"),
        _pipeline.c.name.label("pipeline_name"),
        event.c.body,
    )
    .join(source, source.c.id == problem.c.source_id)
    .outerjoin(_pipeline, _pipeline.c.id == problem.c.pipeline_id)
    .outerjoin(event, (event.c.stream == problem.c.stream) & (event.c.sequence == problem.c.sequence))
)
_PROBLEMS = _SHOWN_PROBLEMS.where(problem.c.id.in_(bindparam("ids", expanding=True)))
_PROBLEM_STREAM = (
    select(event.c.id, event.c.recorded_at, event.c.body)
    .where(
        event.c.stream == bindparam("of_stream"),
        event.c.sequence >= bindparam("of_sequence"),
        event.c.problem_id == bindparam("of_problem"),
    )
    .order_by(event.c.sequence)
    .limit(DETAIL_COUNT)
)
_WITHOUT_EXECUTION = select(event.c.id, event.c.type, event.c.problem_id).where(
    event.c.execution.is_(None), event.c.recorded_at >= bindparam("since")
)
_since_then = _WITHOUT_EXECUTION.order_by(event.c.recorded_at).limit(LOOKED_AT_COUNT).subquery()
_PROBLEM_EVENTS = (
    select(event.c.id, event.c.body)
    .join(_since_then, _since_then.c.id == event.c.id)
    .where(_since_then.c.problem_id == bindparam("of_problem"))
)


# The overview

_OPEN_OTHERS = _SHOWN_PROBLEMS.where(
    problem.c.closed_at.is_(None), problem.c.kind != EventType.EXECUTION_OVERDUE
).limit(NEEDS_COUNT)
_OVERDUE = (
    select(
        problem.c.id, problem.c.kind, problem.c.opened_at, problem.c.acked_at, _pipeline.c.name.label("pipeline_name")
    )
    .join(_pipeline, _pipeline.c.id == problem.c.pipeline_id)
    .where(problem.c.closed_at.is_(None), problem.c.kind == EventType.EXECUTION_OVERDUE)
    .limit(LOOKED_AT_COUNT)
)
_of_late = _WITHOUT_EXECUTION.order_by(event.c.recorded_at.desc()).limit(LOOKED_AT_COUNT).subquery()
_GAPS = (
    select(event.c.account, event.c.pipeline, event.c.recorded_at, event.c.body)
    .join(_of_late, _of_late.c.id == event.c.id)
    .where(_of_late.c.type == EventType.PIPELINE_GAP)
    .limit(NEEDS_COUNT)
)
_dead = (
    select(delivery.c.settled_at)
    .where(delivery.c.sink_id == bindparam("of_sink"), delivery.c.state == DEAD)
    .order_by(delivery.c.settled_at.desc())
    .limit(DEAD_COUNT)
    .subquery()
)
_late = case((_dead.c.settled_at >= bindparam("since"), _dead.c.settled_at))
_COUNT_DEAD = select(
    func.count().label("all_count"), func.count(_late).label("late_count"), func.min(_late).label("since_at")
).select_from(_dead)
_SOURCES = select(
    source.c.kind, source.c.name, source.c.state, source.c.paused_until, snapshot.c.written_at, snapshot.c.body
).outerjoin(snapshot, snapshot.c.source_id == source.c.id)
_TITLES = select(source.c.name, scan.c.name.label("title")).join(scan, scan.c.pipeline_id == source.c.id)


def _overview(connection: Connection, *, since: Micros) -> Overview:
    sinks = _numbers(connection, "sink")
    return Overview(
        sources=connection.execute(_SOURCES).all(),
        titles={row.name: row.title for row in connection.execute(_TITLES)},
        problems=connection.execute(_OPEN_OTHERS).all(),
        overdue=connection.execute(_OVERDUE).all(),
        gaps=connection.execute(_GAPS, {"since": since}).all(),
        dead={
            name: connection.execute(_COUNT_DEAD, {"of_sink": number, "since": since}).one()
            for number, name in sinks.items()
        },
        backlog=backlog(connection),
    )
