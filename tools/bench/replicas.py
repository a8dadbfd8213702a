"""Several replicas on one PostgreSQL, which writes to the disk as one at work does: how soon they tell, and costs."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psutil
from pgbouncer import PROGRAM, pooled
from postgres import PostgresServer, postgres_server

from bench.counters import receive, serve_load
from bench.figures import Figure, at_most, percentile, shown
from bench.measures import CHANGED_ONE_IN, FEW, SETTLING_S, SOME, Bench
from bench.processes import ACCOUNT, SERVER_CORES, Cost, Wish, cpu_s, daemon, events_count, fill, server, wait_until
from watcher.runtime.pacing import SHARE

CHANGES_PER_S, POLLS_PER_CHANGE = 20, 10
ACCOUNT_COUNT = 4
FAR = "webhook"
"""A sink that goes to the replica that starts second: of two the last is given up, and the other one is `stdout`."""

_OWNERS = f"SELECT count(DISTINCT owner) FROM lease WHERE (kind, name) IN (('account', '{ACCOUNT}'), ('sink', '{FAR}'))"
_SPREAD = "SELECT count(*) FROM lease WHERE kind = 'account' AND until IS NOT NULL GROUP BY owner"


def measure_replicas(bench: Bench) -> Iterator[Figure]:
    """Measure how soon one replica sends what another has seen, and what several cost that share the accounts."""
    with postgres_server(fsync="on", full_page_writes="on", log_min_messages="fatal") as postgres:
        psutil.Process(postgres.pid).cpu_affinity(SERVER_CORES)
        delays = [_delays_ms(bench, postgres, is_pooled=False) for _ in bench.repetitions]
        p99s = [percentile(each, 99) for each in delays]
        yield at_most(50, f"seen by another to received, {CHANGES_PER_S}/s, p99, ms", p99s)
        yield shown("  p50, ms", [percentile(each, 50) for each in delays])
        if PROGRAM is not None:
            without = [_delays_ms(bench, postgres, is_pooled=True) for _ in bench.repetitions[:2]]
            yield shown("  without NOTIFY, through a pooler, p99, ms", [percentile(each, 99) for each in without])
        quiet = {count: [_watch(bench, postgres, count) for _ in bench.repetitions] for count in (1, 2, 4)}
        for count, runs in quiet.items():
            yield shown(f"polls/s of {count} on one core", [of_all.per_s for of_all, _, _ in runs])
            yield shown("  CPU of a poll, µs", [of_all.cpu_us for of_all, _, _ in runs])
        busy = [_watch(bench, postgres, 1, change_every=CHANGED_ONE_IN) for _ in bench.repetitions]
        pairs = list(zip(busy, quiet[1], strict=True))
        ours = [1000 * run[0].cpu_s_over(calm[0]) / run[2] for run, calm in pairs]
        its = [1000 * run[1].cpu_s_over(calm[1]) / run[2] for run, calm in pairs]
        yield shown("CPU of one told change on PostgreSQL, ms", ours)
        yield shown("  and of the database, ms", its)


@contextmanager
def _database(postgres: PostgresServer, executions: Sequence[str], *, account_count: int) -> Iterator[str]:
    """Give the URL of a database that knows these executions as running."""
    with postgres.database() as url:
        asyncio.run(fill(url, executions, account_count=account_count))
        yield url


def _delays_ms(bench: Bench, postgres: PostgresServer, *, is_pooled: bool) -> Sequence[float]:
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
        stack.enter_context(daemon(bench.workspaces.make(wish)))
        wait_until(lambda: api.served_count > 0)
        stack.enter_context(daemon(bench.workspaces.make(wish)))
        wait_until(lambda: postgres.run(_OWNERS, direct) == [(2,)])
        api.change_every = POLLS_PER_CHANGE
        time.sleep(SETTLING_S)
        before = hook.served_count
        time.sleep(5 * bench.poll_s)
        return [1000 * delay_s for delay_s in hook.delays_s[before : hook.served_count]]


def _watch(bench: Bench, postgres: PostgresServer, count: int, *, change_every: int = 0) -> tuple[Cost, Cost, int]:
    """Let so many replicas poll as fast as they can. Return their cost, the database's, and the changes told."""
    with ExitStack() as stack:
        url = stack.enter_context(_database(postgres, SOME, account_count=ACCOUNT_COUNT))
        api = stack.enter_context(server(serve_load))
        api.change_every = change_every
        wish = Wish(base_url=api.url, executions=SOME, account_count=ACCOUNT_COUNT, store_url=url)
        configs = [bench.workspaces.make(wish) for _ in range(count)]
        daemons = [stack.enter_context(daemon(config)) for config in configs]
        wait_until(lambda: postgres.run(_SPREAD, url) == [(ACCOUNT_COUNT // count,)] * count)
        time.sleep(SETTLING_S)
        database = psutil.Process(postgres.pid)

        def so_far() -> tuple[int, float, float, float, int]:
            spent_s = cpu_s(*daemons), cpu_s(database, *database.children())
            return api.served_count, time.monotonic(), *spent_s, sum(map(events_count, configs))

        before = so_far()
        time.sleep(bench.poll_s)
        served, wall_s, ours_s, its_s, told = (after - earlier for after, earlier in zip(so_far(), before, strict=True))
        return Cost(int(served), wall_s, ours_s), Cost(int(served), wall_s, its_s), int(told)
