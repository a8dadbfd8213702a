"""Who owns what: a poller for each account and a worker for each sink, made to match a configuration, and then another.

An owner is what is wanted by the configuration and held by this process. What a new configuration leaves as it was goes
on undisturbed; what it changes is drained, and begins anew from the store; watches are handed over to the poller as it
runs. What another process has taken over is let go of, what it is to take is drained and released.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial

import structlog

from watcher.config.models import Settings, SilenceSettings
from watcher.daemon.build import build_account, fingerprint_of_settings, routes_of, silences_of, watches_of
from watcher.daemon.build_worker import OwnerDependencies, build_worker
from watcher.daemon.ownership import Ownership, leases_wanted_by, wanted_by
from watcher.delivery.worker import DeliveryWorker
from watcher.domain.errors import OwnershipLostError, StoreError, StoreUnusableError
from watcher.polling.account_poller import AccountPoller
from watcher.runtime.threads import raise_to
from watcher.store.leases import HeldLease, LeaseKey
from watcher.store.records import OpenProblem

log = structlog.get_logger()

DRAIN_S = 5.5
"""What is in flight at the end has so long to finish: with closing everything, the end comes within 8 s."""

FLUSH_S = 0.5

RETRY_S = 3.0
"""What could not begin is tried again after this time."""


@dataclass(frozen=True, slots=True)
class _Owned:
    """A part that runs, what it was built from, under which lease, and what closes it."""

    part: AccountPoller | DeliveryWorker
    wanted: object
    held: HeldLease
    stack: AsyncExitStack


class Supervisor:
    """The owners of one process."""

    def __init__(self, shared: OwnerDependencies, ownership: Ownership, *, drain_s: float = DRAIN_S) -> None:
        """Own nothing yet."""
        self._shared = shared
        self._ownership = ownership
        self._drain_s = drain_s
        self._settings = Settings()
        self._stored: Sequence[SilenceSettings] = ()
        self._wanted: Mapping[LeaseKey, object] = {}
        self._owners: dict[LeaseKey, _Owned] = {}
        self._endings: dict[LeaseKey, asyncio.Task[None]] = {}
        self._shown: set[LeaseKey] = set()
        self._changing: defaultdict[LeaseKey, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._changes: set[asyncio.Task[None]] = set()
        self._stopping = False
        ownership.changed = self._ownership_changed

    def owned(self) -> list[AccountPoller | DeliveryWorker]:
        """Return the pollers of the accounts and the workers of the sinks."""
        return [owner.part for owner in self._owners.values()]

    def accounts(self) -> list[AccountPoller]:
        """Return the pollers of the accounts."""
        return [part for part in self.owned() if isinstance(part, AccountPoller)]

    def workers(self) -> list[DeliveryWorker]:
        """Return the workers of the sinks."""
        return [part for part in self.owned() if isinstance(part, DeliveryWorker)]

    def closed(self, problem: OpenProblem) -> None:
        """Let the owner of an overdue execution know that its problem was closed, which no event of it has done."""
        owner = self._owners.get(LeaseKey("account", problem.name))
        if problem.execution is not None and owner is not None and isinstance(owner.part, AccountPoller):
            owner.part.end_overdue(problem.execution, opening=problem.problem.opening)

    def keep_back(self, stored: Sequence[SilenceSettings]) -> None:
        """Keep back what the silences of the configuration and these say, from now on."""
        self._stored = stored
        self._shared.silences.all = tuple(silences_of(self._settings, stored))

    async def apply(self, settings: Settings) -> None:
        """Own what this configuration asks for, as far as it is held, and nothing else.

        Each owner changes on its own: one that takes long to drain holds up no other. Raises `StoreError` when that is
        not done in full. Then, or cancelled for a newer configuration, it may be called again, and goes on from there:
        what drains does so meanwhile, and becomes what is wanted by then.
        """
        self._shared.events.router.routes = routes_of(settings)
        self._settings, self._wanted = settings, wanted_by(settings)
        self.keep_back(self._stored)
        await self._ownership.want(leases_wanted_by(settings), fingerprint=fingerprint_of_settings(settings))
        # An API key may go from one account to another: what ends is draining before what begins has asked the store.
        keys = dict.fromkeys([*self._owners, *self._wanted, *self._shown])
        _raise_worst(await asyncio.gather(*map(self._change, keys), return_exceptions=True))

    async def stop(self) -> None:
        """Let nothing new start, and what is in flight end; what takes too long is given up and comes due again.

        Each is released once it has ended.
        """
        self._stopping = True
        self._ownership.leave()
        for change in self._changes:
            change.cancel()
        lasting = [key for key in self._owners if key not in self._endings]
        stopping = asyncio.create_task(self._stop(lasting))
        self._endings.update(dict.fromkeys(lasting, stopping))  # one that loses its ownership now ends only once
        outcomes = await asyncio.gather(stopping, *self._endings.values(), return_exceptions=True)
        await self._ownership.close()
        _raise_worst(outcomes)

    def _ownership_changed(self, keys: Collection[LeaseKey]) -> None:
        """Begin with what may be owned by now, and end what may not."""
        if self._stopping:
            return
        for key in keys:
            change = asyncio.create_task(self._change_or_retry(key))
            self._changes.add(change)
            change.add_done_callback(self._changes.discard)
            change.add_done_callback(partial(raise_to, self._shared.fatal))

    async def _change_or_retry(self, key: LeaseKey) -> None:
        """Make one owner what is wanted; while the store keeps it from beginning, now and then."""
        try:
            await self._change(key)
        except StoreUnusableError:
            raise
        except StoreError as error:
            log.warning("ownership.failed", **{key.kind: key.name}, problem=str(error))
            asyncio.get_running_loop().call_later(RETRY_S, self._ownership_changed, [key])

    async def _change(self, key: LeaseKey) -> None:
        """Make one owner what is wanted by now, or end it if it may not be owned. Raises `StoreError`.

        That it is lost meanwhile is no error: whoever owns it next begins anew.
        """
        async with self._changing[key]:
            owner = self._owners.get(key)
            wanted = self._wanted_now(key)
            if owner is not None and (
                key in self._endings or owner.wanted != wanted or not self._ownership.is_current(owner.held)
            ):
                await self._end(key)
                wanted = self._wanted_now(key)  # another by now, perhaps
            if wanted is None:
                self._forget(key)
                await self._ownership.release(key)
                return
            with suppress(OwnershipLostError):
                await self._make(key, wanted)
            if key not in self._owners:
                self._forget(key)

    async def _make(self, key: LeaseKey, wanted: object) -> None:
        settings, owner = self._settings, self._owners.get(key)
        held = await self._ownership.take(key) if owner is None else owner.held
        try:
            owner = owner or await self._start(key, wanted, held=held, settings=settings)
            if isinstance(owner.part, AccountPoller):
                await owner.part.watch(watches_of(settings, owner.part.account))
        except OwnershipLostError:
            self._ownership.lost(held)

    def _wanted_now(self, key: LeaseKey) -> object | None:
        return self._wanted.get(key) if self._ownership.may_own(key) else None

    async def _end(self, key: LeaseKey) -> None:
        """End one owner, or wait until it has: nobody's cancellation breaks that off."""
        if key not in self._endings:
            self._endings[key] = asyncio.create_task(self._stop([key]))
            # Whoever waits for it may leave.
            self._endings[key].add_done_callback(partial(raise_to, self._shared.fatal))
        await asyncio.shield(self._endings[key])

    def _failed(self, error: BaseException, *, held: HeldLease) -> None:
        """Let go of what the store holds otherwise by now; whatever else fails ends the daemon."""
        if isinstance(error, OwnershipLostError):
            self._ownership.lost(held)
        else:
            self._shared.fatal(error)

    def _forget(self, key: LeaseKey) -> None:
        """Take what is owned no more out of the metrics."""
        if key in self._shown:
            self._shown.discard(key)
            self._shared.metrics.forget(key.kind, key.name)

    async def _start(self, key: LeaseKey, wanted: object, *, held: HeldLease, settings: Settings) -> _Owned:
        self._shown.add(key)
        shared = replace(self._shared, fatal=partial(self._failed, held=held))
        async with AsyncExitStack() as stack:
            part: AccountPoller | DeliveryWorker
            if key.kind == "sink":
                part = await build_worker(
                    shared, stack, held, settings=settings.sinks[key.name], public_url=settings.http.public_url
                )
            else:
                part = await build_account(
                    shared,
                    stack,
                    held,
                    settings=settings.accounts[key.name],
                    polling=settings.polling,
                    retention_s=settings.store.retention_s,
                )
            owner = self._owners[key] = _Owned(part, wanted, held, stack.pop_all())
        self._shared.schedule.add(_job(key), part.tick, failed=shared.fatal)
        return owner

    async def _stop(self, keys: Sequence[LeaseKey]) -> None:
        # Together: a tick that hangs on the store must find its part draining when it goes on, and what is flushed at
        # the end is written in one transaction, for which a store that hangs makes it wait once.
        outcomes = await asyncio.gather(*map(self._stop_one, keys), return_exceptions=True)
        if True in outcomes:
            log.warning("drain.cut_short")
        _raise_worst([outcome for outcome in outcomes if isinstance(outcome, BaseException)])

    async def _stop_one(self, key: LeaseKey) -> bool:
        """End one owner; return whether it was cut short in that."""
        ending = [self._shared.schedule.remove(_job(key)), self._owners[key].part.drain()]
        outcomes: list[BaseException | None] = []
        is_cut_short = False
        try:
            async with asyncio.timeout(self._drain_s):
                outcomes += await asyncio.gather(*ending, return_exceptions=True)
        except TimeoutError:
            is_cut_short = True
        outcomes += await asyncio.gather(self._close(key), return_exceptions=True)
        if self._stopping:
            await self._ownership.release(key)
        _raise_worst(outcomes)
        return is_cut_short

    async def _close(self, key: LeaseKey) -> None:
        """Close one owner. Whatever fails in that, it is none any more: what comes in its place begins anew."""
        owner = self._owners[key]
        try:
            async with owner.stack:
                await owner.part.cancel()
                with suppress(StoreError, TimeoutError):  # what is not flushed is a few seconds older, for all we know
                    async with asyncio.timeout(FLUSH_S):
                        await owner.part.flush()
        finally:
            del self._owners[key]
            self._endings.pop(key, None)


def _job(key: LeaseKey) -> str:
    """Return the name of an owner's job."""
    return f"{key.kind}:{key.name}"


def _raise_worst(outcomes: Sequence[BaseException | None]) -> None:
    """Raise one of these, if there is any: rather than trouble with the store a bug, which ends the daemon.

    That an owner has lost what it had is none: it ends for that.
    """
    errors = [each for each in outcomes if each is not None and not isinstance(each, OwnershipLostError)]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, StoreError))
