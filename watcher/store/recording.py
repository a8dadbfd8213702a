"""What is written together, in one transaction: changes with their events and deliveries, attempts, and the rest."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, insert, or_, select

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import EventKey, OutboxEntry
from watcher.domain.timestamps import Micros
from watcher.store.changes import (
    NO_BACKOFF,
    AttemptRecords,
    Change,
    ChangeSet,
    Emitted,
    ExecutionChange,
    Lease,
    PipelineChange,
    RulesChange,
    SingleChange,
    SourceChange,
)
from watcher.store.deliveries import write_attempt_records
from watcher.store.executions import PollTimes, execution_key, write_executions, write_poll_times
from watcher.store.problems import write_messages, write_problems, write_reminders
from watcher.store.source_ids import Source, SourceNumbers, pipeline, sink
from watcher.store.sources import BackoffChange, write_backoffs, write_pipelines, write_rules, write_sources
from watcher.store.statement import HotStatement
from watcher.store.tables import WAITING, delivery, source, waits
from watcher.store.tables import event as events

_EVENT = HotStatement(
    insert(events)
    .values({column.name: bindparam(column.name) for column in events.c if column is not events.c.id})
    .inline()  # nobody asks for its number
)

# A follower of a delivery that waits for its next attempt comes due with it, not before: else every search for what is
# due would pass over all that is held back.
_ahead = delivery.alias("ahead")
_LATEST_AHEAD = (
    select(func.max(_ahead.c.due_at))
    .where(
        _ahead.c.stream == bindparam("stream"),
        _ahead.c.sequence < bindparam("sequence"),
        _ahead.c.sink_id == bindparam("sink_id"),
        waits(_ahead),
        _ahead.c.due_at > bindparam("now"),
    )
    .scalar_subquery()
)
_DELIVERY = HotStatement(
    insert(delivery).values(
        stream=bindparam("stream"),
        sequence=bindparam("sequence"),
        sink_id=bindparam("sink_id"),
        state=WAITING,
        recorded_at=bindparam("recorded_at"),
        due_at=func.coalesce(_LATEST_AHEAD, bindparam("now")),
    )
)

# Whom a silence kept the earlier event from needs no word of its end, unless an earlier owner may have sent it.
_SINKS_OF = (
    select(delivery.c.sink_id, source.c.name)
    .join(source, source.c.id == delivery.c.sink_id)
    .where(
        delivery.c.stream == bindparam("of_stream"),
        delivery.c.sequence == bindparam("of_sequence"),
        or_(delivery.c.state != DeliveryState.SILENCED, delivery.c.tried),
    )
)


_BODIES = select(events.c.stream, events.c.sequence, events.c.body).where(
    events.c.stream == bindparam("of_stream"), events.c.sequence == bindparam("of_sequence")
)


@dataclass(slots=True)
class OutboxTimes:
    """When the events of one transaction are recorded: `now`, and each a little later than the one before.

    So a sink gets what is due in the order in which it was recorded. `next_at` is the time of the next event.
    """

    now: Micros
    next_at: Micros

    def take(self) -> Micros:
        """Return when an event counts as recorded."""
        taken, self.next_at = self.next_at, Micros(self.next_at + 1)
        return taken


def write_outbox(
    connection: Connection, emitted: Iterable[Emitted], *, numbers: SourceNumbers, times: OutboxTimes
) -> set[str]:
    """Write events and their deliveries, recorded in this order; return the names of the sinks that got some."""
    rows = [_Row(entry, about, times.take()) for entry, about in emitted]
    if not rows:
        return set()
    rows.sort(key=lambda row: (row.entry.event.stream, row.entry.event.sequence))
    _EVENT.run_many(connection, [_event_row(row) for row in rows])
    wanted = [(row, numbers[sink(name)]) for row in rows for name in row.entry.sinks]
    _write_deliveries(connection, wanted, now=times.now)
    names = {name for row in rows for name in row.entry.sinks}
    for row in rows:
        if row.entry.with_sinks_of is not None:  # it goes also to whoever was sent the earlier event that this one ends
            earlier = {"of_stream": row.entry.with_sinks_of.stream, "of_sequence": row.entry.with_sinks_of.sequence}
            others = [each for each in connection.execute(_SINKS_OF, earlier) if each.name not in row.entry.sinks]
            _write_deliveries(connection, [(row, each.sink_id) for each in others], now=times.now)
            names.update(each.name for each in others)
    return names


def load_events(connection: Connection, keys: Collection[EventKey]) -> dict[EventKey, bytes]:
    """Return the bodies of these events, as far as they are there still."""
    found: dict[EventKey, bytes] = {}
    for key in keys:
        row = connection.execute(_BODIES, {"of_stream": key.stream, "of_sequence": key.sequence}).one_or_none()
        if row is not None:
            found[key] = row.body
    return found


def about(change: SingleChange, *, numbers: SourceNumbers) -> dict[str, Any]:
    """Return what a change is about: the columns `source_id`, `pipeline_id` and `execution`."""
    account, pipeline_id, execution = change.lease.name, None, None
    if isinstance(change, ExecutionChange):
        pipeline_id = numbers[pipeline(account, change.known.pipeline)]
        execution = execution_key(change.known.execution)
    elif isinstance(change, PipelineChange | RulesChange):
        pipeline_id = numbers[pipeline(account, change.pipeline)]
    source_id = numbers[Source(change.lease.kind, change.lease.name)]
    return {"source_id": source_id, "pipeline_id": pipeline_id, "execution": execution}


class _Row(NamedTuple):
    """An event with when it counts as recorded."""

    entry: OutboxEntry
    about: dict[str, Any]
    recorded_at: Micros


def _event_row(row: _Row) -> dict[str, Any]:
    event = row.entry.event
    return row.about | {
        "event_id": event.id.bytes,
        "stream": event.stream,
        "sequence": event.sequence,
        "type": event.type,
        "recorded_at": row.recorded_at,
        "body": event.body,
    }


def _write_deliveries(connection: Connection, wanted: Sequence[tuple[_Row, int]], *, now: Micros) -> None:
    rows = [
        {
            "stream": row.entry.event.stream,
            "sequence": row.entry.event.sequence,
            "sink_id": sink_id,
            "recorded_at": row.recorded_at,
            "now": now,
        }
        for row, sink_id in wanted
    ]
    if rows:
        _DELIVERY.run_many(connection, rows)


Item = Change | AttemptRecords | PollTimes | BackoffChange


def sources_of(items: Sequence[Item]) -> set[Source]:
    """Return every source the items speak of."""
    found: set[Source] = set()
    for item in items:
        found.add(Source(item.lease.kind, item.lease.name))
    for change in changes_of(items):
        if isinstance(change, ExecutionChange):
            found.add(pipeline(change.lease.name, change.known.pipeline))
        elif isinstance(change, PipelineChange | RulesChange):
            found.add(pipeline(change.lease.name, change.pipeline))
        found.update(sink(name) for entry in change.entries for name in entry.sinks)
    return found


def changes_of(items: Sequence[Item]) -> list[SingleChange]:
    """Return the changes among the items, in order."""
    changes: list[SingleChange] = []
    for item in items:
        if isinstance(item, ChangeSet):
            changes += item.changes
        elif isinstance(item, SingleChange):
            changes.append(item)
    return changes


def write_group(
    connection: Connection,
    items: Sequence[Item],
    *,
    numbers: SourceNumbers,
    times: OutboxTimes,
    well: Collection[Lease] = (),
) -> set[str]:
    """Write all of the items; return the names of the sinks that have something new to send.

    Of the sinks that are recorded as `well` attempts write nothing more as long as they are.

    Raises `SequenceConflictError` when a sequence is not the stored one: then none of them is to be kept.
    """
    changes, now = changes_of(items), times.now
    records = [item for item in items if isinstance(item, AttemptRecords)]
    backoffs = [
        BackoffChange(item.lease, item.backoff, item.clock_s)
        for item in items
        if isinstance(item, BackoffChange)
        or (isinstance(item, AttemptRecords) and not (item.backoff == NO_BACKOFF and item.lease in well))
    ]
    write_executions(connection, [each for each in changes if isinstance(each, ExecutionChange)], numbers=numbers)
    write_sources(connection, [each for each in changes if isinstance(each, SourceChange)], numbers=numbers)
    write_pipelines(connection, [each for each in changes if isinstance(each, PipelineChange)], numbers=numbers)
    write_rules(connection, [each for each in changes if isinstance(each, RulesChange)], numbers=numbers)
    write_poll_times(connection, [item for item in items if isinstance(item, PollTimes)], numbers=numbers)
    write_backoffs(connection, backoffs, numbers=numbers, now=now)
    write_problems(
        connection,
        [(problem, about(each, numbers=numbers)) for each in changes for problem in each.problems],
    )
    write_reminders(connection, [each for each in changes if isinstance(each, SourceChange)], numbers=numbers)
    write_messages(connection, records, numbers=numbers)
    emitted = [Emitted(entry, about(each, numbers=numbers)) for each in changes for entry in each.entries]
    sinks = write_outbox(connection, emitted, numbers=numbers, times=times)
    return sinks | write_attempt_records(connection, records, numbers=numbers, now=now)
