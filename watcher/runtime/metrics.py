"""All metrics of the program. Known label sets start at 0; frequently used ones are kept as attributes."""

from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import accumulate, chain
from typing import Any, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import EventType
from watcher.domain.execution import (
    END_LABELS,
    LOST,
    OPEN_STATUSES,
    TERMINAL_STATUSES,
    UNRECOGNIZED,
    ExecutionRecord,
    ExecutionSnapshot,
    Outcome,
)
from watcher.domain.problems import PROBLEM_KINDS
from watcher.domain.timestamps import Micros
from watcher.runtime.version import VERSION

OPEN_LABELS = (*OPEN_STATUSES, UNRECOGNIZED, LOST, "unseen")
STARTED = "started"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_BATCH_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_LONG_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_RUN_SECONDS = (1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10_800, 28_800, 86_400)
_RUN_BOUNDS = (*map(str, map(float, _RUN_SECONDS)), "+Inf")
_number: Callable[[float], str] = floatToGoString

SLICE_COUNT = 50
"""The most pipelines in one piece of the metrics' text. Such a piece takes at most 5 ms."""

GOALS_COUNT = 50
"""The most goals of a pipeline with a label of their own. Further goals are counted as `other`."""

LABEL_LENGTH = 100


class FastHistogram(Histogram):
    """A histogram without the library's locks, which cost 3 µs per value. Only the event loop may change it."""

    def observe(self, amount: float, _exemplar: object = None) -> None:
        """Count a value. A value equal to the upper bound of a bucket belongs to this bucket."""
        self._sum._value += amount  # noqa: SLF001 (the number behind the lock)
        self._buckets[bisect_left(self._upper_bounds, amount)]._value += 1  # noqa: SLF001


class _One(Collector):
    """A collector of one metric, so that the library makes the text of this metric alone."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric


M = TypeVar("M", bound=Counter | Gauge | Histogram)


class Metrics:
    """The registry of one daemon, with all metrics declared."""

    def __init__(self) -> None:
        # Without this, every counter would have a second metric named `_created`.
        disable_created_metrics()  # type: ignore[no-untyped-call] # prometheus_client types most, not this
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._metrics_of: dict[str, list[Counter | Gauge | Histogram]] = {"account": [], "sink": []}
        self._declare_accounts()
        self._declare_sinks()
        self._declare_rest()
        self.pipelines: dict[str, dict[str, PipelineMetrics]] = {}
        """The watched pipelines by id, for each account that this process owns. They are not in the registry."""

    def text(self) -> Iterator[bytes]:
        """Yield all metrics in Prometheus' text format, in pieces. Between two pieces, other work may change them."""
        for family in self.registry.collect():
            yield generate_latest(_One(family))
        pipelines = [
            (f'account="{_escaped(account)}",pipeline="{_escaped(pipeline)}"', each)
            for account, pipelines in self.pipelines.items()
            for pipeline, each in pipelines.items()
        ]
        for of_pipelines in _FAMILIES:
            name, kind, text, *_ = of_pipelines
            yield f"# HELP watcher_{name} {text}\n# TYPE watcher_{name} {kind}\n".encode()
            for start in range(0, len(pipelines), SLICE_COUNT):
                pieces = (of_pipelines.lines(*each) for each in pipelines[start : start + SLICE_COUNT])
                yield "".join(chain.from_iterable(pieces)).encode()

    def record_reload(self, *, well: bool, at: datetime) -> None:
        """Record whether the configuration on disk is in use. It was read at `at` (wall clock)."""
        self.reload_successful.set(well)
        if well:
            self.reload_success_at.set(at.timestamp())

    def total(self, name: str, **labels: str) -> int:
        """Return the sum of the samples of this name with these labels. The call is slow: it collects all metrics."""
        samples = (sample for family in self.registry.collect() for sample in family.samples)
        return round(sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items()))

    def forget(self, owner: str, name: str) -> None:
        """Remove the metrics of an account or a sink."""
        if owner == "account":
            self.pipelines.pop(name, None)
        for metric in self._metrics_of.get(owner, ()):
            metric.remove_by_labels({owner: name})

    def _add_owned(self, owner: str, kind: type[M], name: str, text: str, *labels: str, **more: Any) -> M:
        metric = self._add(kind, name, text, owner, *labels, **more)
        self._metrics_of[owner].append(metric)
        return metric

    def _add(self, kind: type[M], name: str, text: str, *labels: str, **more: Any) -> M:
        return kind(f"watcher_{name}", text, labels, registry=self.registry, **more)

    def _declare_accounts(self) -> None:
        add = partial(self._add_owned, "account")
        text = "Requests to the API, by their outcome."
        self.api_requests = add(Counter, "api_requests_total", text, "endpoint", "outcome")
        text = "Seconds from a request to the API until its answer."
        self.api_request_duration = add(
            FastHistogram, "api_request_duration_seconds", text, "endpoint", buckets=_SECONDS
        )
        text = "Polls of executions by outcome; `contradicted` counts again those of `ok` that deny an earlier end."
        self.polls = add(Counter, "polls_total", text, "outcome")
        text = "Watched executions that have not ended, by their status."
        self.open_executions = add(Gauge, "open_executions", text, "status")
        text = "Seconds from when a poll was due until its request was sent."
        self.poll_lateness = add(FastHistogram, "poll_lateness_seconds", text, buckets=_LONG_SECONDS)
        text = "1 while the API can be used with this account's key, 0 while the account is degraded."
        self.account_up = add(Gauge, "account_up", text)
        text = "Time of the last successful poll, in seconds since 1970."
        self.last_successful_poll = add(Gauge, "last_successful_poll_timestamp_seconds", text)

    def _declare_sinks(self) -> None:
        add = partial(self._add_owned, "sink")
        text = "Deliveries to the sink, by their outcome; `retried` counts failed attempts that are repeated."
        self.deliveries = add(Counter, "deliveries_total", text, "outcome")
        text = "Seconds from when an event was recorded until the sink took it."
        self.delivery_delay = add(Histogram, "delivery_delay_seconds", text, buckets=_LONG_SECONDS)
        text = "Events in each request that the sink took."
        self.batched = add(FastHistogram, "deliveries_batched", text, buckets=_BATCH_SIZES)
        self.outbox_pending = add(Gauge, "outbox_pending", "Deliveries that are pending at the sink.")
        text = "Time from which the oldest pending delivery could have been sent, in seconds since 1970."
        self.outbox_oldest = add(Gauge, "outbox_oldest_timestamp_seconds", text)
        self.sink_up = add(Gauge, "sink_up", "1 while the sink works, 0 while it is failing or disabled.")
        text = "1 for a sink that is failing or disabled, by its last answer."
        self.sink_trouble = add(Gauge, "sink_trouble_info", text, "answer")
        text = "Refreshes, each of which posts all open problems to Alertmanager again, by their outcome."
        self.refreshes = add(Counter, "alertmanager_refreshes_total", text, "outcome")

    def _declare_rest(self) -> None:
        add = self._add
        self.events = add(Counter, "events_total", "Events that were recorded, by their type.", "type")
        for type_ in EventType:
            self.events.labels(type_)
        self.problems_open = add(Gauge, "problems_open", "Problems that are open, by their kind.", "kind")
        for kind in PROBLEM_KINDS:
            self.problems_open.labels(kind)
        text = "Seconds from the end of an execution until the watcher saw it."
        self.detection_delay = add(Histogram, "detection_delay_seconds", text, buckets=_LONG_SECONDS)
        text = "Leases that this process holds, by kind: account, sink or maintenance."
        self.leases_held = add(Gauge, "leases_held", text, "kind")
        text = "Expired leases of other replicas that this process took over, by kind."
        self.lease_takeovers = add(Counter, "lease_takeovers_total", text, "kind")
        self.store_up = add(Gauge, "store_up", "1 if the last write to the store succeeded, else 0.")
        text = "Reads and writes of the store that failed."
        self.store_failures = add(Counter, "store_failures_total", text)
        self.loop_lag = add(Gauge, "loop_lag_seconds", "Seconds by which the event loop last woke too late.")
        text = "1 if the configuration on disk is in use, 0 if it was refused."
        self.reload_successful = add(Gauge, "config_last_reload_successful", text)
        text = "1 while the configuration on disk has a change that needs a restart."
        self.restart_pending = add(Gauge, "config_restart_pending", text)
        text = "Time when the configuration was last applied, in seconds since 1970."
        self.reload_success_at = add(Gauge, "config_last_reload_success_timestamp_seconds", text)
        build = add(Gauge, "build_info", "Always 1; the label is the version of the program.", "version")
        build.labels(VERSION).set(1)


class AccountMetrics:
    """The metrics of one account. Callers use the attributes directly."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.lists = {outcome: metrics.api_requests.labels(name, "list", outcome) for outcome in Outcome}
        self.list_duration = metrics.api_request_duration.labels(name, "list")
        self.requests = {outcome: metrics.api_requests.labels(name, "get", outcome) for outcome in Outcome}
        self.request_duration = metrics.api_request_duration.labels(name, "get")
        self.polls = {outcome: metrics.polls.labels(name, outcome) for outcome in Outcome}
        self.contradicted = metrics.polls.labels(name, "contradicted")
        self.open = {label: metrics.open_executions.labels(name, label) for label in OPEN_LABELS}
        self.lateness = metrics.poll_lateness.labels(name)
        self.up = metrics.account_up.labels(name)
        self.last_success = metrics.last_successful_poll.labels(name)
        self.events = metrics.events
        self.detection_delay = metrics.detection_delay
        self.pipelines = metrics.pipelines.setdefault(name, {})

    def count_poll(self, outcome: Outcome, duration_s: float) -> None:
        """Count a poll, and the time until its answer."""
        self.requests[outcome].inc()
        self.polls[outcome].inc()
        self.request_duration.observe(duration_s)

    def count_page(self, outcome: Outcome, duration_s: float) -> None:
        """Count a page, and the time until its answer."""
        self.lists[outcome].inc()
        self.list_duration.observe(duration_s)


@dataclass(slots=True, eq=False)
class PipelineMetrics:
    """The counts of one pipeline since this process became the account's owner. A scrape turns them into metrics.

    Times are microseconds UTC, steady.
    """

    name: str = ""
    started_count: int = 0
    ended: Counts[str] = field(default_factory=Counts)
    durations: dict[str, list[int]] = field(
        default_factory=lambda: {label: [0] * (len(_RUN_SECONDS) + 1) for label in END_LABELS}
    )
    durations_s: Counts[str] = field(default_factory=Counts)
    tokens_count: float = 0
    goals: Counts[str] = field(default_factory=Counts)
    open: Mapping[str, int] = field(default_factory=dict)
    """The number of open executions by label, at the last snapshot."""
    oldest: Mapping[str, Micros] = field(default_factory=dict)
    """The time at which the oldest open execution with each label entered its status, at the last snapshot."""
    last_at: Mapping[str, Micros] = field(default_factory=dict)
    """The time of the last start (`started`), and of the last end by label. `RecentEnds` updates this mapping."""

    def count(self, known: ExecutionRecord, facts: ExecutionSnapshot | None, *, starts: bool) -> None:
        """Count the start of an execution, its end, or both."""
        self.started_count += starts
        if known.end_seen_at is None:
            return
        label = end_label(known.status)
        self.ended[label] += 1
        if facts is None:
            return
        started, finished = facts.started_at, facts.finished_at
        if started is not None and finished is not None and finished >= started:
            ran_s = (finished - started).total_seconds()
            self.durations[label][bisect_left(_RUN_SECONDS, ran_s)] += 1
            self.durations_s[label] += ran_s  # type: ignore[assignment]
        self.tokens_count += max(0, facts.ai_tokens_used or 0)
        for goal in {label_of(each) for each in facts.goals}:
            self.goals[goal if goal in self.goals or len(self.goals) < GOALS_COUNT else "other"] += 1


class PipelineFamily(NamedTuple):
    """A metric of pipelines. `samples` returns its values for one pipeline, by the value of `label`, if it has one."""

    name: str
    kind: str
    text: str
    samples: Callable[[PipelineMetrics], Mapping[str, float]]
    label: str = ""

    def lines(self, labels: str, each: PipelineMetrics) -> Iterator[str]:
        """Yield the lines of one pipeline in Prometheus' text format. `labels` are the labels of the pipeline."""
        for word, value in self.samples(each).items():
            more = f',{self.label}="{_escaped(word)}"' if self.label else ""
            yield f"watcher_{self.name}{{{labels}{more}}} {_number(value)}\n"


class DurationFamily(PipelineFamily):
    """The histogram of durations. It shows no buckets for a status in which nothing has ended: most would be empty."""

    def lines(self, labels: str, each: PipelineMetrics) -> Iterator[str]:
        """Yield the lines of one pipeline in Prometheus' text format."""
        for status in END_LABELS:
            of_status = f'{labels},{self.label}="{status}"'
            *_, count = counts = list(accumulate(each.durations[status]))
            for bound, value in zip(_RUN_BOUNDS, counts if count else (), strict=False):
                yield f'watcher_{self.name}_bucket{{{of_status},le="{bound}"}} {_number(value)}\n'
            yield f"watcher_{self.name}_count{{{of_status}}} {_number(count)}\n"
            yield f"watcher_{self.name}_sum{{{of_status}}} {_number(each.durations_s[status])}\n"


def _counted(counts: Mapping[str, int], labels: Collection[str]) -> Mapping[str, float]:
    return {label: counts.get(label, 0) for label in labels}


def _in_seconds(moments: Mapping[str, Micros], labels: Collection[str]) -> Mapping[str, float]:
    return {label: moments[label] / 1e6 for label in labels if label in moments}


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _families() -> Iterator[PipelineFamily]:
    new = PipelineFamily
    text = "Always 1; the label `name` is the name of the pipeline."
    yield new("pipeline_info", "gauge", text, lambda each: {label_of(each.name): 1}, "name")
    text = "Executions that were seen for the first time."
    yield new("executions_started_total", "counter", text, lambda each: {"": each.started_count})
    text = "Executions whose end was seen, by status."
    yield new("executions_ended_total", "counter", text, lambda each: _counted(each.ended, END_LABELS), "status")
    text = "Seconds from the start of executions to their end."
    yield DurationFamily("execution_duration_seconds", "histogram", text, lambda _: {}, "status")
    text = "AI tokens that ended executions have used."
    yield new("execution_ai_tokens_total", "counter", text, lambda each: {"": each.tokens_count})
    text = f"Executions that reached a goal, by goal; goals after the first {GOALS_COUNT} are `other`."
    yield new("execution_goals_total", "counter", text, lambda each: each.goals, "goal")
    text = "Executions that have not ended, by their status."
    yield new("pipeline_open_executions", "gauge", text, lambda each: _counted(each.open, OPEN_LABELS), "status")
    text, name = (
        "Time when the oldest open execution entered its status, in seconds since 1970.",
        "pipeline_oldest_open",
    )
    yield new(f"{name}_timestamp_seconds", "gauge", text, lambda each: _in_seconds(each.oldest, OPEN_LABELS), "status")
    text, name = "Time when an execution last started, in seconds since 1970.", "pipeline_last_started"
    yield new(f"{name}_timestamp_seconds", "gauge", text, lambda each: _in_seconds(each.last_at, (STARTED,)))
    text, name = "Time when an execution last ended, by status, in seconds since 1970.", "pipeline_last_ended"
    yield new(f"{name}_timestamp_seconds", "gauge", text, lambda each: _in_seconds(each.last_at, END_LABELS), "status")


_FAMILIES = tuple(_families())


def label_of(text: str) -> str:
    """Return a text of the API or the configuration as a label: cut, and without control characters."""
    return "".join(filter(str.isprintable, text[: 2 * LABEL_LENGTH]))[:LABEL_LENGTH]


class SinkMetrics:
    """The metrics of one sink."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        settled = (DeliveryState.DELIVERED, DeliveryState.ACCEPTED, DeliveryState.DEAD, DeliveryState.SILENCED)
        self.outcomes = {outcome: metrics.deliveries.labels(name, outcome) for outcome in ("retried", *settled)}
        self._delay = metrics.delivery_delay.labels(name)
        self.batched = metrics.batched.labels(name)
        self.up = metrics.sink_up.labels(name)
        self._metrics = metrics
        self._name = name
        self.events = metrics.events
        metrics.outbox_pending.labels(name)
        metrics.outbox_oldest.labels(name)

    def count_delivery(self, delay_s: float, *, state: DeliveryState = DeliveryState.DELIVERED) -> None:
        """Count a delivery that the sink took `delay_s` after its recording. A delay below 0 counts as 0."""
        self.outcomes[state].inc()
        self._delay.observe(max(0.0, delay_s))

    def start_refreshes(self) -> None:
        """Create the counts of refreshes, which start at 0. Only a sink that needs refreshes has these counts."""
        for outcome in ("ok", "failed"):
            self._metrics.refreshes.labels(self._name, outcome)

    def count_refresh(self, *, well: bool) -> None:
        """Count a refresh of the open problems at the sink."""
        self._metrics.refreshes.labels(self._name, "ok" if well else "failed").inc()

    def report_state(self, *, well: bool, answer: str) -> None:
        """Set whether the sink works. If it does not, also set its last answer."""
        self.up.set(well)
        self._metrics.sink_trouble.remove_by_labels({"sink": self._name})
        if not well:
            self._metrics.sink_trouble.labels(self._name, answer).set(1)


def open_label(known: ExecutionRecord) -> str:
    """Return the label under which an open execution is counted."""
    if known.lost is not None:
        return LOST
    if known.status is None:
        return "unseen"
    return known.status if known.status in OPEN_STATUSES else UNRECOGNIZED


def end_label(status: str | None) -> str:
    """Return the label under which an ended execution is counted."""
    return status if status in TERMINAL_STATUSES else UNRECOGNIZED
