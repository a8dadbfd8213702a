"""An overdue execution whose limit is removed and comes back: its problem is closed once, and another one opened."""

import pytest
from stores import problems_of
from supervision import Owners, maintenance_of
from virtual import PIPELINE, Account, FakeClock, account_of, said

from watcher.config.models import Settings
from watcher.daemon.from_settings import watches_of
from watcher.store.sql_store import SqlStore

A = "9a1b0000-0000-4000-8000-00000000000a"


def settings_of(limit: str | None) -> Settings:
    watch = {"account": "default", "pipeline": PIPELINE, "executions": [A]}
    limits = {"overdue_after": {"running": limit}} if limit else {}
    return Settings.model_validate({"accounts": {"default": {"api_key": "k"}}, "watch": [watch | limits]})


class Daemon(Owners):
    """One account and the maintenance, by a configuration that changes."""

    def __init__(self, settings: Settings, account: Account, store: SqlStore, clock: FakeClock) -> None:
        super().__init__(settings)
        self.store = store
        self.clock = clock
        self.account = account
        self.maintenance = maintenance_of(store, clock, self)

    async def reload(self, limit: str | None, *, tidies: bool = True) -> None:
        self.applied = settings_of(limit)
        await self.account.watcher.watch(watches_of(self.applied))
        if tidies:
            await self.maintenance.tick()

    async def restart(self, limit: str | None) -> "Daemon":
        await self.account.watcher.cancel()
        return await start(self.store, self.clock, limit)

    async def told(self) -> list[tuple[str, str | None]]:
        """Return what was reported since the last call: the type, and the id of the problem it is about."""
        events = await self.account.events()
        return [(each["type"].partition(".")[2], each["data"].get("problem", {}).get("id")) for each in events]


async def start(store: SqlStore, clock: FakeClock, limit: str | None) -> Daemon:
    settings = settings_of(limit)
    account = await account_of(store, clock, watches=watches_of(settings))
    account.api.script[A] = said(A, "running")
    daemon = Daemon(settings, account, store, clock)
    await daemon.maintenance.tick()
    return daemon


@pytest.fixture
async def daemon(store: SqlStore, clock: FakeClock) -> Daemon:
    """One in which the execution is overdue, of which was told."""
    daemon = await start(store, clock, "60s")
    await daemon.account.run_for(100)
    return daemon


async def opened(daemon: Daemon) -> str:
    """Return the problem that was opened since the last call, and nothing else."""
    *_, (type_, problem) = await daemon.told()
    assert type_ == "overdue"
    assert problem is not None
    return problem


async def test_what_follows_a_limit_that_was_removed_closes_nothing(daemon: Daemon) -> None:
    problem = await opened(daemon)
    await daemon.reload(None)
    assert await daemon.told() == [("closed", problem)]
    daemon.account.api.script[A] = said(A, "success")
    await daemon.account.run_for(70)
    assert await daemon.told() == [("success", None)]


@pytest.mark.parametrize("restarts", ["never", "without", "with"])
async def test_a_limit_that_comes_back_opens_another_problem_of_the_same_stay(daemon: Daemon, restarts: str) -> None:
    first = await opened(daemon)
    if restarts == "without":
        daemon = await daemon.restart(None)
    else:
        await daemon.reload(None)
    assert await daemon.told() == [("closed", first)]
    if restarts == "with":
        daemon = await daemon.restart("60s")
    else:
        await daemon.reload("60s")
    await daemon.account.run_for(70)
    second = await opened(daemon)
    assert second != first
    daemon.account.api.script[A] = said(A, "success")
    await daemon.account.run_for(70)
    assert await daemon.told() == [("success", second)]
    assert await problems_of(daemon.store) == []


async def test_a_limit_that_comes_back_before_its_problem_was_closed_goes_on_with_it(daemon: Daemon) -> None:
    problem = await opened(daemon)
    await daemon.reload(None, tidies=False)
    await daemon.account.run_for(70)
    await daemon.reload("60s")
    await daemon.account.run_for(70)
    assert await daemon.told() == []
    daemon.account.api.script[A] = said(A, "success")
    await daemon.account.run_for(70)
    assert await daemon.told() == [("success", problem)]


async def test_a_stay_that_ended_without_its_limit_leaves_no_problem_to_the_next_one(daemon: Daemon) -> None:
    first = await opened(daemon)
    await daemon.reload(None, tidies=False)
    daemon.account.api.script[A] = said(A, "paused")
    await daemon.account.run_for(70)
    daemon.account.api.script[A] = said(A, "running")
    await daemon.account.run_for(70)
    await daemon.reload("60s", tidies=False)
    await daemon.account.run_for(140)
    (*_, (_, second)) = told = await daemon.told()
    assert told == [("paused", None), ("running", None), ("overdue", second)]
    await daemon.maintenance.tick()
    assert await daemon.told() == [("closed", first)]
    assert [str(each.problem.id) for each in await problems_of(daemon.store)] == [second]
