"""Which deliveries of one sink are kept back now, as the silences say (SPEC 3)."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from watcher.delivery.delivery_fields import fields_of
from watcher.domain.delivery import Delivery
from watcher.domain.event import EventKey
from watcher.domain.silences import DeliveryFields, Silence, Silences
from watcher.runtime.clock import Clock


class Silencer:
    """Judges what would be sent for the first time. What is replayed somebody asked for."""

    def __init__(self, silences: Silences, *, sink: str, clock: Clock) -> None:
        """Go by these silences, which may become others."""
        self._silences = silences
        self._sink = sink
        self._clock = clock

    def now(self) -> tuple[Silence, ...]:
        """Return the silences that keep back anything of this sink now."""
        return self._silences.on(self._sink, at=self._clock.now())

    def keeps_back(self, fields: DeliveryFields) -> bool:
        """Return whether a silence keeps such a delivery back now."""
        at = self._clock.now()
        return any(silence.holds(fields, at=at) for silence in self._silences.on(self._sink, at=at))

    def kept_back(self, deliveries: Iterable[Delivery]) -> dict[EventKey, DeliveryFields]:
        """Return those of these deliveries that a silence keeps back now."""
        if not self.now():
            return {}
        new = ((each.event, fields_of(each)) for each in deliveries if not (each.attempts or each.replayed))
        return {event: fields for event, fields in new if self.keeps_back(fields)}

    def reduced(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Return these deliveries, marking those that go in spite of a silence, for the problem they close."""
        if not self.now():
            return deliveries
        return [
            each if each.replayed or not self.keeps_back(fields_of(each)) else replace(each, closes_only=True)
            for each in deliveries
        ]
