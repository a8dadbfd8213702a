"""What waits for each sink, and dead letters that are to wait again."""

from typing import Any

from sqlalchemy import Connection, bindparam, false, func, null, select, true, tuple_, update

from watcher.domain.event import EventKey
from watcher.domain.timestamps import Micros
from watcher.store.records import Backlog
from watcher.store.tables import DEAD, WAITING, delivery, event, source

REPLAYED_COUNT = 1_000
"""Dead letters that are replayed in one transaction."""


def backlog(connection: Connection) -> dict[str, Backlog]:
    """Return what waits, by sink; reads the index alone."""
    counted = (
        select(delivery.c.sink_id, func.count().label("pending"), func.min(delivery.c.recorded_at).label("oldest"))
        .where(delivery.c.state == WAITING)
        .group_by(delivery.c.sink_id)
        .subquery()
    )
    rows = connection.execute(
        select(source.c.name, counted.c.pending, counted.c.oldest).join(counted, counted.c.sink_id == source.c.id)
    )
    return {row.name: Backlog(row.pending, row.oldest) for row in rows}


_SINK_ID = select(source.c.id).where(source.c.kind == "sink", source.c.name == bindparam("name")).scalar_subquery()
_IS_DEAD = (delivery.c.sink_id == _SINK_ID, delivery.c.state == DEAD)
# In a lane of its own it waits for nothing, and holds nothing back.
_AGAIN: dict[str, Any] = {
    "state": WAITING,
    "lane": select(event.c.event_id).where(event.c.id == delivery.c.number).scalar_subquery(),
    "group_key": null(),
    "due_at": bindparam("now"),
    "attempts": 0,
    "rejections": 0,
    "tried": false(),
    "tried_at": 0,
    "first_due_us": null(),
    "settled_at": null(),
    "answer": null(),
    "replayed": true(),
}
_REPLAYED = update(delivery).values({delivery.c[name]: value for name, value in _AGAIN.items()})
_NUMBER = (
    select(event.c.id)
    .where(event.c.stream == bindparam("of_stream"), event.c.sequence == bindparam("of_sequence"))
    .scalar_subquery()
)
_REPLAY = _REPLAYED.where(*_IS_DEAD, delivery.c.number == _NUMBER)
_SOME_DEAD = (
    select(delivery.c.number, delivery.c.sink_id)
    .where(*_IS_DEAD, delivery.c.settled_at <= bindparam("died_until"))
    .limit(REPLAYED_COUNT)
)
_REPLAY_SOME = _REPLAYED.where(tuple_(delivery.c.number, delivery.c.sink_id).in_(_SOME_DEAD))


def replay(connection: Connection, *, name: str, event: EventKey, now: Micros) -> bool:
    """Have a dead letter wait again; return whether it was one."""
    key = {"name": name, "of_stream": event.stream, "of_sequence": event.sequence, "now": now}
    return connection.execute(_REPLAY, key).rowcount > 0


def replay_some(connection: Connection, *, name: str, now: Micros, died_until: Micros) -> int:
    """Have some of a sink's dead letters wait again; return how many, 0 when none is left that died until then."""
    return connection.execute(_REPLAY_SOME, {"name": name, "now": now, "died_until": died_until}).rowcount
