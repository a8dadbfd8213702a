"""Replicas on one PostgreSQL: one ends, one has another file, the database goes, or all of that at once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from itertools import chain
from pathlib import Path

import pytest
from e2e import checks
from e2e.endpoint import Answer, Receiver, refusing_some
from e2e.programme import PATIENCE_S, Life
from e2e.replicas import (
    AN_HOUR_AHEAD,
    Replicas,
    Troubles,
    among_others,
    by_account,
    document_of_accounts,
    have_ended,
    key_of,
    keys_of,
    needs_faketime,
    not_asked_again,
    overlapping,
    world_of_accounts,
)
from e2e.stage import ENDS, Document, Stage
from pgbouncer import installed as needs_pgbouncer
from pgbouncer import pooled
from postgres import PostgresServer

from watcher.simulator.faults import Faults
from watcher.simulator.scenarios import CALM, HARSH
from watcher.simulator.server import Simulator
from watcher.store.leases import LEASE_S

PLACES = 3
RATE = 20
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
        error.add_note("\n".join([where, *troubles.story]))
        raise


def _keep(stage: Stage, simulator: Simulator) -> Path:
    """Write down what every replica logged and what the API was asked, for whoever reads of a failure."""
    for nth, life in enumerate(stage.lives):
        (stage.folder / f"{nth}-{life.pid}.log").write_bytes(life.stderr.lines.everything())
    requests = (json.dumps(asdict(entry), default=str) for entry in simulator.request_log.entries)
    (stage.folder / "requests.jsonl").write_text("\n".join(requests), encoding="utf-8")
    return stage.folder


@pytest.mark.ci
@pytest.mark.parametrize("environs", VARIANTS[-1:])
async def test_three_replicas_lose_nothing_in_half_a_minute(
    postgres_stage: Stage, postgres: PostgresServer, database: str, environs: Environs
) -> None:
    async with playing(postgres_stage, postgres, database, environs=environs, size=(3, 80, 20.0)) as play:
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
    replicas, simulator = play.replicas, play.simulator
    assert any(loss.accounts for loss in replicas.losses), "no account lost its replica"
    async with asyncio.timeout(PATIENCE_S):
        while not_asked_again(simulator.request_log, replicas.losses, places_count=PLACES):
            await asyncio.sleep(0.5)
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
    assert play.stage.within_pace(simulator.request_log, rate=RATE, keys_each=PLACES)
    stops_count = sum(loss.is_stop for loss in replicas.losses)
    assert len(overlapping(simulator.request_log, places_count=PLACES)) <= stops_count
    for life in play.stage.lives:
        assert b"Traceback" not in life.stderr.lines.everything()


# Replicas whose API keys show who asks, though accounts are renamed meanwhile

ACCOUNTS = 6
WITHOUT_S = 12.0
"""Longer than a lease, and than it takes others to notice."""

APART_S = 3.0
"""So long after the one before the next replica has the new configuration."""
HANDED_OVER_S = 0.3
"""Nobody who takes an account gives it back in less."""


def renamed(document: Document, *, rotated_by: int) -> Document:
    """Return the configuration with other names, each with the key of the one so much further on."""
    accounts = [*document["accounts"].values()]
    turned = [*accounts[rotated_by:], *accounts[:rotated_by]]
    names = [f"renamed-{number}" for number in range(ACCOUNTS)]
    watches = [watch | {"account": name} for name, watch in zip(names, document["watch"], strict=True)]
    return document | {"accounts": dict(zip(names, turned, strict=True)), "watch": watches}


async def cluster(stage: Stage, postgres: PostgresServer) -> Replicas:
    """Start a replica in each place, with a server of its own, its proxy, so that it is seen which one asks."""
    world = world_of_accounts(ACCOUNTS, 12, span_s=300.0, seed=1)
    keys = {f"KEY_{number}": key_of(number, 0) for number in range(ACCOUNTS)}
    simulator, environs = await stage.simulator(world), {}
    for place in range(PLACES):
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
    return replicas


@pytest.mark.ci
async def test_each_key_has_one_owner_while_a_replica_ends_accounts_are_renamed_and_the_database_is_away(
    postgres_stage: Stage, postgres: PostgresServer
) -> None:
    stage, replicas = postgres_stage, await cluster(postgres_stage, postgres)
    entries = replicas.log.entries
    board = stage.board

    # one ends: others poll its accounts, and it asks for none of them any more
    accounts, stopped_at = await replicas.held(0), time.monotonic()
    assert len(accounts) == ACCOUNTS // PLACES
    assert await replicas.lives.pop(0).stop() == 0
    await replicas.until_spread(within_s=SPREAD_S)
    asked = by_account(replicas.log, places_count=PLACES)
    for account in accounts:
        theirs = next(each.entry.at for each in asked[account] if each.place and each.entry.at > stopped_at)
        assert max(each.entry.at for each in asked[account] if each.place == 0) < theirs
    assert [life.logged("config.differs") for life in stage.lives] == [[]] * PLACES

    # accounts are renamed and keys rotated, on one replica after the other
    await (await replicas.start(0)).started()
    await replicas.until_spread(within_s=SPREAD_S)
    began_at = time.monotonic()
    for rotated_by in (0, 1):
        for place in replicas.lives:
            await replicas.write(place, renamed(replicas.document, rotated_by=rotated_by))
            await asyncio.sleep(APART_S)
        await replicas.until_spread(within_s=SPREAD_S)
    asked = by_account(replicas.log, places_count=PLACES)
    since = [[each for each in asked[account] if each.entry.at >= began_at] for account in range(ACCOUNTS)]
    assert all(since)
    assert among_others(since, within_s=HANDED_OVER_S) == []
    assert [len(life.logged("config.reloaded")) for life in replicas.lives.values()] == [2] * PLACES

    # without the database nobody asks for longer than its leases, and all go on once it is back
    await asyncio.to_thread(postgres.stop)
    stopped_at = time.monotonic()
    await asyncio.sleep(WITHOUT_S)
    without = [entry for entry in entries if entry.at >= stopped_at]
    assert {(entry.key or 0) % PLACES for entry in without} == set(replicas.lives)
    after_the_leases = [entry for entry in without if entry.at - stopped_at >= LEASE_S]
    assert after_the_leases == []
    await asyncio.to_thread(postgres.start)
    started_at = time.monotonic()
    await board.until(
        lambda: len({(each.key or 0) // PLACES for each in entries if each.at > started_at}) == ACCOUNTS,
        what="each account was asked for again",
    )
    await replicas.until_spread(within_s=SPREAD_S)
    assert set(await replicas.end_all()) == {0}
    assert not [life for life in stage.lives if b"Traceback" in life.stderr.lines.everything()]
    assert stage.within_pace(replicas.log, rate=RATE, keys_each=PLACES)


LOST_S = 5.0


@pytest.mark.ci
async def test_what_a_database_of_five_seconds_ago_lacks_is_told_once_the_replicas_reload_from_it(
    postgres_stage: Stage, postgres: PostgresServer
) -> None:
    stage, url = postgres_stage, postgres_stage.store_url
    world = world_of_accounts(4, 80, span_s=20.0, seed=stage.dice.randrange(1_000_000))
    simulator = await stage.simulator(world, api_keys=keys_of(4, 2))
    is_lost = False  # what is recorded meanwhile
    receiver = await stage.receiver(lambda _: Answer.REFUSE if is_lost else Answer.TAKE)
    document = document_of_accounts(simulator, {"ops": receiver}, rate=20)
    replicas = Replicas(stage, url, postgres, simulator.request_log, document, 4, 2)
    await replicas.start_all()
    await replicas.until_spread(within_s=60)

    copy = await asyncio.to_thread(postgres.copy, url)
    is_lost = True
    await asyncio.sleep(LOST_S)
    await asyncio.to_thread(postgres.put_in_place, copy, url)
    is_lost = False

    wanted = have_ended(world)
    await stage.board.until(
        lambda: wanted <= {each["subject"] for type_ in ENDS for each in receiver.events(type_)},
        within_s=60,
        what="every end was told",
    )
    assert set(await replicas.end_all()) == {0}
    assert all(life.logged("store.connection_lost") for life in stage.lives)
    assert checks.of_completeness(receiver.kept(), simulator) == []
    recorded = {
        json.loads(bytes(body))["subject"]
        for (body,) in await asyncio.to_thread(
            postgres.run, "SELECT body FROM event WHERE type IN ('execution.success', 'execution.failed')", url
        )
    }
    assert wanted <= recorded
    for life in stage.lives:
        said = life.stderr.lines.everything()
        assert b"Traceback" not in said
        assert b"this is a bug" not in said
