"""The history of pipelines and the report on the command line, against a real server with the models of its API."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_daemon import FakeDaemon, Raw, status_view
from sample_events import report_block
from unit.cli.conftest import OnTerminal
from unit.conftest import Command

from watcher.sinks.alert import report_title
from watcher.sinks.report import report_lines, report_span
from watcher.web.history import EndCounts, ErrorCount, History, HistoryPeriod
from watcher.web.models import PipelineRef, Trouble
from watcher.web.overview import PipelineStatus
from watcher.web.report import Report

START = datetime(2026, 11, 24, 2, tzinfo=UTC)
SALES, ONBOARDING, IDLE = (f"0b5c8f1{digit}-2c3a-4f1e-9d8a-7e6b5a4c3d2f" for digit in "abc")
NAMES = {SALES: "Sales agent", ONBOARDING: "Onboarding", IDLE: None}


def period(hour: int = 0, success: int = 0, failed: int = 0, **fields: Any) -> HistoryPeriod:
    from_ = START + timedelta(hours=hour)
    ran = {"median_seconds": 61.0, "p95_seconds": 151.0} if success else {}
    given = {"known": True, "started": success + failed, "tokens": 512 * success, **ran, **fields}
    ended = EndCounts(success=success, failed=failed)
    return HistoryPeriod(from_=from_, until=from_ + timedelta(hours=1), ended=ended, **given)


def history(id_: str, success: int, failed: int, **fields: Any) -> History:
    given = {
        "periods": [period(0, success, 0), period(1), period(2, 0, failed)],
        "total": period(0, success, failed),
        "errors": [],
    }
    pipeline, until = PipelineRef(id=id_, name=NAMES[id_]), START + timedelta(hours=3)
    return History(account="eu", pipeline=pipeline, from_=START, until=until, problems=[], **given | fields)


@pytest.fixture(autouse=True)
def _history_served(served: FakeDaemon) -> None:
    watched = [PipelineStatus(account="eu", id=id_, name=name, state="well", whole=True) for id_, name in NAMES.items()]
    served.replies["GET /status"] = status_view(pipelines=watched)
    of_each = (history(SALES, 300, 9), history(ONBOARDING, 4, 4), history(IDLE, 0, 0))
    served.replies |= {f"GET /pipelines/eu/{each.pipeline.id}/history": each for each in of_each}


def test_piped_it_is_a_row_for_each_hour_without_units(daemon: FakeDaemon, command: Command) -> None:
    code, out, _ = command("history", "sales", "--span", "7d")
    head, *rows = (line.split("\t") for line in out.splitlines())
    assert (code, len(rows), daemon.asked[-1].query) == (0, 3, [("span", "7d")])
    assert dict(zip(head, rows[0], strict=True)) == {
        "from": "2026-11-24T02:00:00Z",
        "until": "2026-11-24T03:00:00Z",
        "known": "yes",
        "started": "300",
        "ended.success": "300",
        "ended.failed": "0",
        "ended.unrecognized": "0",
        "medianSeconds": "61.0",
        "p95Seconds": "151.0",
        "tokens": "153600",
    }
    assert command("history", "sales")[0] == 0
    assert daemon.asked[-1].query == [("span", "24h")]


def test_csv_is_that_of_the_api(daemon: FakeDaemon, command: Command) -> None:
    daemon.replies[f"GET /pipelines/eu/{SALES}/history"] = Raw(200, "from,started\r\nä,3\r\n".encode())
    assert command("history", "sales", "--span", "7d", "--csv") == (0, "from,started\nä,3\n", "")
    assert daemon.asked[-1].query == [("span", "7d"), ("format", "csv")]
    daemon.replies[f"GET /pipelines/eu/{SALES}/history"] = Trouble(title="No", status=422, detail="format: no such key")
    assert command("history", "sales", "--csv")[0] == 2
    for words in (["--csv"], ["sales", "--csv", "--json"]):
        code, out, error = command("history", *words)
        assert (code, out) == (2, "")
        assert "--csv is for the history of one PIPELINE" in error


def test_on_a_terminal_hours_have_bars_also_without_these_signs(daemon: FakeDaemon, on_terminal: OnTerminal) -> None:
    last_at = datetime.now(UTC) - timedelta(hours=2)
    error = ErrorCount(fingerprint="", node="Greeting", text="timeout \x1b[31m", count=9, last_at=last_at, is_new=True)
    given = {"before": period(0, 309, 0), "rate_has_changed": True, "errors": [error]}
    daemon.replies[f"GET /pipelines/eu/{SALES}/history"] = history(SALES, 300, 9, **given)
    shown = on_terminal("history", "Sales agent", columns=100)
    assert [" ".join(line.split()) for line in shown.splitlines()] == [
        "Sales agent: 97.1 % of 309 succeeded in the last 24h, down from 100 %",
        "",
        "utc ended started succeeded failed rate median p95 tokens",
        "11-24 02:00 ████████ 300 300 0 100 % 1 m 1 s 2 m 31 s 153600",
        "11-24 04:00 ✕ 9 0 9 0.0 %",
        "total 309 300 9 97.1 % 1 m 1 s 2 m 31 s 153600",
        "",
        "count is new node text last",
        r"9 yes Greeting timeout \x1b[31m 2 h",
    ]
    shown = on_terminal("history", "Onboarding", columns=100, PYTHONIOENCODING="ascii")
    bars = [line.split()[2] for line in shown.splitlines()[3:5]]
    assert bars == ["########", "xxxxxxxx"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "none ended in the last 24h"),
        ({"known_from": START - timedelta(days=9)}, "none ended in the last 24h"),
        ({"known_from": START + timedelta(minutes=5)}, "none ended in the last 24h; complete since 11-24 02:05 UTC"),
        ({"total": period(known=False)}, "not watched"),
        (
            {"total": period(0, 50, 50), "before": period(0, 10, 90), "rate_has_changed": True},
            "50.0 % of 100 succeeded in the last 24h, up from 10.0 %",
        ),
        ({"total": period(0, 51, 49), "before": period(0, 50, 50)}, "51.0 % of 100 succeeded in the last 24h"),
        ({"total": period(0, 9_999, 1)}, "99.9 % of 10,000 succeeded in the last 24h"),
    ],
)
def test_the_first_line_says_how_many_succeeded_and_how_it_was_if_that_differs(
    fields: dict[str, Any], words: str, daemon: FakeDaemon, on_terminal: OnTerminal
) -> None:
    daemon.replies[f"GET /pipelines/eu/{IDLE}/history"] = history(IDLE, 0, 0, **fields)
    shown = on_terminal("history", IDLE[:8])
    assert shown.splitlines()[0] == f"{IDLE}: {words}"


@pytest.fixture(autouse=True)
def _report_served(served: FakeDaemon) -> None:
    served.replies["GET /report"] = Report.model_validate(report_block(name="[red]Sal\x1b[31mes"))


def shown() -> dict[str, Any]:
    """Return the report as the API gives it, which knows no zone."""
    return {key: value for key, value in report_block(name="[red]Sal\x1b[31mes").items() if key != "timezone"}


def test_a_report_is_rows_or_the_lines_of_its_message(
    daemon: FakeDaemon, command: Command, on_terminal: OnTerminal
) -> None:
    code, out, _ = command("report", "--last", "7d")
    head, row = (line.split("\t") for line in out.splitlines())
    found = dict(zip(head, row, strict=True))
    assert (code, found["needsLook"], found["state"], found["ended"]) == (0, "yes", "failing", "342")
    assert (found["successRate"], found["error.count"], found["error.text"]) == ("0.9122", "12", "upstream timeout")
    assert daemon.asked[0].query == [("last", "7d")]
    out = on_terminal("report", columns=200)
    lines = [report_title(shown()), *report_lines(shown(), limit=10**6), report_span(shown()), shown()["link"]]
    assert out.splitlines() == lines
    assert "\x1b[31m" not in out


def test_with_json_history_and_report_are_what_the_api_answers(command: Command) -> None:
    assert json.loads(command("history", "sales", "--json")[1])["total"]["ended"]["failed"] == 9
    code, out, _ = command("report", "--json")
    assert (code, json.loads(out)["total"]["failed"]) == (0, 30)
