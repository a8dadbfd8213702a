"""A wait for one execution: the daemon's account poller, with nothing to remember and nobody to send to."""

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Protocol

from watcher.clerk.protocol import Reply
from watcher.cli.wait.observers import EphemeralStore, ObservedApi
from watcher.cli.wait.progress import Progress, RenderTime, WaitResult
from watcher.config.models import PollingSettings, Settings
from watcher.daemon.build import AccountOwnerDependencies, build_account, routes_of, watches_of
from watcher.domain.errors import Exit
from watcher.domain.event import Event
from watcher.domain.event_factory import EventFactory
from watcher.domain.routing import Router
from watcher.polling.account_poller import AccountPoller
from watcher.polling.policy import ERROR_JITTER, Cadence
from watcher.runtime.backpressure import Backpressure
from watcher.runtime.clock import Clock, SystemClock
from watcher.runtime.metrics import Metrics
from watcher.runtime.scheduler import Schedule
from watcher.runtime.units import spell_duration
from watcher.store.changes import Lease, SingleChange
from watcher.store.held_lease import HeldLease

REDRAW_EVERY_S = 0.25
PATIENT_AFTER_S = 3600.0
PATIENT_INTERVAL_S = 10.0
"""Whoever has waited for an hour need not know within two seconds (SPEC 6)."""

Heard = asyncio.Queue[Reply | SingleChange | BaseException]
"""What goes on in the account, in order; an exception is what would end the daemon."""


class View(Protocol):
    """Takes each event, and shows each moment. Both raise `OutputClosedError` if nobody is there."""

    async def on_event(self, event: Event, progress: Progress) -> None:
        """Report one event; `progress` knows of it already."""
        ...

    def show(self, progress: Progress, moment: RenderTime) -> None:
        """Show how it stands now."""
        ...


@dataclass(frozen=True, slots=True)
class Awaited:
    """What to wait for: settings with one account that watches one execution, how often to ask, how long at most.

    Of the settings' polling only what decides that an execution is lost or an account degraded is used.
    """

    settings: Settings
    interval_s: float
    timeout_s: float | None


async def wait_for(awaited: Awaited, view: View, *, stop: asyncio.Event) -> WaitResult | None:
    """Follow the execution until it, the time or the patience is over, or `stop` (then `None`).

    Raises `OutputClosedError` when nobody reads any more.
    """
    heard, clock = Heard(), SystemClock()
    progress = Progress(lost_after=awaited.settings.polling.lost_after)
    async with AsyncExitStack() as stack:
        poller = await _start(awaited, heard, stack=stack, clock=clock)
        following = asyncio.create_task(_Follower(poller, heard, clock, progress, view).follow())
        stopping = asyncio.create_task(stop.wait())
        stack.push_async_callback(_cancel, following, stopping)
        done, _ = await asyncio.wait(
            {following, stopping}, timeout=awaited.timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if following in done:
            return following.result()
        if stopping in done:
            return None
        progress.ending = _timed_out(progress, awaited.timeout_s or 0.0)
        view.show(progress, RenderTime(clock.steady_us(), clock.monotonic(), None))
        return progress.ending


def _timed_out(progress: Progress, timeout_s: float) -> WaitResult:
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


async def _cancel(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _start(awaited: Awaited, heard: Heard, *, stack: AsyncExitStack, clock: Clock) -> AccountPoller:
    """Let the account be watched until `stack` closes; what is in flight then is given up."""
    settings, metrics = awaited.settings, Metrics()
    schedule = Schedule(clock=clock, fatal=heard.put_nowait, lag=metrics.loop_lag.set)
    store = EphemeralStore(heard.put_nowait)
    events = EventFactory(Router(routes_of(settings)))
    shared = AccountOwnerDependencies(store, clock, metrics, events, schedule, Backpressure(), heard.put_nowait)
    ((name, account),) = settings.accounts.items()
    poller = await build_account(
        shared,
        stack,
        HeldLease(Lease("account", name, 1), clock=clock),
        settings=account,
        polling=wait_polling(settings.polling, interval_s=awaited.interval_s, rate_limit=account.rate_limit),
        cadence=wait_cadence(clock, interval_s=awaited.interval_s),
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
class _Follower:
    """Takes in what is heard, and passes it on to the view."""

    poller: AccountPoller
    heard: Heard
    clock: Clock
    progress: Progress
    view: View

    async def follow(self) -> WaitResult:
        while self.progress.ending is None:
            self._show()
            with suppress(TimeoutError):
                async with asyncio.timeout(REDRAW_EVERY_S):
                    heard = await self.heard.get()
                await self._take(heard)
        self._show()
        return self.progress.ending

    async def _take(self, heard: Reply | SingleChange | BaseException) -> None:
        if isinstance(heard, BaseException):
            raise heard
        if isinstance(heard, Reply):
            self.progress.answered(heard, at=self.clock.now(), now=self.clock.monotonic())
            return
        self.progress.recorded(heard)
        for entry in heard.entries:
            await self.view.on_event(entry.event, self.progress)

    def _show(self) -> None:
        now = self.clock.monotonic()
        self.view.show(self.progress, RenderTime(self.clock.steady_us(), now, self.poller.next_poll_at(now)))
