"""What this process may own: its part of the leases that replicas share, and all where no other may use the store.

What is done with it is the supervisor's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from functools import partial

import structlog

from watcher.domain.errors import OwnershipLostError, StoreError
from watcher.domain.timestamps import BootTime
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.runtime.threads import raise_to
from watcher.store.changes import Lease
from watcher.store.leases import (
    FOR_EVER,
    LEASE_S,
    LONG_AGO,
    MAINTENANCE,
    HeldLease,
    LeaseKey,
    LocalLeases,
    PostgresLeases,
    RenewRequest,
    key_of,
)

log = structlog.get_logger()

RENEW_EVERY_S = 3.0
RENEW_AGAIN_S = 1.0
"""After a renewal that failed the next one comes sooner."""

AT_ONCE_S = 0.05
"""What is about to be free is taken so soon after it is."""

MARGIN_S = 1.0
"""A lease is trusted for so much less than it is held: clocks do not run alike."""

RELEASE_S = 0.5
"""Nobody waits longer for others to be told: at the latest they find it out when the lease has run out."""


class Ownership:
    """What this process holds of the store's leases. `fatal` is given what must end the program.

    `changed` hears what may be owned from now on, or may not, or is to begin anew. `is_agreed` says whether all
    replicas that are alive go by the same configuration as this one.

    None of its methods raises an error but `take`. Where no other process may use the store, what was taken is held for
    ever. Else a renewal that fails or hangs holds up nobody: what is held is trusted until so long after the last
    renewal that succeeded was *sent*, on a clock that goes on while the machine sleeps, and no longer. So whatever
    happened to that renewal, it is over before the store lets anybody else have it.
    """

    def __init__(
        self,
        store: LocalLeases | PostgresLeases,
        *,
        replica: str,
        clock: Clock,
        metrics: Metrics,
        fatal: Callable[[BaseException], None],
    ) -> None:
        self._leases = store
        self._replica = replica
        self._clock = clock
        self._metrics = metrics
        self._fatal = fatal
        self.changed: Callable[[Collection[LeaseKey]], None] = lambda _keys: None
        self._wanted: Mapping[LeaseKey, str] = {}
        self._fingerprint: str | None = None
        self._held: dict[LeaseKey, HeldLease] = {}
        self._surplus: LeaseKey | None = None  # what others are to have, and is still held
        self._released: list[Lease] = []  # what the store is to hear of
        self._renewed_until = self._renew_at = LONG_AGO
        self.is_agreed = False
        self._is_told_of_differing = False
        self._asking = asyncio.Lock()
        self._called = asyncio.Event()  # to renew at once
        self._keeping: asyncio.Task[None] | None = None
        for kind in ("account", "sink", MAINTENANCE.kind):
            metrics.leases_held.labels(kind).set_function(partial(self._count, kind))
            metrics.lease_takeovers.labels(kind)

    async def want(self, keys: Mapping[LeaseKey, str], *, fingerprint: str) -> None:
        """Want to own these, and to tidy the store, by a configuration with that fingerprint.

        With each account stands the hash of the API key that it spends: two that spend the same are not owned at once.
        Return once the store was asked for them.
        """
        self._wanted, self._fingerprint, self.is_agreed = {**keys, MAINTENANCE: ""}, fingerprint, False
        await self._alone(self._try_to_renew)
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep(), name="leases")
            self._keeping.add_done_callback(partial(raise_to, self._fatal))

    def may_own(self, key: LeaseKey) -> bool:
        """Return whether this is wanted and held, with the right API key, and to be kept."""
        held = self._held.get(key)
        if held is None or key not in self._wanted or key == self._surplus:
            return False
        return held.trusted_until == FOR_EVER or self._wanted[key] == held.spends  # for ever: nobody else spends it

    def is_current(self, held: HeldLease) -> bool:
        """Return whether this is still the lease on what it names."""
        return self._held.get(key_of(held.lease)) is held

    async def take(self, key: LeaseKey) -> HeldLease:
        """Return the lease for a new owner of what may be owned, under an epoch that no owner before had.

        Raises `StoreError`.
        """
        held = self._held.get(key)
        if held is not None and held.is_used:  # whatever its last owner still writes is to be refused
            self._give_up(held)
            await self._alone(self._renew)
            held = self._held.get(key)
        if held is None:
            raise OwnershipLostError(f"another process owns {key.kind} {key.name} by now")
        held.is_used = True
        return held

    async def release(self, key: LeaseKey) -> None:
        """Let others have what is held and may not be owned. Return once they were told, or could not be."""
        held = self._held.get(key)
        if held is not None and not self.may_own(key):
            self._give_up(held)
            await self._tell(self._renew_if_released)

    def lost(self, held: HeldLease) -> None:
        """Take note that the store holds something else than the owner believes. After a pause it may be taken anew."""
        if self.is_current(held):
            self._lose(held)
            self._released.append(held.lease)
            self.changed([key_of(held.lease)])
            asyncio.get_running_loop().call_later(RENEW_AGAIN_S, self._called.set)

    def leave(self) -> None:
        """Take nothing any more, and count no more among the replicas that do."""
        self._wanted, self._fingerprint = {}, None

    async def close(self) -> None:
        """Release all that is left."""
        self.leave()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        await self._tell(self._release_all)

    def problem(self) -> str | None:
        """Return why this replica cannot be sure of what it owns, if it cannot."""
        if self._clock.boot_time() < self._renewed_until:
            return None
        return "the leases were not renewed in time, so other replicas may have taken over"

    # What is asked of the store

    async def _alone(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do this while nothing else is asked of the store; to its end, whatever becomes of who waits.

        Else what it has changed there would be known to nobody.
        """

        async def do() -> None:
            async with self._asking:
                await work()

        doing = asyncio.create_task(do())
        doing.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may wait for it any more
        await asyncio.shield(doing)

    async def _tell(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have the others told what is released, and wait for that, but not long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_S):
                await self._alone(work)

    async def _renew_if_released(self) -> None:
        if self._released:  # else another renewal has told it
            await self._try_to_renew()

    async def _release_all(self) -> None:
        for held in list(self._held.values()):
            self._give_up(held)
        await self._try_to_renew()

    async def _keep(self) -> None:
        self._leases.renew_now = self._called.set
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._renew_at - self._clock.boot_time())):
                    await self._called.wait()
            self._called.clear()
            await self._alone(self._try_to_renew)
            if self._renew_at == FOR_EVER:
                self.changed(self._wanted.keys())

    async def _try_to_renew(self) -> None:
        with suppress(StoreError):  # whatever came of it, nothing is believed renewed
            await self._renew()

    async def _renew(self) -> None:
        sent_at, fingerprint = self._clock.boot_time(), self._fingerprint
        self._renew_at = BootTime(sent_at + RENEW_AGAIN_S)
        wanted = self._wanted
        held, released = {each.lease: each.spends for each in self._held.values()}, list(self._released)
        sharing = await self._leases.renew(RenewRequest(self._replica, fingerprint, held, wanted, released))
        if sharing.is_for_ever:
            self._renew_at = self._renewed_until = trusted_until = FOR_EVER
        else:
            is_written = len(sharing.taken) < len(sharing.may_take)  # by its last owner, for a moment yet
            again_s = AT_ONCE_S if is_written else AT_ONCE_S + sharing.next_free_us / 1e6
            self._renew_at = BootTime(sent_at + min(RENEW_EVERY_S, again_s))
            self._renewed_until = BootTime(sent_at + LEASE_S)
            trusted_until = BootTime(sent_at + LEASE_S - MARGIN_S)
        del self._released[: len(released)]
        self.is_agreed = not sharing.differs and fingerprint == self._fingerprint
        if sharing.differs and not self._is_told_of_differing:
            note = "each owner goes by its own; meanwhile nothing goes that is not named any more"
            log.warning("config.differs", replicas=sharing.replica_count, note=note)
        self._is_told_of_differing = sharing.differs
        lost = [each for each in self._held.values() if each.lease in held.keys() - sharing.kept]
        for each in lost:
            self._lose(each)
        for each in self._held.values():
            each.trusted_until = trusted_until
        for lease, is_takeover in sharing.taken.items():
            key = key_of(lease)
            self._held[key] = HeldLease(lease, clock=self._clock, trusted_until=trusted_until, spends=wanted[key])
            self._metrics.lease_takeovers.labels(key.kind).inc(is_takeover)
        if sharing.is_for_ever:  # who has asked for it knows
            return
        if sharing.taken:
            taken = [f"{lease.kind} {lease.name}" for lease in sharing.taken]
            log.info(
                "ownership.taken",
                taken=taken[:50],
                more=max(0, len(taken) - 50),
                takeovers=sum(sharing.taken.values()),
                replicas=sharing.replica_count,
            )
        self._surplus = sharing.surplus
        changed = [*map(key_of, sharing.taken), *(key_of(each.lease) for each in lost)]
        self.changed([*changed, self._surplus] if self._surplus else changed)

    # What is held

    def _drop(self, held: HeldLease) -> None:
        held.trusted_until = LONG_AGO
        del self._held[key_of(held.lease)]

    def _lose(self, held: HeldLease) -> None:
        self._drop(held)
        log.info("ownership.lost", **{held.lease.kind: held.lease.name})

    def _give_up(self, held: HeldLease) -> None:
        self._drop(held)
        self._released.append(held.lease)

    def _count(self, kind: str) -> int:
        return sum(key.kind == kind and held.is_trusted() for key, held in self._held.items())
