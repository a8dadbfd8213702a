"""What is written together, in one transaction: changes with their events and deliveries, attempts, and the rest."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, or_, select

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import Event, EventKey, Group, OutboxEntry
from watcher.domain.timestamps import Micros
from watcher.store.changes import (
    BackoffChange,
    Change,
    ChangeSet,
    Emitted,
    ExecutionChange,
    PipelineChange,
    PollTimes,
    RulesChange,
    SingleChange,
    SourceChange,
    Turn,
)
from watcher.store.database import HotStatement
from watcher.store.deliveries import call_forward, labels_text, settle, take
from watcher.store.ids import Source, SourceNumbers, execution_key, pipeline, sink
from watcher.store.monitor import Writing
from watcher.store.problems import write_messages, write_problems, write_reminders
from watcher.store.records import Taken
from watcher.store.states import (
    write_backoffs,
    write_executions,
    write_pipelines,
    write_poll_times,
    write_rules,
    write_sources,
)
from watcher.store.tables import WAITING, delivery, is_sink, source
from watcher.store.tables import event as events

_EVENT = HotStatement(
    insert(events)
    .values({column.name: bindparam(column.name) for column in events.c if column is not events.c.id})
    .inline()  # nobody asks for its number
)

# A follower of a delivery that waits for its next attempt comes due with it, not before: else every search for what is
# due would pass over all that is held back.
_number = (
    select(events.c.id)
    .where(events.c.stream == bindparam("stream"), events.c.sequence == bindparam("sequence"))
    .scalar_subquery()
)
_ahead = delivery.alias("ahead")
_LATEST_AHEAD = (
    select(func.max(_ahead.c.due_at))
    .where(
        is_sink(_ahead, bindparam("sink_id")),
        _ahead.c.state == WAITING,
        _ahead.c.lane == bindparam("lane"),
        _ahead.c.due_at + 0 > bindparam("due"),
    )
    .scalar_subquery()
)
_DELIVERY = HotStatement(
    insert(delivery).values(
        number=_number,
        sink_id=bindparam("sink_id"),
        lane=bindparam("lane"),
        group_key=bindparam("group_key"),
        only_closes=bindparam("only_closes"),
        state=WAITING,
        recorded_at=bindparam("recorded_at"),
        due_at=func.coalesce(_LATEST_AHEAD, bindparam("due")),
    )
)

# Whom a silence kept the earlier event from needs no word of its end, unless an earlier owner may have sent it.
_SINKS_OF = (
    select(delivery.c.sink_id, source.c.name)
    .join(source, source.c.id == delivery.c.sink_id)
    .join(events, events.c.id == delivery.c.number)
    .where(
        events.c.stream == bindparam("of_stream"),
        events.c.sequence == bindparam("of_sequence"),
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
    _EVENT.run_many(connection, [_event_row(entry.event, recorded_at) | about for entry, about, recorded_at in rows])
    deliveries: list[dict[str, Any]] = []
    names: set[str] = set()
    for entry, _, recorded_at in rows:
        names.update(entry.sinks)
        deliveries += [
            _delivery_row(entry, numbers[sink(name)], entry.groups.get(name), recorded_at, now=times.now)
            for name in entry.sinks
        ]
        if entry.with_sinks_of is not None:  # it goes also to whoever was sent the earlier event that this one ends
            earlier = {"of_stream": entry.with_sinks_of.stream, "of_sequence": entry.with_sinks_of.sequence}
            if deliveries:  # the earlier one may be of this transaction
                _DELIVERY.run_many(connection, deliveries)
                deliveries = []
            for other in connection.execute(_SINKS_OF, earlier).all():
                if other.name not in entry.sinks:
                    row = _delivery_row(entry, other.sink_id, None, recorded_at, now=times.now)
                    deliveries.append(row | {"only_closes": True})
                    names.add(other.name)
    if deliveries:
        _DELIVERY.run_many(connection, deliveries)
    return names


def _event_row(event: Event, recorded_at: Micros) -> dict[str, Any]:
    return {
        "stream": event.stream,
        "sequence": event.sequence,
        "event_id": event.id.bytes,
        "type": event.type,
        "recorded_at": recorded_at,
        "account": event.account,
        "pipeline": event.pipeline,
        "labels": labels_text(tuple(event.labels.items())),
        "problem_id": None if event.problem is None else event.problem.bytes,
        "closes": event.closes,
        "body": event.body,
    }


def _delivery_row(
    entry: OutboxEntry, sink_id: int, group: Group | None, recorded_at: Micros, *, now: Micros
) -> dict[str, Any]:
    return {
        "stream": entry.event.stream,
        "sequence": entry.event.sequence,
        "sink_id": sink_id,
        "lane": entry.event.lane,
        "group_key": None if group is None else group.key,
        "only_closes": False,
        "recorded_at": recorded_at,
        "due": now if group is None else recorded_at + round(group.wait_s * 1e6),
    }


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


Item = Change | Turn | PollTimes | BackoffChange


class GroupWork:
    """What is written together, sorted once: by kind, with its leases, its sources and how much it is."""

    def __init__(self, items: Sequence[Item]) -> None:
        """Sort these."""
        self.items = items
        self.changes: list[SingleChange] = []
        self.of_kind: dict[type, list[Any]] = defaultdict(list)
        self.turns: list[Turn] = []
        self.leases = {item.lease for item in items}
        self.sources = {Source(lease.kind, lease.name) for lease in self.leases}
        self.sinks: set[str] = set()  # that something is recorded for
        self.size = Writing.NOTHING
        for item in items:
            if isinstance(item, Turn):
                self._add_turn(item)
            elif isinstance(item, PollTimes | BackoffChange):
                self.of_kind[type(item)].append(item)
                self.size = max(self.size, Writing.A_LITTLE)
            else:
                for change in item.changes if isinstance(item, ChangeSet) else (item,):
                    self._add_change(change)

    def _add_turn(self, turn: Turn) -> None:
        self.turns.append(turn)
        if turn.backoff is not None:
            self.of_kind[BackoffChange].append(BackoffChange(turn.lease, turn.backoff, turn.clock_s))
        if turn.writes:
            self.size = max(self.size, Writing.CHANGES if turn.attempts else Writing.A_LITTLE)

    def _add_change(self, change: SingleChange) -> None:
        self.size = Writing.CHANGES
        self.changes.append(change)
        self.of_kind[type(change)].append(change)
        if isinstance(change, ExecutionChange):
            self.sources.add(pipeline(change.lease.name, change.known.pipeline))
        elif isinstance(change, PipelineChange | RulesChange):
            self.sources.add(pipeline(change.lease.name, change.pipeline))
        for entry in change.entries:
            self.sinks.update(entry.sinks)
            self.sources.update(map(sink, entry.sinks))


Written = tuple[set[str], list[Taken | None], dict[int, Taken | None]]
"""Which sinks have something new to send, what each item takes, and what each turn does, by its identity."""


def write_group(connection: Connection, work: GroupWork, *, numbers: SourceNumbers, times: OutboxTimes) -> Written:
    """Write all of it.

    Raises `SequenceConflictError` when a sequence is not the stored one: then none of it is to be kept.
    """
    of_kind, turns = work.of_kind, work.turns
    for kind, write in _WRITERS:
        if kind in of_kind:
            write(connection, of_kind[kind], numbers=numbers)
    if BackoffChange in of_kind:
        write_backoffs(connection, of_kind[BackoffChange], numbers=numbers, now=times.now)
    sinks: set[str] = set()
    if work.changes:
        told = [(change, about(change, numbers=numbers)) for change in work.changes]
        write_problems(connection, [(problem, of) for change, of in told for problem in change.problems])
        write_reminders(connection, of_kind.get(SourceChange, ()), numbers=numbers)
        emitted = [Emitted(entry, of) for change, of in told for entry in change.entries]
        sinks = write_outbox(connection, emitted, numbers=numbers, times=times)
    taken: dict[int, Taken | None] = {}
    if turns:
        settle(connection, turns, numbers=numbers, now=times.now)
        for turn in turns:
            sink_id = numbers[sink(turn.lease.name)]
            if turn.messages:
                write_messages(connection, sink_id, turn.messages)
            if turn.calls_forward:
                call_forward(connection, sink_id, now=times.now)
            if turn.take is not None:
                taken[id(turn)] = take(connection, sink_id, name=turn.lease.name, request=turn.take)
    return sinks, [taken.get(id(item)) for item in work.items], taken


_WRITERS: Sequence[tuple[type, Callable[..., None]]] = (
    (ExecutionChange, write_executions),
    (SourceChange, write_sources),
    (PipelineChange, write_pipelines),
    (RulesChange, write_rules),
    (PollTimes, write_poll_times),
)
"""In the order in which rows are locked, so that two writers never wait for each other."""
