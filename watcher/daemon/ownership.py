"""The leases that this process holds: its share if replicas share the store, else all of them.

The supervisor starts and ends the owners of the leased accounts and sinks.
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
from watcher.runtime.tasks import start_task, stop_task, wait_at_most
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
"""The time from a failed renewal to the next one."""

AT_ONCE_S = 0.05
"""The time from the moment at which a lease becomes free to the request that takes it."""

MARGIN_S = 1.0
"""A lease is trusted for this much less than its duration: the clocks of two machines differ in speed."""

RELEASE_S = 0.5
"""The longest wait for the write of a release. If the write fails, other replicas wait until the lease expires."""


class Ownership:
    """The leases that this process holds. `fatal` ends the daemon.

    `changed` is called with the keys whose owners must start, end or be built again. `is_agreed` means that all live
    replicas have the same configuration as this one.

    Only `take` raises errors. If no other process uses the store, leases are held for ever. Otherwise a lease is
    trusted for `LEASE_S - MARGIN_S` from the moment at which the last successful renewal was *sent*, on a clock that
    also counts while the machine sleeps. The store gives the lease to another replica only after that time, even if
    later renewals fail or hang.
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
        self._surplus: LeaseKey | None = None  # still held, but another replica should have it
        self._released: list[Lease] = []  # leases whose release is not written yet
        self._renewed_until = self._renew_at = LONG_AGO
        self.is_agreed = False
        self._is_difference_logged = False
        self._requesting = asyncio.Lock()
        self._renewal_wanted = asyncio.Event()  # set to renew at once
        self._renewing: asyncio.Task[None] | None = None
        for kind in ("account", "sink", MAINTENANCE.kind):
            metrics.leases_held.labels(kind).set_function(partial(self._count, kind))
            metrics.lease_takeovers.labels(kind)

    async def want(self, keys: Mapping[LeaseKey, str], *, fingerprint: str) -> None:
        """Request the leases of these keys and of maintenance, and keep them renewed.

        `fingerprint` identifies the configuration. `keys` maps each account to the hash of its API key: two accounts
        with the same API key are never owned at once.
        """
        self._wanted, self._fingerprint, self.is_agreed = {**keys, MAINTENANCE: ""}, fingerprint, False
        await self._run_alone(self._try_to_renew)
        if self._renewing is None:
            self._renewing = start_task(self._keep_renewing(), fatal=self._fatal)

    def may_own(self, key: LeaseKey) -> bool:
        """Return whether a lease is wanted, is held with the right API key, and is not meant for another replica."""
        held = self._held.get(key)
        if held is None or key not in self._wanted or key == self._surplus:
            return False
        return held.trusted_until == FOR_EVER or self._wanted[key] == held.api_key_hash  # no other process uses it

    def is_current(self, held: HeldLease) -> bool:
        """Return whether this lease is still the one that is held for its key."""
        return self._held.get(key_of(held.lease)) is held

    async def take(self, key: LeaseKey) -> HeldLease:
        """Return the lease for a new owner, with an epoch that no earlier owner had. Raises `StoreError`."""
        held = self._held.get(key)
        if held is not None and held.is_used:  # the store must refuse later writes of the last owner
            self._release(held)
            await self._run_alone(self._renew)
            held = self._held.get(key)
        if held is None:
            raise OwnershipLostError(f"another process owns {key.kind} {key.name} by now")
        held.is_used = True
        return held

    async def release(self, key: LeaseKey) -> None:
        """Release a lease that is held, unless this process may own it. Wait at most `RELEASE_S` for the write."""
        held = self._held.get(key)
        if held is not None and not self.may_own(key):
            self._release(held)
            await self._write_releases(self._renew_if_released)

    def mark_lost(self, held: HeldLease) -> None:
        """Drop the lease of an owner whose write the store has refused. This process may take it again after 1 s."""
        if self.is_current(held):
            self._lose(held)
            self._released.append(held.lease)
            self.changed([key_of(held.lease)])
            asyncio.get_running_loop().call_later(RENEW_AGAIN_S, self._renewal_wanted.set)

    def leave(self) -> None:
        """Take no more leases, and no longer count among the replicas that share them."""
        self._wanted, self._fingerprint = {}, None

    async def close(self) -> None:
        """Release all leases."""
        self.leave()
        await stop_task(self._renewing)
        await self._write_releases(self._release_all)

    def problem(self) -> str | None:
        """Return the reason why this replica cannot trust its leases, if there is one."""
        if self._clock.boot_time() < self._renewed_until:
            return None
        return "the leases were not renewed in time, so other replicas may have taken over"

    # Requests to the store

    async def _run_alone(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run one request to the store at a time, to its end even if the caller is cancelled.

        A request that is cut off may change the store without anybody noticing.
        """

        async def do() -> None:
            async with self._requesting:
                await work()

        doing = asyncio.create_task(do())
        doing.add_done_callback(lambda task: task.cancelled() or task.exception())  # the caller may be gone
        await asyncio.shield(doing)

    async def _write_releases(self, work: Callable[[], Awaitable[None]]) -> None:
        """Write releases to the store. Wait at most `RELEASE_S` for the write."""
        await wait_at_most(RELEASE_S, self._run_alone(work))

    async def _renew_if_released(self) -> None:
        if self._released:  # else another renewal has written the release
            await self._try_to_renew()

    async def _release_all(self) -> None:
        for held in list(self._held.values()):
            self._release(held)
        await self._try_to_renew()

    async def _keep_renewing(self) -> None:
        self._leases.renew_now = self._renewal_wanted.set
        while True:
            await wait_at_most(max(0.0, self._renew_at - self._clock.boot_time()), self._renewal_wanted.wait())
            self._renewal_wanted.clear()
            await self._run_alone(self._try_to_renew)
            if self._renew_at == FOR_EVER:
                self.changed(self._wanted.keys())

    async def _try_to_renew(self) -> None:
        with suppress(StoreError):  # after an error nothing counts as renewed
            await self._renew()

    async def _renew(self) -> None:
        sent_at, fingerprint = self._clock.boot_time(), self._fingerprint
        self._renew_at = BootTime(sent_at + RENEW_AGAIN_S)
        wanted = self._wanted
        held, released = {each.lease: each.api_key_hash for each in self._held.values()}, list(self._released)
        sharing = await self._leases.renew(RenewRequest(self._replica, fingerprint, held, wanted, released))
        if sharing.is_for_ever:
            self._renew_at = self._renewed_until = trusted_until = FOR_EVER
        else:
            is_written = len(sharing.taken) < len(sharing.may_take)  # the last owner of a free lease is still writing
            again_s = AT_ONCE_S if is_written else AT_ONCE_S + sharing.next_free_us / 1e6
            self._renew_at = BootTime(sent_at + min(RENEW_EVERY_S, again_s))
            self._renewed_until = BootTime(sent_at + LEASE_S)
            trusted_until = BootTime(sent_at + LEASE_S - MARGIN_S)
        del self._released[: len(released)]
        self.is_agreed = not sharing.differs and fingerprint == self._fingerprint
        if sharing.differs and not self._is_difference_logged:
            note = "each owner uses its own file; until all are alike, nothing that is absent from one is deleted"
            log.warning("config.differs", replicas=sharing.replica_count, note=note)
        self._is_difference_logged = sharing.differs
        lost = [each for each in self._held.values() if each.lease in held.keys() - sharing.kept]
        for each in lost:
            self._lose(each)
        for each in self._held.values():
            each.trusted_until = trusted_until
        for lease, is_takeover in sharing.taken.items():
            key = key_of(lease)
            self._held[key] = HeldLease(lease, clock=self._clock, trusted_until=trusted_until, api_key_hash=wanted[key])
            self._metrics.lease_takeovers.labels(key.kind).inc(is_takeover)
        if sharing.is_for_ever:  # the caller of `want` or `take` handles the new leases
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

    # Held leases

    def _drop(self, held: HeldLease) -> None:
        held.trusted_until = LONG_AGO
        del self._held[key_of(held.lease)]

    def _lose(self, held: HeldLease) -> None:
        self._drop(held)
        log.info("ownership.lost", **{held.lease.kind: held.lease.name})

    def _release(self, held: HeldLease) -> None:
        self._drop(held)
        self._released.append(held.lease)

    def _count(self, kind: str) -> int:
        return sum(key.kind == kind and held.is_trusted() for key, held in self._held.items())
