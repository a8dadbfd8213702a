"""Events and their deliveries as they are recorded. Knows nothing of attempts."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select

from watcher.domain.models import DeliveryState, Event, OutboxEntry
from watcher.domain.timestamps import Micros
from watcher.store.protocol import Change, ExecutionChange, PipelineChange
from watcher.store.row_mapping import execution_key
from watcher.store.source_ids import Source, SourceNumbers, pipeline, sink
from watcher.store.tables import WAITING, delivery, source
from watcher.store.tables import event as events

_EVENT = insert(events)

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

_SINKS_OF = (
    select(delivery.c.sink_id, source.c.name)
    .join(source, source.c.id == delivery.c.sink_id)
    .where(delivery.c.stream == bindparam("of_stream"), delivery.c.sequence == bindparam("of_sequence"))
)


def write_outbox(connection: Connection, changes: Iterable[Change], *, numbers: SourceNumbers, now: Micros) -> set[str]:
    """Write the events of changes and their deliveries; return the names of the sinks that got some."""
    emitted = [(change, entry) for change in changes for entry in change.entries]
    if not emitted:
        return set()
    emitted.sort(key=lambda each: (each[1].event.stream, each[1].event.sequence))
    connection.execute(_EVENT, [_event_row(change, entry.event, numbers=numbers, now=now) for change, entry in emitted])
    named = [(entry, numbers[sink(name)]) for _, entry in emitted for name in entry.sinks]
    _write_deliveries(connection, named, now=now)
    names = {name for _, entry in emitted for name in entry.sinks}
    for _, entry in emitted:
        if entry.with_sinks_of is not None:  # it goes also to whoever was sent the earlier event that this one ends
            earlier = {"of_stream": entry.with_sinks_of.stream, "of_sequence": entry.with_sinks_of.sequence}
            others = [row for row in connection.execute(_SINKS_OF, earlier) if row.name not in entry.sinks]
            _write_deliveries(connection, [(entry, row.sink_id) for row in others], now=now)
            names.update(row.name for row in others)
    return names


def about(change: Change, *, numbers: SourceNumbers) -> dict[str, Any]:
    """Return what a change is about: the columns `source_id`, `pipeline_id` and `execution`."""
    account, pipeline_id, execution = change.lease.name, None, None
    if isinstance(change, ExecutionChange):
        pipeline_id = numbers[pipeline(account, change.known.pipeline)]
        execution = execution_key(change.known.execution)
    elif isinstance(change, PipelineChange):
        pipeline_id = numbers[pipeline(account, change.pipeline)]
    source_id = numbers[Source(change.lease.kind, change.lease.name)]
    return {"source_id": source_id, "pipeline_id": pipeline_id, "execution": execution}


def _event_row(change: Change, event: Event, *, numbers: SourceNumbers, now: Micros) -> dict[str, Any]:
    return about(change, numbers=numbers) | {
        "event_id": event.id.bytes,
        "stream": event.stream,
        "sequence": event.sequence,
        "type": event.type,
        "recorded_at": now,
        "body": event.body,
    }


def _write_deliveries(connection: Connection, wanted: Iterable[tuple[OutboxEntry, int]], *, now: Micros) -> None:
    rows = [
        {"stream": entry.event.stream, "sequence": entry.event.sequence, "sink_id": sink_id, "recorded_at": now}
        for entry, sink_id in wanted
    ]
    if rows:
        connection.execute(_DELIVERY, rows)
