"""Several replicas of the program on one PostgreSQL: one ends in order, and all are without their database."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from e2e import checks
from e2e.chaos import Replicas, document_of_accounts, keys_of, world_of_accounts
from e2e.handovers import by_account
from e2e.stage import Stage
from postgres import PostgresServer

from watcher.store.leases import LEASE_S

pytestmark = pytest.mark.ci

ACCOUNTS, PLACES = 6, 3
SPREAD_S = 30.0
WITHOUT_S = 12.0
"""Longer than a lease, and than it takes others to notice."""


@pytest.fixture
async def replicas(postgres_stage: Stage, postgres: PostgresServer) -> AsyncIterator[Replicas]:
    stage, world = postgres_stage, world_of_accounts(ACCOUNTS, 12, span_s=300.0, seed=1)
    simulator = await stage.simulator(world, api_keys=keys_of(ACCOUNTS, PLACES))
    receiver = await stage.receiver()
    document = document_of_accounts(simulator, {"ops": receiver}, rate=20)
    replicas = Replicas(stage, stage.store_url, postgres, simulator.request_log, document, ACCOUNTS, PLACES)
    await replicas.start_all()
    await replicas.until_spread(within_s=SPREAD_S)
    yield replicas
    assert set(await replicas.end_all()) == {0}
    assert checks.of_sequences(receiver.kept()) == []
    assert [life.logged("config.differs") for life in stage.lives] == [[]] * PLACES


async def test_the_accounts_of_a_stopped_replica_are_polled_by_others_at_once(replicas: Replicas) -> None:
    accounts, stopped_at = await replicas.held(0), time.monotonic()
    assert await replicas.lives.pop(0).stop() == 0
    await replicas.until_spread(within_s=SPREAD_S)

    def by_others(account: int) -> list[float]:
        asked = by_account(replicas.log, places_count=PLACES)[account]
        return [each.entry.at for each in asked if each.place and each.entry.at > stopped_at]

    await replicas.stage.board.until(
        lambda: all(map(by_others, accounts)), within_s=SPREAD_S, what="others asked for each account"
    )
    asked = by_account(replicas.log, places_count=PLACES)
    assert len(accounts) == ACCOUNTS // PLACES
    for account in accounts:
        theirs = by_others(account)
        assert theirs[0] - stopped_at < 3.0
        assert max(each.entry.at for each in asked[account] if each.place == 0) < theirs[0]


async def test_without_the_database_nobody_asks_for_longer_than_its_leases_and_all_go_on_once_it_is_back(
    replicas: Replicas, postgres: PostgresServer
) -> None:
    await asyncio.to_thread(postgres.stop)
    stopped_at = time.monotonic()
    await asyncio.sleep(WITHOUT_S)
    asked = [entry for entry in replicas.log.entries if entry.at >= stopped_at]
    assert {(entry.key or 0) % PLACES for entry in asked} == set(replicas.lives)
    assert asked[-1].at - stopped_at < LEASE_S
    await asyncio.to_thread(postgres.start)
    started_at = time.monotonic()
    await replicas.stage.board.until(
        lambda: len({(each.key or 0) // PLACES for each in replicas.log.entries if each.at > started_at}) == ACCOUNTS,
        within_s=SPREAD_S,
        what="each account was asked for again",
    )
    await replicas.until_spread(within_s=SPREAD_S)
    assert not [life for life in replicas.lives.values() if life.is_over]
