"""The leases of one replica among several: asks the store for them, renews them, and releases them.

What is done with them is the supervisor's. A renewal that fails or hangs holds up nobody: what is held is trusted until
so long after the last renewal that succeeded was *sent*, on a clock that goes on while the machine sleeps, and no
longer. So whatever happened to that renewal, it is over before the store lets anybody else have it.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TypeVar

import structlog

from watcher.daemon.ownership import Notice, Ownership
from watcher.domain.errors import OwnershipLostError, StoreError
from watcher.domain.timestamps import BootTime
from watcher.runtime.clock import Clock, ServerClock
from watcher.runtime.metrics import Metrics
from watcher.store.changes import Lease
from watcher.store.leases import (
    LEASE_S,
    MAINTENANCE,
    NO_BUDGETS,
    HeldLease,
    LeaseKey,
    LeaseReport,
    RenewRequest,
)
from watcher.store.postgresql_leases import PostgresLeases

T = TypeVar("T")

log = structlog.get_logger()

RENEW_EVERY_S = 3.0
LOOK_EVERY_S = 1.0
"""What is free is looked for so often in between, and when it is heard of: another replica may have stopped."""

MARGIN_S = 1.0
"""A lease is trusted for so much less than it is held: clocks do not run alike."""

DECLINED_S = 5.0
"""What could not be used is not taken again for so long: another replica may have less trouble, or none has."""

RETAKEN_WITHIN_S = 2.0
RETAKE_EVERY_S = 0.02
"""What an owner that is replaced is still writing is waited for so long, and looked at so often."""

RELEASE_S = 0.5
"""Nobody waits longer for others to be told: at the latest they find it out when the lease has run out."""


SHOWN_COUNT = 50
"""What was taken, in one line of the log."""

LONG_AGO = BootTime(float("-inf"))
"""Before every other moment: what was trusted until then is not."""

KINDS = ("account", "sink", MAINTENANCE.kind)


def new_identity() -> str:
    """Return a name for this process that no other has, before or after it."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


class Leases(Ownership):
    """What this replica holds of the store's leases. `fatal` is given what must end the program.

    As it renews them it hears the store's time, which the `clock` follows.
    """

    def __init__(
        self,
        store: PostgresLeases,
        *,
        replica: str,
        clock: ServerClock,
        metrics: Metrics,
        fatal: Callable[[BaseException], None],
    ) -> None:
        """Hold nothing, and want nothing yet."""
        self._leases = store
        self._replica = replica
        self._due_clock = clock
        self._fatal = fatal
        self._held = HeldLeases(clock=clock, metrics=metrics)
        self._changed: Notice = lambda _keys: None
        self._trusted: Notice = lambda _keys: None
        self._wanted: frozenset[LeaseKey] = frozenset()
        self._declined: dict[LeaseKey, BootTime] = {}  # until when these are not taken
        self._fingerprint: str | None = None
        self._budgets = NO_BUDGETS
        self._renewed_until = self._renew_at = LONG_AGO
        self._agreed_on: str | None = None  # the fingerprint that all had when this replica last renewed
        self._is_told_of_differing = False
        self._is_closed = False
        self._asking = asyncio.Lock()
        self._released = asyncio.Event()  # by another replica
        self._keeping: asyncio.Task[None] | None = None

    def follow(self, *, changed: Notice, trusted: Notice) -> None:
        """Tell `changed` what may be owned from now on, or may not, and `trusted` what is trusted again."""
        self._changed, self._trusted = changed, trusted

    async def want(
        self, keys: Collection[LeaseKey], *, fingerprint: str, budgets: Mapping[LeaseKey, str] = NO_BUDGETS
    ) -> None:
        """Want to own these, and to tidy the store. Return once the store was asked for them."""
        self._wanted, self._fingerprint = frozenset(keys) | {MAINTENANCE}, fingerprint
        self._budgets = budgets
        self._declined.clear()
        await self._alone(self._renew)
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep(), name="leases")
            self._keeping.add_done_callback(self._ended)

    def may_own(self, key: LeaseKey) -> bool:
        """Return whether this is wanted and held, and to be kept."""
        return key in self._wanted and key in self._held and key not in self._held.surplus()

    def is_current(self, held: HeldLease) -> bool:
        """Return whether this is still the lease on what it names."""
        return self._held.get(key_of(held.lease)) is held

    async def take(self, key: LeaseKey) -> HeldLease:
        """Return the lease for a new owner of what may be owned, under an epoch that no owner before had.

        Raises `StoreError`.
        """
        until = self._due_clock.monotonic() + RETAKEN_WITHIN_S
        while self._held.is_used(key) and not await self._alone(partial(self._retake, key)):
            if self._due_clock.monotonic() >= until:
                raise StoreError(f"what owned {key.kind} {key.name} before is still writing")
            await asyncio.sleep(RETAKE_EVERY_S)  # meanwhile leases are renewed
        held = self._held.get(key)
        if held is None:
            raise OwnershipLostError(f"another process owns {key.kind} {key.name} by now")
        self._held.use(key)
        return held

    async def release(self, key: LeaseKey) -> None:
        """Let others have what is held and may not be owned. Return once they were told, or could not be."""
        if key in self._held and not self.may_own(key):
            await self._soon(partial(self._release, [key]))

    def decline(self, key: LeaseKey) -> None:
        """Own this no longer, though it is wanted and held; it is to be released, and not taken again for a while."""
        if key in self._held:
            self._held.give_up(key)
            self._declined[key] = BootTime(self._due_clock.boot_time() + DECLINED_S)

    def lost(self, held: HeldLease) -> None:
        """Take note that the store says somebody else owns this."""
        if self.is_current(held):
            self._held.lose(held.lease)
            self._changed([key_of(held.lease)])

    def leave(self) -> None:
        """Take nothing any more, and count no more among the replicas that do."""
        self._wanted, self._fingerprint = frozenset(), None

    async def close(self) -> None:
        """Release all that is left."""
        if self._is_closed:
            return
        self._is_closed = True
        self.leave()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        await self._soon(lambda: self._release(list(self._held)))

    def is_agreed(self) -> bool:
        """Return whether all replicas that are alive go by the same configuration as this one."""
        return self._agreed_on is not None and self._agreed_on == self._fingerprint

    def problem(self) -> str | None:
        """Return why this replica cannot be sure of what it owns, if it cannot."""
        if self._due_clock.boot_time() < self._renewed_until:
            return None
        return "the leases were not renewed in time, so other replicas may have taken over"

    # What is asked of the store

    async def _alone(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what this does while nothing else is asked of the store; to its end, whatever becomes of who waits.

        Else what it has changed there would be known to nobody.
        """

        async def do() -> T:
            async with self._asking:
                return await work()

        doing = asyncio.create_task(do())
        doing.add_done_callback(_seen)
        return await asyncio.shield(doing)

    async def _soon(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have this done, and wait for it, but not long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_S):
                await self._alone(work)

    async def _keep(self) -> None:
        self._leases.follow(self._released.set)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._released.wait()
            self._released.clear()
            await self._alone(self._look)

    async def _look(self) -> None:
        """Renew when it is time, or when something is free that is wanted here."""
        if self._due_clock.boot_time() >= self._renew_at or await self._finds_free():
            await self._renew()

    async def _finds_free(self) -> bool:
        missing = [key for key in self._asked_for() if key not in self._held]
        try:
            return bool(missing) and await self._leases.finds_free(missing, budgets=self._budgets)
        except StoreError:
            return False

    def _asked_for(self) -> Collection[LeaseKey]:
        now = self._due_clock.boot_time()
        return [key for key in self._wanted if self._declined.get(key, LONG_AGO) <= now]

    async def _renew(self) -> None:
        sent_at, asked_at, fingerprint = (
            self._due_clock.boot_time(),
            self._due_clock.steady_us(),
            self._fingerprint,
        )
        self._renew_at = BootTime(sent_at + RENEW_EVERY_S)
        held, wanted = self._held.leases(), self._asked_for()
        request = RenewRequest(self._replica, fingerprint, held, wanted, self._budgets)
        try:
            report = await self._leases.renew(request)
        except StoreError:  # whatever came of it, nothing is believed renewed
            return
        self._renewed_until = BootTime(sent_at + LEASE_S)
        self._due_clock.follow(report.server_us, asked_at=asked_at)
        again = self._held.take_in(report, trusted_until=BootTime(sent_at + LEASE_S - MARGIN_S))
        self._note_configurations(report, fingerprint=fingerprint)
        taken = [key_of(each.lease) for each in report.taken]
        self._changed([*taken, *map(key_of, report.lost), *self._held.surplus()])
        self._trusted(again)

    async def _retake(self, key: LeaseKey) -> bool:
        """Return whether the next owner may begin, or has nothing to begin with; `False` while the last one writes."""
        held = self._held.get(key)
        if held is None:
            return True
        try:
            lease = await self._leases.retake(held.lease)
        except OwnershipLostError:
            self.lost(held)
            return True
        if lease is not None:
            self._held.replace(held, lease)
        return lease is not None

    async def _release(self, keys: Collection[LeaseKey]) -> None:
        """Release these; what the store does not hear of runs out. Then the next may be to be given up."""
        leases = self._held.leases(keys)
        for lease in leases:
            self._held.drop(lease)
        with suppress(StoreError):
            await self._leases.release(leases, leaving=None if self._fingerprint else self._replica)
        if self._fingerprint:
            await self._renew()

    # What it leads to

    def _note_configurations(self, report: LeaseReport, *, fingerprint: str | None) -> None:
        self._agreed_on = None if report.differs else fingerprint
        if report.differs and not self._is_told_of_differing:
            note = "each owner goes by its own; meanwhile nothing goes that is not named any more"
            log.warning("config.differs", replicas=report.replica_count, note=note)
        self._is_told_of_differing = report.differs

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._fatal(error)


def _seen(task: asyncio.Task[T]) -> None:
    """Take note of an error that nobody may wait for any more."""
    if not task.cancelled():
        task.exception()


class HeldLeases:
    """What a replica holds, by name: which of it is in use, and what others are to have. It asks nobody anything."""

    def __init__(self, *, clock: Clock, metrics: Metrics) -> None:
        """Hold nothing yet."""
        self._surplus: set[LeaseKey] = set()  # what others are to have, and is still held
        self._clock = clock
        self._metrics = metrics
        self._held: dict[LeaseKey, HeldLease] = {}
        self._used: set[LeaseKey] = set()  # whose lease an owner has had
        for kind in KINDS:
            metrics.leases_held.labels(kind).set_function(partial(self._count, kind))
            metrics.lease_takeovers.labels(kind)

    def __contains__(self, key: LeaseKey) -> bool:
        return key in self._held

    def __iter__(self) -> Iterator[LeaseKey]:
        return iter(self._held)

    def get(self, key: LeaseKey) -> HeldLease | None:
        """Return what is held on this."""
        return self._held.get(key)

    def leases(self, keys: Collection[LeaseKey] | None = None) -> list[Lease]:
        """Return what is held, of these keys if they are given."""
        return [held.lease for key, held in self._held.items() if keys is None or key in keys]

    def surplus(self) -> Collection[LeaseKey]:
        """Return what others are to have, as soon as its owner here has ended."""
        return self._surplus

    def give_up(self, key: LeaseKey) -> None:
        """Let others have this, though it is not too much."""
        self._surplus.add(key)

    def is_used(self, key: LeaseKey) -> bool:
        """Return whether an owner has had this lease."""
        return key in self._used

    def use(self, key: LeaseKey) -> None:
        """Note that an owner is given this lease."""
        self._used.add(key)

    def replace(self, held: HeldLease, lease: Lease) -> None:
        """Hold the same under another epoch; nobody acts under the one before any more."""
        self._held[key_of(lease)] = HeldLease(lease, clock=self._clock, trusted_until=held.trusted_until)
        held.trusted_until = LONG_AGO

    def take_in(self, report: LeaseReport, *, trusted_until: BootTime) -> list[LeaseKey]:
        """Take in what came of a renewal; return what was not trusted before it."""
        for lease in report.lost:
            self.lose(lease)
        again = [key for key, held in self._held.items() if not held.is_trusted()]
        for held in self._held.values():
            held.trusted_until = trusted_until
        for lease, is_takeover in report.taken:
            self._held[key_of(lease)] = HeldLease(lease, clock=self._clock, trusted_until=trusted_until)
            self._metrics.lease_takeovers.labels(lease.kind).inc(is_takeover)
        self._choose_surplus(report.surplus)
        if report.taken:
            self._say_taken(report)
        return again

    def lose(self, lease: Lease) -> None:
        """Let go of what somebody else owns by now, which is ordinary."""
        if self.drop(lease):
            log.info("ownership.lost", **{lease.kind: lease.name})

    def drop(self, lease: Lease) -> bool:
        """Hold this no more; return whether it was held under that epoch."""
        key = key_of(lease)
        held = self._held.get(key)
        if held is None or held.lease != lease:
            return False
        held.trusted_until = LONG_AGO
        del self._held[key]
        self._used.discard(key)
        self._surplus.discard(key)
        return True

    def _choose_surplus(self, counts: Mapping[str, int]) -> None:
        """Choose one that others are to have, unless one was chosen before: that may still be in use."""
        if not self._surplus:
            candidates = [key for key in self._held if counts.get(key.kind, 0) > 0]
            self._surplus.update(candidates[-1:])

    def _say_taken(self, report: LeaseReport) -> None:
        taken = [f"{lease.kind} {lease.name}" for lease, _ in report.taken]
        log.info(
            "ownership.taken",
            taken=taken[:SHOWN_COUNT],
            more=max(0, len(taken) - SHOWN_COUNT),
            takeovers=sum(is_takeover for _, is_takeover in report.taken),
            replicas=report.replica_count,
        )

    def _count(self, kind: str) -> int:
        """Return how many of a kind are trusted: what ran out may be another's by now."""
        return sum(key.kind == kind and held.is_trusted() for key, held in self._held.items())


def key_of(lease: Lease) -> LeaseKey:
    """Return what a lease is on."""
    return LeaseKey(lease.kind, lease.name)
