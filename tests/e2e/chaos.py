"""Several replicas on one database, each with API keys of its own, so that the API sees who asks. Judges nothing."""

import asyncio
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
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
from watcher.simulator.server import RequestLog, Simulator
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
            return len(askers) == self.accounts_count and max(counts) - min(counts) <= 1

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
