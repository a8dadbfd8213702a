"""What a Slack app does with a delivery or a group: one message for each problem, and what happens in its thread.

Pure: where the messages are, and what Slack answers, is the sink's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from uuid import UUID

from watcher.delivery.sinks.alert import Alert
from watcher.delivery.sinks.chat import ChatMessage
from watcher.delivery.sinks.digest import Digest
from watcher.delivery.sinks.slack import SLACK, message_of_end, message_of_note, message_of_problem
from watcher.domain.delivery import Delivery


class Step(Enum):
    """What a message is to its problem."""

    OPENING = auto()
    """The problem's message itself. If there is one, this was sent before, and it is written again."""
    NEWS = auto()
    """Goes into its thread; without one it becomes the problem's message."""
    END = auto()
    """What the problem's message becomes; without one a message of its own."""
    NOTE = auto()
    """Says in its thread that it is over; without one there is nothing left to say."""
    OTHER = auto()
    """No problem's: in the thread of the problem that its pipeline keeps failing, else a message of its own."""


@dataclass(frozen=True, slots=True)
class Part:
    """One message. `problem` is the one whose message it is, changes or answers; `delivery` that of its first event."""

    step: Step
    message: ChatMessage
    delivery: Delivery
    problem: UUID | None


class _Others:
    """What is no problem's, of good news or of bad: one message of all."""

    def __init__(self) -> None:
        self._digest = Digest()
        self._deliveries: list[Delivery] = []

    def add(self, alert: Alert, delivery: Delivery) -> None:
        self._digest.add(alert, event_id=delivery.event_id)
        self._deliveries.append(delivery)

    def parts(self) -> list[Part]:
        """Return the part there is, if any: in a thread if all belong in that one."""
        if not self._deliveries:
            return []
        threads = {each.thread.problem if each.thread else None for each in self._deliveries}
        problem = threads.pop() if len(threads) == 1 else None
        return [Part(Step.OTHER, SLACK.message_of(self._digest.news), self._deliveries[0], problem)]


def parts_of(batch: Sequence[Delivery]) -> list[Part]:
    """Return the messages in their order: what is of problems, then the rest. Their number depends on the events alone.

    What ends a problem and is trouble itself is both, the end first.
    """
    parts: list[Part] = []
    others = {True: _Others(), False: _Others()}
    openings = {each.message.problem: each.message.opening for each in batch if each.message is not None}
    for delivery in batch:
        alert = Alert.read(delivery.body)
        if alert.problem is not None:
            problem = UUID(alert.problem["id"])
            if alert.type == alert.problem["kind"]:
                openings[problem] = delivery.body
            parts += _of_problem(alert, delivery, problem, openings.get(problem))
        if alert.problem is None or (alert.closes and alert.is_trouble and not delivery.closes_only):
            others[alert.is_trouble].add(alert, delivery)
    return [*parts, *others[True].parts(), *others[False].parts()]


def _of_problem(alert: Alert, delivery: Delivery, problem: UUID, opening: bytes | None) -> list[Part]:
    if alert.closes:
        end = message_of_end(alert, None if opening is None else Alert.read(opening))
        return [
            Part(Step.END, end, delivery, problem),
            Part(Step.NOTE, message_of_note(alert), delivery, problem),
        ]
    is_opening = alert.problem is not None and alert.type == alert.problem["kind"]
    return [Part(Step.OPENING if is_opening else Step.NEWS, message_of_problem(alert), delivery, problem)]
