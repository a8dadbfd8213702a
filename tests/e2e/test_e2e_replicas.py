"""Several replicas of the program on one PostgreSQL: shared out, killed, stopped in order, and put to sleep."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import pytest
from e2e import checks
from e2e.endpoint import Receiver
from e2e.replicas import Fleet, Replica
from e2e.stage import Stage, webhook, world_of
from postgres import PostgresServer

from watcher.store.leases import LEASE_S

pytestmark = [pytest.mark.untraced, pytest.mark.long]

ASLEEP_S = 12.0
"""Longer than a lease, and than it takes others to notice."""


@pytest.fixture
async def receiver(postgres_stage: Stage) -> Receiver:
    return await postgres_stage.receiver()


@pytest.fixture
async def fleet(postgres_stage: Stage, receiver: Receiver) -> AsyncIterator[Fleet]:
    world = world_of(6, ends_after_s=300.0, ends_within_s=400.0)
    fleet = Fleet(postgres_stage, world, accounts=6, sinks={"ops": webhook(receiver)})
    for _ in range(3):
        await fleet.start()
    await fleet.spread(fleet.replicas)
    yield fleet
    assert checks.of_sequences(receiver.kept()) == []
    for replica in fleet.living():
        assert await replica.life.stop() == 0
        assert replica.life.logged("config.differs") == []


def others_than(fleet: Fleet, one: Replica) -> list[Replica]:
    return [replica for replica in fleet.living() if replica is not one]


async def test_the_accounts_of_a_killed_replica_are_polled_again_within_15_s(fleet: Fleet) -> None:
    one = fleet.replicas[0]
    keys = one.keys()
    killed_at = time.monotonic()
    await one.life.kill()
    others = others_than(fleet, one)
    after_s = await fleet.taken_over(keys, by=others, since=killed_at)
    assert len(after_s) == 2
    await fleet.spread(others)
    await fleet.spread([*others, await fleet.start()])


async def test_the_accounts_of_a_stopped_replica_are_polled_by_others_at_once(fleet: Fleet) -> None:
    one = fleet.replicas[0]
    keys = one.keys()
    stopped_at = time.monotonic()
    assert await one.life.stop() == 0
    after_s = await fleet.taken_over(keys, by=others_than(fleet, one), since=stopped_at)
    assert max(after_s.values()) < 3.0
    last_at = {entry.key: entry.at for entry in one.since(stopped_at)}
    assert all(stopped_at + after_s[key] > at for key, at in last_at.items() if key in keys)


async def test_a_replica_that_slept_past_its_leases_asks_once_at_most_and_lets_go(fleet: Fleet) -> None:
    one = fleet.replicas[0]
    keys, others = one.keys(), others_than(fleet, one)
    stopped_at = time.monotonic()
    one.life.send(signal.SIGSTOP)
    await fleet.taken_over(keys, by=others, since=stopped_at)
    await asyncio.sleep(max(0.0, stopped_at + ASLEEP_S - time.monotonic()))
    continued_at = time.monotonic()
    one.life.send(signal.SIGCONT)
    await one.life.until(
        lambda: len(one.life.logged("ownership.lost")) >= len(keys), within_s=10, what="it has let go of its accounts"
    )
    await fleet.spread(fleet.replicas)
    overlap = [
        entry
        for entry in one.since(continued_at)
        if any(
            other.key == entry.key and entry.at < other.at for replica in others for other in replica.since(entry.at)
        )
    ]
    assert len(overlap) <= 1
    assert {entry["level"] for entry in one.life.logged("ownership.lost")} == {"info"}


async def test_without_the_database_nobody_asks_for_longer_than_its_leases_and_all_go_on_once_it_is_back(
    fleet: Fleet, postgres: PostgresServer
) -> None:
    await asyncio.to_thread(postgres.stop)
    stopped_at = time.monotonic()
    await asyncio.sleep(ASLEEP_S)
    asked = [replica.since(stopped_at) for replica in fleet.replicas]
    assert all(asked)
    assert all(entries[-1].at - stopped_at < LEASE_S for entries in asked)
    await asyncio.to_thread(postgres.start)
    await fleet.spread(fleet.replicas)
    assert [replica.life.is_over for replica in fleet.replicas] == [False] * 3
