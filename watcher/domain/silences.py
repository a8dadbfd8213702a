"""Which deliveries are kept back for a time, without being lost (SPEC 3, "Silences"). Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from watcher.domain.models import EventType


@dataclass(frozen=True, slots=True)
class Silenceable:
    """What of a delivery a silence may ask for: of what is absent nothing matches."""

    sink: str
    type: EventType
    account: str | None = None
    pipeline: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


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

    def holds(self, delivery: Silenceable, *, at: datetime) -> bool:
        """Tell whether it keeps this delivery back at that time."""
        return (
            self.starts_at <= at < self.ends_at
            and (self.types is None or delivery.type in self.types)
            and (not self.accounts or delivery.account in self.accounts)
            and (not self.pipelines or delivery.pipeline in self.pipelines)
            and (not self.sinks or delivery.sink in self.sinks)
            and all(delivery.labels.get(key) == value for key, value in self.labels.items())
        )
