"""What is written together: changes, attempts, poll times and backoffs of one group, in one transaction."""

from collections.abc import Sequence

from sqlalchemy import Connection

from watcher.store import leases
from watcher.store.backoff_state import BackoffChange, write_backoffs
from watcher.store.cursors import write_pipelines
from watcher.store.deliveries import write_attempt_records
from watcher.store.executions import PollTimes, write_executions, write_poll_times, write_sources
from watcher.store.outbox import write_outgoing
from watcher.store.protocol import AttemptRecords, Change, ExecutionChange, PipelineChange, SourceChange
from watcher.store.source_ids import Source, SourceNumbers, pipeline, sink

Item = Change | AttemptRecords | PollTimes | BackoffChange


def sources_of(items: Sequence[Item]) -> set[Source]:
    """Return every source the items speak of."""
    found: set[Source] = set()
    for item in items:
        found.add(Source(item.lease.kind, item.lease.name))
        if isinstance(item, ExecutionChange):
            found.add(pipeline(item.lease.name, item.known.pipeline))
        if isinstance(item, PipelineChange):
            found.add(pipeline(item.lease.name, item.pipeline))
        if isinstance(item, Change):
            found.update(sink(name) for outgoing in item.entries for name in outgoing.sinks)
    return found


def write_group(connection: Connection, items: Sequence[Item], *, numbers: SourceNumbers, now: int) -> set[str]:
    """Write all of the items; return the names of the sinks that have something new to send.

    Raises `OwnershipLostError` when a lease is not the stored one, `SequenceConflictError` when a sequence is not: then
    none of them is to be kept.
    """
    leases.check(connection, {item.lease for item in items})
    changes = [item for item in items if isinstance(item, Change)]
    executions = [change for change in changes if isinstance(change, ExecutionChange)]
    sources = [change for change in changes if isinstance(change, SourceChange)]
    pipelines = [change for change in changes if isinstance(change, PipelineChange)]
    attempt_records = [item for item in items if isinstance(item, AttemptRecords)]
    write_executions(connection, executions, numbers=numbers)
    write_sources(connection, sources, numbers=numbers)
    write_pipelines(connection, pipelines, numbers=numbers)
    write_poll_times(connection, [item for item in items if isinstance(item, PollTimes)], numbers=numbers)
    write_backoffs(connection, _backoff_changes(items), numbers=numbers, now=now)
    sinks = write_outgoing(connection, changes, numbers=numbers, now=now)
    return sinks | write_attempt_records(connection, attempt_records, numbers=numbers, now=now)


def _backoff_changes(items: Sequence[Item]) -> list[BackoffChange]:
    """Return what is said of accounts and sinks themselves, in the order it was handed in."""
    return [
        BackoffChange(item.lease, item.backoff, item.clock_s)
        for item in items
        if isinstance(item, BackoffChange | AttemptRecords)
    ]
