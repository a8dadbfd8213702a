"""What a sink's worker does beside sending: report how the sink is, remind it of problems, let go what was silenced.

And refresh the problems of a receiver that has them in memory only, in a task of its own.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import structlog

from watcher.delivery.delivery_queue import DeliveryQueue
from watcher.delivery.sink_state import SinkState
from watcher.delivery.sink_state_store import SinkStateStore
from watcher.delivery.sinks.protocol import SendOutcome, SentProblem, Sink
from watcher.domain.errors import LeaseExpiredError
from watcher.domain.timestamps import LATEST, Micros, Monotonic
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import SinkMetrics
from watcher.store.records import SentOpening

CHECK_EVERY_S = 30.0
"""So often the store is asked which problems are open: of one that is new the first reminder is not due before."""

APART_S = 1.0
"""But for reminders that are due one after the other not more often: they come so much late at most."""

REMINDED_COUNT = 256
"""So many reminders at once: each is a transaction, and a tick that takes half a minute counts as stalled."""

CLOSED_SHOWN = timedelta(minutes=15)
"""For so long a closed problem is still refreshed, as closed: an earlier refresh may not have arrived."""

log = structlog.get_logger()


class SinkDuties:
    """The duties of one worker. `fatal` is given what must end the program."""

    def __init__(
        self,
        sink: Sink,
        sink_state: SinkState,
        state_store: SinkStateStore,
        *,
        queue: DeliveryQueue,
        clock: Clock,
        metrics: SinkMetrics,
        remind_every_s: float | None,
        fatal: Callable[[BaseException], None],
    ) -> None:
        """Begin with all of them at once."""
        self._sink = sink
        self._sink_state = sink_state
        self._state_store = state_store
        self._queue = queue
        self._clock = clock
        self._metrics = metrics
        self._remind_every_us = None if remind_every_s is None else round(remind_every_s * 1e6)
        self._check_at = self._refresh_at = clock.monotonic()
        self._fatal = fatal
        self._refreshing: asyncio.Task[None] | None = None

    async def tick(self) -> bool:
        """Do what it is time for. Return `False` if the store is in trouble."""
        if not await self._state_store.report():
            return False
        now = self._clock.monotonic()
        if now < self._rests_until() or self._sink_state.disabled:
            return True
        if not await self._queue.release():
            return False
        self._refresh(now)
        return await self._remind(now)

    def rest_s(self) -> float:
        """Return in how many seconds something is to be done and can be."""
        if self._sink_state.disabled:
            return LATEST
        times = [self._check_at] if self._remind_every_us is not None else []
        times += [self._refresh_at] if self._sink.refresh_every_s is not None and not self._is_refreshing() else []
        return max(0.0, max(self._rests_until(), min(times, default=LATEST)) - self._clock.monotonic())

    async def cancel(self) -> None:
        """Break off a refresh: the next life does that anew."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    def _rests_until(self) -> Monotonic:
        """Return the monotonic moment before which nothing is done: the end of the sink's pause and of the store's."""
        return max(self._sink_state.paused_until, self._queue.retry_at)

    async def _remind(self, now: Monotonic) -> bool:
        """Remind of each problem that is open for another `remind_every`, while the sink is well."""
        if self._remind_every_us is None or now < self._check_at:
            return True
        every_us, rest_s = self._remind_every_us, min(CHECK_EVERY_S, self._remind_every_us / 1e6)
        self._check_at = Monotonic(now + rest_s)
        if self._sink_state.state is not None:
            return True
        reminded_count = 0
        for opening in await self._queue.sent_openings():
            if reminded_count == REMINDED_COUNT:  # the others at once, but with a tick of their own
                self._check_at = now
                break
            steady_us = self._clock.steady_us()
            due_at = _last_due_at(opening, every_us=every_us, now=steady_us)
            if due_at is not None:
                if not await self._state_store.remind(opening, due_at=due_at):
                    return False
                reminded_count += 1
            next_s = (every_us - (steady_us - opening.recorded_at) % every_us) / 1e6
            self._check_at = min(self._check_at, Monotonic(now + max(APART_S, next_s)))
        return True

    def _refresh(self, now: Monotonic) -> None:
        every_s = self._sink.refresh_every_s
        if every_s is None or now < self._refresh_at or self._is_refreshing():
            return
        self._refresh_at = Monotonic(now + every_s)
        self._refreshing = asyncio.create_task(self._refresh_problems())
        self._refreshing.add_done_callback(self._ended)

    def _is_refreshing(self) -> bool:
        return self._refreshing is not None and not self._refreshing.done()

    async def _refresh_problems(self) -> None:
        openings = await self._queue.sent_openings(closed_from=self._clock.now() - CLOSED_SHOWN)
        problems = [SentProblem(each.body, each.problem, each.closed_at) for each in openings]
        if not problems or not self._queue.is_trusted():
            return
        try:
            result = await self._sink.refresh(problems)
        except LeaseExpiredError:
            return
        except Exception as error:  # noqa: BLE001 (as for a delivery: its trouble must not stop the others)
            log.error("refresh.crashed", sink=self._queue.lease.name, error=type(error).__name__)  # noqa: TRY400 (texts may hold secrets)
            self._metrics.refreshed(well=False)
            return
        is_well = result.outcome in {SendOutcome.DELIVERED, SendOutcome.ACCEPTED}
        self._metrics.refreshed(well=is_well)
        if not is_well:
            log.debug("refresh.failed", sink=self._queue.lease.name, answer=result.answer, count=len(problems))

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._fatal(error)


def _last_due_at(opening: SentOpening, *, every_us: int, now: Micros) -> Micros | None:
    """Return when the last reminder was due that was not recorded; `None` if there is none.

    They are due every so often since the opening was recorded, once the sink took that.
    """
    last_at = opening.reminded_at or max(opening.settled_at, opening.recorded_at)
    due_at = Micros(opening.recorded_at + (now - opening.recorded_at) // every_us * every_us)
    return due_at if due_at > last_at else None
