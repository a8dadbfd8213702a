"""The pages over a real socket and a real store: what they show, and what nobody can make them do."""

import gzip
import html
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from console_rig import DEGRADED, NAMED, OVERDUE, PATH, SETTINGS, Desk, a_desk, entry, executed, write
from sample_events import ERROR, HOSTILE_PARTS, PIPELINE, data_of, execution_id, problem_block
from sqlalchemy import delete, insert, update
from stores import DAY_US, START_US, claim, due, settle

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.history import HOUR_US
from watcher.domain.problems import LatestFailure, Problem, ProblemChange
from watcher.domain.snapshots import AccountSnapshot, PipelineSnapshot, SinkSnapshot
from watcher.domain.timestamps import Micros, Monotonic, from_us, to_us
from watcher.store.changes import SourceChange
from watcher.store.sink_store import SinkStore
from watcher.store.sources import Source
from watcher.store.tables import incident, pipeline_day, pipeline_hour, problem, snapshot
from watcher.web import listing, pages
from watcher.web.overview import Need, PipelineState, PipelineStatus

SALES: dict[str, Any] = {"pipeline": PIPELINE, "account": "default", "name": "Sales agent", "labels": {"team": "sales"}}
API, EXECUTIONS = Source("account", "default"), f"/executions/default/{PIPELINE}"
PAGES = (
    "/",
    "/executions",
    f"{EXECUTIONS}/{execution_id(1)}",
    f"{EXECUTIONS}/{execution_id(4)}",
    PATH,
    "/problems",
    f"/problems/{OVERDUE}",
    f"/problems/{DEGRADED}",
    "/events",
    "/deliveries",
    "/silences",
)


class Page(HTMLParser):
    """A page as a browser takes it apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, tag: str, attribute: str) -> list[str]:
        return [
            attributes[attribute] or "" for name, attributes in self.tags if name == tag and attribute in attributes
        ]

    def says(self) -> str:
        return re.sub(r"\s+", " ", self.text)


class Got(NamedTuple):
    status: int
    headers: Mapping[str, str]
    page: Page
    body: str


async def get(desk: Desk, path: str, **headers: str) -> Got:
    async with desk.session.get(path, headers=headers, allow_redirects=False) as response:
        body = await response.text()
        return Got(response.status, response.headers, Page(body), body)


async def shown(desk: Desk, path: str) -> Page:
    desk.clock.us += 1_000_000  # what was found is kept for a second
    got = await get(desk, path)
    assert got.status == 200, got.page.says()
    return got.page


async def change_problem(desk: Desk, id_: UUID, **values: Any) -> None:
    await write(desk, update(problem).where(problem.c.id == id_.bytes).values(**values))


async def problem_row(desk: Desk, kind: EventType, id_: bytes, *, of: str = PIPELINE, **more: Any) -> dict[str, Any]:
    """Return a problem of a pipeline, of which there is no event."""
    source_id = await desk.store.number_of(API)
    pipeline_id = await desk.store.number_of(Source("pipeline", f"default/{of}"))
    row = {"source_id": source_id, "pipeline_id": pipeline_id, "stream": b"none", "sequence": 1}
    return {"id": id_, "kind": kind, "opened_at": desk.clock.us, **row, **more}


async def report(
    desk: Desk, kind: EventType, id_: UUID, *, sequence: int = 2, at: Micros = START_US, **data: Any
) -> SourceChange:
    """Record that a problem of the account, the pipeline or the sink `chat` has opened; return that change."""
    owner, name = ("sink", "chat") if kind.startswith("sink.") else ("account", "default")
    source = {"sink": "/sinks/chat"}.get(owner, f"/accounts/default/pipelines/{PIPELINE}")
    block = {"problem": problem_block(kind) | {"id": str(id_)}}
    opens = entry(kind, number=50, sequence=sequence, source=source, data=data | block)
    opened = Problem(id_, kind, from_us(at), EventKey(opens.event.stream, sequence))
    change = SourceChange(
        await claim(desk.store, owner, name),
        0 if owner == "sink" else sequence - 1,
        sequence,
        None,
        (opens,),
        (ProblemChange(opened, is_new=True),),
        pipeline=None if kind.startswith(("sink.", "account.")) else PIPELINE,
    )
    await desk.store.record(change)
    return change


def agents(count: int) -> list[dict[str, Any]]:
    """Return the watch of so many pipelines."""
    return [{"pipeline": execution_id(each), "account": "default", "name": f"Agent {each:03}"} for each in range(count)]


async def save(desk: Desk, source: Source, body: AccountSnapshot | SinkSnapshot, *, age_s: int = 0) -> None:
    """Write how an account or a sink stood that many seconds ago."""
    number = await desk.store.number_of(source)
    await write(desk, delete(snapshot).where(snapshot.c.source_id == number))
    written_at, text = desk.clock.us - age_s * 1_000_000, json.dumps(asdict(body)).encode()
    await write(desk, insert(snapshot), {"source_id": number, "written_at": written_at, "body": text})


def split(text: str) -> str:
    """Return a text with a blank between words that stand in cells beside each other."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)


SAYS: Mapping[str, tuple[str, ...]] = {
    "/": (
        *("4 need you", "(4) clerk-watcher", "Account default: the API cannot be used", "Sales agent: 1 overdue"),
        *("3 open", "1 of 3 sinks not well", "account default unreachable", "3 of 5 succeeded in"),
        *("Enable", "silenced now"),
    ),
    f"{EXECUTIONS}/{execution_id(4)}": ("✕ failed ran 2 m 31 s", f"Greeting: {ERROR}", "ops"),
    f"{EXECUTIONS}/{execution_id(1)}": ("◷ overdue", "Status Changed after Seen at Stayed", "Delay Sequence Id"),
    PATH: ("Scan now",),
    f"/problems/{OVERDUE}": ("Silenced until Nov 25 00:00:00 UTC", "this pipelineteam=sales: 1 pipeline"),
    "/problems?state=closed&since=2h&kind=sink.failing": ("No closed problems match within 2h.",),
    "/problems?state=closed": ("No closed problems match. Show all", "g pproblems"),
    "/events?since=2h": ("Without execution.new and execution.running. Show all",),
    "/events?type=*": ("All events. Show fewer", "g vevents"),
}
"""By page: words on it."""


async def test_each_page_says_what_it_is_for_with_names_of_all_and_no_secret(desk: Desk) -> None:
    for path, words in SAYS.items():
        page = await shown(desk, path)
        said = (page.says(), split(page.says()))
        assert [each for each in words if not any(each in text for text in said)] == [], (path, said[0])
    for path in PAGES:
        page, body = await shown(desk, path), (await get(desk, path)).body
        assert "secret" not in body
        mark = "<i class=paused aria-hidden=true>!</i>"  # of a pipeline that is overdue, which is a warning
        assert path not in {"/", PATH} or mark in body.replace('"paused"', "paused"), path
        values = [its for tag, its in page.tags if tag == "td" and its.get("class") != "act"]
        without = [each for each in values if "data-label" not in each]
        assert len(without) == (2 if path == "/" else 0), path  # the names of pipelines are headings
        named = re.findall(r'<(?:a|button)[^>]* aria-label="([^"]*)"[^>]*>([^<]*[a-z][^<]*)<', body)
        assert [pair for pair in named if pair[1].lower() not in pair[0].lower()] == [], path


async def test_the_first_page_says_how_many_succeeded_in_24_hours_and_7_days(desk: Desk) -> None:
    pipeline_id = await desk.store.number_of(Source("pipeline", f"default/{PIPELINE}"))
    counts = {"started": 9, "unrecognized": 0, "tokens": 0, "durations": "{}", "pipeline_id": pipeline_id}
    rows: list[dict[str, Any]] = [
        {**counts, "from_at": START_US - ago * HOUR_US, "success": good, "failed": bad}
        for ago, good, bad in ((1, 41, 1), (30, 1_200, 0))
    ]
    await write(desk, insert(pipeline_hour), rows)
    await write(desk, insert(pipeline_day), [{**row, "from_at": row["from_at"] // DAY_US * DAY_US} for row in rows])
    assert "97.6 % of 42 99.9 % of 1,242 " in (says := (await shown(desk, "/")).says())
    assert "none ended none ended" in says


async def test_what_needs_somebody_can_be_acknowledged_one_by_one_or_all_and_ends_have_words(desk: Desk) -> None:
    page = await shown(desk, "/")
    each_and_all = [[DEGRADED], [OVERDUE], [DEGRADED, OVERDUE]]
    assert [{"ids": list(map(str, ids))} for ids in each_and_all] == [
        json.loads(body) for body in page.values("button", "data-body") if "ids" in body and "sink" not in body
    ]
    (label,) = [each for each in page.values("svg", "aria-label") if each.startswith("last 5 ended")]
    assert label == "last 5 ended: 3 success, 1 failed, 1 unrecognized, the newest unrecognized"


async def test_the_worst_comes_first_and_of_those_the_causes(desk: Desk) -> None:
    kinds = (EventType.PIPELINE_FAILING, EventType.PIPELINE_SILENT, EventType.SINK_FAILING)
    for day, kind in enumerate(kinds, 1):  # before all others of the store
        at = to_us(datetime(2026, 11, day, tzinfo=UTC))
        await report(desk, kind, UUID(int=100 + day), sequence=day + 1, at=at)
    page = await shown(desk, "/")
    titles = re.findall(r"<a href=\"[^\"]*\"><bdi>([^<]*)</bdi></a>", (await get(desk, "/")).body)
    assert "7 need you" in page.says()
    assert titles[:7] == [
        "Account default: the API cannot be used",
        "Sales agent keeps failing",
        "Sink ops is failing (503)",
        "Sink ops: 1 dead letter",
        "Sales agent is silent: nothing has started for 0.0 s, limit 6 h",
        "Sales agent: 1 overdue",
        "Sales agent: executions may have been missed",
    ]


async def test_an_end_is_shown_by_when_it_was_and_says_if_it_was_seen_later(desk: Desk) -> None:
    account, seen_at = await claim(desk.store, "account", "default"), desk.clock.us
    for number, late_s in ((11, 240), (12, 60)):
        ended: dict[str, Any] = {"end_seen_at": seen_at, "ended_at": seen_at - late_s * 1_000_000}
        await desk.store.record(executed(account, "execution.success", number=number, **ended))
    late, timely = (f"{EXECUTIONS}/{execution_id(number)}" for number in (11, 12))
    for path in (PATH, "/executions?status=success"):
        text = (await shown(desk, path)).says()
        assert text.index("seen 4 m later") > text.index("1 m") > 0
        assert "seen 1 m later" not in text
    assert "seen 4 m later" in (await shown(desk, late)).says()
    assert "later" not in (await shown(desk, timely)).says()
    listed = (await shown(desk, "/executions?since=2m&status=success")).values("tr", "data-key")
    assert listed == [execution_id(12)]
    it = await desk.found(f"{EXECUTIONS}/{execution_id(4)}")
    four_minutes = datetime.fromisoformat(it["endSeenAt"]) - datetime.fromisoformat(it["endedAt"])
    assert (four_minutes.total_seconds(), it["finishedAt"]) == (240, "2026-11-24T12:00:31Z")  # the API's own date


async def test_a_problem_can_be_acknowledged_and_its_pipeline_silenced_or_those_of_a_label(desk: Desk) -> None:
    page = await shown(desk, f"/problems/{OVERDUE}")
    assert {f"/api/v1/problems/{OVERDUE}/ack", "/api/v1/silences"} == set(page.values("form", "data-url"))
    of_pipeline, of_label = (json.loads(each) for each in page.values("option", "value") if each.startswith("{"))
    assert of_pipeline == {"accounts": ["default"], "pipelines": [PIPELINE]}
    assert of_label == {"labels": {"team": "sales"}}
    async with desk.session.post(f"/api/v1/problems/{OVERDUE}/ack", json={"by": "ana", "comment": "mine"}) as answer:
        assert answer.status == 200
    assert "by ana: mine" in (await shown(desk, f"/problems/{OVERDUE}")).says()
    assert "3 need you" in (await shown(desk, "/")).says()


async def test_silences_are_shown_with_their_hours_and_those_of_the_file_end_there(tmp_path: Path) -> None:
    weekly = {"days": ["sat", "sun"], "from": "20:00", "to": "08:00", "timezone": "Europe/Berlin"}
    silences = [{"match": {"sinks": ["chat"]}, "weekly": weekly, "comment": "nobody is paged"}]
    async with a_desk(tmp_path, silences=silences) as desk:
        added = {"match": {"labels": {"team": "sales"}}, "for": "2h", "by": "ana", "comment": "deploy"}
        async with desk.session.post("/api/v1/silences", json=added) as answer:
            assert answer.status == 201
        page = await shown(desk, "/silences")
        assert "team=sales: 1 pipeline" in page.says()
        assert "sink chat not now" in page.says()
        assert "sat, sun 20:00 to 08:00 Europe/Berlin" in page.says()
        assert "team=sales silenced now" in page.says()
        assert "1 pipeline · by ana · deploy" in page.says()
        assert page.values("button", "data-url") == ["/api/v1/silences/1"]


async def test_deliveries_are_shown_on_demand_and_dead_ones_sent_again(desk: Desk) -> None:
    async def types(path: str) -> list[str]:
        return re.findall(r"<td data-label=Event>([a-z.]+)", (await get(desk, path)).body)

    async def link(path: str, text: str) -> str:
        (found,) = re.findall(rf'href="([^"]*)">{text}<', (await get(desk, path)).body)
        return html.unescape(found)

    routine = {"execution.new", "execution.running"}
    assert routine.isdisjoint(await types("/deliveries"))
    assert await types("/deliveries")
    everything = await link("/deliveries?sink=ops&after=", "Show all")
    assert everything == "/deliveries?sink=ops&type=%2A"
    assert "execution.running" in await types(everything)
    assert await link(everything, "Show fewer") == "/deliveries?sink=ops"
    assert "*" in (await get(desk, everything)).page.values("input", "value")  # the form keeps it
    assert "type=%2A" in await link(f"{everything}&limit=1", "Older »")
    assert await types("/deliveries?type=execution.l*,pipeline.*") == ["pipeline.gap", "execution.lost"]
    assert await types("/deliveries?state=dead") == ["execution.running"]  # each is trouble
    page = await shown(desk, "/deliveries?state=dead&sink=ops")
    asked = [each for each in page.values("button", "data-body") if "ops" in each]
    assert len(asked) == 2
    assert '{"sink": "ops", "state": "dead"}' in asked
    await desk.operator.replay("ops", None)
    for path in ("/deliveries", "/deliveries?sink=ops"):
        assert "/api/v1/deliveries/replay" not in (await shown(desk, path)).values("button", "data-url")


def cells(body: str) -> list[list[str]]:
    """Return the texts of a table, row by row."""
    rows = body.partition("<tbody")[2].partition("</tbody")[0].split("<tr")[1:]
    return [[Page(f"<td{cell}").says().replace("\xa0", " ").strip() for cell in row.split("<td")[1:]] for row in rows]


async def test_problems_say_what_why_since_when_and_are_marked_by_severity(desk: Desk, tmp_path: Path) -> None:
    assert (await shown(desk, "/problems?state=open")).values("tr", "class") == ["fail", "warn"]
    page = await shown(desk, "/problems?state=closed&since=2h&kind=sink.failing")
    assert "/problems?state=closed&kind=sink.failing" in page.values("a", "href")
    page = await shown(desk, "/problems?state=closed")
    assert page.values("option", "selected") == ["", ""]  # the state, and any time
    await change_problem(desk, OVERDUE, closed_at=START_US + 125_000_000)
    until = desk.clock.us + 7_200_000_000
    await change_problem(desk, DEGRADED, acked_at=START_US, acked_by="ana", acked_until=until)
    got = await get(desk, "/problems")
    api = ["Account default: the API cannot be used", "it cannot be reached (timeout)"]
    overdue = "Sales agent has been running for 6 m 10 s, limit 2 m"
    assert cells(got.body) == [
        ["✕ open", *api, "00:00:05 UTC", "for 3 s", "by ana until 02:00:08 UTC"],
        ["✓ closed", overdue, "", "00:00:00 UTC", "2 m 5 s", ""],
    ]
    assert got.page.values("tr", "data-key") == [str(DEGRADED), str(OVERDUE)]
    assert got.page.values("tr", "class") == ["taken", "off"]
    assert {f"/problems/{id_}" for id_ in (DEGRADED, OVERDUE)} <= {*got.page.values("a", "href")}


async def test_events_say_when_what_about_what_and_why_the_newest_first(desk: Desk) -> None:
    account = await claim(desk.store, "account", "default")
    late: dict[str, Any] = data_of(EventType.EXECUTION_FAILED, 11)
    late["observed"]["delaySeconds"] = 240
    ended: dict[str, Any] = {"end_seen_at": desk.clock.us}
    await desk.store.record(executed(account, "execution.failed", number=11, data=late, **ended))
    chat = await claim(desk.store, "sink", "chat")
    failing = entry(EventType.SINK_FAILING, source="/sinks/chat", data={"sink": "chat"})
    waits = "what is sent to it waits; watcher test-sink chat says what to do"
    await desk.store.record(SourceChange(chat, 0, 1, "failing", (failing,)))
    got = await get(desk, "/events")
    about, gap = f"{execution_id(11)} Sales agent", "Sales agent: executions may have been missed"
    api = ["Account default: the API cannot be used", "it cannot be reached (timeout)"]
    assert cells(got.body)[:4] == [
        ["00:00:00 UTC", "✕ sink.failing", "problem chat", "Sink chat is failing (503)", waits],
        ["00:00:00 UTC seen 4 m later", "✕ execution.failed", about, "Sales agent failed at Greeting", ERROR],
        ["00:00:00 UTC", "✕ account.degraded", "problem default", *api],
        ["00:00:00 UTC", "! pipeline.gap", "Sales agent", gap, "more came than could be read, at most 12 of them"],
    ]
    links = {f"{EXECUTIONS}/{execution_id(11)}", PATH}
    links |= {"/deliveries?sink=chat", f"/problems/{DEGRADED}", f"/problems/{OVERDUE}"}
    assert links <= set(got.page.values("a", "href"))
    assert "{" not in got.page.text


async def test_events_have_the_name_that_their_pipeline_has_now(tmp_path: Path) -> None:
    async with a_desk(tmp_path, watch=[SALES | {"name": "Sales, new"}]) as desk:
        says = (await shown(desk, "/events")).says()
        assert "Sales, new failed at Greeting" in says
        assert "Sales agent" not in says


async def test_events_have_words_for_every_type_and_are_shown_on_demand(desk: Desk) -> None:
    async def types(path: str) -> set[str]:
        return set(re.findall(r"</i> ([a-z]+\.[a-z]+)</span>", (await get(desk, path)).body))

    assert "execution.running" not in await types("/events")
    assert "execution.running" in await types("/events?type=*")
    assert await types(f"/events?execution={execution_id(2)}") == {"execution.running", "execution.paused"}
    assert await types("/events?type=execution.f*,pipeline.*") == {"execution.failed", "pipeline.gap"}
    page = await shown(desk, "/events?since=2h")
    assert "/events?since=2h&type=%2A" in page.values("a", "href")
    chat = await claim(desk.store, "sink", "chat")
    entries = tuple(
        entry(type_, number=50, sequence=sequence, source="/sinks/chat") for sequence, type_ in enumerate(EventType, 1)
    )
    await desk.store.record(SourceChange(chat, 0, len(entries), None, entries))
    found = cells((await get(desk, f"/events?type=*&limit={len(entries)}")).body)
    assert [row[1].partition(" ")[2] for row in found] == [*EventType][::-1]
    assert all(row[3] for row in found)


@pytest.mark.parametrize(
    ("path", "count"), [("/events?limit=3&type=*", 9), ("/executions?limit=2&status=running,paused,failed", 4)]
)
async def test_a_list_goes_on_with_the_older_ones_and_leads_back(desk: Desk, path: str, count: int) -> None:
    found: list[str] = []
    older: str | None = path
    while older:
        page = await shown(desk, older)
        found += page.values("tr", "data-key")
        older = next((each for each in page.values("a", "href") if "after=" in each), None)
        assert older is None or {"type=", "status="} & {part[: part.find("=") + 1] for part in older.split("&")}
    assert len(found) == len(set(found)) == count
    assert page.values("a", "rel") == []
    assert "« First page" in page.says()


FOUND = {
    "/executions?status=failed&pipeline=&q=": 1,
    "/executions?status=failed&status=paused&account=default": 2,
    "/executions?label=team%3Asales%2C+%21env%3Adev": 5,
    "/deliveries?sink=chat": 0,
    "/problems?state=&kind=": 2,
    f"/problems?pipeline={PIPELINE}&state=open": 1,
    "/events?type=execution.*&since=1h": 7,
    "/?label=team:ops": 1,
    "/?state=failing": 1,
    "/?state=idle&sort=name": 1,
    "/?account=default&sort=oldest": 2,
}


async def test_lists_say_by_what_they_are_sorted_and_a_filter_is_in_the_address(desk: Desk) -> None:
    for path in ("/executions", PATH):
        headings = re.findall(r"<th aria-sort=other>([^<]*)", (await get(desk, path)).body)
        assert headings == ["In status since, or ended ↓"]
    assert "aria-sort" not in (await get(desk, "/executions?q=9a1b0000")).body  # by id
    body = (await get(desk, "/executions")).body
    moments = re.findall(r"<td data-label=(\"In status since\"|Ended)><time class=at datetime=(\S+)>", body)
    open_ = [at for heading, at in moments if heading != "Ended"]
    ended = [at for heading, at in moments[len(open_) :] if heading == "Ended"]
    assert [len(open_), len(ended)] == [3, 2]
    assert [open_, ended] == [sorted(each, reverse=True) for each in (open_, ended)]
    for path, found in FOUND.items():
        page = await shown(desk, path)
        assert len(page.values("tr", "data-key") or page.values("tr", "data-row")) == found, path
        assert found or "Show a" in page.says()
    got = await get(desk, f"/e/{execution_id(4)[:8]}")
    assert (got.status, got.headers["Location"]) == (302, f"/executions?q={execution_id(4)[:8]}")
    for written in (execution_id(4), f"%20{execution_id(4)}%20", f"{execution_id(4)[:8]}…{execution_id(4)[-4:]}"):
        got = await get(desk, f"/e/{written}")
        assert (got.status, got.headers["Location"]) == (302, f"{EXECUTIONS}/{execution_id(4)}")


async def test_what_is_not_there_and_what_cannot_be_read_is_said(desk: Desk) -> None:
    for path, status, words in (
        (f"{EXECUTIONS}/{execution_id(99)}", 404, "store.retention"),
        ("/pipelines/default/x", 404, "no such pipeline"),
        (f"/problems/{execution_id(99)}", 404, "Not foundThere is no such problem"),
        ("/deliveries?state=lost", 400, "state:"),
        ("/events?after=.1.00", 400, "after: is no cursor of this list"),
        ("/executions?after=i.1.00", 422, "This filter cannot be usedAfter: is no cursor of this list"),
    ):
        got = await get(desk, path)
        assert (got.status, words in got.page.says()) == (status, True), (path, got.page.says())
    desk.is_open = False
    assert ((await get(desk, "/")).status, (await get(desk, "/login")).status) == (503, 200)
    desk.is_open = True
    await desk.store.close()
    got = await get(desk, "/executions")
    assert (got.status, "does not answer" in got.page.says()) == (503, True)


async def test_who_begins_is_told_how(tmp_path: Path) -> None:
    async with a_desk(tmp_path, is_filled=False, accounts={}, watch=[], silences=[]) as desk:
        assert "watcher init" in (await shown(desk, "/")).says()
    async with a_desk(tmp_path, is_filled=False) as desk:
        page = await shown(desk, "/")
        says = page.says()
        assert "? 2 of 2 pipelines unknown" in says
        assert "Nothing needs you" not in says
        assert any("attention" in each for each in page.values("link", "href"))
        assert "Nothing has started since" not in says
        its = {str(each): PipelineSnapshot() for each in (PIPELINE, NAMED)}
        await save(desk, API, AccountSnapshot(1.0, 1.0, 0.0, its))
        desk.clock.us += 2_000_000
        assert "Watching 2 pipelines. Nothing has started since the watch began." in (await shown(desk, "/")).says()
        assert "Nothing has started yet" in (await shown(desk, "/executions")).says()
        assert "No deliveries of other events" in (await shown(desk, "/deliveries")).says()
        assert "No problem has opened yet" in (await shown(desk, "/problems")).says()
        assert "No other events. Show all" in (await shown(desk, "/events")).says()


async def test_what_has_not_changed_is_not_sent_again(desk: Desk) -> None:
    for path in PAGES:
        got = await get(desk, path)
        assert (await get(desk, path, **{"If-None-Match": got.headers["ETag"]})).status == 304
    etag = (await get(desk, "/executions")).headers["ETag"]
    desk.clock.us += 2_000_000
    assert (await get(desk, "/executions", **{"If-None-Match": etag})).status == 304
    account = await claim(desk.store, "account", "default")
    await desk.store.record(executed(account, "execution.success", number=2, sequence=3, end_seen_at=desk.clock.us))
    assert (await get(desk, "/executions", **{"If-None-Match": etag})).status == 200


HOSTILE = "".join(HOSTILE_PARTS) + "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><svg onload=alert(1)>"


@pytest.mark.ci
async def test_what_others_called_something_is_shown_and_does_nothing(tmp_path: Path) -> None:
    watch = SALES | {"name": HOSTILE[:200], "labels": {HOSTILE[-250:]: HOSTILE[:200]}}
    async with a_desk(tmp_path) as desk:
        known = {name for path in PAGES for name, _ in (await shown(desk, path)).tags}
    (tmp_path / "hostile").mkdir()
    async with a_desk(tmp_path / "hostile", watch=[watch, SETTINGS["watch"][1]]) as desk:  # type: ignore[index]
        desk.troubles.append(Need(kind="config", severity="error", title=HOSTILE, reason=HOSTILE, page="/"))
        account = await claim(desk.store, "account", "default")
        nodes = [{"id": HOSTILE, "name": HOSTILE, "error": HOSTILE}]
        block = {"id": execution_id(9), "status": "failed", "error": HOSTILE, "failedNodes": nodes, "goals": [HOSTILE]}
        block |= {"conversationId": HOSTILE, "triggeredBy": HOSTILE, "finishedAt": "2026-11-24T12:00:31Z"}
        data = {"execution": block, "link": 'https://e.example/"onclick=', "labels": {HOSTILE: HOSTILE}}
        data["pipeline"] = {"id": PIPELINE, "name": HOSTILE}
        change = executed(account, "execution.failed", number=9, end_seen_at=desk.clock.us, data=data)
        await desk.store.record(change)
        for path in (*PAGES, f"{EXECUTIONS}/{execution_id(9)}"):
            page = await shown(desk, path)
            assert {name for name, _ in page.tags} <= known, path
            assert len(page.values("script", "src")) == sum(name == "script" for name, _ in page.tags) == 1
            assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
            text = page.text.replace("\xa0UTC", "")  # of moments
            assert not [each for each in text if not each.isprintable() and each != "\n"]
            assert not [url for url in page.values("a", "href") if not re.match(r"(/|#|https://|\?|$)", url)]
        assert "<script>alert(1)</script>" in (await shown(desk, "/")).text


FAILING, DOWN = EventType.PIPELINE_FAILING, EventType.ACCOUNT_DEGRADED
RATE = "20 % or more of the last 20 executions that ended within 1 d failed, once there are 5"
SLOW = "an execution runs for 2.5 times as long as usual, and at least 1 m longer"
NOT_SLOW = "no execution has been running for longer than the limit"
REFUSED = "the key is refused, or no request succeeded for 1 m"
ENABLED = "somebody enables the sink and a delivery gets through"
TOO_LONG = {"limitSeconds": 900, "overdueSeconds": 0.2}
RULES = [
    (FAILING, {"failing": {"rate": "20%"}}, {}, RATE, None),
    (FAILING, {"failing": {"consecutive": 3}}, {"closesWhen": "x"}, "3 executions in a row failed", "x"),
    (FAILING, {"silent": "6h"}, {}, None, None),
    (EventType.PIPELINE_SILENT, {"silent": "6h"}, {}, "no execution started for 6 h", "an execution starts"),
    (EventType.PIPELINE_SILENT, None, {}, None, "an execution starts"),
    (EventType.PIPELINE_SLOW, {"slow": {"times": "2.5"}}, {}, SLOW, NOT_SLOW),
    (EventType.PIPELINE_SLOW, None, {}, None, NOT_SLOW),
    (EventType.EXECUTION_OVERDUE, None, TOO_LONG, "running for longer than 15 m", "the execution leaves this status"),
    (DOWN, None, {"reason": "unauthorized"}, REFUSED, "a request succeeds"),
    (DOWN, None, {"reason": "over_budget"}, "polls are further apart than 1 m for 5 m", "polls are in time again"),
    (EventType.SINK_FAILING, None, {}, "nothing got through for 5 m", "a delivery gets through"),
    (EventType.SINK_DISABLED, None, {}, "the receiver answered 410 Gone", ENABLED),
]


@pytest.mark.parametrize(("kind", "rules", "data", "rule", "closes_when"), RULES)
async def test_a_problem_says_its_rule_and_what_closes_it(
    kind: EventType, rules: Any, data: dict[str, Any], rule: str | None, closes_when: str | None, tmp_path: Path
) -> None:
    watch = [SALES | ({"rules": rules} if rules else {})]
    async with a_desk(tmp_path, watch=watch) as desk:
        id_ = UUID(int=9)
        await report(desk, kind, id_, **data)
        found = await desk.found(f"/problems/{id_}")
        assert (found.get("rule"), found.get("closesWhen")) == (rule, closes_when)
        assert ("remedy" in found) is (kind not in (FAILING, EventType.EXECUTION_OVERDUE))
        says = (await shown(desk, f"/problems/{id_}")).says()
        assert (f"Rule: {rule}." in says) is (rule is not None)
        assert (f"Closes when {closes_when}" in says) is (closes_when is not None)
        assert (f"What to do: {found.get('remedy')}." in says) is ("remedy" in found)


async def test_the_page_of_a_slow_pipeline_links_the_execution_that_opened_the_problem(desk: Desk) -> None:
    await report(desk, EventType.PIPELINE_SLOW, id_ := UUID(int=9), execution={"id": execution_id(40)})
    assert (await desk.found(f"/problems/{id_}"))["execution"] == execution_id(40)
    assert f"{EXECUTIONS}/{execution_id(40)}" in (await get(desk, f"/problems/{id_}")).body


async def test_the_page_of_a_failing_pipeline_lists_its_failures_until_it_recovered(desk: Desk) -> None:
    id_ = UUID(int=9)
    change = await report(desk, EventType.PIPELINE_FAILING, id_, at=Micros(desk.clock.us))

    async def fail(number: int) -> list[str]:
        """Let an execution fail a minute later; return what the page of the problem lists, the newest first."""
        desk.clock.us += 60_000_000
        await desk.store.record(executed(change.lease, "execution.failed", number=number, end_seen_at=desk.clock.us))
        links = (await shown(desk, f"/problems/{id_}")).values("a", "href")
        return [link[-3:] for link in links if link.startswith("/executions/default/")]

    assert (await fail(40))[0] == "040"
    closed = ProblemChange(change.problems[0].problem, from_us(Micros(desk.clock.us - 30_000_000)))
    await desk.store.record(replace(change, before=2, entries=(), problems=(closed,)))
    listed = await fail(41)
    assert (bool(listed), {"040", "041"} & set(listed)) == (True, set())


@pytest.mark.parametrize(("until_s", "needs"), [(None, 3), (60, 3), (-60, 4)])
async def test_an_acknowledgement_holds_until_its_time_is_over(until_s: int | None, needs: int, desk: Desk) -> None:
    until = None if until_s is None else desk.clock.us + until_s * 1_000_000
    await change_problem(desk, OVERDUE, acked_at=desk.clock.us, acked_until=until)
    assert f"{needs} need you" in (await shown(desk, "/")).says()
    assert ("acknowledged" in await desk.found(f"/problems/{OVERDUE}")) is (needs == 3)
    of_overdue = [each for each in (await desk.found("/status"))["needs"] if str(OVERDUE) in each.get("problems", ())]
    assert [each["acknowledged"] for each in of_overdue] == [needs == 3]


UNKNOWN = [
    ({}, 0, None, None, ("well", "well", "well"), None),
    ({}, 0, None, "over_budget", ("well", "degraded", "well"), None),
    ({"kind": "config", "severity": "error"}, 0, None, None, ("well", "well", "well"), None),
    ({}, 0, 600, None, ("unknown", "unknown", "well"), "2026-11-23T23:50:00Z"),
    ({}, 0, 600, "unreachable", ("unknown", "degraded", "well"), "2026-11-23T23:50:00Z"),
    ({}, 0, "never", None, ("unknown", "unknown", "well"), None),
    ({}, 0, "unread", None, ("unknown", "well", "well"), None),
    ({}, 61, None, None, ("unknown", "unknown", "unknown"), "2026-11-23T23:58:59Z"),
    ({"kind": "store", "severity": "critical"}, 0, None, None, ("unknown",) * 3, "2026-11-23T23:55:00Z"),
]


@pytest.mark.parametrize(("trouble", "age_s", "known", "state", "states", "since"), UNKNOWN)
async def test_what_is_not_known_now_is_unknown_and_never_well(
    trouble: dict[str, str],
    age_s: int,
    known: Any,
    state: str | None,
    states: tuple[str, ...],
    since: str | None,
    tmp_path: Path,
) -> None:
    async with a_desk(tmp_path, is_filled=False) as desk:
        if trouble:
            its = {"title": "x", "reason": "", "page": "/", "since": desk.clock.now() - timedelta(minutes=5)}
            desk.troubles.append(Need.model_validate(its | trouble))
        if trouble.get("kind") == "store":
            monitor = desk.store.monitor
            monitor.failing_since = monitor.last_failing_since = Monotonic(desk.clock.monotonic() - 300)
        pipeline = PipelineSnapshot({"running": 3}, is_read=known != "unread")
        known_at = {"never": Micros(0), 600: Micros(desk.clock.us - 600_000_000)}.get(known)
        await save(desk, API, AccountSnapshot(1.0, 1.0, 0.0, {PIPELINE: pipeline}, known_at), age_s=age_s)
        await save(desk, Source("sink", "ops"), SinkSnapshot("204", Micros(desk.clock.us)), age_s=age_s)
        if state:
            lease = await claim(desk.store, "account", "default")
            await desk.store.record(SourceChange(lease, 0, 1, state, ()))
        found = await desk.found("/status")
        (sink,) = [each for each in found["sinks"] if each["name"] == "ops"]
        first, account = found["pipelines"][0], found["accounts"][0]
        assert (first["state"], account["state"], sink["state"]) == states
        assert (found.get("unknownSince"), first.get("unknownSince")) == (since, since)
        count = 0 if states[0] == "well" else 1 if known == "unread" else 2
        assert found["unknown"] == count
        says = (await shown(desk, "/")).says()
        assert (f"? {count} of 2 pipelines unknown" in says, "✓ Nothing needs you" in says) == (
            count > 0,
            count == 0 and not found["needs"],
        )
        elsewhere = (await shown(desk, PATH)).says()
        assert ("pipelines unknown" in elsewhere, "✓ None." in elsewhere) == (count > 0, count == 0)
        assert "replica" not in says
        assert ("✓ 3 sinks well" in says) is False  # nothing is known of the two others


@pytest.mark.parametrize(
    ("age_s", "known_s_ago", "is_known", "since"),
    [
        (46, None, False, "2026-11-23T23:59:15Z"),  # as it was before the store failed
        (45, None, False, "2026-11-23T23:59:15Z"),
        (44, None, True, None),  # its owner could write, or writes again
        (46, 50, False, "2026-11-23T23:59:10Z"),  # the API failed first
        (1, 20, False, "2026-11-23T23:59:40Z"),  # only the API fails since then
        (61, 20, False, "2026-11-23T23:58:59Z"),  # nobody has written for long
    ],
)
@pytest.mark.parametrize("is_failing", [False, True])
async def test_what_was_written_before_the_store_last_failed_is_not_known(
    age_s: int, known_s_ago: int | None, is_known: bool, since: str | None, is_failing: bool, tmp_path: Path
) -> None:
    async with a_desk(tmp_path, is_filled=False) as desk:
        monitor, failed_at = desk.store.monitor, Monotonic(desk.clock.monotonic() - 45)
        monitor.last_failing_since, monitor.failing_since = failed_at, failed_at if is_failing else None
        known_at = None if known_s_ago is None else Micros(desk.clock.us - known_s_ago * 1_000_000)
        snapshot = AccountSnapshot(1.0, 1.0, 0.0, {PIPELINE: PipelineSnapshot()}, known_at)
        await save(desk, API, snapshot, age_s=age_s)
        found = (await desk.found("/status"))["pipelines"][0]
        assert found.get("unknown", False) is (is_failing or not is_known)
        earliest = min(filter(None, (since, "2026-11-23T23:59:15Z" if is_failing else None)), default=None)
        assert found.get("unknownSince") == earliest


@pytest.mark.parametrize(
    ("body", "recorded", "state"),
    [
        (SinkSnapshot("400", Micros(START_US), has_failed=True), None, "in_trouble"),
        (SinkSnapshot("503", has_failed=True), "failing", "failing"),
        (SinkSnapshot("410", has_failed=True), "disabled", "disabled"),
        (SinkSnapshot("204", Micros(START_US)), None, "well"),
        (SinkSnapshot("none"), None, "well"),
    ],
)
async def test_a_sink_is_not_well_while_nothing_got_through_since_its_last_failure(
    body: SinkSnapshot, recorded: str | None, state: str, tmp_path: Path
) -> None:
    async with a_desk(tmp_path, is_filled=False) as desk:
        lease = await claim(desk.store, "sink", "ops")
        await desk.store.record(SourceChange(lease, 0, 1, recorded, ()))
        await save(desk, Source("sink", "ops"), body)
        (sink,) = [each for each in (await desk.found("/status"))["sinks"] if each["name"] == "ops"]
        assert sink["state"] == state
        assert (state.replace("_", " ") in (await shown(desk, "/")).says().partition("Sinks")[2]) is (state != "well")


async def test_what_nobody_has_acknowledged_is_shown_however_much_else_is_open(tmp_path: Path) -> None:
    watch = agents(122)
    names = [each["pipeline"] for each in watch]
    silent, failing = EventType.PIPELINE_SILENT, EventType.PIPELINE_FAILING
    async with a_desk(tmp_path, is_filled=False, watch=watch) as desk:
        rows = []
        for number, name in enumerate(names):
            acked_at = None if number >= 120 else desk.clock.us
            kinds = [(failing if acked_at is None else silent, acked_at)]
            kinds += [(silent, None)] if number == 121 else []
            for kind, acked_at in kinds:
                id_, opened_at = bytes([number, kind is silent] * 8), desk.clock.us + number
                rows.append(await problem_row(desk, kind, id_, of=name, opened_at=opened_at, acked_at=acked_at))
        await write(desk, insert(problem), rows)
        found = await desk.found("/status")
        assert [each["acknowledged"] for each in found["needs"]] == [False] * 3 + [True] * 97
        assert [each["severity"] for each in found["needs"][:4]] == ["critical", "critical", "warning", "warning"]
        assert [each["id"] for each in found["pipelines"][:2]] == [names[121], names[120]]  # more is wrong with it


async def test_an_acknowledged_overdue_says_nothing_of_the_others(desk: Desk) -> None:
    await write(desk, insert(problem), await problem_row(desk, EventType.EXECUTION_OVERDUE, UUID(int=44).bytes))
    await change_problem(desk, OVERDUE, acked_at=desk.clock.us, acked_by="ann")
    ours, ann = [each for each in (await desk.found("/status"))["needs"] if "overdue" in each["title"]]
    assert (ours["problems"], ours["acknowledged"], ours["reason"]) == ([str(UUID(int=44))], False, "")
    assert (ann["problems"], ann["acknowledged"]) == ([str(OVERDUE)], True)
    assert ann["reason"].startswith("running for 4 m")


async def test_pipelines_of_one_name_are_told_apart_by_their_account(tmp_path: Path) -> None:
    accounts = {"default": {"api_key": "one"}, "eu": {"api_key": "two"}}
    watch = [SALES, SALES | {"account": "eu"}, SALES | {"pipeline": NAMED, "name": "Onboarding"}]
    async with a_desk(tmp_path, accounts=accounts, watch=watch) as desk:
        found = await desk.found("/status")
        names = [(each["account"], each["name"]) for each in found["pipelines"]]
        of_default = [("default", "Onboarding"), ("default", "Sales agent (default)")]
        assert sorted(names) == [*of_default, ("eu", "Sales agent (eu)")]
        assert "Sales agent (default): 1 overdue" in [each["title"] for each in found["needs"]]
        assert (await desk.found(f"/problems/{OVERDUE}"))["title"].startswith("Sales agent (default) has been running")


async def test_a_hundred_pipelines_are_on_a_page_the_worst_first_and_the_others_on_the_next(tmp_path: Path) -> None:
    kinds = {180: EventType.EXECUTION_OVERDUE, 190: EventType.PIPELINE_SILENT, 200: EventType.PIPELINE_FAILING}
    async with a_desk(tmp_path, watch=agents(201)) as desk:
        rows = [await problem_row(desk, kind, bytes([at] * 16), of=execution_id(at)) for at, kind in kinds.items()]
        await write(desk, insert(problem), rows)
        first, second, third, beyond = [await get(desk, f"/?sort=&page={page}") for page in ("1", "2", "3", "4")]
        tables = [each.body.partition("<tbody>")[2].partition("</tbody>")[0] for each in (first, second, third)]
        shown = [re.findall(r"/pipelines/default/([0-9a-f-]+)", table) for table in tables]
        assert [len(each) for each in shown] == [100, 100, 1]
        assert len({name for each in shown for name in each}) == 201
        assert shown[0][:3] == [*map(execution_id, (200, 190, 180))]
        assert "101 to 200 of 201" in second.body
        assert [page for each in (first, second, third) for page in re.findall(r"page=(\d+)", each.body)] == ["2", "3"]
        assert "No pipeline is on this page" in beyond.body
        for odd in ("0", "x", "99999999"):
            assert "1 to 100 of 201" in (await get(desk, f"/?page={odd}")).body


async def test_only_pipelines_that_are_shown_are_made_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    view = PipelineState.view

    def counted(each: PipelineState) -> PipelineStatus:
        made.append(each.id)
        return view(each)

    monkeypatch.setattr(PipelineState, "view", counted)
    async with a_desk(tmp_path, watch=agents(250)) as desk:
        for path, count in (("/?page=3", 50), ("/problems", 50), ("/api/v1/status", 300)):
            await get(desk, path)
            assert len(made) == count


async def test_a_problem_of_a_pipeline_that_fails_says_its_newest_failure_and_what_closes_it(tmp_path: Path) -> None:
    id_, waits = UUID(int=9), "Closes when 3 succeeded; no execution has ended for 4 m"
    opened_by = {"closesWhen": "3 succeeded", "execution": data_of(EventType.EXECUTION_FAILED)["execution"]}
    async with a_desk(tmp_path, watch=[SALES | {"rules": {"failing": {"consecutive": 3}}}]) as desk:
        opening = await report(desk, EventType.PIPELINE_FAILING, id_, **opened_by)
        opened, change = opening.problems[0].problem, replace(opening, before=2, entries=())
        says = (await shown(desk, f"/problems/{id_}")).says()
        assert [text in says for text in (waits, "Rule: 3 executions in a row failed.")] == [True, True]
        assert "keeps failing, last at Greeting" in says
        newest = LatestFailure(Micros(START_US), execution_id(28), "Lookup", "upstream returned 404")
        counted = ProblemChange(replace(opened, failed_count=28, latest=newest))
        await desk.store.record(replace(change, problems=(counted,)))
        desk.clock.us += 2_000_000
        for path in ("/", PATH):
            its = "Sales agent keeps failing, last at Lookup 28 failed upstream returned 404"
            assert its in (await shown(desk, path)).says()
        says = (await shown(desk, f"/problems/{id_}")).says()
        assert "keeps failing, last at Lookup upstream returned 404" in says
        assert re.search(r"28 failed, the newest \d+ s ago: 9a1b", says)
        found = await desk.found(f"/problems/{id_}")
        assert (found["count"], found["reason"]) == (28, "upstream returned 404")
        assert (found["latest"]["node"], found["latest"]["execution"]) == ("Lookup", execution_id(28))
        closed = ProblemChange(opened, closed_at=from_us(START_US))
        await desk.store.record(replace(change, problems=(closed,)))
        says = (await shown(desk, f"/problems/{id_}")).says()
        assert (waits in says, "Rule: 3 executions in a row failed." in says) == (False, True)


async def test_a_sink_is_behind_if_its_oldest_delivery_has_been_due_for_more_than_a_minute(tmp_path: Path) -> None:
    sinks = {"console": {"type": "stdout"}, "chat": {"type": "webhook", "url": "https://chat.example.com/x"}}
    async with a_desk(tmp_path, sinks=sinks) as desk:
        account = await claim(desk.store, "account", "eu")
        late = OutboxEntry(entry(EventType.EXECUTION_FAILED, number=77, sinks=("chat",)).event, ("chat",))
        await desk.store.record(replace(executed(account, "execution.failed", number=77), entries=(late,)))
        due_at = Micros(desk.clock.us)

        async def stands(passed_s: int, answer: str = "200", *, has_failed: bool = False) -> dict[str, Any]:
            """Return how both sinks stand that much later, which say so then."""
            desk.clock.us += passed_s * 1_000_000
            for sink in sinks:
                body = SinkSnapshot(answer, Micros(desk.clock.us), has_failed=has_failed and sink == "chat")
                await save(desk, Source("sink", sink), body)
            found = {each["name"]: each for each in (await desk.found("/status"))["sinks"]}
            assert found["console"]["state"] == "well"
            its: dict[str, Any] = found["chat"]
            return its

        for waited_s, state in ((60, "well"), (1, "behind")):
            chat = await stands(waited_s)
            assert (chat["state"], chat["waiting"]) == (state, 1)
        assert datetime.fromisoformat(chat["oldestWaitingAt"]) == from_us(due_at)
        says = (await get(desk, "/")).page.says()
        assert "! 1 of 2 sinks behind: 1 waiting" in says
        assert "behind 1 waiting oldest 1 m" in says  # in place of the last answer
        store = SinkStore(desk.store, await claim(desk.store, "sink", "chat"))
        (refused,) = await due(store, now=desk.clock.us)
        later = replace(refused, due_at=Micros(desk.clock.us + 3_600_000_000))
        await settle(store, later, state=DeliveryState.WAITING, answer="400")
        chat = await stands(2)
        assert (chat["state"], chat["waiting"]) == ("well", 1)  # nothing is due
        assert (await stands(2, "503", has_failed=True))["state"] == "in_trouble"


async def test_a_filtered_page_says_how_far_it_looked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "EXAMINED_COUNT", 1)
    early = await desk.found("/deliveries?state=delivered&type=*")
    assert (early["items"], datetime.fromisoformat(early["lookedBackTo"]) >= from_us(START_US)) == ([], True)
    whole = await shown(desk, "/deliveries?state=delivered&type=*")
    assert len(whole.values("tr", "data-row")) == 1
    assert "Looked back to" not in whole.says()
    monkeypatch.setattr(pages, "FILL_S", -1.0)
    assert "Looked back to" in (await shown(desk, "/deliveries?state=delivered&type=*")).says()
    monkeypatch.undo()
    assert "lookedBackTo" not in await desk.found("/deliveries?limit=1")  # a full page


async def test_a_slow_pipeline_runs_for_as_long_as_it_does_now(desk: Desk) -> None:
    started_at = Micros(desk.clock.us - 90_000_000)
    change = await report(desk, EventType.PIPELINE_SLOW, id_ := UUID(int=70), at=Micros(desk.clock.us), slowCount=1)
    await desk.store.record(executed(change.lease, "execution.running", number=70, started_at=started_at))
    desk.clock.us += 900_000_000 - 90_000_000
    title = "Sales agent is slow: running for 15 m, usually 40.0 s"
    assert (await desk.found(f"/problems/{id_}"))["title"] == title
    assert "running for 15 m 1 s, usually 40.0 s" in (await shown(desk, "/")).says()


async def test_successes_that_count_as_failed_have_a_mark_and_a_count(desk: Desk) -> None:
    stands = PipelineSnapshot(ends="ssccf", ends_from=Micros(desk.clock.us - 60_000_000))
    await save(desk, API, AccountSnapshot(3.6, 3.4, 61.0, {PIPELINE: stands}))
    for path in ("/", PATH):
        page = await shown(desk, path)
        assert "3 of 5 count as failed in 1 m" in page.says()
        assert page.values("path", "class")[:3] == ["success", "failed counted", "failed"]
    (pipeline, *_) = (await desk.found("/status"))["pipelines"]
    assert pipeline["ends"] == ["success", "success", "counts_as_failed", "counts_as_failed", "failed"]


async def test_problems_of_one_pipeline_or_incident_are_shown_and_no_others(desk: Desk) -> None:
    for name, problems in ((PIPELINE, [True, False]), (NAMED, [False, False])):
        body = (await get(desk, f"/pipelines/default/{name}")).body
        assert [str(id_) in body for id_ in (OVERDUE, DEGRADED)] == problems
    key, sink_id = UUID(int=99), await desk.store.number_of(Source("sink", "ops"))
    row = {"problem_id": OVERDUE.bytes, "sink_id": sink_id, "key": key.bytes, "nth": 1, "begun_at": START_US}
    await write(desk, insert(incident), row)
    page = await shown(desk, f"/problems?incident={key}")
    assert page.values("tr", "data-key") == [str(OVERDUE)]
    assert page.values("input", "value").count(str(key)) == 1
    assert [each["id"] for each in (await desk.found(f"/problems?incident={key}"))["items"]] == [str(OVERDUE)]
    assert "/problems" in (await shown(desk, "/")).values("a", "href")


async def test_the_first_page_with_20_pipelines_is_small(tmp_path: Path) -> None:
    labels = {"team": "customers", "env": "prod"}
    watch = [each | {"name": f"{each['name']} of customers", "labels": labels} for each in agents(20)]
    async with a_desk(tmp_path, watch=watch) as desk:
        moment, open_ = Micros(desk.clock.us - 7_000_000_000), {"new": 3, "running": 144, "paused": 17}
        ends = "ssfsssssufss" * 5
        stands = PipelineSnapshot(open_, {"running": moment}, ends, moment, last_started_at=moment)
        await save(desk, API, AccountSnapshot(3.6, 3.4, 61.0, {each["pipeline"]: stands for each in watch}))
        need = Need(kind="problem", severity="error", title="Something fails", reason="x" * 120, page="/problems/x")
        desk.troubles += [need] * 10
        got = await get(desk, "/")
        loaded = [*got.page.values("script", "src"), *got.page.values("link", "href")]
        files = [(await get(desk, path)).body for path in loaded if not path.endswith(".svg")]
        assert (len(got.page.values("tr", "data-row")), len(got.page.tags) <= 1500) == (20, True)
        assert len("".join([got.body, *files]).encode()) <= 75_000
        assert sum(len(gzip.compress(part.encode())) for part in [got.body, *files]) <= 24_000
        assert [len(file) <= most for file, most in zip(files, (22_000, 12_000), strict=True)] == [True, True]


CSS = (Path(pages.__file__).parent / "static" / "watcher.css").read_text(encoding="utf-8")
STATUSES = ("new", "running", "paused", "success", "failed", "unknown")


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark", "dark by hand"])
def test_every_colour_can_be_read_on_every_ground(theme: int) -> None:
    blocks = [dict(re.findall(r"--(\w+):(#\w+)", block)) for block in re.findall(r"\{(--new:[^}]*)\}", CSS)]
    colours = blocks[theme]
    assert blocks[1] == blocks[2]
    for ground in ("page", "panel", "warn", "fail"):
        assert min(contrast(colours[name], colours[ground]) for name in (*STATUSES, "link")) >= 4.5
        assert min(contrast(colours[name], colours[ground]) for name in ("text", "muted")) >= 5.0
        assert contrast(colours["edge"], colours[ground]) >= 3.0
    assert min(contrast(colours["onfill"], colours[name]) for name in STATUSES) >= 4.5
