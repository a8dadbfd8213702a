"""The commands that ask the daemon for one thing, against a real server that answers with the models of its API."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_daemon import FakeDaemon
from unit.cli.commands.conftest import OnTerminal
from unit.conftest import Command

from watcher.web.models import (
    Acknowledgement,
    Delivery,
    Done,
    Page,
    PipelineStatus,
    Problem,
    Replayed,
    Silence,
    SinkStatus,
    Status,
    TestResult,
    Trouble,
)

AT = datetime(2026, 11, 24, 12, 0, 0, 500_000, tzinfo=UTC)
WRITTEN = "2026-11-24T12:00:00.500000Z"
ID, OTHER_ID = "3f2a0000-0000-4000-8000-000000000001", "3f2b0000-0000-4000-8000-000000000002"
PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
EXECUTION = "9a1b0000-0000-4000-8000-000000000001"
EVENT = "11111111-0000-4000-8000-000000000001"


def problem(id_: str = ID, **fields: Any) -> Problem:
    given = {"kind": "pipeline.failing", "severity": "critical", "title": "Sales agent keeps failing"}
    return Problem.model_validate({"id": id_, "reason": "Greeting: timeout", "opened_at": AT, **given, **fields})


def delivery(number: int = 1204, **fields: Any) -> Delivery:
    given = {"type": "execution.failed", "execution": EXECUTION, "state": "dead", "attempts": 9, "answer": "503 busy"}
    return Delivery.model_validate(
        {"id": str(number), "sink": "ops", "event": EVENT, "recorded_at": AT, **given, **fields}
    )


def status(*, dead: int = 14) -> Status:
    pipelines = [
        PipelineStatus(account="eu", id=PIPELINE, name="Sales agent", state="well", whole=True),
        PipelineStatus(account="eu", id="77aa0000-0000-4000-8000-000000000000", state="well", whole=False),
    ]
    sinks = [SinkStatus(name="ops", type="webhook", state="well", dead=dead)]
    return Status(version="1", needs=[], open={}, pipelines=pipelines, sinks=sinks, accounts=[], silences=[])


@pytest.fixture(autouse=True)
def _served(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, alone: None) -> None:
    monkeypatch.setenv("WATCHER_URL", daemon.url)
    monkeypatch.setenv("USER", "ada")
    taken = problem(OTHER_ID, title="[red]Onboard\x1b[31ming", severity="warning")
    daemon.replies |= {
        "GET /problems": [Page[Problem](items=[problem()], next="x"), Page[Problem](items=[taken])],
        "GET /deliveries": Page[Delivery](items=[delivery()]),
        "GET /status": status(),
    }


def test_problems_are_read_page_by_page_and_piped_whole(daemon: FakeDaemon, command: Command) -> None:
    code, out, _ = command("problems", "--state", "all")
    head, first, second = (line.split("\t") for line in out.splitlines())
    assert (code, head[:4]) == (0, ["id", "severity", "openedAt", "title"])
    assert first[:5] == [ID, "critical", WRITTEN, "Sales agent keeps failing", "Greeting: timeout"]
    assert second[3] == "[red]Onboard\\x1b[31ming"
    queries = [[("state", "all"), ("limit", "200")], [("state", "all"), ("limit", "200"), ("after", "x")]]
    assert [asked.query for asked in daemon.asked] == queries


def test_on_a_terminal_a_list_is_a_table_that_is_cut_to_width_and_obeys_nothing(
    daemon: FakeDaemon, on_terminal: OnTerminal
) -> None:
    lines = on_terminal("problems", columns=90, WATCHER_URL=daemon.url).splitlines()
    assert [line for line in lines if len(line) > 90] == []
    assert lines[0].split()[:4] == ["id", "severity", "opened", "title"]
    assert re.match(r"3f2a0000  ✕ critical  .*\d+ [dhm]", lines[1])
    assert "! warning" in lines[2]
    assert r"[red]Onb" in lines[2]


def test_on_a_terminal_problems_say_what_closes_them_and_since_when_no_execution_has_ended(
    daemon: FakeDaemon, on_terminal: OnTerminal
) -> None:
    ended_at = datetime.now(UTC) - timedelta(hours=3)
    several = [
        problem(closes_when="3 in a row succeeded", last_ended_at=ended_at, count=28),
        problem(OTHER_ID, closes_when="3 in a row succeeded"),
        problem(EXECUTION, closes_when="3 in a row succeeded", closed_at=AT),
    ]
    daemon.replies["GET /problems"] = Page[Problem](items=several)
    lines = on_terminal("problems", columns=120, WATCHER_URL=daemon.url).splitlines()
    assert lines[0].split()[-2:] == ["closed", "count"]
    assert lines[1].split()[-1] == "28"
    assert lines[4:] == [
        "3f2a0000 closes when 3 in a row succeeded; no execution has ended for 3 h",
        "3f2b0000 closes when 3 in a row succeeded",
    ]


def test_on_a_terminal_no_more_is_shown_than_somebody_reads(daemon: FakeDaemon, on_terminal: OnTerminal) -> None:
    daemon.replies["GET /deliveries"] = Page[Delivery](items=[delivery(number) for number in range(60)])
    lines = on_terminal("deliveries", WATCHER_URL=daemon.url).splitlines()
    assert (len(lines), lines[-1]) == (52, "hint: these are the first 50; piped, all are printed")
    daemon.replies["GET /deliveries"] = Page[Delivery](items=[])
    assert on_terminal("deliveries", WATCHER_URL=daemon.url) == "none\n"


@pytest.mark.parametrize("id_", [ID, "3f2a", "Sales"])
def test_a_problem_is_acknowledged_by_the_beginning_of_its_id(id_: str, daemon: FakeDaemon, command: Command) -> None:
    until = datetime.now().astimezone().replace(hour=23, minute=59)
    daemon.replies[f"POST /problems/{ID}/ack"] = problem(acknowledged=Acknowledgement(at=AT, until=until))
    code, out, _ = command("ack", id_, "--for", "2h", "--comment", "mine")
    assert (code, out) == (
        0,
        "✓ acknowledged until 23:59: Sales agent keeps failing. Undo: watcher ack 3f2a0000 --undo\n",
    )
    assert daemon.asked[-1].body == {"for": "2h", "comment": "mine", "by": "ada"}


def test_an_acknowledgement_is_taken_back_and_with_json_the_answers_are_printed(
    daemon: FakeDaemon, command: Command
) -> None:
    daemon.replies[f"DELETE /problems/{ID}/ack"] = problem()
    assert command("ack", "3f2a", "--undo")[:2] == (0, "✓ no longer acknowledged: Sales agent keeps failing\n")
    daemon.replies[f"POST /problems/{ID}/ack"] = problem(acknowledged=Acknowledgement(at=AT))
    daemon.replies["GET /problems"] = Page[Problem](items=[problem(), problem(OTHER_ID)])
    code, out, _ = command("ack", "3f2a", "--json")
    assert (code, json.loads(out)["acknowledged"]) == (0, {"at": WRITTEN})
    code, out, _ = command("problems", "--json")
    assert (code, [json.loads(line)["id"] for line in out.splitlines()]) == (0, [ID, OTHER_ID])


@pytest.mark.parametrize(
    ("id_", "code", "said"),
    [
        ("3f2", 2, f"error: 3f2 is too short; so begin: {ID} Sales agent keeps failing; {OTHER_ID} "),
        ("3f", 2, "error: 3f is too short"),
        ("ffff", 5, "error: there is none that begins with ffff\n"),
    ],
)
def test_a_beginning_of_several_problems_or_of_none_acknowledges_nothing(
    id_: str, code: int, said: str, daemon: FakeDaemon, command: Command
) -> None:
    ended, out, err = command("ack", id_)
    assert (ended, out, err.startswith(said)) == (code, "", True)
    assert {asked.method for asked in daemon.asked} == {"GET"}


def test_a_silence_says_how_much_it_concerns_and_how_to_end_it(daemon: FakeDaemon, command: Command) -> None:
    until = datetime(2030, 12, 24, 12, tzinfo=UTC)
    made = {"id": "3", "match": {"sinks": ["phone"]}, "until": until, "active": True, "pipelines": 1}
    daemon.replies["POST /silences"] = Silence.model_validate(made)
    options = ("--label", "team=sales", "--label", "env=a=b", "--sink", "phone", "--event", "execution.*")
    code, out, _ = command("silence", *options, "--for", "2h", "--comment", "deploy")
    shown = f"{until.astimezone():%Y-%m-%d %H:%M}"
    assert (code, out) == (0, f"✓ silenced until {shown} (1 of 2 pipelines). Undo: watcher silence --end 3\n")
    match = {"labels": {"team": "sales", "env": "a=b"}, "events": ["execution.*"], "sinks": ["phone"]}
    assert daemon.asked[0].body == {"match": match, "for": "2h", "comment": "deploy", "by": "ada"}


def test_silences_are_listed_and_ended(daemon: FakeDaemon, command: Command) -> None:
    weekly = {"days": ["sat", "sun"], "from": "20:00", "to": "08:00", "timezone": "Europe/Berlin"}
    given = [
        {"id": "3", "match": {"labels": {"team": "sales"}, "sinks": ["a", "b"]}, "until": AT, "active": True},
        {"match": {"events": ["*"]}, "weekly": weekly, "active": False, "comment": "nobody\tis paged"},
    ]
    daemon.replies["GET /silences"] = Page[Silence](
        items=[Silence.model_validate({**each, "pipelines": 2}) for each in given]
    )
    daemon.replies["DELETE /silences/3"] = Silence.model_validate({**given[0], "pipelines": 2})
    _, first, second = command("silence", "--list")[1].splitlines()
    assert first.split("\t")[:2] == ["3", "yes"]
    assert "labels=team=sales sinks=a,b" in first
    assert "\tdays=sat,sun from=20:00 to=08:00 timezone=Europe/Berlin\t2\tevents=*\t\tnobody is paged" in second
    assert command("silence", "--end", "3")[:2] == (0, "✓ silence 3 has ended\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("silence", "--label", "team=sales"), "silence needs --for, such as --for 2h; or write --list, or --end ID"),
        (("silence", "--for", "2h", "--label", "team"), "--label: write KEY=VALUE, such as --label team=sales"),
        (
            ("replay", "--sink", "ops", "--state", "dead"),
            "replay asks before it sends, and this is no terminal; add --yes",
        ),
    ],
)
def test_what_cannot_be_meant_is_a_mistake_of_usage(words: tuple[str, ...], said: str, command: Command) -> None:
    assert command(*words) == (2, "", f"error: {said}\n")


def test_deliveries_are_listed_by_state_and_sink(daemon: FakeDaemon, command: Command) -> None:
    code, out, _ = command("deliveries", "--state", "dead", "--sink", "ops")
    row = ["1204", "execution.failed", EXECUTION, "ops", "dead", "9", "503 busy", WRITTEN, "", EVENT]
    assert (code, out.splitlines()[1].split("\t")) == (0, row)
    assert daemon.asked[0].query == [("state", "dead"), ("sink", "ops"), ("limit", "200")]


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (("--state", "dead"), {"sink": "ops", "state": "dead"}),
        (("1204", "1207"), {"sink": "ops", "ids": ["1204", "1207"]}),
    ],
)
def test_dead_letters_are_sent_again_without_a_question_with_yes(
    words: tuple[str, ...], body: dict[str, Any], daemon: FakeDaemon, command: Command
) -> None:
    daemon.replies["POST /deliveries/replay"] = Replayed(replayed=2)
    assert command("replay", "--sink", "ops", "--yes", *words)[:2] == (0, "✓ sent again to ops: 2\n")
    assert daemon.asked[-1].body == body


@pytest.mark.parametrize(("typed", "asked"), [("y\n", 2), ("n\n", 1), ("\n", 1)])
def test_on_a_terminal_it_asks_first(typed: str, asked: int, daemon: FakeDaemon, on_terminal: OnTerminal) -> None:
    daemon.replies["POST /deliveries/replay"] = Replayed(replayed=14)
    shown = on_terminal("replay", "--sink", "ops", "--state", "dead", typed=typed, WATCHER_URL=daemon.url)
    assert "14 deliveries to ops will be sent again under the same ids. Continue? [y/N]" in shown
    assert len(daemon.asked) == asked
    assert ("✓ sent again to ops: 14" in shown) is (asked == 2)


@pytest.mark.parametrize("words", ["Sales agent", "0b5c8f1e", PIPELINE])
def test_the_list_of_a_pipeline_is_read_at_once(words: str, daemon: FakeDaemon, command: Command) -> None:
    daemon.replies[f"POST /pipelines/eu/{PIPELINE}/scan"] = Done(done=False)
    assert command("scan", words)[:2] == (0, "✓ its list is read as soon as possible: Sales agent\n")


def test_a_sink_is_enabled(daemon: FakeDaemon, command: Command) -> None:
    daemon.replies["POST /sinks/o%20ps/enable"] = [Done(done=True), Done(done=False)]
    assert command("enable-sink", "o ps")[:2] == (0, "✓ o ps is enabled; what waits for it is sent\n")
    assert "o ps will be enabled once a daemon owns it; what" in command("enable-sink", "o ps")[1]
    daemon.replies["POST /sinks/nope/enable"] = Trouble(title="No", status=404, detail="no such sink")
    assert command("enable-sink", "nope") == (5, "", "error: no such sink\n")


@pytest.mark.parametrize(
    ("result", "code", "said"),
    [
        (TestResult(delivered=True, answer="200", took_ms=83.6), 0, "✓ ops: 200 in 84 ms\n"),
        (
            TestResult(delivered=False, answer="404 no_service", took_ms=84, remedy="Make a new webhook."),
            1,
            "✕ ops: 404 no_service in 84 ms. Make a new webhook.\n",
        ),
    ],
)
def test_a_test_message_says_what_was_answered(
    result: TestResult, code: int, said: str, daemon: FakeDaemon, command: Command
) -> None:
    daemon.replies["POST /sinks/ops/test"] = result
    assert command("test-sink", "ops") == (code, said, "")
    ended, out, _ = command("test-sink", "ops", "--json")
    assert (ended, json.loads(out)["delivered"]) == (code, result.delivered)


def test_what_comes_is_shown_by_how_soon(daemon: FakeDaemon, on_terminal: OnTerminal) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=5)
    daemon.replies["GET /deliveries"] = Page[Delivery](items=[delivery(state="retrying", next_try_at=soon)])
    assert re.search(r"! retrying .*in 4 m \d+ s", on_terminal("deliveries", columns=160, WATCHER_URL=daemon.url))
