"""Events on the command line, as they were recorded and as they come, against a real server with a cursor."""

import json
import os
import signal
from typing import Any

import pytest
from fake_daemon import Asked, FakeDaemon, Raw, Reply, status_view
from sample_events import HOSTILE, PIPELINE, execution_id, failed
from unit.cli.conftest import OnTerminal
from unit.conftest import Command

from watcher.cli.commands import operate
from watcher.web.models import EventView, ExecutionView, Page, Trouble
from watcher.web.overview import PipelineStatus


def page(*numbers: int, next_: str) -> Page[EventView]:
    """Return a page with the failures of these executions."""
    contents = (failed(number).content for number in numbers)
    return Page[EventView](items=[EventView.model_validate(content) for content in contents], next=next_)


def interrupt(_: Asked) -> Raw:
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)
    return Raw(0, b"")


@pytest.fixture(autouse=True)
def _served(served: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operate, "EVERY_S", 0.01)
    pipeline = PipelineStatus(
        account="eu", id=PIPELINE, name="Sales agent", state="well", whole=True, labels={"team": "a=b"}
    )
    served.replies["GET /status"] = status_view(pipelines=[pipeline])
    execution = {"account": "eu", "pipeline": {"id": PIPELINE}, "id": execution_id(1), "since": "2026-11-24T12:00:00Z"}
    served.replies["GET /executions"] = Page[ExecutionView](items=[ExecutionView.model_validate(execution)])
    served.replies["GET /events"] = [page(1, 2, next_="7"), page(next_="90"), page(3, next_="95"), page(next_="95")]


def subjects(out: str) -> list[str]:
    return [json.loads(line)["subject"][-1] for line in out.splitlines()]


def test_events_are_read_to_the_last_page_over_pages_with_none(daemon: FakeDaemon, command: Command) -> None:
    code, out, err = command("events", "--json", "--since", "2h")
    assert (code, subjects(out), err) == (0, ["1", "2", "3"], "")
    assert json.loads(out.splitlines()[0]) == failed(1).content
    afters = [dict(asked.query).get("after") for asked in daemon.asked]
    assert afters == [None, "7", "90", "95"]


@pytest.mark.parametrize(
    ("words", "query"),
    [
        ((), [("since", "1h")]),
        (("--execution", "9A1B"), [("execution", execution_id(1))]),
        (("--execution", execution_id(1)), [("execution", execution_id(1))]),
        (("--label", "!team=b"), [("label", "!team:b"), ("since", "1h")]),
        (("--type", "execution.*", "--type", "a.*"), [("type", "execution.*"), ("type", "a.*"), ("since", "1h")]),
        (("--pipeline", "s", "--label", "team=a=b"), [("pipeline", PIPELINE), ("label", "team:a=b"), ("since", "1h")]),
        (("--since", "2h"), [("since", "2h")]),
    ],
)
def test_the_last_hour_is_asked_for_or_what_the_options_say(
    words: tuple[str, ...], query: list[tuple[str, str]], daemon: FakeDaemon, command: Command
) -> None:
    assert command("events", *words)[0] == 0
    first, second, *_ = (asked for asked in daemon.asked if asked.path == "/events")
    assert sorted(first.query) == sorted([*query, ("limit", "200")])
    assert "since" not in dict(second.query)


def test_an_unknown_execution_is_not_found_unless_followed_it_may_start(daemon: FakeDaemon, command: Command) -> None:
    daemon.replies["GET /executions"] = Page[ExecutionView](items=[])
    said = f'error: no execution "{execution_id(2)}"; watcher events lists them\n'
    assert command("events", "--execution", execution_id(2)) == (5, "", said)
    assert dict(daemon.asked[0].query) == {"q": execution_id(2), "limit": "200"}
    daemon.replies["GET /events"] = [page(2, next_="7"), interrupt]
    assert command("events", "-f", "--execution", execution_id(2))[0] == 130
    assert dict(daemon.asked[1].query)["execution"] == execution_id(2)
    assert command("events", "-f", "--execution", "9a1b")[0] == 5


def test_piped_it_is_a_row_per_event_with_the_reason(daemon: FakeDaemon, command: Command) -> None:
    event = failed(1, error=HOSTILE).content
    daemon.replies["GET /events"] = [
        Page[EventView](items=[EventView.model_validate(event)], next="7"),
        page(next_="7"),
    ]
    head, row = (line.split("\t") for line in command("events")[1].splitlines())
    shown: dict[str, Any] = dict(zip(head, row, strict=True))
    assert (shown["type"], shown["subject"], shown["id"]) == ("execution.failed", event["subject"], event["id"])
    assert (shown["time"], shown["data.pipeline.id"]) == (event["time"], event["data"]["pipeline"]["id"])
    assert "\\x1b[31m" in shown["reason"]


def test_on_a_terminal_it_is_the_line_that_the_daemon_would_write(on_terminal: OnTerminal) -> None:
    lines = on_terminal("events", columns=160).splitlines()
    assert len(lines) == 3
    assert "✕ failed" in lines[0]
    assert failed(1).content["subject"] in lines[0]


CUTS: list[Reply] = [Raw(0, b""), Raw(502, b"<html>"), Trouble(title="not ready", status=503)]


@pytest.mark.parametrize("cut", CUTS, ids=["gone", "a proxy", "starting"])
def test_followed_it_goes_on_after_a_cut_without_gap(cut: Reply, daemon: FakeDaemon, command: Command) -> None:
    replies: list[Reply] = [page(1, next_="7"), page(next_="7"), cut, cut, page(2, next_="9"), page(3, next_="11")]
    daemon.replies["GET /events"] = [*replies, interrupt]
    code, out, err = command("events", "-f", "--json")
    assert (code, subjects(out)) == (130, ["1", "2", "3"])
    cut_at, back = err.splitlines()
    assert cut_at.startswith("warning: ")
    assert cut_at.endswith("; trying again every second")
    assert back == "warning: the daemon answers again; no event was missed"
    assert dict(daemon.asked[0].query)["since"] == "1ms"
    assert [dict(asked.query).get("after") for asked in daemon.asked] == [None, "7", "7", "7", "7", "9", "11"]


def test_a_filter_that_cannot_be_or_a_daemon_that_never_was_ends_it(daemon: FakeDaemon, command: Command) -> None:
    daemon.replies["GET /events"] = Raw(0, b"")
    assert command("events", "-f")[0] == 4
    daemon.replies["GET /events"] = [page(next_="7"), Trouble(title="No", status=400, detail="type: matches no event")]
    assert command("events", "-f") == (2, "", "error: type: matches no event\n")
