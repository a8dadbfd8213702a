"""What becomes of one delivery right before it is sent."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from watcher.domain.delivery import AttemptRecord, Delivery, DeliveryState, Part
from watcher.domain.judgement import AFTER, OVER, Receiver, judge_delivery
from watcher.domain.routing import Silence
from watcher.domain.timestamps import Micros, to_us

AT = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
NOW = to_us(AT)
MINUTE_US = 60_000_000
OPENING = Delivery(
    sink="ops",
    number=1,
    ordering_key=b"key",
    event_id=UUID(int=1),
    type="pipeline.failing",
    body=b"{}",
    recorded_at=Micros(NOW - 3 * MINUTE_US),
    due_at=NOW,
    problem=UUID(int=2),
)
CLOSING = replace(OPENING, number=2, type="pipeline.recovered", closes=True)
REMINDER = replace(OPENING, number=2, type="problem.reminder")
ACKNOWLEDGED = replace(OPENING, number=2, type="problem.acknowledged")
FAILED = replace(OPENING, type="execution.failed", problem=None)
ENDS_OVERDUE = replace(FAILED, problem=UUID(int=2), closes=True)
SILENCE = Silence(AT - timedelta(hours=1), AT + timedelta(hours=1))


def judged(
    delivery: Delivery, *silences: Silence, after_min: int = 0, keeps_state: bool = False, owned_min: int = 60
) -> Delivery | AttemptRecord:
    receiver = Receiver(keeps_state, after_min * MINUTE_US, Micros(NOW - owned_min * MINUTE_US))
    return judge_delivery(delivery, receiver, silences, at=AT, now=NOW)


@pytest.mark.parametrize(
    ("delivery", "silences", "keeps_state", "part"),
    [
        (FAILED, [], False, Part.WHOLE),
        (replace(FAILED, attempts=1), [SILENCE], False, Part.WHOLE),
        (ENDS_OVERDUE, [SILENCE], False, Part.CLOSING),
        (replace(ENDS_OVERDUE, only_closes=True), [], False, Part.WHOLE),
        (replace(ENDS_OVERDUE, only_closes=True), [], True, Part.CLOSING),
    ],
)
def test_one_goes_whole_or_in_part(delivery: Delivery, silences: list[Silence], part: Part, keeps_state: bool) -> None:
    assert judged(delivery, *silences, keeps_state=keeps_state) == replace(delivery, part=part)


@pytest.mark.parametrize(
    ("delivery", "silences", "after_min", "answer"),
    [
        (FAILED, [SILENCE], 0, "silence"),
        (REMINDER, [SILENCE], 0, "silence"),
        (replace(REMINDER, is_problem_open=False), [], 0, OVER),
        (replace(REMINDER, acked_until=AT + timedelta(hours=1)), [], 0, OVER),
        (ACKNOWLEDGED, [], 0, OVER),
        (replace(CLOSING, is_opening_sent=False), [], 0, "silence"),
        (replace(CLOSING, is_opening_sent=False, silenced_as=AFTER), [], 5, AFTER),
        (replace(OPENING, is_problem_open=False), [], 5, AFTER),
        (replace(OPENING, is_problem_open=False, replayed=True), [], 5, OVER),
    ],
)
def test_a_delivery_that_is_not_sent_is_silenced_with_the_reason(
    delivery: Delivery, silences: list[Silence], after_min: int, answer: str
) -> None:
    kept = judged(delivery, *silences, after_min=after_min, keeps_state=True)
    assert isinstance(kept, AttemptRecord)
    assert (kept.state, kept.answer) == (DeliveryState.SILENCED, answer)


@pytest.mark.parametrize(
    ("acked_s", "after_min", "waits_s"),
    [(None, 5, 120), (30, 2, 30), (3600, 2, 60), (None, 2, 0), (-1, 2, 0), (9, 0, 0)],
)
def test_an_opening_waits_for_after_and_while_acknowledged(acked_s: int | None, after_min: int, waits_s: int) -> None:
    opening = replace(OPENING, acked_until=None if acked_s is None else AT + timedelta(seconds=acked_s))
    due = judged(opening, after_min=after_min)
    if waits_s:
        assert isinstance(due, AttemptRecord)
        assert (due.state, due.delivery.due_at) == (DeliveryState.WAITING, NOW + waits_s * 1_000_000)
    else:
        assert due == opening


@pytest.mark.parametrize(
    ("delivery", "owned_min", "is_tried"),
    [
        (FAILED, 4, False),
        (FAILED, 2, True),
        (replace(FAILED, tried_at=NOW), 2, False),
        (replace(FAILED, attempts=1), 4, None),
    ],
)
def test_what_may_have_been_sent_counts_as_tried(delivery: Delivery, owned_min: int, *, is_tried: bool | None) -> None:
    kept = judged(delivery, SILENCE, owned_min=owned_min)
    assert (kept.tried if isinstance(kept, AttemptRecord) else None) is is_tried
