"""The measurements of daemons, one function each: what is started, what is watched, which figures come of it."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.counters import PIPELINE_ROWS, Counters, execution_ids, pipeline_ids, receive, serve_load
from bench.figures import Figure, at_least, at_most, percentile, shown
from bench.processes import (
    SINK,
    UNPACED_PER_S,
    Cost,
    Wish,
    Workspaces,
    bare_loop,
    commits_in,
    daemon,
    events_count,
    observe_cost,
    server,
    wait_until,
)

CHANGED_ONE_IN = 50
WAITING_COUNT = 10_000
PACED_PER_S = 500
ONE, FEW, SOME, MANY = (execution_ids(count) for count in (1, 1_000, 10_000, 100_000))
PIPELINES = pipeline_ids(20)
SETTLING_S = 1.5
"""What only a start brings is over by then."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What the measurements share. A `quick` one is a first impression: fewer repetitions, shorter polls."""

    workspaces: Workspaces
    quick: bool

    @property
    def repetitions(self) -> range:
        """Return how often each thing is measured."""
        return range(2 if self.quick else 5)

    @property
    def poll_s(self) -> float:
        """Return for how long a process is watched."""
        return 2.0 if self.quick else 4.0

    def observe(self, process: psutil.Process, api: Counters) -> Cost:
        """Return what a process that asks this API costs in that time."""
        return observe_cost(process, api, wait=lambda: time.sleep(self.poll_s))


@dataclass(frozen=True, slots=True)
class Watched:
    """What a daemon cost while it was watched, how long it had taken to its first poll, and what it reported."""

    cost: Cost
    start_s: float
    changed_count: int
    reported_count: int

    @property
    def reported_share(self) -> float:
        """Return the changes reported meanwhile over the changes made."""
        return self.reported_count / self.changed_count


def measure_polls(bench: Bench) -> Iterator[Figure]:
    """Compare the daemon, while 2 % of the answers change and are reported, with the bare loop, in turns."""
    pairs = [(_watch(bench, SOME), _bare(bench)) for _ in bench.repetitions]
    quiet = [_watch(bench, SOME, change_every=0).cost for _ in bench.repetitions]
    changes_ms = [
        1000 * ours.cost.cpu_s_over(calm) / ours.reported_count for (ours, _), calm in zip(pairs, quiet, strict=True)
    ]
    yield at_least(0.75, "polls per second over the bare loop's", [our.cost.per_s / bare.per_s for our, bare in pairs])
    yield at_most(1.4, "CPU of a poll over the bare loop's", [our.cost.cpu_us / bare.cpu_us for our, bare in pairs])
    yield at_least(0.95, "changes reported over changes made", [ours.reported_share for ours, _ in pairs])
    yield at_most(0.5, "CPU of one reported change, ms", changes_ms)
    yield shown("  polls per second", [ours.cost.per_s for ours, _ in pairs])
    yield shown("  of the bare loop", [bare.per_s for _, bare in pairs])
    yield shown("  CPU of a poll, µs", [ours.cost.cpu_us for ours, _ in pairs])
    yield shown("  without changes, µs", [calm.cpu_us for calm in quiet])
    yield shown("  of the bare loop, µs", [bare.cpu_us for _, bare in pairs])


def _settle(counters: Counters) -> None:
    wait_until(lambda: counters.served_count > 0)
    time.sleep(SETTLING_S)


def _bare(bench: Bench) -> Cost:
    with server(serve_load) as api, bare_loop(api.url, SOME) as process:
        api.change_every = CHANGED_ONE_IN
        _settle(api)
        return bench.observe(process, api)


def _watch(bench: Bench, executions: Sequence[str], *, change_every: int = CHANGED_ONE_IN) -> Watched:
    """Run a daemon that knows these executions, and watch it poll them as fast as it can."""
    with server(serve_load) as api:
        api.change_every = change_every
        wish = Wish(base_url=api.url, executions=executions)
        config = bench.workspaces.make(wish, store=bench.workspaces.filled(executions))
        began_at = time.monotonic()
        with daemon(config) as process:
            _settle(api)
            lines_before, changed_before = events_count(config), api.changed_count
            cost = bench.observe(process, api)
            changed, reported = api.changed_count - changed_before, events_count(config) - lines_before
        return Watched(cost, api.first_at - began_at, changed, reported)


def measure_backlog(bench: Bench) -> Iterator[Figure]:
    """Measure how fast 10,000 waiting events are sent while polling takes all the processor there is.

    What sending one costs is the difference to a daemon without a backlog that polls at the same pace.
    """
    for name, sink, bound in (("stdout", "stdout", 3_000), ("a webhook", SINK, 1_000)):
        unpaced = [_drain(bench, sink) for _ in bench.repetitions]
        yield at_least(bound, f"backlog to {name}, events per second", [sent / cost.wall_s for sent, cost in unpaced])
        pairs = [(_drain(bench, sink, polls_per_s=PACED_PER_S), _without_backlog(bench)) for _ in bench.repetitions]
        cpu_ms = [1000 * cost.cpu_s_over(calm) / sent for (sent, cost), calm in pairs]
        yield at_most(0.6, f"  CPU of one, with {PACED_PER_S} polls/s, ms", cpu_ms)
        yield shown("  polls/s over those without a backlog", [cost.per_s / calm.per_s for (_, cost), calm in pairs])


def _drain(bench: Bench, sink: str, *, polls_per_s: int = UNPACED_PER_S) -> tuple[int, Cost]:
    """Return how many events left a full outbox from its first tenth to its ninth, and what the daemon cost."""
    with server(serve_load) as api, server(receive) as hook:
        url = hook.url if sink == SINK else None
        wish = Wish(base_url=api.url, executions=FEW, rate_per_s=polls_per_s, sink_url=url)
        config = bench.workspaces.make(wish, store=bench.workspaces.filled(MANY[:WAITING_COUNT], sinks=(sink,)))

        def sent_count() -> int:
            return hook.served_count if url else events_count(config)

        with daemon(config) as process:
            wait_until(lambda: sent_count() >= WAITING_COUNT // 10)
            before = sent_count()
            cost = observe_cost(process, api, wait=lambda: wait_until(lambda: sent_count() >= WAITING_COUNT * 9 // 10))
            return sent_count() - before, cost


def _without_backlog(bench: Bench) -> Cost:
    """Watch a daemon with the same store and the same polls, but nothing to send."""
    with server(serve_load) as api:
        wish = Wish(base_url=api.url, executions=FEW, rate_per_s=PACED_PER_S)
        with daemon(bench.workspaces.make(wish, store=bench.workspaces.filled(MANY[:WAITING_COUNT]))) as process:
            _settle(api)
            return bench.observe(process, api)


def measure_deliveries(bench: Bench) -> Iterator[Figure]:
    """Measure how fast a full outbox empties into one sink, and what a message made for Slack costs beside it."""
    pairs = [(_deliver(bench, {}), _deliver(bench, {"template": "slack"})) for _ in bench.repetitions]
    grouped = [_deliver(bench, {"group": {"by": ["account"], "wait": "1s"}}) for _ in bench.repetitions]
    yield at_least(2_000, "deliveries per second to one sink", [plain.per_s for plain, _ in pairs])
    yield at_most(1.5, "CPU of a delivery to Slack over a plain webhook's", [to.cpu_us / by.cpu_us for by, to in pairs])
    yield shown("  CPU of a delivery, µs", [plain.cpu_us for plain, _ in pairs])
    yield at_least(5_000, "events per second to one sink in groups", [each.per_s for each in grouped])
    yield shown("  CPU of an event, µs", [each.cpu_us for each in grouped])


def _deliver(bench: Bench, sink: Mapping[str, object]) -> Cost:
    """Return what nine tenths of an outbox cost: the first warms up."""
    store = bench.workspaces.filled(MANY[:WAITING_COUNT], sinks=(SINK,))
    with server(serve_load) as api, server(receive) as hook:
        wish = Wish(base_url=api.url, executions=ONE, rate_per_s=1, sink_url=hook.url, sink=sink)
        with daemon(bench.workspaces.make(wish, store=store)) as process:
            wait_until(lambda: hook.served_count >= WAITING_COUNT // 10)
            return observe_cost(process, hook, wait=lambda: wait_until(lambda: hook.served_count >= WAITING_COUNT))


def measure_many(bench: Bench) -> Iterator[Figure]:
    """Compare a daemon that watches 100,000 executions with one that watches 1,000, in turns; measure its memory."""
    pairs = [(_watch(bench, MANY), _watch(bench, FEW)) for _ in bench.repetitions]
    yield at_most(2.0, "start to first poll with 100,000, s", [many.start_s for many, _ in pairs])
    yield shown("  with 1,000, s", [few.start_s for _, few in pairs])
    yield at_most(
        1.2, "CPU of a poll over that with 1,000", [many.cost.cpu_us / few.cost.cpu_us for many, few in pairs]
    )
    yield at_least(0.95, "changes reported over changes made", [many.reported_share for many, _ in pairs])
    stores = (None, bench.workspaces.filled(MANY))
    yield at_most(200, "memory with 100,000 executions, MB", [_memory_mb(bench, store) for store in stores])


def _memory_mb(bench: Bench, store: Path | None) -> float:
    """Return what is held once each execution was polled a few times: by then it no longer grows.

    Raises `RuntimeError` if changes are held that should have been reported.
    """
    with server(serve_load) as api:
        api.change_every = CHANGED_ONE_IN
        config = bench.workspaces.make(Wish(base_url=api.url, executions=MANY), store=store)
        with daemon(config) as process:
            wait_until(lambda: api.served_count > (1 if bench.quick else 3) * len(MANY))
            held = process.memory_info().rss / 1e6
            changed, reported = api.changed_count + (0 if store else len(MANY)), events_count(config)
            if reported < 0.95 * changed:
                raise RuntimeError(f"of {changed} changes {reported} are reported")
            return held


# A typical installation: whole pipelines and a webhook by the defaults; changes go to stdout and to the webhook

SHOWN_PER_CHANGE = 5.5
"""Of the rows shown: that makes some 40 changes a second."""


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


def measure_typical(bench: Bench) -> Iterator[Figure]:
    """Measure the CPU of a daemon with 20 pipelines, 1,200 executions, 5 requests/s and some 40 changes/s, or none.

    How many polls a second the bare loop makes with as much CPU is measured in turns.
    """
    pairs = [(_typical(bench), _bare(bench)) for _ in bench.repetitions]
    runs = [run for run, _ in pairs]
    worth = [10_000 * run.busy.percent / loop.cpu_us for run, loop in pairs]
    yield at_most(1_000, "CPU with some 40 changes/s, in polls/s of the bare loop", worth)
    yield shown("  % of a core", [each.busy.percent for each in runs])
    yield shown("  when nothing changes, % of a core", [each.quiet.percent for each in runs])
    yield at_most(0.4, "commits for each change", [each.commits_each for each in runs])
    yield at_most(100, "from the poll to the webhook, median ms", [percentile(each.delays_ms, 50) for each in runs])
    yield shown("  99th percentile, ms", [percentile(each.delays_ms, 99) for each in runs])
    yield shown("  changes delivered per second", [each.changes_per_s for each in runs])
    yield shown("  requests per second", [each.busy.per_s for each in runs])


def _typical(bench: Bench) -> Typical:
    """Let nothing change, then every n-th row. Raises `RuntimeError` if the changes are not delivered meanwhile."""
    with server(serve_load) as api, server(receive) as hook:
        wish = Wish(base_url=api.url, pipelines=PIPELINES, rate_per_s=5, sink_url=hook.url, sink_paced=True)
        config = bench.workspaces.make(wish)

        def waiting_counts() -> tuple[int, int]:
            """Return how many events are yet to reach stdout and the webhook: one of each execution and change."""
            count = len(PIPELINES) * PIPELINE_ROWS + api.changed_count
            return count - events_count(config), count - hook.served_count

        def watch() -> Cost:
            return observe_cost(process, api, wait=lambda: time.sleep(7.5 * bench.poll_s))

        with daemon(config) as process:
            wait_until(lambda: waiting_counts() == (0, 0))
            quiet = watch()
            api.change_every = SHOWN_PER_CHANGE
            time.sleep(2 * SETTLING_S)
            before, commits_count, received_count = api.changed_count, commits_in(config), hook.served_count
            busy = watch()
            changed_count, commits_count = api.changed_count - before, commits_in(config) - commits_count
            delays_ms = [1000 * delay_s for delay_s in hook.delays_s[received_count : hook.served_count]]
            changes_per_s = changed_count / busy.wall_s
            if max(waiting_counts()) > changes_per_s:
                raise RuntimeError(f"the outbox grows: {waiting_counts()} wait")
            return Typical(quiet, busy, changes_per_s, commits_count / changed_count, delays_ms)


# The way of a change and of a poll, counted in calls. A coroutine that goes on after it waited counts as a call again

CHANGES_COUNT, POLLS_COUNT = 20, 5_000
EACH = 0.9
"""What is entered so often for each change is on its way. What repeats every five seconds for each owner is not."""


def measure_path(bench: Bench) -> Iterator[Figure]:
    """Count the calls of a change that goes to stdout and one webhook once a second, and those of an unchanged poll."""
    make = bench.workspaces.make
    with server(serve_load) as api, server(receive) as hook:
        api.change_every = 1
        config = make(Wish(base_url=api.url, executions=ONE, rate_per_s=5, sink_url=hook.url, is_fast=False))
        changes, _ = _calls(config, lambda: hook.served_count, after=3, count=CHANGES_COUNT)
    often = [name for name, count in changes.items() if count >= EACH * CHANGES_COUNT]
    yield at_most(320, "calls of ours for each change", [sum(changes.values()) / CHANGES_COUNT])
    yield at_most(125, "  functions that are entered", [len(often)])
    yield at_most(36, "  files that these are in", [len({name.partition(":")[0] for name in often})])
    with server(serve_load) as api:
        config = make(Wish(base_url=api.url, executions=FEW), store=bench.workspaces.filled(FEW))
        polls, count = _calls(config, lambda: api.served_count, after=POLLS_COUNT // 4, count=POLLS_COUNT)
    yield at_most(60, "calls of ours for each unchanged poll", [sum(polls.values()) / count])


def _calls(config: Path, done: Callable[[], int], *, after: int, count: int) -> tuple[Mapping[str, int], int]:
    """Return how often each function was called while at least so many were done, and how many they were."""
    file = config.with_name("calls.json")

    def counted() -> Mapping[str, int]:
        """Have the daemon write what it has counted, and begin anew."""
        file.unlink(missing_ok=True)
        os.kill(process.pid, signal.SIGUSR1)
        wait_until(file.exists)
        counts: Mapping[str, int] = json.loads(file.read_text())
        return counts

    with daemon(config, "bench.counters", str(file)) as process:
        wait_until(lambda: done() >= after)
        counted()
        at = done()
        wait_until(lambda: done() >= at + count)
        return counted(), done() - at
