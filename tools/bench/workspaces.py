"""Where a daemon of the bench lives: a directory with its configuration, and a store that is empty or filled."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from stores import claim

from bench.answers import PIPELINE, answer
from watcher.clerk.schemas import ApiDates, parse_execution
from watcher.domain.event_factory import EventFactory
from watcher.domain.execution import ExecutionRecord
from watcher.domain.routing import Router
from watcher.domain.timestamps import Micros
from watcher.domain.transitions import Observation, observe
from watcher.domain.watch import Watch
from watcher.runtime.clock import Clock
from watcher.store.changes import ExecutionChange, Lease
from watcher.store.sql_store import open_store

CONCURRENCY = 64
UNPACED_PER_S = 1_000_000
ACCOUNT = "default"
SINK = "ops"
_FILLED_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a daemon is to do: poll these executions as fast as it can, or watch these pipelines by the defaults.

    `rate_per_s` is each account's; of several each polls its part of the executions. `sink_url` adds a webhook sink
    without a pace, or with the default one if it is `sink_paced`. With a `template` that posts messages made for its
    receiver, with a `group` what goes together. Without a `store_url` the store is a file of the daemon's own. One that
    is not `is_fast` polls by the defaults.
    Its pages are at `listen`.
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
    template: str | None = None
    group: Mapping[str, object] | None = None
    is_fast: bool = True
    listen: str = "127.0.0.1:0"


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
    shape = {"template": wish.template, "group": wish.group and dict(wish.group)}
    pace = {} if wish.sink_paced else {"rate_limit": f"{UNPACED_PER_S}/s"}
    sink = {"type": "webhook", "url": wish.sink_url, **pace, **shape}
    return {
        "accounts": {each: account | {"api_key": f"bench-{each}"} for each in parts},
        "watch": [*named, *({"pipeline": pipeline} for pipeline in wish.pipelines)],
        "polling": fast if named and wish.is_fast else {},
        "sinks": {} if wish.sink_url is None else {wish.sink_name: sink},
        "store": {"url": wish.store_url or f"sqlite:///{store}"},
        "http": {"listen": wish.listen},
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
    running = answer("running")
    body = (running.before + execution.encode() + running.after).partition(b"\r\n\r\n")[2]
    now_us = clock.steady_us()
    facts = parse_execution(body, asked=execution, dates=ApiDates(0, now_us))
    assert facts is not None
    result = observe(
        ExecutionRecord(execution, PIPELINE),
        Observation(facts, now_us, now_us),
        polled_at=Micros(0),
        overdue_after_s={},
    )
    entry = EventFactory(Router({})).execution(
        result.status_changes[0],
        result.known,
        watch=Watch(ACCOUNT, PIPELINE, ()),
        observed_at=clock.now(),
        seen_at=now_us,
        facts=facts,
    )
    return ExecutionChange(lease, None, result.known, (replace(entry, sinks=sinks),))
