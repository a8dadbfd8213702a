"""`kill -9` at random moments: nothing is lost, nothing is out of order, repetitions are the same bytes."""

import asyncio
from itertools import pairwise
from statistics import median
from typing import Any

import pytest
from e2e import checks
from e2e.endpoint import refusing_some
from e2e.programme import Life
from e2e.stage import Stage, all_have_ended, document_of, webhook, world_of
from postgres import PostgresServer

from watcher.simulator.server import RequestLog

LONGEST_LIFE_S = 3.0
RATE = 20


@pytest.mark.parametrize(
    ("stage", "rounds", "count"),
    [
        ("sqlite", 2, 30),
        ("postgres", 2, 30),
        pytest.param("sqlite", 5, 200, marks=pytest.mark.ci),
        pytest.param("postgres", 5, 200, marks=pytest.mark.ci),
        pytest.param("postgres", 50, 200, marks=pytest.mark.soak),
    ],
    indirect=["stage"],
)
async def test_a_kill_at_any_moment_loses_nothing(
    stage: Stage, rounds: int, count: int, request: pytest.FixtureRequest
) -> None:
    is_shared = stage.store_url.startswith("postgresql")
    postgres = request.getfixturevalue("postgres") if is_shared else None
    await _survive(stage, rounds=rounds, count=count, postgres=postgres)


@pytest.mark.soak
async def test_it_is_back_at_work_soon_after_a_kill(stage: Stage) -> None:
    """A single start may have to share its core with whatever else this machine does: the median of many."""
    request_log = await _survive(stage, rounds=50, count=200)
    assert median(_back_at_work_after_s(stage.lives[1:], request_log)) <= 2.0


async def _survive(stage: Stage, *, rounds: int, count: int, postgres: PostgresServer | None = None) -> RequestLog:
    """Kill one life after the other, and see that the last one reports all the rest.

    On PostgreSQL the next one does not wait until the leases of the one before have run out: else most did nothing.
    """
    simulator = await stage.simulator(world_of(count, ends_after_s=2.0, ends_within_s=rounds * LONGEST_LIFE_S))
    receiver = await stage.receiver(refusing_some(stage.dice, taken=4))
    document = document_of({"default": simulator}, {"ops": webhook(receiver)}, rate_limit=f"{RATE}/s")

    for _ in range(rounds):
        life = await stage.start(document)
        await asyncio.sleep(stage.dice.uniform(0, LONGEST_LIFE_S))
        await life.kill()
        if postgres is not None:
            await asyncio.to_thread(postgres.run, "UPDATE lease SET until = 0", stage.store_url)
    last = await stage.start(document)
    await last.until(
        lambda: all(all_have_ended(emitted, simulator.world) for emitted in (receiver.events(), _printed(stage.lives))),
        within_s=rounds * LONGEST_LIFE_S + 60,
        what="every end was reported",
    )
    assert await last.stop() == 0

    printed = [line for life in stage.lives for line in life.emitted]
    assert checks.of_all(simulator, printed, receiver) == []
    assert stage.within_pace(simulator, rate=RATE)
    return simulator.request_log


def _printed(lives: list[Life]) -> list[dict[str, Any]]:
    return [event for life in lives for event in life.events()]


def _back_at_work_after_s(lives: list[Life], request_log: RequestLog) -> list[float]:
    """Return, for each life that lasted until then, the seconds from its start to its first request."""
    begins = [*(life.began_at for life in lives), float("inf")]
    return [
        next(entry.at for entry in request_log.entries if entry.at > begun) - begun
        for begun, next_one in pairwise(begins)
        if any(begun < entry.at < next_one for entry in request_log.entries)
    ]
