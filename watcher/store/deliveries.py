"""The deliveries of a sink: which may be sent, in which order, how an attempt is written down, and which are given up.

A delivery is a head when no earlier one of its stream waits for the same sink. Only heads are sent. Its followers are
due no earlier than it is, so that what is due is found at the front of the index, however much is held back.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, case, false, func, null, select, true, tuple_, union_all, update

from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.event import EventKey
from watcher.domain.timestamps import Micros
from watcher.store.changes import AttemptRecords
from watcher.store.records import Backlog, DueDeliveries
from watcher.store.source_ids import SourceNumbers, sink
from watcher.store.statement import HotStatement
from watcher.store.tables import DEAD, WAITING, AnyRow, delivery, event, problem, source, waits

REPLAYED_COUNT = 1_000
"""Dead letters that are replayed in one transaction."""

OF_SINK = (
    delivery.c.stream == bindparam("of_stream"),
    delivery.c.sink_id == bindparam("of_sink"),
    waits(delivery),
)
_WRITE_ATTEMPT = HotStatement(
    update(delivery)
    .where(*OF_SINK, delivery.c.sequence == bindparam("of_sequence"))
    .values(
        state=bindparam("new_state"),
        attempts=bindparam("new_attempts"),
        due_at=bindparam("new_due_at"),
        steps=bindparam("new_steps"),
        rejections=bindparam("new_rejections"),
        tried=true(),
        tried_at=bindparam("new_tried_at"),
        first_due_us=bindparam("new_first_due_us"),
        settled_at=bindparam("new_settled_at"),
        answer=bindparam("new_answer"),
        group_id=bindparam("new_group_id"),
    )
)
_HOLD_BACK = HotStatement(
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
LET_GO = HotStatement(
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
HEADS = HotStatement(union_all(select(_NEVER_TRIED.subquery("never_tried")), select(_TRIED.subquery("tried"))))
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
    _WRITE_ATTEMPT.run_many(connection, rows)
    if failed := [row for row in rows if row["new_state"] == DeliveryState.WAITING]:
        _HOLD_BACK.run_many(connection, failed)
    if settled := [row for row in rows if row["new_state"] != DeliveryState.WAITING]:
        freed = LET_GO.run_many(connection, settled)
        if freed.rowcount:
            return {of_sink.lease.name for of_sink in attempt_records}
    return set()


def call_forward(connection: Connection, sink_id: int, *, now: Micros) -> None:
    """Make due at `now` what was recorded later than that: the clock was ahead then, and has been set right."""
    connection.execute(_FORWARD, {"of_sink": sink_id, "now": now})


def next_deliveries(
    connection: Connection, sink_id: int, *, name: str, now: Micros, limit: int, skip: Collection[bytes]
) -> DueDeliveries:
    """Return the heads of a sink that are due, at most `limit`, without the streams in `skip`, and when the next is."""
    wanted = limit + len(skip) + 1  # a stream has one head, so `skip` hides no more than it names
    found = HEADS.run(connection, {"of_sink": sink_id, "limit": wanted})
    rows = sorted((row for row in found if row.stream not in skip), key=attrgetter("tried", "due_at", "recorded_at"))
    due = [row for row in rows if row.due_at <= now]
    others = due[limit:] + [row for row in rows if row.due_at > now]
    next_due_at = min((row.due_at for row in others), default=None)
    return DueDeliveries([delivery_of(row, name=name) for row in due[:limit]], next_due_at)


def next_trial(
    connection: Connection, sink_id: int, *, name: str, now: Micros, skip: Collection[bytes], never_tried: bool
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
    connection: Connection, sink_id: int, *, now: Micros, clock_us: int, after_us: int, skip: Collection[bytes]
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
        LET_GO.run_many(connection, rows)
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


_SILENCE = (
    update(delivery)
    .where(*OF_SINK, delivery.c.sequence == bindparam("of_sequence"))
    .values(
        state=DeliveryState.SILENCED,
        settled_at=bindparam("now"),
        answer=null(),
        group_id=null(),
        tried=delivery.c.recorded_at < bindparam("owned_from"),
    )
)
_OPENS = (
    (problem.c.stream == delivery.c.stream)
    & (problem.c.sequence == delivery.c.sequence)
    & problem.c.closed_at.is_(None)
)
_IS_KEPT_BACK = (delivery.c.sink_id == bindparam("of_sink"), delivery.c.state == DeliveryState.SILENCED)
_OPENINGS = DELIVERIES.join(problem, _OPENS).where(*_IS_KEPT_BACK)
# Whoever closes a problem updates its row, and then reads which sinks were sent the opening. So that either this comes
# first, and is read there, or the problem is found closed here: the sink is not sent the closing then, so it must not
# be sent the opening. In the order in which problems are written, so that the two never wait in a circle.
_KEEP_OPEN = (
    select(problem.c.stream, problem.c.sequence)
    .join(delivery, _OPENS)
    .where(*_IS_KEPT_BACK)
    .order_by(problem.c.id)
    .with_for_update(of=problem)
)
_RELEASE = (
    update(delivery)
    .where(
        delivery.c.stream == bindparam("of_stream"),
        delivery.c.sequence == bindparam("of_sequence"),
        delivery.c.sink_id == bindparam("of_sink"),
        delivery.c.state == DeliveryState.SILENCED,
    )
    .values(state=DeliveryState.WAITING, due_at=bindparam("now"), first_due_us=null(), settled_at=null(), tried=False)
)
_PUT_OFF = (
    update(delivery)
    .where(*OF_SINK, delivery.c.sequence == bindparam("of_sequence"))
    .values(due_at=bindparam("new_due_at"))
)


def silence(connection: Connection, sink_id: int, *, keys: Iterable[EventKey], now: Micros, owned_from: Micros) -> None:
    """Settle what waits of these as silenced, and let what comes after it go.

    What was recorded before `owned_from` counts as tried: an owner that was killed in the middle may have sent it.
    """
    rows = [row | {"owned_from": owned_from} for row in _rows(sink_id, keys, now)]
    if rows:
        connection.execute(_SILENCE, rows)
        LET_GO.run_many(connection, rows)


def silenced_openings(connection: Connection, sink_id: int, *, name: str) -> Sequence[Delivery]:
    """Return the openings of open problems that a silence kept back."""
    return [delivery_of(row, name=name) for row in connection.execute(_OPENINGS, {"of_sink": sink_id})]


def release(connection: Connection, sink_id: int, *, keys: Iterable[EventKey], now: Micros) -> None:
    """Have what is silenced of these and opened a problem that is open wait again, due now, as if it were new."""
    still_open = {EventKey(*row) for row in connection.execute(_KEEP_OPEN, {"of_sink": sink_id})}
    rows = _rows(sink_id, still_open & set(keys), now)
    if rows:
        connection.execute(_RELEASE, rows)


def put_off(connection: Connection, sink_id: int, *, due_at: Mapping[EventKey, Micros]) -> None:
    """Have what waits of these come due at those times."""
    rows = [
        {"of_sink": sink_id, "of_stream": key.stream, "of_sequence": key.sequence, "new_due_at": at}
        for key, at in sorted(due_at.items())
    ]
    if rows:
        connection.execute(_PUT_OFF, rows)


def _rows(sink_id: int, keys: Iterable[EventKey], now: Micros) -> list[dict[str, object]]:
    return [{"of_sink": sink_id, "of_stream": key[0], "of_sequence": key[1], "now": now} for key in sorted(keys)]


_SINK_ID = select(source.c.id).where(source.c.kind == "sink", source.c.name == bindparam("name")).scalar_subquery()
_IS_DEAD = (delivery.c.sink_id == _SINK_ID, delivery.c.state == DEAD)
_THIS = (
    delivery.c.stream == bindparam("of_stream"),
    delivery.c.sequence == bindparam("of_sequence"),
)
_AGAIN: dict[str, Any] = {
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
_REPLAYED = update(delivery).values({delivery.c[name]: value for name, value in _AGAIN.items()})
_REPLAY = _REPLAYED.where(*_IS_DEAD, *_THIS)
_SOME_DEAD = (
    select(delivery.c.stream, delivery.c.sequence, delivery.c.sink_id)
    .where(*_IS_DEAD, delivery.c.settled_at <= bindparam("died_until"))
    .limit(REPLAYED_COUNT)
)
_REPLAY_SOME = _REPLAYED.where(tuple_(delivery.c.stream, delivery.c.sequence, delivery.c.sink_id).in_(_SOME_DEAD))


def replay(connection: Connection, *, name: str, event: EventKey, now: Micros) -> bool:
    """Have a dead letter wait again; return whether it was one."""
    key = {"name": name, "of_stream": event.stream, "of_sequence": event.sequence, "now": now}
    return connection.execute(_REPLAY, key).rowcount > 0


def replay_some(connection: Connection, *, name: str, now: Micros, died_until: Micros) -> int:
    """Have some of a sink's dead letters wait again; return how many, 0 when none is left that died until then."""
    return connection.execute(_REPLAY_SOME, {"name": name, "now": now, "died_until": died_until}).rowcount
