"""A typical installation: whole pipelines and a webhook by the defaults; changes go to stdout and to the webhook."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psutil

from bench.answers import PIPELINE_ROWS, pipeline_ids
from bench.counters import Counters
from bench.figures import Figure, at_most, percentile, shown
from bench.load_server import serve_load
from bench.processes import Cost, commits_in, daemon, events_of, lines_in, observe_cost, server, wait_until
from bench.receiver import receive
from bench.workspaces import Wish, Workspaces

PIPELINES = pipeline_ids(20)
RATE_PER_S = 5
CHANGED_ONE_IN = 5.5
"""Of the rows shown: that makes some 40 changes a second."""

WATCHED_S = 30.0
SETTLING_S = 3.0
WAITING_S = 1.0
"""No more may wait in the outbox than changes in so long: a growing one delivers less than changed."""


@dataclass(frozen=True, slots=True)
class Typical:
    """What the daemon cost while nothing changed, and while changes were made and delivered.

    `commits_each` are the transactions that wrote for each change, `delays_ms` those of the webhook since the event.
    """

    quiet: Cost
    busy: Cost
    changes_per_s: float
    commits_each: float
    delays_ms: Sequence[float]


def measure_typical(
    workspaces: Workspaces, repetitions: Sequence[int], *, bare: Callable[[], Cost]
) -> Iterator[Figure]:
    """Measure the CPU of a daemon with 20 pipelines, 1,200 executions, 5 requests/s and some 40 changes/s, or none.

    How many polls a second the bare loop makes with as much CPU is measured in turns.
    """
    pairs = [(_run(workspaces), bare()) for _ in repetitions]
    runs = [run for run, _ in pairs]
    worth = [run.busy.cpu_s / run.busy.wall_s / loop.cpu_s_each for run, loop in pairs]
    yield at_most(1_000, "CPU with some 40 changes/s, in polls/s of the bare loop", worth)
    yield shown("  % of a core", [_percent(each.busy) for each in runs])
    yield shown("  when nothing changes, % of a core", [_percent(each.quiet) for each in runs])
    yield at_most(0.4, "commits for each change", [each.commits_each for each in runs])
    yield shown("  from the poll to the webhook, median ms", [percentile(each.delays_ms, 50) for each in runs])
    yield shown("  99th percentile, ms", [percentile(each.delays_ms, 99) for each in runs])
    yield shown("  changes delivered per second", [each.changes_per_s for each in runs])
    yield shown("  requests per second", [each.busy.per_s for each in runs])


def _percent(cost: Cost) -> float:
    return 100 * cost.cpu_s / cost.wall_s


def _run(workspaces: Workspaces) -> Typical:
    """Let nothing change, then every n-th row. Raises `RuntimeError` if the changes are not delivered meanwhile."""
    with server(serve_load) as api, server(receive) as hook:
        wish = Wish(base_url=api.url, pipelines=PIPELINES, rate_per_s=RATE_PER_S, sink_url=hook.url, sink_paced=True)
        config = workspaces.make(wish)

        def waiting_counts() -> tuple[int, int]:
            """Return how many events are yet to reach stdout and the webhook: one of each execution and change."""
            count = len(PIPELINES) * PIPELINE_ROWS + api.changed_count
            return count - lines_in(events_of(config)), count - hook.served_count

        with daemon(config) as process:
            wait_until(lambda: waiting_counts() == (0, 0))
            quiet = _watch(process, api)
            api.change_every = CHANGED_ONE_IN
            time.sleep(SETTLING_S)
            before, commits_count, received_count = api.changed_count, commits_in(config), hook.served_count
            busy = _watch(process, api)
            changed_count, commits_count = api.changed_count - before, commits_in(config) - commits_count
            delays_ms = [1000 * delay_s for delay_s in hook.delays_s[received_count : hook.served_count]]
            changes_per_s = changed_count / busy.wall_s
            if max(waiting_counts()) > changes_per_s * WAITING_S:
                raise RuntimeError(f"the outbox grows: {waiting_counts()} wait")
            api.change_every = 0
            wait_until(lambda: waiting_counts() == (0, 0))
            return Typical(quiet, busy, changes_per_s, commits_count / changed_count, delays_ms)


def _watch(process: psutil.Process, api: Counters) -> Cost:
    return observe_cost(process, api, wait=lambda: time.sleep(WATCHED_S))
