"""The store for pages and the API: lists page by page, single executions and problems, and the overview."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, bindparam, false, func, not_, or_, select, text

from watcher.domain.event import TROUBLES_WITHOUT_PROBLEM, EventType
from watcher.domain.execution import OPEN_STATUSES, TERMINAL_STATUSES
from watcher.domain.timestamps import NEVER, Micros, to_us
from watcher.store import pagination
from watcher.store.changes import Backlog
from watcher.store.deliveries import EARLIER, backlog
from watcher.store.history_store import HistoryStore
from watcher.store.pagination import TOP, Listing, PageReader, Position, Rows, cut_page, position_of
from watcher.store.problems import LAST_ENDED_AT, SLOWEST_FROM
from watcher.store.sources import execution_key, names_of
from watcher.store.tables import DEAD, WAITING, AnyRow, delivery, event, execution, incident, problem

SETTLED_AFTER_US = 10_000_000
"""Time after which every transaction is over. If an event number is still missing then, no event will ever have it."""

DETAIL_COUNT = 200
"""Most events that are shown with one execution, or with one problem."""

NEEDS_COUNT = 100
"""Most gaps that the overview shows, and most open problems other than `execution.overdue`."""

DEAD_COUNT = 10_000
"""Most dead letters of one sink that the overview counts."""

EventsAndDeliveries = tuple[Sequence[bytes], Sequence[AnyRow]]
"""The bodies of events in the order of recording, and the deliveries of these events."""


class EventFilter(NamedTuple):
    """The conditions that the events of a list meet."""

    types: Collection[EventType] | None = None
    pipelines: Collection[str] = ()
    labels: Iterable[tuple[str, str, bool]] = ()
    """The key and the value of each label, and whether events must have that label (`True`) or must not have it."""
    execution: str | None = None
    since: Micros = NEVER


@dataclass(frozen=True, slots=True)
class Overview:
    """The rows of the overview, which pages and `/status` show."""

    sources: Sequence[AnyRow]
    """All accounts and sinks, with their snapshots."""
    others: Sequence[AnyRow]
    """The open problems that are not in `overdue`, without the bodies of their events."""
    overdue: Sequence[AnyRow]
    """The open problems of overdue executions, without the bodies of their events."""
    gaps: Sequence[AnyRow]
    dead: Mapping[str, AnyRow]
    """By sink: the number of all dead letters, the number of those since the requested time, and the newest answer."""
    backlog: Mapping[str, Backlog]


class ConsoleStore(HistoryStore):
    """The store for pages and the API. It writes nothing; each method raises `StoreError`.

    Rows have the columns of their table, and columns of other tables: the names `account`, `sink` and `pipeline_name`
    (account/id), `title` (the API's name of the pipeline), and `body` (of the last event of an execution, or of the
    opening of a problem).
    """

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
        """Return a page of executions: first open ones, the last change first, then ended ones, the last end first.

        `lost` counts as a status. If an end is seen late, a reader whose page is already past the time of that end
        misses the execution. `is_of_pipeline` is called with names of pipelines (account/id). With an `id_beginning`
        (hexadecimal digits) executions are in the order of their ids.
        """
        only = statuses or ("",)
        parts = "o" * (not set(only) <= {*TERMINAL_STATUSES}) + "e" * (not set(only) <= {*OPEN_STATUSES})

        def find(connection: Connection) -> Rows:
            page, names = PageReader(connection, after, limit), names_of(connection, "pipeline")
            numbers = [number for number, name in names.items() if is_of_pipeline(name)]
            wanted: list[Any] = [execution.c.status.is_not(None)]
            if statuses:
                is_lost = execution.c.lost.is_not(None) if "lost" in statuses else false()
                wanted.append(or_(execution.c.status.in_(statuses), is_lost))
            several = numbers if len(numbers) < len(names) else None
            of_these = wanted if several is None else [*wanted, execution.c.pipeline_id.in_(several)]
            if id_beginning is not None:
                return _by_id(page, id_beginning, of_these)

            def read_part(page: PageReader, part: str) -> Rows:
                if part == "o":
                    return _open(page, several, wanted, is_filtered=bool(statuses))
                return page.search(_ENDED._replace(lowest=ended_since), (), of_these)

            return page.read_parts(parts, read_part)

        def read(connection: Connection) -> Rows:
            found, position = find(connection)
            keys = {"accounts": {row.account_id for row in found}, "executions": [row.key for row in found]}
            by_key = {(row.account_id, row.execution): row for row in connection.execute(_EXECUTIONS, keys)}
            shown = [by_key[row.account_id, row.key] for row in found if (row.account_id, row.key) in by_key]
            return shown, position

        return await self._store.read(read)

    async def failed(self, pipeline: str, *, until: Micros, limit: int) -> Sequence[AnyRow]:
        """Return the executions of a pipeline (account/id) that failed at `until` or before, the latest end first."""

        def read(connection: Connection) -> Sequence[AnyRow]:
            found = connection.execute(_FAILED, {"name": pipeline, "until": until, "limit": limit}).all()
            keys = {"accounts": {row.account_id for row in found}, "executions": [row.execution for row in found]}
            return sorted(connection.execute(_EXECUTIONS, keys), key=attrgetter("finished_at"), reverse=True)

        return await self._store.read(read)

    async def find_execution(self, pipeline: str, name: str) -> tuple[AnyRow, EventsAndDeliveries] | None:
        """Return an execution of a pipeline (account/id) with its events and their deliveries.

        Raises `ValueError` if `name` is not an id.
        """
        key = execution_key(name)

        def read(connection: Connection) -> tuple[AnyRow, EventsAndDeliveries] | None:
            keys = {"accounts": list(names_of(connection, "account")), "executions": [key]}
            for row in connection.execute(_EXECUTIONS, keys).all():
                if row.pipeline_name == pipeline:
                    of_it = _EVENTS.where(event.c.stream == row.stream).order_by(event.c.sequence.desc())
                    return row, _events_and_deliveries(connection, connection.execute(of_it.limit(DETAIL_COUNT)))
            return None

        return await self._store.read(read)

    async def events(self, asked: EventFilter, *, after: int | None = None, limit: int) -> tuple[Sequence[bytes], int]:
        """Return the bodies of events in the order of recording, and the number after which the next page begins.

        A reader who continues after that number misses no event. A missing number may belong to an event that another
        process is still writing. The page ends before such a number, unless the event after it was recorded more than
        10 s ago: then no event will ever have the missing number.
        """
        wanted, since = _wanted_events(asked), asked.since
        settled_at = TOP if self._store.exclusive else self._store.clock.steady_us() - SETTLED_AFTER_US
        count = pagination.EXAMINED_COUNT if since or len(wanted) > 1 else limit

        def read(connection: Connection) -> tuple[Sequence[bytes], int]:
            start = after
            if start is None:
                start = _number_before(connection, since - SETTLED_AFTER_US) if since else 0
            rows = select(event.c.id, event.c.body).where(event.c.id > start, *wanted).limit(limit)
            if asked.execution is not None:  # no gap: one owner writes these events, one after the other
                rows = rows.where(event.c.stream == bindparam("stream")).order_by(event.c.sequence)
                streams = [{"stream": stream} for stream in _streams(connection, asked.execution)]
                found = [row for stream in streams for row in connection.execute(rows, stream)]
                return [row.body for row in found], found[-1].id if found else start
            window = {"at": start, "settled_at": settled_at, "limit": count}
            last, before_gap = connection.execute(_WINDOW, window).one()
            end = before_gap if before_gap is not None else last or start
            found = list(connection.execute(rows.where(event.c.id <= end).order_by(event.c.id)))
            return [row.body for row in found], found[-1].id if len(found) == limit else end

        return await self._store.read(read)

    async def newest_events(
        self, asked: EventFilter, *, after: int | None = None, limit: int
    ) -> tuple[Sequence[bytes], int | None]:
        """Return the bodies of events, the last recorded first, and the number after which the next page begins.

        The number is `None` after the last page. A reader may miss an event that another process is still writing: its
        number may belong on a page that the reader has already seen.
        """
        behind = None if after is None else Position("", after, after)

        def read(connection: Connection) -> tuple[Sequence[bytes], int | None]:
            wanted, scopes = _wanted_events(asked), None
            if asked.execution is not None:
                wanted.append(event.c.stream.in_(_streams(connection, asked.execution)))
                scopes = [wanted]
            lowest = _number_before(connection, asked.since - SETTLED_AFTER_US) if asked.since else 0
            page = PageReader(connection, behind, limit)
            found, position = page.read(_EVENT._replace(lowest=lowest), scopes, wanted)
            rows = connection.execute(_EVENTS.where(event.c.id.in_([row.key for row in found])))
            bodies = [row.body for row in sorted(rows, key=attrgetter("id"), reverse=True)]
            return bodies, None if position is None else position.at

        return await self._store.read(read)

    async def deliveries(
        self,
        *,
        state: str | None = None,
        sink: str | None = None,
        types: Collection[EventType] | None = None,
        after: Position | None = None,
        limit: int,
    ) -> Rows:
        """Return a page of deliveries, the newest events first. `earlier` is the number of the blocking event."""

        def read(connection: Connection) -> Rows:
            sinks = _numbers(connection, "sink", lambda name: sink in (None, name))
            scopes = None
            if state in _INDEXED:
                scopes = [(delivery.c.sink_id == number, delivery.c.state == _INDEXED[state]) for number in sinks]
            wanted = [delivery.c.sink_id.in_(sinks), *([] if state is None else [delivery.c.state == state])]
            if types is not None:  # not EXISTS, for which PostgreSQL may read all events
                wanted.append(select(event.c.type).where(event.c.id == delivery.c.number).scalar_subquery().in_(types))
            found, position = PageReader(connection, after, limit).read(_DELIVERY, scopes, wanted)
            keys = {(row.at, row.key) for row in found}
            rows = _deliveries(connection, sorted({number for number, _ in keys}))
            return [row for row in rows if (row.number, row.sink_id) in keys][::-1], position

        return await self._store.read(read)

    async def recorded_at(self, number: int) -> Micros | None:
        """Return when the event with this number was recorded, or the next event if there is no such event."""
        row = await self._store.read(lambda connection: connection.execute(_NEXT, {"at": number - 1}).one_or_none())
        return None if row is None else Micros(row.recorded_at)

    async def problems(
        self,
        *,
        is_open: bool | None = None,
        kinds: Collection[str] = (),
        accounts: Collection[str] = (),
        is_of_pipeline: Callable[[str], bool] | None = None,
        incident_key: UUID | None = None,
        since: Micros = NEVER,
        after: Position | None = None,
        limit: int,
    ) -> Rows:
        """Return a page of problems: first open ones that nobody acknowledged, then other open ones, then closed ones.

        Each part has the last opened first. `is_of_pipeline` is called with names of pipelines (account/id).
        `incident_key` names an incident of a pager.
        """
        acked_until = func.coalesce(problem.c.acked_until, TOP)
        is_free = or_(problem.c.acked_at.is_(None), acked_until <= to_us(self._store.clock.now()))
        conditions = {"o": (_IS_OPEN, is_free), "a": (_IS_OPEN, not_(is_free)), "e": (not_(_IS_OPEN),)}

        def read(connection: Connection) -> Rows:
            # `+ 0` keeps SQLite from searching for open problems in the index of all problems.
            wanted: list[Any] = [problem.c.opened_at + 0 >= since]
            if kinds:
                wanted.append(problem.c.kind.in_(kinds))
            if accounts:
                wanted.append(problem.c.source_id.in_(_numbers(connection, "account", accounts.__contains__)))
            if is_of_pipeline is not None:
                wanted.append(problem.c.pipeline_id.in_(_numbers(connection, "pipeline", is_of_pipeline)))
            if incident_key is not None:
                key = {"of_incident": incident_key.bytes, "sinks": list(names_of(connection, "sink"))}
                wanted.append(problem.c.id.in_(connection.scalars(_OF_INCIDENT, key).all()))

            def read_part(page: PageReader, part: str) -> Rows:
                of_part = [*wanted, *conditions[part]]
                scopes = None if part == "e" and incident_key is None else [of_part]
                return page.read(_PROBLEM._replace(part=part, lowest=since), scopes, of_part)

            parts = {None: "oae", True: "oa", False: "e"}[is_open]
            found, position = PageReader(connection, after, limit).read_parts(parts, read_part)
            return _problems(connection, [row.key for row in found]), position

        return await self._store.read(read)

    async def problems_by_id(self, ids: Sequence[bytes]) -> Sequence[AnyRow]:
        """Return these problems in this order, without those that the store does not have."""
        return await self._store.read(lambda connection: _problems(connection, ids))

    async def find_problem(self, id_: UUID) -> tuple[AnyRow, EventsAndDeliveries] | None:
        """Return a problem with its events and their deliveries."""

        def read(connection: Connection) -> tuple[AnyRow, EventsAndDeliveries] | None:
            row = connection.execute(_PROBLEMS, {"ids": [id_.bytes]}).one_or_none()
            if row is None:
                return None
            of_stream = _EVENTS.where(event.c.stream == row.stream, event.c.sequence >= row.sequence)
            of_stream = of_stream.where(event.c.problem_id == row.id).order_by(event.c.sequence).limit(DETAIL_COUNT)
            events = connection.execute(of_stream).all()
            if events:  # reminders and acknowledgements have streams of their own
                key = {"since": events[0].recorded_at, "of_problem": row.id}
                events = [*events, *connection.execute(_PROBLEM_EVENTS, key)]
            return row, _events_and_deliveries(connection, events)

        return await self._store.read(read)

    async def overview(self, *, since: Micros) -> Overview:
        """Return the overview, with the gaps after `since`, and two counts of dead letters: all, and after `since`."""

        def read(connection: Connection) -> Overview:
            late = {"since": since, "limit": DEAD_COUNT}
            sinks = names_of(connection, "sink").items()
            return Overview(
                sources=connection.execute(_SOURCES).all(),
                others=connection.execute(_OTHERS, {"limit": pagination.EXAMINED_COUNT}).all(),
                overdue=connection.execute(_OVERDUE, {"limit": pagination.EXAMINED_COUNT}).all(),
                gaps=connection.execute(_GAPS, {"since": since}).all(),
                dead={name: connection.execute(_COUNT_DEAD, {"of_sink": sink, **late}).one() for sink, name in sinks},
                backlog=backlog(connection),
            )

        return await self._store.read(read)

    async def news(self, *, since: Micros, until: Micros) -> Sequence[AnyRow]:
        """Return events of a span that are trouble without a problem or an execution, with columns of problems.

        The oldest come first. For an ORDER BY, PostgreSQL would read all events.
        """
        span = {"since": since, "until": until}
        found = await self._store.read(lambda connection: connection.execute(_NEWS, span).all())
        return sorted(found, key=attrgetter("opened_at"))


# Executions

_OPEN = Listing(execution.c.since_at, execution.c.execution, "o", (execution.c.account_id,))
_ENDED = Listing(execution.c.finished_at, execution.c.execution, "e", (execution.c.account_id,))
_EXECUTIONS = text(
    "SELECT execution.*, account.name AS account, pipeline.name AS pipeline_name, scan.name AS title, event.body"
    " FROM execution JOIN source AS account ON account.id = execution.account_id"
    " JOIN source AS pipeline ON pipeline.id = execution.pipeline_id"
    " LEFT JOIN scan ON scan.account_id = execution.account_id AND scan.pipeline_id = execution.pipeline_id"
    " LEFT JOIN event ON event.stream = execution.stream AND event.sequence = execution.sequence"
    " WHERE execution.account_id IN :accounts AND execution.execution IN :executions"
).bindparams(
    bindparam("accounts", expanding=True, type_=execution.c.account_id.type),
    bindparam("executions", expanding=True, type_=execution.c.execution.type),
)

_FAILED = text(
    "SELECT account_id, execution FROM (SELECT account_id, execution, status, finished_at FROM execution"
    " WHERE finished_at IS NOT NULL AND sequence > 0 AND lost IS NULL AND finished_at <= :until"
    " AND pipeline_id = (SELECT id FROM source WHERE kind = 'pipeline' AND name = :name)"
    f" ORDER BY finished_at DESC, ended_at DESC LIMIT {pagination.EXAMINED_COUNT}) AS ended"
    " WHERE status = 'failed' ORDER BY finished_at DESC LIMIT :limit"
)


def _open(page: PageReader, numbers: Sequence[int] | None, wanted: Sequence[Any], *, is_filtered: bool) -> Rows:
    """Return a page of the open executions of these pipelines, or of all if `numbers` is `None`.

    If the pipelines are few, each is read by a statement of its own.
    """
    scope, limit = (execution.c.ended_at.is_(None),), page.limit
    if numbers is None:
        return page.search(_OPEN, scope, wanted, pagination.EXAMINED_COUNT if is_filtered else limit + 1)
    # With many pipelines one statement for all costs less per row than a statement for each.
    if len(numbers) * (limit + 1) > pagination.EXAMINED_COUNT // 2:
        return page.search(_OPEN, scope, [*wanted, execution.c.pipeline_id.in_(numbers)])
    found: list[AnyRow] = []
    ends: list[Position] = []
    count = max(limit + 1, pagination.EXAMINED_COUNT // max(1, len(numbers)) if is_filtered else 0)
    for number in numbers:
        rows, end = page.search(_OPEN, (*scope, execution.c.pipeline_id == number), wanted, count)
        found += rows
        ends += [] if end is None else [end]
    newest = max(ends, default=None)
    found = [row for row in found if newest is None or position_of(row, "o") >= newest]
    return cut_page(sorted(found, key=position_of, reverse=True), newest, limit, "o")


def _by_id(page: PageReader, beginning: str, wanted: Iterable[Any]) -> Rows:
    first, last = (bytes.fromhex(beginning.ljust(32, digit)) for digit in "0f")
    connection, behind, id_ = page.connection, page.after or Position("i", 0, b""), execution.c.execution
    found: list[AnyRow] = []
    for account_id in sorted(names_of(connection, "account")):
        if account_id >= behind.at:
            key = behind.key if account_id == behind.at else b""
            rows = select(execution.c.account_id.label("at"), id_.label("key"), execution.c.account_id).where(
                execution.c.account_id == account_id, id_.between(first, last), id_ > key, *wanted
            )
            found += connection.execute(rows.order_by(id_).limit(page.limit + 1))
    return cut_page(found, None, page.limit, "i")


# Events

_WINDOW = text(
    "SELECT max(id), min(CASE WHEN id <> previous + 1 AND recorded_at > :settled_at THEN previous END) FROM"
    " (SELECT id, recorded_at, lag(id, 1, :at) OVER (ORDER BY id) AS previous FROM event"
    " WHERE id > :at ORDER BY id LIMIT :limit) AS looked_at"
)
"""Selects the last event number of a window, and the number before the first gap that may still be filled."""
_LAST_NUMBER = text("SELECT max(id) FROM event")
_NEXT = text("SELECT id, recorded_at FROM event WHERE id > :at ORDER BY id LIMIT 1")
_EVENTS = select(event.c.id, event.c.recorded_at, event.c.body)
_EVENT = Listing(event.c.id, event.c.id)


def _wanted_events(asked: EventFilter) -> list[Any]:
    wanted: list[Any] = [event.c.recorded_at >= asked.since]
    if asked.types is not None:
        wanted.append(event.c.type.in_(asked.types))
    if asked.pipelines:
        wanted.append(event.c.pipeline.in_(asked.pipelines))
    for key, value, is_there in asked.labels:  # JSON escapes quotes inside labels, so only whole pairs are found
        of_event, pair = func.coalesce(event.c.labels, ""), f"{dumps(key)}: {dumps(value)}"
        wanted.append((func.replace(of_event, pair, "") != of_event) == is_there)
    return wanted


def _streams(connection: Connection, execution: str) -> Sequence[bytes]:
    keys = {"accounts": list(names_of(connection, "account")), "executions": [execution_key(execution)]}
    return [row.stream for row in connection.execute(_EXECUTIONS, keys)]


def _number_before(connection: Connection, moment: int) -> int:
    """Return a number below the numbers of all events recorded at `moment` or later.

    This assumes that later events have higher numbers.
    """
    low, high = 0, connection.scalar(_LAST_NUMBER) or 0
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(_NEXT, {"at": middle}).one_or_none()
        if row is None or row.recorded_at >= moment:
            high = middle
        else:
            low = row.id
    return low


def _events_and_deliveries(connection: Connection, events: Iterable[AnyRow]) -> EventsAndDeliveries:
    bodies = dict(sorted((row.id, row.body) for row in events)[-DETAIL_COUNT:])
    return list(bodies.values()), _deliveries(connection, list(bodies))


# Deliveries

_DELIVERY = Listing(delivery.c.number, delivery.c.sink_id)
_INDEXED: Mapping[str | None, ColumnElement[str]] = {"waiting": WAITING, "dead": DEAD}
_DELIVERIES = text(
    "SELECT delivery.*, source.name AS sink, source.state AS sink_state, paused_until, event_id, type, account,"
    f" pipeline, execution, CASE WHEN delivery.state = 'waiting' THEN {EARLIER} END AS earlier FROM delivery"
    " JOIN event ON event.id = number JOIN source ON source.id = delivery.sink_id WHERE number IN :numbers"
    " ORDER BY number, delivery.sink_id"
).bindparams(bindparam("numbers", expanding=True, type_=delivery.c.number.type))


def _deliveries(connection: Connection, numbers: Sequence[int]) -> Sequence[AnyRow]:
    return connection.execute(_DELIVERIES, {"numbers": numbers}).all() if numbers else ()


# Problems

_PROBLEM = Listing(problem.c.opened_at, problem.c.id)
_IS_OPEN = problem.c.closed_at.is_(None)
_OF_INCIDENT = select(incident.c.problem_id).where(
    incident.c.key == bindparam("of_incident"), incident.c.sink_id.in_(bindparam("sinks", expanding=True))
)
_PROBLEMS = text(
    "SELECT problem.*, source.kind AS owner_kind, source.name AS owner, pipeline.name AS pipeline_name, body,"
    f" {LAST_ENDED_AT} AS last_ended_at, {SLOWEST_FROM} AS slowest_from FROM problem"
    " JOIN source ON source.id = problem.source_id"
    " LEFT JOIN source AS pipeline ON pipeline.id = problem.pipeline_id"
    " LEFT JOIN event ON event.stream = problem.stream AND event.sequence = problem.sequence WHERE problem.id IN :ids"
).bindparams(bindparam("ids", expanding=True, type_=problem.c.id.type))


def _numbers(connection: Connection, kind: str, is_wanted: Callable[[str], bool]) -> Sequence[int]:
    return [number for number, name in names_of(connection, kind).items() if is_wanted(name)]


def _problems(connection: Connection, ids: Sequence[bytes]) -> Sequence[AnyRow]:
    """Return these problems in this order."""
    by_id = {row.id: row for row in connection.execute(_PROBLEMS, {"ids": ids})}
    return [by_id[id_] for id_ in ids if id_ in by_id]


_WITHOUT_EXECUTION = (
    " FROM (SELECT id, type, problem_id FROM event WHERE execution IS NULL AND recorded_at >= :since"
    f" ORDER BY recorded_at %s LIMIT {pagination.EXAMINED_COUNT}) AS looked_at JOIN event ON event.id = looked_at.id"
)
_PROBLEM_EVENTS = text(
    f"SELECT event.id, recorded_at, body{_WITHOUT_EXECUTION % 'ASC'} WHERE looked_at.problem_id = :of_problem"
)


# The overview

_OPEN_PROBLEMS = (
    "SELECT problem.id, problem.kind, problem.opened_at, acked_at, acked_until, owner.kind AS owner_kind,"
    " pipeline.name AS pipeline_name FROM problem JOIN source AS owner ON owner.id = problem.source_id"
    " LEFT JOIN source AS pipeline ON pipeline.id = problem.pipeline_id"
    " WHERE problem.closed_at IS NULL AND problem.kind {} 'execution.overdue' LIMIT :limit"
)
_OVERDUE, _OTHERS = text(_OPEN_PROBLEMS.format("=")), text(_OPEN_PROBLEMS.format("<>"))
_GAPS = text(
    f"SELECT account || '/' || pipeline AS pipeline_name, recorded_at, body{_WITHOUT_EXECUTION % 'DESC'}"
    f" WHERE looked_at.type = 'pipeline.gap' LIMIT {NEEDS_COUNT}"
)
_COUNT_DEAD = text(
    "SELECT count(*) AS all_count, count(late) AS late_count, min(late) AS since_at, (SELECT answer FROM delivery"
    " WHERE sink_id = :of_sink AND state = 'dead' ORDER BY settled_at DESC LIMIT 1) AS answer FROM"
    " (SELECT CASE WHEN settled_at >= :since THEN settled_at END AS late FROM delivery"
    " WHERE sink_id = :of_sink AND state = 'dead' ORDER BY settled_at DESC LIMIT :limit) AS dead"
)
_NEWS = text(
    "SELECT account || '/' || pipeline AS pipeline_name, body, recorded_at AS opened_at, recorded_at AS closed_at,"
    " NULL AS latest, NULL AS acked_at"
    f"{_WITHOUT_EXECUTION % 'DESC'} WHERE recorded_at < :until AND looked_at.type IN"
    f" ({', '.join(map(repr, map(str, TROUBLES_WITHOUT_PROBLEM)))})"
)
_SOURCES = text(
    "SELECT kind, name, state, paused_until, written_at, body FROM source"
    " LEFT JOIN snapshot ON snapshot.source_id = source.id WHERE kind IN ('account', 'sink')"
)
