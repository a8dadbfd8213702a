"""What a sink says of its messages in the log: what is cut, refused, or could not be made. Once an hour each."""

from collections import Counter
from typing import Any

import structlog

from watcher.delivery.sinks.template import TemplateFailure
from watcher.domain.delivery import Delivery
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.clock import Clock

LOGGED_EVERY_S = 3600.0

log = structlog.get_logger()


class MessageLog:
    """The log of one sink's messages. Each line says how many there were since the last such line."""

    def __init__(self, clock: Clock) -> None:
        """Have said nothing yet."""
        self._clock = clock
        self._counts = Counter[str]()
        self._quiet_until: dict[str, Monotonic] = {}

    def cut(self, delivery: Delivery) -> None:
        """Note that the receiver's limits left something out of a message; it is told so again with each attempt."""
        if not delivery.attempts and (known := self._due("cut", delivery)):
            log.warning("message.cut", **known)

    def failed(self, delivery: Delivery, failure: TemplateFailure) -> None:
        """Say loudly that a template of one's own could not make a message, and which line is to blame."""
        remedy = f"the plain event was sent instead; {failure.remedy}"
        if known := self._due("failed", delivery, type=delivery.type, reason=failure.reason, remedy=remedy):
            log.error("template.failed", line=failure.line or None, **known)

    def rejected(self, delivery: Delivery, *, answer: str) -> None:
        """Say loudly that the receiver does not take the message as it is."""
        remedy = "a minimal message is tried next; check that url is this receiver's, else report a bug"
        if known := self._due("rejected", delivery, type=delivery.type, answer=answer, remedy=remedy):
            log.error("template.rejected", **known)

    def _due(self, kind: str, delivery: Delivery, **known: str) -> dict[str, Any]:
        """Count one more; return what is to be said if it is time to say it."""
        self._counts[kind] += 1
        now = self._clock.monotonic()
        if now < self._quiet_until.get(kind, EARLIEST):
            return {}
        self._quiet_until[kind] = Monotonic(now + LOGGED_EVERY_S)
        return {"sink": delivery.sink, "event_id": str(delivery.event_id), "count": self._counts.pop(kind), **known}
