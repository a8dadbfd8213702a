"""Which deliveries of one sink are kept back now, as the silences of docs/alerts.md say."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from watcher.domain.delivery import Delivery, Part
from watcher.domain.event import EventKey
from watcher.domain.silences import DeliveryFields, Silence, Silences
from watcher.domain.timestamps import from_us
from watcher.runtime.clock import Clock


def fields_of(delivery: Delivery) -> DeliveryFields:
    """Return what the event of a delivery says of what silences and groups go by."""
    data = delivery.data
    problem = data.get("problem", {})
    return DeliveryFields(
        delivery.sink,
        delivery.type,
        data.get("account"),
        data.get("pipeline", {}).get("id"),
        data.get("labels", {}),
        UUID(problem["id"]) if "closedAt" in problem else None,
    )


class Silencer:
    """Judges what would be sent for the first time. What is replayed somebody asked for."""

    def __init__(self, silences: Silences, *, sink: str, clock: Clock) -> None:
        """Go by these silences, which may become others."""
        self._silences = silences
        self._sink = sink
        self._clock = clock

    def now(self) -> tuple[Silence, ...]:
        """Return the silences that keep back anything of this sink now."""
        return self._silences.on(self._sink, at=self._clock.now()) if self._silences.all else ()

    def keeps_back(self, fields: DeliveryFields, *, begun_by: datetime | None = None) -> bool:
        """Return whether a silence, if given one that had begun by then, keeps such a delivery back now."""
        at = self._clock.now()
        silences = self._silences.on(self._sink, at=at)
        return any(
            silence.holds(fields, at=at) for silence in silences if begun_by is None or silence.starts_at <= begun_by
        )

    def kept_back(self, deliveries: Iterable[Delivery]) -> dict[EventKey, DeliveryFields]:
        """Return those of these deliveries that a silence keeps back now."""
        if not self.now():
            return {}
        new = ((each.event, fields_of(each)) for each in deliveries if not (each.attempts or each.replayed))
        return {event: fields for event, fields in new if self.keeps_back(fields)}

    def mark_closings(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Return these deliveries, marking those that go in spite of a silence, for the problem they close.

        What may have been tried before the silence began was not kept back by it, and goes on as it is.
        """
        if not self.now():
            return deliveries
        return [each.but(part=Part.CLOSING) if self._closes_only(each) else each for each in deliveries]

    def _closes_only(self, delivery: Delivery) -> bool:
        begun_by = from_us(delivery.recorded_at) if delivery.attempts else None
        return not delivery.replayed and self.keeps_back(fields_of(delivery), begun_by=begun_by)
