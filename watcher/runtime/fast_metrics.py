"""Counters and histograms of plain numbers, made into metrics only when somebody reads them. Of one event loop.

The client library takes a lock for every number it changes: those of one poll took a twentieth of its time.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric


class CounterValue:
    """One count."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        """Start at 0."""
        self.count = 0

    def inc(self) -> None:
        """Count one more."""
        self.count += 1


class HistogramValue:
    """How many values fell into each bucket; one more bucket than bounds, for what is above the last."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Start empty; a bound belongs to its bucket."""
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Take in a value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


ChildT = TypeVar("ChildT")


class _Family(Generic[ChildT]):
    """The children of one metric by their labels' values, as the client library has them."""

    def __init__(self, name: str, documentation: str, label_names: Sequence[str], *, new: Callable[[], ChildT]) -> None:
        self.name = name
        self.documentation = documentation
        self.label_names = label_names
        self.children: dict[tuple[str, ...], ChildT] = {}
        self._new = new

    def labels(self, *values: str) -> ChildT:
        """Return the child with these labels, a new one if there is none."""
        if values not in self.children:
            self.children[values] = self._new()
        return self.children[values]

    def remove_by_labels(self, labels: Mapping[str, str]) -> None:
        """Show no child any more that has all these labels."""
        wanted = {(self.label_names.index(label), value) for label, value in labels.items()}
        self.children = {
            values: child for values, child in self.children.items() if not wanted <= set(enumerate(values))
        }


class FastCounter(_Family[CounterValue]):
    """A counter."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], *, registry: CollectorRegistry) -> None:
        """Add it to the registry."""
        super().__init__(name, documentation, labels, new=CounterValue)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Return what the registry shows."""
        family = CounterMetricFamily(self.name, self.documentation, labels=self.label_names)
        for values, value in self.children.items():
            family.add_metric(values, value.count)
        yield family


class FastHistogram(_Family[HistogramValue]):
    """A histogram; `buckets` are the upper bounds."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        """Add it to the registry."""
        super().__init__(name, documentation, labels, new=lambda: HistogramValue(buckets))
        self._bounds = [*map(str, map(float, buckets)), "+Inf"]
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Return what the registry shows."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.label_names)
        for values, each in self.children.items():
            family.add_metric(values, list(zip(self._bounds, accumulate(each.counts), strict=True)), each.total)
        yield family
