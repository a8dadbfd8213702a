"""The owners of one process, or of one replica among several, over a real store and sockets; ticks run when told."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from lease_store import FakeLeaseStore, LeaseTable
from receiver import answer, hangs, says
from stores import claim, held
from structlog.testing import capture_logs
from supervision import LONG_S, A, Setup, Slowly, set_up
from virtual import FakeClock

from watcher.delivery.worker import DeliveryWorker
from watcher.domain.errors import StoreError
from watcher.domain.event import Event, EventType
from watcher.polling.account_poller import AccountPoller
from watcher.sinks.output import StdoutOutput
from watcher.store.changes import SinkRecord
from watcher.store.leases import LEASE_S, LeaseKey
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import SqlStore


@pytest.fixture
async def setup(store: SqlStore, clock: FakeClock) -> AsyncIterator[Setup]:
    async with set_up(store, clock, Setup) as setup:
        yield setup


async def broken_off(applying: Coroutine[Any, Any, None], *, setup: Setup, once_added: str) -> None:
    """Begin to apply a configuration, and break that off once it has added that tick."""
    task = asyncio.create_task(applying)
    while await setup.schedule.added() != once_added:
        pass
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@contextmanager
def refusing(path: Path, name: str) -> Iterator[None]:
    """Let the store number nothing of that name meanwhile."""
    refused = f"BEFORE INSERT ON source WHEN new.name = '{name}' BEGIN SELECT RAISE(ABORT, ''); END"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"CREATE TRIGGER refused {refused}")
        yield
        database.execute("DROP TRIGGER refused")


def served_s(path: Path) -> float:
    """Return for how long, as the store knows, the sink `ops` has been served."""
    with closing(sqlite3.connect(path)) as database:
        (clock_us,) = database.execute("SELECT clock_us FROM source WHERE kind = 'sink' AND name = 'ops'").fetchone()
        return float(clock_us) / 1e6


async def test_what_is_asked_for_is_owned_and_works(setup: Setup) -> None:
    await setup.apply(sinks={"ops": setup.webhook()})
    assert setup.ticks() == {"account:a", "sink:ops"}
    event = Event(UUID(int=1), EventType.ACCOUNT_DEGRADED, b"s", 1, b"{}", b"s")
    assert setup.shared.events.router.entry_of(event).sinks == ("ops",)
    assert A in await setup.poll()
    await setup.record()
    assert await setup.deliver()


async def test_an_owner_that_the_store_contradicts_begins_anew(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watcher.daemon.ownership.RENEW_AGAIN_S", 0.0)
    await setup.apply(sinks={"ops": setup.webhook()})
    watcher, worker = setup.watcher(), setup.worker()
    await claim(setup.store, "sink", "ops")
    await setup.schedule.job("sink:ops")()
    async with asyncio.timeout(LONG_S):
        while await setup.schedule.added() != "sink:ops" or setup.worker() is worker:
            pass
    assert setup.watcher() is watcher
    await setup.record()
    assert await setup.deliver()


async def test_what_cannot_begin_anew_is_tried_again(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watcher.daemon.ownership.RENEW_AGAIN_S", 0.01)
    monkeypatch.setattr("watcher.daemon.supervisor.RETRY_S", 0.01)
    await setup.apply(sinks={"ops": setup.webhook()})
    load = SinkStore.load

    tries = iter(range(3))

    async def fail(store: SinkStore, *, fingerprint: str) -> SinkRecord:
        if next(tries, None) is None:
            return await load(store, fingerprint=fingerprint)
        raise StoreError("not now")

    monkeypatch.setattr(SinkStore, "load", fail)
    worker = setup.worker()
    await claim(setup.store, "sink", "ops")
    with capture_logs() as logs:
        await setup.schedule.job("sink:ops")()
        async with asyncio.timeout(LONG_S):
            while not setup.supervisor.workers() or setup.worker() is worker:
                await asyncio.sleep(0.001)
    failed = {"event": "ownership.failed", "log_level": "warning", "sink": "ops", "problem": "not now"}
    assert [entry for entry in logs if entry["event"] == "ownership.failed"] == [failed] * 3


@pytest.mark.parametrize(
    ("more", "begin_anew"),
    [
        ({}, [False, False]),
        ({"sinks": {"ops": {"rate_limit": "9/s"}}}, [False, True]),
        ({"http": {"public_url": "https://watcher.example.com"}}, [False, True]),
        ({"polling": {"max_interval": "50s"}}, [True, False]),
        ({"store": {"retention": "29d"}}, [True, False]),
    ],
)
async def test_an_owner_is_another_with_whatever_it_was_built_from_and_else_goes_on_undisturbed(
    setup: Setup, more: dict[str, Any], begin_anew: list[bool]
) -> None:
    await setup.apply(sinks={"ops": setup.webhook()})
    before = setup.watcher(), setup.worker()
    await setup.apply(**more | {"sinks": {"ops": setup.webhook(**more.get("sinks", {}).get("ops", {}))}})
    assert [setup.watcher() is not before[0], setup.worker() is not before[1]] == begin_anew
    assert setup.ticks() == {"account:a", "sink:ops"}


async def test_what_is_asked_for_no_more_ends_and_is_forgotten(setup: Setup) -> None:
    await setup.apply({"a": setup.account(), "b": setup.account()}, sinks={"ops": setup.webhook()})
    assert (setup.named("account"), setup.named("sink")) == ({"a", "b"}, {"ops"})
    await setup.apply({"b": setup.account()})
    assert setup.ticks() == {"account:b"}
    assert (setup.named("account"), setup.named("sink")) == ({"b"}, set())


async def test_what_is_in_flight_is_finished_and_not_done_again(setup: Setup) -> None:
    await setup.send(slowly := Slowly())
    changed = {"ops": setup.webhook(rate_limit="9/s"), "new": setup.webhook()}
    changing = asyncio.create_task(setup.apply(sinks=changed))
    while await setup.schedule.added() != "sink:new":
        pass
    assert "sink:ops" not in setup.ticks()
    slowly.may_answer.set()
    await changing
    await setup.apply(sinks={"ops": changed["ops"]})
    assert await setup.sends_nothing()


async def test_what_does_not_end_in_time_is_broken_off_and_comes_due_again(setup: Setup) -> None:
    setup.api.reply = hangs
    sent, asked = await setup.send(hangs), await setup.poll()
    setup.supervisor._drain_s = 0.01
    with capture_logs() as logs:
        await setup.apply({"a": setup.account(rate_limit="9/s")}, sinks={"ops": setup.webhook(rate_limit="9/s")})
    cut_short = {"event": "drain.cut_short", "log_level": "warning"}
    assert sorted(logs, key=str) == [cut_short | {"account": "a"}, cut_short | {"sink": "ops"}]
    assert (await setup.deliver(), await setup.poll()) == (sent, asked)


async def test_what_was_not_worth_a_write_before_is_written_at_the_end(setup: Setup, path: Path) -> None:
    await setup.apply(sinks={"ops": setup.webhook()})
    setup.clock.advance(60.0)
    await setup.supervisor.stop()
    assert served_s(path) == 60.0


async def test_a_store_that_takes_nothing_holds_up_no_end(setup: Setup, path: Path) -> None:
    await setup.apply(sinks={"ops": setup.webhook()})
    setup.clock.advance(60.0)
    with held(path):
        await setup.supervisor.stop()
    assert setup.supervisor.parts() == []
    assert served_s(path) == 0.0


async def test_an_error_in_one_change_stops_no_other_and_a_try_goes_on_there(setup: Setup, path: Path) -> None:
    sinks = {"ops": setup.webhook(), "more": setup.webhook()}
    with refusing(path, "ops"), pytest.raises(StoreError, match="did not take this"):
        await setup.apply(sinks=sinks)
    assert setup.ticks() == {"account:a", "sink:more"}
    worker = setup.worker()
    await setup.apply(sinks=sinks)
    assert setup.ticks() == {"account:a", "sink:more", "sink:ops"}
    assert worker in setup.supervisor.parts()


async def test_a_newer_configuration_waits_for_no_drain_but_in_the_owner_that_drains(setup: Setup) -> None:
    await setup.send(slowly := Slowly())
    between = {"ops": setup.webhook(rate_limit="8/s"), "between": setup.webhook()}
    await broken_off(setup.apply(sinks=between), setup=setup, once_added="sink:between")
    newest = {"ops": setup.webhook(rate_limit="9/s"), "newest": setup.webhook()}
    applying = asyncio.create_task(setup.apply(sinks=newest))
    assert await setup.schedule.added() == "sink:newest"
    slowly.may_answer.set()
    assert await setup.schedule.added() == "sink:ops"
    await applying
    assert setup.ticks() == {"account:a", "sink:newest", "sink:ops"}
    assert setup.named("sink") == {"newest", "ops"}

    await setup.apply(sinks={"ops": newest["ops"]})
    assert await setup.sends_nothing()


@pytest.mark.parametrize("is_the_end", [False, True])
async def test_neither_a_newer_configuration_nor_the_end_extends_a_drain(setup: Setup, *, is_the_end: bool) -> None:
    await setup.send(hangs)
    setup.supervisor._drain_s = 0.5
    with capture_logs() as logs:
        await broken_off(setup.apply(sinks={"other": setup.webhook()}), setup=setup, once_added="sink:other")
        setup.supervisor._drain_s = 10 * LONG_S
        async with asyncio.timeout(LONG_S):
            await (setup.supervisor.stop() if is_the_end else setup.apply())
    assert [entry["event"] for entry in logs] == ["drain.cut_short"]
    assert setup.ticks() == (set() if is_the_end else {"account:a"})


async def test_a_key_is_used_by_one_account_only_wherever_it_went_in_between(setup: Setup) -> None:
    await setup.apply({"old": setup.account()})
    await broken_off(setup.apply({"between": setup.account()}), setup=setup, once_added="account:between")
    between = [part for part in setup.supervisor.parts() if isinstance(part, AccountPoller)]
    await setup.apply({"newest": setup.account()})
    await setup.poll()
    for watcher in between:
        await watcher.tick()
    await setup.watcher().drain()
    assert setup.api.quiet
    assert (setup.ticks(), setup.named("account")) == ({"account:newest"}, {"newest"})


class BrokenError(Exception):
    """A bug that nobody foresaw."""


async def break_down() -> None:
    raise BrokenError


@pytest.mark.parametrize("method", ["drain", "cancel", "flush"])
async def test_an_owner_that_ends_badly_is_loud(setup: Setup, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    await setup.apply(sinks={"ops": setup.webhook()})
    worker = setup.worker()
    monkeypatch.setattr(worker, method, break_down)
    changed = {"ops": setup.webhook(rate_limit="9/s")}
    with pytest.raises(BrokenError):
        await setup.apply(sinks=changed)
    await setup.apply(sinks=changed)
    assert setup.worker() is not worker
    await setup.record()
    assert await setup.deliver()


# One replica among several: leases and ticks when the test says

ACCOUNT, OPS, MORE = LeaseKey("account", "a"), LeaseKey("sink", "ops"), LeaseKey("sink", "more")


class Shared(Setup):
    """The owners of a replica, and the leases it shares with others."""

    def __init__(self, store: SqlStore, clock: FakeClock, output: StdoutOutput) -> None:
        self.table = LeaseTable(clock, claim=partial(claim, store))
        self.lease_store = FakeLeaseStore(self.table)
        store.exclusive = False
        super().__init__(store, clock, output, self.lease_store.as_of_postgresql())

    async def look(self) -> None:
        """Let the replica renew its leases; return once every change has been made."""
        await self.ownership._run_alone(self.ownership._try_to_renew)
        await self.settled()

    async def apply(self, *args: Any, **more: Any) -> None:
        await super().apply(*args, **more)
        await self.settled()

    async def settled(self) -> None:
        async with asyncio.timeout(LONG_S):
            while changes := self.supervisor._changes:
                await asyncio.wait(set(changes))

    async def take_away(self, key: LeaseKey) -> None:
        await self.table.give(key, owner="other")

    async def run_jobs(self) -> None:
        """Let every owner tick once, as the daemon's clock would."""
        self.clock.advance(1.0)
        for name in sorted(self.ticks()):
            await self.schedule.job(name)()
        await self.settled()


@pytest.fixture
async def replica(store: SqlStore, clock: FakeClock) -> AsyncIterator[Shared]:
    async with set_up(store, clock, Shared) as replica:
        yield replica
        replica.lease_store.may_answer.set()


async def test_what_another_replica_has_is_not_owned_until_it_is_free(replica: Shared) -> None:
    await replica.take_away(OPS)
    await replica.apply(sinks={"ops": replica.webhook()})
    assert (replica.ticks(), replica.named("sink")) == ({"account:a"}, set())
    replica.clock.advance(LEASE_S)
    await replica.look()
    assert replica.ticks() == {"account:a", "sink:ops"}


@pytest.mark.parametrize("finds_out", ["look", "run_jobs"])
async def test_what_another_replica_took_is_let_go_and_the_others_go_on(replica: Shared, finds_out: str) -> None:
    sinks = {"ops": replica.webhook(), "more": replica.webhook()}
    await replica.apply({"a": replica.account(), "b": replica.account()}, sinks=sinks)
    replica.api.reply = says(answer(404))
    await replica.settled()
    await replica.take_away(ACCOUNT)
    await replica.take_away(OPS)
    with capture_logs() as logs:
        await getattr(replica, finds_out)()
        await replica.settled()
        await replica.look()
    assert "sink:ops" not in replica.ticks()
    assert {"account:b", "sink:more"} <= replica.ticks()
    if finds_out == "look":
        assert "account:a" not in replica.ticks()
        assert (replica.named("account"), replica.named("sink")) == ({"b"}, {"more"})
    lost = [entry for entry in logs if entry["event"] == "ownership.lost"]
    assert {entry["log_level"] for entry in lost} == {"info"}
    assert sorted((entry.get("account"), entry.get("sink")) for entry in lost if entry.get("sink")) == [(None, "ops")]


async def test_an_owner_whose_lease_is_not_trusted_asks_and_sends_nothing_until_it_is_again(replica: Shared) -> None:
    await replica.apply(sinks={"ops": replica.webhook()})
    await replica.record()
    replica.clock.advance(LEASE_S)
    watcher, worker = replica.watcher(), replica.worker()
    assert (await watcher.tick(), await worker.tick()) == (10.0, 10.0)
    await watcher.drain()
    assert (replica.api.quiet, replica.hook.quiet) == (True, True)
    await replica.look()
    assert (replica.watcher(), replica.worker()) == (watcher, worker)
    assert await replica.deliver()


async def test_a_changed_owner_begins_under_another_epoch(replica: Shared) -> None:
    await replica.apply(sinks={"ops": replica.webhook()})
    before = replica.table.rows[OPS].epoch
    await replica.apply(sinks={"ops": replica.webhook(rate_limit="9/s")})
    assert replica.table.rows[OPS].epoch != before
    await replica.record()
    assert await replica.deliver()
    await replica.look()
    assert replica.ownership.may_own(OPS)


async def test_what_is_configured_no_more_is_released_once_it_has_ended(replica: Shared) -> None:
    replica.hook.reply = slowly = Slowly()
    await replica.apply(sinks={"ops": replica.webhook(), "more": replica.webhook()})
    (ops,) = (each for each in replica.supervisor.parts() if isinstance(each, DeliveryWorker) and each.sink == "ops")
    await replica.record()
    replica.clock.advance(1.0)
    await ops.tick()
    await replica.hook.asked()
    applying = asyncio.create_task(replica.apply(sinks={"more": replica.webhook()}))
    while "sink:ops" in replica.ticks():
        await asyncio.sleep(0)
    assert not replica.table.is_free(OPS)
    slowly.may_answer.set()
    await applying
    assert replica.table.is_free(OPS)
    assert not replica.table.is_free(MORE)


async def test_a_key_that_another_replica_uses_for_an_account_of_another_name_is_not_used(replica: Shared) -> None:
    await replica.apply({"before": replica.account()})
    (key,) = replica.table.spent()
    await replica.apply({"own": replica.account(api_key="another")})
    assert replica.table.spent().isdisjoint({key})
    await replica.table.give(LeaseKey("account", "before"), owner="other", api_key_hash=key)
    await replica.apply({"after": replica.account()})
    assert replica.ticks() == set()
    replica.clock.advance(LEASE_S)
    await replica.look()
    assert replica.ticks() == {"account:after"}


async def test_at_the_end_each_is_released_once_it_has_ended_whatever_the_others_do(replica: Shared) -> None:
    await replica.send(slowly := Slowly())
    await replica.settled()
    stopping = asyncio.create_task(replica.supervisor.stop())
    async with asyncio.timeout(LONG_S):
        while not replica.table.is_free(ACCOUNT):
            await asyncio.sleep(0)
    assert not replica.table.is_free(OPS)
    assert replica.table.replicas() == set()
    slowly.may_answer.set()
    await stopping
    assert replica.table.owned("sink") == replica.table.owned("maintenance") == {}


async def test_a_new_configuration_while_leases_come_and_go_ends_as_it_says(replica: Shared) -> None:
    sinks = {name: replica.webhook() for name in ("ops", "more", "third")}
    await replica.apply(sinks=sinks)
    for name in sinks:
        await replica.take_away(LeaseKey("sink", name))
    looking = asyncio.create_task(replica.look())
    await replica.apply(sinks={name: replica.webhook(rate_limit="9/s") for name in ("ops", "more")})
    await looking
    await replica.settled()
    assert replica.ticks() == {"account:a"}
    replica.clock.advance(LEASE_S)
    await replica.look()
    assert replica.ticks() == {"account:a", "sink:ops", "sink:more"}
    assert replica.table.is_free(LeaseKey("sink", "third"))


async def test_a_request_that_was_taken_in_time_is_not_sent_too_late_and_comes_due_again(replica: Shared) -> None:
    await replica.apply()
    replica.clock.advance(1.0)
    watcher = replica.watcher()
    await watcher.tick()
    (asking,) = watcher._tasks
    replica.clock.advance(LEASE_S)
    await asyncio.wait([asking])
    assert replica.api.quiet
    assert replica.metrics.total("watcher_api_requests_total") == 0
    await replica.look()
    replica.clock.advance(2.0)
    await replica.poll()
