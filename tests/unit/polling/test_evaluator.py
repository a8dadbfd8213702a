"""From an answer to what is told of an execution, in virtual time."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from virtual import EPOCH, WHOLE, Account, FakeClock, Start, name_of, pages_of, said, watch_of

from watcher.domain.execution import Outcome

A, B = map(name_of, (1, 2))
LIMITS = {"running": 100.0}


def stamp(at_s: float) -> str:
    """Return a time so many seconds after the test began, as events write it."""
    at = EPOCH + timedelta(seconds=1000 + at_s)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def told(account: Account, answer: str | Outcome, *, within_s: float = 61.0) -> list[dict[str, Any]]:
    """Let the API answer this from now on, and return what is told of it."""
    account.api.script[A] = answer if isinstance(answer, Outcome) else said(A, answer)
    await account.run_for(within_s)
    return [event for event in await account.events() if event.get("subject") == A]


@pytest.mark.parametrize("wall_s", [0.0, -7200.0])
async def test_a_change_is_dated_by_the_wall_clock_of_then(start: Start, clock: FakeClock, wall_s: float) -> None:
    account = await start(A)
    (first,) = await told(account, "running", within_s=10)
    assert "notBefore" not in first["data"]["observed"]
    clock.wall_offset_s, looks = wall_s, account.api.times(A)
    (second,) = await told(account, "paused")
    seen_s = account.api.times(A)[len(looks)]
    observed = second["data"]["observed"]
    assert (observed["at"], observed["notBefore"]) == (stamp(seen_s + wall_s), stamp(looks[-1] + wall_s))


async def test_a_poll_recorded_by_a_clock_ahead_is_not_after_what_is_seen(start: Start, clock: FakeClock) -> None:
    clock.off_s = 3600.0
    account = await start(A)
    await told(account, "running")
    await account.watcher.flush()
    clock.off_s = 0.0
    (event,) = await told(await start(A), "success")
    assert event["data"]["observed"]["notBefore"] == event["data"]["observed"]["at"]


async def test_the_next_event_of_what_is_overdue_closes_its_problem_and_no_other_does(start: Start) -> None:
    account = await start(A, overdue_after_s=LIMITS)
    running, overdue = await told(account, "running", within_s=200)
    events = [running, overdue, *await told(account, "paused"), *await told(account, "success")]
    assert ["closedAt" in event["data"].get("problem", {}) for event in events] == [False, False, True, False]


@pytest.mark.parametrize("limits", [{}, {"new": 60.0}])
async def test_a_stay_that_is_limited_no_more_is_ended_elsewhere(start: Start, limits: dict[str, float]) -> None:
    account = await start(A, overdue_after_s=LIMITS)
    await told(account, "running", within_s=200)
    await account.watcher.watch([watch_of(A, overdue_after_s=limits)])
    (event,) = await told(account, "success")
    assert "problem" not in event["data"]


async def test_so_is_a_stay_that_is_no_longer_watched_when_its_end_is_confirmed(start: Start) -> None:
    account = await start(watches=[replace(WHOLE, overdue_after_s=LIMITS)])
    account.api.pages = pages_of(said(A, "running"))
    assert len(await account.events(after_s=200)) == 2
    account.api.pages, account.api.script[A] = pages_of(said(A, "failed")), Outcome.SERVER_ERROR
    await account.run_for(5)
    await account.watcher.watch([])
    account.api.script[A] = said(A, "failed")
    (event,) = await account.events(after_s=60)
    assert "problem" not in event["data"]


async def test_a_loss_names_the_last_look_that_saw_it_and_what_the_api_calls_its_pipeline(start: Start) -> None:
    account = await start(A, B)
    await told(account, "running", within_s=10)
    looks = account.api.times(A)
    (lost,) = await told(account, Outcome.NOT_FOUND, within_s=150)
    assert (lost["type"], lost["data"]["observed"]["notBefore"]) == ("execution.lost", stamp(looks[-1]))
    assert (lost["data"]["reason"], lost["sequence"]) == ("not_found", "0000000002")
    assert lost["data"]["pipeline"]["name"] == "Sales agent"


async def test_what_is_lost_before_it_was_seen_names_no_look_and_no_status(start: Start) -> None:
    account = await start(A, B)
    (lost,) = await told(account, Outcome.NOT_FOUND, within_s=150)
    assert "notBefore" not in lost["data"]["observed"]
    assert "previousStatus" not in lost["data"]["execution"]
    (running,) = await told(account, "running", within_s=700)
    assert running["data"]["execution"]["previousStatus"] == "lost"


@pytest.mark.ci
async def test_what_cannot_be_read_for_an_hour_is_lost_and_asked_for_on(start: Start) -> None:
    account = await start(A, B)
    account.api.status_codes[Outcome.INVALID] = 200
    await told(account, "running")
    assert await told(account, Outcome.INVALID, within_s=3500) == []
    (lost,) = await told(account, Outcome.INVALID, within_s=300)
    assert (lost["type"], lost["data"]["reason"]) == ("execution.lost", "unreadable")
    asked_count = len(account.api.times(A))
    assert await told(account, Outcome.INVALID, within_s=30 * 3600.0) == []
    assert len(account.api.times(A)) - asked_count >= 30 * 60 - 5
    (success,) = await told(account, "success")
    assert success["data"]["execution"]["previousStatus"] == "lost"
