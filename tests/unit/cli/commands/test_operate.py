"""The commands that ask the daemon for one thing, against a real server that answers with the models of its API."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from fake_daemon import FakeDaemon, status_view
from unit.cli.conftest import OnTerminal
from unit.conftest import Command

from watcher.cli import daemon_client
from watcher.sinks.settings import SilenceMatch
from watcher.web.models import (
    Acknowledgement,
    DeliveryView,
    Done,
    Page,
    ProblemDetail,
    ProblemView,
    Replayed,
    Sent,
    SilenceView,
    TestResult,
    Told,
    Trouble,
)
from watcher.web.overview import AccountStatus, Need, PipelineStatus, SinkStatus, StatusView

AT = datetime(2026, 11, 24, 12, 0, 0, 500_000, tzinfo=UTC)
WRITTEN = "2026-11-24T12:00:00.500000Z"
ID, OTHER_ID = "3f2a0000-0000-4000-8000-000000000001", "3f2b0000-0000-4000-8000-000000000002"
PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
UNNAMED = "77aa0000-0000-4000-8000-000000000000"
EXECUTION = "9a1b0000-0000-4000-8000-000000000001"
EVENT = "11111111-0000-4000-8000-000000000001"


def problem(id_: str = ID, **fields: Any) -> ProblemView:
    given = {"kind": "pipeline.failing", "severity": "critical", "title": "Sales agent keeps failing"}
    return ProblemView.model_validate({"id": id_, "reason": "Greeting: timeout", "opened_at": AT, **given, **fields})


def delivery(number: int = 1204, **fields: Any) -> DeliveryView:
    given = {"type": "execution.failed", "execution": EXECUTION, "state": "dead", "attempts": 9, "answer": "503 busy"}
    return DeliveryView.model_validate(
        {"id": str(number), "sink": "ops", "event": EVENT, "recorded_at": AT, **given, **fields}
    )


def status(*more: PipelineStatus, dead: int = 14) -> StatusView:
    labels = {"team": "sales", "env": "a=b"}
    pipelines = [
        PipelineStatus(account="eu", id=PIPELINE, name="Sales agent", state="well", whole=True, labels=labels),
        PipelineStatus(account="eu", id=UNNAMED, state="well", whole=False, labels={"team": "ops"}),
        *more,
    ]
    sinks = [SinkStatus(name=name, type="webhook", state="well", dead=dead) for name in ("ops", "o ps", "phone")]
    accounts = [AccountStatus(name="eu", state="well", allowed=5, pipelines=2)]
    return status_view(pipelines=pipelines, sinks=sinks, accounts=accounts)


@pytest.fixture(autouse=True)
def _served(served: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ada")
    taken = problem(OTHER_ID, title="[red]Onboard\x1b[31ming", severity="warning")
    served.replies |= {
        "GET /problems": [Page[ProblemView](items=[problem()], next="x"), Page[ProblemView](items=[taken])],
        "GET /deliveries": Page[DeliveryView](items=[delivery()]),
        "GET /status": status(),
    }


def test_problems_are_read_page_by_page_and_piped_whole(daemon: FakeDaemon, command: Command) -> None:
    code, out, _ = command("problems", "--state", "all")
    head, first, second = (line.split("\t") for line in out.splitlines())
    assert (code, head[:4]) == (0, ["id", "severity", "openedAt", "title"])
    assert first[:5] == [ID, "critical", WRITTEN, "Sales agent keeps failing", "Greeting: timeout"]
    assert second[3] == "[red]Onboard\\x1b[31ming"
    queries = [[("state", "all"), ("limit", "200")], [("state", "all"), ("limit", "200"), ("after", "x")]]
    assert [asked.query for asked in daemon.asked if asked.path == "/problems"] == queries


def test_verbose_problems_say_what_each_sink_was_sent(
    daemon: FakeDaemon, command: Command, on_terminal: OnTerminal
) -> None:
    told = [
        Told(sink="ops", sent=[Sent(type="pipeline.failing", at=AT)], never="dead letter: 400"),
        Told(sink="phone", waiting="after 10 m", until=AT),
        Told(sink="mail", never="not: events"),
    ]
    daemon.replies["GET /problems"] = Page[ProblemView](items=[problem()])
    daemon.replies[f"GET /problems/{ID}"] = ProblemDetail(**dict(problem()), told=told)
    _, out, _ = command("problems", "--verbose")
    assert out.splitlines()[1].endswith(
        f"\tops: sent pipeline.failing {WRITTEN}, dead letter: 400;"
        f" phone: not yet: after 10 m ({WRITTEN}); mail: not: events"
    )
    assert json.loads(command("problems", "--verbose", "--json")[1])["told"][2] == {
        "sink": "mail",
        "sent": [],
        "never": "not: events",
    }
    lines = [line.strip() for line in on_terminal("problems", "--verbose", columns=120).splitlines()]
    assert lines[-1] == "mail: not: events"
    assert re.fullmatch(r"ops: sent pipeline.failing \d+ d.*, dead letter: 400", lines[-3])


def test_problems_warn_of_what_needs_somebody_and_is_no_problem(daemon: FakeDaemon, command: Command) -> None:
    store = Need(
        kind="store", severity="critical", title="The store takes no writes", reason="disk \x1b full", page="/"
    )
    found = status().model_copy(update={"needs": [store], "unknown": 2})
    daemon.replies["GET /status"] = found
    code, _, err = command("problems")
    said = ["warning: The store takes no writes: disk \\x1b full", "warning: ? 2 of 2 pipelines unknown"]
    assert (code, err.splitlines()) == (0, said)


def test_on_a_terminal_problems_say_what_closes_them(daemon: FakeDaemon, on_terminal: OnTerminal) -> None:
    ended_at = datetime.now(UTC) - timedelta(hours=3)
    several = [
        problem(closes_when="3 in a row succeeded", last_ended_at=ended_at, count=28),
        problem(OTHER_ID, closes_when="3 in a row succeeded"),
        problem(EXECUTION, closes_when="3 in a row succeeded", closed_at=AT),
    ]
    daemon.replies["GET /problems"] = Page[ProblemView](items=several)
    lines = on_terminal("problems", columns=120).splitlines()
    assert lines[0].split()[-3:] == ["closed", "count", "title"]
    assert re.search(r" 28 +Sales agent keeps failing$", lines[1].rstrip())
    assert [line.strip() for line in lines[2:4]] == [
        "Greeting: timeout",
        "closes when 3 in a row succeeded; no execution has ended for 3 h",
    ]
    assert sum("closes when" in line for line in lines) == 2


def test_at_80_columns_a_name_is_whole_and_the_acknowledgement_below(
    daemon: FakeDaemon, on_terminal: OnTerminal
) -> None:
    name = "Novelty agent of the northern branches 1"
    taken = Acknowledgement(at=datetime.now(UTC) - timedelta(minutes=5), by="kim", comment="calling the vendor")
    items = [problem(title=f"{name} keeps failing, last at Greeting", count=12), problem(acknowledged=taken)]
    daemon.replies["GET /problems"] = Page[ProblemView](items=items)
    lines = on_terminal("problems", columns=80).splitlines()
    assert len(name) == 40
    assert name in lines[1]
    assert any(re.search(r"acknowledged by kim 5 m.* ago: calling", line) for line in lines)
    assert [line for line in lines if len(line) > 80 or re.search(r"\d{4}-\d\d-\d\dT", line)] == []


def test_on_a_terminal_a_list_that_ends_early_says_how_far_it_got(
    daemon: FakeDaemon, on_terminal: OnTerminal, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = Page[DeliveryView](items=[], next="x", looked_back_to=AT)
    daemon.replies["GET /deliveries"] = [early, early, Page[DeliveryView](items=[delivery()])]
    assert len(command("deliveries")[1].splitlines()) == 2
    daemon.replies["GET /deliveries"] = early
    monkeypatch.setattr(daemon_client, "FILL_S", -1.0)
    lines = on_terminal("deliveries").splitlines()
    assert lines == [f"hint: this looked back to {WRITTEN}; piped, it goes on to the end", "none"]


def test_on_a_terminal_a_list_is_cut_to_width_and_to_50_rows(on_terminal: OnTerminal, daemon: FakeDaemon) -> None:
    lines = on_terminal("problems", columns=90).splitlines()
    assert [line for line in lines if len(line) > 90] == []
    assert lines[0].split()[:4] == ["id", "severity", "opened", "title"]
    assert re.match(r"3f2a0000  ✕ critical  .*\d+ [dhm]", lines[1])
    assert "! warning" in lines[3]
    assert r"[red]Onb" in lines[3]
    daemon.replies["GET /deliveries"] = Page[DeliveryView](items=[delivery(number) for number in range(60)])
    lines = on_terminal("deliveries").splitlines()
    assert (len(lines), lines[-1]) == (52, "hint: these are the first 50; piped, all are printed")
    daemon.replies["GET /deliveries"] = Page[DeliveryView](items=[])
    assert on_terminal("deliveries") == "none\n"


ACKNOWLEDGED = Acknowledgement(at=AT)


@pytest.mark.parametrize("id_", [ID, "3f2a", "Sales", "sales AGENT keeps failing"])
def test_a_problem_is_named_by_a_beginning_of_id_or_title(id_: str, daemon: FakeDaemon, command: Command) -> None:
    until = datetime.now().astimezone().replace(hour=23, minute=59)
    taken = problem(acknowledged=Acknowledgement(at=AT, until=until))
    daemon.replies["POST /problems/ack"] = Page[ProblemView](items=[taken])
    code, out, _ = command("ack", id_, "--for", "2h", "--comment", "mine")
    assert (code, out) == (
        0,
        "✓ acknowledged until 23:59: Sales agent keeps failing. Undo: watcher ack 3f2a0000 --undo\n",
    )
    assert daemon.asked[-1].body == {"ids": [ID], "for": "2h", "comment": "mine", "by": "ada"}


def test_several_problems_are_acknowledged_in_one_request_and_taken_back(daemon: FakeDaemon, command: Command) -> None:
    several = [problem(acknowledged=ACKNOWLEDGED), problem(OTHER_ID, title="Onboarding is silent")]
    daemon.replies["GET /problems"] = Page[ProblemView](items=several)
    done = [each.model_copy(update={"acknowledged": ACKNOWLEDGED}) for each in several]
    daemon.replies["POST /problems/ack"] = Page[ProblemView](items=done)
    code, out, _ = command("ack", "3f2a", "3f2b", ID, "--json")
    assert (code, [json.loads(line)["acknowledged"] for line in out.splitlines()]) == (0, [{"at": WRITTEN}] * 2)
    assert [each.body for each in daemon.asked if each.method == "POST"] == [{"ids": [ID, OTHER_ID], "by": "ada"}]
    daemon.replies |= {f"DELETE /problems/{id_}/ack": problem(id_) for id_ in (ID, OTHER_ID)}
    said = "✓ no longer acknowledged: Sales agent keeps failing\n✓ no longer acknowledged: Onboarding is silent\n"
    assert command("ack", "3f2a", "Onboarding", "--undo")[:2] == (0, said)


def test_all_that_nobody_has_acknowledged_are_acknowledged_200_a_request(daemon: FakeDaemon, command: Command) -> None:
    ids = [str(UUID(int=number)) for number in range(201)]
    problems = [*map(problem, ids), problem(acknowledged=ACKNOWLEDGED)]
    daemon.replies["GET /problems"] = Page[ProblemView](items=problems)
    daemon.replies["POST /problems/ack"] = Page[ProblemView](items=[])
    assert command("ack", "--all", "--yes")[0] == 0
    assert [asked.body["ids"] for asked in daemon.asked[1:]] == [ids[:200], ids[200:]]
    daemon.replies[f"DELETE /problems/{ID}/ack"] = problem()
    assert command("ack", "--all", "--undo", "--yes")[:2] == (
        0,
        "✓ no longer acknowledged: Sales agent keeps failing\n",
    )


def test_where_everybody_has_been_acknowledged_nothing_is_asked(daemon: FakeDaemon, on_terminal: OnTerminal) -> None:
    daemon.replies["GET /problems"] = Page[ProblemView](items=[problem(acknowledged=ACKNOWLEDGED)])
    for option, said in (("--all", "✓ nothing to acknowledge\n"), ("--json", "")):
        shown = on_terminal("ack", "--all", option, typed="y\n")
        assert shown == f"y\n{said}"
    assert {asked.method for asked in daemon.asked} == {"GET"}


@pytest.mark.parametrize(("typed", "methods"), [("y\n", ["GET", "POST"]), ("\n", ["GET"])])
def test_on_a_terminal_all_are_listed_first(
    typed: str, methods: list[str], daemon: FakeDaemon, on_terminal: OnTerminal
) -> None:
    daemon.replies["GET /problems"] = Page[ProblemView](
        items=[problem(), problem(OTHER_ID, title="Onboarding is silent")]
    )
    daemon.replies["POST /problems/ack"] = Page[ProblemView](items=[problem(acknowledged=ACKNOWLEDGED)])
    shown = on_terminal("ack", "--all", typed=typed, columns=120)
    assert "3f2a0000" in shown
    assert shown.index("Onboarding is silent") < shown.index("Acknowledge all of these (2)? [y/N]")
    assert [asked.method for asked in daemon.asked] == methods


SALES_TWICE = PipelineStatus(
    account="us", id="0b5d0000-0000-4000-8000-000000000000", name="Sales agent", state="well", whole=True
)
LISTS_THEM = "; watcher status lists them"
DEAD_LIST = "watcher deliveries --state dead lists them"
LABELS_LIST = "; watcher status --json lists them"
NEEDS = "--pipeline, --label, --account or --sink"
NO_LABEL = "write KEY=VALUE, such as --label team=sales"
MISTAKES = [
    # what is unknown, with what is near
    (("scan", "Sales agnet"), 5, 'no pipeline "Sales agnet"; did you mean "Sales agent"?'),
    (("events", "--pipeline", "SALES AGNET"), 5, 'no pipeline "SALES AGNET"; did you mean "Sales agent"?'),
    (("silence", "--for", "2h", "--pipeline", "Onboarding"), 5, f'no pipeline "Onboarding"{LISTS_THEM}'),
    (("silence", "--for", "2h", "--account", "us"), 5, f'no account "us"{LISTS_THEM}'),
    (("silence", "--for", "2h", "--sink", "phnoe"), 5, 'no sink "phnoe"; did you mean "phone"?'),
    (("deliveries", "--sink", "nosuch"), 5, f'no sink "nosuch"{LISTS_THEM}'),
    (("replay", "--sink", "pohne", "--state", "dead", "--yes"), 5, 'no sink "pohne"; did you mean "phone"?'),
    (("test-sink", "fone"), 5, 'no sink "fone"; did you mean "phone"?'),
    (("enable-sink", ""), 5, f'no sink ""{LISTS_THEM}'),
    (("ack", "ffff"), 5, 'no open problem "ffff"; watcher problems lists them'),
    (("scan", "\x1b[31m"), 5, f'no pipeline "\\x1b[31m"{LISTS_THEM}'),
    # labels that no pipeline has
    *(
        ((*words, *(option for label in labels for option in ("--label", label))), 5, f"no pipeline has label {said}")
        for words in (("silence", "--for", "2h"), ("events",))
        for labels, said in (
            (["team=typo"], 'team=typo; did you mean "team=ops"?'),
            (["team=marketing"], f"team=marketing{LABELS_LIST}"),
            (["team=sales", "team=salse"], 'team=salse; did you mean "team=sales"?'),
            (["env=a=b", "team=ops"], f"env=a=b and team=ops{LABELS_LIST}"),
        )
    ),
    # what cannot be meant
    (("silence", "--label", "a=b"), 2, "silence needs --for, such as --for 2h; or write --list, or --end ID"),
    (("silence", "--for", "2h"), 2, f"silence needs {NEEDS}; for everything --event '*'"),
    (("events", "--execution", "9a1"), 2, "--execution: write 4 characters of its id or more"),
    (("silence", "--for", "2h", "--label", "team"), 2, f"--label: {NO_LABEL}"),
    (("events", "--label", "team"), 2, f"--label: {NO_LABEL}"),
    (("replay", "--sink", "ops", "--state", "dead"), 2, "replay asks first, and this is no terminal; add --yes"),
    (("replay", "--sink", "ops", "--yes", "7", "d_1"), 2, f'"d_1" is no id of a delivery; {DEAD_LIST}'),
    (("ack", "--all"), 2, "ack --all asks first, and this is no terminal; add --yes"),
    (("ack", "--all", "3f2a"), 2, "ack takes ids or --all, not both"),
    (("ack",), 2, "ack needs the ids of problems (see watcher problems), or --all"),
]


@pytest.mark.parametrize(("words", "code", "said"), MISTAKES)
def test_what_is_unknown_or_cannot_be_meant_is_said_with_what_is_near(
    words: tuple[str, ...], code: int, said: str, daemon: FakeDaemon, command: Command
) -> None:
    assert command(*words) == (code, "", f"error: {said}\n")
    assert {asked.method for asked in daemon.asked} <= {"GET"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("scan", "sales agent"),
            (
                f'"sales agent" fits several pipelines; write more of one of these: eu/{PIPELINE} Sales agent; '
                f"us/{SALES_TWICE.id} Sales agent"
            ),
        ),
        (("test-sink", "o"), '"o" fits several sinks; write more of one of these: ops; o ps'),
        (
            ("ack", "3f2"),
            (
                f'"3f2" fits several open problems; write more of one of these: {ID} Sales agent keeps failing; '
                f"{OTHER_ID} [red]Onboard\\x1b[31ming"
            ),
        ),
    ],
)
def test_what_fits_several_names_them(words: tuple[str, ...], said: str, daemon: FakeDaemon, command: Command) -> None:
    daemon.replies["GET /status"] = status(SALES_TWICE)
    assert command(*words) == (2, "", f"error: {said}\n")
    assert {asked.method for asked in daemon.asked} == {"GET"}


def test_a_pipeline_of_two_accounts_is_one_to_silence_and_two_to_scan(daemon: FakeDaemon, command: Command) -> None:
    daemon.replies["GET /status"] = status(
        PipelineStatus(account="us", id=PIPELINE, name="Sales agent", state="well", whole=True)
    )
    daemon.replies["POST /silences"] = silenced(2)
    assert command("silence", "--pipeline", PIPELINE, "--for", "2h")[0] == 0
    assert command("scan", PIPELINE)[0] == 2


def silenced(count: int, until: datetime = AT) -> SilenceView:
    return SilenceView(id="3", match=SilenceMatch(events=("*",)), until=until, active=True, pipelines=count)


def test_a_silence_says_how_much_it_concerns_and_how_to_end_it(daemon: FakeDaemon, command: Command) -> None:
    until = datetime(2030, 12, 24, 12, tzinfo=UTC)
    daemon.replies["POST /silences"] = silenced(1, until)
    options = ("--label", "team=sales", "--label", "env=a=b", "--sink", "phone", "--event", "execution.*")
    code, out, _ = command("silence", *options, "--for", "2h", "--comment", "deploy")
    shown = f"{until.astimezone():%Y-%m-%d %H:%M}"
    assert (code, out) == (0, f"✓ silenced until {shown} (1 of 2 pipelines). Undo: watcher silence --end 3\n")
    match = {"labels": {"team": "sales", "env": "a=b"}, "events": ["execution.*"], "sinks": ["phone"]}
    (body,) = [asked.body for asked in daemon.asked if asked.method == "POST"]
    assert body == {"match": match, "for": "2h", "comment": "deploy", "by": "ada"}


def test_a_silence_takes_names_and_beginnings_of_them(daemon: FakeDaemon, command: Command) -> None:
    daemon.replies["POST /silences"] = silenced(1)
    named = ("--pipeline", "Sales", "--pipeline", "77aa", "--account", "EU", "--sink", "ph")
    assert command("silence", *named, "--for", "2h")[0] == 0
    (body,) = [asked.body for asked in daemon.asked if asked.method == "POST"]
    assert body["match"] == {"pipelines": [PIPELINE, UNNAMED], "accounts": ["eu"], "sinks": ["phone"]}


def test_silences_are_listed_and_ended(daemon: FakeDaemon, command: Command) -> None:
    weekly = {"days": ["sat", "sun"], "from": "20:00", "to": "08:00", "timezone": "Europe/Berlin"}
    given = [
        {"id": "3", "match": {"labels": {"team": "sales"}, "sinks": ["a", "b"]}, "until": AT, "active": True},
        {"match": {"events": ["*"]}, "weekly": weekly, "active": False, "comment": "nobody\tis paged"},
    ]
    daemon.replies["GET /silences"] = Page[SilenceView](
        items=[SilenceView.model_validate({**each, "pipelines": 2}) for each in given]
    )
    daemon.replies["DELETE /silences/3"] = SilenceView.model_validate({**given[0], "pipelines": 2})
    _, first, second = command("silence", "--list")[1].splitlines()
    assert first.split("\t")[:2] == ["3", "yes"]
    assert "labels=team=sales sinks=a,b" in first
    assert "\tdays=sat,sun from=20:00 to=08:00 timezone=Europe/Berlin\t2\tevents=*\t\tnobody is paged" in second
    assert command("silence", "--end", "3")[:2] == (0, "✓ silence 3 has ended\n")


def test_deliveries_are_listed_by_state_and_sink(daemon: FakeDaemon, command: Command) -> None:
    code, out, _ = command("deliveries", "--state", "dead", "--sink", "ops")
    row = ["1204", "execution.failed", EXECUTION, "ops", "dead", "9", "503 busy", WRITTEN, "", EVENT]
    assert (code, out.splitlines()[1].split("\t")) == (0, row)
    assert daemon.asked[-1].query == [("state", "dead"), ("sink", "ops"), ("limit", "200")]


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (("--state", "dead"), {"sink": "ops", "state": "dead"}),
        (("1204", "1207"), {"sink": "ops", "ids": ["1204", "1207"]}),
    ],
)
def test_with_yes_dead_letters_are_sent_again(
    words: tuple[str, ...], body: dict[str, Any], daemon: FakeDaemon, command: Command
) -> None:
    daemon.replies["POST /deliveries/replay"] = Replayed(replayed=2)
    assert command("replay", "--sink", "ops", "--yes", *words)[:2] == (0, "✓ sent again to ops: 2\n")
    assert daemon.asked[-1].body == body


def test_without_dead_letters_nothing_is_asked_or_sent(
    daemon: FakeDaemon, command: Command, on_terminal: OnTerminal
) -> None:
    daemon.replies["GET /status"] = status(dead=0)
    words = ("replay", "--sink", "ops", "--state", "dead")
    said = "✓ nothing to send again: ops has no dead letters\n"
    assert command(*words, "--yes") == (0, said, "")
    assert json.loads(command(*words, "--yes", "--json")[1]) == {"replayed": 0}
    assert on_terminal(*words, typed="y\n").endswith(said)
    assert {asked.method for asked in daemon.asked} == {"GET"}


@pytest.mark.parametrize(("typed", "asked"), [("y\n", 2), ("n\n", 1), ("\n", 1)])
def test_on_a_terminal_it_asks_first(typed: str, asked: int, daemon: FakeDaemon, on_terminal: OnTerminal) -> None:
    daemon.replies["POST /deliveries/replay"] = Replayed(replayed=14)
    shown = on_terminal("replay", "--sink", "ops", "--state", "dead", typed=typed)
    assert "14 deliveries to ops will be sent again under the same ids. Continue? [y/N]" in shown
    assert len(daemon.asked) == asked
    assert ("✓ sent again to ops: 14" in shown) is (asked == 2)


@pytest.mark.parametrize("words", ["Sales agent", "0b5c8f1e", PIPELINE])
def test_a_list_is_read_at_once_unless_its_account_is_not_well(
    words: str, daemon: FakeDaemon, command: Command
) -> None:
    daemon.replies[f"POST /pipelines/eu/{PIPELINE}/scan"] = Done(done=False)
    said = "✓ its list is read as soon as possible: Sales agent"
    assert command("scan", words)[:2] == (0, f"{said}\n")
    degraded = AccountStatus(name="eu", state="degraded", allowed=5, pipelines=2)
    daemon.replies["GET /status"] = status().model_copy(update={"accounts": [degraded]})
    assert command("scan", words)[:2] == (0, f"{said}; its account is degraded\n")


def test_a_sink_is_enabled(daemon: FakeDaemon, command: Command) -> None:
    daemon.replies["POST /sinks/o%20ps/enable"] = [Done(done=True), Done(done=False)]
    assert command("enable-sink", "o ps")[:2] == (0, "✓ o ps is enabled; what waits for it is sent\n")
    assert "o ps will be enabled once a daemon owns it; what" in command("enable-sink", "o ps")[1]
    daemon.replies["POST /sinks/phone/enable"] = Trouble(title="No", status=409, detail="phone is not disabled")
    assert command("enable-sink", "ph") == (2, "", "error: phone is not disabled\n")


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
def test_a_test_says_what_was_answered(
    result: TestResult, code: int, said: str, daemon: FakeDaemon, command: Command
) -> None:
    daemon.replies["POST /sinks/ops/test"] = result
    assert command("test-sink", "ops") == (code, said, "")
    ended, out, _ = command("test-sink", "ops", "--json")
    assert (ended, json.loads(out)["delivered"]) == (code, result.delivered)


def test_on_a_terminal_a_moment_is_how_long_ago_or_how_soon(daemon: FakeDaemon, on_terminal: OnTerminal) -> None:
    soon, ago = datetime.now(UTC) + timedelta(minutes=5), datetime.now(UTC) - timedelta(hours=3)
    daemon.replies["GET /deliveries"] = Page[DeliveryView](items=[delivery(state="retrying", next_try_at=soon)])
    daemon.replies["GET /silences"] = Page[SilenceView](items=[silenced(1, soon).model_copy(update={"from_": ago})])
    assert re.search(r"! retrying .*in 4 m \d+ s", on_terminal("deliveries", columns=160))
    assert re.search(r"yes +3 h +in 4 m", on_terminal("silence", "--list"))
