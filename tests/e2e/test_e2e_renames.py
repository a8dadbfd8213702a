"""Accounts are renamed, and given each other's keys, on one replica after the other: no key has two owners."""

import asyncio
import time

import pytest
from e2e.handovers import Asked, among_others
from e2e.replicas import Fleet
from e2e.stage import Document, Stage, webhook, world_of

pytestmark = [pytest.mark.untraced, pytest.mark.long]

RATE = 20
APART_S = 3.0
"""So long after the one before the next replica has the new configuration."""

HANDED_OVER_S = 0.3
"""Nobody who takes an account gives it back in less."""


async def roll_out(fleet: Fleet, document: Document) -> None:
    """Give the replicas a configuration one after the other; return once each key is used again, by one of them."""
    for replica in fleet.replicas:
        await fleet.change(replica, document)
        await asyncio.sleep(APART_S)
    await fleet.spread(fleet.replicas)


async def test_while_accounts_are_renamed_and_keys_rotated_each_key_has_one_owner_and_keeps_its_rate(
    postgres_stage: Stage,
) -> None:
    receiver = await postgres_stage.receiver()
    world = world_of(6, ends_after_s=300.0, ends_within_s=400.0)
    fleet = Fleet(postgres_stage, world, accounts=6, sinks={"ops": webhook(receiver)})
    for _ in range(3):
        await fleet.start()
    await fleet.spread(fleet.replicas)
    began_at = time.monotonic()
    await roll_out(fleet, fleet.document(prefix="b"))
    await roll_out(fleet, fleet.document(prefix="b", rotated_by=1))
    for replica in fleet.replicas:
        assert await replica.life.stop() == 0
        assert b"Traceback" not in replica.life.stderr.lines.everything()

    asked: dict[int | None, list[Asked]] = {}
    for place, replica in enumerate(fleet.replicas):
        for entry in replica.since(began_at):
            asked.setdefault(entry.key, []).append(Asked(entry, entry.key or 0, place))
    for requests in asked.values():
        requests.sort(key=lambda each: each.entry.at)
    assert len(asked) == fleet.account_count
    assert among_others(asked.values(), within_s=HANDED_OVER_S) == []
    assert postgres_stage.within_pace(fleet.asked(), rate=RATE)
