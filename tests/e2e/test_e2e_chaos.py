"""Replicas on one PostgreSQL, whatever befalls them: all is delivered in order, and no key is used too often."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from e2e import checks
from e2e.chaos import (
    AN_HOUR_AHEAD,
    Replicas,
    document_of_accounts,
    have_ended,
    keys_of,
    needs_faketime,
    world_of_accounts,
)
from e2e.endpoint import Receiver, refusing_some
from e2e.handovers import delays, nobody_able, overlapping
from e2e.programme import Life
from e2e.stage import ENDS, Stage
from e2e.troubles import Troubles
from pgbouncer import installed as needs_pgbouncer
from pgbouncer import pooled
from postgres import PostgresServer

from watcher.simulator.faults import Faults
from watcher.simulator.scenarios import CALM, HARSH
from watcher.simulator.server import Simulator

PLACES = 3
RATE = 20
ASKED_AGAIN_S = 15.0
SPREAD_S = 60.0
LASTING_S = 20.0
"""Longer than an account is without a replica: if who saw a status died before it was written down, the next saw it."""

BODIES = "SELECT body FROM event WHERE execution IS NOT NULL"

Environs = Mapping[int, Mapping[str, str]]

VARIANTS = [
    pytest.param({}, id="direct"),
    pytest.param({1: AN_HOUR_AHEAD}, id="skewed", marks=needs_faketime),
    pytest.param({1: AN_HOUR_AHEAD}, id="pooled-skewed", marks=[needs_faketime, needs_pgbouncer]),
]


@pytest.fixture
def database(request: pytest.FixtureRequest, postgres_stage: Stage, postgres: PostgresServer) -> Iterator[str]:
    """Give the database's own URL; the replicas may be to go through a pooler."""
    with ExitStack() as stack:
        direct = postgres_stage.store_url
        if "pooled" in request.node.callspec.id:
            postgres_stage.store_url = stack.enter_context(pooled(postgres, direct))
        yield direct


@dataclass(frozen=True, slots=True)
class Play:
    """Replicas that run, what they ask and tell, and what befalls them."""

    stage: Stage
    simulator: Simulator
    receivers: Mapping[str, Receiver]
    replicas: Replicas
    troubles: Troubles

    async def until_all_is_told(self, *, within_s: float) -> None:
        """Return once every end has arrived everywhere, on stdout too."""
        wanted = have_ended(self.simulator.world)
        for name, receiver in self.receivers.items():
            await self.stage.board.until(
                partial(_has_all, receiver, wanted), within_s=within_s, what=f"{name} had all ends"
            )
        await self.stage.board.until(
            partial(_have_printed_all, self.stage.lives, wanted), within_s=within_s, what="stdout had all ends"
        )


def _has_all(receiver: Receiver, wanted: frozenset[str]) -> bool:
    """Say so at once: this is asked whenever anything arrives, in the process that also serves the API."""
    success, failure = ENDS
    return all(subject in receiver.subjects[success] or subject in receiver.subjects[failure] for subject in wanted)


def _have_printed_all(lives: Iterable[Life], wanted: frozenset[str]) -> bool:
    events = (json.loads(line) for life in lives for line in life.emitted)
    return wanted <= {event["subject"] for event in events if event["type"] in ENDS}


@asynccontextmanager
async def playing(
    stage: Stage,
    postgres: PostgresServer,
    database: str,
    *,
    environs: Environs,
    size: tuple[int, int, float],
    faults: Faults = CALM,
) -> AsyncIterator[Play]:
    """Let three replicas watch so many accounts and executions over so many seconds; in a failure, say what befell."""
    accounts_count, executions_count, span_s = size
    world = world_of_accounts(accounts_count, executions_count, span_s=span_s, seed=stage.dice.randrange(1_000_000))
    simulator = await stage.simulator(world, faults=faults, api_keys=keys_of(accounts_count, PLACES))
    receivers = {name: await stage.receiver(refusing_some(stage.dice)) for name in ("ops", "audit")}
    document = document_of_accounts(simulator, receivers, rate=RATE)
    replicas = Replicas(stage, database, postgres, simulator.request_log, document, accounts_count, PLACES, environs)
    troubles = Troubles(replicas, dice=stage.dice)
    await troubles.prepare()
    try:
        await replicas.start_all()
        await replicas.until_spread(within_s=SPREAD_S)
        troubles.say("spread evenly")
        yield Play(stage, simulator, receivers, replicas, troubles)
    except BaseException as error:
        kept = await asyncio.to_thread(_keep, stage, simulator)
        where = f"what all logged and what the API was asked is in {kept}"
        error.add_note("\n".join([where, *troubles.story, *_last_words(replicas)]))
        raise


def _keep(stage: Stage, simulator: Simulator) -> Path:
    """Write down what every replica logged and what the API was asked, for whoever reads of a failure."""
    for nth, life in enumerate(stage.lives):
        (stage.folder / f"{nth}-{life.pid}.log").write_bytes(life.stderr.lines.everything())
    requests = (json.dumps(asdict(entry), default=str) for entry in simulator.request_log.entries)
    (stage.folder / "requests.jsonl").write_text("\n".join(requests), encoding="utf-8")
    return stage.folder


def _last_words(replicas: Replicas) -> Iterator[str]:
    for place, life in replicas.lives.items():
        yield f"{place} (exit code {life.process.returncode}): {life.stderr.lines.everything()[-1500:].decode()}"


@pytest.mark.ci
@pytest.mark.parametrize("environs", [VARIANTS[0], VARIANTS[-1]])
async def test_three_replicas_lose_nothing_in_half_a_minute(
    postgres_stage: Stage, postgres: PostgresServer, database: str, environs: Environs
) -> None:
    async with playing(postgres_stage, postgres, database, environs=environs, size=(3, 100, 25.0)) as play:
        await play.troubles.roll_back_renewals(0, for_s=3.0)
        await play.troubles.kill(1)
        stopping = asyncio.create_task(play.troubles.stop_past_the_lease(2))
        await asyncio.sleep(2.0)
        await play.troubles.restart_database()
        await play.troubles.end_backends()
        await stopping
        await play.until_all_is_told(within_s=40)
        await check(play, skewed=bool(environs))


@pytest.mark.soak
@pytest.mark.parametrize("environs", VARIANTS)
async def test_three_replicas_lose_nothing_over_minutes_of_harsh_faults(
    postgres_stage: Stage, postgres: PostgresServer, database: str, environs: Environs
) -> None:
    size = (12, 3_000, 240.0)
    async with playing(postgres_stage, postgres, database, environs=environs, size=size, faults=HARSH) as play:
        await play.troubles.all_of_them(for_s=240.0)
        await play.until_all_is_told(within_s=300)
        await check(play, skewed=bool(environs))


async def check(play: Play, *, skewed: bool) -> None:
    """End all replicas, and compare what was told with what was true and with what was written down."""
    replicas, simulator, ended_at = play.replicas, play.simulator, time.monotonic()
    assert set(await replicas.end_all()) == {0}
    recorded = {bytes(body) for (body,) in await asyncio.to_thread(replicas.server.run, BODIES, replicas.database)}
    printed = [line for life in play.stage.lives for line in life.emitted]
    told = {**{name: receiver.kept() for name, receiver in play.receivers.items()}, "stdout": printed}
    tolerance = checks.TOLERANCE + timedelta(hours=1 if skewed else 0)
    for bodies in told.values():
        assert checks.of_truth(bodies, simulator, tolerance=tolerance) == []
        assert checks.of_completeness(bodies, simulator) == []
        assert checks.of_lasting_answers(bodies, simulator, lasting_s=LASTING_S) == []
        assert {body for body in bodies if "subject" in json.loads(body)} == recorded
    assert checks.of_sequences([body for bodies in told.values() for body in bodies]) == []
    for receiver in play.receivers.values():
        assert checks.of_order(receiver.attempts) == []
        assert skewed or receiver.forgeries == []
    assert play.stage.within_pace(simulator, rate=RATE, keys_each=PLACES)
    stops_count = sum(loss.is_stop for loss in replicas.losses)
    assert len(overlapping(simulator.request_log, places_count=PLACES)) <= stops_count
    outages = nobody_able(replicas.spells, play.troubles.outages, since=play.troubles.began_at, until=ended_at)
    log = simulator.request_log
    waited = delays(log, replicas.losses, places_count=PLACES, outages=outages, until=ended_at)
    assert waited, "no account lost its replica"
    assert [each for each in waited if each[0] > ASKED_AGAIN_S] == []
    for life in play.stage.lives:
        assert b"Traceback" not in life.stderr.lines.everything()
