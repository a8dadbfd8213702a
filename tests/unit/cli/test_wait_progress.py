"""What ends a wait, and what does not: over replies and changes, in the order in which they come."""

from datetime import timedelta
from typing import cast

import pytest
from virtual import EPOCH, PIPELINE, FakeClock, ScriptedApi, pages_of, said

from watcher.clerk.api import ClerkApi, Reply
from watcher.cli.next_execution import NextSearch
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
LISTED = Reply(Outcome.OK, Monotonic(0.0), None, 200, rows=())
DEGRADED = AccountTrouble.UNREACHABLE


def progress_after(*heard: Reply | AccountTrouble | ExecutionRecord | None) -> Progress:
    """Return a progress that has taken in these, of which `None` is that an account has recovered."""
    return taking(Progress("p", "e", lost_after=3), *heard)


def search_after(*heard: Reply | AccountTrouble | None) -> Progress:
    """Return the same of a progress that is still in search of the execution."""
    return taking(Progress("p", "", lost_after=3, search=NextSearch(Micros(1), Micros(1))), *heard)


def taking(progress: Progress, *heard: Reply | AccountTrouble | ExecutionRecord | None) -> Progress:
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
    progress, view, client = progress_after(), View(), cast("ClerkApi", api)
    poller = Poller(progress, view, api=client, settings=settings, interval_s=interval_s, clock=clock)
    for passed_s, next_s in ((1, interval_s), (3598, interval_s), (2, later_s)):
        clock.advance(passed_s)
        await poller.poll()
        assert poller.next_at - clock.monotonic() == pytest.approx(next_s)
    api.default, api.status_codes, api.retry_after_s = Outcome.RATE_LIMITED, {Outcome.RATE_LIMITED: 429}, 40.0
    await poller.poll()
    assert poller.next_at - clock.monotonic() == 40.0
    assert progress.ending is None


# The search for the next execution


def test_a_search_ends_at_a_pipeline_that_nobody_knows_or_a_key_that_is_refused_as_a_wait_does() -> None:
    unknown = WaitResult(Exit.NOT_FOUND, "Clerk Chat knows no such pipeline (404)")
    assert search_after(MISSING, BUSY, MISSING).ending is None
    assert search_after(MISSING, BUSY, MISSING, MISSING).ending == unknown
    ending = search_after(REFUSED, DEGRADED).ending
    assert ending == WaitResult(Exit.UNREACHABLE, "Clerk Chat refuses this key (401)", key_refused=True)


@pytest.mark.parametrize("reply", [MISSING, REFUSED, FORBIDDEN, DOWN, SILENT])
def test_no_trouble_ends_a_search_whose_list_was_read(reply: Reply) -> None:
    assert search_after(LISTED, reply, reply, reply, DEGRADED, reply).ending is None


def test_what_is_found_and_not_known_so_many_times_is_not_found_and_no_other_trouble_ends_it() -> None:
    rows = (ExecutionSnapshot("e", "running", began_at=Micros(2)),)
    progress = search_after(MISSING, MISSING, LISTED._replace(rows=rows))
    assert progress.search is not None
    assert progress.take_page(progress.search, LISTED._replace(rows=rows))
    assert progress.execution_id == "e"
    assert taking(progress, MISSING, MISSING, REFUSED, DEGRADED, REFUSED).ending is None
    unknown = WaitResult(Exit.NOT_FOUND, "Clerk Chat knows no such execution (404)")
    assert taking(progress, MISSING).ending == unknown


def test_a_search_whose_time_is_over_says_that_nothing_started() -> None:
    assert make_timeout(search_after(LISTED), 600.0).problem == "no execution has started after 10 m (--timeout)"
    said_last = make_timeout(search_after(LISTED, DOWN), 600.0).problem
    assert said_last == "no execution has started after 10 m (--timeout); the last poll failed: 502"


def searching(api: ScriptedApi, *, view: View | None = None, degraded_after: str = "30s") -> tuple[Progress, Poller]:
    """Return a search, and its poller, which may ask twice a second and does so every 2 s."""
    account, watch = {"api_key": "k", "rate_limit": "2/s"}, {"pipeline": PIPELINE, "account": "a"}
    polling = {"lost_grace": "0s", "degraded_after": degraded_after}
    document = {"accounts": {"a": account}, "watch": [watch], "polling": polling}
    settings, clock = Settings.model_validate(document), api.clock
    progress = Progress(PIPELINE, "", lost_after=3, search=NextSearch(clock.steady_us(), clock.steady_us()))
    client = cast("ClerkApi", api)
    return progress, Poller(progress, view or View(), api=client, settings=settings, interval_s=2.0, clock=clock)


async def test_refusals_of_the_list_do_not_count_against_what_is_found() -> None:
    api = ScriptedApi(FakeClock(), pages={1: Outcome.NOT_FOUND}, script={EXECUTION: Outcome.NOT_FOUND})
    progress, poller = searching(api)
    for _ in range(2):
        await poller.poll()
    api.pages = pages_of(said(EXECUTION, "running", started_at=EPOCH + timedelta(seconds=1000)))
    for _ in range(3):
        await poller.poll()
    assert (progress.execution_id, progress.missing_count, progress.ending) == (EXECUTION, 2, None)
    await poller.poll()
    assert progress.ending == WaitResult(Exit.NOT_FOUND, "Clerk Chat knows no such execution (not_found)")


@pytest.mark.parametrize("is_json", [True, False])
async def test_a_search_keeps_to_interval_and_rate_and_what_it_finds_is_polled_at_once_after_its_id(
    capsys: pytest.CaptureFixture[str], *, is_json: bool
) -> None:
    clock = FakeClock()
    old = tuple(said(f"{nth}", "success", started_at=EPOCH) for nth in range(120))
    api = ScriptedApi(clock, pages=pages_of(*old))
    api.script[EXECUTION] = new = said(EXECUTION, "success", started_at=EPOCH + timedelta(seconds=1000))
    progress, poller = searching(api, view=View(as_json=is_json))
    waits_s = []
    for rows in (old, old, (*old, new)):
        api.pages = pages_of(*rows)
        for _ in range(2):
            await poller.poll()
            waits_s.append(round(poller.next_at - clock.monotonic(), 2))
            clock.elapsed_s = poller.next_at
    assert [name for _, name in api.asked] == ["page 1", "page 3"] * 3
    assert waits_s == [0.51, 2.0, 0.51, 2.0, 0.51, 0.51]
    assert capsys.readouterr().out == ("" if is_json else f"{EXECUTION}\n")
    await poller.poll()
    assert (api.asked[-1][1], progress.ending) == (EXECUTION, WaitResult(Exit.DONE))
    (line,) = capsys.readouterr().out.splitlines()
    assert (f'"subject":"{EXECUTION}"' if is_json else "Z success ") in line


@pytest.mark.parametrize(("passing", "waits_s"), [(Outcome.NOT_FOUND, {2.0}), (Outcome.SERVER_ERROR, {2.0, 10.0})])
async def test_no_passing_error_ends_a_search_and_what_started_before_does_not_count(
    passing: Outcome, waits_s: set[float]
) -> None:
    old = said("old", "running", started_at=EPOCH)
    api = ScriptedApi(FakeClock(), pages=pages_of(old))
    progress, poller = searching(api, degraded_after="3s")
    await poller.poll()
    api.pages = {1: passing}
    waited_s = set()
    for _ in range(8):
        await poller.poll()
        waited_s.add(poller.next_at - api.clock.monotonic())
        api.clock.elapsed_s = poller.next_at
    assert (progress.execution_id, progress.ending, waited_s) == ("", None, waits_s)
    api.pages = pages_of(said(EXECUTION, "running", started_at=EPOCH + timedelta(seconds=1000)), old)
    await poller.poll()
    assert (progress.execution_id, progress.ending) == (EXECUTION, None)
