"""The poller of a wait: it polls one execution by the daemon's rules, without a store and without sinks.

With `--next` a search finds the execution first, in the list of its pipeline.
"""

import asyncio
import math
import random
from dataclasses import replace

from watcher.clerk.api import ClerkApi
from watcher.cli.wait.progress import Progress, WaitResult, make_timeout
from watcher.cli.wait.view import View
from watcher.config.models import Settings
from watcher.daemon.from_settings import open_client, poll_rules_of, watches_of
from watcher.domain.event import AccountTrouble
from watcher.domain.event_factory import EventFactory
from watcher.domain.execution import ExecutionRecord
from watcher.domain.problems import Problem
from watcher.domain.routing import Router
from watcher.domain.timestamps import Monotonic
from watcher.polling.circuit_breaker import AccountCircuitBreaker
from watcher.polling.evaluator import ReplyEvaluator
from watcher.polling.poll_item import TrackedExecution
from watcher.runtime.clock import Clock
from watcher.runtime.pacing import SHARE
from watcher.runtime.tasks import stop_task
from watcher.store.changes import AccountRecord, Lease

SLOW_AFTER_S = 3600.0
SLOW_INTERVAL_S = 10.0
"""Shortest time between two polls once a wait has lasted `SLOW_AFTER_S`, in seconds."""


async def wait_for(
    progress: Progress,
    view: View,
    stop: asyncio.Event,
    *,
    settings: Settings,
    interval_s: float,
    timeout_s: float | None,
) -> WaitResult | None:
    """Poll an execution until the wait is over; return the result, `None` if `stop` was set.

    The wait is over when the execution ends, when `timeout_s` have passed, or when it is clear that the execution
    cannot be seen. `settings` must have one account, with one watch that names only this execution, or none if the
    progress has a search. The polling settings decide when the execution is lost and when the account is degraded, but
    not on the interval.
    """
    clock = Clock()
    ((_, account),) = settings.accounts.items()
    async with open_client(account, connections=1) as client:
        api = ClerkApi(client, base_url=account.base_url, clock=clock)
        poller = Poller(progress, view, api=api, settings=settings, interval_s=interval_s, clock=clock)
        ends_at = math.inf if timeout_s is None else clock.monotonic() + timeout_s
        following = asyncio.create_task(poller.follow())
        while not stop.is_set():
            now = clock.monotonic()
            poller.check()
            if progress.ending is None and now >= ends_at:
                progress.ending = make_timeout(progress, timeout_s or 0.0)
            progress.now_us = clock.steady_us()
            progress.next_s = None if poller.is_asking else max(0.0, poller.next_at - now)
            view.show(progress)
            if progress.ending is not None or following.done():
                break
            await asyncio.wait([following], timeout=min(0.25, ends_at - now))
        await stop_task(following)
    if not following.cancelled():
        following.result()
    return None if stop.is_set() else progress.ending


class Poller:
    """The poller of one execution, or of its pipeline's list while the execution is searched.

    It polls every `interval_s`, and after an hour never more often than every 10 s. It keeps to the rate limit. As in
    the daemon, the polling settings decide when the execution is lost and when its account is degraded.
    """

    def __init__(
        self, progress: Progress, view: View, *, api: ClerkApi, settings: Settings, interval_s: float, clock: Clock
    ) -> None:
        ((self._account, account),) = settings.accounts.items()
        (watch,) = watches_of(settings)
        self._progress, self._view, self._api, self._clock = progress, view, api, clock
        self._pace_s = 1 / (account.rate_limit * SHARE)
        self._interval_s = max(interval_s, self._pace_s)
        self._began_at = self._due_at = clock.monotonic()
        known = ExecutionRecord(next(iter(watch.executions), ""), watch.pipeline)
        self._entry = TrackedExecution(known=known, watch=watch)
        rules = poll_rules_of(settings, account=self._account)
        rules = replace(rules, min_interval_s=interval_s, max_interval_s=interval_s)
        self._breaker = AccountCircuitBreaker(rules, AccountRecord(), clock=clock, jitter=random.random)
        self._events = EventFactory(Router({}))
        lease = Lease("account", self._account, 1)
        self._evaluator = ReplyEvaluator(lease, self._events, clock, cadence=lambda _: interval_s, link=account.link)
        self._trouble: AccountTrouble | None = None
        self._problem: Problem | None = None
        self._sequence = 0
        self.is_asking = False
        """Whether a poll is under way."""

    @property
    def next_at(self) -> Monotonic:
        """Return the time at which the next poll is due."""
        return max(self._due_at, self._breaker.opens_at())

    async def follow(self) -> None:
        """Poll whenever a poll is due, until the wait is over."""
        while self._progress.ending is None:
            if (wait_s := self.next_at - self._clock.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            else:
                await self.poll()

    async def poll(self) -> None:
        """Poll once; update the progress by the answer, and hand the events to the view."""
        entry, breaker, asked_at = self._entry, self._breaker, self._clock.monotonic()
        is_slow = asked_at - self._began_at >= SLOW_AFTER_S
        self._due_at = Monotonic(asked_at + max(self._interval_s, SLOW_INTERVAL_S if is_slow else 0.0))
        breaker.last_probe_at, self.is_asking = asked_at, True
        pipeline, search = entry.watch.pipeline, self._progress.search
        if search is None:
            reply = await self._api.get(pipeline=pipeline, execution=entry.known.execution)
        else:
            reply = await self._api.list(pipeline=pipeline, page=search.page)
        now, self.is_asking = self._clock.monotonic(), False
        self._progress.take_reply(reply, clock=self._clock)
        if self._progress.ending is not None:
            return
        if search is not None:
            breaker.note(entry, reply, now=now, alone=True)
            self.check()
            if self._progress.take_page(search, reply):
                entry.known, entry.failures = ExecutionRecord(self._progress.execution_id, pipeline), None
                self._view.on_found(self._progress.execution_id)
            if self._progress.search is None or search.page > 1:  # the next request only has to keep to the rate limit
                self._due_at = Monotonic(asked_at + self._pace_s)
            return
        if reply.execution is not None:
            evaluation = self._evaluator.success(entry, reply.execution, sent_at=reply.sent_at)
            breaker.note(entry, reply, now=now)
        else:
            reason = breaker.note(entry, reply, now=now, alone=True)
            evaluation = self._evaluator.failure(entry, reason, next_s=self._interval_s)
        self.check()
        entry.known, entry.polled_at = evaluation.known, evaluation.polled_at or entry.polled_at
        if evaluation.change is not None:
            entry.is_recorded = True
            events = [emitted.event for emitted in evaluation.change.entries]
            self._progress.take_change(entry.known, events)
            for event in events:
                self._view.on_event(event)

    def check(self) -> None:
        """Hand an event to the view if the account has become degraded, or has recovered.

        Call it also between polls: an account becomes degraded once its failures have lasted long enough.
        """
        breaker, now = self._breaker, self._clock.monotonic()
        breaker.check(now)
        if breaker.trouble is self._trouble:
            return
        problem, after, at = self._problem, self._sequence, self._clock.now()
        emitted, change = self._events.account(
            self._account, breaker.trouble, self._trouble, cause=breaker.cause, problem=problem, after=after, at=at
        )
        self._trouble, self._sequence = breaker.trouble, emitted.event.sequence
        self._problem = change.problem if change is not None and self._trouble else None
        self._progress.take_trouble(self._trouble)
        self._view.on_event(emitted.event)
