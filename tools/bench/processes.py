"""The processes of a measurement: servers, the bare loop, daemons with their files, and what one of them costs."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count, cycle
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from stores import claim

from bench.counters import PIPELINE, Counters, execution_body, new_counters, spawning
from watcher.clerk.schemas import ApiDates, parse_execution
from watcher.domain.event_factory import EventFactory
from watcher.domain.execution import ExecutionRecord
from watcher.domain.routing import Router
from watcher.domain.timestamps import Micros
from watcher.domain.transitions import Observation, observe
from watcher.domain.watch import Watch
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import USER_AGENT
from watcher.store.changes import ExecutionChange, Lease
from watcher.store.sql_store import open_store

PATIENCE_S = 120.0
CONCURRENCY = 64
UNPACED_PER_S = 1_000_000
ACCOUNT = "default"
SINK = "ops"
_SLICE_S = 0.005
_FILLED_AT_ONCE = 5_000
_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORES = _CORES[:1]
MEASURED_CORES = _CORES[1:2] or _CORES
"""The measured program has one core to itself, where there are two: else its ratio to the bare loop is luck."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What went by while a process was watched. Times in seconds."""

    served_count: int
    wall_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Return how many were served a second."""
        return self.served_count / self.wall_s

    @property
    def cpu_us(self) -> float:
        """Return the CPU time of one, in microseconds."""
        return 1e6 * self.cpu_s / self.served_count

    @property
    def percent(self) -> float:
        """Return the CPU time, in percent of a core."""
        return 100 * self.cpu_s / self.wall_s

    def cpu_s_over(self, calm: "Cost") -> float:
        """Return the CPU time that a daemon which only polled, as often, did not need."""
        return self.cpu_s - calm.cpu_us * self.served_count / 1e6


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once it holds. Raises `TimeoutError` if that takes two minutes."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > give_up_at:
            raise TimeoutError
        time.sleep(_SLICE_S)


def observe_cost(process: psutil.Process, counters: Counters, *, wait: Callable[[], None]) -> Cost:
    """Watch a process until `wait` returns while the server of these counters counts what it asks for."""
    before_s, served, began_at = cpu_s(process), counters.served_count, time.monotonic()
    wait()
    return Cost(counters.served_count - served, time.monotonic() - began_at, cpu_s(process) - before_s)


def cpu_s(*processes: psutil.Process) -> float:
    """Return the CPU time of these so far."""
    return sum(times.user + times.system for times in (each.cpu_times() for each in processes))


@contextmanager
def _spawned(target: Callable[..., None], *arguments: object, cores: Sequence[int]) -> Iterator[psutil.Process]:
    process = spawning.Process(target=target, args=arguments, daemon=True)
    process.start()
    running = psutil.Process(process.pid)
    running.cpu_affinity(list(cores))
    try:
        yield running
    finally:
        process.kill()
        process.join()


@contextmanager
def server(target: Callable[[Counters], None]) -> Iterator[Counters]:
    """Run a server in a process of its own, and give its counters once it listens."""
    counters = new_counters()
    with _spawned(target, counters, cores=SERVER_CORES):
        wait_until(lambda: counters.port > 0)
        yield counters


# The bare loop: as many workers as the watcher has requests in flight, each of which gets, parses and forgets


class _Execution(BaseModel):
    """The fewest fields by which somebody could watch an execution."""

    model_config = ConfigDict(alias_generator=to_camel)
    id: str
    status: str
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None


async def _ask(base_url: str, executions: Sequence[str]) -> None:
    turns = cycle(executions)

    async def work() -> None:
        for execution in turns:
            url = f"{base_url}/public/pipelines/{PIPELINE}/executions/{execution}"
            async with session.get(url, allow_redirects=False) as response:
                assert _Execution.model_validate_json(await response.read()).id == execution

    async with aiohttp.ClientSession(
        headers={"apiKey": "bench", "User-Agent": USER_AGENT, "Accept": "application/json"},
        timeout=aiohttp.ClientTimeout(total=10),
        connector=aiohttp.TCPConnector(limit=CONCURRENCY),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def _ask_for_ever(base_url: str, executions: Sequence[str]) -> None:
    asyncio.run(_ask(base_url, executions))


def bare_loop(base_url: str, executions: Sequence[str]) -> AbstractContextManager[psutil.Process]:
    """Ask for the executions in turn, in a process of its own."""
    return _spawned(_ask_for_ever, base_url, executions, cores=MEASURED_CORES)


# The daemon: a directory with its configuration, its events, and a store that is empty or filled


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a daemon is to do: poll these executions as fast as it can, or watch these pipelines by the defaults.

    `rate_per_s` is each account's; of several each polls its part of the executions. `sink_url` adds a webhook sink
    without a pace, or with the default one if it is `sink_paced`; `sink` has more of its keys. Without a `store_url`
    the store is a file of the daemon's own. One that is not `is_fast` polls by the defaults.
    """

    base_url: str
    executions: Sequence[str] = ()
    pipelines: Sequence[str] = ()
    account_count: int = 1
    rate_per_s: int = UNPACED_PER_S
    store_url: str | None = None
    sink_name: str = SINK
    sink_url: str | None = None
    sink_paced: bool = False
    sink: Mapping[str, object] | None = None
    is_fast: bool = True


class Workspaces:
    """Makes directories for daemons, each with its configuration, and fills stores only once."""

    def __init__(self, root: Path) -> None:
        """Make them all within `root`."""
        self._root = root
        self._numbers = count(1)
        self._filled: dict[tuple[int, tuple[str, ...]], Path] = {}

    def make(self, wish: Wish, *, store: Path | None = None) -> Path:
        """Return the configuration of a new daemon, whose store is a copy of `store`, else empty."""
        directory = self._root / str(next(self._numbers))
        directory.mkdir()
        if store is not None:
            shutil.copy(store, directory / "watcher.db")
        path = directory / "watcher.yaml"
        path.write_text(yaml.dump(_settings(wish, store=directory / "watcher.db"), Dumper=yaml.CSafeDumper))
        return path

    def filled(self, executions: Sequence[str], *, sinks: tuple[str, ...] = ()) -> Path:
        """Return a store that knows these executions as running; that event of each still waits for `sinks`."""
        key = (len(executions), sinks)
        if key not in self._filled:
            path = self._root / f"filled-{len(self._filled)}.db"
            asyncio.run(fill(f"sqlite:///{path}", executions, sinks=sinks))
            self._filled[key] = path
        return self._filled[key]


def _settings(wish: Wish, *, store: Path) -> dict[str, Any]:
    parts = _parts(wish.executions, wish.account_count)
    named = [{"pipeline": PIPELINE, "account": each, "executions": list(part)} for each, part in parts.items() if part]
    account = {"base_url": wish.base_url, "rate_limit": f"{wish.rate_per_s}/s"}
    fast = {"cadence": "fixed", "min_interval": "1ms", "concurrency": CONCURRENCY}
    pace = {} if wish.sink_paced else {"rate_limit": f"{UNPACED_PER_S}/s"}
    sink = {"type": "webhook", "url": wish.sink_url, **pace, **(wish.sink or {})}
    return {
        "accounts": {each: account | {"api_key": f"bench-{each}"} for each in parts},
        "watch": [*named, *({"pipeline": pipeline} for pipeline in wish.pipelines)],
        "polling": fast if named and wish.is_fast else {},
        "sinks": {} if wish.sink_url is None else {wish.sink_name: sink},
        "store": {"url": wish.store_url or f"sqlite:///{store}"},
        "http": {"listen": "127.0.0.1:0"},
        "log": {"level": "error", "format": "json"},
    }


async def fill(url: str, executions: Sequence[str], *, account_count: int = 1, sinks: tuple[str, ...] = ()) -> None:
    """Have a store know these executions as running, in so many accounts; that event of each waits for `sinks`."""
    clock = Clock()
    store = await open_store(url, clock=clock)
    for account, part in _parts(executions, account_count).items():
        lease = await claim(store, "account", account)
        for start in range(0, len(part), _FILLED_AT_ONCE):
            some = part[start : start + _FILLED_AT_ONCE]
            await asyncio.gather(*(store.record(_first_sight(lease, each, sinks=sinks, clock=clock)) for each in some))
    await store.close()


def _parts(executions: Sequence[str], account_count: int) -> Mapping[str, Sequence[str]]:
    """Return which executions each account polls."""
    if account_count == 1:
        return {ACCOUNT: executions}
    return {f"{ACCOUNT}-{nth}": executions[nth::account_count] for nth in range(account_count)}


def _first_sight(lease: Lease, execution: str, *, sinks: tuple[str, ...], clock: Clock) -> ExecutionChange:
    now_us, known = clock.steady_us(), ExecutionRecord(execution, PIPELINE)
    body = execution_body(execution, "running", private=0)
    facts = parse_execution(body, asked=execution, dates=ApiDates(0, now_us))
    assert facts is not None
    result = observe(known, Observation(facts, now_us, now_us), polled_at=Micros(0), overdue_after_s={})
    entry = EventFactory(Router({})).execution(
        result.status_changes[0],
        result.known,
        watch=Watch(ACCOUNT, PIPELINE, ()),
        observed_at=clock.now(),
        seen_at=now_us,
        facts=facts,
    )
    return ExecutionChange(lease, None, result.known, (replace(entry, sinks=sinks),))


def events_of(config: Path) -> Path:
    """Return the file that a daemon of this configuration writes its events to, one a line."""
    return config.with_name("events.jsonl")


def events_count(config: Path) -> int:
    """Count the events that a daemon of this configuration has written."""
    with events_of(config).open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def commits_in(config: Path) -> int:
    """Return how many transactions wrote to a daemon's SQLite file: the index of its log counts them (`iChange`)."""
    with config.with_name("watcher.db-shm").open("rb") as index:
        return int.from_bytes(index.read(12)[8:], sys.byteorder)


@contextmanager
def daemon(config: Path, *module: str) -> Iterator[psutil.Process]:
    """Run the real program, or a module that does. Raises `RuntimeError` if it complained."""
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    command = [sys.executable, "-m", *(module or ("watcher",)), "run", "--config", str(config)]
    complaints = config.with_name("watcher.log")
    with (
        complaints.open("wb") as log,
        events_of(config).open("wb") as events,
        subprocess.Popen(command, stdout=events, stderr=log, env=environment) as process,
    ):
        running = psutil.Process(process.pid)
        running.cpu_affinity(MEASURED_CORES)
        try:
            yield running
        finally:
            process.kill()
    if complaint := complaints.read_text():
        raise RuntimeError(complaint)
