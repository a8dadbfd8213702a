"""The poller of one account: it sends the next request whenever one is due and the rate limit allows it.

It knows no HTTP, sinks or timers: `tick` is called when a request may be due, and returns the seconds until the next
call. The queue chooses the request, the poller of executions or of lists handles it, the session holds the shared
state, and the registry holds the watched executions.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter

from watcher.domain.execution import ExecutionRecord
from watcher.domain.timestamps import EARLIEST, LATEST, Monotonic
from watcher.domain.watch import Watch
from watcher.polling.account_snapshots import AccountSnapshots
from watcher.polling.dependencies import AccountDependencies
from watcher.polling.execution_poller import ExecutionPoller
from watcher.polling.lists import ListPoller, PageRequest
from watcher.polling.poll_item import TrackedExecution
from watcher.polling.session import AccountSession, SessionPart

IDLE_S = 10.0
"""The longest time between two ticks: each tick proves that the loop is alive."""

CHECK_EVERY_S = 1.0
"""Interval of two checks: whether an account has failed long enough to be degraded, and whether ends were not confirmed
in time."""

SHORTEST_TICK_S = 0.002
"""The shortest time between two ticks: timers are no finer, and the pacer makes up for this delay."""

BY_ASKED_AT = attrgetter("asked_at")

Request = TrackedExecution | PageRequest
"""A request for one execution, or for a page of a list."""


class AccountPoller(SessionPart):
    """Polls the open executions of one account until they are terminal."""

    _request_count = 0
    _in_flight_count = 0
    _next_tick_at = LATEST
    _draining = False

    def __init__(self, deps: AccountDependencies) -> None:
        super().__init__(session := AccountSession(deps))
        self.account = deps.lease.name
        self._confirmations = session.poll_queue.confirmations
        self._execution_poller = ExecutionPoller(session)
        self._list_poller = ListPoller(session)
        self._snapshots = AccountSnapshots(session)
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def lists_read(self) -> Sequence[bool]:
        """Whether a scan was ever complete, for the list of each pipeline that is watched whole."""
        return [listing.is_read for listing in self._registry.lists.values()]

    async def watch(self, watches: Sequence[Watch]) -> None:
        """Watch the executions of these watches and no others, from their recorded state on. Raises `StoreError`.

        The requests in flight are finished before, and none is sent until it is done: what is loaded stays true.
        Executions that are recorded as ended are not polled. A degraded account is probed at once: its key may be valid
        now.
        """
        try:
            async with self._changing:
                await self._finish()
                found = await self._load(watches)
                await self._alert_rules.watch(watches)
                await self._snapshots.watch(watches)
                open_ = await self._list_poller.watch(watches)
                self._registry.apply(watches, found | open_)
                for recorder in self._alert_rules.recorders.values():
                    await recorder.note_watched(self._registry.entries.values())
            self._breaker.last_probe_at = EARLIEST  # so the next probe is due now
        finally:
            self._deps.wake()

    def read_list(self, pipeline: str) -> None:
        """Scan the list of a pipeline as soon as the budget allows."""
        self._list_poller.read_now(pipeline)
        self._deps.wake()

    async def tick(self) -> float:
        """Send the requests that are due and allowed. Return the seconds until the next tick."""
        now = self._clock.monotonic()
        if not self._deps.is_trusted():  # the schedule calls `tick` again within 2 s
            self._breaker.rest(now)
            self._next_tick_at = Monotonic(now + IDLE_S)
            return IDLE_S
        if self._breaker.failing_since is not None:
            self._breaker.check(now)
            if (target := self._breaker.to_verify(now)) is not None:
                self._poll_queue.put(target, due_at=min(target.due_at, now))
        if not (self._registry.entries or self._registry.lists):  # without items no request shows that it suffices
            self._breaker.budget.is_over = False
        if self._breaker.trouble is not self._session.reported:
            await self._session.report()
            now = self._clock.monotonic()
        if (self._confirmations.waiting or self._confirmations.too_late) and not self._is_paused:
            for entry in self._confirmations.take_expired(now):  # no GET confirmed them in time: their rows count
                self._start(entry, accepts=True)
        while (request := self._take()) is not None:
            self._start(request)
        self._next_tick_at = self._wanted_at(now)
        return self._next_tick_at - now

    async def flush(self) -> None:
        """Write the pause and failures of the account, poll times, and snapshots. Raises `StoreError`."""
        await self._session.flush()
        await self._snapshots.write(request_count=self._request_count)

    async def drain(self) -> None:
        """Send no more requests, and wait for those in flight."""
        self._draining = True
        await self._finish()

    async def cancel(self) -> None:
        """Cancel the requests in flight. Their polls are due again after the next start."""
        self._draining = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def _is_paused(self) -> bool:
        """Whether no work may start: the watches change, or the account may soon have another owner."""
        return self._draining or self._changing.locked()

    async def _finish(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _load(self, watches: Sequence[Watch]) -> dict[str, ExecutionRecord]:
        """Return the recorded executions that these watches name, as far as they are new.

        Maintenance closes the overdue problem of an execution whose limit was removed. Entries forget such a problem,
        so that they may be overdue again.
        """
        entries = self._registry.entries
        overdue = [name for name, entry in entries.items() if entry.known.overdue_sequence is not None]
        named = [name for watch in watches for name in watch.executions if name not in entries]
        found = dict(await self._deps.store.load_executions([*overdue, *named]))
        for name in overdue:
            known, entry = found.pop(name, None), entries[name]
            if known is not None and known.overdue_sequence is None:
                entry.known = replace(entry.known, overdue_sequence=None, overdue_at=None)
        return found

    def _start(self, request: Request, *, accepts: bool = False) -> None:
        task = asyncio.create_task(self._work(request, accepts=accepts))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, request: Request | None, *, accepts: bool) -> None:
        """Handle a request, then the next ones as long as any is due: each answer makes room for another request.

        With `accepts` no request is sent first: the end of the execution could not be confirmed in time.
        """
        try:
            if accepts and isinstance(request, TrackedExecution):
                await self._execution_poller.ask(request, accepts=True)
                request = self._take()
            while request is not None:
                try:
                    if isinstance(request, TrackedExecution):
                        await self._execution_poller.ask(request)
                    else:
                        await self._list_poller.ask(request)
                finally:
                    self._in_flight_count -= 1
                request = self._take()
        except Exception as error:  # noqa: BLE001 (nothing else catches it, and its items may be lost)
            self._deps.fatal(error)
            return
        now = self._clock.monotonic()
        wanted_at = self._wanted_at(now)
        # Each wake sets a timer, so only a tick that is wanted earlier than the next one is worth it.
        if wanted_at < self._next_tick_at - SHORTEST_TICK_S:
            self._next_tick_at = wanted_at
            self._deps.wake(wanted_at - now)

    def _take(self) -> Request | None:
        """Take the next request, and its slot, if one may go now. An unusable account sends only probes."""
        deps, breaker, now = self._deps, self._breaker, self._clock.monotonic()
        is_probe = breaker.unusable_for is not None
        if self._is_paused or self._in_flight_count >= deps.concurrency:
            return None
        if now < deps.pacer.ready_at or now < breaker.opens_at() or not deps.is_trusted():
            return None
        queue = self._poll_queue
        item = queue.probe(breaker.probe_target) if is_probe else queue.next(now)
        if item is None:
            return None
        self._request_count += 1
        self._in_flight_count += 1
        deps.pacer.spend(now)
        deps.metrics.lateness.observe(queue.late_s(item, now))
        request = self._list_poller.request_for(item, now=now, is_probe=is_probe)
        if is_probe:
            breaker.last_probe_at = now
        else:
            self._note_gaps(request, now=now)
        if isinstance(request, TrackedExecution):
            request.asked_at = now
        else:
            request.note_sent(now)
        return request

    def _note_gaps(self, request: Request, *, now: Monotonic) -> None:
        """Note in the budget how long the items of a request have waited. For a page, the longest wait counts."""
        budget = self._breaker.budget
        entries = (request,) if isinstance(request, TrackedExecution) else request.unseen.values()
        # Lost executions are polled every 10 minutes only.
        found = [entry for entry in entries if entry.known.lost is None]
        if found:
            first = min(found, key=BY_ASKED_AT)
            budget.note(first, last_at=first.asked_at, now=now)
        if isinstance(request, PageRequest) and (waits_from := request.waits_from) is not None:
            budget.note(request.listing, last_at=waits_from, now=now)

    def _wanted_at(self, now: Monotonic) -> Monotonic:
        """Return when the next tick is wanted: when a request may be sent, or when the next check is due."""
        breaker, deps, waiting = self._breaker, self._deps, self._confirmations.waiting
        is_timed = breaker.failing_since is not None and breaker.unusable_for is None
        at = Monotonic(now + (CHECK_EVERY_S if is_timed or waiting else IDLE_S))
        if self._confirmations.too_late:
            at = now
        if not self._is_paused and self._in_flight_count < deps.concurrency:
            next_at = self._poll_queue.next_at()
            if waiting:
                next_at = min(next_at, self._confirmations.wanted_at())
            if breaker.unusable_for is not None and next_at != LATEST:
                next_at = now  # a probe may be sent before its item is due
            at = min(at, max(next_at, breaker.opens_at(), deps.pacer.ready_at))
        return max(at, Monotonic(now + SHORTEST_TICK_S))
