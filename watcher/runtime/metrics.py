"""Every metric, declared once. Label sets that are known start at 0; children are kept, for they are hot.

Those that change with every poll are changed by the event loop alone, and without the lock that the client library
takes for every number: it would add two to five microseconds to a poll.
"""

from bisect import bisect_left
from collections import Counter as Counts
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import EventType
from watcher.domain.execution import (
    OPEN_STATUSES,
    TERMINAL_STATUSES,
    ExecutionRecord,
    ExecutionSnapshot,
    Outcome,
    Status,
)
from watcher.domain.problems import PROBLEM_KINDS
from watcher.domain.snapshots import ENDS_COUNT, PipelineSnapshot
from watcher.domain.timestamps import Micros, to_us
from watcher.runtime.version import VERSION

OPEN_LABELS = (Status.NEW, Status.RUNNING, Status.PAUSED, "unrecognized", "lost", "unseen")
END_LABELS = (Status.SUCCESS, Status.FAILED, "unrecognized")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_BATCH_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_LONG_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_RUN_SECONDS = (1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10_800, 28_800, 86_400)

GOALS_COUNT = 50
"""So many goals of a pipeline have a label of their own, the rest are `other`: each is a series for ever."""

GOALS_OF_ONE = 20
"""So many goals of one execution count, as many as its event has."""

LABEL_LENGTH = 100


class FastCounter(Counter):
    """A counter."""

    def inc(self, amount: float = 1, _exemplar: object = None) -> None:
        """Count so many more."""
        self._value._value += amount  # noqa: SLF001 (the number behind the lock)


class FastHistogram(Histogram):
    """A histogram."""

    def observe(self, amount: float, _exemplar: object = None) -> None:
        """Take in a value; a bound belongs to its bucket."""
        self._sum._value += amount  # noqa: SLF001 (as above)
        self._buckets[bisect_left(self._upper_bounds, amount)]._value += 1  # noqa: SLF001


class Metrics:
    """The registry of one daemon and the metrics that belong to no account or sink."""

    def __init__(self) -> None:
        """Declare all metrics in a registry of their own."""
        # Or every counter would show a second time, as a gauge named `_created`.
        disable_created_metrics()  # type: ignore[no-untyped-call] # prometheus_client types most, not this
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._declare()
        self.pipelines: dict[str, dict[str, PipelineMetrics]] = {}
        """Of the accounts that this process owns, by their names, each watched pipeline by its id."""
        self.registry.register(PipelineCollector(self.pipelines))

    def reloaded(self, *, well: bool, at: datetime) -> None:
        """Say whether the configuration as it was read at that time is in use."""
        self.reload_successful.set(well)
        if well:
            self.reload_success_at.set(at.timestamp())

    def total(self, name: str, **labels: str) -> int:
        """Return the sum of the samples of that name that have these labels. It reads all metrics: seldom, then."""
        samples = (sample for family in self.registry.collect() for sample in family.samples)
        return round(sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items()))

    def forget_account(self, name: str) -> None:
        """Show nothing more of that account."""
        self.pipelines.pop(name, None)
        for metric in self._of_accounts:
            metric.remove_by_labels({"account": name})

    def forget_sink(self, name: str) -> None:
        """Show nothing more of that sink."""
        for metric in self._of_sinks:
            metric.remove_by_labels({"sink": name})

    def _declare(self) -> None:
        registry = self.registry
        counter, fast_counter = partial(Counter, registry=registry), partial(FastCounter, registry=registry)
        histogram, fast_histogram = partial(Histogram, registry=registry), partial(FastHistogram, registry=registry)
        gauge = partial(Gauge, registry=registry)
        labels = ["account", "endpoint"]
        self.api_requests = fast_counter(
            "watcher_api_requests_total", "Requests to the API, by their outcome.", [*labels, "outcome"]
        )
        self.api_request_duration = fast_histogram(
            "watcher_api_request_duration_seconds",
            "Seconds from a request to the API until its answer.",
            labels,
            buckets=_SECONDS,
        )
        self.polls = fast_counter(
            "watcher_polls_total",
            "Polls of executions by their outcome; `contradicted` counts some of `ok` again.",
            ["account", "outcome"],
        )
        self.open_executions = gauge(
            "watcher_open_executions",
            "Executions that are watched and have not ended, by their status.",
            ["account", "status"],
        )
        self.poll_lateness = fast_histogram(
            "watcher_poll_lateness_seconds",
            "Seconds from when a poll was due until its request was sent.",
            ["account"],
            buckets=_LONG_SECONDS,
        )
        self.account_up = gauge(
            "watcher_account_up",
            "1 while the API can be used with this account's key, 0 while the account is degraded.",
            ["account"],
        )
        self.last_successful_poll = gauge(
            "watcher_last_successful_poll_timestamp_seconds",
            "Time of the last successful poll, in seconds since 1970.",
            ["account"],
        )
        self._of_accounts = (
            self.api_requests,
            self.api_request_duration,
            self.polls,
            self.open_executions,
            self.poll_lateness,
            self.account_up,
            self.last_successful_poll,
        )

        self.deliveries = counter(
            "watcher_deliveries_total",
            "Deliveries to the sink by their outcome: settled, or tried and to be retried.",
            ["sink", "outcome"],
        )
        self.delivery_delay = histogram(
            "watcher_delivery_delay_seconds",
            "Seconds from when an event was recorded until the sink took it.",
            ["sink"],
            buckets=_LONG_SECONDS,
        )
        self.batched = FastHistogram(
            "watcher_deliveries_batched",
            "Events in one request that the sink took.",
            ["sink"],
            buckets=_BATCH_SIZES,
            registry=registry,
        )
        self.outbox_pending = gauge("watcher_outbox_pending", "Deliveries that wait to be sent to the sink.", ["sink"])
        self.outbox_oldest = gauge(
            "watcher_outbox_oldest_timestamp_seconds",
            "Time when the oldest waiting delivery was recorded, in seconds since 1970.",
            ["sink"],
        )
        self.sink_up = gauge("watcher_sink_up", "1 while the sink works, 0 while it is failing or disabled.", ["sink"])
        self.sink_trouble = gauge(
            "watcher_sink_trouble_info",
            "1 for a sink that is failing or disabled, by its last answer.",
            ["sink", "answer"],
        )
        self.refreshes = counter(
            "watcher_alertmanager_refreshes_total",
            "Times that all open problems were posted to Alertmanager again, by the outcome.",
            ["sink", "outcome"],
        )
        self._of_sinks = (
            self.deliveries,
            self.refreshes,
            self.delivery_delay,
            self.batched,
            self.outbox_pending,
            self.outbox_oldest,
            self.sink_up,
            self.sink_trouble,
        )

        self.events = counter("watcher_events_total", "Events that were recorded, by their type.", ["type"])
        for type_ in EventType:
            self.events.labels(type_)
        self.problems_open = gauge("watcher_problems_open", "Problems that are open, by their kind.", ["kind"])
        for kind in PROBLEM_KINDS:
            self.problems_open.labels(kind)
        self.detection_delay = histogram(
            "watcher_detection_delay_seconds",
            "Seconds from the end of an execution until the watcher saw it.",
            buckets=_LONG_SECONDS,
        )
        self.leases_held = gauge(
            "watcher_leases_held", "Leases that this process holds, by what they are for.", ["kind"]
        )
        self.lease_takeovers = counter(
            "watcher_lease_takeovers_total", "Leases taken from replicas that let them run out.", ["kind"]
        )
        self.store_up = gauge("watcher_store_up", "1 while the last write to the store went through.")
        self.store_failures = counter("watcher_store_failures_total", "Reads and writes of the store that failed.")
        self.loop_lag = gauge("watcher_loop_lag_seconds", "Seconds by which the event loop last woke too late.")
        self.reload_successful = gauge(
            "watcher_config_last_reload_successful",
            "1 if the configuration as it is on disk is in use, 0 if it was refused.",
        )
        self.restart_pending = gauge(
            "watcher_config_restart_pending", "1 while the configuration on disk has a change that needs a restart."
        )
        self.reload_success_at = gauge(
            "watcher_config_last_reload_success_timestamp_seconds",
            "Time when the configuration was last applied, in seconds since 1970.",
        )
        build = gauge("watcher_build_info", "Always 1; the label says which version runs.", ["version"])
        build.labels(VERSION).set(1)


class AccountMetrics:
    """The children of one account. The attributes are hot and used directly."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        """Create every known label set."""
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

    def asked(self, outcome: Outcome, duration_s: float) -> None:
        """Count one poll and how long its answer took."""
        self.requests[outcome].inc()
        self.polls[outcome].inc()
        self.request_duration.observe(duration_s)

    def listed(self, outcome: Outcome, duration_s: float) -> None:
        """Count one page and how long its answer took."""
        self.lists[outcome].inc()
        self.list_duration.observe(duration_s)


@dataclass(slots=True, eq=False)
class PipelineMetrics:
    """What is counted of one pipeline since its account was taken, in plain numbers: families are made when asked for.

    `open` and `oldest` are as the account last looked through its executions, by their label; moments are microseconds
    UTC, steady. The last ends, and when anything last started or ended, go on from what an earlier owner wrote down.
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
    oldest: Mapping[str, Micros] = field(default_factory=dict)
    last_started_at: Micros | None = None
    last_ended_at: dict[str, Micros] = field(default_factory=dict)
    ends: deque[tuple[Micros, str]] = field(default_factory=lambda: deque(maxlen=ENDS_COUNT))

    def restore(self, stood: PipelineSnapshot) -> None:
        """Go on from what is written down. It has the first and the last time of the ends; the others lie evenly."""
        self.last_started_at, last_at = stood.last_started_at, stood.last_ended_at
        if stood.ends and last_at is not None:
            first_at = last_at if stood.ends_from is None else stood.ends_from
            step_us = (last_at - first_at) / max(1, len(stood.ends) - 1)
            self.ends.extend((Micros(round(first_at + step_us * at)), end) for at, end in enumerate(stood.ends))
            self.last_ended_at |= {label: last_at for label in END_LABELS if label[0] == stood.ends[-1]}
        if stood.last_failed_at is not None:
            self.last_ended_at[Status.FAILED] = stood.last_failed_at

    def count(self, known: ExecutionRecord, facts: ExecutionSnapshot | None, *, starts: bool, now: Micros) -> None:
        """Take in that an execution starts, or ends, or both, as it is known now. What lies ahead counts as now."""
        started = facts.started_at if facts is not None else None
        if starts:
            at = now if started is None else min(now, to_us(started))
            self.started_count += 1
            self.last_started_at = max(self.last_started_at or at, at)
        if known.ended_at is None:
            return
        label = known.status if known.status in TERMINAL_STATUSES else "unrecognized"
        finished = facts.finished_at if facts is not None else None
        at = now if finished is None else min(now, to_us(finished))
        self.ended[label] += 1
        self.last_ended_at[label] = max(self.last_ended_at.get(label, at), at)
        self.ends.append((at, label[0]))
        if facts is None:
            return
        if started is not None and finished is not None and finished >= started:
            ran_s = (finished - started).total_seconds()
            self.durations[label][bisect_left(_RUN_SECONDS, ran_s)] += 1
            self.durations_s[label] += ran_s  # type: ignore[assignment]
        self.tokens_count += max(0, facts.ai_tokens_used or 0)
        for goal in {label_of(each) for each in facts.goals[:GOALS_OF_ONE]}:
            self.goals[goal if goal in self.goals or len(self.goals) < GOALS_COUNT else "other"] += 1

    def snapshot(self) -> PipelineSnapshot:
        """Return how the pipeline stands, to be written down."""
        return PipelineSnapshot(
            open=self.open,
            oldest=self.oldest,
            ends="".join(end for _, end in self.ends),
            ends_from=self.ends[0][0] if self.ends else None,
            last_ended_at=max(self.last_ended_at.values(), default=None),
            last_failed_at=self.last_ended_at.get(Status.FAILED),
            last_started_at=self.last_started_at,
        )


class PipelineCollector(Collector):
    """Shows the numbers of pipelines to whoever asks for the metrics."""

    def __init__(self, accounts: Mapping[str, Mapping[str, PipelineMetrics]]) -> None:
        """Show what is in there when somebody asks."""
        self._accounts = accounts

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        of_pipeline, of_status = ("account", "pipeline"), ("account", "pipeline", "status")
        counter, gauge = partial(CounterMetricFamily, labels=of_pipeline), partial(GaugeMetricFamily, labels=of_status)
        info = GaugeMetricFamily(
            "watcher_pipeline_info",
            "Always 1; the label says what a pipeline is called.",
            labels=(*of_pipeline, "name"),
        )
        started = counter("watcher_executions_started", "Executions that were seen for the first time.")
        ended = CounterMetricFamily("watcher_executions_ended", "Ends that were seen, by status.", labels=of_status)
        durations = HistogramMetricFamily(
            "watcher_execution_duration_seconds", "Seconds from the start of executions to their end.", labels=of_status
        )
        tokens = counter("watcher_execution_ai_tokens", "Tokens of models that executions used by their end.")
        goals = CounterMetricFamily(
            "watcher_execution_goals",
            f"Executions that reached a goal; after {GOALS_COUNT} goals the others are `other`.",
            labels=(*of_pipeline, "goal"),
        )
        open_ = gauge("watcher_pipeline_open_executions", "Executions that have not ended, by their status.")
        oldest = gauge(
            "watcher_pipeline_oldest_open_timestamp_seconds",
            "Since when the oldest open execution is in its status, in seconds since 1970.",
        )
        last_started = GaugeMetricFamily(
            "watcher_pipeline_last_started_timestamp_seconds",
            "When an execution last started, in seconds since 1970.",
            labels=of_pipeline,
        )
        last_ended = gauge(
            "watcher_pipeline_last_ended_timestamp_seconds",
            "When an execution last ended, by status, in seconds since 1970.",
        )
        for account, pipelines in self._accounts.items():
            for pipeline, each in pipelines.items():
                key = (account, pipeline)
                info.add_metric((*key, label_of(each.name)), 1)
                started.add_metric(key, each.started_count)
                tokens.add_metric(key, each.tokens_count)
                for status in END_LABELS:
                    ended.add_metric((*key, status), each.ended[status])
                    counts = accumulate(each.durations[status])
                    buckets = list(zip([*map(str, map(float, _RUN_SECONDS)), "+Inf"], counts, strict=True))
                    durations.add_metric((*key, status), buckets, each.durations_s[status])
                for status in OPEN_LABELS:
                    open_.add_metric((*key, status), each.open.get(status, 0))
                for goal, count in each.goals.items():
                    goals.add_metric((*key, goal), count)
                for status, at in each.oldest.items():
                    oldest.add_metric((*key, status), at / 1e6)
                if each.last_started_at is not None:
                    last_started.add_metric(key, each.last_started_at / 1e6)
                for status, at in each.last_ended_at.items():
                    last_ended.add_metric((*key, status), at / 1e6)
        yield from (info, started, ended, durations, tokens, goals, open_, oldest, last_started, last_ended)


def label_of(text: str) -> str:
    """Return a text of the API or the file as a label: without what a terminal would obey, and cut."""
    return "".join(filter(str.isprintable, text[: 2 * LABEL_LENGTH]))[:LABEL_LENGTH]


class SinkMetrics:
    """The children of one sink."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        """Create every known label set."""
        settled = (DeliveryState.DELIVERED, DeliveryState.ACCEPTED, DeliveryState.DEAD, DeliveryState.SILENCED)
        self._outcomes = {outcome: metrics.deliveries.labels(name, outcome) for outcome in ("retried", *settled)}
        self._delay = metrics.delivery_delay.labels(name)
        self.batched = metrics.batched.labels(name)
        self._up = metrics.sink_up.labels(name)
        self._trouble = metrics.sink_trouble
        self._refreshes = metrics.refreshes
        self._name = name
        self._events = metrics.events
        metrics.outbox_pending.labels(name)
        metrics.outbox_oldest.labels(name)

    def delivered(self, delay_s: float, *, state: DeliveryState = DeliveryState.DELIVERED) -> None:
        """Count a delivery that is delivered, or accepted, so many seconds after its event was recorded.

        Below 0 where an earlier life, whose clock was ahead, recorded it.
        """
        self._outcomes[state].inc()
        self._delay.observe(max(0.0, delay_s))

    def count(self, outcome: str, count: int = 1) -> None:
        """Count deliveries that were `retried`, are `dead` letters, or `silenced`: nothing was attempted then."""
        self._outcomes[outcome].inc(count)

    def reminded(self) -> None:
        """Count an event that reminds the sink of a problem."""
        self._events.labels(EventType.PROBLEM_REMINDER).inc()

    def refreshed(self, *, well: bool) -> None:
        """Count a refresh of the open problems at the sink."""
        self._refreshes.labels(self._name, "ok" if well else "failed").inc()

    def up(self, well: bool) -> None:
        """Say whether the sink is neither failing nor disabled."""
        self._up.set(well)

    def reported(self, type_: EventType, *, well: bool, answer: str) -> None:
        """Count the sink's own event, and how it stands since, by its last answer."""
        self._events.labels(type_).inc()
        self.up(well)
        self._trouble.remove_by_labels({"sink": self._name})
        if not well:
            self._trouble.labels(self._name, answer).set(1)


def open_label(known: ExecutionRecord) -> str:
    """Return the label under which an open execution is counted."""
    if known.lost is not None:
        return "lost"
    if known.status is None:
        return "unseen"
    return known.status if known.status in OPEN_STATUSES else "unrecognized"
