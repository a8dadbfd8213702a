"""The first view on the command line, against a real server."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_daemon import FakeDaemon, Raw, status_view
from unit.cli.conftest import OnTerminal
from unit.conftest import Command

from watcher.web.overview import AccountStatus, Need, PipelineStatus, SinkStatus, StatusView

NOW = datetime.now(UTC)
AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"


def need(number: int = 1, **fields: Any) -> Need:
    given = {
        "kind": "problem",
        "severity": "critical",
        "reason": "Greeting: \x1b[31mtimeout",
        "since": NOW - timedelta(days=4),
        "page": "/",
    }
    return Need.model_validate({"title": f"Sales agent {number} keeps failing", **given, **fields})


def status(*needs: Need) -> StatusView:
    well = PipelineStatus(
        account="eu", id=PIPELINE, name="Onboarding", state="unknown", unknown_since=AT, whole=True, open={"running": 2}
    )
    failing = well.model_copy(
        update={
            "name": "Sales agent",
            "state": "failing",
            "unknown_since": None,
            "open": {"running": 1_102, "new": 41},
            "oldest": {"running": AT, "new": NOW},
            "ends": ("success",) * 57 + ("failed",) * 3,
            "last_failed_at": NOW - timedelta(minutes=2),
            "problems": ("pipeline.failing",),
        }
    )
    sinks = [SinkStatus(name="ops", type="webhook", state="failing", waiting=14, dead=2, answer="503 busy")]
    accounts = [
        AccountStatus(name="eu", state="degraded", reason="unauthorized", needed=7.1, used=5, allowed=5, pipelines=2)
    ]
    counts = {"new": 41, "running": 1_104, "paused": 0}
    since = NOW - timedelta(hours=2)
    return status_view(
        version="1.2",
        needs=needs,
        open=counts,
        unknown=1,
        unknown_since=since,
        pipelines=[failing, well],
        sinks=sinks,
        accounts=accounts,
    )


@pytest.fixture(autouse=True)
def _served(served: FakeDaemon) -> None:
    served.replies["GET /status"] = status(need())


def test_piped_it_is_a_row_per_pipeline_then_what_needs_somebody_or_json(daemon: FakeDaemon, command: Command) -> None:
    daemon.replies["GET /status"] = status(need(count=28, problems=[PIPELINE]))
    code, out, _ = command("status")
    head, failing, _, empty, *needs = (line.split("\t") for line in out.splitlines())
    row = dict(zip(head, failing, strict=True))
    assert (code, row["id"], row["name"], row["state"]) == (0, PIPELINE, "Sales agent", "failing")
    assert (row["open.new"], row["open.running"], row["open.paused"]) == ("41", "1102", "")
    assert (row["oldest"], row["succeeded"]) == ("2026-11-24T12:00:00Z", "57 of 60")
    assert empty == [""]
    its = dict(zip(*needs, strict=True))
    assert (its["severity"], its["title"], its["failed"]) == ("critical", "Sales agent 1 keeps failing", "28")
    daemon.replies["GET /status"] = status()
    assert len(command("status")[1].splitlines()) == 3
    assert json.loads(command("status", "--json")[1])["version"] == "1.2"


@pytest.mark.parametrize(
    ("needs", "code"),
    [((), 0), ((need(),), 1), ((need(acknowledged=True),), 0), ((need(acknowledged=True), need()), 1)],
)
def test_it_fails_on_what_nobody_took(needs: tuple[Need, ...], code: int, daemon: FakeDaemon, command: Command) -> None:
    daemon.replies["GET /status"] = status(*needs)
    assert command("status", "--fail-on", "attention")[0] == code
    assert command("status")[0] == 0


def test_on_a_terminal_needs_come_first_then_failures(daemon: FakeDaemon, on_terminal: OnTerminal) -> None:
    daemon.replies["GET /status"] = status(*map(need, range(12)), need(12, acknowledged=True))
    shown = on_terminal("status", columns=120)
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines.pop(1).startswith("? 1 of 2 pipelines unknown for 2 h")
    assert lines[:3] == [
        "clerk-watcher 1.2 open 1,145: ○ new 41 ▶ running 1,104 ‖ paused 0",
        "✕ 12 need you",
        "severity since title",
    ]
    assert re.fullmatch(r"✕ critical \d+ d.* Sales agent 0 keeps failing", lines[3])
    assert lines[4] == r"Greeting: \x1b[31mtimeout"
    assert "and 3 more: watcher problems" in lines
    parts = (
        "✕ failing Sales agent 41 1102",
        "? unknown Onboarding",
        "✕ failing ops 14 2 503 busy",
        "✕ degraded eu 5.0 7.1",
    )
    found = [next(place for place, line in enumerate(lines) if line.startswith(part)) for part in parts]
    assert found == sorted(found)
    assert [line for line in shown.splitlines() if len(line) > 120] == []
    daemon.replies["GET /status"] = status(
        need(title="Sink crm: 1,200 dead letters", count=1_200), need(count=28, problems=[PIPELINE])
    )
    shown = on_terminal("status", columns=120)
    assert re.search("d +Sink crm: 1,200 dead letters", shown)
    assert re.search(" 28 +Sales agent 1 keeps failing", shown)


def test_where_nothing_needs_anybody_it_says_so(daemon: FakeDaemon, on_terminal: OnTerminal) -> None:
    nothing = status()
    daemon.replies["GET /status"] = nothing
    shown = on_terminal("status")
    assert ("nothing needs you" in shown, "1 of 2 pipelines unknown" in shown) == (False, True)
    daemon.replies["GET /status"] = nothing.model_copy(update={"unknown": 0})
    assert "✓ nothing needs you\n" in on_terminal("status")


def test_a_watch_survives_failed_requests_and_gives_the_cursor_back(
    daemon: FakeDaemon, on_terminal: OnTerminal
) -> None:
    daemon.replies["GET /status"] = [status(), Raw(0, b""), status(*map(need, range(33)))]
    shown = on_terminal("status", "--watch", columns=120, until="33 need you")
    assert f"no daemon answers at {daemon.url} (no answer)" in shown
    assert "✕ not live since " in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("33 need you")


def test_a_watch_needs_a_terminal(command: Command) -> None:
    said = "error: --watch needs a terminal; elsewhere follow the events: watcher events -f\n"
    assert command("status", "--watch") == (2, "", said)
