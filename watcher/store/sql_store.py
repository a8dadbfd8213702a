"""The store in an SQL database: what may be asked of it, and what goes into one transaction.

The statements are its neighbours'. A database's error comes out as a `StoreError`, and is noted by the monitor.
"""

import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from watcher.domain.delivery import Delivery, ProblemMessage
from watcher.domain.errors import StoreError
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.execution import ExecutionRecord
from watcher.domain.problems import ProblemChange
from watcher.domain.timestamps import NEVER, Micros, Monotonic, to_us
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.store import deliveries, groups, postgresql_leases, problems, recording, retention, sources
from watcher.store import executions as states
from watcher.store.changes import NO_BACKOFF, AttemptRecords, BackoffState, Change, Lease
from watcher.store.database import Database
from watcher.store.database_file import DatabaseFile
from watcher.store.group_commit import GroupWriter
from watcher.store.leases import MAINTENANCE
from watcher.store.monitor import StoreMonitor, Writing, write_probe
from watcher.store.protocol import Keep
from watcher.store.recording import Item, sources_of, write_group
from watcher.store.records import (
    AccountRecord,
    Backlog,
    Candidate,
    DueDeliveries,
    GroupPosition,
    Opening,
    OpenProblem,
    PipelineRecord,
    RulesRecord,
    SentOpening,
    SinkRecord,
)
from watcher.store.source_ids import Source, SourceNumbers
from watcher.store.source_ids import pipeline as pipeline_source
from watcher.store.sources import BackoffChange

T = TypeVar("T")
P = ParamSpec("P")
Work = Callable[[Connection], T]

POLL_TIMES_COUNT = 1_000
"""How many poll times are written at once: each is its own, and changes need not wait for all of them."""


class SqlStore:
    """State, events and deliveries in a database. Made by `open.open_store`."""

    def __init__(
        self,
        *,
        database: Database,
        database_file: DatabaseFile | None,
        created: bool,
        clock: Clock,
        on_recorded: Callable[[Collection[str]], None],
        resources: AsyncExitStack,
    ) -> None:
        """Start writing.

        `created` is kept for whoever warns of an empty store, `on_recorded` hears after a commit which sinks have
        something new to send, `resources` are let go of at the end.
        """
        self.created = created
        self.exclusive = database.exclusive
        self.ahead_us = database.ahead_us
        self.leases = database.leases(self._watched)
        self._database = database
        self._clock = clock
        self._monitor = StoreMonitor(database.where, explain=database.explain, clock=clock)
        self._numbers = SourceNumbers(database.write)
        self._closed = False
        self._well: set[Lease] = set()  # whose sinks are recorded as having no trouble
        self._epochs: dict[tuple[str, str], int] = {}  # of the leases, where this process alone uses the database
        self._database_file = database_file
        self._resources = resources
        self._on_recorded = on_recorded
        self._last_recorded_at = NEVER
        self._writing = Writing.CHANGES  # what the group is that is written now
        self._group = GroupWriter(
            write=self._write_group,
            explain=lambda error: self._monitor.failed(error, self._writing),
            on_written=on_recorded,
        )

    @property
    def failing_since(self) -> Monotonic | None:
        """Return since when nothing can be written (monotonic seconds); `None` while it can."""
        return self._monitor.failing_since

    def show_on(self, metrics: Metrics) -> None:
        """Have metrics say from now on whether it can be written."""
        metrics.store_up.set_function(lambda: self.failing_since is None)
        self._monitor.on_failure = metrics.store_failures.inc

    async def claim(self, kind: str, name: str) -> Lease:
        """Take ownership of an account, a sink or the maintenance, whoever had it before.

        The epoch is random, not a count: a count repeats after a lost commit.
        """
        lease = Lease(kind, name, secrets.randbits(62))
        if self.exclusive:
            self._epochs[kind, name] = lease.epoch
        else:
            await self._write(
                partial(postgresql_leases.claim, lease=lease, owner=f"{os.getpid()}@{socket.gethostname()}")
            )
        if kind != MAINTENANCE.kind:
            await self._provide(lease)
        return lease

    async def load_account(self, lease: Lease) -> AccountRecord:
        """Return what is recorded of the leased account itself."""
        await self._provide(lease)
        return await self._read_held(lease, sources.load_account, now=self._clock.steady_us())

    async def load_executions(self, lease: Lease, executions: Collection[str]) -> Mapping[str, ExecutionRecord]:
        """Return what is recorded of these executions of the leased account, by id.

        `since_at` and `polled_at` come back no later than now: a clock that was ahead has been set right since.
        """
        now = self._clock.steady_us()
        return await self._read_held(lease, states.load_executions, executions=executions, now=now)

    async def load_pipeline(self, lease: Lease, pipeline: str) -> PipelineRecord:
        """Return what is recorded of a pipeline of the leased account, which is watched whole (again).

        A cursor is gone once its pipeline was absent for more than 24 h; events go on from their sequence.
        """
        (pipeline_id,) = await self._pipeline_numbers(lease, [pipeline])
        now = self._clock.steady_us()
        return await self._write_held(lease, sources.load_pipeline, pipeline_id=pipeline_id, now=now)

    async def load_rules(self, lease: Lease, pipeline: str) -> RulesRecord:
        """Return what is recorded of the rules of a pipeline of the leased account."""
        (pipeline_id,) = await self._pipeline_numbers(lease, [pipeline])
        return await self._read_held(lease, sources.load_rules, pipeline_id=pipeline_id)

    async def load_events(self, keys: Collection[EventKey]) -> Mapping[EventKey, bytes]:
        """Return the bodies of these events, as far as they are there still."""
        return await self._read(partial(recording.load_events, keys=keys))

    async def load_open(self, lease: Lease, pipelines: Collection[str]) -> Sequence[ExecutionRecord]:
        """Return the executions of these pipelines of the leased account that have not ended. Times as above."""
        pipeline_ids = await self._pipeline_numbers(lease, pipelines)
        now = self._clock.steady_us()
        return await self._read(partial(states.load_open, pipeline_ids=pipeline_ids, now=now))

    async def load_sink(self, lease: Lease, *, fingerprint: str) -> SinkRecord:
        """Return what is recorded of the leased sink, which is present again.

        `fingerprint` stands for its block in the configuration: a change of it makes a disabled sink a failing one.
        What was recorded for it later than now, by a clock that was ahead, is due now.
        """
        await self._provide(lease)
        now = self._clock.steady_us()
        await self._write_held(lease, deliveries.call_forward, now=now)
        return await self._write_held(lease, sources.load_sink, fingerprint=fingerprint, now=now)

    async def record(self, change: Change) -> None:
        """Write a change, its events and their deliveries in one transaction."""
        await self._write_item(change)

    async def save_poll_times(self, lease: Lease, polled_at: Mapping[str, Micros]) -> None:
        """Keep when unchanged executions were last polled: execution to microseconds UTC, steady."""
        poll_times = list(polled_at.items())
        for start in range(0, len(poll_times), POLL_TIMES_COUNT):
            await self._write_item(states.PollTimes(lease, dict(poll_times[start : start + POLL_TIMES_COUNT])))

    async def save_backoff(self, lease: Lease, backoff: BackoffState) -> None:
        """Keep what the leased account is going through."""
        await self._write_item(BackoffChange(lease, backoff))

    async def save_sink_state(self, lease: Lease, backoff: BackoffState, *, clock_s: float) -> None:
        """Keep what the leased sink is going through, and its own clock, between two attempt records."""
        await self._write_item(BackoffChange(lease, backoff, clock_s))

    async def next_deliveries(
        self, lease: Lease, *, now: Micros, limit: int, skip: Collection[bytes] = ()
    ) -> DueDeliveries:
        """Return what the leased sink may be sent at `now`, leaving out the streams in `skip` (in flight).

        The worker asks its lease before it sends them; to settle them fails under a lease that is not the stored one.
        """
        return await self._read_held(
            lease, deliveries.next_deliveries, name=lease.name, now=now, limit=limit, skip=skip
        )

    async def next_trial(
        self, lease: Lease, *, now: Micros, skip: Collection[bytes] = (), never_tried: bool = False
    ) -> Delivery | None:
        """Return what is to show whether the leased sink works again, leaving out the streams in `skip`.

        The first that is due and was never tried; else, unless it has to be `never_tried`, of those with the fewest
        steps the one that was tried longest ago, due or not.
        """
        return await self._read_held(
            lease, deliveries.next_trial, name=lease.name, now=now, skip=skip, never_tried=never_tried
        )

    async def give_up(
        self, lease: Lease, *, now: Micros, clock_s: float, after_s: float, skip: Collection[bytes] = ()
    ) -> int:
        """Note what is first due now; make dead letters of what was first due `after_s` ago on the sink's own clock.

        Streams in `skip` are left alone. Returns how many died.
        """
        clock_us, after_us = round(clock_s * 1e6), round(after_s * 1e6)
        return await self._write_held(
            lease, deliveries.give_up, now=now, clock_us=clock_us, after_us=after_us, skip=skip
        )

    async def settle(self, attempt_records: AttemptRecords) -> None:
        """Write how attempts ended. Later deliveries of the same stream come due no earlier than this one."""
        await self._write_item(attempt_records)

    async def mark_absent_sinks(
        self, lease: Lease, *, present: Collection[str], now: Micros, dead_after_us: int
    ) -> int:
        """Note which sinks are no longer configured; those absent for `dead_after_us` have their deliveries made dead.

        Returns how many died.
        """
        absent = await self._tidy(lease, partial(retention.mark_absent_sinks, present=present, now=now))
        died_count = 0
        for sink_id in (sink_id for sink_id, since in absent.items() if since <= now - dead_after_us):
            expire = partial(retention.expire_deliveries, sink_id=sink_id, now=now)
            while count := await self._tidy(lease, expire):
                died_count += count
        return died_count

    async def close_problems(self, lease: Lease, closings: Sequence[tuple[OutboxEntry, ProblemChange]]) -> int:
        """Close problems whose owner does so no more, each with its event, but those that are closed by now.

        Returns how many.
        """

        def close(connection: Connection) -> tuple[int, set[str]]:
            emitted, times = problems.close_problems(connection, closings), self._times()
            names = recording.write_outbox(connection, emitted, numbers=self._numbers, times=times)
            self._last_recorded_at = times.next_at
            return len(emitted), names

        count, names = await self._tidy(lease, close)
        self._on_recorded(names)
        return count

    async def forget_rules(self, lease: Lease, *, present: Collection[tuple[str, str]]) -> None:
        """Forget what rules went by of all pipelines but these, as (account, pipeline)."""
        await self._tidy(lease, partial(sources.forget_rules, present=present))

    async def mark_absent_pipelines(self, lease: Lease, *, present: Collection[tuple[str, str]], now: Micros) -> None:
        """Note which pipelines are watched whole no more; `present` are those that are, as (account, pipeline)."""
        await self._tidy(lease, partial(sources.mark_absent_pipelines, present=present, now=now))

    async def prune(self, lease: Lease, *, ended_before: Micros, keep: Keep) -> AsyncIterator[int]:
        """Delete what ended before that moment: settled deliveries, events with none waiting, executions.

        `keep` says whose id must stay behind. In short transactions, one at each step, which yields the number of
        executions whose events went with it.
        """
        prune_executions = partial(retention.prune_executions, keep=keep)
        for prune in (retention.prune_source_events, prune_executions, retention.prune_problems):
            after: retention.Position | None = retention.FIRST
            while after is not None:
                gone_count, after = await self._tidy(lease, partial(prune, before=ended_before, after=after))
                yield gone_count

    async def ungrouped(self, lease: Lease, *, now: Micros, after: GroupPosition, limit: int) -> Sequence[Candidate]:
        """Return what of the leased sink is due after that position, was never tried and is in no group yet."""
        return await self._read_held(lease, groups.ungrouped, name=lease.name, now=now, after=after, limit=limit)

    async def fix_groups(self, lease: Lease, fixed: Collection[tuple[UUID, Collection[EventKey]]]) -> None:
        """Have these go together from now on, as far as they wait and are in no group."""
        await self._write_held(lease, groups.fix_groups, groups=fixed)

    async def next_groups(
        self, lease: Lease, *, now: Micros, limit: int, skip: Collection[bytes] = ()
    ) -> DueDeliveries:
        """Return what stands for each group that may be sent, leaving out the groups and streams in `skip`.

        What was tried before its sink had groups is a group of its own, and has no `group_id`.
        """
        return await self._read_held(lease, groups.next_groups, name=lease.name, now=now, limit=limit, skip=skip)

    async def next_group_trial(
        self, lease: Lease, *, now: Micros, skip: Collection[bytes] = (), never_tried: bool = False
    ) -> Delivery | None:
        """Return what stands for the group that is to show whether the leased sink works again, as `next_trial`."""
        return await self._read_held(
            lease, groups.next_group_trial, name=lease.name, now=now, skip=skip, never_tried=never_tried
        )

    async def group_members(self, lease: Lease, group_id: UUID) -> Sequence[Delivery]:
        """Return all that waits in a group of the leased sink, in the order it was recorded."""
        return await self._read_held(lease, groups.members, name=lease.name, group_id=group_id)

    async def silence(self, lease: Lease, events: Collection[EventKey], *, now: Micros, owned_from: Micros) -> None:
        """Settle as silenced what waits of these for the leased sink, which is served under this lease since then.

        What was recorded before that counts as tried: whoever served it may have been killed while sending it.
        """
        await self._write_held(lease, deliveries.silence, keys=events, now=now, owned_from=owned_from)

    async def silenced_openings(self, lease: Lease) -> Sequence[Delivery]:
        """Return the openings of open problems that a silence kept from the leased sink."""
        return await self._read_held(lease, deliveries.silenced_openings, name=lease.name)

    async def release_silenced(self, lease: Lease, events: Collection[EventKey], *, now: Micros) -> None:
        """Have what was silenced of these wait again."""
        await self._write_held(lease, deliveries.release, keys=events, now=now)

    async def sent_openings(self, lease: Lease, *, closed_from: datetime | None = None) -> Sequence[SentOpening]:
        """Return the open problems whose opening the leased sink took, and those closed since that moment, if given."""
        from_us = None if closed_from is None else to_us(closed_from)
        return await self._read_held(lease, problems.sent_openings, closed_from=from_us)

    async def openings(self, lease: Lease, problem_ids: Collection[UUID]) -> Mapping[UUID, Opening]:
        """Return how the openings of these problems stand at the leased sink, without problems that are not there."""
        return await self._read_held(lease, problems.openings, ids=problem_ids)

    async def messages_of_problems(self, lease: Lease, problem_ids: Collection[UUID]) -> Mapping[UUID, ProblemMessage]:
        """Return the messages of these problems in the leased sink, of those that have one."""
        return await self._read_held(lease, problems.messages_of_problems, ids=problem_ids)

    async def messages_of_failing(
        self, lease: Lease, pipelines: Collection[tuple[str, str]]
    ) -> Mapping[tuple[str, str], ProblemMessage]:
        """Return the leased sink's messages of open `pipeline.failing` problems of these, by account and pipeline."""
        return await self._read_held(lease, problems.messages_of_failing, pipelines=pipelines)

    async def put_off(self, lease: Lease, due_at: Mapping[EventKey, Micros]) -> None:
        """Have what waits of these for the leased sink come due at those times."""
        await self._write_held(lease, deliveries.put_off, due_at=due_at)

    async def replay(self, sink: str, event: EventKey) -> bool:
        """Have a dead letter wait again. Return `False`, with nothing changed, if it is none: it may wait already."""
        now = self._clock.steady_us()
        was_dead = await self._write(partial(deliveries.replay, name=sink, event=event, now=now))
        if was_dead:
            self._on_recorded([sink])
        return was_dead

    async def replay_all(self, sink: str) -> int:
        """Have all dead letters of a sink wait again; return how many."""
        count, begun_at = 0, self._clock.steady_us()  # not what dies again meanwhile
        while True:
            again = partial(deliveries.replay_some, name=sink, now=self._clock.steady_us(), died_until=begun_at)
            if not (some_count := await self._write(again)):
                return count
            count += some_count
            self._on_recorded([sink])

    async def check_database_file(self) -> None:
        """Raise `StoreUnusableError` if what is written now will not be found by the next start."""
        if self._database_file is not None:
            self._database_file.check()

    def use_password(self, password: str | None) -> None:
        """Log in to the database with it from the next connection on, where there is a login."""
        self._database.use_password(password)

    async def probe_writable(self) -> None:
        """Write something of no meaning, durably, as any other write."""
        await self._write(partial(write_probe, now=self._clock.steady_us()))
        self._monitor.check()

    def check_hang(self) -> None:
        """Log it, once, if the store hangs. To be called every few seconds."""
        self._monitor.check_hang()

    async def backlog(self) -> Mapping[str, Backlog]:
        """Return what waits, by sink."""
        return await self._read(deliveries.backlog)

    async def count_open_problems(self) -> Mapping[EventType, int]:
        """Return how many problems are open, by kind."""
        return await self._read(problems.count_open_problems)

    async def open_problems(self, *, after: UUID | None = None) -> Sequence[OpenProblem]:
        """Return a page of the open problems."""
        return await self._read(partial(problems.open_problems, after=after))

    async def close(self) -> None:
        """Finish what was handed in, then let go of the files."""
        self._closed = True
        await self._group.close()
        await self._resources.aclose()

    async def _provide(self, lease: Lease) -> None:
        """Give a number to what is leased, if it has none."""
        await self._watched(partial(self._numbers.provide, {Source(lease.kind, lease.name)}))

    async def _pipeline_numbers(self, lease: Lease, pipelines: Collection[str]) -> list[int]:
        wanted = {pipeline_source(lease.name, pipeline) for pipeline in pipelines}
        await self._watched(partial(self._numbers.provide, wanted))
        return sorted(self._numbers[each] for each in wanted)

    async def _write_group(self, items: Sequence[Item]) -> Collection[str]:
        is_little = all(isinstance(item, states.PollTimes | BackoffChange) for item in items)
        self._writing = Writing.A_LITTLE if is_little else Writing.CHANGES
        await self._numbers.provide(sources_of(items))

        def write(connection: Connection) -> set[str]:
            self._check_held(connection, {item.lease for item in items})
            times = self._times()
            names = write_group(connection, items, numbers=self._numbers, times=times, well=self._well)
            self._last_recorded_at = times.next_at
            return names

        with self._monitor.asking():
            emitted = await self._database.write(write)
        self._monitor.worked(self._writing)
        for item in items:
            if isinstance(item, AttemptRecords | BackoffChange):
                (self._well.add if item.backoff == NO_BACKOFF else self._well.discard)(item.lease)
        return emitted

    def _times(self) -> recording.OutboxTimes:
        """Return when a transaction's events are recorded: later than those of the one before, which is done."""
        now = self._clock.steady_us()
        return recording.OutboxTimes(now, max(now, self._last_recorded_at))

    async def _write_item(self, item: Item) -> None:
        self._check_open()
        await self._group.write(item)

    def _number(self, lease: Lease) -> int:
        return self._numbers[Source(lease.kind, lease.name)]

    async def _write(self, work: Work[T]) -> T:
        return await self._watched(partial(self._database.write, work), Writing.A_LITTLE)

    async def _read(self, work: Work[T]) -> T:
        return await self._watched(partial(self._database.read, work))

    async def _tidy(self, lease: Lease, work: Work[T]) -> T:
        """Do it unless another process owns the leased by now, or comes to own it before it is committed."""

        def write(connection: Connection) -> T:
            self._check_held(connection, [lease])
            return work(connection)

        return await self._write(write)

    async def _write_held(
        self, lease: Lease, work: Callable[Concatenate[Connection, int, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do it, with the number of what is leased, unless another process owns that as above."""
        number = self._number(lease)
        return await self._tidy(lease, lambda connection: work(connection, number, *args, **kwargs))

    async def _read_held(
        self, lease: Lease, work: Callable[Concatenate[Connection, int, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do it, with the number of what is leased.

        In PostgreSQL another owner shows in the writes only: to look at each read would cost a round trip.
        """
        self._check_epochs([lease])
        number = self._number(lease)
        return await self._read(lambda connection: work(connection, number, *args, **kwargs))

    def _check_held(self, connection: Connection, held: Iterable[Lease]) -> None:
        if self.exclusive:
            self._check_epochs(held)
        else:
            postgresql_leases.check(connection, held)

    def _check_epochs(self, held: Iterable[Lease]) -> None:
        for lease in held:
            if self.exclusive and self._epochs.get((lease.kind, lease.name)) != lease.epoch:
                raise postgresql_leases.lost(lease)

    async def _watched(self, ask: Callable[[], Awaitable[T]], writing: Writing = Writing.NOTHING) -> T:
        self._check_open()
        try:
            with self._monitor.asking():
                result = await ask()
        except SQLAlchemyError as error:
            fault = self._monitor.failed(error, writing)
        else:
            self._monitor.worked(writing)
            return result
        raise fault.error()  # outside the clause, so that the text of the database's error does not come along

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")
