"""The owners of one replica among several, over a real store and real sockets; leases and ticks when the test says."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from lease_store import FakeLeaseStore, LeaseTable, released
from receiver import answer, says
from stores import claim
from structlog.testing import capture_logs
from supervision import LONG_S, Setup, Slowly, set_up
from virtual import FakeClock

from watcher.delivery.worker import DeliveryWorker
from watcher.sinks.output import StdoutOutput
from watcher.store.leases import LEASE_S, LeaseKey, RenewRequest, Sharing
from watcher.store.sql_store import SqlStore

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
async def setup(store: SqlStore, clock: FakeClock) -> AsyncIterator[Shared]:
    async with set_up(store, clock, Shared) as setup:
        yield setup
        setup.lease_store.may_answer.set()


async def test_what_another_replica_has_is_not_owned_until_it_is_free(setup: Shared) -> None:
    await setup.take_away(OPS)
    await setup.apply(sinks={"ops": setup.webhook()})
    assert (setup.ticks(), setup.named("sink")) == ({"account:a"}, set())
    setup.clock.advance(LEASE_S)
    await setup.look()
    assert setup.ticks() == {"account:a", "sink:ops"}


@pytest.mark.parametrize("finds_out", ["look", "run_jobs"])
async def test_what_another_replica_took_over_is_let_go_of_said_once_and_the_others_go_on(
    setup: Shared, finds_out: str
) -> None:
    sinks = {"ops": setup.webhook(), "more": setup.webhook()}
    await setup.apply({"a": setup.account(), "b": setup.account()}, sinks=sinks)
    setup.api.reply = says(answer(404))
    await setup.settled()
    await setup.take_away(ACCOUNT)
    await setup.take_away(OPS)
    with capture_logs() as logs:
        await getattr(setup, finds_out)()
        await setup.settled()
        await setup.look()
    assert "sink:ops" not in setup.ticks()
    assert {"account:b", "sink:more"} <= setup.ticks()
    if finds_out == "look":
        assert "account:a" not in setup.ticks()
        assert (setup.named("account"), setup.named("sink")) == ({"b"}, {"more"})
    lost = [entry for entry in logs if entry["event"] == "ownership.lost"]
    assert {entry["log_level"] for entry in lost} == {"info"}
    assert sorted((entry.get("account"), entry.get("sink")) for entry in lost if entry.get("sink")) == [(None, "ops")]


async def test_what_was_lost_and_is_had_again_begins_anew(setup: Shared) -> None:
    await setup.apply(sinks={"ops": setup.webhook()})
    worker = setup.worker()
    await setup.take_away(OPS)
    setup.table.take_away(OPS)
    await setup.look()
    assert setup.worker() is not worker


async def test_an_owner_whose_lease_is_not_trusted_asks_and_sends_nothing_until_it_is_again(setup: Shared) -> None:
    await setup.apply(sinks={"ops": setup.webhook()})
    await setup.record()
    setup.clock.advance(LEASE_S)
    watcher, worker = setup.watcher(), setup.worker()
    assert (await watcher.tick(), await worker.tick()) == (10.0, 10.0)
    await watcher.drain()
    assert (setup.api.quiet, setup.hook.quiet) == (True, True)
    await setup.look()
    assert (setup.watcher(), setup.worker()) == (watcher, worker)
    assert await setup.deliver()


async def test_a_changed_owner_begins_under_another_epoch(setup: Shared) -> None:
    await setup.apply(sinks={"ops": setup.webhook()})
    before = setup.table.rows[OPS].epoch
    await setup.apply(sinks={"ops": setup.webhook(rate_limit="9/s")})
    assert setup.table.rows[OPS].epoch != before
    await setup.record()
    assert await setup.deliver()
    await setup.look()
    assert setup.ownership.may_own(OPS)


async def test_what_is_found_to_be_lost_as_it_changes_is_shown_no_more(
    setup: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    await setup.apply(sinks={"ops": setup.webhook()})
    renew = setup.lease_store.renew

    async def too_late(request: RenewRequest) -> Sharing:
        if released([request]) == [OPS]:
            await setup.take_away(OPS)
        return await renew(request)

    monkeypatch.setattr(setup.lease_store, "renew", too_late)
    await setup.apply(sinks={"ops": setup.webhook(rate_limit="9/s")})
    assert (setup.ticks(), setup.named("sink")) == ({"account:a"}, set())


async def test_what_is_configured_no_more_is_released_once_it_has_ended(setup: Shared) -> None:
    setup.hook.reply = slowly = Slowly()
    await setup.apply(sinks={"ops": setup.webhook(), "more": setup.webhook()})
    (ops,) = (each for each in setup.supervisor.parts() if isinstance(each, DeliveryWorker) and each.sink == "ops")
    await setup.record()
    setup.clock.advance(1.0)
    await ops.tick()
    await setup.hook.asked()
    applying = asyncio.create_task(setup.apply(sinks={"more": setup.webhook()}))
    while "sink:ops" in setup.ticks():
        await asyncio.sleep(0)
    assert not setup.table.is_free(OPS)
    slowly.may_answer.set()
    await applying
    assert setup.table.is_free(OPS)
    assert not setup.table.is_free(MORE)


async def test_a_key_that_another_replica_uses_for_an_account_of_another_name_is_not_used(setup: Shared) -> None:
    await setup.apply({"before": setup.account()})
    (key,) = setup.table.spent()
    await setup.apply({"own": setup.account(api_key="another")})
    assert setup.table.spent().isdisjoint({key})
    await setup.table.give(LeaseKey("account", "before"), owner="other", api_key_hash=key)
    await setup.apply({"after": setup.account()})
    assert setup.ticks() == set()
    setup.clock.advance(LEASE_S)
    await setup.look()
    assert setup.ticks() == {"account:after"}


async def test_at_the_end_each_is_released_once_it_has_ended_whatever_the_others_do(setup: Shared) -> None:
    await setup.send(slowly := Slowly())
    await setup.settled()
    stopping = asyncio.create_task(setup.supervisor.stop())
    async with asyncio.timeout(LONG_S):
        while not setup.table.is_free(ACCOUNT):
            await asyncio.sleep(0)
    assert not setup.table.is_free(OPS)
    assert setup.table.replicas() == set()
    slowly.may_answer.set()
    await stopping
    assert setup.table.owned("sink") == setup.table.owned("maintenance") == {}


async def test_a_new_configuration_while_leases_come_and_go_ends_as_it_says(setup: Shared) -> None:
    sinks = {name: setup.webhook() for name in ("ops", "more", "third")}
    await setup.apply(sinks=sinks)
    for name in sinks:
        await setup.take_away(LeaseKey("sink", name))
    looking = asyncio.create_task(setup.look())
    await setup.apply(sinks={name: setup.webhook(rate_limit="9/s") for name in ("ops", "more")})
    await looking
    await setup.settled()
    assert setup.ticks() == {"account:a"}
    setup.clock.advance(LEASE_S)
    await setup.look()
    assert setup.ticks() == {"account:a", "sink:ops", "sink:more"}
    assert setup.table.is_free(LeaseKey("sink", "third"))


async def test_a_request_that_was_taken_in_time_is_not_sent_too_late_and_comes_due_again(setup: Shared) -> None:
    await setup.apply()
    setup.clock.advance(1.0)
    watcher = setup.watcher()
    await watcher.tick()
    (asking,) = watcher._tasks
    setup.clock.advance(LEASE_S)
    await asyncio.wait([asking])
    assert setup.api.quiet
    assert setup.metrics.total("watcher_api_requests_total") == 0
    await setup.look()
    setup.clock.advance(2.0)
    await setup.poll()
