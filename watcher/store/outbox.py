"""Events and their deliveries as they are recorded. Knows nothing of attempts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select

from watcher.domain.models import DeliveryState, OutboxEntry
from watcher.store.protocol import Change, ExecutionChange, PipelineChange
from watcher.store.row_mapping import execution_key
from watcher.store.source_ids import Source, SourceNumbers, pipeline, sink
from watcher.store.tables import WAITING, delivery, event, source

_EVENT = insert(event)

# A follower of a delivery that waits for its next attempt comes due with it, not before: else every search for what is
# due would pass over all that is held back.
_ahead = delivery.alias("ahead")
_LATEST_AHEAD = (
    select(func.max(_ahead.c.due_at))
    .where(
        _ahead.c.stream == bindparam("stream"),
        _ahead.c.sequence < bindparam("sequence"),
        _ahead.c.sink_id + 0 == bindparam("sink_id"),  # + 0: not by the index of all that waits for the sink
        _ahead.c.state == WAITING,
        _ahead.c.due_at > bindparam("recorded_at"),
    )
    .scalar_subquery()
)
_DELIVERY = insert(delivery).values(
    stream=bindparam("stream"),
    sequence=bindparam("sequence"),
    sink_id=bindparam("sink_id"),
    state=DeliveryState.WAITING,
    recorded_at=bindparam("recorded_at"),
    due_at=func.coalesce(_LATEST_AHEAD, bindparam("recorded_at")),
)

_there = delivery.alias("there")
_SINKS_OF = (
    select(delivery.c.sink_id, source.c.name)
    .join(source, source.c.id == delivery.c.sink_id)
    .where(
        delivery.c.stream == bindparam("of_stream"),
        delivery.c.sequence == bindparam("earlier"),
        ~select(_there.c.sink_id)
        .where(
            _there.c.stream == bindparam("of_stream"),
            _there.c.sequence == bindparam("later"),
            _there.c.sink_id == delivery.c.sink_id,
        )
        .exists(),
    )
)


@dataclass(frozen=True, slots=True)
class _OutboxEvent:
    """An event with the change that makes it."""

    change: Change
    outgoing: OutboxEntry


def write_outgoing(connection: Connection, changes: Iterable[Change], *, numbers: SourceNumbers, now: int) -> set[str]:
    """Write the events of changes and their deliveries; return the names of the sinks that got some."""
    emitted = [_OutboxEvent(change, outgoing) for change in changes for outgoing in change.entries]
    if not emitted:
        return set()
    emitted.sort(key=lambda each: (each.outgoing.event.stream, each.outgoing.event.sequence))
    connection.execute(_EVENT, [_event_row(each, numbers=numbers, now=now) for each in emitted])
    names = {name for each in emitted for name in each.outgoing.sinks}
    rows = [
        _delivery_row(each.outgoing, sink_id=numbers[sink(name)], now=now)
        for each in emitted
        for name in each.outgoing.sinks
    ]
    if rows:
        connection.execute(_DELIVERY, rows)
    return names | _write_echoes(connection, [each.outgoing for each in emitted], now=now)


def _write_echoes(connection: Connection, several: Sequence[OutboxEntry], *, now: int) -> set[str]:
    """Send also to whoever was sent the earlier event that this one ends."""
    names: set[str] = set()
    for outgoing in several:
        if outgoing.with_sinks_of is None:
            continue
        key = {
            "of_stream": outgoing.event.stream,
            "later": outgoing.event.sequence,
            "earlier": outgoing.with_sinks_of,
        }
        sinks = connection.execute(_SINKS_OF, key).all()
        if sinks:
            rows = [_delivery_row(outgoing, sink_id=each.sink_id, now=now) for each in sinks]
            connection.execute(_DELIVERY, rows)
        names.update(each.name for each in sinks)
    return names


def _event_row(emitted: _OutboxEvent, *, numbers: SourceNumbers, now: int) -> dict[str, Any]:
    happened = emitted.outgoing.event
    row = {
        "event_id": happened.id.bytes,
        "stream": happened.stream,
        "sequence": happened.sequence,
        "type": happened.type,
        "source_id": numbers[Source(emitted.change.lease.kind, emitted.change.lease.name)],
        "recorded_at": now,
        "body": happened.body,
    }
    return row | _subject(emitted.change, numbers=numbers)


def _subject(change: Change, *, numbers: SourceNumbers) -> dict[str, Any]:
    if isinstance(change, ExecutionChange):
        pipeline_id = numbers[pipeline(change.lease.name, change.known.pipeline)]
        return {"pipeline_id": pipeline_id, "execution": execution_key(change.known.execution)}
    if isinstance(change, PipelineChange):
        return {"pipeline_id": numbers[pipeline(change.lease.name, change.pipeline)], "execution": None}
    return {"pipeline_id": None, "execution": None}


def _delivery_row(outgoing: OutboxEntry, *, sink_id: int, now: int) -> dict[str, Any]:
    return {
        "stream": outgoing.event.stream,
        "sequence": outgoing.event.sequence,
        "sink_id": sink_id,
        "recorded_at": now,
    }
