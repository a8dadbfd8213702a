"""The judgement of one delivery right before it is sent: send it whole or in part, postpone it, or silence it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from watcher.domain.delivery import AttemptRecord, Delivery, DeliveryState, Part
from watcher.domain.event import EventType
from watcher.domain.routing import Silence, is_over, part_to_send
from watcher.domain.timestamps import Micros

ACKNOWLEDGEMENT_CHECK_S = 60.0
"""Interval of the check whether a problem is still acknowledged. An opening with `after` waits while it is."""

AFTER = "after"
"""The recorded answer of an opening whose problem closed before `after` had passed, and of the closing."""

OVER = "over"
"""The recorded answer of what is not sent because it no longer holds: a replayed dead letter whose problem has closed,
a reminder of a problem that is closed or acknowledged, an acknowledgement that was withdrawn."""

SILENCE = "silence"
"""The recorded answer of what a silence covers, and of what follows an opening that a silence covers."""

COVERED = "covered"
"""The recorded answer of a single failure that is not sent, because the sink knows that its pipeline keeps failing."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """The properties of a sink on which judgements depend."""

    keeps_state: bool
    """Whether the receiver shows a problem until its closing arrives, as a pager does."""
    after_us: int
    """The microseconds from the recording of an opening until it is due."""
    owned_from: Micros
    """The time at which this process became the sink's owner (microseconds UTC, steady)."""


def judge_batch(
    batch: Sequence[Delivery], receiver: Receiver, silences: Sequence[Silence], *, at: datetime, now: Micros
) -> tuple[Sequence[Delivery], Sequence[AttemptRecord], bool]:
    """Return the deliveries to send, the records that postpone or silence the others, and whether to take all again.

    They are taken again if they were read as an incident with openings that are not sent: then nothing is sent. `at`
    and `now` are as in `judge_delivery`.
    """
    to_send: list[Delivery] = []
    kept: list[AttemptRecord] = []
    unsent: dict[UUID | None, str] = {}  # the answers of openings that are not sent, by problem
    for each in batch:
        if each.problem in unsent:
            each = replace(each, is_opening_sent=False, silenced_as=unsent[each.problem])  # noqa: PLW2901
        judged = judge_delivery(each, receiver, silences, at=at, now=now)
        if isinstance(judged, Delivery):
            to_send.append(judged)
            continue
        kept.append(judged)
        if each.problem is not None and each.opens and not judged.tried:
            unsent[each.problem] = judged.answer or AFTER
    is_stale = bool(unsent) and batch[0].incident is not None
    return [] if is_stale else to_send, kept, is_stale


def judge_delivery(
    delivery: Delivery, receiver: Receiver, silences: Sequence[Silence], *, at: datetime, now: Micros
) -> Delivery | AttemptRecord:
    """Return the delivery as it is to be sent, or the record that postpones or silences it.

    `at` and `now` are the present moment on the wall clock and on the steady clock.
    """
    after_us, keeps_state = receiver.after_us, receiver.keeps_state
    is_deferred = after_us > 0 and delivery.opens and not (delivery.attempts or delivery.replayed)
    # A previous owner may have sent the delivery, and been killed before settling it. A silenced delivery that this
    # owner released cannot have been sent: its `tried_at` is the time of the release. A replayed delivery is a former
    # dead letter, so it has been tried.
    could_go_at = max(delivery.recorded_at + (after_us if is_deferred else 0), delivery.tried_at)
    may_be_sent = delivery.replayed or delivery.attempts > 0 or could_go_at < receiver.owned_from

    def silenced(answer: str) -> AttemptRecord:
        return AttemptRecord(replace(delivery, group_key=None), DeliveryState.SILENCED, answer, tried=may_be_sent)

    if keeps_state and is_over(delivery):
        return silenced(OVER)
    if is_deferred and not delivery.is_problem_open:
        return silenced(AFTER)
    part = part_to_send(delivery, silences, at=at)
    if part is None:
        return silenced(_why_unsent(delivery, at))
    if not delivery.replayed and _is_covered(delivery, receiver, silences):
        if not (delivery.closes and delivery.is_opening_sent):
            return silenced(COVERED)
        part = Part.CLOSING
    waits_until = _waits_until(delivery, after_us=after_us, at=at, now=now) if is_deferred else now
    if waits_until > now:
        postponed = replace(delivery, due_at=waits_until, first_due_at_s=None)
        return AttemptRecord(postponed, DeliveryState.WAITING, tried=may_be_sent)
    if part is Part.WHOLE and delivery.only_closes and keeps_state:
        part = Part.CLOSING
    return delivery if part is Part.WHOLE else replace(delivery, part=part)


def _why_unsent(delivery: Delivery, at: datetime) -> str:
    """Return the answer of a delivery that has no part to send."""
    if not delivery.is_opening_sent:
        return delivery.silenced_as or SILENCE
    is_current = delivery.is_problem_open and not delivery.is_acknowledged(at)
    is_stale = delivery.type == EventType.PROBLEM_REMINDER and not is_current
    return OVER if is_stale or delivery.type == EventType.PROBLEM_ACKNOWLEDGED else SILENCE


def _is_covered(failure: Delivery, receiver: Receiver, silences: Sequence[Silence]) -> bool:
    """Return whether the opening of the pipeline's open `pipeline.failing` was sent, or waits for its group alone."""
    if failure.failing_opening is not DeliveryState.WAITING:
        return failure.failing_opening is not None
    opening = replace(failure, type=EventType.PIPELINE_FAILING)
    return receiver.after_us == 0 and not any(each.matches(opening) for each in silences)


def _waits_until(opening: Delivery, *, after_us: int, at: datetime, now: Micros) -> Micros:
    """Return the end of an opening's wait. An acknowledgement may be withdrawn, so it is checked again each minute."""
    acked_s = 0.0 if opening.acked_until is None else (opening.acked_until - at).total_seconds()
    acked_until = Micros(now + round(min(ACKNOWLEDGEMENT_CHECK_S, acked_s) * 1e6))
    due_at = Micros(opening.recorded_at + after_us)
    return due_at if due_at > now else acked_until
