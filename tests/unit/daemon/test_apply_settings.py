"""Maintenance while another configuration is being applied: it must judge by neither of the two."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

import pytest
from lease_store import Alone
from stores import PIPELINE, claim, stream_of
from virtual import EPOCH, FakeClock

from watcher.config.models import Settings
from watcher.daemon.maintenance import Maintenance
from watcher.daemon.reload import apply_settings
from watcher.domain.errors import StoreError
from watcher.domain.event import EventKey, EventType
from watcher.domain.event_factory import EventFactory
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.routing import Router
from watcher.domain.rules import RuleState
from watcher.runtime.metrics import Metrics
from watcher.store.account_store import SqlAccountStore
from watcher.store.changes import OpenProblem, RulesChange
from watcher.store.sql_store import SqlStore

PROBLEM = Problem(UUID(int=1), EventType.PIPELINE_FAILING, EPOCH, EventKey(stream_of(PIPELINE), 1))
STATE = RuleState(failed_in_row=3)


def settings_of(**rules: object) -> Settings:
    watch = {"account": "default", "pipeline": PIPELINE, "rules": rules or None}
    return Settings.model_validate({"accounts": {"default": {"api_key": "k"}}, "watch": [watch]})


BEFORE, AFTER = settings_of(), settings_of(failing={"consecutive": 3})


class SlowSupervisor:
    """Has applied the rules of a configuration, and what else there is only once it may; or fails at it."""

    def __init__(self, store: SqlStore) -> None:
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.is_asked = self.fails = False
        self._store = store

    async def apply(self, _settings: Settings) -> None:
        self.is_asked = True
        lease = await claim(self._store, "account", "default")
        if not await self._store.open_problems():
            opened = (ProblemChange(PROBLEM, is_new=True),)
            await self._store.record(RulesChange(lease, PIPELINE, 0, 0, STATE, problems=opened))
        self.begun.set()
        await self.may_end.wait()
        if self.fails:
            raise StoreError("broken by the test")


class GatedStore:
    """The store, of which a page of the open problems is handed out only once it may."""

    def __init__(self, store: SqlStore) -> None:
        self.read, self.may = asyncio.Event(), asyncio.Event()
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def open_problems(self, *, after: UUID | None = None) -> Sequence[OpenProblem]:
        page = await self._store.open_problems(after=after)
        self.read.set()
        await self.may.wait()
        return page


def maintenance_of(store: object, clock: FakeClock) -> Maintenance:
    real = cast("SqlStore", store)
    ownership, events = Alone(real, clock=clock), EventFactory(Router({}))
    return Maintenance(
        BEFORE,
        store=real,
        clock=clock,
        metrics=Metrics(),
        events=events,
        owners=list,
        ownership=ownership,
    )


async def kept(store: SqlStore) -> tuple[list[Problem], RuleState]:
    """Return the problems that are open still, and what the rules go by still."""
    record = await SqlAccountStore(store, await claim(store, "account", "default")).load_rules(PIPELINE)
    return [each.problem for each in await store.open_problems()], record.state


async def applying(supervisor: SlowSupervisor, maintenance: Maintenance, settings: Settings) -> None:
    await apply_settings(settings, supervisor=cast("Any", supervisor), maintenance=maintenance)


@pytest.mark.parametrize("ends", ["applied", "failed", "replaced"])
async def test_what_a_new_rule_opens_while_it_is_being_applied_is_not_closed_by_the_old_configuration(
    store: SqlStore, clock: FakeClock, ends: str
) -> None:
    supervisor, maintenance = SlowSupervisor(store), maintenance_of(store, clock)
    task = asyncio.create_task(applying(supervisor, maintenance, AFTER))
    await supervisor.begun.wait()
    await maintenance.tick()
    assert await kept(store) == ([PROBLEM], STATE)
    supervisor.fails = ends == "failed"
    if ends == "replaced":
        task.cancel()
    else:
        supervisor.may_end.set()
    await asyncio.wait([task])
    await maintenance.tick()  # what was not applied in full is tried again
    assert await kept(store) == ([PROBLEM], STATE)


async def test_once_a_configuration_is_applied_maintenance_goes_by_it(store: SqlStore, clock: FakeClock) -> None:
    supervisor, maintenance = SlowSupervisor(store), maintenance_of(store, clock)
    supervisor.may_end.set()
    for settings in (AFTER, BEFORE):
        await applying(supervisor, maintenance, settings)
    await maintenance.tick()
    assert await kept(store) == ([], RuleState())


async def test_a_configuration_waits_for_what_is_being_tidied_up_by_the_one_before(
    store: SqlStore, clock: FakeClock
) -> None:
    gated, supervisor = GatedStore(store), SlowSupervisor(store)
    maintenance = maintenance_of(gated, clock)
    tidying = asyncio.create_task(maintenance.tick())
    await gated.read.wait()
    change = asyncio.create_task(applying(supervisor, maintenance, AFTER))
    await asyncio.sleep(0)
    assert not supervisor.is_asked
    gated.may.set()
    supervisor.may_end.set()
    await asyncio.gather(tidying, change)
    assert supervisor.is_asked
