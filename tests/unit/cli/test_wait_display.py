"""What a wait shows: lines that fit, say what matters, and obey nothing the API said."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from watcher.cli.next_execution import NextSearch
from watcher.cli.wait import PollFailure, Progress, StatusPeriod, View, WaitResult, change_line, picture
from watcher.domain.errors import Exit
from watcher.domain.event import Event, EventType
from watcher.domain.execution import ExecutionSnapshot, Outcome
from watcher.domain.timestamps import Micros
from watcher.runtime.terminal import harmless

PIPELINE, EXECUTION = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f", "9a1b0000-0000-4000-8000-000000000001"
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


def searching() -> Progress:
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


def test_the_picture_of_an_end_says_how_long_it_took_why_it_failed_and_the_exit_code() -> None:
    progress = progress_of(
        ("new", -3), ("running", 0), ("failed", 151), execution=FAILED, ending=WaitResult(Exit.FAILED), why="why"
    )
    assert shown(progress) == [
        "✕ failed after 2 m 31 s   Sales agent · 9a1b0000-0000-4000-8000-000000000001",
        "  new 3 s → running 2 m 31 s → failed",
        "  polls 41 · exit 1",
        "  why",
    ]


def test_an_end_without_times_took_as_long_as_it_was_watched_and_a_loss_is_shown_in_words() -> None:
    execution = ExecutionSnapshot(EXECUTION, "success")
    progress = progress_of(("running", 0), ("success", 9), execution=execution, ending=WaitResult(Exit.DONE))
    assert shown(progress)[0].startswith("✓ success after 9 s   pipeline 0b5c8f1e · ")
    assert len(shown(progress)) == 3
    progress = progress_of(("running", 0), ("lost", 9), execution=RUNNING, ending=WaitResult(Exit.FAILED))
    assert shown(progress)[0].startswith("✕ lost after 9 s")
    assert shown(progress)[-1] == "  Clerk Chat no longer knows it"


def test_an_execution_that_is_not_seen_yet_is_called_by_its_ids() -> None:
    progress = Progress(PIPELINE, EXECUTION, lost_after=3)
    assert shown(progress, next_s=None) == [
        "· not seen yet   pipeline 0b5c8f1e · 9a1b0000-0000-4000-8000-000000000001",
        "  polls 0 · polling",
    ]
    progress.failure, progress.missing_count = PollFailure(Outcome.NOT_FOUND, "404", NOON), 1
    assert shown(progress)[-1] == "  not known yet (404), 1 of 3 answers"


def test_a_search_says_that_nothing_has_started_and_that_no_passing_error_ends_it_once_the_list_was_read() -> None:
    progress = searching()
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

    assert signs(0, 61, progress=searching()) == ["waiting: no execution has started yet · polls 0"]
    view.on_found(EXECUTION)
    running = progress_of(("running", 0))
    assert signs(5, 5.25, 64.9, progress=running) == []
    assert signs(65.1, 65.3, 124.9, progress=running) == ["waiting: running 1 m 5 s · polls 41"]
    assert len(signs(600, 600.25, 601, 659, progress=running)) == 1
    view.on_event(event_of("running"))
    assert signs(661, 719, progress=running) == []
    (sign,) = signs(721, progress=trouble)
    assert sign == f"waiting: not seen yet · polls 0 · API 429 since {NOON.astimezone():%H:%M}, retrying"
