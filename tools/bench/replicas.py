"""Several replicas on one PostgreSQL, which writes to the disk as one at work does: how soon they tell, and costs."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import quantiles

import psutil
from pgbouncer import PROGRAM, pooled
from postgres import PostgresServer, postgres_server

from bench.answers import execution_ids
from bench.figures import Figure, at_most, shown
from bench.load_server import serve_load
from bench.processes import SERVER_CORES, cpu_s, daemon, events_of, lines_in, server, wait_until
from bench.receiver import receive
from bench.workspaces import ACCOUNT, Wish, Workspaces, fill
from watcher.runtime.pacing import SHARE

CHANGES_PER_S = 20
POLLS_PER_CHANGE = 10
CHANGED_ONE_IN = 50
LATENCY_S = 20.0
SETTLING_S = 2.0
ACCOUNT_COUNT = 4
FEW, SOME = execution_ids(1_000), execution_ids(10_000)
FAR = "webhook"
"""A sink that goes to the replica that starts second: of two the last is given up, and the other one is `stdout`."""

_OWNERS = f"SELECT count(DISTINCT owner) FROM lease WHERE (kind, name) IN (('account', '{ACCOUNT}'), ('sink', '{FAR}'))"
_SPREAD = "SELECT count(*) FROM lease WHERE kind = 'account' AND until IS NOT NULL GROUP BY owner"


@dataclass(frozen=True, slots=True)
class Shared:
    """What replicas did together while they were watched, and the CPU of them and of their database (seconds)."""

    polled_count: float
    told_count: float
    wall_s: float
    cpu_s: float
    database_cpu_s: float


def measure_replicas(workspaces: Workspaces, repetitions: Sequence[int], *, poll_s: float) -> Iterator[Figure]:
    """Measure how soon one replica sends what another has seen, and what several cost that share the accounts."""
    with postgres_server(fsync="on", full_page_writes="on", log_min_messages="fatal") as postgres:
        psutil.Process(postgres.pid).cpu_affinity(SERVER_CORES)
        delays = [_delays_ms(workspaces, postgres, is_pooled=False) for _ in repetitions]
        yield at_most(50, f"seen by another to received, {CHANGES_PER_S}/s, p99, ms", [_p99(each) for each in delays])
        yield shown("  p50, ms", [quantiles(each, n=100)[49] for each in delays])
        if PROGRAM is not None:
            without = [_delays_ms(workspaces, postgres, is_pooled=True) for _ in repetitions[:2]]
            yield shown("  without NOTIFY, through a pooler, p99, ms", [_p99(each) for each in without])
        quiet = {count: [_watch(workspaces, postgres, count, poll_s) for _ in repetitions] for count in (1, 2, 4)}
        for count, runs in quiet.items():
            yield shown(f"polls/s of {count} on one core", [each.polled_count / each.wall_s for each in runs])
            yield shown("  CPU of a poll, µs", [1e6 * each.cpu_s / each.polled_count for each in runs])
        busy = [_watch(workspaces, postgres, 1, poll_s, change_every=CHANGED_ONE_IN) for _ in repetitions]
        pairs = list(zip(busy, quiet[1], strict=True))
        yield shown("CPU of one told change on PostgreSQL, ms", [_change_ms(of, "cpu_s") for of in pairs])
        yield shown("  and of the database, ms", [_change_ms(of, "database_cpu_s") for of in pairs])


def _change_ms(of: tuple[Shared, Shared], what: str) -> float:
    """Return what a told change costs: what went by while some of the answers changed, less that while none did."""
    busy, calm = of
    calm_s = getattr(calm, what) / calm.polled_count * busy.polled_count
    return float(1000 * (getattr(busy, what) - calm_s) / busy.told_count)


def _p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[98]


@contextmanager
def _database(postgres: PostgresServer, executions: Sequence[str], *, account_count: int) -> Iterator[str]:
    """Give the URL of a database that knows these executions as running."""
    with postgres.database() as url:
        asyncio.run(fill(url, executions, account_count=account_count))
        yield url


def _delays_ms(workspaces: Workspaces, postgres: PostgresServer, *, is_pooled: bool) -> Sequence[float]:
    """Let one replica poll and the other send; return the delays from an answer with a change to its webhook."""
    with ExitStack() as stack:
        direct = stack.enter_context(_database(postgres, FEW, account_count=1))
        api, hook = stack.enter_context(server(serve_load)), stack.enter_context(server(receive))
        wish = Wish(
            base_url=api.url,
            executions=FEW,
            rate_per_s=round(POLLS_PER_CHANGE * CHANGES_PER_S / SHARE),
            store_url=stack.enter_context(pooled(postgres, direct)) if is_pooled else direct,
            sink_name=FAR,
            sink_url=hook.url,
        )
        stack.enter_context(daemon(workspaces.make(wish)))
        wait_until(lambda: api.served_count > 0)
        stack.enter_context(daemon(workspaces.make(wish)))
        wait_until(lambda: postgres.run(_OWNERS, direct) == [(2,)])
        api.change_every = POLLS_PER_CHANGE
        time.sleep(SETTLING_S)
        before = hook.served_count
        time.sleep(LATENCY_S)
        return [1000 * delay_s for delay_s in hook.delays_s[before : hook.served_count]]


def _watch(
    workspaces: Workspaces, postgres: PostgresServer, count: int, poll_s: float, *, change_every: int = 0
) -> Shared:
    """Let so many replicas poll as fast as they can."""
    with ExitStack() as stack:
        url = stack.enter_context(_database(postgres, SOME, account_count=ACCOUNT_COUNT))
        api = stack.enter_context(server(serve_load))
        api.change_every = change_every
        wish = Wish(base_url=api.url, executions=SOME, account_count=ACCOUNT_COUNT, store_url=url)
        configs = [workspaces.make(wish) for _ in range(count)]
        daemons = [stack.enter_context(daemon(config)) for config in configs]
        wait_until(lambda: postgres.run(_SPREAD, url) == [(ACCOUNT_COUNT // count,)] * count)
        time.sleep(SETTLING_S)
        database = psutil.Process(postgres.pid)

        def so_far() -> tuple[float, ...]:
            told = sum(lines_in(events_of(config)) for config in configs)
            spent_s = cpu_s(*daemons), cpu_s(database, *database.children())
            return api.served_count, told, time.monotonic(), *spent_s

        before = so_far()
        time.sleep(poll_s)
        return Shared(*(after - earlier for after, earlier in zip(so_far(), before, strict=True)))
