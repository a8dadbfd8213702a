"""What a sink says of its messages in the log: what is cut, refused, or could not be made. Once an hour each."""

import structlog

from watcher.delivery.sinks.template import TemplateFailure
from watcher.domain.delivery import Delivery
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.clock import Clock

LOGGED_EVERY_S = 3600.0
"""A sink whose messages are cut, refused in full form or cannot be made says so once in that time, of each."""

log = structlog.get_logger()


class _Hourly:
    """Counts what is logged once an hour only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._count = 0
        self._quiet_until = EARLIEST

    def note(self) -> int:
        """Count one more; return how many there were since this was last said if it is to be said now, else 0."""
        self._count += 1
        now = self._clock.monotonic()
        if now < self._quiet_until:
            return 0
        self._quiet_until = Monotonic(now + LOGGED_EVERY_S)
        count, self._count = self._count, 0
        return count


class MessageLog:
    """The log of one sink's messages."""

    def __init__(self, clock: Clock) -> None:
        """Have said nothing yet."""
        self._cut, self._rejected, self._failed = (_Hourly(clock) for _ in range(3))

    def cut(self, delivery: Delivery) -> None:
        """Note that the receiver's limits left something out of a message; it is told so again with each attempt."""
        if not delivery.attempts and (count := self._cut.note()):
            log.warning("message.cut", sink=delivery.sink, event_id=str(delivery.event_id), count=count)

    def failed(self, delivery: Delivery, failure: TemplateFailure) -> None:
        """Say loudly that a template of one's own could not make a message, and which line is to blame."""
        if count := self._failed.note():
            log.error(
                "template.failed",
                sink=delivery.sink,
                event_id=str(delivery.event_id),
                type=delivery.type,
                line=failure.line or None,
                reason=failure.reason,
                count=count,
                remedy=f"the plain event was sent instead; {failure.remedy}",
            )

    def rejected(self, delivery: Delivery, *, answer: str) -> None:
        """Say loudly that the receiver does not take the message as it is."""
        if count := self._rejected.note():
            log.error(
                "template.rejected",
                sink=delivery.sink,
                event_id=str(delivery.event_id),
                type=delivery.type,
                answer=answer,
                count=count,
                remedy="a minimal message is tried next; check that url is this receiver's, else report a bug",
            )
