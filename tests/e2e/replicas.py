"""Several replicas on one database, each with API keys of its own, so that the API sees who asks; their troubles."""

import asyncio
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from random import Random
from uuid import UUID

import psycopg
import pytest
from e2e.endpoint import Receiver
from e2e.programme import Life
from e2e.stage import POLLING, Document, Stage, watches_of, webhook
from postgres import PostgresServer

from watcher.runtime.clock import Clock
from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.server import LoggedRequest, RequestLog, Simulator
from watcher.simulator.world import BRISK, Lifecycle, StatusPhase, World, make_lifecycle

FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
needs_faketime = pytest.mark.skipif(FAKETIME is None, reason="faketime is not installed: apt-get install faketime")

AN_HOUR_AHEAD = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": "+1h", "DONT_FAKE_MONOTONIC": "1"}
"""The environment of a program whose wall clock is wrong."""

ENDLESS_S = 1_000_000.0
_HELD = "SELECT name FROM lease WHERE kind = 'account' AND owner LIKE '%-{pid}-%'"


@dataclass(frozen=True, slots=True)
class Loss:
    """A replica was killed or stopped (monotonic seconds), and what it polled then."""

    at: float
    place: int
    accounts: frozenset[int]
    is_stop: bool


@dataclass(slots=True)
class Replicas:
    """Lives of one configuration, each in a place of its own. `environs` is what some places have beside it."""

    stage: Stage
    database: str
    server: PostgresServer
    log: RequestLog
    document: Document
    accounts_count: int
    count: int
    environs: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    lives: dict[int, Life] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)
    in_trouble: set[int] = field(default_factory=set)

    async def start(self, place: int) -> Life:
        """Start the replica of a place, and do not wait until it has."""
        keys = {f"KEY_{number}": key_of(number, place) for number in range(self.accounts_count)}
        environ = keys | dict(self.environs.get(place, {}))
        await self.write(place, self.document)
        life = await self.stage.begin("run", "--config", str(self.stage.folder / f"{place}.yaml"), environ=environ)
        self.lives[place] = life
        return life

    async def write(self, place: int, document: Document) -> None:
        """Give one replica its configuration."""
        await asyncio.to_thread(partial(self.stage.write, document, name=str(place)))

    async def start_all(self) -> None:
        """Start every replica and wait until each has."""
        for place in range(self.count):
            await self.start(place)
        for life in self.lives.values():
            await life.started()

    async def until_spread(self, *, within_s: float) -> None:
        """Return once each account is asked for, by replicas that have as many each, or one more."""

        def is_spread() -> bool:
            askers: dict[int, int] = {}
            for entry in reversed(self.log.entries):  # those that count stand at the end
                askers.setdefault(*divmod(entry.key or 0, self.count))
                if len(askers) == self.accounts_count:
                    break
            counts = [list(askers.values()).count(place) for place in self.lives]
            return sum(counts) == self.accounts_count and max(counts) - min(counts) <= 1

        await self.stage.board.until(is_spread, within_s=within_s, what="the accounts were spread evenly")

    async def kill(self, place: int) -> None:
        """Kill a replica, and start another in its place."""
        self.in_trouble.add(place)
        accounts = await self.held(place)
        await self.lives[place].kill()
        self._lose(place, accounts, is_stop=False)
        await self.start(place)
        self.in_trouble.discard(place)

    async def stop(self, place: int) -> None:
        """Let a replica stand still."""
        self.in_trouble.add(place)
        accounts = await self.held(place)
        self.lives[place].send(signal.SIGSTOP)
        self._lose(place, accounts, is_stop=True)

    def go_on(self, place: int) -> None:
        """Let it run again."""
        self.lives[place].send(signal.SIGCONT)
        self.in_trouble.discard(place)

    async def held(self, place: int) -> frozenset[int]:
        """Return which accounts a replica owns; none if the database cannot be asked."""
        with suppress(psycopg.Error):
            rows = await asyncio.to_thread(self.server.run, _HELD.format(pid=self.lives[place].pid), self.database)
            return frozenset(int(name.removeprefix("account-")) for (name,) in rows)
        return frozenset()

    async def end_all(self) -> list[int]:
        """Ask all to end, and return their exit codes."""
        return list(await asyncio.gather(*(life.stop() for life in self.lives.values())))

    def _lose(self, place: int, accounts: frozenset[int], *, is_stop: bool) -> None:
        self.losses.append(Loss(time.monotonic(), place, accounts, is_stop))


def key_of(account: int, place: int) -> str:
    """Return an account's key for the replica of a place."""
    return f"key-e2e-8f14e45fceea167a-{account}-{place}"


def keys_of(accounts_count: int, places_count: int) -> list[str]:
    """Return the keys in the order in which the request log numbers them: all of an account together."""
    return [key_of(account, place) for account in range(accounts_count) for place in range(places_count)]


def world_of_accounts(accounts_count: int, executions_count: int, *, span_s: float, seed: int) -> World:
    """Return a world with a pipeline for each account; what begins in it has ended when the span is over.

    All executions of every other pipeline are under way from the start, those of the others begin at any time. In each
    one lasts for ever, so that there always is something to poll.
    """
    world, dice = World(Clock()), Random(f"{seed}/accounts")
    pipelines = [pipeline_named(f"Pipeline {number}", seed=seed) for number in range(accounts_count)]
    for number, pipeline in enumerate(pipelines):
        phases = (StatusPhase("running", 0.0), StatusPhase("success", ENDLESS_S))
        world.add(Lifecycle(str(UUID(int=number + 1)), phases), pipeline=pipeline)
    for index in range(executions_count):
        number = index % accounts_count
        begins_s = dice.uniform(0.0, span_s * 0.9) if is_watched_whole(number) else 0.0
        lifecycle = make_lifecycle(seed, index=index, pace=BRISK)
        length_s = dice.uniform(0.1, span_s - begins_s) if is_watched_whole(number) else dice.uniform(2.0, span_s)
        world.add(lifecycle.stretched(length_s / lifecycle.length_s()), pipeline=pipelines[number], begins_s=begins_s)
    return world


def is_watched_whole(account: int) -> bool:
    """Say whether an account watches its pipeline, rather than executions by name."""
    return account % 2 == 1


def document_of_accounts(simulator: Simulator, receivers: Mapping[str, Receiver], *, rate: int) -> Document:
    """Return the configuration of all replicas: an account for each pipeline."""
    watches: Sequence[Document] = watches_of(simulator.world, "")
    return {
        "accounts": {
            name_of(number): {
                "api_key": f"${{KEY_{number}}}",
                "base_url": simulator.base_url,
                "rate_limit": f"{rate}/s",
                "timeout": "2s",
            }
            for number in range(len(watches))
        },
        "watch": [
            {key: value for key, value in watch.items() if key != "executions" or not is_watched_whole(number)}
            | {"account": name_of(number)}
            for number, watch in enumerate(watches)
        ],
        "polling": POLLING | {"min_interval": "500ms", "first_sight": "notify", "degraded_after": "10s"},
        "sinks": {name: webhook(receiver) for name, receiver in receivers.items()},
    }


def name_of(account: int) -> str:
    """Return the name of an account."""
    return f"account-{account}"


def have_ended(world: World) -> frozenset[str]:
    """Return the executions that end within the test."""
    return frozenset(each.id for each in world.executions() if each.lifecycle.length_s() < ENDLESS_S)


TENURE_S = 3.0
"""Nobody has an account for less than this: it is taken from who is silent, after 9 s, or handed over and kept."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and the account and the place of the replica that its key is of."""

    entry: LoggedRequest
    account: int
    place: int


def by_account(log: RequestLog, *, places_count: int) -> dict[int, list[Asked]]:
    """Return who asked for each account, in the order the requests came."""
    asked: dict[int, list[Asked]] = {}
    for entry in log.entries:
        assert entry.key is not None, "a request had no key of ours"
        account, place = divmod(entry.key, places_count)
        asked.setdefault(account, []).append(Asked(entry, account, place))
    return asked


def overlapping(log: RequestLog, *, places_count: int) -> list[Asked]:
    """Return the requests that came from a replica while another had the account: asked just before and just after."""
    return among_others(by_account(log, places_count=places_count).values(), within_s=TENURE_S)


def among_others(accounts: Iterable[Sequence[Asked]], *, within_s: float) -> list[Asked]:
    """Return the requests for each account that came between two of another replica, in less than so long."""
    return [each for requests in accounts for run in _between_others(requests, within_s=within_s) for each in run]


def _between_others(requests: Sequence[Asked], *, within_s: float) -> Iterator[list[Asked]]:
    runs = [list(run) for _, run in groupby(requests, key=lambda each: each.place)]
    for before, run, after in zip(runs, runs[1:], runs[2:], strict=False):
        if before[-1].place == after[0].place and after[0].entry.at - before[-1].entry.at < within_s:
            yield run


def not_asked_again(log: RequestLog, losses: Sequence[Loss], *, places_count: int) -> list[tuple[int, Loss]]:
    """Return the accounts that lost their replica and that nobody asked for any more.

    The first request of a stopped replica does not count: it was about to send that one.
    """
    asked, found = by_account(log, places_count=places_count), []
    for loss in losses:
        for account in loss.accounts:
            later = [each for each in asked.get(account, []) if each.entry.at > loss.at]
            stale = [each for each in later if each.place == loss.place][:1] if loss.is_stop else []
            if len(later) == len(stale):
                found.append((account, loss))
    return found


STOPPED_S = 13.0
"""Longer than a lease, 9 s, and than its renewal, 3 s."""

OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.5
"""

REFUSAL = """
CREATE TABLE refused (pid text, until timestamptz);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM refused WHERE NEW.owner LIKE '%-' || pid || '-%' AND clock_timestamp() < until) THEN
        RAISE EXCEPTION 'the disk, a test says' USING ERRCODE = '58030';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON lease
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
"""
"""A transaction that renews leases is told of each that it has it, and rolled back at its COMMIT."""

REFUSE = "INSERT INTO refused VALUES ('{pid}', clock_timestamp() + interval '{for_s} seconds')"


WHEN = {
    "stop": (0.15, 0.45, 0.75),
    "restart": (0.3, 0.65),
    "end": (0.05, 0.2, 0.4, 0.55, 0.85),
    "roll back": (0.1, 0.25, 0.5, 0.6, 0.8),
}
"""What befalls them beside kills, by the shares of the time that are over by then."""


class Troubles:
    """Does to the replicas what it is asked to, one thing at a time to the database. `story` says what, and when."""

    def __init__(self, replicas: Replicas, *, dice: Random) -> None:
        self.story: list[str] = []
        self._replicas = replicas
        self._dice = dice
        self.began_at = time.monotonic()
        self._database = asyncio.Lock()

    async def prepare(self) -> None:
        """Make the database able to refuse a renewal."""
        await self._run(REFUSAL)

    async def kill(self, place: int) -> None:
        self.say(f"kill {place}")
        await self._replicas.kill(place)

    async def stop_past_the_lease(self, place: int) -> None:
        await self._replicas.stop(place)
        self.say(f"stopped {place}")
        await asyncio.sleep(STOPPED_S)
        self._replicas.go_on(place)
        self.say(f"{place} goes on")

    async def restart_database(self) -> None:
        async with self._database:
            self.say("the database restarts")
            await asyncio.to_thread(self._replicas.server.stop)
            await asyncio.to_thread(self._replicas.server.start)
            self.say("the database is back")

    async def end_backends(self) -> None:
        self.say("half of all backends end")
        await self._run(OTHERS)

    async def roll_back_renewals(self, place: int, *, for_s: float) -> None:
        self.say(f"renewals of {place} are rolled back for {for_s:.1f} s")
        await self._run(REFUSE.format(pid=self._replicas.lives[place].pid, for_s=for_s))

    async def all_of_them(self, *, for_s: float) -> None:
        """Do everything by chance for so long: a kill every few seconds, and the rest now and then."""
        async with asyncio.timeout(for_s + 120), asyncio.TaskGroup() as group:
            group.create_task(self._kills(for_s))
            for what, shares in WHEN.items():
                for share in shares:
                    group.create_task(self._later(share * for_s, what))

    async def _kills(self, for_s: float) -> None:
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            await asyncio.sleep(self._dice.uniform(3.0, 7.0))
            await self.kill(self._any_place())

    async def _later(self, after_s: float, what: str) -> None:
        await asyncio.sleep(after_s)
        match what:
            case "stop":
                await self.stop_past_the_lease(self._any_place())
            case "restart":
                await self.restart_database()
            case "end":
                await self.end_backends()
            case "roll back":
                await self.roll_back_renewals(self._any_place(), for_s=self._dice.uniform(1.0, 14.0))

    def _any_place(self) -> int:
        return self._dice.choice([place for place in self._replicas.lives if place not in self._replicas.in_trouble])

    async def _run(self, statement: str) -> None:
        async with self._database:
            try:
                await asyncio.to_thread(self._replicas.server.run, statement, self._replicas.database)
            except psycopg.errors.AdminShutdown:
                self.say("the own connection ended")

    def say(self, what: str) -> None:
        self.story.append(f"{time.monotonic() - self.began_at:7.2f} s: {what}")
