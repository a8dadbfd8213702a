"""What is written together, in one transaction: changes with their events and deliveries, attempts, and the rest."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

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
    rows = [(each.entry, each.about, times.take()) for each in emitted]
    if not rows:
        return set()
    rows.sort(key=lambda row: (row[0].event.stream, row[0].event.sequence))
    about_events: list[dict[str, Any]] = []
    deliveries: list[dict[str, Any]] = []
    for entry, about, recorded_at in rows:
        event, key = entry.event, _key_of(entry, recorded_at)
        about_events.append({**about, **key, "event_id": event.id.bytes, "type": event.type, "body": event.body})
        deliveries += [{**key, "sink_id": numbers[sink(name)], "now": times.now} for name in entry.sinks]
    _EVENT.run_many(connection, about_events)
    if deliveries:
        _DELIVERY.run_many(connection, deliveries)
    names = {name for entry, _, _ in rows for name in entry.sinks}
    for entry, _, recorded_at in rows:
        if entry.with_sinks_of is not None:  # it goes also to whoever was sent the earlier event that this one ends
            earlier = {"of_stream": entry.with_sinks_of.stream, "of_sequence": entry.with_sinks_of.sequence}
            key = _key_of(entry, recorded_at)
            for other in connection.execute(_SINKS_OF, earlier).all():
                if other.name not in entry.sinks:
                    _DELIVERY.run(connection, {**key, "sink_id": other.sink_id, "now": times.now})
                    names.add(other.name)
    return names


def _key_of(entry: OutboxEntry, recorded_at: Micros) -> dict[str, Any]:
    return {"stream": entry.event.stream, "sequence": entry.event.sequence, "recorded_at": recorded_at}


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


Item = Change | AttemptRecords | PollTimes | BackoffChange


def sources_of(items: Sequence[Item]) -> set[Source]:
    """Return every source the items speak of."""
    found: set[Source] = set()
    for item in items:
        found.add(Source(item.lease.kind, item.lease.name))
        for change in _changes_of(item):
            if isinstance(change, ExecutionChange):
                found.add(pipeline(change.lease.name, change.known.pipeline))
            elif isinstance(change, PipelineChange | RulesChange):
                found.add(pipeline(change.lease.name, change.pipeline))
            found.update(sink(name) for entry in change.entries for name in entry.sinks)
    return found


def _changes_of(item: Item) -> Sequence[SingleChange]:
    if isinstance(item, ChangeSet):
        return item.changes
    return (item,) if isinstance(item, SingleChange) else ()


def write_group(
    connection: Connection,
    items: Sequence[Item],
    *,
    numbers: SourceNumbers,
    times: OutboxTimes,
    well: Collection[Lease] = (),
) -> set[str]:
    """Write all of the items; return the names of the sinks that have something new to send.

    Of a sink that is recorded as `well` attempts write nothing but themselves, as long as it is. Raises
    `SequenceConflictError` when a sequence is not the stored one: then none of them is to be kept.
    """
    of_kind: dict[type, list[Any]] = defaultdict(list)
    changes: list[SingleChange] = []
    for item in items:
        if found := _changes_of(item):
            changes += found
        else:
            of_kind[type(item)].append(item)
        if isinstance(item, AttemptRecords) and not (item.backoff == NO_BACKOFF and item.lease in well):
            of_kind[BackoffChange].append(BackoffChange(item.lease, item.backoff, item.clock_s))
    sinks: set[str] = set()
    for change in changes:
        of_kind[type(change)].append(change)
    if executions := of_kind[ExecutionChange]:
        write_executions(connection, executions, numbers=numbers)
    if sources := of_kind[SourceChange]:
        write_sources(connection, sources, numbers=numbers)
    if pipelines := of_kind[PipelineChange]:
        write_pipelines(connection, pipelines, numbers=numbers)
    if rules := of_kind[RulesChange]:
        write_rules(connection, rules, numbers=numbers)
    if poll_times := of_kind[PollTimes]:
        write_poll_times(connection, poll_times, numbers=numbers)
    if backoffs := of_kind[BackoffChange]:
        write_backoffs(connection, backoffs, numbers=numbers, now=times.now)
    if changes:
        abouts = [about(change, numbers=numbers) for change in changes]
        told = list(zip(changes, abouts, strict=True))
        write_problems(connection, [(problem, of) for change, of in told for problem in change.problems])
        write_reminders(connection, sources, numbers=numbers)
        emitted = [Emitted(entry, of) for change, of in told for entry in change.entries]
        sinks |= write_outbox(connection, emitted, numbers=numbers, times=times)
    if records := of_kind[AttemptRecords]:
        write_messages(connection, records, numbers=numbers)
        sinks |= write_attempt_records(connection, records, numbers=numbers, now=times.now)
    return sinks
