"""Deliveries that a silence keeps back: settled as `silenced`, and let go if their problem outlasts the silence."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, bindparam, null, select, update

from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.event import EventKey
from watcher.domain.timestamps import Micros
from watcher.store.deliveries import DELIVERIES, LET_GO, OF_SINK, delivery_of
from watcher.store.tables import delivery, problem

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


def silence(connection: Connection, *, sink_id: int, keys: Iterable[EventKey], now: Micros, owned_from: Micros) -> None:
    """Settle what waits of these as silenced, and let what comes after it go.

    What was recorded before `owned_from` counts as tried: an owner that was killed in the middle may have sent it.
    """
    rows = [row | {"owned_from": owned_from} for row in _rows(sink_id, keys, now)]
    if rows:
        connection.execute(_SILENCE, rows)
        connection.execute(LET_GO, rows)


def silenced_openings(connection: Connection, *, sink_id: int, name: str) -> Sequence[Delivery]:
    """Return the openings of open problems that a silence kept back."""
    return [delivery_of(row, name=name) for row in connection.execute(_OPENINGS, {"of_sink": sink_id})]


def release(connection: Connection, *, sink_id: int, keys: Iterable[EventKey], now: Micros) -> None:
    """Have what is silenced of these and opened a problem that is open wait again, due now, as if it were new."""
    still_open = {EventKey(*row) for row in connection.execute(_KEEP_OPEN, {"of_sink": sink_id})}
    rows = _rows(sink_id, still_open & set(keys), now)
    if rows:
        connection.execute(_RELEASE, rows)


def put_off(connection: Connection, *, sink_id: int, due_at: Mapping[EventKey, Micros]) -> None:
    """Have what waits of these come due at those times."""
    rows = [
        {"of_sink": sink_id, "of_stream": key.stream, "of_sequence": key.sequence, "new_due_at": at}
        for key, at in sorted(due_at.items())
    ]
    if rows:
        connection.execute(_PUT_OFF, rows)


def _rows(sink_id: int, keys: Iterable[EventKey], now: Micros) -> list[dict[str, object]]:
    return [{"of_sink": sink_id, "of_stream": key[0], "of_sequence": key[1], "now": now} for key in sorted(keys)]
