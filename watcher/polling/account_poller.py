"""The watcher of one account: what is asked for next, within the pace. One owner, everything in memory.

It knows nothing of HTTP, sinks or timers: a round is called when something may be due, and says when to call again.
Which request is next is the request selector's, what a poll does the poller's, what all polls share the session's, who
is watched the registry's.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any

from watcher.domain.models import Known, Watch
from watcher.polling.circuit_breaker import Permission
from watcher.polling.confirmations import Confirmations
from watcher.polling.execution_poller import ExecutionPoller
from watcher.polling.list_poller import Scanner
from watcher.polling.page_processor import Rows, ScanRules
from watcher.polling.poll_queue import Agenda, Entry, Item
from watcher.polling.registry import Found, Roster, as_if_new
from watcher.polling.request_selector import GetTurn, ListTurn, Turn, Turns
from watcher.polling.session import AccountParts, AccountSession

IDLE_S = 10.0
"""The longest time between two rounds: each proves that the loop is alive."""

SHORTEST_ROUND_S = 0.002
"""Timers are no finer; the pacer forgives being this late."""

YIELDING_CONCURRENCY = 8
YIELDING_S = 0.1
"""At most so many requests in flight while deliveries wait for the event loop; whether they do is asked so often."""

GAP_TOLERANCE = 1.1
TIMER_TOLERANCE_S = 0.1
"""A look is late against `max_interval` beyond both: jitter and a busy event loop are no budget that is too small."""


class AccountWatcher:
    """Watches the open executions of the account of that name until they are terminal."""

    def __init__(self, parts: AccountParts, rules: ScanRules) -> None:
        """Watch nothing yet."""
        self.account = parts.lease.name
        self._parts = parts
        self._rules = rules
        self._allowed_gap_s = rules.max_interval_s * GAP_TOLERANCE + TIMER_TOLERANCE_S
        self._clock = parts.clock
        self._health = parts.health
        self._agenda = Agenda(max_interval_s=rules.max_interval_s)
        self._roster = Roster(self._agenda, parts.metrics, min_interval_s=rules.min_interval_s)
        self._session = AccountSession(parts, agenda=self._agenda)
        self._poller = ExecutionPoller(parts, session=self._session, roster=self._roster)
        self._claims = Confirmations(in_time_count=rules.confirmed_at_most)
        rows = Rows(parts, rules, poller=self._poller, roster=self._roster, agenda=self._agenda, claims=self._claims)
        self._scanner = Scanner(
            parts, rules, session=self._session, roster=self._roster, agenda=self._agenda, rows=rows
        )
        self._turns = Turns(self._agenda, self._roster, self._claims)
        self._changing = asyncio.Lock()
        self._asked_lists = Counter[str]()
        self._list_answered = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight_count = 0
        self._next_round_at = float("inf")
        self._draining = False

    @property
    def store_failing(self) -> bool:
        """Whether the last write failed."""
        return self._session.store_failing

    @property
    def lists_read(self) -> Sequence[bool]:
        """Of each pipeline that is watched whole, whether its list was ever read in full."""
        return [bool(listing.cursor.complete_at) for listing in self._roster.listings.values()]

    async def watch(self, watches: Sequence[Watch]) -> None:
        """Watch what these watches ask for, from where its record ends, and nothing else. Raises `StoreError`.

        What the record calls ended is not looked at. An account in trouble is probed at once: its key may be well now.
        """
        async with self._changing:
            with self._roster.noting():
                self._roster.apply(watches, await self._find(watches), now=self._clock.monotonic())
        self._health.probe_at_once()
        self._parts.wake()

    async def round(self) -> float:
        """Start what is due and allowed; return the seconds until the next round is wanted."""
        now = self._clock.monotonic()
        if self._health.failing_since is not None:
            self._health.lived(now=now, ran_s=self._clock.running())
        self._health.check(now)
        self._session.probe_if_suspect(now)
        await self._session.report_trouble()
        self._start_due()
        now = self._clock.monotonic()
        self._next_round_at = self._wanted_at(now)
        return self._next_round_at - now

    async def flush(self) -> None:
        """Let the store know how the account is, and when unchanged executions were looked at. Raises `StoreError`."""
        await self._session.write(self._parts.keeper.keep())
        await self._session.flush()

    async def drain(self) -> None:
        """Start nothing more and wait for what is in flight."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self) -> None:
        """Give up what is in flight; what was not recorded comes due again with the next start."""
        self._draining = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def next_look_at(self, now: float) -> float | None:
        """Return the monotonic time from which the next request may go, `None` while nothing waits for one."""
        wanted_at = self._turns.wanted_at()
        if wanted_at is None:
            return None
        due_at = now if self._health.unusable else wanted_at
        return max(due_at, self._parts.pacer.ready_at(), self._health.opens_at())

    async def _find(self, watches: Sequence[Watch]) -> Found:
        """Look up what the store knows of what is new in these watches."""
        store, lease = self._parts.store, self._parts.lease
        strangers = self._roster.strangers(watches)
        named = await store.load_executions(lease, list(strangers))
        unrecorded = [Known(name, pipeline) for name, pipeline in strangers.items() if name not in named]
        whole = self._roster.unlisted(watches)
        for watch in whole:
            await self._await_rest(watch.pipeline)
        listings = [
            await self._scanner.listing(watch, await store.load_pipeline(lease, watch.pipeline)) for watch in whole
        ]
        found = await store.load_open(lease, [watch.pipeline for watch in whole]) if whole else ()
        return Found((*map(as_if_new, named.values()), *found), unrecorded, listings)

    async def _await_rest(self, pipeline: str) -> None:
        """Wait until nothing of a list that was watched before is asked or written: what is recorded holds then."""
        while self._asked_lists[pipeline]:
            self._list_answered.clear()
            await self._list_answered.wait()

    def _start_due(self) -> None:
        now = self._clock.monotonic()
        for entry in self._claims.expired(now):  # could not be confirmed in time: their rows count
            self._start(self._poll(entry, self._poller.accept(entry)))
        while (turn := self._take()) is not None:
            self._start(self._work(turn))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Let go of a task. One that raised, where nothing catches it, may have lost what it had in its hands."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._parts.fatal(error)

    async def _work(self, turn: Turn) -> None:
        """Make this request and then whatever is next: one that is done frees a place for another."""
        following: Turn | None = turn
        while following is not None:
            try:
                if isinstance(following, GetTurn):
                    await self._poll(following.entry, self._poller.poll(following.entry))
                else:
                    await self._ask(following)
            finally:
                self._in_flight_count -= 1
            following = self._take()
        if self._wanted_at(self._clock.monotonic()) < self._next_round_at - SHORTEST_ROUND_S:
            self._parts.wake()

    async def _ask(self, turn: ListTurn) -> None:
        pipeline = turn.listing.watch.pipeline
        self._asked_lists[pipeline] += 1
        try:
            await self._scanner.ask(turn)
        finally:
            self._asked_lists[pipeline] -= 1
            self._list_answered.set()

    async def _poll(self, entry: Entry, poll: Coroutine[Any, Any, float | None]) -> None:
        next_s: float | None = 0.0  # a poll that is cancelled is due again
        try:
            next_s = await poll
        finally:
            if next_s is None or entry.claim is None or entry.unwatched:
                self._poller.put_back(entry, next_s)
            else:  # its claim could not be confirmed, and waits on for that
                entry.claim.retry_after(next_s, now=self._clock.monotonic())
                self._claims.add(entry)

    def _take(self) -> Turn | None:
        """Take the next turn if a request may go now, spending its slot."""
        now = self._clock.monotonic()
        if self._draining or self._full() or self._parts.pacer.ready_at() > now:
            return None
        match self._health.permission(now):
            case Permission.ALL:
                turn = self._turns.next(now)
            case Permission.PROBE:
                turn = self._turns.probe(self._session.probe_target, now=now)
            case Permission.NOTHING:
                return None
        if turn is not None:
            self._spend(turn, now=now)
        return turn

    def _full(self) -> bool:
        concurrency = self._parts.concurrency
        if self._parts.backpressure:  # many requests at once make long turns of the event loop, and as much work
            concurrency = min(concurrency, YIELDING_CONCURRENCY)
        return self._in_flight_count >= concurrency

    def _spend(self, turn: Turn, *, now: float) -> None:
        self._in_flight_count += 1
        self._parts.pacer.spend(now)
        if self._health.unusable:
            self._health.probed(now)
        else:
            self._note_gaps(turn, now=now)
        self._parts.metrics.lateness.observe(turn.late_s)
        if isinstance(turn, GetTurn):
            turn.entry.asked_at = now
        elif turn.scans:
            turn.listing.scan_asked(now)

    def _note_gaps(self, turn: Turn, *, now: float) -> None:
        """Note the gaps before this turn."""
        if isinstance(turn, GetTurn):
            self._note_gap(turn.entry, turn.entry.asked_at, now=now)
            return
        for entry in turn.entries:
            self._note_gap(entry, entry.asked_at, now=now)
        if turn.scans and not turn.listing.progress.began_at:
            self._note_gap(turn.listing, turn.listing.scanned_at, now=now)

    def _note_gap(self, item: Item, last_at: float, *, now: float) -> None:
        """Note a gap as far as the budget is to blame: a slow answer only makes a look due late."""
        if item.is_expected:
            gap_s = now - max(last_at, item.due_at - self._rules.max_interval_s)
            if gap_s > self._allowed_gap_s:
                self._health.lived(now=now, ran_s=self._clock.running())
                gap_s -= self._health.stopped_s(since=last_at)
            self._health.note_gap(gap_s, allowed_s=self._allowed_gap_s, now=now)

    def _wanted_at(self, now: float) -> float:
        """Return the monotonic time of the next round: when something may start, or should be checked."""
        at = min(now + IDLE_S, self._health.next_check_at(now), self._claims.next_expiry_at())
        look_at = self.next_look_at(now)
        if look_at is not None and not self._draining and not self._full():
            at = min(at, look_at)
        elif self._parts.backpressure:
            at = min(at, now + YIELDING_S)
        return max(at, now + SHORTEST_ROUND_S)
