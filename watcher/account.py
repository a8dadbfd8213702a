"""The watcher of one account: what is due, within the pace. One owner, everything in memory.

It knows nothing of HTTP, sinks or timers: a round is called when something may be due, and says when to call again.
What a look does is `looks`', who is watched the roster's.
"""

import asyncio
from collections.abc import Sequence

from watcher.agenda import Agenda, Entry
from watcher.health import Permission
from watcher.looks import AccountParts, Looks
from watcher.models import Watch
from watcher.roster import Roster

IDLE_S = 10.0
"""The longest time between two rounds: each proves that the loop is alive."""

SHORTEST_ROUND_S = 0.002
"""Timers are no finer; the pacer forgives being this late."""

GAP_TOLERANCE = 1.1
TIMER_TOLERANCE_S = 0.1
"""A look is late against `max_interval` beyond both: jitter and a busy event loop are no budget that is too small."""


class AccountWatcher:
    """Watches the open executions of the account of that name until they are terminal."""

    def __init__(self, parts: AccountParts) -> None:
        """Watch nothing yet."""
        self.account = parts.lease.name
        self._parts = parts
        self._clock = parts.clock
        self._health = parts.health
        self._agenda = Agenda()
        self._roster = Roster(self._agenda, parts.metrics)
        self._looks = Looks(parts, roster=self._roster, agenda=self._agenda)
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight_count = 0
        self._next_round_at = float("inf")
        self._draining = False

    async def watch(self, watches: Sequence[Watch]) -> None:
        """Watch what these watches name, from where its record ends, and nothing else. Raises `StoreError`.

        What the record calls ended is not looked at. An account in trouble is probed at once: its key may be well now.
        """
        strangers = self._roster.strangers(watches)
        recorded = await self._parts.store.load_executions(self._parts.lease, strangers)
        self._roster.apply(watches, strangers=strangers, recorded=recorded, now=self._clock.monotonic())
        self._health.probe_at_once()
        self._parts.wake()

    async def round(self) -> float:
        """Start what is due and allowed; return the seconds until the next round is wanted."""
        now = self._clock.monotonic()
        self._health.check(now)
        if self._health.suspects(now):
            self._looks.ask_witness(now)
        await self._looks.tell_trouble()
        self._start_due()
        now = self._clock.monotonic()
        self._next_round_at = self._wanted_at(now)
        return self._next_round_at - now

    async def flush(self) -> None:
        """Let the store know how the account is, and when unchanged executions were looked at. Raises `StoreError`."""
        await self._parts.keeper.keep()
        await self._looks.flush()

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

    def _start_due(self) -> None:
        while (entry := self._take()) is not None:
            task = asyncio.create_task(self._work(entry))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self, entry: Entry) -> None:
        """Look at this entry and then at whatever is due next: a finished look frees a place for another."""
        following: Entry | None = entry
        while following is not None:
            await self._look(following)
            following = self._take()
        if self._wanted_at(self._clock.monotonic()) < self._next_round_at - SHORTEST_ROUND_S:
            self._parts.wake()

    async def _look(self, entry: Entry) -> None:
        next_s: float | None = 0.0  # a look that is cancelled is due again
        try:
            next_s = await self._looks.look(entry)
        finally:
            self._in_flight_count -= 1
            if next_s is None or entry.unwatched:
                self._roster.leave(entry)
            else:
                self._agenda.put(entry, due_at=max(self._clock.monotonic(), entry.asked_at + next_s))

    def _take(self) -> Entry | None:
        """Take the next entry if one may be asked for now, spending its slot."""
        now = self._clock.monotonic()
        if self._draining or self._full() or self._parts.pacer.ready_at() > now:
            return None
        match self._health.permission(now):
            case Permission.ALL:
                entry = self._agenda.take_due(now)
            case Permission.PROBE:
                entry = self._take_probe(now)
            case Permission.NOTHING:
                return None
        if entry is not None:
            self._spend(entry, now=now)
        return entry

    def _full(self) -> bool:
        return self._in_flight_count >= self._parts.concurrency

    def _take_probe(self, now: float) -> Entry | None:
        """Take the one request of a degraded account: what last succeeded, else any."""
        witness = self._looks.witness
        if witness is None or not witness.queued:
            witness = self._agenda.peek()
        if witness is None:
            return None
        self._health.probed(now)
        return self._agenda.take(witness)

    def _spend(self, entry: Entry, *, now: float) -> None:
        self._in_flight_count += 1
        self._parts.pacer.spend(now)
        self._parts.metrics.lateness.observe(max(0.0, now - entry.due_at))
        if not self._health.unusable and entry.known.lost is None:
            self._note_gap(entry, now=now)
        entry.asked_at = now

    def _note_gap(self, entry: Entry, *, now: float) -> None:
        """Note the gap before this look as far as the budget is to blame: a slow answer only makes it due late."""
        max_interval_s = self._parts.max_interval_s
        gap_s = now - max(entry.asked_at, entry.due_at - max_interval_s)
        self._health.note_gap(gap_s, allowed_s=max_interval_s * GAP_TOLERANCE + TIMER_TOLERANCE_S, now=now)

    def next_look_at(self, now: float) -> float | None:
        """Return the monotonic time from which the next look may start, `None` while none waits."""
        first = self._agenda.peek()
        if first is None:
            return None
        due_at = now if self._health.unusable else first.due_at
        return max(due_at, self._parts.pacer.ready_at(), self._health.opens_at())

    def _wanted_at(self, now: float) -> float:
        """Return the monotonic time of the next round: when something may start, or should be checked."""
        at = min(now + IDLE_S, self._health.next_check_at(now))
        look_at = self.next_look_at(now)
        if look_at is not None and not self._draining and not self._full():
            at = min(at, look_at)
        return max(at, now + SHORTEST_ROUND_S)
