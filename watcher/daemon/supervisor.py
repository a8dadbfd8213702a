"""The owners of this process: a poller for each account and a worker for each sink.

An owner runs if the configuration wants it and this process holds its lease. A new configuration leaves an unchanged
owner alone. An owner whose settings changed is drained, then built again from the store. New watches go to the running
poller. An owner whose lease is lost ends. An owner that another replica should have is drained, and its lease is
released.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial

import structlog

from watcher.config.models import Settings, SilenceSettings
from watcher.daemon.build import OwnerDependencies, build_account, build_worker
from watcher.daemon.from_settings import fingerprint_of_key, fingerprint_of_settings, routes_of, silences_of, watches_of
from watcher.daemon.ownership import Ownership
from watcher.delivery.worker import DeliveryWorker
from watcher.domain.errors import OwnershipLostError, StoreError, StoreUnusableError
from watcher.polling.account_poller import AccountPoller
from watcher.runtime.tasks import start_task
from watcher.store.leases import HeldLease, LeaseKey

log = structlog.get_logger()

DRAIN_S = 5.5
"""The longest time for an owner to drain. It leaves time to close everything within the 8 s of a stop."""

FLUSH_S = 0.5

RETRY_S = 3.0
"""The time after which an owner that could not start, change or end is tried again."""


@dataclass(slots=True)
class _Owner:
    """A running owner: its poller or worker, its settings, its lease, and the stack that closes it.

    `ends_at` is the end of the time to drain, on the clock of the event loop; `None` until the owner drains.
    """

    part: AccountPoller | DeliveryWorker
    wanted: object
    held: HeldLease
    stack: AsyncExitStack
    ends_at: float | None = None


class Supervisor:
    """The owners of one process.

    `applied` are the settings of all owners; `None` while new settings are being applied, until that has succeeded.
    Maintenance holds the lock `tidying` while it works by `applied`. `stored` are the silences that are in the store,
    not in the settings.
    """

    def __init__(self, shared: OwnerDependencies, ownership: Ownership, *, drain_s: float = DRAIN_S) -> None:
        self._shared = shared
        self._ownership = ownership
        self._drain_s = drain_s
        self.applied: Settings | None = None
        self.tidying = asyncio.Lock()
        self._settings = Settings()
        self.stored: Sequence[SilenceSettings] = ()
        self._wanted: dict[LeaseKey, object] = {}  # the settings of each owner; if they change, it is built again
        self._owners: dict[LeaseKey, _Owner] = {}
        self._changing: defaultdict[LeaseKey, asyncio.Lock] = defaultdict(asyncio.Lock)  # never removed
        self._changes: set[asyncio.Task[None]] = set()
        ownership.changed = self._ownership_changed

    def parts(self) -> list[AccountPoller | DeliveryWorker]:
        """Return the pollers of the accounts and the workers of the sinks."""
        return [owner.part for owner in self._owners.values()]

    def accounts(self) -> list[AccountPoller]:
        """Return the pollers of the accounts."""
        return [part for part in self.parts() if isinstance(part, AccountPoller)]

    def workers(self) -> list[DeliveryWorker]:
        """Return the workers of the sinks."""
        return [part for part in self.parts() if isinstance(part, DeliveryWorker)]

    def apply_silences(self, stored: Sequence[SilenceSettings]) -> None:
        """Apply the silences of the configuration and the stored ones from now on."""
        self.stored = stored
        self._shared.silences.all = tuple(silences_of(self._settings, stored))

    async def apply(self, settings: Settings) -> None:
        """Start the owners that this configuration wants and whose leases are held, and end all others.

        Each owner changes on its own: an owner that drains for long delays no other. Raises `StoreError` if some owners
        could not be changed. After an error, or after it was cancelled for a newer configuration, it may be called
        again. Owners that are draining then keep their time limit, and are built again from the newer settings.

        No maintenance runs meanwhile. With the old settings it would close a problem that a new rule has just opened.
        With the new settings it would close a problem that an old owner still works on.
        """
        self.applied = None
        async with self.tidying:  # wait for maintenance by the old settings
            pass
        self._shared.events.router.routes = routes_of(settings)
        self._settings, public_url = settings, settings.http.public_url
        self._wanted = {LeaseKey("sink", name): (sink, public_url) for name, sink in settings.sinks.items()}
        for name, account in settings.accounts.items():
            self._wanted[LeaseKey("account", name)] = (account, settings.polling, settings.store.retention_s)
        self.apply_silences(self.stored)
        keys = {LeaseKey("account", name): fingerprint_of_key(each.api_key) for name, each in settings.accounts.items()}
        spent = {key: keys.get(key, "") for key in self._wanted}
        await self._ownership.want(spent, fingerprint=fingerprint_of_settings(settings))
        # Running owners come first: an API key may move to another account, whose owner may start only once the old one
        # has drained.
        changing = dict.fromkeys([*self._owners, *self._wanted, *self._changing])
        raise_worst(await asyncio.gather(*map(self._change, changing), return_exceptions=True))
        self.applied = settings

    async def stop(self) -> None:
        """Drain all owners, each within its time limit, and release their leases.

        Work that takes too long is cancelled, and is due again later.
        """
        self._ownership.leave()
        for change in self._changes:
            change.cancel()
        # All at once: their last flushes are one transaction, so a store that hangs is waited for once.
        outcomes = await asyncio.gather(*map(self._change, list(self._changing)), return_exceptions=True)
        await self._ownership.close()
        raise_worst(outcomes)

    def _ownership_changed(self, keys: Collection[LeaseKey]) -> None:
        """Start or end the owners of these keys, as the leases now allow."""
        for key in keys:
            change = start_task(self._change_or_retry(key), fatal=self._shared.fatal)
            self._changes.add(change)
            change.add_done_callback(self._changes.discard)

    async def _change_or_retry(self, key: LeaseKey) -> None:
        try:
            await self._change(key)
        except StoreUnusableError:
            raise
        except StoreError as error:
            log.warning("ownership.failed", **{key.kind: key.name}, problem=str(error))
            asyncio.get_running_loop().call_later(RETRY_S, self._ownership_changed, [key])

    async def _change(self, key: LeaseKey) -> None:
        """Start, change or end one owner, by its settings and lease of this moment. Raises `StoreError`.

        A lease that is lost meanwhile is no error: the next owner reloads from the store.
        """
        async with self._changing[key]:
            owner, wanted = self._owners.get(key), self._wanted_now(key)
            if owner is not None and (
                owner.ends_at is not None or owner.wanted != wanted or not self._ownership.is_current(owner.held)
            ):
                await self._end(key, owner)
                wanted = self._wanted_now(key)  # settings or lease may have changed meanwhile
            if wanted is not None:
                with suppress(OwnershipLostError):
                    await self._make(key, wanted)
            if key not in self._owners:
                self._shared.metrics.forget(key.kind, key.name)
            if wanted is None:
                await self._ownership.release(key)

    def _wanted_now(self, key: LeaseKey) -> object | None:
        return self._wanted.get(key) if self._ownership.may_own(key) else None

    async def _make(self, key: LeaseKey, wanted: object) -> None:
        settings, owner = self._settings, self._owners.get(key)
        held = await self._ownership.take(key) if owner is None else owner.held
        try:
            part = await self._start(key, wanted, held, settings) if owner is None else owner.part
            if isinstance(part, AccountPoller):
                await part.watch(watches_of(settings, part.account))
        except OwnershipLostError:
            self._ownership.mark_lost(held)

    async def _start(
        self, key: LeaseKey, wanted: object, held: HeldLease, settings: Settings
    ) -> AccountPoller | DeliveryWorker:
        shared = replace(self._shared, fatal=partial(self._failed, held=held))
        async with AsyncExitStack() as stack:
            stack.callback(self._owners.pop, key, None)
            build = build_worker if key.kind == "sink" else build_account
            part: AccountPoller | DeliveryWorker = await build(shared, stack, held, settings)
            stack.push_async_callback(_close, part)
            self._owners[key] = _Owner(part, wanted, held, stack.pop_all())
        self._shared.schedule.add(f"{key.kind}:{key.name}", part.tick, failed=shared.fatal)
        return part

    def _failed(self, error: BaseException, *, held: HeldLease) -> None:
        if isinstance(error, OwnershipLostError):
            self._ownership.mark_lost(held)
        else:
            self._shared.fatal(error)

    async def _end(self, key: LeaseKey, owner: _Owner) -> None:
        """Drain an owner and close it. If this is cancelled, it must be called again: the time limit stays the same."""
        if owner.ends_at is None:
            owner.ends_at = asyncio.get_running_loop().time() + self._drain_s
        outcomes: list[BaseException | None] = []
        # Both at once: a tick that hangs on the store must find its part draining when it continues.
        ending = [self._shared.schedule.remove(f"{key.kind}:{key.name}"), owner.part.drain()]
        try:
            async with asyncio.timeout_at(owner.ends_at):
                outcomes += await asyncio.gather(*ending, return_exceptions=True)
        except TimeoutError:
            log.warning("drain.cut_short", **{key.kind: key.name})
        outcomes += await asyncio.gather(owner.stack.aclose(), return_exceptions=True)
        raise_worst(outcomes)


async def _close(part: AccountPoller | DeliveryWorker) -> None:
    await part.cancel()
    with suppress(StoreError, TimeoutError):  # without this flush, the store is only a few seconds behind
        async with asyncio.timeout(FLUSH_S):
            await part.flush()


def raise_worst(outcomes: Sequence[BaseException | None]) -> None:
    """Raise the worst of these errors: a bug, else a `StoreUnusableError`, else another `StoreError`.

    A lost lease is no error: that owner ends, and the next one reloads from the store.
    """
    errors = [each for each in outcomes if each is not None and not isinstance(each, OwnershipLostError)]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, StoreError) * (2 - isinstance(error, StoreUnusableError)))
