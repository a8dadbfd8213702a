"""The records and logs of one sink: its attempts, events about it, dead letters, and its snapshot."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

import structlog

from watcher.delivery.retries import Unsettled
from watcher.delivery.sink_state import DISABLED, SinkState, WorkerDependencies
from watcher.domain.delivery import AttemptRecord, DeliveryState
from watcher.domain.envelope import Json, sink_source
from watcher.domain.event import EventType, OutboxEntry
from watcher.domain.event_factory import Reported
from watcher.domain.problems import Problem, ProblemChange, SentOpening
from watcher.domain.snapshots import SinkSnapshot
from watcher.domain.timestamps import EARLIEST, LATEST, Micros, Monotonic
from watcher.sinks.protocol import SendOutcome, SendResult
from watcher.store.changes import SinkRecord, SourceChange

DEAD_EVERY_S = 60.0
"""The shortest time between two `delivery.dead` events about one sink."""

WARNED_EVERY_S = 300.0
"""The shortest time between two warnings about a sink that takes some deliveries and not others."""

GIVE_UP_EVERY_S = 60.0
GIVE_UP_SHARE = 0.05
"""Interval of the search for deliveries older than `give_up_after`: a minute, or 5 % of `give_up_after` if that is
less."""

ALIVE_EVERY_S = 30.0
"""Interval at which an unchanged snapshot is saved again, to show that the sink has an owner."""

log = structlog.get_logger()


class SinkReporter:
    """Records and logs what happens to one sink: attempts, its `state`, dead letters, reminders, its snapshot.

    Changes of its state and dead letters become events for the other sinks. `reported` is the state that was last
    recorded. `report_dead` is due at `report_dead_at` (monotonic seconds).
    """

    def __init__(self, state: SinkState, record: SinkRecord, deps: WorkerDependencies) -> None:
        """Start with the recorded state. Log a warning if the sink is disabled."""
        self.state = state
        self._name = deps.store.lease.name
        self._deps = deps
        self.reported, self._sequence, self._problem = record.state, record.sequence, record.problem
        self._dead_reported_until = record.dead_from
        self._remedies: dict[str, str] = {}  # by answer
        self._in_trouble = False  # since a failure that was logged as a warning, until the next success
        self._quiet_until = EARLIEST
        self._give_up_at = EARLIEST
        self._snapshot: tuple[Monotonic, SinkSnapshot | None] = EARLIEST, None
        self._note_dead()  # a killed process may not have reported its last dead letters
        deps.metrics.up.set(record.state is None)
        if state.state == DISABLED:
            note = "it answered 410 Gone, so deliveries wait; enable it, or change its block in the configuration"
            log.warning("sink.disabled", sink=self._name, note=note)

    async def report(self) -> None:
        """Record a change of the sink's state, as an event for the other sinks. Raises `StoreError`."""
        state, answer = self.state.state, self.state.answer
        type_ = EventType(f"sink.{state or 'recovered'}")
        entry, problem = self._event(type_, {"answer": answer}, self._problem)
        await self._record(entry, state, {}, *filter(None, [problem]))
        self.reported = state
        self._problem = problem.problem if problem is not None and state else None
        self._deps.metrics.report_state(well=state is None, answer=answer)
        (log.info if state is None else log.warning)(type_.value, sink=self._name, answer=answer)

    async def remind(self, openings: Sequence[SentOpening], *, due_at: Micros) -> None:
        """Record one reminder of these open problems for this sink, due at `due_at`. Raises `StoreError`.

        Its text is about the first problem.
        """
        at = self._deps.clock.now()
        entry = self._deps.events.reminder(openings[0], sink=self._name, after=self._sequence, at=at)
        await self._record(entry, self.reported, {each.problem.id: due_at for each in openings})

    async def report_dead(self) -> None:
        """Record `delivery.dead` for the other sinks, if there are new dead letters. Raises `StoreError`."""
        now = self._deps.clock.steady_us()
        if dead := await self._deps.store.dead_since(self._dead_reported_until):
            newest = {"type": dead.type, "id": str(UUID(bytes=dead.event_id)), "answer": dead.answer}
            data = {"count": dead.dead_count, "newest": newest, "answer": dead.answer}
            data["remedy"] = self._remedies.get(dead.answer) or None
            entry, _ = self._event(EventType.DELIVERY_DEAD, data, None)
            await self._record(entry, self.reported, {})
            self._dead_reported_until = now
        self.report_dead_at = LATEST

    async def give_up(self, *, skip: Collection[bytes]) -> int:
        """Make dead letters of old deliveries, except those with an ordering key in `skip`; return their number.

        A delivery is old once `give_up_after` has passed since it was first due. Time in which the sink was disabled
        or had no owner does not count.
        """
        now, rules = self._deps.clock.monotonic(), self._deps.rules
        after_s = rules.give_up_after_s
        if after_s is None or self.state.state == DISABLED or now < self._give_up_at:
            return 0
        self._give_up_at = Monotonic(now + min(GIVE_UP_EVERY_S, after_s * GIVE_UP_SHARE))
        count = await self._deps.store.give_up(
            clock_s=self.state.clock_s(), after_s=after_s, skip=skip, group_wait_s=rules.group_wait_s
        )
        if count:
            self._deps.metrics.outcomes[DeliveryState.DEAD].inc(count)
            log.warning("deliveries.died", sink=self._name, count=count, why="give_up_after has passed")
            self._note_dead()
        return count

    async def save_snapshot(self, next_try_at: Micros | None, trouble: str) -> None:
        """Save the snapshot of the sink for pages and API, if it has changed or was last saved 30 s ago.

        A `trouble` of the sink besides sending is shown as its answer while it takes deliveries.

        It is also saved after trouble with the store: pages distrust what was saved before.
        """
        state, now, (saved_at, saved) = self.state, self._deps.clock.monotonic(), self._snapshot
        answer = state.answer if state.has_failed else trouble or state.answer
        has_failed = state.has_failed or bool(trouble)
        snapshot = SinkSnapshot(answer, state.last_success_at or None, next_try_at, has_failed)
        if snapshot != saved or saved_at <= max(now - ALIVE_EVERY_S, self._deps.store.monitor.last_failing_since):
            await self._deps.store.save_snapshot(snapshot)
            self._snapshot = now, snapshot

    def log_settled(self, attempt: Unsettled) -> None:
        """Count and log an attempt that is settled."""
        if attempt.result is None:
            count = sum(each.state is DeliveryState.SILENCED for each in attempt.records)
            self._deps.metrics.outcomes[DeliveryState.SILENCED].inc(count)
        elif attempt.result.outcome.is_taken:
            if self._in_trouble:
                log.info("delivery.recovered", sink=self._name)
                self._in_trouble = False
            self._deps.metrics.batched.observe(len(attempt.records))
            for each in attempt.records:
                delay_s = (each.delivery.tried_at - each.delivery.recorded_at) / 1e6
                self._deps.metrics.count_delivery(delay_s, state=each.state)
        else:
            if not attempt.result.minimal_left:
                self._remedies[attempt.result.answer] = attempt.result.remedy
            self._failed(attempt.result, attempt.records)

    def _failed(self, result: SendResult, records: Sequence[AttemptRecord]) -> None:
        count, tried = len(records), records[0].delivery
        known: dict[str, object] = {"sink": self._name, "event_id": str(tried.event_id), "type": tried.type}
        known |= {"answer": result.answer, "attempt": tried.attempts, "remedy": result.remedy}
        # `refused` is the number of refusals in a row; the refusal of a group counts for none of its deliveries
        known |= {"refused": tried.rejections, "count": count if count > 1 else 0}
        known = {name: value for name, value in known.items() if value}
        dead_count = sum(record.state is DeliveryState.DEAD for record in records)
        if dead_count:
            self._note_dead()
            self._deps.metrics.outcomes[DeliveryState.DEAD].inc(dead_count)
            log.warning("delivery.dead", **known)
        if dead_count == count:
            return
        self._deps.metrics.outcomes["retried"].inc(count - dead_count)
        known["wait_s"] = round((tried.due_at - tried.tried_at) / 1e6, 3)
        now, is_gone = self._deps.clock.monotonic(), result.outcome is SendOutcome.GONE  # logged as `sink.disabled`
        if self._in_trouble or now < self._quiet_until or is_gone:
            log.debug("delivery.failed", **known)
            return
        log.warning("delivery.failed", **known)
        self._in_trouble, self._quiet_until = True, Monotonic(now + WARNED_EVERY_S)

    def _note_dead(self) -> None:
        """Note that there may be new dead letters. They are reported at once, or one minute after the last report."""
        since_s = (self._deps.clock.steady_us() - self._dead_reported_until) / 1e6
        self.report_dead_at = Monotonic(self._deps.clock.monotonic() + max(0.0, DEAD_EVERY_S - since_s))

    def _event(self, type_: EventType, data: Json, problem: Problem | None) -> Reported:
        """Return the next event about this sink, for the other sinks."""
        name, at = self._name, self._deps.clock.now()
        data = {"sink": name, **data}
        return self._deps.events.of_source(
            type_, sink_source(name), data, problem, after=self._sequence, at=at, without_sink=name
        )

    async def _record(
        self, entry: OutboxEntry, state: str | None, reminders: Mapping[UUID, Micros], *problems: ProblemChange
    ) -> None:
        """Record an event with the state of the sink, and the due times of reminders. Raises `StoreError`."""
        lease, sequence = self._deps.store.lease, entry.event.sequence
        change = SourceChange(lease, self._sequence, sequence, state, (entry,), problems, reminders)
        await self._deps.store.record(change)
        self._sequence = sequence
        self._deps.metrics.events.labels(entry.event.type).inc()
