"""Reads deliveries from the store, and makes their models."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import starmap
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, select, text

from watcher.config.models import WatchSettings
from watcher.domain.event import EventType
from watcher.domain.timestamps import Micros
from watcher.store.deliveries import EARLIER
from watcher.store.sources import names_of
from watcher.store.sql_store import SqlStore
from watcher.store.tables import DEAD, WAITING, delivery, event
from watcher.web import models
from watcher.web.console import Console
from watcher.web.listing import Listing, PageReader, Position


class DeliveryRow(NamedTuple):
    """A delivery with its sink and its event. Times are microseconds UTC."""

    number: int
    """The number of the event."""
    sink_id: int
    sink: str
    sink_state: str | None
    paused_until: Micros | None
    event_id: bytes
    type: str
    account: str | None
    pipeline: str | None
    execution: bytes | None
    state: str
    attempts: int
    tried: bool
    answer: str | None
    recorded_at: Micros
    due_at: Micros
    settled_at: Micros | None
    group_key: bytes | None
    earlier: int | None
    """The number of the event that blocks a pending delivery."""


_LISTING = Listing(delivery.c.number, delivery.c.sink_id)
_INDEXED: Mapping[str | None, ColumnElement[str]] = {"waiting": WAITING, "dead": DEAD}
_DELIVERIES = text(
    "SELECT number, sink_id, source.name, source.state, paused_until, event_id, type, account, pipeline, execution,"
    " delivery.state, attempts, tried, answer, delivery.recorded_at, due_at, settled_at, group_key,"
    f" CASE WHEN delivery.state = 'waiting' THEN {EARLIER} END FROM delivery"
    " JOIN event ON event.id = number JOIN source ON source.id = delivery.sink_id WHERE number IN :numbers"
    " ORDER BY number, delivery.sink_id"
).bindparams(bindparam("numbers", expanding=True, type_=delivery.c.number.type))


async def load_deliveries(
    store: SqlStore,
    *,
    state: str | None = None,
    sink: str | None = None,
    types: Collection[EventType] | None = None,
    after: Position | None = None,
    limit: int,
) -> tuple[Sequence[DeliveryRow], Position | None]:
    """Return a page of deliveries, the newest events first, and the position of the next page.

    Raises `StoreError`.
    """

    def read(connection: Connection) -> tuple[Sequence[DeliveryRow], Position | None]:
        sinks = [number for number, name in names_of(connection, "sink").items() if sink in (None, name)]
        scopes = None
        if state in _INDEXED:
            scopes = [(delivery.c.sink_id == number, delivery.c.state == _INDEXED[state]) for number in sinks]
        wanted = [delivery.c.sink_id.in_(sinks), *([] if state is None else [delivery.c.state == state])]
        if types is not None:  # not EXISTS, for which PostgreSQL may read all events
            wanted.append(select(event.c.type).where(event.c.id == delivery.c.number).scalar_subquery().in_(types))
        found, position = PageReader(connection, after, limit).read(_LISTING, scopes, wanted)
        keys = {(row.at, row.key) for row in found}
        rows = deliveries_of(connection, sorted({number for number, _ in keys}))
        return [row for row in rows if (row.number, row.sink_id) in keys][::-1], position

    return await store.read(read)


def deliveries_of(connection: Connection, numbers: Sequence[int]) -> Sequence[DeliveryRow]:
    """Return the deliveries of the events with these numbers, in the order of the numbers."""
    return list(starmap(DeliveryRow, connection.execute(_DELIVERIES, {"numbers": numbers}))) if numbers else ()


def delivery_views(console: Console, rows: Iterable[DeliveryRow]) -> Sequence[models.DeliveryView]:
    """Return deliveries as models. The state of a pending delivery says what the delivery waits for."""
    watches, now = console.watches(), console.clock.steady_us()
    return [_view(row, watches, now) for row in rows]


def _view(row: DeliveryRow, watches: Mapping[str, WatchSettings], now: Micros) -> models.DeliveryView:
    state, next_try_at = row.state, None
    paused_until = row.paused_until or 0
    if state == "waiting":
        if row.sink_state == "disabled":
            state = "disabled"
        elif row.earlier is not None:
            state = "held"
        elif paused_until > now:
            state = "paused"
        elif row.tried:
            state = "retrying"
        if state != "disabled" and (at := max(row.due_at, paused_until)) > now:  # a due delivery has no next try
            next_try_at = at
    watch = watches.get(f"{row.account}/{row.pipeline}")
    return models.DeliveryView(
        id=str(row.number),
        sink=row.sink,
        event=row.event_id,
        type=row.type,
        account=row.account,
        pipeline=row.pipeline and models.PipelineRef(id=row.pipeline, name=watch and watch.name),
        execution=row.execution,
        state=state,
        attempts=row.attempts,
        answer=row.answer,
        recorded_at=row.recorded_at,
        next_try_at=next_try_at,
        settled_at=row.settled_at,
    )
