"""What the rules of a pipeline compare with, on both databases: durations, a day's tokens, kinds of errors."""

import json
from dataclasses import replace
from typing import Any

import pytest
from contract.conftest import prune
from stores import DAY_US, PIPELINE, SECOND_US, START_US, StoreRig, change, event, stream_of

from watcher.domain.event import EventType, OutboxEntry
from watcher.domain.execution import LostReason
from watcher.domain.history import HOUR_US, EndedExecution, ErrorKind, error_kind_of
from watcher.domain.rules import DURATIONS_COUNT, Spending
from watcher.domain.timestamps import Micros
from watcher.store.changes import ChangeSet, ExecutionChange, SourceChange

OTHER = "77aa0000-0000-4000-8000-000000000000"
SUBJECT = f"accounts/default/pipelines/{PIPELINE}"


def success(
    rig: StoreRig, number: int, *, at: int = START_US, seconds: float = 30.0, **known: object
) -> ExecutionChange:
    """Return the change that an execution, first seen then, has ended with success."""
    at, started_at = Micros(at), Micros(at - round(seconds * SECOND_US))
    facts: dict[str, Any] = {"status": "success", "end_seen_at": at, "ended_at": at, "started_at": started_at, **known}
    return change(rig.account, number, sinks=(), **facts)


async def record(rig: StoreRig, *changes: ExecutionChange) -> None:
    await rig.store.record(ChangeSet(rig.account, changes))


# Durations


async def test_durations_are_of_the_last_200_successes_by_their_ends_the_oldest_first(rig: StoreRig) -> None:
    count = DURATIONS_COUNT + 5
    ends = [success(rig, number, at=START_US + number * SECOND_US, seconds=number) for number in range(1, count + 1)]
    await record(rig, *ends[::-1])  # the order of recording does not count
    assert list(await rig.owned.load_durations(PIPELINE)) == [number * SECOND_US for number in range(6, count + 1)]
    assert list(await rig.owned.load_durations(OTHER)) == []


async def test_what_does_not_say_what_is_usual_has_no_duration(rig: StoreRig) -> None:
    history = success(rig, 1, sequence=0)
    of_other = success(rig, 2)
    await record(
        rig,
        replace(history, before=None, entries=()),
        replace(of_other, known=replace(of_other.known, pipeline=OTHER)),
        success(rig, 3, status="failed"),
        success(rig, 4, status="unheard_of"),
        success(rig, 5, was_paused=True),
        success(rig, 6, lost=LostReason.NOT_FOUND),
        success(rig, 7, seconds=0.0),
        success(rig, 8, seconds=-5.0),
        success(rig, 9, started_at=None),
        success(rig, 10, status="running", end_seen_at=None, ended_at=None),
        success(rig, 11, seconds=7.0),
    )
    assert list(await rig.owned.load_durations(PIPELINE)) == [7 * SECOND_US]
    await prune(rig.store, before=START_US + 1)
    assert list(await rig.owned.load_durations(PIPELINE)) == []


# Tokens of a day


def end(
    rig: StoreRig, number: int, *, at: int, tokens: int = 0, status: str = "success", error: ErrorKind | None = None
) -> ExecutionChange:
    """Return the change that an execution has ended, as the history counts it."""
    ended = EndedExecution(Micros(at - SECOND_US), Micros(at), status, tokens, error=error)
    return replace(success(rig, number, at=at, seconds=1.0, status=status), ended=ended)


async def report(rig: StoreRig, sequence: int, *, percent: int, day: str) -> None:
    """Record that a share of a day's tokens was reported."""
    body = json.dumps({"data": {"percent": percent, "day": day}}).encode()
    emitted = replace(event(SUBJECT, sequence=sequence, type_=EventType.PIPELINE_OVERSPENDING), body=body)
    entry = OutboxEntry(emitted, ("ops",))
    await rig.store.record(SourceChange(rig.account, sequence - 1, sequence, None, (entry,), pipeline=PIPELINE))


async def spending(rig: StoreRig, *, day_at: int = START_US, pipeline: str = PIPELINE) -> Spending:
    return await rig.owned.load_spending(pipeline, stream=stream_of(SUBJECT), day_at=Micros(day_at))


async def test_the_tokens_of_a_day_are_those_of_all_that_ended_since_it_began(rig: StoreRig) -> None:
    assert await spending(rig) == Spending(START_US, 0, 0)
    of_other = end(rig, 9, at=START_US + 5, tokens=1 << 20)
    await record(
        rig,
        end(rig, 1, at=START_US - 1, tokens=1000),
        end(rig, 2, at=START_US, tokens=1),
        end(rig, 3, at=START_US + 5, tokens=20, status="failed"),
        end(rig, 4, at=START_US + HOUR_US, tokens=300, status="unrecognized"),
        end(rig, 5, at=START_US + 23 * HOUR_US, tokens=10**9),
        end(rig, 6, at=START_US + 23 * HOUR_US, tokens=10**9),
        end(rig, 7, at=START_US + 23 * HOUR_US, tokens=10**9),  # more than 32 bits together
        replace(of_other, known=replace(of_other.known, pipeline=OTHER)),
    )
    assert await spending(rig) == Spending(START_US, 3 * 10**9 + 321, 0)
    assert (await spending(rig, pipeline=OTHER)).tokens == 1 << 20
    assert (await spending(rig, day_at=START_US + DAY_US)).tokens == 0


async def test_the_share_that_was_reported_is_the_last_one_of_the_same_day(rig: StoreRig) -> None:
    await report(rig, 1, percent=100, day="2026-11-23")  # written after midnight
    assert (await spending(rig)).percent == 0
    await report(rig, 2, percent=80, day="2026-11-24")
    assert (await spending(rig)).percent == 80
    await report(rig, 3, percent=100, day="2026-11-24")
    assert (await spending(rig)).percent == 100
    rig.clock.us = START_US + DAY_US
    assert (await spending(rig, day_at=START_US + DAY_US)).percent == 0


# Kinds of errors

NO_ANSWER, ALONE, BOOM = (
    error_kind_of("Greeting", "no answer"),
    error_kind_of(None, "no answer"),
    error_kind_of("Greeting", "boom"),
)


async def count(rig: StoreRig, *kinds: ErrorKind, since: int = START_US, pipeline: str = PIPELINE) -> int:
    return await rig.owned.count_errors(pipeline, {each.fingerprint for each in kinds}, Micros(since))


async def test_errors_are_counted_by_kind_over_the_days_that_have_one_since_a_moment(rig: StoreRig) -> None:
    assert await count(rig, NO_ANSWER, ALONE) == 0
    rig.clock.us = START_US + DAY_US
    of_other = end(rig, 9, at=START_US, error=NO_ANSWER, status="failed")
    failures = [
        (START_US, NO_ANSWER),
        (START_US + 5 * HOUR_US, NO_ANSWER),
        (START_US + DAY_US, NO_ANSWER),
        (START_US + HOUR_US, ALONE),
        (START_US, BOOM),
    ]
    ends = [end(rig, number, at=at, error=kind, status="failed") for number, (at, kind) in enumerate(failures, start=1)]
    await record(rig, *ends, replace(of_other, known=replace(of_other.known, pipeline=OTHER)))
    assert [await count(rig, *kinds) for kinds in ((NO_ANSWER,), (ALONE,), (NO_ANSWER, ALONE), (BOOM,))] == [3, 1, 4, 1]
    assert await count(rig, NO_ANSWER, pipeline=OTHER) == 1
    assert await count(rig, NO_ANSWER, pipeline="88bb0000-0000-4000-8000-000000000000") == 0
    since = START_US + 5 * HOUR_US  # the first day has an error then, so all of that day count
    assert [await count(rig, NO_ANSWER, since=at) for at in (since, since + 1)] == [3, 1]
    assert await count(rig, NO_ANSWER, since=START_US + DAY_US + 1) == 0


@pytest.mark.parametrize("kept", [False, True])
async def test_a_kind_that_retention_deleted_is_not_known(rig: StoreRig, *, kept: bool) -> None:
    await record(rig, end(rig, 1, at=START_US + HOUR_US, error=NO_ANSWER, status="failed"))
    await prune(rig.store, before=START_US + DAY_US + (not kept))  # the day is over at that time
    assert await count(rig, NO_ANSWER, since=START_US - 30 * DAY_US) == kept
