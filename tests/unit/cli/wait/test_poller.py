"""What ends a wait, and what does not: over replies and changes, in the order in which they come."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from virtual import EPOCH, PIPELINE, FakeClock, ScriptedApi, pages_of, said

from watcher.clerk.api import ClerkApi, Reply
from watcher.cli.wait.next_execution import NextSearch
from watcher.cli.wait.poller import Poller
from watcher.cli.wait.progress import PollFailure, Progress, StatusPeriod, WaitResult, make_timeout
from watcher.cli.wait.view import View, change_line, picture
from watcher.config.models import Settings
from watcher.domain.errors import Exit
from watcher.domain.event import AccountTrouble, Event, EventType
from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot, LostReason, Outcome
from watcher.domain.timestamps import Micros, Monotonic
from watcher.runtime.terminal import harmless

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


def test_a_key_that_is_refused_or_forbidden_for_long_ends_it() -> None:
    ending = progress_after(FORBIDDEN, DEGRADED).ending
    assert ending == WaitResult(Exit.UNREACHABLE, "Clerk Chat refuses this key (403)", key_refused=True)
    assert progress_after(BUSY, FORBIDDEN, DEGRADED).ending is None
    assert progress_after(BUSY, DEGRADED).ending is None
    ending = progress_after(BUSY, DEGRADED, REFUSED).ending
    assert ending is not None
    assert ending.key_refused
    assert progress_after(BUSY, DEGRADED, None, REFUSED).ending is None
    assert progress_after(SEEN, known("transferred", ended=True)).ending == WaitResult(Exit.FAILED)


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
async def test_it_polls_at_its_interval_slower_after_an_hour_and_as_asked(
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


@pytest.mark.parametrize("reply", [MISSING, REFUSED, FORBIDDEN, DOWN, SILENT])
def test_no_trouble_ends_a_search_whose_list_was_read(reply: Reply) -> None:
    assert search_after(LISTED, reply, reply, reply, DEGRADED, reply).ending is None


def test_a_search_ends_at_what_nobody_knows_a_refused_key_or_its_time() -> None:
    unknown = WaitResult(Exit.NOT_FOUND, "Clerk Chat knows no such pipeline (404)")
    assert search_after(MISSING, BUSY, MISSING).ending is None
    assert search_after(MISSING, BUSY, MISSING, MISSING).ending == unknown
    ending = search_after(REFUSED, DEGRADED).ending
    assert ending == WaitResult(Exit.UNREACHABLE, "Clerk Chat refuses this key (401)", key_refused=True)
    rows = (ExecutionSnapshot("e", "running", began_at=Micros(2)),)
    progress = search_after(MISSING, MISSING, LISTED._replace(rows=rows))
    assert progress.search is not None
    assert progress.take_page(progress.search, LISTED._replace(rows=rows))
    assert progress.execution_id == "e"
    assert taking(progress, MISSING, MISSING, REFUSED, DEGRADED, REFUSED).ending is None
    unknown = WaitResult(Exit.NOT_FOUND, "Clerk Chat knows no such execution (404)")
    assert taking(progress, MISSING).ending == unknown
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
async def test_a_search_keeps_to_interval_and_rate_until_it_finds_one(
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
async def test_no_passing_error_ends_a_search_nor_an_earlier_start_counts(
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


NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
START = Micros(int(NOON.timestamp()) * 1_000_000)
EVIL = "</x> [red]*b*[/red] \x1b[31m\nnext\x9b2J\u202eltr"
RUNNING = ExecutionSnapshot(EXECUTION, "running", pipeline_name="Sales agent", started_at=NOON)
FAILED = replace(RUNNING, status="failed", finished_at=NOON + timedelta(seconds=151))


def progress_of(
    *periods: tuple[str, int],
    execution: ExecutionSnapshot | None = None,
    ending: WaitResult | None = None,
    why: str = "",
) -> Progress:
    """Return a progress whose stays begin so many seconds after noon."""
    progress = Progress(PIPELINE, EXECUTION, lost_after=3)
    progress.periods = tuple(StatusPeriod(status, Micros(START + after_s * 1_000_000)) for status, after_s in periods)
    progress.execution, progress.ending, progress.why = execution, ending, why
    progress.poll_count = 41
    return progress


def shown(progress: Progress, *, after_s: float = 137, next_s: float | None = 3.1, columns: int = 100) -> list[str]:
    at_second(progress, after_s).next_s = next_s
    if progress.poll_count:
        progress.polled_us = Micros(progress.now_us - 800_000)
    return picture(progress, columns=columns).plain.split("\n")


def in_search() -> Progress:
    return Progress(PIPELINE, "", lost_after=3, search=NextSearch(START, START))


def event_of(status: str, *, time: datetime = NOON, reason: str | None = None, **execution: Any) -> Event:
    data = {"execution": {"id": EXECUTION, "status": status, **execution}} | ({"reason": reason} if reason else {})
    body = {"time": time.isoformat(), "data": data}
    return Event(UUID(int=1), EventType.EXECUTION_FAILED, b"", 1, json.dumps(body).encode(), b"")


def test_a_picture_says_where_it_stands_how_it_came_there_and_how_the_polls_go() -> None:
    assert shown(progress_of(("new", 0), ("running", 3), execution=RUNNING)) == [
        "▶ running 2 m 14 s   Sales agent · 9a1b0000-0000-4000-8000-000000000001",
        "  new 3 s → running",
        "  polls 41 · last 0.8 s ago · next in 3.1 s",
    ]


def test_the_picture_of_an_end_says_how_long_it_took_and_why() -> None:
    progress = progress_of(
        ("new", -3), ("running", 0), ("failed", 151), execution=FAILED, ending=WaitResult(Exit.FAILED), why="why"
    )
    assert shown(progress) == [
        "✕ failed after 2 m 31 s   Sales agent · 9a1b0000-0000-4000-8000-000000000001",
        "  new 3 s → running 2 m 31 s → failed",
        "  polls 41 · exit 1",
        "  why",
    ]
    execution = ExecutionSnapshot(EXECUTION, "success")
    progress = progress_of(("running", 0), ("success", 9), execution=execution, ending=WaitResult(Exit.DONE))
    assert shown(progress)[0].startswith("✓ success after 9 s   pipeline 0b5c8f1e · ")
    assert len(shown(progress)) == 3
    progress = progress_of(("running", 0), ("lost", 9), execution=RUNNING, ending=WaitResult(Exit.FAILED))
    assert shown(progress)[0].startswith("✕ lost after 9 s")
    assert shown(progress)[-1] == "  Clerk Chat no longer knows it"


def test_what_is_not_seen_yet_is_called_by_its_ids_and_never_ends_once_listed() -> None:
    progress = Progress(PIPELINE, EXECUTION, lost_after=3)
    assert shown(progress, next_s=None) == [
        "· not seen yet   pipeline 0b5c8f1e · 9a1b0000-0000-4000-8000-000000000001",
        "  polls 0 · polling",
    ]
    progress.failure, progress.missing_count = PollFailure(Outcome.NOT_FOUND, "404", NOON), 1
    assert shown(progress)[-1] == "  not known yet (404), 1 of 3 answers"
    progress = in_search()
    assert shown(progress, next_s=None) == ["· no execution has started yet   pipeline 0b5c8f1e", "  polls 0 · polling"]
    progress.failure, progress.missing_count = PollFailure(Outcome.NOT_FOUND, "404", NOON), 1
    assert shown(progress)[-1] == "  not known yet (404), 1 of 3 answers"
    progress.missing_count, progress.is_listed = 0, True
    says = f"  API 404 since {NOON.astimezone():%H:%M}, retrying (a passing error never ends this)"
    assert shown(progress)[-1] == says


@pytest.mark.parametrize(
    ("outcome", "word", "seen", "says"),
    [
        (Outcome.RATE_LIMITED, "429", True, "429 since {}, retrying (a passing error never ends this)"),
        (Outcome.SERVER_ERROR, "502", True, "502 since {}, retrying (a passing error never ends this)"),
        (Outcome.TIMEOUT, "no answer in time", False, "no answer in time since {}, retrying"),
        (Outcome.NOT_FOUND, "404", True, "404 since {}, retrying (a passing error never ends this)"),
    ],
)
def test_trouble_is_reported_with_its_beginning(outcome: Outcome, word: str, says: str, *, seen: bool) -> None:
    progress = progress_of(("running", 0), execution=RUNNING if seen else None)
    progress.failure = PollFailure(outcome, word, NOON)
    assert shown(progress)[-1] == f"  API {says.format(f'{NOON.astimezone():%H:%M}')}"


@pytest.mark.parametrize("columns", [20, 40, 60])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    execution = replace(RUNNING, pipeline_name="営業エージェント" * 4)
    progress = progress_of(("new", 0), ("running", 3), execution=execution)
    progress.failure = PollFailure(Outcome.RATE_LIMITED, "429", NOON)
    lines = picture(at_second(progress, 5), columns=columns).split()
    assert all(line.cell_len <= columns for line in lines)


def test_what_the_api_said_is_shown_and_never_obeyed() -> None:
    safe = r"</x> [red]*b*[/red] \x1b[31m next\x9b2J\u202eltr"
    assert harmless(EVIL) == safe
    execution = replace(RUNNING, pipeline_name=EVIL, status=EVIL)
    progress = progress_of((EVIL, 0), (EVIL, 5), execution=execution, ending=WaitResult(Exit.FAILED), why=safe)
    lines = shown(progress, columns=400)
    assert [line.count(safe) for line in lines] == [2, 2, 0, 1]
    assert change_line(event_of(EVIL, error=EVIL)).count(safe) == 2


def test_a_line_of_a_change_has_time_status_seconds_and_reason() -> None:
    started: dict[str, Any] = {"startedAt": NOON.isoformat()}
    assert change_line(event_of("running", **started)) == "2026-11-24T12:00:00Z running 0.0"
    node = {"id": "n", "name": "Greeting", "error": "upstream timeout after 30 s"}
    end = event_of("failed", time=NOON + timedelta(seconds=151.9), durationSeconds=151.0, failedNodes=[node], **started)
    assert change_line(end) == "2026-11-24T12:02:31Z failed 151.0 Greeting: upstream timeout after 30 s"
    unrecognized = event_of("transferring", time=NOON + timedelta(seconds=3), **started)
    assert change_line(unrecognized) == "2026-11-24T12:00:03Z transferring 3.0"
    assert change_line(event_of("new")) == "2026-11-24T12:00:00Z new -"
    assert change_line(event_of("lost", reason="not_found")) == "2026-11-24T12:00:00Z lost - not_found"


def at_second(progress: Progress, second: float) -> Progress:
    progress.now_us = Micros(START + round(second * 1_000_000))
    return progress


def test_without_a_terminal_a_minute_of_silence_brings_a_sign_of_life(capsys: pytest.CaptureFixture[str]) -> None:
    view, trouble = View(as_json=True), Progress(PIPELINE, EXECUTION, lost_after=3)
    trouble.failure = PollFailure(Outcome.RATE_LIMITED, "429", NOON)

    def signs(*seconds: float, progress: Progress) -> list[str]:
        for second in seconds:
            view.show(at_second(progress, second))
        return capsys.readouterr().err.splitlines()

    assert signs(0, 61, progress=in_search()) == ["waiting: no execution has started yet · polls 0"]
    view.on_found(EXECUTION)
    running = progress_of(("running", 0))
    assert signs(5, 5.25, 64.9, progress=running) == []
    assert signs(65.1, 65.3, 124.9, progress=running) == ["waiting: running 1 m 5 s · polls 41"]
    assert len(signs(600, 600.25, 601, 659, progress=running)) == 1
    view.on_event(event_of("running"))
    assert signs(661, 719, progress=running) == []
    (sign,) = signs(721, progress=trouble)
    assert sign == f"waiting: not seen yet · polls 0 · API 429 since {NOON.astimezone():%H:%M}, retrying"
