"""Who owns what: a poller for each account and a worker for each sink, made to match a configuration, and then another.

What a new configuration leaves as it was goes on undisturbed; what it changes is drained, and begins anew from the
store; watches are handed over to the poller as it runs.
"""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import structlog

from watcher.config.models import Settings
from watcher.daemon.build import OwnerDependencies, build_account, build_worker, routes_of, silences_of, watches_of
from watcher.delivery.worker import DeliveryWorker
from watcher.domain.errors import OwnershipLostError, StoreError
from watcher.polling.account_poller import AccountPoller
from watcher.runtime.scheduler import LONGEST_S
from watcher.store.records import OpenProblem

log = structlog.get_logger()

DRAIN_S = 5.5
"""What is in flight at the end has so long to finish: with closing everything, the end comes within 8 s (SPEC 6)."""

FLUSH_S = 0.5


class _Key(NamedTuple):
    """Names an account or a sink."""

    kind: str
    name: str

    @property
    def job(self) -> str:
        """Return the name of its job."""
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class _Owned:
    """A part that runs, what it was built from, and what closes it."""

    part: AccountPoller | DeliveryWorker
    wanted: object
    stack: AsyncExitStack


class Supervisor:
    """The owners of one process."""

    def __init__(self, shared: OwnerDependencies, *, drain_s: float = DRAIN_S) -> None:
        """Own nothing yet."""
        self._shared = shared
        self._drain_s = drain_s
        self._owners: dict[_Key, _Owned] = {}
        self._endings: dict[_Key, asyncio.Task[None]] = {}
        self._shown: set[_Key] = set()

    def owned(self) -> list[AccountPoller | DeliveryWorker]:
        """Return the pollers of the accounts and the workers of the sinks."""
        return [owner.part for owner in self._owners.values()]

    def accounts(self) -> list[AccountPoller]:
        """Return the pollers of the accounts."""
        return [part for part in self.owned() if isinstance(part, AccountPoller)]

    def closed(self, problem: OpenProblem) -> None:
        """Let the owner of an overdue execution know that its problem was closed, which no event of it has done."""
        owner = self._owners.get(_Key("account", problem.name))
        if problem.execution is not None and owner is not None and isinstance(owner.part, AccountPoller):
            owner.part.end_overdue(problem.execution, opening=problem.problem.opening)

    async def apply(self, settings: Settings) -> None:
        """Own what this configuration asks for, and nothing else.

        Each owner changes on its own: one that takes long to drain holds up no other. Raises `StoreError` when that is
        not done in full. Then, or cancelled for a newer configuration, it may be called again, and goes on from there:
        what drains does so meanwhile, and becomes what is wanted by then.
        """
        self._shared.events.router.replace(routes_of(settings))
        self._shared.silences.replace(silences_of(settings))
        wanted = _wanted(settings)
        self._shown.update(wanted)
        # An API key may go from one account to another: what ends is draining before what begins has asked the store.
        changes = [self._change(key, wanted.get(key), settings=settings) for key in {**self._owners, **wanted}]
        outcomes = await asyncio.gather(*changes, return_exceptions=True)
        self._show_only(wanted)
        _raise_worst(outcomes)

    async def stop(self) -> None:
        """Let nothing new start, and what is in flight end; what takes too long is given up and comes due again."""
        lasting = [key for key in self._owners if key not in self._endings]
        stopping = asyncio.create_task(self._stop(lasting))
        self._endings.update(dict.fromkeys(lasting, stopping))  # one that loses its ownership now ends only once
        _raise_worst(await asyncio.gather(stopping, *self._endings.values(), return_exceptions=True))

    async def _change(self, key: _Key, wanted: object | None, *, settings: Settings) -> None:
        """Make one owner what is wanted, or end it if nothing is."""
        if key in self._owners and (key in self._endings or self._owners[key].wanted != wanted):
            await self._end(key)
        if wanted is None:
            return
        if key not in self._owners:
            await self._start(key, wanted, settings=settings)
        part = self._owners[key].part
        if isinstance(part, AccountPoller):
            await part.watch(watches_of(settings, part.account))

    async def _end(self, key: _Key) -> None:
        """End one owner, or wait until it has: nobody's cancellation breaks that off."""
        await asyncio.shield(self._ending(key))

    def _ending(self, key: _Key) -> asyncio.Task[None]:
        """Return what ends one owner, and has begun to."""
        if key not in self._endings:
            self._endings[key] = asyncio.create_task(self._stop([key]))
            self._endings[key].add_done_callback(self._ended)  # whoever waits for it may leave
        return self._endings[key]

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._shared.fatal(error)

    def _failed(self, error: BaseException, *, key: _Key) -> None:
        """Let go of what another process owns by now, which is ordinary; whatever else fails ends the daemon.

        Where nobody else can own anything, that ends it as well.
        """
        if self._shared.store.exclusive or not isinstance(error, OwnershipLostError):
            self._shared.fatal(error)
        elif key in self._owners and key not in self._endings:
            log.warning("ownership.lost", **{key.kind: key.name})
            self._ending(key)

    async def _tick(self, key: _Key, *, part: AccountPoller | DeliveryWorker) -> float:
        try:
            return await part.tick()
        except OwnershipLostError as error:
            owner = self._owners.get(key)
            if owner is not None and owner.part is part:  # else it hung beyond its end, and we own it anew by now
                self._failed(error, key=key)
            return LONGEST_S

    def _show_only(self, wanted: Collection[_Key]) -> None:
        """Take what is gone out of the metrics."""
        metrics = self._shared.metrics
        for key in self._shown - set(wanted):
            forget = metrics.forget_sink if key.kind == "sink" else metrics.forget_account
            forget(key.name)
        self._shown = set(wanted)

    async def _start(self, key: _Key, wanted: object, *, settings: Settings) -> None:
        async with AsyncExitStack() as stack:
            part = await self._build(key, stack=stack, settings=settings)
            self._owners[key] = _Owned(part, wanted, stack.pop_all())
        self._shared.schedule.add(key.job, partial(self._tick, key, part=part))

    async def _build(self, key: _Key, *, stack: AsyncExitStack, settings: Settings) -> AccountPoller | DeliveryWorker:
        shared = replace(self._shared, fatal=partial(self._failed, key=key))
        if key.kind == "sink":
            return await build_worker(shared, stack, name=key.name, settings=settings.sinks[key.name])
        account = settings.accounts[key.name]
        return await build_account(
            shared,
            stack,
            name=key.name,
            settings=account,
            polling=settings.polling,
            retention_s=settings.store.retention_s,
        )

    async def _stop(self, keys: Sequence[_Key]) -> None:
        # Together: a tick that hangs on the store must find its part draining when it goes on, and what is flushed at
        # the end is written in one transaction, for which a store that hangs makes it wait once.
        ending = [self._shared.schedule.remove(key.job) for key in keys]
        ending += [self._owners[key].part.drain() for key in keys]
        outcomes: list[BaseException | None] = []
        try:
            async with asyncio.timeout(self._drain_s):
                outcomes += await asyncio.gather(*ending, return_exceptions=True)
        except TimeoutError:
            log.warning("drain.cut_short", at_most_s=self._drain_s)
        outcomes += await asyncio.gather(*map(self._close, keys), return_exceptions=True)
        _raise_worst(outcomes)

    async def _close(self, key: _Key) -> None:
        """Close one owner. Whatever fails in that, it is none any more: what comes in its place begins anew."""
        owner = self._owners[key]
        try:
            async with owner.stack:
                await self._let_go(owner.part)
        finally:
            del self._owners[key]
            self._endings.pop(key, None)

    async def _let_go(self, part: AccountPoller | DeliveryWorker) -> None:
        await part.cancel()
        with suppress(StoreError, TimeoutError):  # what is not flushed is a few seconds older, for all we know
            async with asyncio.timeout(FLUSH_S):
                await part.flush()


def _raise_worst(outcomes: Sequence[BaseException | None]) -> None:
    """Raise one of these, if there is any: rather than trouble with the store a bug, which ends the daemon."""
    errors = [outcome for outcome in outcomes if outcome is not None]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, StoreError))


def _wanted(settings: Settings) -> dict[_Key, object]:
    """Return what each owner is built from: another value of it means another owner."""
    sinks = {_Key("sink", name): sink for name, sink in settings.sinks.items()}
    accounts = {
        _Key("account", name): (account, settings.polling, settings.store.retention_s)
        for name, account in settings.accounts.items()
    }
    return {**sinks, **accounts}
