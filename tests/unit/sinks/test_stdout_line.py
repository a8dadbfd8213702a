"""One event as a line for people."""

import os
import pty
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from examples import EVENT
from sample_events import BLANKS, LATEST

from watcher.sinks.stdout import event_console, event_line, render


def test_a_line_says_what_failed_where_why_and_how_soon_it_was_seen() -> None:
    line = event_line(EVENT, note="  signature ok").plain
    assert "✕ failed   Sales agent          9a1b…0001  ran 5.1 s   seen after 0.4 s   signature ok" in line
    assert line.endswith("  Greeting: [red]upstream timeout")


def test_a_whole_id_is_shown_where_it_can_be_copied() -> None:
    assert f" {EVENT['subject']}  ran 5.1 s " in event_line(EVENT, whole_ids=True).plain


@pytest.mark.parametrize(("columns", "whole"), [(119, False), (120, True)])
def test_a_terminal_shows_whole_ids_if_it_is_wide(
    columns: int, whole: bool, terminal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    line = render(EVENT, console=event_console(terminal)).decode()
    assert (EVENT["subject"] in line) is whole


def test_whoever_is_no_terminal_is_shown_whole_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        assert EVENT["subject"] in render(EVENT, console=event_console(nowhere.fileno())).decode()


def test_a_line_of_what_the_api_does_not_date_says_within_what_time_it_happened() -> None:
    observed = {"at": "2026-11-24T10:00:01.000Z", "notBefore": "2026-11-24T10:00:00.700Z"}
    event = EVENT | {"type": "execution.paused", "data": EVENT["data"] | {"observed": observed}}
    assert "seen within 0.3 s" in event_line(event).plain
    del observed["notBefore"]
    assert "seen" not in event_line(event).plain


def test_a_line_of_an_account_needs_no_execution() -> None:
    data = {"account": "eu", "observed": {"at": "2026-11-24T10:00:01.000Z"}}
    event = EVENT | {"type": "account.degraded", "data": data}
    assert "✕ degraded eu" in event_line(event).plain


def test_a_line_of_a_reminder_has_its_own_time_and_not_that_of_what_it_reminds_of() -> None:
    event = EVENT | {"type": "problem.reminder", "time": "2026-11-24T14:00:07.000Z"}
    line = event_line(event).plain
    assert line.startswith(f"{datetime.fromisoformat(event['time']).astimezone():%H:%M:%S} ")
    assert "seen" not in line


def test_an_error_without_a_node_is_shown_too() -> None:
    data = EVENT["data"] | {"execution": {"id": "9", "status": "failed", "error": "out of credit"}}
    assert "out of credit" in event_line(EVENT | {"data": data}).plain


@pytest.mark.parametrize(
    ("type_", "data", "shown"),
    [
        ("account.recovered", {"account": "eu", "reason": "unauthorized"}, "✓ recovered eu "),
        ("account.degraded", {"account": "eu", "reason": "unreachable", "cause": "dns"}, "  unreachable, dns"),
        ("pipeline.active", {"account": "eu", "reason": "x"}, "✓ pipeline.active eu "),
        ("problem.closed", {"account": "eu", "reason": "removed"}, "✓ problem.closed eu "),
        ("sink.failing", {"sink": "ops", "answer": "503"}, "✕ sink.failing ops "),
        (
            "pipeline.gap",
            {"account": "eu", "pipeline": {"id": "0b5c", "name": "Sales"}, "reason": "deleted"},
            "! pipeline.gap Sales ",
        ),
    ],
)
def test_a_line_of_the_watcher_itself_says_whose_it_is_and_why(type_: str, data: dict[str, Any], shown: str) -> None:
    event = EVENT | {"type": type_, "data": data | {"observed": {"at": "2026-11-24T10:00:01.000Z"}}}
    line = event_line(event).plain
    assert shown in line
    assert line.endswith(data.get("reason") or data["answer"]) or data.get("cause", "-") in line


@pytest.mark.parametrize("blank", BLANKS)
def test_a_name_or_an_error_that_nobody_sees_is_left_out(blank: str) -> None:
    nodes = [{"id": "n1", "name": blank, "error": "timeout"}]
    data = EVENT["data"] | {"pipeline": {"name": blank}, "execution": {"failedNodes": nodes}}
    line = event_line(EVENT | {"data": data}).plain
    assert "✕ failed   default " in line
    assert line.endswith("  timeout")


def test_nothing_the_api_said_is_obeyed_by_a_terminal() -> None:
    data = EVENT["data"] | {"pipeline": {"name": "a\x1b[2Jb\nc"}}
    assert "a\\x1b[2Jb c" in event_line(EVENT | {"data": data}).plain


@pytest.fixture
def terminal() -> Iterator[int]:
    ours, theirs = pty.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)


def test_a_reminder_says_why_the_newest_failure_failed_and_nothing_of_the_first() -> None:
    line = event_line({**EVENT, "type": "problem.reminder", "data": {**EVENT["data"], "latest": LATEST}}).plain
    assert line.endswith("Lookup: upstream returned 404")
    assert "ran" not in line
