"""Several replicas of the program on one PostgreSQL, each seen by the API apart: its proxy is a server of its own.

All servers show the same world, so an account is the same whoever polls it, and who polled it when is in the logs.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from e2e.programme import Life
from e2e.stage import API_KEY, POLLING, Document, Stage, watches_of

from watcher.simulator.server import LoggedRequest, Simulator
from watcher.simulator.world import World

TAKEN_OVER_WITHIN_S = 15.0
SPREAD_WITHIN_S = 30.0


@dataclass
class Replica:
    """One process, and the server that it alone asks."""

    life: Life
    simulator: Simulator
    file: str

    def since(self, at: float) -> list[LoggedRequest]:
        """Return what it asked since that monotonic moment."""
        return [entry for entry in self.simulator.request_log.entries if entry.at >= at]

    def keys(self, *, within_s: float = 1.5) -> set[int | None]:
        """Return the numbers of the accounts that it polled lately."""
        return {entry.key for entry in self.since(time.monotonic() - within_s)}


class Fleet:
    """The replicas of a test, and the accounts they share, which all watch the same executions."""

    def __init__(self, stage: Stage, world: World, *, accounts: int, sinks: Mapping[str, Document]) -> None:
        self._stage = stage
        self._world = world
        self._api_keys = [f"{API_KEY}-{number}" for number in range(accounts)]
        self._sinks = sinks
        self.account_count = accounts
        self.replicas: list[Replica] = []

    def document(self, *, prefix: str = "a", rotated_by: int = 0) -> Document:
        """Return the configuration: accounts of that prefix, each with the key of the one so much further on."""
        names = [f"{prefix}{number}" for number in range(self.account_count)]
        keys = [*self._api_keys[rotated_by:], *self._api_keys[:rotated_by]]
        of_one = {"base_url": "http://clerk.test", "rate_limit": "20/s", "timeout": "2s"}
        return {
            "accounts": {name: of_one | {"api_key": key} for name, key in zip(names, keys, strict=True)},
            "watch": [watch for name in names for watch in watches_of(self._world, name)],
            "polling": POLLING | {"max_interval": "500ms"},
            "sinks": dict(self._sinks),
        }

    async def start(self) -> Replica:
        """Start one more replica, and return once it has."""
        simulator = await self._stage.simulator(self._world, api_keys=self._api_keys)
        file = f"watcher-{len(self.replicas)}"
        path = await asyncio.to_thread(self._stage.write, self.document(), name=file)
        proxy = {"http_proxy": simulator.base_url, "no_proxy": "127.0.0.1,localhost"}
        life = await self._stage.begin("run", "--config", str(path), environ=proxy)
        self.replicas.append(Replica(life, simulator, file))
        await life.started()
        return self.replicas[-1]

    async def change(self, replica: Replica, document: Document) -> None:
        """Give one replica another configuration."""
        await asyncio.to_thread(self._stage.write, document, name=replica.file)

    def asked(self) -> Simulator:
        """Return a simulator that was asked what all were asked, for who judges by one."""
        entries = sorted((entry for one in self.replicas for entry in one.since(0.0)), key=lambda entry: entry.at)
        simulator = Simulator(self._world, api_keys=self._api_keys)
        for entry in entries:
            simulator.request_log.open(entry)
        return simulator

    def living(self) -> list[Replica]:
        return [replica for replica in self.replicas if not replica.life.is_over]

    async def spread(self, among: Sequence[Replica], *, within_s: float = SPREAD_WITHIN_S) -> None:
        """Return once these share the accounts evenly, and each is polled by one."""
        share = self.account_count // len(among)

        def is_even() -> bool:
            keys = [replica.keys() for replica in among]
            return (
                all(len(each) == share for each in keys) and len(set[int | None]().union(*keys)) == self.account_count
            )

        await among[0].life.until(is_even, within_s=within_s, what="the accounts were spread evenly")

    async def taken_over(
        self, keys: set[int | None], *, by: Sequence[Replica], since: float
    ) -> dict[int | None, float]:
        """Return after how many seconds since that moment each of these accounts was polled again by any of those."""

        def first(key: int | None) -> float | None:
            return min((each.at for one in by for each in one.since(since) if each.key == key), default=None)

        what = "each account was polled again"
        await by[0].life.until(lambda: all(map(first, keys)), within_s=TAKEN_OVER_WITHIN_S, what=what)
        return {key: (first(key) or 0.0) - since for key in keys}
