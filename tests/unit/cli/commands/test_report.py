"""`watcher report`, against a real server that answers with the models of its API."""

import json
from typing import Any

import pytest
from fake_daemon import FakeDaemon
from sample_events import report_block
from unit.cli.conftest import OnTerminal
from unit.conftest import Command

from watcher.sinks.alert import report_title
from watcher.sinks.report import report_lines, report_span
from watcher.web.report import Report


@pytest.fixture(autouse=True)
def _served(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, alone: None) -> None:
    monkeypatch.setenv("WATCHER_URL", daemon.url)
    daemon.replies["GET /report"] = Report.model_validate(report_block(name="[red]Sal\x1b[31mes"))


def shown() -> dict[str, Any]:
    """Return the report as the API gives it, which knows no zone."""
    return {key: value for key, value in report_block(name="[red]Sal\x1b[31mes").items() if key != "timezone"}


def test_on_a_terminal_a_report_is_the_lines_of_the_message(daemon: FakeDaemon, on_terminal: OnTerminal) -> None:
    out = on_terminal("report", columns=200, WATCHER_URL=daemon.url)
    lines = [report_title(shown()), *report_lines(shown(), limit=10**6), report_span(shown()), shown()["link"]]
    assert out.splitlines() == lines
    assert "\x1b[31m" not in out


def test_piped_a_report_is_a_row_for_each_pipeline(daemon: FakeDaemon, command: Command) -> None:
    code, out, _ = command("report", "--last", "7d")
    head, row = (line.split("\t") for line in out.splitlines())
    found = dict(zip(head, row, strict=True))
    assert (code, found["needsLook"], found["state"], found["ended"]) == (0, "yes", "failing", "342")
    assert (found["successRate"], found["error.count"], found["error.text"]) == ("0.9122", "12", "upstream timeout")
    assert daemon.asked[0].query == [("last", "7d")]


def test_as_json_a_report_is_the_document(command: Command) -> None:
    code, out, _ = command("report", "--json")
    assert (code, json.loads(out)["total"]["failed"]) == (0, 30)
