"""Reads events from the store, alone or with their deliveries."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from json import dumps
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, select, text

from watcher.domain.event import EventType
from watcher.domain.timestamps import NEVER, Micros
from watcher.store.sources import execution_key, names_of
from watcher.store.sql_store import SqlStore
from watcher.store.tables import event, execution
from watcher.web import listing
from watcher.web.deliveries import DeliveryRow, deliveries_of
from watcher.web.listing import TOP, Listing, PageReader, Position

SETTLED_AFTER_US = 10_000_000
"""Time after which every transaction is over. If an event number is still missing then, no event will ever have it."""

DETAIL_COUNT = 200
"""Most events that are shown with one execution, or with one problem."""


class EventFilter(NamedTuple):
    """The conditions that the events of a list meet."""

    types: Collection[EventType] | None = None
    pipelines: Collection[str] = ()
    labels: Iterable[tuple[str, str, bool]] = ()
    """The key and the value of each label, and whether events must have that label (`True`) or must not have it."""
    execution: str | None = None
    since: Micros = NEVER


class EventsAndDeliveries(NamedTuple):
    """The bodies of events in the order of recording, and the deliveries of these events."""

    bodies: Sequence[bytes]
    deliveries: Sequence[DeliveryRow]


EVENTS = select(event.c.id, event.c.recorded_at, event.c.body)
_LISTING = Listing(event.c.id, event.c.id)
_WINDOW = text(
    "SELECT max(id), min(CASE WHEN id <> previous + 1 AND recorded_at > :settled_at THEN previous END) FROM"
    " (SELECT id, recorded_at, lag(id, 1, :at) OVER (ORDER BY id) AS previous FROM event"
    " WHERE id > :at ORDER BY id LIMIT :limit) AS looked_at"
)
"""Selects the last event number of a window, and the number before the first gap that may still be filled."""
_LAST_NUMBER = text("SELECT max(id) FROM event")
_NEXT = text("SELECT id, recorded_at FROM event WHERE id > :at ORDER BY id LIMIT 1")
_STREAMS = select(execution.c.stream).where(
    execution.c.account_id.in_(bindparam("accounts", expanding=True)), execution.c.execution == bindparam("key")
)


async def load_events(
    store: SqlStore, asked: EventFilter, *, after: int | None = None, limit: int
) -> tuple[Sequence[bytes], int]:
    """Return the bodies of events in the order of recording, and the number after which the next page begins.

    A reader who continues after that number misses no event. A missing number may belong to an event that another
    process is still writing. The page ends before such a number, unless the event after it was recorded more than
    10 s ago: then no event will ever have the missing number. Raises `StoreError`.
    """
    wanted, since = _conditions(asked), asked.since
    settled_at = TOP if store.exclusive else store.clock.steady_us() - SETTLED_AFTER_US
    count = listing.EXAMINED_COUNT if since or len(wanted) > 1 else limit

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

    return await store.read(read)


async def load_newest_events(
    store: SqlStore, asked: EventFilter, *, after: int | None = None, limit: int
) -> tuple[Sequence[bytes], int | None]:
    """Return the bodies of events, the last recorded first, and the number after which the next page begins.

    The number is `None` after the last page. A reader may miss an event that another process is still writing: its
    number may belong on a page that the reader has already seen. Raises `StoreError`.
    """
    behind = None if after is None else Position("", after, after)

    def read(connection: Connection) -> tuple[Sequence[bytes], int | None]:
        wanted, scopes = _conditions(asked), None
        if asked.execution is not None:
            wanted.append(event.c.stream.in_(_streams(connection, asked.execution)))
            scopes = [wanted]
        lowest = _number_before(connection, asked.since - SETTLED_AFTER_US) if asked.since else 0
        page = PageReader(connection, behind, limit)
        found, position = page.read(_LISTING._replace(lowest=lowest), scopes, wanted)
        rows = connection.execute(EVENTS.where(event.c.id.in_([row.key for row in found])))
        bodies = [row.body for row in sorted(rows, key=attrgetter("id"), reverse=True)]
        return bodies, None if position is None else position.at

    return await store.read(read)


async def load_recorded_at(store: SqlStore, number: int) -> Micros | None:
    """Return when the event with this number was recorded, or the next event if there is no such event.

    Raises `StoreError`.
    """
    row = await store.read(lambda connection: connection.execute(_NEXT, {"at": number - 1}).one_or_none())
    return None if row is None else Micros(row.recorded_at)


def with_deliveries(connection: Connection, bodies: Mapping[int, bytes]) -> EventsAndDeliveries:
    """Return the last 200 of these events, given by their numbers, with their deliveries."""
    last = sorted(bodies)[-DETAIL_COUNT:]
    return EventsAndDeliveries([bodies[number] for number in last], deliveries_of(connection, last))


def _conditions(asked: EventFilter) -> list[Any]:
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
    key = {"accounts": list(names_of(connection, "account")), "key": execution_key(execution)}
    return connection.scalars(_STREAMS, key).all()


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
