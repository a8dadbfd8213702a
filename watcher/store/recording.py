"""What is written together, in one transaction: changes with their events and deliveries, attempts, and the rest."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from itertools import repeat
from operator import attrgetter, itemgetter
from typing import Any, ClassVar

from pydantic import TypeAdapter
from sqlalchemy import Connection, insert, text

from watcher.domain.errors import SequenceConflictError
from watcher.domain.event import EventKey, EventType, Group, OutboxEntry
from watcher.domain.history import EndedExecution
from watcher.domain.problems import ProblemChange
from watcher.domain.rules import RuleState
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
from watcher.store.deliveries import CALL_FORWARD, EARLIER, labels_text, settle, take
from watcher.store.history import count_ends
from watcher.store.leases import LocalLeases, PostgresLeases
from watcher.store.problems import write_messages, write_problems
from watcher.store.sources import Source, SourceNumbers, execution_key, pipeline, sink
from watcher.store.tables import OPENS, AnyRow, scan, unjudged_end
from watcher.store.tables import event as events


def _insert_into(table: str, names: Collection[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES (:{', :'.join(names)})"


# Executions

AS_KNOWN = (
    *("sequence", "overdue_sequence", "overdue_at", "lost_at"),
    *("ended_at", "was_paused", "found_at", "finished_at", "started_at"),
)
"""Columns of an execution that hold what the field of that name does."""
as_known = attrgetter(*AS_KNOWN)

_COMPACT = json.JSONEncoder(separators=(",", ":"))
_STATE = ("pipeline_id", "status", "since_at", "looked_at", "lost", "counts", *AS_KNOWN)
_ADD_EXECUTION = HotStatement(_insert_into("execution", ("account_id", "execution", "stream", *_STATE)))
_WRITE_EXECUTION = HotStatement(
    f"UPDATE execution SET {', '.join(f'{name} = :{name}' for name in _STATE)}, stream = coalesce(:stream, stream)"
    " WHERE account_id = :account_id AND execution = :execution AND sequence = :before"
)


def _write_executions(connection: Connection, changes: Iterable[tuple[ExecutionChange, About]]) -> None:
    """Write executions; a new one that has a row by now fails on its key, which means the same as a wrong `before`."""
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
            "lost": known.lost,
            "counts": _COMPACT.encode(dict(known.counts)),
            "stream": change.entries[0].event.stream if change.entries else None,
            **dict(zip(AS_KNOWN, as_known(known), strict=True)),
        }
        (added if change.before is None else changed).append(row)
    # Sorted by key, so that two writers never wait for each other; stable, so one execution's changes keep their order.
    key = itemgetter("account_id", "execution")
    if added:
        _ADD_EXECUTION.run(connection, *sorted(added, key=key))
    if changed and _WRITE_EXECUTION.run(connection, *sorted(changed, key=key)).rowcount != len(changed):
        raise _conflict()


def _conflict() -> SequenceConflictError:
    return SequenceConflictError("the store holds another sequence than its owner believes, who begins anew")


# Accounts, sinks and pipelines

RULE_STATE = TypeAdapter(RuleState)
CURSOR_FIELDS = tuple(field.name for field in fields(Cursor))  # each has a column of its name
_WRITE_SOURCE = text(
    "UPDATE source SET sequence = :new_sequence, state = :new_state, rules = coalesce(:new_rules, rules)"
    " WHERE id = :of_source AND sequence = :before"
)
FORGET_SCAN = text("DELETE FROM scan WHERE account_id = :account_id AND pipeline_id = :pipeline_id")
_WRITE_SCAN = insert(scan)
MARK_SOURCE = text("UPDATE source SET absent_since = :since WHERE id = :of_source")
FORGOTTEN_AFTER_US = 24 * 3600 * 1_000_000
"""A pipeline absent for longer is read anew when it returns: by then it is another beginning, no interruption."""

_WAIT = insert(unjudged_end)
JUDGED = text("DELETE FROM unjudged_end WHERE pipeline_id = :of_source")


def _write_sources(connection: Connection, changes: Iterable[tuple[SourceChange, About]]) -> None:
    """Of how far the lists of a pipeline are read the last stays."""
    rows: list[dict[str, Any]] = []
    scans: dict[int, dict[str, Any]] = {}
    for change, about in changes:
        source_id, pipeline_id = about["source_id"], about["pipeline_id"]
        row = {
            "of_source": source_id if pipeline_id is None else pipeline_id,
            "before": change.before,
            "new_sequence": change.sequence,
            "new_state": change.state,
            "new_rules": None if change.rules is None else RULE_STATE.dump_json(change.rules).decode(),
        }
        rows.append(row)
        if change.judges_all:
            connection.execute(JUDGED, row)
        if change.unjudged:
            ends = sorted((execution_key(name), *end) for name, end in change.unjudged)
            names = ("pipeline_id", "execution", "ended_at", "failed")
            connection.execute(_WAIT, [dict(zip(names, (pipeline_id, *end), strict=True)) for end in ends])
        if change.cursor is not None:
            scans[pipeline_id] = {"account_id": source_id, "pipeline_id": pipeline_id, **asdict(change.cursor)}
    # Sorted, so that two writers never wait for each other; stable, so the changes of each keep their order.
    rows.sort(key=itemgetter("of_source"))
    if connection.execute(_WRITE_SOURCE, rows).rowcount != len(rows):
        raise _conflict()
    if scans:
        latest = [scans[pipeline_id] for pipeline_id in sorted(scans)]
        connection.execute(FORGET_SCAN, latest)
        connection.execute(_WRITE_SCAN, latest)


def is_forgotten(row: AnyRow, *, now: Micros) -> bool:
    """Return whether a pipeline with that `absent_since` has been absent for so long that it begins anew."""
    return row.absent_since is not None and now - row.absent_since > FORGOTTEN_AFTER_US


_WRITE_BACKOFF = HotStatement(
    "UPDATE source SET paused_until = :new_paused_until, failing_for_s = :new_failing_for_s,"
    " clock_us = coalesce(:new_clock_us, clock_us) WHERE id = :of_source"
)


def write_backoff(
    connection: Connection, source_id: int, backoff: BackoffState, *, clock_s: float | None = None, now: Micros
) -> None:
    """Keep what an account or a sink is going through; of a sink also its own clock, if that is given."""
    row = {
        "of_source": source_id,
        "new_paused_until": None if backoff.pause_s is None else now + round(backoff.pause_s * 1e6),
        "new_failing_for_s": backoff.failing_for_s,
        "new_clock_us": None if clock_s is None else round(clock_s * 1e6),
    }
    _WRITE_BACKOFF.run(connection, row)


def backoff_of(row: AnyRow, *, now: Micros) -> BackoffState:
    """Return what an account or a sink was going through, its pause as of `now`: time went on meanwhile."""
    pause_s = None if row.paused_until is None else (row.paused_until - now) / 1e6
    return BackoffState(pause_s, row.failing_for_s)


# Events and their deliveries

_EVENT = HotStatement(_insert_into("event", [column.name for column in events.c if column is not events.c.id]))

# A follower of a delivery that waits for its next attempt comes due with it, not before: else every search for what is
# due would pass over all that is held back. With "+ 0" a database does not go by the index of all that is due.
_DELIVERY = HotStatement(
    "INSERT INTO delivery (number, sink_id, lane, group_key, only_closes, state, recorded_at, due_at) VALUES"
    " ((SELECT id FROM event WHERE stream = :stream AND sequence = :sequence), :sink_id, :lane, :group_key,"
    " :only_closes, 'waiting', :recorded_at, coalesce((SELECT max(due_at) FROM delivery"
    " WHERE sink_id + 0 = :sink_id AND state = 'waiting' AND lane = :lane AND due_at + 0 > :due), :due))"
)

# A sink whose opening is silenced is among them: the worker silences what follows, until the opening is released.
_SINKS_OF = text(
    "SELECT delivery.sink_id, source.name, delivery.state = 'waiting' AND delivery.due_at > :now AS waits"
    f" FROM problem JOIN event ON {OPENS} JOIN delivery ON number = event.id"
    " JOIN source ON source.id = delivery.sink_id WHERE problem.id = :of_problem"
)

_BODY = text("SELECT body FROM event WHERE stream = :stream AND sequence = :sequence")


# What keeps an opening waiting is over: neither it nor its closing is to wait for longer.
_CALL_OPENING = text(
    "UPDATE delivery SET due_at = :now WHERE lane = :lane AND state = 'waiting' AND tried = false"
    f" AND group_key IS NULL AND due_at + 0 > :now AND coalesce({EARLIER}, 0) <= 0"
)


class Outbox:
    """Writes events, each recorded a little later than the one before, so that they have an order, and deliveries."""

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
            row = {
                **about,
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
            rows.append(row)
        self._next_at = Micros(rows[-1]["recorded_at"] + 1)
        _EVENT.run(connection, *rows)
        deliveries: list[dict[str, Any]] = []
        names: set[str] = set()
        for (entry, _), row in zip(emitted, rows, strict=True):
            others: dict[str, int] = {}  # sinks that get it only because they got the opening
            if entry.event.closes or entry.event.type is EventType.PROBLEM_ACKNOWLEDGED:
                if deliveries:  # its opening may be of this transaction
                    _DELIVERY.run(connection, *deliveries)
                    deliveries = []
                key = {"of_problem": row["problem_id"], "now": now}
                found = connection.execute(_SINKS_OF, key).all()  # a sink has been told of some problems twice
                others = {each.name: each.sink_id for each in found if each.name not in entry.sinks}
                if entry.event.closes and any(each.waits for each in found):
                    connection.execute(_CALL_OPENING, {"lane": entry.event.lane, "now": now})
            names.update(entry.sinks, others)
            for name in entry.sinks:
                group = entry.groups.get(name)
                deliveries.append(_delivery_row(entry, self.numbers[sink(name)], group, row["recorded_at"], now=now))
            for sink_id in others.values():
                more = _delivery_row(entry, sink_id, None, row["recorded_at"], now=now)
                deliveries.append(more | {"only_closes": entry.event.closes})
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
    bodies = {key: connection.scalar(_BODY, key._asdict()) for key in keys}
    return {key: body for key, body in bodies.items() if body is not None}


_REMIND = text(
    "INSERT INTO reminder (problem_id, sink_id, reminded_at) VALUES (:of_problem, :of_sink, :at)"
    " ON CONFLICT (problem_id, sink_id) DO UPDATE SET reminded_at = excluded.reminded_at"
)


# A group


class Writing(IntEnum):
    """How much is written: where a small write passes, changes need not."""

    NOTHING = 0
    A_LITTLE = 1
    CHANGES = 2


@dataclass(frozen=True, slots=True)
class SmallWrite:
    """Something small under a lease, which is written with what comes together with it."""

    lease: Lease
    write: Callable[[Connection], object]
    entries: ClassVar[Sequence[OutboxEntry]] = ()


Item = Change | Turn | SmallWrite


class GroupWork:
    """What is written together, sorted once: with its leases, its sources and how much it is."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.changes: list[tuple[SingleChange, Source, Source | None]] = []  # with whose it is, and of which pipeline
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
    connection: Connection,
    work: GroupWork,
    *,
    outbox: Outbox,
    leases: LocalLeases | PostgresLeases | None,
    now: Micros,
) -> tuple[set[str], dict[int, Taken]]:
    """Write all of it; return the sinks for which new deliveries wait that no turn took, and what turns take, by `id`.

    Without `leases` nothing is written, so no lease has to be valid. Raises `OwnershipLostError` when one is not, and
    `SequenceConflictError` when a sequence is not the stored one: then none of it is to be kept.
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
        about: About = {
            "source_id": numbers[owner],
            "pipeline_id": None if its_pipeline is None else numbers[its_pipeline],
            "execution": None,
        }
        if isinstance(change, ExecutionChange):
            about["execution"] = execution_key(change.known.execution)
            executions.append((change, about))
            if change.ended is not None:
                ended.append((about["pipeline_id"], change.ended))
        else:
            sources.append((change, about))
        emitted += zip(change.entries, repeat(about))
        problems += zip(change.problems, repeat(about))
    # In this order rows are locked, so that two writers never wait for each other.
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
            names.discard(turn.lease.name)
    return names, taken
