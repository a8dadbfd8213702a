"""The maintenance over the real store in virtual time."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import pytest
from lease_store import Alone
from stores import (
    PIPELINE,
    backlog_of,
    change,
    claim,
    executions_of,
    held,
    problems_of,
    settle_all,
    sink_of,
    source_change,
    stream_of,
    upkeep,
)
from structlog.testing import capture_logs
from supervision import Owners, Setup, dependencies_of, maintenance_of, set_up
from virtual import EPOCH, Account, FakeClock, account_of, said

from watcher.config.models import Settings
from watcher.daemon.from_settings import watches_of
from watcher.daemon.maintenance import ProgressLog
from watcher.daemon.supervisor import Supervisor
from watcher.domain.errors import StoreError
from watcher.domain.event import EventKey, EventType, Group
from watcher.domain.execution import ExecutionRecord, Outcome
from watcher.domain.problems import Problem, ProblemChange
from watcher.polling.account_poller import AccountPoller
from watcher.runtime.metrics import AccountMetrics, Metrics, SinkMetrics
from watcher.store.account_store import AccountStore
from watcher.store.changes import ExecutionChange, SourceChange
from watcher.store.leases import FOR_EVER, LONG_AGO, MAINTENANCE, HeldLease, LeaseKey
from watcher.store.maintenance_store import EXECUTIONS_COUNT
from watcher.store.sql_store import SqlStore

A, B = (f"9a1b0000-0000-4000-8000-00000000000{digit}" for digit in "ab")
DAY_S = 86_400.0
OTHER = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d30"


def keeping(
    *executions: str,
    pipelines: Collection[str] = (PIPELINE,),
    sinks: Collection[str] = (),
    retention: str = "30d",
    **more: object,
) -> Settings:
    """Return a configuration that watches these executions of pipelines, or, without any, each of them whole."""
    watch = {"account": "default", "executions": executions or None, "overdue_after": {"running": "60s"}, **more}
    return Settings.model_validate(
        {
            "accounts": {"default": {"api_key": "k"}},
            "watch": [{"pipeline": each, **watch} for each in pipelines],
            "sinks": {name: {"type": "webhook", "url": "https://h"} for name in sinks},
            "store": {"retention": retention},
            "polling": {"lookback": "7d"},
        }
    )


NAMED, NOTHING = keeping(A, B), keeping(pipelines=())


async def record_of(store: SqlStore) -> Mapping[str, ExecutionRecord]:
    return await AccountStore(store, await claim(store, "account", "default")).load_executions((A, B))


async def test_what_ended_long_ago_goes_but_for_the_ids_that_are_still_named(store: SqlStore, clock: FakeClock) -> None:
    account = await account_of(store, clock, A, B)
    account.api.script = {A: said(A, "success"), B: said(B, "failed")}
    await account.run_for(1)
    assert len(await account.emitted()) == 2
    owners = Owners(keeping(A, sinks=("ops",)), account.watcher)
    maintenance = maintenance_of(store, clock, owners)
    await maintenance.tick()
    assert set(await record_of(store)) == {A, B}
    clock.advance(31 * DAY_S)
    await maintenance.tick()
    assert set(await record_of(store)) == {A}
    owners.applied = NOTHING
    await maintenance.tick()
    assert set(await record_of(store)) == set()


async def test_pruning_much_takes_two_ticks(store: SqlStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watcher.daemon.maintenance.PAGES_COUNT", 2)
    lease = await claim(store, "account", "default")
    count = 2 * EXECUTIONS_COUNT + 1
    ended = [change(lease, number, sinks=(), end_seen_at=1) for number in range(count)]
    await asyncio.gather(*map(store.record, ended))
    maintenance = maintenance_of(store, clock, Owners(NOTHING))
    for are_left in (True, False):
        await maintenance.tick()
        assert bool(await executions_of(store, lease, count=count)) is are_left
    monkeypatch.undo()
    await store.record(change(lease, sinks=(), end_seen_at=1))
    clock.advance(3599)
    await maintenance.tick()
    assert len(await executions_of(store, lease)) == 1
    clock.advance(1)
    await maintenance.tick()
    assert await executions_of(store, lease) == []


async def test_pruning_that_failed_begins_anew(store: SqlStore, clock: FakeClock, path: Path) -> None:
    lease = await claim(store, "account", "default")
    await store.record(change(lease, sinks=(), end_seen_at=1))
    maintenance = maintenance_of(store, clock, Owners(NOTHING))
    with held(path):
        await maintenance.tick()
    await maintenance.tick()
    assert await executions_of(store, lease) == []


async def test_a_removed_sink_has_its_deliveries_die_after_a_day(store: SqlStore, clock: FakeClock) -> None:
    account = await account_of(store, clock, A)
    await account.run_for(1)
    maintenance = maintenance_of(store, clock, Owners(NAMED), metrics=account.metrics)
    await maintenance.tick()
    await maintenance.refresh_gauges()
    assert pending(account.metrics) == 1
    clock.advance(DAY_S + 1)
    await maintenance.tick()
    await maintenance.refresh_gauges()
    assert pending(account.metrics) is None


def pending(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("watcher_outbox_pending", {"sink": "ops"})


class SharedOwnership(Alone):
    """What is owned where there are other replicas."""

    maintains = True

    def __init__(self, store: SqlStore, *, clock: FakeClock) -> None:
        super().__init__(store, clock=clock)
        self.noted_as_lost: list[HeldLease] = []

    def may_own(self, key: LeaseKey) -> bool:
        return self.maintains

    def mark_lost(self, held: HeldLease) -> None:
        self.noted_as_lost.append(held)
        self._held.clear()


WHOLE = keeping()


@pytest.mark.parametrize(
    ("settings", "ended_days_ago", "phases"),
    [
        (WHOLE, 30.5, True),  # by the clock of the API it may be less than 30
        (WHOLE, 31.5, False),
        (keeping(retention="1d"), 7.5, True),  # as far back as `lookback`
        (keeping(retention="1d"), 8.5, False),
        (keeping(pipelines=(OTHER,)), 30.5, False),
        (NOTHING, 30.5, False),
    ],
)
async def test_what_a_list_can_still_show_leaves_its_id_behind(
    store: SqlStore, clock: FakeClock, settings: Settings, ended_days_ago: float, *, phases: bool
) -> None:
    lease = await claim(store, "account", "default")
    ended_at = clock.steady_us() - round(ended_days_ago * DAY_S * 1_000_000)
    await store.record(change(lease, sinks=(), end_seen_at=ended_at))
    await maintenance_of(store, clock, Owners(settings)).tick()
    assert bool(await executions_of(store, lease)) is phases


async def closings(account: Account) -> list[tuple[str, str, str]]:
    """Return what was closed for whom since the last call: the kind, the reason, and what it is about."""
    return [
        (event["data"]["problem"]["kind"], event["data"]["reason"], event["data"].get("execution", event["data"])["id"])
        for event in await account.events()
        if event["type"] == "problem.closed"
    ]


async def overdue_ones(store: SqlStore, clock: FakeClock) -> Account:
    account = await account_of(store, clock, A, B, overdue_after_s={"running": 60.0})
    await account.run_for(100)
    await account.events()
    return account


async def test_problems_that_nobody_watches_for_any_more_are_closed_once(store: SqlStore, clock: FakeClock) -> None:
    account = await overdue_ones(store, clock)
    owners = Owners(NAMED)
    maintenance = maintenance_of(store, clock, owners, metrics=account.metrics)
    await maintenance.tick()
    await maintenance.refresh_gauges()
    assert problems(account.metrics) == 2
    assert await closings(account) == []
    owners.applied = keeping(A)
    with capture_logs() as logs:
        await maintenance.tick()
    await maintenance.refresh_gauges()
    assert [(line["event"], line["count"]) for line in logs] == [("problem.closed", 1)]
    assert await closings(account) == [("execution.overdue", "removed", B)]
    assert problems(account.metrics) == 1
    assert account.metrics.total("watcher_events_total", type="problem.closed") == 1
    owners.applied = keeping(A)
    await maintenance.tick()
    assert await closings(account) == []


async def test_what_another_replica_tidies_is_left_alone_until_it_is_ours(store: SqlStore, clock: FakeClock) -> None:
    lease, ownership = await claim(store, "account", "default"), SharedOwnership(store, clock=clock)
    maintenance = maintenance_of(store, clock, Owners(NOTHING), ownership=ownership)
    await maintenance.tick()
    await store.record(change(lease, sinks=(), end_seen_at=1))
    before = ownership._held[MAINTENANCE]
    await upkeep(store)  # by the other
    clock.advance(3600.0)
    await maintenance.tick()
    assert (len(await executions_of(store, lease)), ownership.noted_as_lost) == (1, [before])
    await maintenance.tick()
    assert await executions_of(store, lease) == []


async def test_only_the_replica_that_surely_maintains_tidies_the_store(store: SqlStore, clock: FakeClock) -> None:
    lease, ownership = await claim(store, "account", "default"), SharedOwnership(store, clock=clock)
    maintenance = maintenance_of(store, clock, Owners(NOTHING), ownership=ownership)
    await maintenance.tick()
    await store.record(change(lease, sinks=(), end_seen_at=1))
    clock.advance(3600.0)
    for ownership.maintains, trusted_until, count in ((False, FOR_EVER, 1), (True, LONG_AGO, 1), (True, FOR_EVER, 0)):
        ownership._held[MAINTENANCE].trusted_until = trusted_until
        await maintenance.tick()
        assert len(await executions_of(store, lease)) == count


async def test_while_replicas_differ_nothing_is_removed_nor_absent(store: SqlStore, clock: FakeClock) -> None:
    account, ownership = await overdue_ones(store, clock), SharedOwnership(store, clock=clock)
    owners = Owners(NAMED)
    maintenance = maintenance_of(store, clock, owners, metrics=account.metrics, ownership=ownership)
    ownership.is_agreed = False
    await store.record(change(await claim(store, "account", "other"), sinks=("gone",)))
    for _ in range(2):
        clock.advance(DAY_S)
        owners.applied = NOTHING
        await maintenance.tick()
    assert (await backlog_of(store))["gone"].pending_count == 1
    ownership.is_agreed = True
    await maintenance.tick()
    assert len(await closings(account)) == 2
    clock.advance(2 * DAY_S)
    await maintenance.tick()
    assert "gone" not in await backlog_of(store)


def problems(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("watcher_problems_open", {"kind": "execution.overdue"})


async def test_what_ended_without_an_event_is_overdue_no_more(store: SqlStore, clock: FakeClock) -> None:
    account = await overdue_ones(store, clock)
    lease = await claim(store, "account", "default")
    known = (await AccountStore(store, lease).load_executions([B]))[B]
    await store.record(ExecutionChange(lease, known.sequence, replace(known, end_seen_at=clock.steady_us()), ()))
    await maintenance_of(store, clock, Owners(NAMED), metrics=account.metrics).tick()
    assert await closings(account) == [("execution.overdue", "ended", B)]


# While another configuration is being applied

STATE = '{"silent": {"started_at": 3}}'
RULES: dict[str, object] = {"failing": {"consecutive": 3}}


async def kept(store: SqlStore) -> tuple[int, str | None]:
    """Return how many problems are open still, and what the rules go by still."""
    record = await AccountStore(store, await claim(store, "account", "a")).load_rules(PIPELINE)
    return len(await problems_of(store)), record.states


@pytest.mark.parametrize("ends", ["applied", "failed", "replaced"])
async def test_what_a_new_rule_opens_while_it_is_being_applied_is_not_closed_by_the_old_configuration(
    store: SqlStore, clock: FakeClock, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem(UUID(int=1), EventType.PIPELINE_FAILING, EPOCH, EventKey(stream_of(PIPELINE), 1))
    opened, begun, may_end = (ProblemChange(problem, is_new=True),), asyncio.Event(), asyncio.Event()

    async def watch(*_: object) -> None:
        begun.set()
        await may_end.wait()
        if ends == "failed":
            raise StoreError("broken by the test")

    async with set_up(store, clock, Setup) as setup:
        maintenance = setup.maintenance()
        with monkeypatch.context() as patch:
            patch.setattr(AccountPoller, "watch", watch)
            applying = asyncio.create_task(setup.apply(rules=RULES))
            await begun.wait()
            lease = await claim(store, "account", "a")
            await store.record(SourceChange(lease, 0, 0, problems=opened, pipeline=PIPELINE, rules=STATE))
            await maintenance.tick()
            assert await kept(store) == (1, STATE)
            if ends == "replaced":
                applying.cancel()
            may_end.set()
            await asyncio.wait([applying])
        await maintenance.tick()  # what was not applied in full is tried again
        assert await kept(store) == (1, STATE)
        await setup.apply()
        await maintenance.tick()
        assert await kept(store) == (0, None)


async def test_a_configuration_waits_for_the_tidying_of_the_one_before(store: SqlStore, clock: FakeClock) -> None:
    async with set_up(store, clock, Setup) as setup:
        async with setup.supervisor.tidying:
            applying = asyncio.create_task(setup.apply())
            tidying = asyncio.create_task(setup.maintenance().tick())
            await asyncio.sleep(0.05)
            assert (setup.ticks(), tidying.done()) == (set(), False)
        await asyncio.gather(applying, tidying)
        assert setup.ticks() == {"account:a"}


# An overdue execution whose limit is removed and comes back


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


# What the log says while all is well


def progress_of(
    store: SqlStore, clock: FakeClock, *, metrics: Metrics | None = None, accounts: object = (), workers: object = ()
) -> ProgressLog:
    owners = SimpleNamespace(accounts=lambda: accounts, workers=lambda: workers)
    return ProgressLog(dependencies_of(store, clock, metrics=metrics), cast("Supervisor", owners))


@dataclass
class OwnedAccount:
    account: str = "default"
    lists_read: Sequence[bool] = ()


async def test_an_account_is_logged_once_when_all_of_it_was_seen(store: SqlStore, clock: FakeClock) -> None:
    account, metrics = OwnedAccount(lists_read=[True, False]), Metrics()
    present = [account]
    unseen, running = (metrics.open_executions.labels("default", status) for status in ("unseen", "running"))
    unseen.set(3)
    running.set(5)
    progress = progress_of(store, clock, metrics=metrics, accounts=present)
    with capture_logs() as logs:
        await progress.tick()
        account.lists_read = [True, True]
        await progress.tick()
        assert logs == []
        unseen.set(0)
        await progress.tick()
        await progress.tick()
        assert logs == [{"event": "account.ready", "log_level": "info", "account": "default", "open": 5, "lists": 2}]
        present.clear()
        await progress.tick()
        present.append(account)
        await progress.tick()
    assert len(logs) == 2  # it is another one


async def test_every_hour_says_what_was_done_in_it(store: SqlStore, clock: FakeClock) -> None:
    metrics = Metrics()
    progress = progress_of(store, clock, metrics=metrics)
    with capture_logs() as logs:
        for _ in range(2):
            AccountMetrics(metrics, "default").count_poll(Outcome.OK, 0.1)
            AccountMetrics(metrics, "default").count_page(Outcome.TIMEOUT, 0.1)
            metrics.events.labels(EventType.EXECUTION_NEW).inc()
            SinkMetrics(metrics, "ops").outcomes["retried"].inc()
            SinkMetrics(metrics, "ops").count_delivery(0.1)
            clock.advance(3599)
            await progress.tick()
            clock.advance(1)
            await progress.tick()
    line = {"event": "summary", "log_level": "info", "hours": 1, "requests": 2, "events": 1, "deliveries": 1}
    assert logs == [line | {"open": 0, "waiting": 0}] * 2


@dataclass
class Sink:
    sink: str


async def test_a_sink_that_falls_behind_is_logged_once_and_so_is_its_end(store: SqlStore, clock: FakeClock) -> None:
    progress = progress_of(store, clock, workers=[Sink("ops"), Sink("chat")])
    ops, account = await sink_of(store), await claim(store, "account", "default")
    await store.record(source_change(account, sinks=("ops",)))
    await store.record(change(account, sinks=("chat",), group=Group(bytes(16), 600.0)))
    with capture_logs() as logs:
        for _ in range(8):
            await progress.tick()
            clock.advance(60)
        late = {"event": "deliveries.late", "log_level": "warning", "sink": "ops", "waiting": 1, "oldest_s": 360}
        assert logs == [late]
        await settle_all(ops, now=clock.steady_us())
        for _ in range(2):
            await progress.tick()
            clock.advance(60)
    assert logs[1:] == [{"event": "deliveries.caught_up", "log_level": "info", "sink": "ops"}]
