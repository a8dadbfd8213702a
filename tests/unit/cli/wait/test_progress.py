"""What ends a wait, and what does not: over replies and changes, in the order in which they come."""

import pytest
from virtual import FakeClock

from watcher.clerk.api import Reply
from watcher.cli.wait import PollFailure, Progress, StatusPeriod, WaitResult
from watcher.domain.errors import Exit
from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot, LostReason, Outcome
from watcher.domain.timestamps import Micros, Monotonic
from watcher.domain.watch import Cursor
from watcher.store.changes import ExecutionChange, Lease, PipelineChange, SourceChange

LEASE = Lease("account", "default", 1)
CLOCK = FakeClock()
SEEN = Reply(Outcome.OK, Monotonic(0.0), ExecutionSnapshot("e", "running"), 200)
BUSY = Reply(Outcome.RATE_LIMITED, Monotonic(0.0), None, 429, 2.0)
MISSING = Reply(Outcome.NOT_FOUND, Monotonic(0.0), None, 404)
REFUSED = Reply(Outcome.UNAUTHORIZED, Monotonic(0.0), None, 401)
FORBIDDEN = Reply(Outcome.FORBIDDEN, Monotonic(0.0), None, 403)
DOWN = Reply(Outcome.SERVER_ERROR, Monotonic(0.0), None, 502)
SILENT = Reply(Outcome.TIMEOUT, Monotonic(0.0))
DEGRADED = SourceChange(LEASE, 0, 1, "unreachable", ())
RECOVERED = SourceChange(LEASE, 1, 2, None, ())


def progress_after(*heard: Reply | SourceChange | ExecutionRecord) -> Progress:
    progress = Progress("p", "e", lost_after=3)
    for one in heard:
        if isinstance(one, Reply):
            progress.answered(one, clock=CLOCK)
        elif isinstance(one, ExecutionRecord):
            progress.recorded(ExecutionChange(LEASE, None, one, ()))
        else:
            progress.recorded(one)
    return progress


def known(status: str | None, *, ended: bool = False, lost: bool = False, since_at: int = 1) -> ExecutionRecord:
    reason = LostReason.NOT_FOUND if lost else None
    return ExecutionRecord(
        "e",
        "p",
        status,
        Micros(since_at),
        ended_at=Micros(9) if ended else None,
        lost=reason,
        lost_at=Micros(8) if lost else None,
    )


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (known("success", ended=True), Exit.DONE),
        (known("failed", ended=True), Exit.FAILED),
        (known("transferred", ended=True), Exit.FAILED),
        (known("running", lost=True), Exit.FAILED),
    ],
)
def test_the_end_of_the_execution_is_the_exit_code(last: ExecutionRecord, code: Exit) -> None:
    assert progress_after(SEEN, known("running"), last).ending == WaitResult(code)


def test_each_status_is_kept_with_its_beginning_and_a_loss_with_its_own() -> None:
    progress = progress_after(known("new", since_at=1), known("running", since_at=2), known("running", since_at=2))
    assert progress.status == "running"
    progress.recorded(ExecutionChange(LEASE, 2, known("running", since_at=2, lost=True), ()))
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
    assert progress_after(BUSY, DEGRADED, RECOVERED, REFUSED).ending is None


def test_trouble_is_dated_from_the_first_failure_and_named_by_the_last() -> None:
    progress, began_at = progress_after(DOWN), CLOCK.now()
    CLOCK.advance(60)
    progress.answered(BUSY, clock=CLOCK)
    assert progress.failure == PollFailure(Outcome.RATE_LIMITED, "429", began_at)
    assert (progress.poll_count, progress.polled_us) == (2, CLOCK.steady_us())


def test_what_is_reported_of_the_pipeline_says_nothing_of_the_execution() -> None:
    progress = progress_after(SEEN, known("running"))
    progress.recorded(PipelineChange(LEASE, "p", 0, 0, Cursor(Micros(1)), ()))
    assert (progress.status, progress.ending) == ("running", None)
