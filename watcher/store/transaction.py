"""What is written together: changes, attempts, poll times and backoffs of one group, in one transaction."""

from collections.abc import Sequence

from sqlalchemy import Connection

from watcher.store import leases
from watcher.store.changes import (
    AttemptRecords,
    Change,
    ChangeSet,
    ExecutionChange,
    PipelineChange,
    RulesChange,
    SingleChange,
    SourceChange,
)
from watcher.store.cursors import write_pipelines
from watcher.store.deliveries import write_attempt_records
from watcher.store.executions import PollTimes, write_executions, write_poll_times
from watcher.store.outbox import Emitted, OutboxTimes, about, write_outbox
from watcher.store.problem_messages import write_messages
from watcher.store.problems import write_problems
from watcher.store.rules import write_rules
from watcher.store.sent_problems import write_reminders
from watcher.store.source_ids import Source, SourceNumbers, pipeline, sink
from watcher.store.source_states import BackoffChange, write_backoffs, write_sources

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
    connection: Connection, items: Sequence[Item], *, numbers: SourceNumbers, times: OutboxTimes
) -> set[str]:
    """Write all of the items; return the names of the sinks that have something new to send.

    Raises `OwnershipLostError` when a lease is not the stored one, `SequenceConflictError` when a sequence is not: then
    none of them is to be kept.
    """
    leases.check(connection, {item.lease for item in items})
    changes, now = changes_of(items), times.now
    records = [item for item in items if isinstance(item, AttemptRecords)]
    backoffs = [
        BackoffChange(item.lease, item.backoff, item.clock_s)
        for item in items
        if isinstance(item, BackoffChange | AttemptRecords)
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
