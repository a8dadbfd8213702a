"""Writes a group of items in one transaction: changes with their events and deliveries, turns, and small writes."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from itertools import repeat
from operator import attrgetter, itemgetter
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter
from sqlalchemy import Connection, insert, text

from watcher.domain.errors import SequenceConflictError
from watcher.domain.event import Event, EventKey, EventType, OutboxEntry
from watcher.domain.history import EndedExecution
from watcher.domain.problems import ProblemChange
from watcher.domain.timestamps import NEVER, Micros
from watcher.domain.watch import Cursor
from watcher.store.changes import (
    About,
    BackoffState,
    Change,
    ChangeSet,
    Emitted,
    ExecutionChange,
    Lease,
    SingleChange,
    SourceChange,
    Taken,
    Turn,
)
from watcher.store.database import HotStatement
from watcher.store.deliveries import CALL_FORWARD, labels_text, settle, take
from watcher.store.history import count_ends
from watcher.store.leases import LocalLeases, PostgresLeases
from watcher.store.problems import write_messages, write_problems
from watcher.store.sources import Source, SourceNumbers, execution_key, pipeline, sink
from watcher.store.tables import OPENS, AnyRow, scan, unjudged_end
from watcher.store.tables import event as events


def _insert_into(table: str, names: Collection[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES (:{', :'.join(names)})"


# Executions

AS_KNOWN = ("sequence", "overdue_sequence", "overdue_at", "lost_at", "was_paused", "found_at", "started_at")
"""The columns of `execution` that have the same names as fields of `ExecutionRecord`."""
as_known = attrgetter(*AS_KNOWN)

_COMPACT = json.JSONEncoder(separators=(",", ":"))
_STATE = ("pipeline_id", "status", "since_at", "looked_at", "lost", "counts", "ended_at", "finished_at", *AS_KNOWN)
_ADD_EXECUTION = HotStatement(_insert_into("execution", ("account_id", "execution", "stream", *_STATE)))
_WRITE_EXECUTION = HotStatement(
    f"UPDATE execution SET {', '.join(f'{name} = :{name}' for name in _STATE)}, stream = coalesce(:stream, stream)"
    " WHERE account_id = :account_id AND execution = :execution AND sequence = :before"
)


def _write_executions(connection: Connection, changes: Iterable[tuple[ExecutionChange, About]]) -> None:
    """Write the states of executions. Raises `SequenceConflictError` if a stored sequence is not the expected one.

    If an execution that is expected to be new has a row, the database refuses its key. That is explained as the same
    error.
    """
    added: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    for change, about in changes:
        known = change.known
        row = {
            "before": change.before,
            "account_id": about["source_id"],
            "execution": about["execution"],
            "pipeline_id": about["pipeline_id"],
            "status": known.status,
            "since_at": known.since_at,
            "looked_at": known.polled_at,
            "ended_at": known.end_seen_at,
            "finished_at": known.ended_at,
            "lost": known.lost,
            "counts": _COMPACT.encode(dict(known.counts)),
            "stream": change.entries[0].event.stream if change.entries else None,
            **dict(zip(AS_KNOWN, as_known(known), strict=True)),
        }
        (added if change.before is None else changed).append(row)
    # Sorted by key, so that two writers cannot deadlock. The sort is stable: changes of one execution keep their order.
    key = itemgetter("account_id", "execution")
    if added:
        _ADD_EXECUTION.run(connection, *sorted(added, key=key))
    if changed and _WRITE_EXECUTION.run(connection, *sorted(changed, key=key)).rowcount != len(changed):
        raise _conflict()


def _conflict() -> SequenceConflictError:
    return SequenceConflictError("the store holds another sequence than its owner expected; the owner reloads")


# Accounts, sinks and pipelines

UNJUDGED_END = TypeAdapter(EndedExecution, config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))
CURSOR_FIELDS = tuple(field.name for field in fields(Cursor))  # each is also a column
_WRITE_SOURCE = text(
    "UPDATE source SET sequence = :new_sequence, state = :new_state, rules = coalesce(:new_rules, rules)"
    " WHERE id = :of_source AND sequence = :before"
)
FORGET_SCAN = text("DELETE FROM scan WHERE account_id = :account_id AND pipeline_id = :pipeline_id")
_WRITE_SCAN = insert(scan)
MARK_SOURCE = text("UPDATE source SET absent_since = :since WHERE id = :of_source")
FORGOTTEN_AFTER_US = 24 * 3600 * 1_000_000
"""Time without a watch after which a pipeline counts as new: its list is read as for a new watch."""

_ADD_UNJUDGED = insert(unjudged_end)
DELETE_UNJUDGED = text("DELETE FROM unjudged_end WHERE pipeline_id = :of_source")


def _write_sources(connection: Connection, changes: Iterable[tuple[SourceChange, About]]) -> None:
    """Write the states of accounts, sinks and pipelines. Only the last cursor of each pipeline is written."""
    rows: list[dict[str, Any]] = []
    scans: dict[int, dict[str, Any]] = {}
    for change, about in changes:
        source_id, pipeline_id = about["source_id"], about["pipeline_id"]
        row = {
            "of_source": source_id if pipeline_id is None else pipeline_id,
            "before": change.before,
            "new_sequence": change.sequence,
            "new_state": change.state,
            "new_rules": change.rules,
        }
        rows.append(row)
        if change.replaces_unjudged:
            connection.execute(DELETE_UNJUDGED, row)
        if change.unjudged:
            ends = {execution_key(each.execution): UNJUDGED_END.dump_json(each).decode() for each in change.unjudged}
            rows_of_ends = [{"pipeline_id": pipeline_id, "execution": key, "body": ends[key]} for key in sorted(ends)]
            connection.execute(_ADD_UNJUDGED, rows_of_ends)
        if change.cursor is not None:
            scans[pipeline_id] = {"account_id": source_id, "pipeline_id": pipeline_id, **asdict(change.cursor)}
    # Sorted, so that two writers cannot deadlock. The sort is stable: changes of one source keep their order.
    rows.sort(key=itemgetter("of_source"))
    if connection.execute(_WRITE_SOURCE, rows).rowcount != len(rows):
        raise _conflict()
    if scans:
        latest = [scans[pipeline_id] for pipeline_id in sorted(scans)]
        connection.execute(FORGET_SCAN, latest)
        connection.execute(_WRITE_SCAN, latest)


def is_forgotten(row: AnyRow, *, now: Micros) -> bool:
    """Return whether the pipeline of this row was absent for more than 24 h, so that it counts as new."""
    return row.absent_since is not None and now - row.absent_since > FORGOTTEN_AFTER_US


_WRITE_BACKOFF = HotStatement(
    "UPDATE source SET paused_until = :new_paused_until, failing_for_s = :new_failing_for_s,"
    " backoff_at = :now, clock_us = coalesce(:new_clock_us, clock_us) WHERE id = :of_source"
)


def write_backoff(
    connection: Connection, source_id: int, backoff: BackoffState, *, clock_s: float | None = None, now: Micros
) -> None:
    """Write the pause and the failing time of an account or a sink, and with `clock_s` also the sink's own clock."""
    row = {
        "of_source": source_id,
        "new_paused_until": None if backoff.pause_s is None else now + round(backoff.pause_s * 1e6),
        "new_failing_for_s": backoff.failing_for_s,
        "new_clock_us": None if clock_s is None else round(clock_s * 1e6),
        "now": now,
    }
    _WRITE_BACKOFF.run(connection, row)


def load_backoff(connection: Connection, row: AnyRow, *, now: Micros) -> BackoffState:
    """Return the pause and the failing time of a row of an account or a sink. The pause is the time that is left.

    If the clock was set back since they were written, the pause lasts as long as was wanted then.
    """
    pause_s = None if row.paused_until is None else (row.paused_until - max(now, row.backoff_at or NEVER)) / 1e6
    backoff = BackoffState(pause_s, row.failing_for_s)
    write_backoff(connection, row.id, backoff, now=now)
    return backoff


# Events and their deliveries

_EVENT = HotStatement(_insert_into("event", [column.name for column in events.c if column is not events.c.id]))

# A new delivery that is blocked by one with a later retry is due at that retry: otherwise each search for due
# deliveries would read all blocked ones. `+ 0` makes a database use the index of ordering keys instead of the index of
# all pending deliveries of the sink.
_DELIVERY = HotStatement(
    "INSERT INTO delivery (number, sink_id, ordering_key, group_key, only_closes, state, recorded_at, due_at) VALUES"
    " ((SELECT id FROM event WHERE stream = :stream AND sequence = :sequence), :sink_id, :ordering_key, :group_key,"
    " :only_closes, 'waiting', :recorded_at, coalesce((SELECT max(due_at) FROM delivery"
    " WHERE sink_id + 0 = :sink_id AND state = 'waiting' AND ordering_key = :ordering_key"
    " AND due_at + 0 > :due), :due))"
)

# Sinks at which the opening is silenced are included: their workers silence the later events of the problem until the
# opening is released.
_SINKS_OF = text(
    "SELECT delivery.sink_id, source.name, delivery.state = 'waiting' AND delivery.due_at > :now AS waits"
    f" FROM problem JOIN event ON {OPENS} JOIN delivery ON number = event.id"
    " JOIN source ON source.id = delivery.sink_id WHERE problem.id = :of_problem"
)

_BODY = text("SELECT body FROM event WHERE stream = :stream AND sequence = :sequence")


# Makes a deferred opening due when its problem is closed, and with it its acknowledgement, because neither they nor the
# closing have to wait any longer. An opening that waits for its group alone goes on to wait, and so does a retry.
# `:group_wait_us` is NULL at a sink that groups no problems. `+ 0` makes a database use the index of ordering keys.
_CALL_OPENING_FORWARD = text(
    "UPDATE delivery SET due_at = :now"
    " WHERE sink_id + 0 = :of_sink AND ordering_key = :ordering_key AND state = 'waiting'"
    " AND (group_key IS NULL OR due_at + 0 > recorded_at + :group_wait_us) AND due_at + 0 > :now"
    " AND EXISTS (SELECT 1 FROM event WHERE event.id = number AND problem_id = :of_problem)"
    " AND NOT EXISTS (SELECT 1 FROM delivery AS other"
    " WHERE other.sink_id + 0 = :of_sink AND other.ordering_key = :ordering_key"
    " AND other.state = 'waiting' AND other.tried = true)"
)


class Outbox:
    """Writes events and their deliveries. Each event gets a later time than the one before: no two times are equal."""

    def __init__(self, numbers: SourceNumbers) -> None:
        """Start without any event. `numbers` has the numbers of accounts, pipelines and sinks."""
        self.numbers = numbers
        self._next_at: Micros = NEVER

    def write(self, connection: Connection, emitted: Sequence[Emitted], *, now: Micros) -> set[str]:
        """Write events in this order, recorded at `now` or later; return the names of the sinks with new deliveries."""
        if not emitted:
            return set()
        rows = [
            about | _event_row(entry.event, recorded_at=recorded_at)
            for recorded_at, (entry, about) in enumerate(emitted, max(now, self._next_at))
        ]
        self._next_at = Micros(rows[-1]["recorded_at"] + 1)
        _EVENT.run(connection, *rows)
        deliveries: list[dict[str, Any]] = []
        names: set[str] = set()
        for (entry, _), row in zip(emitted, rows, strict=True):
            others: dict[str, int] = {}
            if entry.event.closes or entry.event.type is EventType.PROBLEM_ACKNOWLEDGED:
                if deliveries:  # the opening may be one of them
                    _DELIVERY.run(connection, *deliveries)
                    deliveries = []
                others = _other_sinks(connection, entry, now=now)
            names.update(entry.sinks, others)
            for name, sink_id in ({name: self.numbers[sink(name)] for name in entry.sinks} | others).items():
                group = entry.groups.get(name)
                delivery = {
                    "stream": entry.event.stream,
                    "sequence": entry.event.sequence,
                    "sink_id": sink_id,
                    "ordering_key": entry.event.ordering_key,
                    "group_key": None if group is None else group.key,
                    "only_closes": name in others and entry.event.closes,
                    "recorded_at": row["recorded_at"],
                    "due": now if group is None else row["recorded_at"] + round(group.wait_s * 1e6),
                }
                deliveries.append(delivery)
        if deliveries:
            _DELIVERY.run(connection, *deliveries)
        return names


def _event_row(event: Event, *, recorded_at: int) -> dict[str, Any]:
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


def _other_sinks(connection: Connection, entry: OutboxEntry, *, now: Micros) -> dict[str, int]:
    """Return the sinks, by name, that get an event only because they have a delivery of the opening of its problem.

    A closing makes the openings that still wait due at once, or with its group.
    """
    event = entry.event
    key = {"of_problem": event.problem and event.problem.bytes, "now": now}
    found = connection.execute(_SINKS_OF, key).all()  # a sink may have two openings of one problem
    for each in found:
        if event.closes and each.waits:
            group = entry.groups.get(each.name)
            wait_us = None if group is None else round(group.wait_s * 1e6)
            of_delivery = {"of_sink": each.sink_id, "ordering_key": event.ordering_key, "group_wait_us": wait_us}
            connection.execute(_CALL_OPENING_FORWARD, key | of_delivery)
    return {each.name: each.sink_id for each in found if each.name not in entry.sinks}


def load_events(connection: Connection, keys: Collection[EventKey]) -> dict[EventKey, bytes]:
    """Return the bodies of these events, except those that retention has deleted."""
    bodies = {key: connection.scalar(_BODY, key._asdict()) for key in keys}
    return {key: body for key, body in bodies.items() if body is not None}


_REMIND = text(
    "INSERT INTO reminder (problem_id, sink_id, reminded_at) VALUES (:of_problem, :of_sink, :at)"
    " ON CONFLICT (problem_id, sink_id) DO UPDATE SET reminded_at = excluded.reminded_at"
)


# A group of writes


class Writing(IntEnum):
    """The size of a write. A store that takes a small write may still refuse a larger one: its disk may be full."""

    NOTHING = 0
    A_LITTLE = 1
    CHANGES = 2


@dataclass(frozen=True, slots=True)
class SmallWrite:
    """A small piece of work under a lease, written in one transaction with other items."""

    lease: Lease
    write: Callable[[Connection], object]
    entries: ClassVar[Sequence[OutboxEntry]] = ()


Item = Change | Turn | SmallWrite


class GroupWork:
    """The items of a group, sorted by kind, with the leases, the sources and the size of the write."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.changes: list[tuple[SingleChange, Source, Source | None]] = []  # with account or sink, and pipeline
        self.small_writes: list[SmallWrite] = []
        self.turns: list[Turn] = []
        self.leases: set[Lease] = set()
        self.sources: set[Source] = set()
        self.size = Writing.NOTHING
        for item in items:
            owner = Source(item.lease.kind, item.lease.name)
            self.leases.add(item.lease)
            self.sources.add(owner)
            if isinstance(item, Turn):
                self.turns.append(item)
                if item.attempts:
                    self.size = Writing.CHANGES
                elif item.calls_forward or item.backoff is not None or (item.take and item.take.incidents):
                    self.size = max(self.size, Writing.A_LITTLE)
            elif isinstance(item, SmallWrite):
                self.small_writes.append(item)
                self.size = max(self.size, Writing.A_LITTLE)
            else:
                self.size = Writing.CHANGES
                for change in item.changes if isinstance(item, ChangeSet) else (item,):
                    its_pipeline = None
                    name = change.known.pipeline if isinstance(change, ExecutionChange) else change.pipeline
                    if name is not None:
                        its_pipeline = pipeline(owner.name, name)
                        self.sources.add(its_pipeline)
                    self.changes.append((change, owner, its_pipeline))
                    for entry in change.entries:
                        self.sources.update(map(sink, entry.sinks))


_NAME_OF_LEASE = attrgetter("lease.name")


def write_group(
    connection: Connection, work: GroupWork, *, outbox: Outbox, leases: LocalLeases | PostgresLeases | None, now: Micros
) -> tuple[set[str], dict[int, Taken]]:
    """Write a group; return the names of sinks to wake, and the deliveries that each turn took, by `id` of the turn.

    A sink is to be woken if it has new deliveries, and no turn in this group asked for deliveries of it. `leases` is
    `None` for a group that only reads: then no lease is checked. Raises `OwnershipLostError` if a lease is not valid,
    and `SequenceConflictError` if a stored sequence is not the expected one. After an error nothing may be committed.
    """
    if leases is not None:
        leases.check(connection, work.leases)
    numbers = outbox.numbers
    executions: list[tuple[ExecutionChange, About]] = []
    sources: list[tuple[SourceChange, About]] = []
    emitted: list[Emitted] = []
    problems: list[tuple[ProblemChange, About]] = []
    ended: list[tuple[int, EndedExecution]] = []
    for change, owner, its_pipeline in work.changes:
        its_number = None if its_pipeline is None else numbers[its_pipeline]
        about: About = {"source_id": numbers[owner], "pipeline_id": its_number, "execution": None}
        if isinstance(change, ExecutionChange):
            about["execution"] = execution_key(change.known.execution)
            executions.append((change, about))
            if change.ended is not None:
                ended.append((about["pipeline_id"], change.ended))
        else:
            sources.append((change, about))
        emitted += zip(change.entries, repeat(about))
        problems += zip(change.problems, repeat(about))
    # Rows are locked in this order, so that two writers cannot deadlock.
    if executions:
        _write_executions(connection, executions)
    if sources:
        _write_sources(connection, sources)
    if ended:
        count_ends(connection, ended)
    for small in work.small_writes:
        small.write(connection)
    for turn in sorted(work.turns, key=_NAME_OF_LEASE):
        if turn.backoff is not None:
            sink_id = numbers[sink(turn.lease.name)]
            write_backoff(connection, sink_id, turn.backoff, clock_s=turn.clock_s, now=now)
    if problems:
        write_problems(connection, problems)
    for changed, about in sources:
        if changed.reminders:
            key = {"of_sink": about["source_id"]}
            rows = [key | {"of_problem": each.bytes, "at": at} for each, at in changed.reminders.items()]
            connection.execute(_REMIND, rows)
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
            names.discard(turn.lease.name)  # its worker has just taken what was recorded for it
    return names, taken
