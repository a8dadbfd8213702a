"""How far one change, and one poll that shows none, goes through our code: functions, files and calls. Exact: no clock.

A daemon of its own is run by `python -m bench.counted`, which counts each call of our code in all threads. A coroutine
that goes on after it waited counts as a call again.
"""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.answers import execution_ids
from bench.figures import Figure, at_most
from bench.load_server import serve_load
from bench.processes import counted_daemon, server, wait_until
from bench.receiver import receive
from bench.workspaces import Wish, Workspaces

CHANGES_COUNT = 20
EACH = 0.9
"""What is entered so often for each change is on its way. What repeats every five seconds for each owner is not."""

POLLS_COUNT = 20_000
SETTLING_S = 3.0
ONE, SOME = execution_ids(1), execution_ids(1_000)


def measure_path(workspaces: Workspaces) -> Iterator[Figure]:
    """Count the calls of a change that goes to stdout and one webhook once a second, and those of an unchanged poll."""
    changes = _changes(workspaces)
    often = [name for name, count in changes.items() if count >= EACH * CHANGES_COUNT]
    yield at_most(320, "calls of ours for each change", [sum(changes.values()) / CHANGES_COUNT])
    yield at_most(125, "  functions that are entered", [len(often)])
    yield at_most(36, "  files that these are in", [len({name.partition(":")[0] for name in often})])
    polls, count = _polls(workspaces)
    yield at_most(60, "calls of ours for each unchanged poll", [sum(polls.values()) / count])


def _changes(workspaces: Workspaces) -> Mapping[str, int]:
    """Return how often each function was called while one execution changed with each answer, by default settings."""
    with server(serve_load) as api, server(receive) as hook:
        api.change_every = 1
        wish = Wish(base_url=api.url, executions=ONE, rate_per_s=5, sink_url=hook.url, is_fast=False)
        config = workspaces.make(wish)
        with counted_daemon(config) as process:
            wait_until(lambda: hook.served_count >= 3)
            _counts(config, process.pid)
            at = hook.served_count
            wait_until(lambda: hook.served_count >= at + CHANGES_COUNT)
            return _counts(config, process.pid)


def _polls(workspaces: Workspaces) -> tuple[Mapping[str, int], int]:
    """Return how often each function was called while nothing changed, and the polls meanwhile."""
    with server(serve_load) as api:
        config = workspaces.make(Wish(base_url=api.url, executions=SOME), store=workspaces.filled(SOME))
        with counted_daemon(config) as process:
            wait_until(lambda: api.served_count >= POLLS_COUNT // 4)
            _counts(config, process.pid)
            at = api.served_count
            wait_until(lambda: api.served_count >= at + POLLS_COUNT)
            counts = _counts(config, process.pid)
            return counts, api.served_count - at


def _counts(config: Path, pid: int) -> Mapping[str, int]:
    """Have the daemon write what it has counted, and begin anew."""
    file = config.with_name("calls.json")
    file.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    wait_until(file.exists)
    counts: Mapping[str, int] = json.loads(file.read_text())
    return counts
