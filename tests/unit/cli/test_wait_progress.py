"""What ends a wait, and what does not: over replies and changes, in the order in which they come."""

from typing import cast

import pytest
from virtual import PIPELINE, FakeClock, ScriptedApi, said

from watcher.clerk.api import ClerkApi, Reply
from watcher.cli.wait import Poller, PollFailure, Progress, StatusPeriod, View, WaitResult, make_timeout
from watcher.config.models import Settings
from watcher.domain.errors import Exit
from watcher.domain.event import AccountTrouble
from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot, LostReason, Outcome
from watcher.domain.timestamps import Micros, Monotonic

CLOCK = FakeClock()
EXECUTION = "9a1b0000-0000-4000-8000-000000000001"
SEEN = Reply(Outcome.OK, Monotonic(0.0), ExecutionSnapshot("e", "running"), 200)
BUSY = Reply(Outcome.RATE_LIMITED, Monotonic(0.0), None, 429, 2.0)
MISSING = Reply(Outcome.NOT_FOUND, Monotonic(0.0), None, 404)
REFUSED = Reply(Outcome.UNAUTHORIZED, Monotonic(0.0), None, 401)
FORBIDDEN = Reply(Outcome.FORBIDDEN, Monotonic(0.0), None, 403)
DOWN = Reply(Outcome.SERVER_ERROR, Monotonic(0.0), None, 502)
SILENT = Reply(Outcome.TIMEOUT, Monotonic(0.0))
DEGRADED = AccountTrouble.UNREACHABLE


def progress_after(*heard: Reply | AccountTrouble | ExecutionRecord | None) -> Progress:
    """Return a progress that has taken in these, of which `None` is that an account has recovered."""
    progress = Progress("p", "e", lost_after=3)
    for one in heard:
        if isinstance(one, Reply):
            progress.take_reply(one, clock=CLOCK)
        elif isinstance(one, ExecutionRecord):
            progress.take_change(one, ())
        else:
            progress.take_trouble(one)
    return progress


def known(status: str | None, *, ended: bool = False, lost: bool = False, since_at: int = 1) -> ExecutionRecord:
    reason = LostReason.NOT_FOUND if lost else None
    return ExecutionRecord(
        "e",
        "p",
        status,
        Micros(since_at),
        end_seen_at=Micros(9) if ended else None,
        lost=reason,
        lost_at=Micros(8) if lost else None,
    )


def test_an_end_by_a_word_that_nobody_knows_is_a_failure() -> None:
    assert progress_after(SEEN, known("transferred", ended=True)).ending == WaitResult(Exit.FAILED)


def test_each_status_is_kept_with_its_beginning_and_a_loss_with_its_own() -> None:
    progress = progress_after(known("new", since_at=1), known("running", since_at=2), known("running", since_at=2))
    assert progress.status == "running"
    progress.take_change(known("running", since_at=2, lost=True), ())
    assert progress.periods == (
        StatusPeriod("new", Micros(1)),
        StatusPeriod("running", Micros(2)),
        StatusPeriod("lost", Micros(8)),
    )
    assert Progress("p", "e", lost_after=3).status is None


def test_a_key_that_is_refused_after_other_trouble_ends_it_too() -> None:
    assert progress_after(BUSY, DEGRADED).ending is None
    ending = progress_after(BUSY, DEGRADED, REFUSED).ending
    assert ending is not None
    assert ending.key_refused


def test_a_key_that_is_forbidden_for_long_is_refused_but_not_if_anything_else_was_answered() -> None:
    ending = progress_after(FORBIDDEN, DEGRADED).ending
    assert ending == WaitResult(Exit.UNREACHABLE, "Clerk Chat refuses this key (403)", key_refused=True)
    assert progress_after(BUSY, FORBIDDEN, DEGRADED).ending is None


@pytest.mark.parametrize(
    ("reply", "word"),
    [
        (DOWN, "502"),
        (SILENT, "no answer in time"),
        (Reply(Outcome.CONNECTION, Monotonic(0.0)), "no connection"),
        (Reply(Outcome.INVALID, Monotonic(0.0), None, 200), "unreadable answers"),
        (Reply(Outcome.INVALID, Monotonic(0.0), None, 402), "402"),
    ],
)
def test_an_api_that_never_answered_is_unreachable_once_the_account_is_degraded(reply: Reply, word: str) -> None:
    assert progress_after(reply, reply).ending is None
    ending = progress_after(reply, DEGRADED).ending
    assert ending == WaitResult(Exit.UNREACHABLE, f"Clerk Chat cannot be reached ({word})")


@pytest.mark.parametrize("reply", [BUSY, MISSING])
def test_an_api_that_answered_something_is_waited_for(reply: Reply) -> None:
    assert progress_after(reply, DOWN, DEGRADED, DOWN).ending is None


def test_an_account_that_recovered_is_not_degraded_any_more() -> None:
    assert progress_after(BUSY, DEGRADED, None, REFUSED).ending is None


def test_trouble_is_dated_from_the_first_failure_and_named_by_the_last() -> None:
    progress, began_at = progress_after(DOWN), CLOCK.now()
    CLOCK.advance(60)
    progress.take_reply(BUSY, clock=CLOCK)
    assert progress.failure == PollFailure(Outcome.RATE_LIMITED, "429", began_at)
    assert (progress.poll_count, progress.polled_us) == (2, CLOCK.steady_us())


@pytest.mark.parametrize(("timeout_s", "waited"), [(1.5, "1.5 s"), (2.0, "2 s"), (600.0, "10 m")])
def test_time_that_is_over_is_reported_as_it_was_given(timeout_s: float, waited: str) -> None:
    assert make_timeout(progress_after(), timeout_s).problem == f"not seen after {waited} (--timeout)"


@pytest.mark.parametrize("answer", [said(EXECUTION, "running"), Outcome.SERVER_ERROR])
@pytest.mark.parametrize(("interval_s", "later_s"), [(2.0, 10.0), (30.0, 30.0)])
async def test_it_polls_at_its_interval_whatever_is_answered_slower_after_an_hour_and_as_the_api_asks(
    interval_s: float, later_s: float, answer: Outcome | ExecutionSnapshot
) -> None:
    clock = FakeClock()
    api = ScriptedApi(clock, default=answer if isinstance(answer, Outcome) else None)
    api.script[EXECUTION] = answer
    watch = {"pipeline": PIPELINE, "account": "a", "executions": [EXECUTION]}
    document = {"accounts": {"a": {"api_key": "k"}}, "watch": [watch], "polling": {"degraded_after": "2h"}}
    settings = Settings.model_validate(document)
    poller = Poller(
        progress_after(), View(), api=cast("ClerkApi", api), settings=settings, interval_s=interval_s, clock=clock
    )
    for passed_s, next_s in ((1, interval_s), (3598, interval_s), (2, later_s)):
        clock.advance(passed_s)
        await poller.poll()
        assert poller.next_at - clock.monotonic() == pytest.approx(next_s)
    api.default, api.status_codes, api.retry_after_s = Outcome.RATE_LIMITED, {Outcome.RATE_LIMITED: 429}, 40.0
    await poller.poll()
    assert poller.next_at - clock.monotonic() == 40.0
