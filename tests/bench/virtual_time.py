"""An account in virtual time: the real watcher, the real store, a clock moved by hand, an API that answers at once."""

import asyncio
import random
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from stores import claim
from structlog.testing import capture_logs

from bench.population import Population
from bench.virtual_api import Notes, WorldApi
from watcher.clerk.api import ClerkApi
from watcher.config.models import PollingSettings, Settings
from watcher.daemon.supervisor import AccountOwnerDependencies, build_account
from watcher.domain.event_factory import EventFactory
from watcher.domain.routing import Router
from watcher.polling.account_poller import AccountPoller
from watcher.runtime.metrics import Metrics
from watcher.runtime.scheduler import Schedule, WakeIn
from watcher.store.account_store import AccountStore
from watcher.store.changes import Change, Lease, Taken
from watcher.store.leases import HeldLease
from watcher.store.recording import Item
from watcher.store.sql_store import SqlStore, open_store
from watcher.store.sqlite import SqliteDatabase

ACCOUNT = "default"


class HandSchedule(Schedule):
    """A schedule that runs nothing and remembers who wanted to be woken."""

    woken_in_s: float = inf

    def waker(self, name: str) -> WakeIn:
        def wake(in_s: float = 0.0) -> None:
            self.woken_in_s = min(self.woken_in_s, in_s)

        return wake


@dataclass(frozen=True, slots=True)
class Stage:
    """A crowd, the watcher of its account, and what is noted of both. Seconds are the world's."""

    population: Population
    watcher: AccountPoller
    schedule: HandSchedule
    notes: Notes
    fatal: list[BaseException]

    async def run_until(self, until_s: float) -> None:
        """Run rounds as a clock would: when asked for, and after a wake. Raises what would end the daemon."""
        clock = self.population.clock
        end = clock.monotonic() + until_s - self.population.world.now_s()
        while True:
            delay_s = await self.watcher.tick()
            await self._settle()
            if self.fatal:
                raise self.fatal[0]
            delay_s = min(delay_s, self.schedule.woken_in_s)
            self.schedule.woken_in_s = inf
            if clock.monotonic() + delay_s > end:
                clock.elapsed_s = end
                return
            clock.advance(delay_s)

    async def _settle(self) -> None:
        """Let everything that is in flight come back."""
        await asyncio.sleep(0)
        while self.watcher._tasks:
            await asyncio.wait(set(self.watcher._tasks))


async def enter_stage(
    stack: AsyncExitStack,
    population: Population,
    *,
    rate_per_s: float,
    polling: PollingSettings,
    directory: Path | None = None,
) -> Stage:
    """Build the watcher of an account over the store in that directory, else an empty one, as a start would."""
    stack.enter_context(capture_logs())  # what is logged is no figure
    random.seed(population.crowd.seed)  # what spreads the polls
    world, clock, notes, metrics = population.world, population.clock, Notes(), Metrics()
    directory = directory or Path(stack.enter_context(TemporaryDirectory(prefix="virtual-")))
    store = await open_store(f"sqlite:///{directory / 'watcher.db'}", clock=clock)
    stack.push_async_callback(store.close)
    await write_without_waiting(store)

    def record(item: Item) -> asyncio.Future[Taken | None]:
        written = store.record(item)
        if isinstance(item, Change):
            written.add_done_callback(lambda _: notes.recorded(item, now_s=world.now_s()))
        return written

    def noted(lease: Lease) -> AccountStore:
        owned = AccountStore(store, lease)
        owned.record = record
        return owned

    fatal: list[BaseException] = []
    schedule = HandSchedule(clock=clock, fatal=fatal.append, lag=metrics.loop_lag.set)
    watcher = await build_account(
        AccountOwnerDependencies(noted, clock, metrics, EventFactory(Router({})), schedule, fatal.append),
        stack,
        HeldLease(await claim(store, "account", ACCOUNT), clock=clock),
        Settings.model_validate(
            {"accounts": {ACCOUNT: {"api_key": "virtual", "rate_limit": f"{rate_per_s}/s"}}, "polling": polling}
        ),
        open_api=lambda *_, **__: cast("ClerkApi", WorldApi(world, notes)),
    )
    return Stage(population, watcher, schedule, notes, fatal)


async def write_without_waiting(store: SqlStore) -> None:
    """Let the disk take its time: nothing is killed here."""
    database = store.database
    assert isinstance(database, SqliteDatabase)

    def relax() -> None:  # outside of a transaction, where alone SQLite heeds it
        with closing(database._writer.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA synchronous=OFF")

    await database._writing.run(relax)
