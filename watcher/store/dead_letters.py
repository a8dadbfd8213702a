"""Dead letters: what was given up, listed, counted, and sent again when somebody asks for it."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, bindparam, false, func, null, select, true, tuple_, update

from watcher.domain.event import EventKey
from watcher.domain.timestamps import Micros
from watcher.store.records import DeadLetter
from watcher.store.tables import DEAD, WAITING, delivery, event, source

_SINK_ID = select(source.c.id).where(source.c.kind == "sink", source.c.name == bindparam("name")).scalar_subquery()
_IN_ORDER = (delivery.c.settled_at, delivery.c.stream, delivery.c.sequence)
_DEAD = (
    select(*_IN_ORDER, delivery.c.attempts, delivery.c.answer, event.c.event_id, event.c.type)
    .join(event, (event.c.stream == delivery.c.stream) & (event.c.sequence == delivery.c.sequence))
    .where(
        delivery.c.sink_id == _SINK_ID,
        delivery.c.state == DEAD,
        tuple_(*_IN_ORDER) > tuple_(bindparam("died_at"), bindparam("after_stream"), bindparam("after_sequence")),
    )
    .order_by(*_IN_ORDER)
    .limit(bindparam("limit"))
)
_counted = (
    select(delivery.c.sink_id, func.count().label("dead_count"))
    .where(delivery.c.state == DEAD)
    .group_by(delivery.c.sink_id)
    .subquery()
)
_COUNTS = select(source.c.name, _counted.c.dead_count).join(_counted, _counted.c.sink_id == source.c.id)
_OF_SINK = (delivery.c.sink_id == _SINK_ID, delivery.c.state == DEAD)
_ONE = (
    delivery.c.stream == bindparam("of_stream"),
    delivery.c.sequence == bindparam("of_sequence"),
)
_AGAIN = {
    "state": WAITING,
    "due_at": bindparam("now"),
    "attempts": 0,
    "steps": 0,
    "rejections": 0,
    "tried": false(),
    "tried_at": 0,
    "first_due_us": null(),
    "settled_at": null(),
    "answer": null(),
    "group_id": null(),
    "replayed": true(),
}
_REPLAY = update(delivery).where(*_OF_SINK, *_ONE).values({delivery.c[name]: value for name, value in _AGAIN.items()})


def dead_letters(
    connection: Connection, *, name: str, after: tuple[Micros, EventKey] | None, limit: int
) -> Sequence[DeadLetter]:
    """Return a page of a sink's dead letters, the oldest death first."""
    died_at, (stream, sequence) = after or (-1, EventKey(b"", 0))
    key = {"died_at": died_at, "after_stream": stream, "after_sequence": sequence, "name": name, "limit": limit}
    return [
        DeadLetter(
            event=EventKey(row.stream, row.sequence),
            event_id=UUID(bytes=row.event_id),
            type=row.type,
            died_at=row.settled_at,
            attempts=row.attempts,
            answer=row.answer,
        )
        for row in connection.execute(_DEAD, key)
    ]


def count_dead_letters(connection: Connection) -> dict[str, int]:
    """Return how many there are, by sink; reads the index alone."""
    return {row.name: row.dead_count for row in connection.execute(_COUNTS)}


def replay(connection: Connection, *, name: str, event: EventKey, now: Micros) -> bool:
    """Have a dead letter wait again; return whether it was one."""
    key = {"name": name, "of_stream": event.stream, "of_sequence": event.sequence, "now": now}
    return connection.execute(_REPLAY, key).rowcount > 0


def replay_some(connection: Connection, *, name: str, now: Micros, limit: int) -> int:
    """Have a sink's oldest dead letters wait again; return how many."""
    rows = dead_letters(connection, name=name, after=None, limit=limit)
    for row in rows:
        replay(connection, name=name, event=row.event, now=now)
    return len(rows)
