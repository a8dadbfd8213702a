"""The deliveries of a sink: which may be sent, in which order, how an attempt is written down, and which are given up.

A delivery is a head when no earlier one of its stream waits for the same sink. Only heads are sent. Its followers are
due no earlier than it is, so that what is due is found at the front of the index, however much is held back.
"""

from collections.abc import Collection, Sequence
from operator import attrgetter, itemgetter
from uuid import UUID

from sqlalchemy import Connection, bindparam, case, false, func, select, true, union_all, update

from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.timestamps import Micros
from watcher.store.changes import AttemptRecords
from watcher.store.records import Backlog, DueDeliveries
from watcher.store.row_mapping import AnyRow
from watcher.store.source_ids import SourceNumbers, sink
from watcher.store.tables import WAITING, delivery, event, source, waits

OF_SINK = (
    delivery.c.stream == bindparam("of_stream"),
    delivery.c.sink_id == bindparam("of_sink"),
    waits(delivery),
)
_WRITE_ATTEMPT = (
    update(delivery)
    .where(*OF_SINK, delivery.c.sequence == bindparam("of_sequence"))
    .values(
        state=bindparam("new_state"),
        attempts=bindparam("new_attempts"),
        due_at=bindparam("new_due_at"),
        steps=bindparam("new_steps"),
        rejections=bindparam("new_rejections"),
        tried=True,
        tried_at=bindparam("new_tried_at"),
        first_due_us=bindparam("new_first_due_us"),
        settled_at=bindparam("new_settled_at"),
        answer=bindparam("new_answer"),
        group_id=bindparam("new_group_id"),
    )
)
_HOLD_BACK = (
    update(delivery)
    .where(
        *OF_SINK,
        delivery.c.sequence > bindparam("of_sequence"),
        delivery.c.due_at < bindparam("new_due_at"),
    )
    .values(due_at=bindparam("new_due_at"))
)
# The next one only: those after it are held back by it.
_waiting = delivery.alias("waiting")
_NEXT = (
    select(func.min(_waiting.c.sequence))
    .where(
        _waiting.c.stream == bindparam("of_stream"),
        _waiting.c.sink_id == bindparam("of_sink"),
        waits(_waiting),
        _waiting.c.sequence > bindparam("of_sequence"),
    )
    .scalar_subquery()
)
LET_GO = (
    update(delivery)
    .where(*OF_SINK, delivery.c.sequence == _NEXT)
    .values(due_at=case((delivery.c.due_at > bindparam("now"), bindparam("now")), else_=delivery.c.due_at))
)
_FORWARD = (
    update(delivery)
    .where(
        delivery.c.sink_id == bindparam("of_sink"),
        delivery.c.state == WAITING,
        delivery.c.due_at > bindparam("now"),
        delivery.c.recorded_at > bindparam("now"),
    )
    .values(due_at=bindparam("now"))
)

_earlier = delivery.alias("earlier")
IS_HEAD = (
    delivery.c.sink_id == bindparam("of_sink"),
    delivery.c.state == WAITING,
    ~select(_earlier.c.sequence)
    .where(
        _earlier.c.stream == delivery.c.stream,
        _earlier.c.sequence < delivery.c.sequence,
        _earlier.c.sink_id == delivery.c.sink_id,
        waits(_earlier),
    )
    .exists(),
)
_BY_DUE = (delivery.c.due_at, delivery.c.recorded_at)
DELIVERIES = select(
    delivery.c.stream,
    delivery.c.sequence,
    delivery.c.recorded_at,
    delivery.c.due_at,
    delivery.c.tried,
    delivery.c.attempts,
    delivery.c.steps,
    delivery.c.rejections,
    delivery.c.tried_at,
    delivery.c.first_due_us,
    delivery.c.replayed,
    event.c.event_id,
    event.c.type,
    event.c.body,
).join(event, (event.c.stream == delivery.c.stream) & (event.c.sequence == delivery.c.sequence))
"""What `delivery_of` reads."""

_DELIVERIES = DELIVERIES.where(*IS_HEAD)
_HAS_TRIED = delivery.c.tried == true()
_NEVER_TRIED = _DELIVERIES.where(delivery.c.tried == false()).order_by(*_BY_DUE).limit(bindparam("limit"))
_TRIED = _DELIVERIES.where(_HAS_TRIED).order_by(*_BY_DUE).limit(bindparam("limit"))
HEADS = union_all(select(_NEVER_TRIED.subquery("never_tried")), select(_TRIED.subquery("tried")))
"""The heads of a sink, never tried and tried, each in the order they come due.

A test holds that it walks the index and sorts nothing.
"""
_TRIED_LONGEST_AGO = (
    _DELIVERIES.where(_HAS_TRIED).order_by(delivery.c.steps, delivery.c.tried_at).limit(bindparam("limit"))
)
_NOTE_FIRST_DUE = (
    update(delivery)
    .where(*IS_HEAD, delivery.c.due_at <= bindparam("now"), delivery.c.first_due_us.is_(None))
    .values(first_due_us=bindparam("clock_us"))
)
_TOO_OLD = select(delivery.c.stream, delivery.c.sequence, delivery.c.group_id).where(
    *IS_HEAD, delivery.c.first_due_us <= bindparam("due_before_us")
)
_OF_GROUP = select(delivery.c.stream, delivery.c.sequence).where(
    delivery.c.sink_id == bindparam("of_sink"),
    delivery.c.state == WAITING,
    delivery.c.group_id == bindparam("of_group"),
)
_GIVE_UP = (
    update(delivery)
    .where(*OF_SINK, delivery.c.sequence == bindparam("of_sequence"))
    .values(
        state=DeliveryState.DEAD,
        settled_at=bindparam("now"),
        answer=func.coalesce(delivery.c.answer, "never_tried"),
    )
)


def write_attempt_records(
    connection: Connection, attempt_records: Sequence[AttemptRecords], *, numbers: SourceNumbers, now: Micros
) -> set[str]:
    """Write how attempts ended; return the names of the sinks that may have something due which these held back.

    A delivery that is settled already is left as it is: this write was tried before, or the sink was removed
    meanwhile.
    """
    rows = [
        {
            "of_stream": attempt.stream,
            "of_sink": numbers[sink(of_sink.lease.name)],
            "of_sequence": attempt.sequence,
            "new_state": attempt.state,
            "new_attempts": attempt.attempts,
            "new_due_at": attempt.due_at,
            "new_steps": attempt.steps,
            "new_rejections": attempt.rejections,
            "new_tried_at": attempt.tried_at,
            "new_first_due_us": round(attempt.first_due_at_s * 1e6),
            "new_settled_at": None if attempt.state == DeliveryState.WAITING else now,
            "new_answer": attempt.answer,
            "new_group_id": attempt.group_id and attempt.group_id.bytes,
            "now": now,
        }
        for of_sink in attempt_records
        for attempt in of_sink.attempts
    ]
    if not rows:
        return set()
    rows.sort(key=itemgetter("of_stream", "of_sequence", "of_sink"))
    connection.execute(_WRITE_ATTEMPT, rows)
    if failed := [row for row in rows if row["new_state"] == DeliveryState.WAITING]:
        connection.execute(_HOLD_BACK, failed)
    if settled := [row for row in rows if row["new_state"] != DeliveryState.WAITING]:
        freed = connection.execute(LET_GO, settled)
        if freed.rowcount:
            return {of_sink.lease.name for of_sink in attempt_records}
    return set()


def call_forward(connection: Connection, *, sink_id: int, now: Micros) -> None:
    """Make due at `now` what was recorded later than that: the clock was ahead then, and has been set right."""
    connection.execute(_FORWARD, {"of_sink": sink_id, "now": now})


def next_deliveries(
    connection: Connection, *, sink_id: int, name: str, now: Micros, limit: int, skip: Collection[bytes]
) -> DueDeliveries:
    """Return the heads of a sink that are due, at most `limit`, without the streams in `skip`, and when the next is."""
    wanted = limit + len(skip) + 1  # a stream has one head, so `skip` hides no more than it names
    found = connection.execute(HEADS, {"of_sink": sink_id, "limit": wanted})
    rows = sorted((row for row in found if row.stream not in skip), key=attrgetter("tried", "due_at", "recorded_at"))
    due = [row for row in rows if row.due_at <= now]
    others = due[limit:] + [row for row in rows if row.due_at > now]
    next_due_at = min((row.due_at for row in others), default=None)
    return DueDeliveries([delivery_of(row, name=name) for row in due[:limit]], next_due_at)


def next_trial(
    connection: Connection, *, sink_id: int, name: str, now: Micros, skip: Collection[bytes], never_tried: bool
) -> Delivery | None:
    """Return the head of a sink that is to show whether it works again, without the streams in `skip`."""
    key = {"of_sink": sink_id, "limit": len(skip) + 1}
    statements = (_NEVER_TRIED,) if never_tried else (_NEVER_TRIED, _TRIED_LONGEST_AGO)
    for statement in statements:
        for row in connection.execute(statement, key):
            if row.stream not in skip and (row.tried or row.due_at <= now):
                return delivery_of(row, name=name)
    return None


def give_up(
    connection: Connection, *, sink_id: int, now: Micros, clock_us: int, after_us: int, skip: Collection[bytes]
) -> int:
    """Note by the sink's own clock what is first due now; make dead what was so long ago. Return how many died.

    What is sent together dies together. `skip` names streams, and groups.
    """
    key = {"of_sink": sink_id, "now": now}
    connection.execute(_NOTE_FIRST_DUE, key | {"clock_us": clock_us})
    found = connection.execute(_TOO_OLD, {"of_sink": sink_id, "due_before_us": clock_us - after_us})
    old = [row for row in found if row.stream not in skip and row.group_id not in skip]
    dead = {(row.stream, row.sequence) for row in old}
    for group in {row.group_id for row in old} - {None}:
        dead.update((row.stream, row.sequence) for row in connection.execute(_OF_GROUP, key | {"of_group": group}))
    rows = [key | {"of_stream": stream, "of_sequence": sequence} for stream, sequence in sorted(dead)]
    if rows:
        connection.execute(_GIVE_UP, rows)
        connection.execute(LET_GO, rows)
    return len(rows)


def delivery_of(row: AnyRow, *, name: str, group_id: UUID | None = None, group_count: int = 1) -> Delivery:
    """Return a row of `DELIVERIES`."""
    return Delivery(
        sink=name,
        event_id=UUID(bytes=row.event_id),
        type=row.type,
        stream=row.stream,
        sequence=row.sequence,
        body=row.body,
        recorded_at=row.recorded_at,
        due_at=row.due_at,
        attempts=row.attempts,
        steps=row.steps,
        rejections=row.rejections,
        tried_at=row.tried_at,
        first_due_at_s=None if row.first_due_us is None else row.first_due_us / 1_000_000,
        group_id=group_id,
        group_count=group_count,
        replayed=row.replayed,
    )


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
