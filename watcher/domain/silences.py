"""Which deliveries are kept back for a time, without being lost, as docs/alerts.md says. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from watcher.domain.delivery import Delivery, Part
from watcher.domain.event import EventType
from watcher.domain.problems import CLOSINGS
from watcher.domain.timestamps import from_us


@dataclass(frozen=True, slots=True)
class Silence:
    """Keeps back, from `starts_at` until `ends_at` (wall clock), what matches all of what is given."""

    starts_at: datetime
    ends_at: datetime
    types: Collection[EventType] | None = None
    accounts: Collection[str] = ()
    pipelines: Collection[str] = ()
    sinks: Collection[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def is_on(self, sink: str, *, at: datetime) -> bool:
        """Return whether it may keep back deliveries of that sink at that time."""
        return self.starts_at <= at < self.ends_at and (not self.sinks or sink in self.sinks)

    def matches(self, delivery: Delivery) -> bool:
        """Return whether it keeps this delivery back while it is on. What only says that a problem is over passes."""
        return (
            delivery.type not in CLOSINGS
            and (self.types is None or delivery.type in self.types)
            and (not self.accounts or delivery.account in self.accounts)
            and (not self.pipelines or delivery.pipeline in self.pipelines)
            and all(delivery.labels.get(key) == value for key, value in self.labels.items())
        )


class Silences:
    """All silences there are. Times are the wall clock's."""

    def __init__(self, silences: Collection[Silence] = ()) -> None:
        self.all = tuple(silences)

    def replace(self, silences: Collection[Silence]) -> None:
        """Take these from now on, and no others."""
        self.all = tuple(silences)

    def on(self, sink: str, *, at: datetime) -> tuple[Silence, ...]:
        """Return those that may keep back deliveries of that sink at that time."""
        return tuple(each for each in self.all if each.is_on(sink, at=at))


def part_to_send(delivery: Delivery, silences: Sequence[Silence]) -> Part | None:
    """Return what of a delivery is to be sent while these silences are on; `None` if nothing is.

    The end of a problem goes where its opening went, silenced or not. A reminder of what is over says nothing any more.
    A silence keeps back what was never tried; what is replayed somebody asked for.
    """
    if delivery.type == EventType.PROBLEM_REMINDER and not delivery.is_problem_open:
        return None
    part = Part.WHOLE
    if delivery.closes and not delivery.is_opening_sent:
        if delivery.type in CLOSINGS or delivery.only_closes:
            return None
        part = Part.NEWS
    if delivery.replayed or not silences:
        return part
    # What was tried before a silence began was not kept back by it, and goes on as it is.
    begun_by = from_us(delivery.recorded_at) if delivery.attempts else None
    is_silenced = any(each.matches(delivery) for each in silences if begun_by is None or each.starts_at <= begun_by)
    if not is_silenced:
        return part
    if delivery.closes and delivery.is_opening_sent:
        return Part.CLOSING
    return part if delivery.attempts else None
