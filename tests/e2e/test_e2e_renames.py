"""Accounts are renamed, and given each other's keys, on one replica after the other: no key has two owners."""

import asyncio
import time
from itertools import chain

import pytest
from e2e.chaos import Replicas, document_of_accounts, key_of, world_of_accounts
from e2e.handovers import among_others, by_account
from e2e.stage import Document, Stage
from postgres import PostgresServer

pytestmark = pytest.mark.ci

ACCOUNTS, PLACES, RATE = 6, 3, 20
APART_S = 3.0
"""So long after the one before the next replica has the new configuration."""

SPREAD_S = 30.0
HANDED_OVER_S = 0.3
"""Nobody who takes an account gives it back in less."""


def renamed(document: Document, *, rotated_by: int) -> Document:
    """Return the configuration with other names, each with the key of the one so much further on."""
    accounts = [*document["accounts"].values()]
    turned = [*accounts[rotated_by:], *accounts[:rotated_by]]
    names = [f"renamed-{number}" for number in range(ACCOUNTS)]
    watches = [watch | {"account": name} for name, watch in zip(names, document["watch"], strict=True)]
    return document | {"accounts": dict(zip(names, turned, strict=True)), "watch": watches}


async def test_while_accounts_are_renamed_and_keys_rotated_each_key_has_one_owner_and_keeps_its_rate(
    postgres_stage: Stage, postgres: PostgresServer
) -> None:
    stage = postgres_stage
    world = world_of_accounts(ACCOUNTS, 12, span_s=300.0, seed=1)
    keys = {f"KEY_{number}": key_of(number, 0) for number in range(ACCOUNTS)}
    simulator, environs = await stage.simulator(world), {}
    for place in range(PLACES):  # each replica has a server of its own, its proxy, so that it is seen which one asks
        places = [[key if each == place else f"{key}-{each}" for each in range(PLACES)] for key in keys.values()]
        proxy = await stage.simulator(world, api_keys=[*chain.from_iterable(places)])
        proxy.request_log = simulator.request_log
        environs[place] = keys | {"http_proxy": proxy.base_url, "no_proxy": "127.0.0.1,localhost"}
    document = document_of_accounts(simulator, {"ops": await stage.receiver()}, rate=RATE)
    for account in document["accounts"].values():
        account["base_url"] = "http://clerk.test"
    replicas = Replicas(stage, stage.store_url, postgres, simulator.request_log, document, ACCOUNTS, PLACES, environs)
    await replicas.start_all()
    await replicas.until_spread(within_s=SPREAD_S)
    began_at = time.monotonic()
    for rotated_by in (0, 1):
        for place in replicas.lives:
            await replicas.write(place, renamed(document, rotated_by=rotated_by))
            await asyncio.sleep(APART_S)
        await replicas.until_spread(within_s=SPREAD_S)
    assert set(await replicas.end_all()) == {0}
    assert not [life for life in stage.lives if b"Traceback" in life.stderr.lines.everything()]
    asked = by_account(simulator.request_log, places_count=PLACES).values()
    since = [[each for each in requests if each.entry.at >= began_at] for requests in asked]
    assert [len(life.logged("config.reloaded")) for life in stage.lives] == [2] * PLACES
    assert (len(since), all(since)) == (ACCOUNTS, True)
    assert among_others(since, within_s=HANDED_OVER_S) == []
    assert stage.within_pace(simulator, rate=RATE, keys_each=PLACES)
