"""Which deliveries are kept back for a time, without being lost, as docs/alerts.md says. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from watcher.domain.event import EventType
from watcher.domain.problems import CLOSINGS


@dataclass(frozen=True, slots=True)
class DeliveryFields:
    """What of a delivery silences and groups go by. What its event does not have is absent, and matches nothing.

    `closes` is the problem that it closes.
    """

    sink: str
    type: str
    account: str | None = None
    pipeline: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    closes: UUID | None = None


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

    def concerns(self, sink: str) -> bool:
        """Return whether it may keep back deliveries of that sink."""
        return not self.sinks or sink in self.sinks

    def holds(self, delivery: DeliveryFields, *, at: datetime) -> bool:
        """Return whether it keeps this delivery back at that time."""
        return (
            self.starts_at <= at < self.ends_at
            and delivery.type not in CLOSINGS
            and (self.types is None or delivery.type in self.types)
            and (not self.accounts or delivery.account in self.accounts)
            and (not self.pipelines or delivery.pipeline in self.pipelines)
            and self.concerns(delivery.sink)
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
        return tuple(each for each in self.all if each.starts_at <= at < each.ends_at and each.concerns(sink))
