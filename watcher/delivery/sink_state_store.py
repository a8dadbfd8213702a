"""What is written of how a sink is: what a restart must not forget, and each change of it for the other sinks."""

import structlog

from watcher.delivery.delivery_queue import DeliveryQueue
from watcher.delivery.sink_state import DISABLED, FAILING, SinkState
from watcher.domain.event import EventType
from watcher.domain.event_factory import EventFactory
from watcher.domain.timestamps import Micros
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import SinkMetrics
from watcher.store.changes import Reminder, SourceChange
from watcher.store.records import SentOpening, SinkRecord

DISABLED_NOTE = "it answered 410 Gone, so deliveries wait; change its block in the configuration to send them"

_EVENT_TYPES = {None: EventType.SINK_RECOVERED, FAILING: EventType.SINK_FAILING, DISABLED: EventType.SINK_DISABLED}

log = structlog.get_logger()


class SinkStateStore:
    """Writes how one sink is, whenever that has changed or time has moved it on; its attempts write the latter, too."""

    def __init__(
        self,
        sink_state: SinkState,
        record: SinkRecord,
        *,
        queue: DeliveryQueue,
        events: EventFactory,
        clock: Clock,
        metrics: SinkMetrics,
    ) -> None:
        """Take what the state began with as written, and warn if the sink is disabled."""
        self._sink_state = sink_state
        self._queue = queue
        self._events = events
        self._clock = clock
        self._metrics = metrics
        self._reported, self._sequence, self._problem = record.state, record.sequence, record.problem
        self._saved = self._state()
        metrics.up(record.state is None)
        if sink_state.disabled:
            log.warning("sink.disabled", sink=queue.lease.name, note=DISABLED_NOTE)

    @property
    def is_reported(self) -> bool:
        """Whether the other sinks know how this one is."""
        return self._sink_state.state == self._reported

    async def report(self) -> bool:
        """Record a change of how the sink is, and report it to the other sinks. Return `False` if that failed."""
        state, answer = self._sink_state.state, self._sink_state.answer
        if self.is_reported or self._clock.monotonic() < self._queue.retry_at:
            return True
        type_, lease, at = _EVENT_TYPES[state], self._queue.lease, self._clock.now()
        entry, problem = self._events.sink(
            type_, sink=lease.name, answer=answer, problem=self._problem, after=self._sequence, at=at
        )
        problems = () if problem is None else (problem,)
        change = SourceChange(lease, self._sequence, entry.event.sequence, state, (entry,), problems)
        if not await self._queue.record(change):
            return False
        self._reported, self._sequence = state, change.sequence
        self._problem = problem.problem if problem is not None and state else None
        self._metrics.reported(type_, well=state is None, answer=answer)
        (log.info if state is None else log.warning)(type_.value, sink=lease.name, answer=answer)
        return True

    async def remind(self, opening: SentOpening, *, due_at: Micros) -> bool:
        """Record a reminder of a problem to the sink, due at that moment. Return `False` if that failed."""
        lease = self._queue.lease
        entry = self._events.reminder(
            opening.body, opening.problem, sink=lease.name, after=self._sequence, at=self._clock.now()
        )
        reminders = (Reminder(opening.problem.id, due_at),)
        sequence = entry.event.sequence
        change = SourceChange(lease, self._sequence, sequence, self._reported, (entry,), reminders=reminders)
        if not await self._queue.record(change):
            return False
        self._sequence = sequence
        self._metrics.reminded()
        return True

    async def save(self) -> bool:
        """Write what time has changed. Return `False` if that failed."""
        state = self._state()
        if state != self._saved:
            if not await self._queue.save(self._sink_state.backoff(), clock_s=state[0]):
                return False
            self._saved = state
        return True

    def _state(self) -> tuple[float, float | None]:
        """Return what time changes; a pause comes with an attempt record."""
        return self._sink_state.clock_s(), self._sink_state.backoff().failing_for_s
