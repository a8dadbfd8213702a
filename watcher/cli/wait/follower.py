"""A wait for one execution: the daemon's account poller, with nothing to remember and nobody to send to.

The parts of the daemon stay as they are; an API that is listened to and a store without memory stand in for theirs.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from watcher.clerk.protocol import Api, PageReply, Reply
from watcher.cli.wait.progress import Progress, RenderTime, View, WaitResult
from watcher.config.models import PollingSettings, Settings
from watcher.daemon.build import AccountOwnerDependencies, build_account, routes_of, watches_of
from watcher.domain.errors import Exit
from watcher.domain.event import EventKey
from watcher.domain.event_factory import EventFactory
from watcher.domain.execution import ExecutionRecord
from watcher.domain.routing import Router
from watcher.domain.rules import RuleState
from watcher.domain.timestamps import Micros, Monotonic
from watcher.polling.account_poller import AccountPoller
from watcher.polling.evaluator import Cadence
from watcher.polling.failures import ERROR_JITTER
from watcher.runtime.clock import Clock, SystemClock
from watcher.runtime.metrics import Metrics
from watcher.runtime.pacing import Backpressure
from watcher.runtime.scheduler import Schedule
from watcher.runtime.units import spell_duration
from watcher.store.changes import BackoffState, Change, ChangeSet, Lease, SingleChange
from watcher.store.leases import HeldLease
from watcher.store.records import AccountRecord, PipelineRecord, RulesRecord

REDRAW_EVERY_S = 0.25
PATIENT_AFTER_S = 3600.0
PATIENT_INTERVAL_S = 10.0
"""After an hour nobody needs to know within two seconds."""

Heard = asyncio.Queue[Reply | SingleChange | BaseException]
"""What goes on in the account, in order; an exception is what would end the daemon."""


async def wait_for(
    progress: Progress,
    view: View,
    *,
    settings: Settings,
    interval_s: float,
    timeout_s: float | None,
    stop: asyncio.Event,
) -> WaitResult | None:
    """Follow the execution until it, the time or the patience is over, or `stop` (then `None`).

    `settings` have one account, which watches this execution alone. Of their polling only what decides that an
    execution is lost or an account degraded is used.
    """
    heard, clock = Heard(), SystemClock()
    async with AsyncExitStack() as stack:
        poller = await _start(settings, heard, interval_s=interval_s, stack=stack, clock=clock)
        ends_at = None if timeout_s is None else clock.monotonic() + timeout_s
        while not stop.is_set():
            now = clock.monotonic()
            if progress.ending is None and ends_at is not None and now >= ends_at:
                progress.ending = timed_out(progress, timeout_s or 0.0)
            view.show(progress, RenderTime(clock.steady_us(), now, poller.next_poll_at(now)))
            if progress.ending is not None:
                return progress.ending
            try:
                async with asyncio.timeout(REDRAW_EVERY_S if ends_at is None else min(REDRAW_EVERY_S, ends_at - now)):
                    one = await heard.get()
            except TimeoutError:
                continue
            take(one, progress, view, clock=clock)
        return None


def take(heard: Reply | SingleChange | BaseException, progress: Progress, view: View, *, clock: Clock) -> None:
    """Take in what was heard, and pass its events on."""
    if isinstance(heard, BaseException):
        raise heard
    if isinstance(heard, Reply):
        progress.answered(heard, at=clock.now(), now=clock.monotonic())
        return
    progress.recorded(heard)
    for entry in heard.entries:
        view.on_event(entry.event)


def timed_out(progress: Progress, timeout_s: float) -> WaitResult:
    """Return what a wait ends with once its time is over."""
    status = f"still {progress.status}" if progress.status else "not seen"
    waited = f"{timeout_s:g} s" if timeout_s % 1 else spell_duration(timeout_s)
    last = f"; the last poll failed: {progress.failure.word}" if progress.failure else ""
    return WaitResult(Exit.TIMEOUT, f"{status} after {waited} (--timeout){last}")


def wait_cadence(clock: Clock, *, interval_s: float) -> Cadence:
    """Return the cadence of a wait that begins now: every `interval_s`, however old the execution is; slower later."""
    began_at = clock.monotonic()

    def interval(_dwell_s: float) -> float:
        patient = clock.monotonic() - began_at >= PATIENT_AFTER_S
        return max(interval_s, PATIENT_INTERVAL_S) if patient else interval_s

    return interval


def wait_polling(polling: PollingSettings, *, interval_s: float, rate_limit: float) -> PollingSettings:
    """Return how to poll: after an error hardly more rarely than without, for somebody waits, and never sooner.

    A rate limit that allows less is no trouble to report: `max_interval` is what it allows.
    """
    retry_s = interval_s / (1 - ERROR_JITTER)
    return polling.model_copy(update={"min_interval_s": retry_s, "max_interval_s": max(retry_s, 2 / rate_limit)})


async def _start(
    settings: Settings, heard: Heard, *, interval_s: float, stack: AsyncExitStack, clock: Clock
) -> AccountPoller:
    """Let the account be watched until `stack` closes; what is in flight then is given up."""
    metrics = Metrics()
    schedule = Schedule(clock=clock, fatal=heard.put_nowait, lag=metrics.loop_lag.set)
    events = EventFactory(Router(routes_of(settings)))
    shared = AccountOwnerDependencies(
        lambda lease: EphemeralStore(lease, heard.put_nowait),
        clock,
        metrics,
        events,
        schedule,
        Backpressure(),
        heard.put_nowait,
    )
    ((name, account),) = settings.accounts.items()
    poller = await build_account(
        shared,
        stack,
        HeldLease(Lease("account", name, 1), clock=clock),
        settings=account,
        polling=wait_polling(settings.polling, interval_s=interval_s, rate_limit=account.rate_limit),
        cadence=wait_cadence(clock, interval_s=interval_s),
        retention_s=settings.store.retention_s,
        wrap_api=lambda api: ObservedApi(api, heard.put_nowait),
    )
    await poller.watch(watches_of(settings, name))
    schedule.add(f"account:{name}", poller.tick)
    stack.push_async_callback(poller.cancel)
    stack.push_async_callback(schedule.stop)
    schedule.start()
    return poller


@dataclass(frozen=True, slots=True)
class ObservedApi:
    """An API of which somebody hears every reply about an execution."""

    api: Api
    heard: Callable[[Reply], None]

    async def get(self, *, pipeline: str, execution: str, known_hash: int | None = None) -> Reply:
        """Fetch one execution, as the API behind it does. Each answer is read: who listens wants to know it."""
        reply = await self.api.get(pipeline=pipeline, execution=execution)
        self.heard(reply)
        return reply

    async def list(self, *, pipeline: str, page: int, known: PageReply | None = None) -> PageReply:
        """Fetch a page of a list, as the API behind it does. A wait for one execution asks for none."""
        return await self.api.list(pipeline=pipeline, page=page, known=known)


@dataclass(slots=True)
class EphemeralStore:
    """A store for a program that needs no memory: each change is passed on at once and kept nowhere."""

    lease: Lease
    heard: Callable[[SingleChange], None]
    failing_since: Monotonic | None = None

    async def load_account(self) -> AccountRecord:
        """Return that nothing is known."""
        return AccountRecord(0, None, BackoffState())

    async def load_executions(self, executions: Collection[str]) -> Mapping[str, ExecutionRecord]:
        """Return that nothing is known."""
        return {}

    async def load_pipeline(self, pipeline: str) -> PipelineRecord:
        """Return that nothing is known."""
        return PipelineRecord(0, None)

    async def load_rules(self, pipeline: str) -> RulesRecord:
        """Return that nothing is known."""
        return RulesRecord(0, RuleState(), {}, ())

    async def load_events(self, keys: Collection[EventKey]) -> Mapping[EventKey, bytes]:
        """Return that nothing is known."""
        return {}

    async def load_open(self, pipelines: Collection[str]) -> Sequence[ExecutionRecord]:
        """Return that nothing is known."""
        return ()

    async def record(self, change: Change) -> None:
        """Pass a change on."""
        for each in change.changes if isinstance(change, ChangeSet) else (change,):
            self.heard(each)

    async def save_poll_times(self, polled_at: Mapping[str, Micros]) -> None:
        """Keep nothing."""

    async def save_backoff(self, backoff: BackoffState) -> None:
        """Keep nothing."""
