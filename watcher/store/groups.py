"""Groups of deliveries: what may still be grouped, what is fixed as a group, and which group of a sink goes next.

A fixed group is all that waits for a sink under one `group_id`. Its members are settled alike, so any of them tells how
the group stands; the first, in the order they were recorded, stands for it.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from uuid import UUID

from sqlalchemy import (
    Connection,
    Integer,
    bindparam,
    cast,
    false,
    func,
    literal_column,
    null,
    select,
    true,
    tuple_,
    update,
)

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventKey
from watcher.domain.timestamps import Micros
from watcher.store.deliveries import DELIVERIES, IS_HEAD, OF_SINK, delivery_of
from watcher.store.records import Candidate, DueDeliveries, GroupPosition
from watcher.store.tables import WAITING, AnyRow, delivery, waits

_earlier = delivery.alias("earlier")
_IN_ORDER = (delivery.c.recorded_at, delivery.c.stream, delivery.c.sequence)
_POSITION = (delivery.c.due_at, *_IN_ORDER)
_EARLIER = (
    select(func.max(_earlier.c.sequence))
    .where(
        _earlier.c.stream == delivery.c.stream,
        _earlier.c.sequence < delivery.c.sequence,
        _earlier.c.sink_id == delivery.c.sink_id,
        waits(_earlier),
    )
    .scalar_subquery()
)
_UNGROUPED = (
    DELIVERIES.add_columns(_EARLIER.label("earlier"))
    .where(
        delivery.c.sink_id == bindparam("of_sink"),
        delivery.c.state == WAITING,
        delivery.c.tried == false(),
        delivery.c.group_id.is_(None),
        delivery.c.due_at <= bindparam("now"),
        tuple_(*_POSITION)
        > tuple_(bindparam("due_at"), bindparam("recorded_at"), bindparam("after_stream"), bindparam("after_sequence")),
    )
    .order_by(*_POSITION)
    .limit(bindparam("limit"))
)
_FIX = (
    update(delivery)
    .where(
        *OF_SINK,
        delivery.c.sequence == bindparam("of_sequence"),
        delivery.c.tried == false(),
        delivery.c.group_id.is_(None),
    )
    .values(group_id=bindparam("new_group_id"))
)
_STATE = (delivery.c.tried, delivery.c.due_at, delivery.c.recorded_at, delivery.c.steps, delivery.c.tried_at)
_GROUPS = (
    select(
        delivery.c.group_id,
        func.max(cast(delivery.c.tried, Integer)).label("tried"),
        func.min(delivery.c.due_at).label("due_at"),
        func.min(delivery.c.recorded_at).label("recorded_at"),
        func.max(delivery.c.steps).label("steps"),
        func.max(delivery.c.tried_at).label("tried_at"),
        func.count().label("member_count"),
    )
    .where(
        delivery.c.sink_id == bindparam("of_sink"),
        delivery.c.state == WAITING,
        delivery.c.group_id.is_not(None),
    )
    .group_by(delivery.c.group_id)
)
# What was tried before its sink had groups, each alone.
_ALONE = select(
    null().label("group_id"), *_STATE, literal_column("1").label("member_count"), delivery.c.stream, delivery.c.sequence
).where(*IS_HEAD, delivery.c.tried == true(), delivery.c.group_id.is_(None))
_MEMBERS = DELIVERIES.where(
    delivery.c.sink_id == bindparam("of_sink"),
    delivery.c.state == WAITING,
    delivery.c.group_id == bindparam("of_group"),
).order_by(*_IN_ORDER)
_FIRST = _MEMBERS.limit(1)
_ONE = DELIVERIES.where(*OF_SINK, delivery.c.sequence == bindparam("of_sequence"))
# The second half of a refused group waits for what the first half holds of the same streams.
_IS_HELD_BACK = (
    select(delivery.c.sequence)
    .where(
        delivery.c.sink_id == bindparam("of_sink"),
        delivery.c.state == WAITING,
        delivery.c.group_id == bindparam("of_group"),
        select(_earlier.c.sequence)
        .where(
            _earlier.c.stream == delivery.c.stream,
            _earlier.c.sequence < delivery.c.sequence,
            _earlier.c.sink_id == delivery.c.sink_id,
            waits(_earlier),
            _earlier.c.group_id.is_distinct_from(delivery.c.group_id),
        )
        .exists(),
    )
    .limit(1)
)


def ungrouped(
    connection: Connection, sink_id: int, *, name: str, now: Micros, after: GroupPosition, limit: int
) -> Sequence[Candidate]:
    """Return what is due after that position, was never tried and is in no group, in the order it came due."""
    due_at, recorded_at, stream, sequence = after
    position = {"due_at": due_at, "recorded_at": recorded_at, "after_stream": stream, "after_sequence": sequence}
    rows = connection.execute(_UNGROUPED, position | {"of_sink": sink_id, "now": now, "limit": limit})
    return [Candidate(delivery_of(row, name=name), row.earlier) for row in rows]


def fix_groups(connection: Connection, sink_id: int, *, groups: Iterable[tuple[UUID, Collection[EventKey]]]) -> None:
    """Write which deliveries go together from now on. What does not wait any more is left out."""
    rows = [
        {"of_sink": sink_id, "of_stream": stream, "of_sequence": sequence, "new_group_id": group_id.bytes}
        for group_id, keys in groups
        for stream, sequence in keys
    ]
    if rows:
        connection.execute(_FIX, sorted(rows, key=lambda row: (row["of_stream"], row["of_sequence"])))


def next_groups(
    connection: Connection, sink_id: int, *, name: str, now: Micros, limit: int, skip: Collection[bytes]
) -> DueDeliveries:
    """Return what stands for each group that is due, at most `limit`, without those in `skip`; and when the next is."""
    rows = sorted(_not_in(skip, _all(connection, sink_id)), key=lambda row: (row.tried, row.due_at, row.recorded_at))
    due: list[Delivery] = []
    for row in rows:
        if row.due_at <= now and len(due) < limit and (head := _head(connection, row, sink_id, name)) is not None:
            due.append(head)
    later: list[Micros] = [row.due_at for row in rows if row.due_at > now]
    return DueDeliveries(due, now if len(due) == limit else min(later, default=None))


def next_group_trial(
    connection: Connection, sink_id: int, *, name: str, now: Micros, skip: Collection[bytes], never_tried: bool
) -> Delivery | None:
    """Return what stands for the group that is to show whether the sink works again, without those in `skip`."""
    rows = list(_not_in(skip, _all(connection, sink_id)))
    new = sorted((row for row in rows if not row.tried and row.due_at <= now), key=lambda row: row.due_at)
    tried = sorted((row for row in rows if row.tried), key=lambda row: (row.steps, row.tried_at))
    for row in new if never_tried else [*new, *tried]:
        if (head := _head(connection, row, sink_id, name)) is not None:
            return head
    return None


def members(connection: Connection, sink_id: int, *, name: str, group_id: UUID) -> Sequence[Delivery]:
    """Return all of a group, in the order they were recorded."""
    rows = connection.execute(_MEMBERS, {"of_sink": sink_id, "of_group": group_id.bytes})
    return [delivery_of(row, name=name, group_id=group_id) for row in rows]


def _all(connection: Connection, sink_id: int) -> Iterator[AnyRow]:
    for statement in (_GROUPS, _ALONE):
        yield from connection.execute(statement, {"of_sink": sink_id}).all()


def _not_in(skip: Collection[bytes], rows: Iterable[AnyRow]) -> Iterator[AnyRow]:
    return (row for row in rows if (row.stream if row.group_id is None else row.group_id) not in skip)


def _head(connection: Connection, row: AnyRow, sink_id: int, name: str) -> Delivery | None:
    if row.group_id is None:
        key = {"of_sink": sink_id, "of_stream": row.stream, "of_sequence": row.sequence}
        return delivery_of(connection.execute(_ONE, key).one(), name=name)
    group = {"of_sink": sink_id, "of_group": row.group_id}
    if connection.execute(_IS_HELD_BACK, group).first() is not None:
        return None
    first = connection.execute(_FIRST, group).one()
    return delivery_of(first, name=name, group_id=UUID(bytes=row.group_id), group_count=row.member_count)
