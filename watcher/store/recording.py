"""What is written together, in one transaction: changes with their events and deliveries, attempts, and the rest."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import repeat
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, or_, select

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import EventKey, EventType, Group, OutboxEntry
from watcher.domain.problems import ProblemChange
from watcher.domain.timestamps import NEVER, Micros
from watcher.store.changes import (
    BackoffChange,
    Change,
    ChangeSet,
    Emitted,
    ExecutionChange,
    Lease,
    PipelineChange,
    PollTimes,
    RulesChange,
    SingleChange,
    SnapshotChange,
    SourceChange,
    Turn,
)
from watcher.store.database import HotStatement
from watcher.store.deliveries import CALL_FORWARD, labels_text, settle, take
from watcher.store.monitor import Writing
from watcher.store.problems import write_messages, write_problems, write_reminders
from watcher.store.records import Taken
from watcher.store.states import (
    Source,
    SourceNumbers,
    execution_key,
    pipeline,
    sink,
    write_backoffs,
    write_executions,
    write_pipelines,
    write_poll_times,
    write_rules,
    write_snapshots,
    write_sources,
)
from watcher.store.tables import WAITING, ZERO, delivery, is_sink, opens, problem, source
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
        _ahead.c.due_at + ZERO > bindparam("due"),
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

# Whom a silence kept an opening from needs no word of what follows, unless an earlier owner may have sent it.
_SINKS_OF = (
    select(delivery.c.sink_id, source.c.name)
    .join(source, source.c.id == delivery.c.sink_id)
    .join(events, events.c.id == delivery.c.number)
    .join(problem, opens(events, problem))
    .where(problem.c.id == bindparam("of_problem"), or_(delivery.c.state != DeliveryState.SILENCED, delivery.c.tried))
)


_BODIES = select(events.c.stream, events.c.sequence, events.c.body).where(
    events.c.stream == bindparam("of_stream"), events.c.sequence == bindparam("of_sequence")
)


class Outbox:
    """Writes events and their deliveries.

    Each event is recorded a little later than the one before, so a sink gets what is due in the order in which it was
    recorded.
    """

    def __init__(self, numbers: SourceNumbers) -> None:
        """Write nothing yet. `numbers` are those of sinks."""
        self.numbers = numbers
        self._next_at: Micros = NEVER

    def write(self, connection: Connection, emitted: Sequence[Emitted], *, now: Micros) -> set[str]:
        """Write them, recorded in this order, `now` or later; return the names of the sinks that got some."""
        if not emitted:
            return set()
        rows: list[dict[str, Any]] = []
        for recorded_at, (entry, about) in enumerate(emitted, max(now, self._next_at)):
            event = entry.event
            row: dict[str, Any] = {
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
            rows.append(row | about)
        self._next_at = Micros(rows[-1]["recorded_at"] + 1)
        _EVENT.run(connection, *rows)
        deliveries: list[dict[str, Any]] = []
        names: set[str] = set()
        for (entry, _), row in zip(emitted, rows, strict=True):
            names.update(entry.sinks)
            for name in entry.sinks:
                group = entry.groups.get(name)
                deliveries.append(_delivery_row(entry, self.numbers[sink(name)], group, row["recorded_at"], now=now))
            if entry.event.closes or entry.event.type is EventType.PROBLEM_ACKNOWLEDGED:
                if deliveries:  # its opening may be of this transaction
                    _DELIVERY.run(connection, *deliveries)
                    deliveries = []
                # A sink has been told of some problems twice.
                for other in dict.fromkeys(connection.execute(_SINKS_OF, {"of_problem": row["problem_id"]})):
                    if other.name not in entry.sinks:
                        more = _delivery_row(entry, other.sink_id, None, row["recorded_at"], now=now)
                        deliveries.append(more | {"only_closes": entry.event.closes})
                        names.add(other.name)
        if deliveries:
            _DELIVERY.run(connection, *deliveries)
        return names


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


Item = Change | Turn | PollTimes | BackoffChange | SnapshotChange


class GroupWork:
    """What is written together, sorted once: by kind, with its leases, its sources and how much it is."""

    def __init__(self, items: Iterable[Item]) -> None:
        """Sort these."""
        self.changes: list[tuple[SingleChange, Source, Source | None]] = []  # with whose it is, and of which pipeline
        self.of_kind: dict[type, list[Any]] = defaultdict(list)
        self.turns: list[Turn] = []
        self.leases: set[Lease] = set()
        self.sources: set[Source] = set()
        self.sinks: set[str] = set()  # that something is recorded for
        self.size = Writing.NOTHING
        for item in items:
            owner = Source(item.lease.kind, item.lease.name)
            self.leases.add(item.lease)
            self.sources.add(owner)
            if isinstance(item, Turn):
                self.turns.append(item)
                if item.backoff is not None:
                    self.of_kind[BackoffChange].append(BackoffChange(item.lease, item.backoff, item.clock_s))
                if item.attempts:
                    self.size = Writing.CHANGES
                elif item.calls_forward or item.backoff is not None:
                    self.size = max(self.size, Writing.A_LITTLE)
            elif isinstance(item, PollTimes | BackoffChange | SnapshotChange):
                self.of_kind[type(item)].append(item)
                self.size = max(self.size, Writing.A_LITTLE)
            else:
                self.size = Writing.CHANGES
                for change in item.changes if isinstance(item, ChangeSet) else (item,):
                    its_pipeline = None
                    if not isinstance(change, SourceChange):
                        name = change.known.pipeline if isinstance(change, ExecutionChange) else change.pipeline
                        its_pipeline = pipeline(owner.name, name)
                        self.sources.add(its_pipeline)
                    self.changes.append((change, owner, its_pipeline))
                    self.of_kind[type(change)].append(change)
                    for entry in change.entries:
                        self.sinks.update(entry.sinks)
                        self.sources.update(map(sink, entry.sinks))


def write_group(
    connection: Connection, work: GroupWork, *, outbox: Outbox, now: Micros
) -> tuple[set[str], dict[int, Taken]]:
    """Write all of it; return which sinks have something new to send, and what turns take, by their identity.

    Raises `SequenceConflictError` when a sequence is not the stored one: then none of it is to be kept.
    """
    of_kind, numbers = work.of_kind, outbox.numbers
    for kind, write in _WRITERS:
        if kind in of_kind:
            write(connection, of_kind[kind], numbers=numbers)
    if BackoffChange in of_kind:
        write_backoffs(connection, of_kind[BackoffChange], numbers=numbers, now=now)
    emitted: list[Emitted] = []
    problems: list[tuple[ProblemChange, dict[str, Any]]] = []
    for change, owner, its_pipeline in work.changes:
        about = {
            "source_id": numbers[owner],
            "pipeline_id": None if its_pipeline is None else numbers[its_pipeline],
            "execution": execution_key(change.known.execution) if isinstance(change, ExecutionChange) else None,
        }
        emitted += zip(change.entries, repeat(about))
        problems += zip(change.problems, repeat(about))
    if problems:
        write_problems(connection, problems)
    if SourceChange in of_kind:
        write_reminders(connection, of_kind[SourceChange], numbers=numbers)
    names = outbox.write(connection, emitted, now=now)
    settle(connection, work.turns, numbers=numbers, now=now)
    taken: dict[int, Taken] = {}
    for turn in work.turns:
        sink_id = numbers[sink(turn.lease.name)]
        if turn.messages:
            write_messages(connection, sink_id, turn.messages)
        if turn.calls_forward:
            connection.execute(CALL_FORWARD, {"of_sink": sink_id, "now": now})
        if turn.take is not None:
            taken[id(turn)] = take(connection, sink_id, name=turn.lease.name, request=turn.take)
    return names, taken


_WRITERS: Sequence[tuple[type, Callable[..., None]]] = (
    (ExecutionChange, write_executions),
    (PollTimes, write_poll_times),
    (SourceChange, write_sources),
    (PipelineChange, write_pipelines),
    (RulesChange, write_rules),
    (SnapshotChange, write_snapshots),
)
"""In the order in which rows are locked, so that two writers never wait for each other."""
