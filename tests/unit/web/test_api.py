"""The API as whoever asks it sees it, over a real socket and a real store."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import UUID

import pytest
from console_rig import DEGRADED, NAMED, OVERDUE, PATH, Desk, a_desk, executed, in_hours
from sample_events import PIPELINE, execution_id
from sqlalchemy import update
from stores import START_US, claim, from_us

from watcher.domain.event import EventType
from watcher.store.tables import delivery, problem, source
from watcher.web.api import enable
from watcher.web.executions import stays_of
from watcher.web.models import EventView
from watcher.web.overview import Need
from watcher.web.routes import API, ROUTES


async def test_the_status_says_what_needs_somebody_the_worst_first(desk: Desk) -> None:
    desk.troubles.append(
        Need(kind="config", severity="error", title="The new file is refused", reason="2 mistakes", page="/")
    )
    status = await desk.found("/status")
    assert [(each["kind"], each["title"], each["page"]) for each in status["needs"]] == [
        ("problem", "Account default: the API cannot be used", f"/problems/{DEGRADED}"),
        ("config", "The new file is refused", "/"),
        ("dead_letters", "Sink ops: 1 dead letter", "/deliveries?state=dead&sink=ops"),
        ("problem", "Sales agent: 1 overdue", f"/problems/{OVERDUE}"),
        ("gap", "Sales agent: executions may have been missed", f"/pipelines/default/{PIPELINE}"),
    ]
    account, _, dead, overdue, _ = status["needs"]
    assert (account["reason"], account["problems"]) == ("it cannot be reached (timeout)", [str(DEGRADED)])
    assert dead["reason"] == "last answer: 503; send them again once the receiver works"
    assert (overdue["severity"], overdue["problems"], overdue["acknowledged"]) == ("warning", [str(OVERDUE)], False)
    assert status["open"] == {"running": 2, "paused": 1}


def part(whole: Any, *names: str) -> list[Any]:
    return [whole.get(name) for name in names]


async def test_the_status_says_how_everything_stands_unless_nobody_owns_it(desk: Desk) -> None:
    status = await desk.found("/status")
    pipeline, named = status["pipelines"]
    assert pipeline["ends"] == ["success", "success", "failed", "success", "unrecognized"]
    assert part(pipeline, "name", "whole", "problems") == ["Sales agent", True, ["execution.overdue"]]
    assert part(pipeline, "labels", "silencedUntil") == [{"team": "sales"}, "2026-11-25T00:00:00Z"]
    # the name is the API's, for the file has none
    assert part(named, "name", "whole", "open", "silencedUntil") == ["Support triage", False, {}, None]
    ops, chat = ({each["name"]: each for each in status["sinks"]}[name] for name in ("ops", "chat"))
    assert part(ops, "state", "answer", "dead") == ["disabled", "410", 1]
    assert part(chat, "state", "type", "asOf") == ["unknown", "webhook", None]
    (account,), (silence,) = status["accounts"], status["silences"]
    assert part(account, "state", "reason", "needed", "allowed") == ["degraded", "unreachable", 3.6, 5.0]
    assert "asOf" in account
    assert part(silence, "active", "pipelines", "comment") == [True, 1, "shop closed"]
    desk.clock.us += 61_000_000
    assert "asOf" not in (await desk.found("/status"))["accounts"][0]


ALL, SHORT = [5, 2, 1, 4, 3], execution_id(3)[:8] + "%E2%80%A6"
FILTERS = {
    "": ALL,
    "status=failed,paused": [2, 4],
    "status=failed&status=lost": [5, 4],
    "label=team:sales": ALL,
    "label=!team:sales": [],
    "label=team:sales,!env:dev": ALL,
    "label=team:sales,eu": [],
    f"pipeline={NAMED}": [],
    "account=other": [],
    "since=2h": ALL,
    "since=2026-11-24T00:00:01%2B00:00": [5, 2, 1],
    "q=9a1b0000-0000-4000-8000-000000000003": [3],
    "q=sales": ALL,
    "q=nothing": [],
    f"q=%20{execution_id(3)}%20": [3],
    f"q={SHORT}{execution_id(3)[-4:]}": [3],  # as a page shortens it
    f"q={SHORT}{execution_id(30)[-4:]}": [],
}


async def test_a_list_goes_on_behind_its_cursor(desk: Desk) -> None:
    for query in ("", "&q=9a1b"):
        seen, after = [], ""
        for _ in range(3):
            page = await desk.found(f"/executions?limit=2{query}{after}")
            seen += [each["id"] for each in page["items"]]
            after = f"&after={page.get('next')}"
        assert (len(set(seen)), "next" in page) == (5, False)
    first = await desk.found("/deliveries?limit=1")
    second = await desk.found(f"/deliveries?limit=1&after={first['next']}")
    assert int(second["items"][0]["id"]) < int(first["items"][0]["id"])
    first = await desk.found("/problems?limit=1")
    second = await desk.found(f"/problems?limit=1&after={first['next']}")
    assert {first["items"][0]["id"], second["items"][0]["id"]} == {str(OVERDUE), str(DEGRADED)}


async def test_an_execution_is_shown_with_its_stays_and_deliveries(desk: Desk) -> None:
    found = await desk.found(f"/executions/default/{PIPELINE}/{execution_id(2)}")
    first, second = found["stays"]
    assert (first["status"], second["status"], first["until"]) == ("running", "paused", second["at"])
    assert [each["type"] for each in found["events"]] == ["execution.running", "execution.paused"]
    assert [each["state"] for each in found["deliveries"]] == ["delivered", "disabled"]
    lost = await desk.found(f"/executions/default/{PIPELINE}/{execution_id(5)}")
    assert [each["status"] for each in lost["stays"]] == ["lost"]
    overdue = await desk.found(f"/executions/default/{PIPELINE}/{execution_id(1)}")
    assert (overdue["overdue"], len(overdue["stays"]), len(overdue["events"])) == (True, 1, 2)


EVENTS = {"": 9, "type=execution.*": 7, "type=execution.lost,pipeline.gap": 2, "type=account.*&type=pipeline.gap": 2}
EVENTS |= {f"execution={execution_id(1)}": 2, f"pipeline={NAMED}": 0, "label=team:sales": 8, "label=!team:sales": 1}
EVENTS |= {"since=1h": 9, "after=7": 2, "after=9": 0}


async def test_executions_and_events_are_filtered(desk: Desk) -> None:
    for query, found in FILTERS.items():
        items = (await desk.found(f"/executions?{query}"))["items"]
        assert [int(each["id"][-3:]) for each in items] == found, query
    for query, count in EVENTS.items():
        page = await desk.found(f"/events?{query}")
        assert (len(page["items"]), page["next"].isdigit()) == (count, True), query


async def test_executions_events_and_deliveries_say_why(desk: Desk) -> None:
    (failed,) = (await desk.found("/executions?status=failed"))["items"]
    assert failed["error"] == "upstream timeout after 30 s"
    assert (failed["node"], failed["durationSeconds"]) == ("Greeting", 151.0)
    assert failed["pipeline"] == {"id": PIPELINE, "name": "Sales agent"}
    (event,) = (await desk.found("/events?type=execution.failed"))["items"]
    assert (event["specversion"], event["sequence"], event["subject"]) == ("1.0", "0000000001", execution_id(4))
    assert event["data"]["execution"]["failedNodes"][0]["name"] == "Greeting"
    assert {each["state"] for each in (await desk.found("/deliveries"))["items"]} == {"disabled", "delivered", "dead"}
    (dead,) = (await desk.found("/deliveries?state=dead&sink=ops"))["items"]
    assert (dead["answer"], dead["type"], dead["attempts"]) == ("503", "execution.running", 1)
    assert (await desk.found("/deliveries?sink=chat"))["items"] == []


async def test_a_delivery_that_waits_says_for_what(desk: Desk) -> None:
    account = await claim(desk.store, "account", "default")
    await desk.store.record(executed(account, "execution.running", number=5, sequence=2))
    of_ops = update(source).where(source.c.kind == "sink", source.c.name == "ops")
    later = desk.clock.us + 60_000_000

    async def states(statement: Any) -> list[str]:
        await desk.store.write(lambda connection: connection.execute(statement))
        return [each["state"] for each in (await desk.found("/deliveries?state=waiting"))["items"]]

    assert await states(of_ops.values(state=None)) == ["held", *["waiting"] * 7]
    tried = update(delivery).where(delivery.c.state == "waiting").values(tried=True)
    assert await states(tried) == ["held", *["retrying"] * 7]
    assert await states(of_ops.values(paused_until=later)) == ["held", *["paused"] * 7]
    last = (await desk.found("/deliveries?state=waiting"))["items"][-1]
    assert datetime.fromisoformat(last["nextTryAt"]) == from_us(later)


PROBLEMS = {
    "kind=execution.overdue": [OVERDUE],
    "kind=execution.overdue,account.degraded": [DEGRADED, OVERDUE],
    "kind=sink.failing": [],
    "account=default": [DEGRADED, OVERDUE],
    "account=other": [],
    f"pipeline={PIPELINE}": [OVERDUE],
    f"pipeline={PIPELINE}&account=other": [],
    f"pipeline={NAMED}": [],
    "label=team:sales": [OVERDUE],
    "label=team:ops": [],
    "since=5s": [DEGRADED, OVERDUE],
    "since=4s": [DEGRADED],
}


async def test_problems_are_filtered(desk: Desk) -> None:
    for query, found in PROBLEMS.items():
        items = (await desk.found(f"/problems?{query}"))["items"]
        assert [each["id"] for each in items] == [*map(str, found)], query


async def test_a_problem_is_shown_with_its_events_and_closed_as_it_was_then(desk: Desk) -> None:
    page = await desk.found("/problems")
    assert [each["kind"] for each in page["items"]] == ["account.degraded", "execution.overdue"]
    assert (await desk.found("/problems?state=closed"))["items"] == []
    found = await desk.found(f"/problems/{OVERDUE}")
    assert found["title"] == "Sales agent has been running for 4 m 10 s, limit 2 m"
    assert (found["severity"], found["execution"], found["account"]) == ("warning", execution_id(1), "default")
    assert [each["type"] for each in found["events"]] == ["execution.overdue"]
    assert len(found["deliveries"]) == 1
    closing = update(problem).where(problem.c.id == OVERDUE.bytes).values(closed_at=START_US + 60_000_000)
    await desk.store.write(lambda connection: connection.execute(closing))
    desk.clock.us += 3_600_000_000
    assert (await desk.found(f"/problems/{OVERDUE}"))["title"] == "Sales agent has been running for 5 m 5 s, limit 2 m"


async def test_a_problem_is_taken_and_given_back(desk: Desk) -> None:
    status, taken = await desk.ask(f"/problems/{OVERDUE}/ack", "POST", json={"by": "ann", "comment": "mine"})
    assert (status, taken["acknowledged"]["by"], taken["acknowledged"]["comment"]) == (200, "ann", "mine")
    status, given = await desk.ask(f"/problems/{OVERDUE}/ack", "DELETE")
    assert (status, "acknowledged" in given, desk.changed_count) == (200, False, 2)


async def test_several_problems_are_taken_at_once_and_ids_that_are_not_open_stop_none(desk: Desk) -> None:
    ids = [str(UUID(int=77)), str(OVERDUE), str(DEGRADED)]
    status, taken = await desk.ask("/problems/ack", "POST", json={"ids": ids, "by": "ann", "comment": "mine"})
    assert (status, desk.changed_count) == (200, 1)
    assert [(each["id"], each["acknowledged"]["by"]) for each in taken["items"]] == [(id_, "ann") for id_ in ids[1:]]
    assert await desk.ask("/problems/ack", "POST", json={"ids": ids[:1]}) == (200, {"items": []})


@pytest.mark.ci
async def test_silences_are_made_and_ended(desk: Desk) -> None:
    match = {"labels": {"team": "ops"}, "events": ["execution.*"]}
    status, made = await desk.ask("/silences", "POST", json={"match": match, "for": "2h", "comment": "deploy"})
    assert (status, made["id"], made["active"], made["pipelines"]) == (201, "1", True, 1)
    assert made["match"]["labels"] == {"team": "ops"}
    until = {"match": {"pipelines": [PIPELINE]}, "until": in_hours(desk, 72)}
    assert (await desk.ask("/silences", "POST", json=until))[0] == 201
    assert [each.get("id") for each in (await desk.found("/silences"))["items"]] == [None, "1", "2"]
    assert await desk.ask("/silences/1", "DELETE") == (204, None)
    assert (await desk.ask("/silences/1", "DELETE"))[0] == 404
    desk.clock.us += 48 * 3_600_000_000
    assert [each.get("id") for each in (await desk.found("/silences"))["items"]] == ["2"]


@pytest.mark.parametrize(
    ("match", "is_silent"),
    [({"accounts": ["default"]}, True), ({"sinks": ["ops"]}, False), ({"events": ["execution.success"]}, False)],
)
async def test_a_pipeline_is_silent_only_if_nothing_of_it_is_sent(tmp_path: Path, match: Any, is_silent: bool) -> None:
    async with a_desk(tmp_path, silences=[]) as desk:
        assert (await desk.ask("/silences", "POST", json={"match": match, "for": "2h"}))[0] == 201
        assert ["silencedUntil" in each for each in (await desk.found("/status"))["pipelines"]] == [is_silent] * 2


async def test_a_silence_of_a_later_version_is_left_out_and_no_secret_shown(desk: Desk) -> None:
    for path in ("/status", "/executions", "/events", "/deliveries", "/problems", "/silences"):
        assert "secret" not in str(await desk.found(path))
    match, now = '{"events": ["goal.missed"]}', desk.clock.now()
    ends_at = now + timedelta(hours=1)
    await desk.operator.add_silence(match, starts_at=now, ends_at=ends_at, by=None, comment=None)
    assert [each["comment"] for each in (await desk.found("/silences"))["items"]] == ["shop closed"]


async def test_a_weekly_silence_is_shown_with_the_window_of_now_or_the_next(tmp_path: Path) -> None:
    hours = {"days": ["sat"], "from": "20:00", "to": "08:00", "timezone": "Europe/Berlin"}
    weekly = [{"match": {"sinks": ["ops"]}, "weekly": hours}]
    async with a_desk(tmp_path, silences=weekly) as desk:
        (silence,) = (await desk.found("/silences"))["items"]
    assert (silence["active"], silence["weekly"]) == (False, hours)
    assert (silence["from"], silence["until"]) == ("2026-11-28T19:00:00Z", "2026-11-29T07:00:00Z")


async def test_what_is_written_holds_though_whoever_asked_has_left(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_go_on, add = asyncio.Event(), asyncio.Event(), desk.operator.add_silence

    async def add_slowly(match: str, **how: Any) -> Any:
        begun.set()
        await may_go_on.wait()
        return await add(match, **how)

    monkeypatch.setattr(desk.operator, "add_silence", add_slowly)
    asking = asyncio.create_task(desk.ask("/silences", "POST", json={"match": {"sinks": ["ops"]}, "for": "2h"}))
    await begun.wait()
    asking.cancel()
    await asyncio.wait([asking])
    while desk.open_connections():
        await asyncio.sleep(0)
    may_go_on.set()
    while not desk.changed_count:
        await asyncio.sleep(0)
    assert "1" in [each.get("id") for each in (await desk.found("/silences"))["items"]]


async def test_a_sink_is_enabled_by_its_owner_and_tested(desk: Desk) -> None:
    assert await desk.ask("/sinks/ops/enable", "POST") == (200, {"done": True})
    assert desk.operator.actions == [("enable", "ops")]
    desk.operator.is_slow = True
    assert not (await enable(desk.console, "ops", within_s=0.0)).done
    status, result = await desk.ask("/sinks/ops/test", "POST")
    assert (status, result["delivered"], result["remedy"]) == (200, False, "make a new webhook")


async def test_a_scan_is_asked_for_and_dead_letters_are_sent_again(desk: Desk) -> None:
    assert await desk.ask(f"/pipelines/default/{PIPELINE}/scan", "POST") == (202, {"done": False})
    assert desk.operator.actions == [("scan", f"default/{PIPELINE}")]
    assert await desk.ask("/deliveries/replay", "POST", json={"sink": "ops", "state": "dead"}) == (200, {"replayed": 1})
    assert (await desk.ask("/deliveries/replay", "POST", json={"sink": "ops", "ids": ["1", "2"]}))[0] == 409
    assert (await desk.found("/deliveries?state=dead"))["items"] == []


CANNOT_BE_DONE = [
    ("GET", "/nothing", 404, "there is no such path"),
    ("POST", "/status", 405, "this path takes GET"),
    ("GET", "/problems/00000000-0000-0000-0000-000000000077", 404, "there is no such problem"),
    ("GET", "/problems/x", 404, "32 hexadecimal digits"),
    ("GET", "/problems?kind=execution.failed", 422, "kind: must be 'account.degraded', 'execution.overdue'"),
    ("POST", "/problems/x/ack", 404, "32 hexadecimal digits"),
    ("GET", f"/executions/default/{NAMED}/{execution_id(1)}", 404, "it is not watched"),
    ("GET", f"/executions/default/{PIPELINE}/x", 404, "there is no such execution"),
    ("GET", "/executions?after=x", 422, 'take the "next" of a page'),
    ("GET", "/executions?after=n.1.00", 422, 'take the "next" of a page'),
    ("GET", "/events?after=x", 422, 'take the "next" of a page'),
    ("GET", f"/deliveries?after=.5.{'f' * 32}", 422, 'take the "next" of a page'),
    ("GET", "/executions?limit=201", 422, "limit: must be less than or equal to 200"),
    ("GET", "/executions?limit=1&limit=2", 422, "limit: "),
    ("GET", "/executions?limit=many", 422, "limit: must be a valid integer"),
    ("GET", "/executions?label=team", 422, "label: write it as team:sales, or as !env:dev"),
    ("GET", "/events?execution=x", 422, "execution: must be a valid UUID"),
    ("GET", "/executions?status=%00", 422, "null character"),
    ("GET", "/executions?since=soon", 422, "is not a duration"),
    ("GET", "/executions?wrong=1", 422, "wrong: Extra inputs are not permitted"),
    ("GET", "/events?type=execution.fail", 422, "matches no event type"),
    ("POST", "/sinks/nothing/enable", 404, "there is no such sink"),
    ("POST", "/sinks/chat/enable", 409, "is not disabled"),
    ("POST", "/sinks/nothing/test", 404, "there is no such sink"),
    ("POST", f"/pipelines/default/{NAMED}/scan", 409, "only some executions"),
    ("POST", f"/pipelines/other/{PIPELINE}/scan", 404, "there is no such pipeline"),
    ("DELETE", "/silences/x", 404, "there is no such silence"),
    *(("GET", f"{PATH}/history?span={span}", 422, "span: ") for span in ("59m", "91d", "yesterday", "0s")),
    *(("GET", f"/pipelines/default/{id_}/history", 404, "") for id_ in (execution_id(1), "x")),
    ("GET", f"/pipelines/other/{PIPELINE}/history", 404, "there is no such pipeline"),
    *(("GET", f"/report?last={last}", 422, "last: ") for last in ("59m", "91d", "x", "")),
]


WRONG_BODIES: list[tuple[str, dict[str, Any], int, str]] = [
    ("/silences", {"data": b"{}"}, 415, "Content-Type: application/json"),
    ("/silences", {"data": b"{", "headers": {"Content-Type": "application/json"}}, 400, "Invalid JSON"),
    ("/silences", {"json": {"match": {}, "for": "2h"}}, 422, "is empty"),
    ("/silences", {"json": {"match": {"sinks": ["ops"]}}}, 422, 'give one of "for"'),
    ("/silences", {"json": {"match": {"sinks": ["ops"]}, "until": "2026-11-23T00:00:00Z"}}, 422, "is over already"),
    ("/silences", {"json": {"match": {"sinks": ["x" * 70_000]}}}, 413, "at most 64 KiB"),
    ("/silences", {"json": {"match": {"sinks": ["phnoe"]}, "for": "2h"}}, 422, "phnoe cannot be silenced"),
    ("/silences", {"json": {"match": {"sinks": ["phnoe"]}, "for": "2h"}}, 422, "these can: ops, chat"),
    ("/silences", {"json": {"match": {"accounts": ["eu"]}, "for": "2h"}}, 422, "these can: default"),
    ("/silences", {"json": {"match": {"sinks": ["console"]}, "for": "2h"}}, 422, "console cannot be silenced"),
    ("/silences", {"json": {"match": {"sinks": ["ops"]}, "for": "2h", "comment": "a\0"}}, 422, "null character"),
    ("/deliveries/replay", {"json": {"sink": "ops"}}, 422, 'give one of "ids"'),
    ("/deliveries/replay", {"json": {"sink": "ops", "ids": ["x"]}}, 422, "ids: the id of a delivery is a number"),
    ("/problems/ack", {"json": {"ids": []}}, 422, "ids: "),
    ("/problems/ack", {"json": {"ids": [str(UUID(int=number)) for number in range(201)]}}, 422, "ids: "),
    ("/sinks/ops/test", {"json": {"extra": 1}}, 422, "extra"),
]


async def test_what_cannot_be_done_and_a_wrong_body_are_refused(desk: Desk) -> None:
    for method, path, status, detail in CANNOT_BE_DONE:
        found, trouble = await desk.ask(path, method)
        assert (found, trouble["status"], detail in trouble["detail"]) == (status, status, True), (path, trouble)
    for path, how, status, detail in WRONG_BODIES:
        found, trouble = await desk.ask(path, "POST", **how)
        assert (found, detail in trouble["detail"]) == (status, True), (how, trouble)


async def test_without_a_body_a_write_needs_no_content_type_if_no_form_could_have_sent_it(tmp_path: Path) -> None:
    async with a_desk(tmp_path, http={"token": "0f8b4a61"}) as desk:
        bearer = {"Authorization": "Bearer 0f8b4a61"}
        for path, status in (("/sinks/ops/test", 200), (f"/pipelines/default/{PIPELINE}/scan", 202)):
            async with desk.session.post(f"/api/v1{path}", headers=bearer) as response:
                assert response.status == status
        async with desk.session.post("/api/v1/silences", headers=bearer, data=b"{}") as response:
            assert response.status == 415
        async with desk.session.delete(f"/api/v1/problems/{OVERDUE}/ack", headers=bearer) as response:
            assert response.status == 200


async def test_what_a_form_can_send_is_no_write_and_a_path_that_reads_takes_none(desk: Desk) -> None:
    for form in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None):
        headers = {"Content-Type": form} if form else {}
        for body in (b"{}", b"") if form else (b"",):
            async with desk.session.post("/api/v1/sinks/ops/test", data=body, headers=headers) as response:
                assert (response.status, "application/json" in await response.text()) == (415, True)
    async with desk.session.delete(f"/api/v1/problems/{OVERDUE}/ack") as response:
        assert response.status == 200
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/json"}):
        async with desk.session.post("/api/v1/executions", headers=headers) as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET")
            assert response.content_type == "application/problem+json"


async def test_what_has_not_changed_is_not_sent_again(desk: Desk) -> None:
    async with desk.session.get("/api/v1/executions") as response:
        tag = response.headers["ETag"]
    for known, status in ((tag, 304), ('"other"', 200), ("*", 304)):
        async with desk.session.get("/api/v1/executions", headers={"If-None-Match": known}) as response:
            assert (response.status, response.headers["ETag"]) == (status, tag)
    async with desk.session.head("/api/v1/executions") as response:
        assert (response.status, await response.read()) == (200, b"")


async def test_an_unknown_path_is_trouble_and_so_is_a_store_that_is_not_there(desk: Desk) -> None:
    for path in ("/api/v2/status", "/api/", "/api/v1/nothing"):
        async with desk.session.get(path, headers={"Accept": "text/html"}) as response:
            assert (response.status, response.content_type) == (404, "application/problem+json")
    desk.is_open = False
    status, trouble = await desk.ask("/status")
    assert (status, trouble["title"]) == (503, "Service Unavailable")
    desk.is_open = True
    await desk.store.close()
    assert (await desk.ask("/executions"))[0] == 503


RUNNING, SUCCESS = EventType.EXECUTION_RUNNING, EventType.EXECUTION_SUCCESS
TOO_LONG, EXPENSIVE = EventType.EXECUTION_OVERDUE, EventType.EXECUTION_EXPENSIVE


@pytest.mark.parametrize("others", [[], [TOO_LONG], [EXPENSIVE], [EXPENSIVE, RUNNING, TOO_LONG]])
def test_what_changes_no_status_begins_no_stay(others: list[EventType]) -> None:
    events = []
    for number, type_ in enumerate([*(others if RUNNING in others else [RUNNING, *others]), SUCCESS], 1):
        at = f"2026-11-24T00:00:0{number}Z"
        data = {"execution": {"status": "success" if type_ is SUCCESS else "running"}, "observed": {"at": at}}
        events.append(EventView(id=f"{number}", source="/a", type=type_, time=at, sequence=f"{number:010}", data=data))
    first, second = stays_of(events)
    assert (first.status, second.status, first.until) == ("running", "success", second.at)


EXAMPLES_COUNT = 25
LINE_BYTES = 8000
BODY_BYTES = 64 * 1024
DOCUMENT = json.loads((Path(__file__).parents[3] / "watcher" / "web" / "openapi.json").read_text())
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in a thread of its own: schemathesis waits for each answer."""
    ready, done, served = Event(), Event(), list[str]()

    async def serve() -> None:
        async with a_desk(tmp_path_factory.mktemp("api")) as desk:
            served.append(str(desk.session._base_url).rstrip("/"))
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield served[0]
    done.set()
    thread.join()


@pytest.mark.parametrize("name", ["after", "since", "for", "until", "match"])
def test_the_document_says_how_a_value_is_written(name: str) -> None:
    """So that who reads it, or makes a client of it, need not find out by refusals."""
    schemas = [
        (parameter["description"], parameter["schema"])
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for parameter in operation.get("parameters", ())
        if parameter["name"] == name
    ]
    schemas += [
        (schema["properties"][name]["description"], schema["properties"][name])
        for title, schema in DOCUMENT["components"]["schemas"].items()
        if title.endswith("Request") and name in schema.get("properties", ())
    ]
    assert schemas
    for description, schema in schemas:
        forms = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
        assert description
        assert all({"pattern", "format", "minProperties"} & each.keys() for each in forms), schema


async def test_the_document_is_served_with_every_request_and_what_an_event_has(desk: Desk) -> None:
    async with desk.session.get("/openapi.json") as response:
        assert (await response.json(), response.content_type) == (DOCUMENT, "application/json")
    assert sorted(OPERATIONS) == sorted((f"{API}{route.path}", route.method.lower()) for route in ROUTES)
    event = DOCUMENT["components"]["schemas"]["EventView"]
    assert {"id", "source", "type", "time", "sequence", "data"} == set(event["required"])
    assert "subject" in event["properties"]


@pytest.mark.ci
def test_the_document_is_one_of_openapi() -> None:
    schema_of_document().validate()


def schema_of_document() -> Any:
    import schemathesis  # noqa: PLC0415 (a second, and 60 MB, for each process that collects these tests)

    return schemathesis.openapi.from_dict(DOCUMENT)


@pytest.mark.ci
@pytest.mark.filterwarnings("ignore")  # those of schemathesis and what it brings
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_whatever_is_asked_the_answer_is_one_of_the_document(url: str, path: str, method: str) -> None:
    operation = schema_of_document()[path][method.upper()]
    from hypothesis import HealthCheck, Phase, assume, given, settings  # noqa: PLC0415
    from hypothesis.errors import Unsatisfiable  # noqa: PLC0415
    from schemathesis import GenerationMode, checks  # noqa: PLC0415
    from schemathesis.specs.openapi import checks as of_openapi  # noqa: PLC0415

    judges = [checks.not_a_server_error, of_openapi.status_code_conformance, of_openapi.content_type_conformance]
    judges += [of_openapi.response_schema_conformance, of_openapi.negative_data_rejection]
    how = settings(
        max_examples=EXAMPLES_COUNT, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @given(case=operation.as_strategy(generation_mode=mode))
        @how
        def ask(case: Any) -> None:
            assume(len(str(case.query).encode()) * 3 < LINE_BYTES)  # a longer line is no request
            assume(not any(isinstance(value, dict) for value in (case.query or {}).values()))  # it is sent as text
            assume(len(str(case.body)) * 12 < BODY_BYTES)  # a larger one is refused whatever it says
            case.call_and_validate(base_url=url, checks=judges)

        with suppress(Unsatisfiable):  # nothing about it could be wrong
            ask()
