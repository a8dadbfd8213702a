"""The measurements, one function each: what is started, what is watched, which figures come of it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.answers import execution_ids
from bench.console import measure_console
from bench.counters import Counters
from bench.figures import Figure, at_least, at_most, percentile, shown
from bench.load_server import serve_load
from bench.path import measure_path
from bench.processes import Cost, bare_loop, daemon, events_of, lines_in, observe_cost, server, wait_until
from bench.receiver import receive
from bench.replicas import measure_replicas
from bench.storm import measure_storm
from bench.typical import measure_typical
from bench.viewers import measure_viewers
from bench.virtual_measures import measure_pipelines
from bench.workspaces import CONCURRENCY, SINK, UNPACED_PER_S, Wish, Workspaces
from watcher.runtime.pacing import SHARE

CHANGED_ONE_IN = 50
BACKLOG_COUNT = 10_000
PACED_PER_S = 500
EVENTS_PER_S = 200
DELIVERIES_COUNT = 10_000
GROUP = {"by": ["account"], "wait": "1s"}
FEW, SOME, MANY = execution_ids(1_000), execution_ids(10_000), execution_ids(100_000)
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

    def change_ms_over(self, calm: Cost) -> float:
        """Return the CPU time of one reported change: what a daemon that only polled, as often, did not need."""
        return 1000 * (self.cost.cpu_s - calm.cpu_s_each * self.cost.served_count) / self.reported_count


@dataclass(frozen=True, slots=True)
class Drained:
    """How many events left an outbox, and what the daemon cost and polled meanwhile."""

    sent_count: int
    cost: Cost

    @property
    def per_s(self) -> float:
        """Return how many left a second."""
        return self.sent_count / self.cost.wall_s

    def cpu_s_over(self, calm: Cost) -> float:
        """Return the CPU time of one event: what a daemon that only polled, as often, would not have needed."""
        return (self.cost.cpu_s - calm.cpu_s_each * self.cost.served_count) / self.sent_count


def measure_polls(bench: Bench) -> Iterator[Figure]:
    """Compare the daemon, while 2 % of the answers change and are reported, with the bare loop, in turns."""
    pairs = [(_watch(bench, SOME), _bare(bench)) for _ in bench.repetitions]
    quiet = [_watch(bench, SOME, change_every=0).cost for _ in bench.repetitions]
    polled = [ours.cost.per_s / bare.per_s for ours, bare in pairs]
    cpu = [ours.cost.cpu_s_each / bare.cpu_s_each for ours, bare in pairs]
    changes_ms = [ours.change_ms_over(calm) for (ours, _), calm in zip(pairs, quiet, strict=True)]
    yield at_least(0.75, "polls per second over the bare loop's", polled)
    yield at_most(1.4, "CPU of a poll over the bare loop's", cpu)
    yield at_least(0.95, "changes reported over changes made", [ours.reported_share for ours, _ in pairs])
    yield at_most(0.5, "CPU of one reported change, ms", changes_ms)
    yield shown("  polls per second", [ours.cost.per_s for ours, _ in pairs])
    yield shown("  of the bare loop", [bare.per_s for _, bare in pairs])
    yield shown("  CPU of a poll, µs", [ours.cost.cpu_s_each * 1e6 for ours, _ in pairs])
    yield shown("  without changes, µs", [calm.cpu_s_each * 1e6 for calm in quiet])
    yield shown("  of the bare loop, µs", [bare.cpu_s_each * 1e6 for _, bare in pairs])


def measure_backlog(bench: Bench) -> Iterator[Figure]:
    """Measure how fast 10,000 waiting events are sent while polling takes all the processor there is.

    What sending one costs is the difference to a daemon without a backlog that polls at the same pace.
    """
    for name, sink in (("stdout", "stdout"), ("a webhook", SINK)):
        bound = 3000 if sink == "stdout" else 1000
        unpaced = [_drain(bench, sink) for _ in bench.repetitions]
        yield at_least(bound, f"backlog to {name}, events per second", [each.per_s for each in unpaced])
        pairs = [(_drain(bench, sink, polls_per_s=PACED_PER_S), _without_backlog(bench)) for _ in bench.repetitions]
        cpu_ms = [1000 * drained.cpu_s_over(calm) for drained, calm in pairs]
        yield at_most(0.6, f"  CPU of one, with {PACED_PER_S} polls/s, ms", cpu_ms)
        yield shown("  polls/s over those without a backlog", [each.cost.per_s / calm.per_s for each, calm in pairs])


def measure_many(bench: Bench) -> Iterator[Figure]:
    """Compare a daemon that watches 100,000 executions with one that watches 1,000, in turns."""
    pairs = [(_watch(bench, MANY), _watch(bench, FEW)) for _ in bench.repetitions]
    yield at_most(2.0, "start to first poll with 100,000, s", [many.start_s for many, _ in pairs])
    cpu = [many.cost.cpu_s_each / few.cost.cpu_s_each for many, few in pairs]
    yield at_most(1.2, "CPU of a poll over that with 1,000", cpu)
    yield at_least(0.95, "changes reported over changes made", [many.reported_share for many, _ in pairs])
    yield shown("  start to first poll with 1,000, s", [few.start_s for _, few in pairs])


def measure_memory(bench: Bench) -> Iterator[Figure]:
    """Measure the memory of a daemon that has long been watching: begun with an empty store, and with a filled one."""
    stores = (None, bench.workspaces.filled(MANY))
    yield at_most(200, "memory with 100,000 executions, MB", [_memory_mb(bench, store) for store in stores])


def measure_start(bench: Bench) -> Iterator[Figure]:
    """Measure the start from an empty store: the one with 100,000 executions recorded is measured with the others."""
    yield at_most(2.0, "start to first poll, empty store, s", [_start_s(bench) for _ in bench.repetitions])


def measure_latency(bench: Bench) -> Iterator[Figure]:
    """Measure how long after a change was seen its webhook arrives, while 200 of them a second do."""
    delays = [_delays_ms(bench) for _ in bench.repetitions]
    yield at_most(100, "seen to webhook received, p99, ms", [percentile(each, 99) for each in delays])
    yield shown("  p50, ms", [percentile(each, 50) for each in delays])
    yield shown("  events per second", [len(each) / bench.poll_s for each in delays])


def measure_deliveries(bench: Bench) -> Iterator[Figure]:
    """Measure how fast a full outbox empties into one sink, and what a message made for Slack costs beside it."""
    pairs = [(_deliver(bench), _deliver(bench, template="slack")) for _ in bench.repetitions]
    yield at_least(2_000, "deliveries per second to one sink", [plain.per_s for plain, _ in pairs])
    yield at_most(
        1.5, "CPU of a delivery to Slack over a plain webhook's", [to.cpu_s_each / by.cpu_s_each for by, to in pairs]
    )
    yield shown("  CPU of a delivery, µs", [plain.cpu_s_each * 1e6 for plain, _ in pairs])
    grouped = [_deliver(bench, group=GROUP) for _ in bench.repetitions]
    yield at_least(5_000, "events per second to one sink in groups", [each.per_s for each in grouped])
    yield shown("  CPU of an event, µs", [each.cpu_s_each * 1e6 for each in grouped])


MEASURES: Mapping[str, Callable[[Bench], Iterator[Figure]]] = {
    "polls": measure_polls,
    "backlog": measure_backlog,
    "path": lambda bench: measure_path(bench.workspaces),
    "typical": lambda bench: measure_typical(bench.workspaces, bench.repetitions, bare=lambda: _bare(bench)),
    "many": measure_many,
    "memory": measure_memory,
    "start": measure_start,
    "latency": measure_latency,
    "deliveries": measure_deliveries,
    "storm": lambda bench: measure_storm(range(1, 2 if bench.quick else 4)),
    "replicas": lambda bench: measure_replicas(bench.workspaces, bench.repetitions, poll_s=bench.poll_s),
    "console": lambda bench: measure_console(3 if bench.quick else 9),
    "viewers": lambda bench: measure_viewers(bench.workspaces, bench.repetitions, watched_s=5 * bench.poll_s),
    "pipelines": lambda bench: measure_pipelines(range(1, 2 if bench.quick else 4)),
}


def _settle(counters: Counters) -> None:
    wait_until(lambda: counters.served_count > 0)
    time.sleep(SETTLING_S)


def _bare(bench: Bench) -> Cost:
    with server(serve_load) as api, bare_loop(api.url, executions=SOME, workers=CONCURRENCY) as process:
        api.change_every = CHANGED_ONE_IN
        _settle(api)
        return observe_cost(process, api, wait=lambda: time.sleep(bench.poll_s))


def _watch(bench: Bench, executions: Sequence[str], *, change_every: int = CHANGED_ONE_IN) -> Watched:
    """Run a daemon that knows these executions, and watch it poll them as fast as it can."""
    with server(serve_load) as api:
        api.change_every = change_every
        wish = Wish(base_url=api.url, executions=executions)
        config = bench.workspaces.make(wish, store=bench.workspaces.filled(executions))
        began_at = time.monotonic()
        with daemon(config) as process:
            _settle(api)
            lines_before, changed_before = lines_in(events_of(config)), api.changed_count
            cost = observe_cost(process, api, wait=lambda: time.sleep(bench.poll_s))
            changed, reported = api.changed_count - changed_before, lines_in(events_of(config)) - lines_before
        return Watched(cost, api.first_at - began_at, changed, reported)


def _drain(bench: Bench, sink: str, *, polls_per_s: int = UNPACED_PER_S) -> Drained:
    """Watch a full outbox being sent, from its first tenth to its ninth."""
    with server(serve_load) as api, server(receive) as hook:
        url = hook.url if sink == SINK else None
        wish = Wish(base_url=api.url, executions=FEW, rate_per_s=polls_per_s, sink_url=url)
        config = bench.workspaces.make(wish, store=bench.workspaces.filled(MANY[:BACKLOG_COUNT], sinks=(sink,)))

        def sent_count() -> int:
            return hook.served_count if url else lines_in(events_of(config))

        with daemon(config) as process:
            wait_until(lambda: sent_count() >= BACKLOG_COUNT // 10)
            before = sent_count()
            cost = observe_cost(process, api, wait=lambda: wait_until(lambda: sent_count() >= BACKLOG_COUNT * 9 // 10))
            return Drained(sent_count() - before, cost)


def _without_backlog(bench: Bench) -> Cost:
    """Watch a daemon with the same store and the same polls, but nothing to send."""
    with server(serve_load) as api:
        wish = Wish(base_url=api.url, executions=FEW, rate_per_s=PACED_PER_S)
        with daemon(bench.workspaces.make(wish, store=bench.workspaces.filled(MANY[:BACKLOG_COUNT]))) as process:
            _settle(api)
            return observe_cost(process, api, wait=lambda: time.sleep(bench.poll_s))


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
            changed = api.changed_count + (0 if store else len(MANY))
            if lines_in(events_of(config)) < 0.95 * changed:
                raise RuntimeError(f"of {changed} changes {lines_in(events_of(config))} are reported")
            return held


def _start_s(bench: Bench) -> float:
    with server(serve_load) as api:
        config = bench.workspaces.make(Wish(base_url=api.url, executions=MANY))
        began_at = time.monotonic()
        with daemon(config):
            wait_until(lambda: api.served_count > 0)
            return api.first_at - began_at


def _delays_ms(bench: Bench) -> Sequence[float]:
    """Let one answer in five change at a pace of 1,000 a second; return the delays of the events of one poll."""
    with server(serve_load) as api, server(receive) as hook:
        rate_per_s = round(5 * EVENTS_PER_S / SHARE)
        wish = Wish(base_url=api.url, executions=FEW, rate_per_s=rate_per_s, sink_url=hook.url)
        with daemon(bench.workspaces.make(wish, store=bench.workspaces.filled(FEW))):
            api.change_every = 5
            _settle(hook)
            before = hook.served_count
            time.sleep(bench.poll_s)
            return [1000 * delay_s for delay_s in hook.delays_s[before : hook.served_count]]


def _deliver(bench: Bench, *, template: str | None = None, group: Mapping[str, object] | None = None) -> Cost:
    """Return what nine tenths of an outbox cost: the first warms up."""
    waiting = MANY[:DELIVERIES_COUNT]
    with server(serve_load) as api, server(receive) as hook:
        wish = Wish(
            base_url=api.url, executions=FEW[:1], rate_per_s=1, sink_url=hook.url, template=template, group=group
        )
        with daemon(bench.workspaces.make(wish, store=bench.workspaces.filled(waiting, sinks=(SINK,)))) as process:
            wait_until(lambda: hook.served_count >= DELIVERIES_COUNT // 10)
            return observe_cost(process, hook, wait=lambda: wait_until(lambda: hook.served_count >= DELIVERIES_COUNT))
