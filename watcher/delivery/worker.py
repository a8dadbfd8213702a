"""The delivery worker of one sink: it takes due deliveries from the store, sends them, and settles them.

The `Dispatcher` decides what to settle, take and send. The worker does it: it waits, locks and logs.
"""

import asyncio

import structlog

from watcher.delivery.dispatcher import REST_S, Dispatcher, Step
from watcher.delivery.open_problems import OpenProblems
from watcher.delivery.retries import Request
from watcher.delivery.sink_queue import NOW
from watcher.delivery.sink_reporter import SinkReporter
from watcher.delivery.sink_state import WorkerDependencies
from watcher.domain.errors import FINAL_STORE_ERRORS, LeaseExpiredError, OutputClosedError, StoreError
from watcher.domain.timestamps import Monotonic
from watcher.sinks.protocol import SendOutcome, SendResult, Sink
from watcher.store.changes import SinkRecord

STORE_RETRY_S = 1.0
"""The wait after a failure of the store."""

log = structlog.get_logger()


class DeliveryWorker:
    """The worker of one sink, whose lease this process holds.

    Call `tick` again after the seconds that it returned, or earlier if the worker calls `wake` of its `deps`. `tasks`
    are those of the requests in flight.
    """

    def __init__(self, sink: Sink, record: SinkRecord, deps: WorkerDependencies) -> None:
        self.sink = deps.store.lease.name
        self.tasks: dict[asyncio.Task[None], Request] = {}
        self._sink = sink
        self._deps = deps
        self._dispatcher = Dispatcher(sink, record, deps)
        self.take_slot = self._dispatcher.take_slot
        self._state = self._dispatcher.state
        self._reporter = SinkReporter(self._state, record, deps)
        self._problems = OpenProblems(sink, self._reporter, deps)
        self._lock = asyncio.Lock()  # held for each write to the store
        self._next_tick_at = deps.clock.monotonic()

    def wake(self) -> None:
        """Request a tick that takes deliveries, because new ones may be due."""
        self._dispatcher.queue.due_at = NOW
        self._deps.wake()

    async def tick(self) -> float:
        """Settle the answered deliveries and start those that are due; return the seconds until the next call.

        While the lease is not trusted, nothing is sent. The schedule calls this at least every 2 s, also without a
        wake-up, so sending continues once the lease is trusted again.
        """
        dispatcher, now = self._dispatcher, self._deps.clock.monotonic()
        if not dispatcher.begin():
            return REST_S
        if now >= dispatcher.store_retry_at:
            async with self._lock:
                try:
                    if self._state.state != self._reporter.reported:
                        await self._reporter.report()
                    silences = dispatcher.silences() if self._deps.silences.all else ()
                    if silences != dispatcher.released_under:
                        dispatcher.queue.take_again()  # a closing may have been taken before its opening is released
                        await self._record(dispatcher.settle())  # openings that were just silenced are released, too
                        await self._deps.store.release()
                        dispatcher.released_under, dispatcher.queue.due_at = silences, NOW
                    if now >= self._problems.due_at and now >= self._state.held_until:
                        await self._problems.tick(now)
                    await self._record(dispatcher.turn(now))
                    if now >= self._reporter.report_dead_at:
                        await self._reporter.report_dead()
                except StoreError as error:
                    self._store_failed(error)
        rest_s = self._start_ready()
        self._next_tick_at = Monotonic(self._deps.clock.monotonic() + rest_s)
        return rest_s

    async def flush(self) -> None:
        """Settle the answered deliveries, make dead letters of old ones, and save state and snapshot of the sink.

        While the store is in trouble, only the last flush is tried: it settles the deliveries that were answered.
        """
        dispatcher, state = self._dispatcher, self._state
        if not state.is_stopped and self._deps.clock.monotonic() < dispatcher.store_retry_at:
            return
        async with self._lock:
            try:
                if dispatcher.must_save():
                    await self._record(dispatcher.settle(saves=True))
                    skip = dispatcher.queue.sending_keys() | dispatcher.queue.unsettled_keys()
                    if not state.is_stopped and await self._reporter.give_up(skip=skip):
                        self.wake()
                await self._reporter.save_snapshot(dispatcher.next_try_at(), self._sink.trouble)
            except StoreError as error:
                self._store_failed(error)

    async def enable(self) -> None:
        """Let deliveries be sent to a disabled sink again, and delete the request for that. Raises `StoreError`."""
        async with self._lock:
            if self._state.state != self._reporter.reported:
                await self._reporter.report()
            await self._deps.store.enable()
            self._state.enable()
            self._reporter.reported = self._state.state
        log.info("sink.enabled", sink=self.sink)
        self.wake()

    async def drain(self) -> None:
        """Start no more requests, wait for those in flight, and settle their deliveries."""
        self._state.stop()
        while self.tasks:
            await asyncio.wait(self.tasks)
        await self.flush()

    async def cancel(self) -> None:
        """Cancel the requests in flight. Their deliveries come due again, under the same ids."""
        self._state.stop()
        for task in self.tasks:
            task.cancel()
        await self._problems.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)

    def start(self, request: Request) -> None:
        """Start the task that sends a request."""
        task = asyncio.create_task(self.send(request))
        task.add_done_callback(self._ended)
        self.tasks[task] = request

    async def send(self, request: Request) -> None:
        """Send a request, and note its answer."""
        first = request.batch[0]
        result: SendResult | None = None
        try:
            result = await self._sink.send(request.batch)
        except OutputClosedError:
            raise
        except LeaseExpiredError:  # the new owner sends the batch, or the rest of it
            pass
        except Exception as error:  # noqa: BLE001 (an error of one batch must not stop the others)
            event_id, name = str(first.event_id), type(error).__name__  # the error's text may hold secrets
            log.error("delivery.crashed", sink=self.sink, event_id=event_id, type=first.type, error=name)  # noqa: TRY400
            result = SendResult(SendOutcome.RETRY, "error")
        self._dispatcher.ended(request, result)

    def go_on(self) -> None:
        """Start requests in the free slots. Ask for a tick if one is needed before the next planned one."""
        rest_s, now = self._start_ready(), self._deps.clock.monotonic()
        if now + rest_s < self._next_tick_at and not self._state.is_stopped:
            self._next_tick_at = Monotonic(now + rest_s)
            self._deps.wake(rest_s)

    async def _record(self, step: Step | None) -> None:
        """Write a turn, if there is one, and log what it settled."""
        if step is None:
            return
        try:
            taken = await self._deps.store.record(step[0])
        except StoreError:
            self._dispatcher.queue.take_again()
            raise
        self._dispatcher.recorded(step, taken)
        for each in step[1]:
            self._reporter.log_settled(each)

    def _start_ready(self) -> float:
        """Start the requests that may be sent now; return the seconds until the next tick is needed."""
        now, dispatcher = self._deps.clock.monotonic(), self._dispatcher
        if dispatcher.queue.ready:
            for request in dispatcher.requests(now):
                self.start(request)
        return dispatcher.rest_s(now, self._reporter.report_dead_at, self._problems.due_at)

    def _store_failed(self, error: StoreError) -> None:
        """Wait before the store is used again. Raise an error that will not pass: a lost lease, an unusable store."""
        if isinstance(error, FINAL_STORE_ERRORS):
            raise error
        self._dispatcher.store_retry_at = Monotonic(self._deps.clock.monotonic() + STORE_RETRY_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self.tasks[task]
        if not task.cancelled() and (error := task.exception()):
            self._state.stop()
            self._deps.fatal(error)
        self.go_on()
