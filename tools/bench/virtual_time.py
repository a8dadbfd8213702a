"""An account in virtual time: the real watcher, the real store, a clock moved by hand, an API that answers at once."""

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from structlog.testing import capture_logs
from virtual import Account, account_of

from bench.population import Population
from bench.virtual_api import Notes, WorldApi
from watcher.config.models import Settings
from watcher.daemon.from_settings import poll_rules_of
from watcher.store.changes import Change, Taken
from watcher.store.recording import Item
from watcher.store.sql_store import SqlStore, open_store
from watcher.store.sqlite import SqliteDatabase

ACCOUNT = "default"


@dataclass(frozen=True, slots=True)
class Stage:
    """A crowd, the account that watches it, and what is noted of both. Seconds are the world's."""

    population: Population
    account: Account
    notes: Notes

    async def run_until(self, until_s: float) -> None:
        """Run rounds as a clock would. Raises what would end the daemon."""
        await self.account.run_for(until_s - self.population.world.now_s())
        if self.account.fatal:
            raise self.account.fatal[0]


class NotingStore:
    """A store that notes when something was recorded."""

    def __init__(self, store: SqlStore, population: Population, notes: Notes) -> None:
        self._store, self._world, self._notes = store, population.world, notes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def record(self, item: Item) -> asyncio.Future[Taken | None]:
        written = self._store.record(item)
        if isinstance(item, Change):
            written.add_done_callback(lambda _: self._notes.recorded(item, now_s=self._world.now_s()))
        return written


async def enter_stage(
    stack: AsyncExitStack,
    population: Population,
    *,
    rate_per_s: float,
    directory: Path | None = None,
) -> Stage:
    """Build an account that watches nothing yet, over the store in that directory, else over an empty one."""
    stack.enter_context(capture_logs())  # what is logged is no figure
    random.seed(population.crowd.seed)  # what spreads the polls
    clock, notes = population.clock, Notes()
    settings = {"accounts": {ACCOUNT: {"api_key": "virtual", "rate_limit": f"{rate_per_s}/s"}}}
    rules = poll_rules_of(Settings.model_validate(settings), account=ACCOUNT)
    directory = directory or Path(stack.enter_context(TemporaryDirectory(prefix="virtual-")))
    store = await open_store(f"sqlite:///{directory / 'watcher.db'}", clock=clock)
    stack.push_async_callback(store.close)
    await write_without_waiting(store)
    account = await account_of(
        cast("SqlStore", NotingStore(store, population, notes)),
        clock,
        watches=(),
        rate_per_s=rate_per_s,
        rules=rules,
        max_interval_s=rules.max_interval_s,
        api=cast("Any", WorldApi(population.world, notes)),
        jitter=random.random,
    )
    return Stage(population, account, notes)


async def write_without_waiting(store: SqlStore) -> None:
    """Let the disk take its time: nothing is killed here."""
    database = store.database
    assert isinstance(database, SqliteDatabase)

    def relax() -> None:  # outside of a transaction, where alone SQLite heeds it
        database._writing._own.connection.connection.cursor().execute("PRAGMA synchronous=OFF")

    await database._writing.run(relax)
