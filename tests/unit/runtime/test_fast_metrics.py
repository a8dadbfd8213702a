"""Counts without a lock show exactly what the client library's own would."""

from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from watcher.runtime.metrics import FastCounter, FastHistogram

LABELS = ("account", "outcome")
BUCKETS = (0.005, 0.5, 1, 60, 3600)


def counters(kind: type[Counter] | type[FastCounter]) -> str:
    registry = CollectorRegistry()
    counter = kind("polls_total", "Polls.", LABELS, registry=registry)
    for account, outcome in (("a", "ok"), ("a", "timeout"), ('b"\\\n', "ok")):
        counter.labels(account, outcome)
    counter.labels("a", "ok").inc()
    counter.labels("a", "ok").inc()
    return shown(registry)


def histograms(kind: type[Histogram] | type[FastHistogram], values: Iterable[float]) -> str:
    registry = CollectorRegistry()
    histogram = kind("lateness_seconds", "Due to sent.", LABELS, buckets=BUCKETS, registry=registry)
    histogram.labels("b", "ok")
    for value in values:
        histogram.labels("a", "ok").observe(value)
    return shown(registry)


def shown(registry: CollectorRegistry) -> str:
    lines = generate_latest(registry).decode().splitlines()
    return "\n".join(line for line in lines if "_created" not in line)


def test_a_counter_shows_the_same() -> None:
    assert counters(FastCounter) == counters(Counter)


@pytest.mark.parametrize("values", [(), (0.0, 0.005, 0.006), (0.5, 0.1, 3600, 3600.5, 1e9), BUCKETS])
def test_a_histogram_shows_the_same(values: tuple[float, ...]) -> None:
    assert histograms(FastHistogram, values) == histograms(Histogram, values)
