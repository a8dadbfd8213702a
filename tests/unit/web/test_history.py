"""The history of a pipeline, as the API answers it and as its page says, draws and links to it.

Where it stands on the page: `test_pages_layout.py`.
"""

import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from console_rig import (
    MINUTE_US,
    NAMED,
    NOW,
    PATH,
    Desk,
    a_desk,
    a_night,
    be_well,
    count,
    ended,
    know_from,
    open_problem,
    with_history,
)
from sample_events import HOSTILE_PARTS, PIPELINE
from stores import DAY_US, START_US
from unit.web.test_pages import Got, get

from watcher.domain.history import HOUR_US


@pytest.fixture
async def desk(desk: Desk) -> Desk:
    return await with_history(desk)


async def history(desk: Desk, span: str = "", *, of: str = PATH) -> Any:
    return await desk.found(f"{of}/history{span and '?span='}{span}")


async def known(desk: Desk, *, of: str = PATH, span: str = "") -> list[bool]:
    return [each["known"] for each in (await history(desk, span, of=of))["periods"]]


async def shown(desk: Desk, span: str = "") -> Got:
    got = await get(desk, f"{PATH}{span and '?span='}{span}")
    assert got.status == 200, got.page.says()
    return got


async def test_ends_are_counted_by_the_hour_the_running_one_last(desk: Desk) -> None:
    at = NOW - NOW % HOUR_US
    now = [ended(at + MINUTE_US, duration_s=8.0, tokens=500), ended(at + MINUTE_US, "failed")]
    await count(desk, *now, ended(at - HOUR_US + MINUTE_US, "unrecognized"), ended(at - 24 * HOUR_US))  # longer ago
    found = await history(desk)
    assert (found["account"], found["pipeline"]) == ("default", {"id": PIPELINE, "name": "Sales agent"})
    assert (found["from"], found["until"]) == ("2026-11-23T10:00:00Z", "2026-11-24T10:00:00Z")
    assert len(found["periods"]) == 24
    *_, last, running = found["periods"]
    assert (running["from"], running["until"]) == ("2026-11-24T09:00:00Z", "2026-11-24T10:00:00Z")
    assert (running["known"], running["started"], running["tokens"]) == (True, 2, 500)
    assert running["ended"] == {"success": 1, "failed": 1, "unrecognized": 0}
    assert running["medianSeconds"] == running["p95Seconds"] == pytest.approx(8.0, rel=0.05)
    assert (last["ended"]["unrecognized"], "medianSeconds" in last) == (1, False)
    assert found["total"]["ended"] == {"success": 1, "failed": 1, "unrecognized": 1}
    assert (found["total"]["from"], found["total"]["until"]) == (found["from"], found["until"])


@pytest.mark.parametrize(
    ("span", "number", "first"),
    [
        ("1h", 1, "2026-11-24T09:00:00Z"),
        ("90m", 2, "2026-11-24T08:00:00Z"),
        ("7d", 168, "2026-11-17T10:00:00Z"),
        ("8d", 8, "2026-11-17T00:00:00Z"),
        ("90d", 90, "2026-08-27T00:00:00Z"),
    ],
)
async def test_a_span_over_a_week_is_by_the_day(desk: Desk, span: str, number: int, first: str) -> None:
    found = await history(desk, span)
    assert (len(found["periods"]), found["from"]) == (number, first)


async def test_the_span_before_is_there_only_where_all_of_it_is_known(desk: Desk) -> None:
    await count(desk, ended(NOW - 30 * HOUR_US), ended(NOW - 30 * HOUR_US, "failed"), ended(NOW - HOUR_US))
    found = await history(desk)
    before = found["before"]
    assert not found["rateHasChanged"]  # chance explains one failure in two
    assert (before["from"], before["until"]) == ("2026-11-22T10:00:00Z", "2026-11-23T10:00:00Z")
    assert before["ended"] == {"success": 1, "failed": 1, "unrecognized": 0}
    await know_from(desk, START_US - 38 * HOUR_US)  # 2026-11-22T10:00:00Z
    assert "before" in await history(desk)
    await know_from(desk, START_US - 38 * HOUR_US + 1)
    assert "before" not in await history(desk)


NIGHTLY = {"days": ["sun", "mon", "tue"], "from": "22:00", "to": "02:00", "timezone": "UTC"}
SILENCES: list[dict[str, Any]] = [
    {"match": {"labels": {"team": "sales"}}, "weekly": NIGHTLY, "comment": "deploy"},
    {"match": {"labels": {"team": "ops"}}, "from": "2026-11-24T00:00:00Z", "until": "2026-11-25T00:00:00Z"},
    {"match": {"labels": {"team": "sales"}}, "from": "2026-11-24T09:30:00Z", "until": "2026-11-25T00:00:00Z"},
]


async def test_a_history_has_the_silences_that_held_within_its_span(tmp_path: Path) -> None:
    async with a_desk(tmp_path, silences=SILENCES) as desk:
        await count(await with_history(desk), ended(NOW - HOUR_US))
        made = {"match": {"accounts": ["default"], "sinks": ["ops"], "events": ["execution.*"]}, "for": "5m"}
        status, silence = await desk.ask("/silences", "POST", json=made)
        assert status == 201
        desk.clock.us += 2 * MINUTE_US
        assert (await desk.ask(f"/silences/{silence['id']}", "DELETE"))[0] == 204  # it has ended, and is still there
        found = [(each["from"], each["until"], each["what"]) for each in (await history(desk))["silences"]]
        assert found == [
            ("2026-11-23T22:00:00Z", "2026-11-24T02:00:00Z", "silenced: deploy"),
            ("2026-11-24T09:25:00Z", "2026-11-24T09:27:00Z", "silenced at ops (execution.*)"),
        ]
        weeks = [each["from"][:10] for each in (await history(desk, "7d"))["silences"]]
        assert weeks == ["2026-11-17", "2026-11-22", "2026-11-23", "2026-11-24"]
        page = (await shown(desk)).body
        assert "silenced at ops (execution.*)" in page
        assert "color=gray opacity=.3" in page


async def test_what_was_before_the_watch_is_not_known_unless_something_was_counted(desk: Desk) -> None:
    await know_from(desk, NOW - 2 * HOUR_US)
    await count(desk, ended(NOW - 3 * HOUR_US), ended(NOW - 2 * HOUR_US))
    assert await known(desk) == [False] * 20 + [True] * 4  # what was counted before is shown
    found = await history(desk)
    assert (found["knownFrom"], found["total"]["ended"]["success"]) == ("2026-11-24T07:25:00Z", 2)
    await know_from(desk, None)  # the first scan is under way
    assert await known(desk) == [False] * 20 + [True] * 2 + [False] * 2
    assert {"knownFrom", "before"} & (await history(desk)).keys() == set()


async def test_what_retention_has_taken_is_not_known_nor_what_its_owner_has_not_written(tmp_path: Path) -> None:
    async with a_desk(tmp_path, store={"retention": "2d"}) as desk:
        await with_history(desk)
        assert await known(desk, span="30d") == [False] * 27 + [True] * 3
        found = await history(desk, "30d")
        assert ("before" in found, found["knownFrom"]) == (False, "2026-11-22T09:00:00Z")
        desk.clock.us += 2 * HOUR_US
        assert await known(desk) == [True] * 22 + [False] * 2


async def test_the_problems_of_the_span_and_new_kinds_of_errors_are_there(desk: Desk) -> None:
    await open_problem(desk, 5, opened_at=NOW - 30 * HOUR_US, closed_at=NOW - 20 * HOUR_US)
    await open_problem(desk, 6, opened_at=NOW - 30 * HOUR_US, closed_at=NOW - 29 * HOUR_US)
    (problem,) = (await history(desk))["problems"]
    assert (problem["id"], problem["kind"]) == (str(UUID(bytes=bytes([5] * 16))), "pipeline.failing")
    assert (problem["openedAt"], problem["closedAt"]) == ("2026-11-23T03:25:00Z", "2026-11-23T13:25:00Z")
    await count(desk, ended(NOW - 25 * HOUR_US, "failed"), ended(NOW - HOUR_US, "failed"))
    await count(desk, ended(NOW - 2 * HOUR_US, "failed", error="boom"))
    await count(desk, ended(NOW - HOUR_US, "failed"))
    known, new = (await history(desk))["errors"]
    assert (known["node"], known["text"], known["isNew"]) == ("Greeting", "timeout after 30 s", False)
    assert (new["text"], new["count"], new["lastAt"], new["isNew"]) == ("boom", 1, "2026-11-24T07:25:00Z", True)
    assert len(bytes.fromhex(new["fingerprint"])) == 16
    await know_from(desk, NOW - 23 * HOUR_US)
    assert [each["isNew"] for each in (await history(desk))["errors"]] == [False, False]


async def test_of_a_pipeline_of_which_only_some_executions_are_watched_it_is_known_from_their_first(desk: Desk) -> None:
    name, path = f"default/{NAMED}", f"/pipelines/default/{NAMED}"
    assert (await history(desk, of=path))["total"]["known"] is False
    await count(desk, ended(NOW - 2 * HOUR_US), name=name)
    assert await known(desk, of=path) == [False] * 21 + [True] * 3
    assert (await history(desk, of=path))["total"]["ended"]["success"] == 1
    await count(desk, ended(NOW - 30 * HOUR_US), name=name)
    assert all(await known(desk, of=path))
    assert (await history(desk, of=path))["knownFrom"] == "2026-11-23T03:00:00Z"
    says = (await get(desk, path)).page.says()  # its page shows none
    assert ("Executions" in says, "History" in says) == (True, False)


# on the page


async def test_the_page_says_how_many_succeeded_and_whether_it_is_getting_worse(desk: Desk) -> None:
    ends = [ended(NOW - index * MINUTE_US, "failed" if index < 4 else "success") for index in range(20)]
    for more, words in (
        (ends, "80.0 % of 20 succeeded in the last 24 h · median 12 s · p95 12 s"),
        ([ended(NOW - 30 * HOUR_US)] * 40, "80.0 % of 20 succeeded in the last 24 h, ↓ was 100 % · median"),
        ([ended(NOW - 30 * HOUR_US, "failed")] * 40, "↑ was 50.0 %"),
    ):
        await count(desk, *more)
        assert words in (await shown(desk)).page.says()
    assert "in the last 30 d · " in (await shown(desk, "30d")).page.says()


async def test_the_page_says_that_none_ended_or_that_nobody_watched(desk: Desk) -> None:
    for known_from, words in (
        (NOW - 29 * DAY_US, "none ended in the last 24 h"),
        (NOW - 2 * HOUR_US, "none ended in the last 24 h · complete since 07:25:00 UTC"),
        (None, "not watched in the last 24 h"),
    ):
        await know_from(desk, known_from)
        assert words in (await shown(desk)).page.says()


async def test_the_span_is_in_the_address_and_any_other_is_refused(desk: Desk) -> None:
    for span, current, label in (("", PATH + "?", "last 24 h"), ("7d", PATH + "?span=7d", "last 7 d")):
        await count(desk, ended(NOW))
        page = (await shown(desk, span)).page
        links = [(its.get("href"), its.get("aria-current")) for tag, its in page.tags if tag == "a"]
        assert {f"{PATH}?", f"{PATH}?span=7d", f"{PATH}?span=30d"} <= {href for href, _ in links}
        assert [href for href, is_current in links if is_current == "true"] == [current]
        assert any((each or "").startswith(label) for each in page.values("svg", "aria-label"))
    for span in ("5h", "x"):
        got = await get(desk, f"{PATH}?span={span}")
        assert (got.status, "Span: write one of 24h, 7d, 30d." in got.page.says()) == (400, True)


async def test_every_graph_says_in_words_what_it_shows_and_has_few_elements(desk: Desk) -> None:
    await a_night(desk, days=29)
    for number in range(1, 35):
        opened_at = NOW - number * HOUR_US // 3
        await open_problem(desk, number, opened_at=opened_at, closed_at=opened_at + HOUR_US // 4)
    for span in ("24h", "7d", "30d"):
        got = await shown(desk, span)
        labels = [its["aria-label"] or "" for tag, its in got.page.tags if tag == "svg" and its.get("role") == "img"]
        assert [each.split()[0] for each in labels] == ["last", "last", "median", f"{labels[3].split()[0]}"]
        assert labels[3].endswith(" tokens")
        for drawn in got.body.split("<div class=graph>")[1:]:
            assert 30 < drawn.split("</div>")[0].count("<") - drawn.split("</div>")[0].count("</") <= 300
        assert len(got.page.tags) <= 1500
        assert len(got.body) <= 75_000


async def test_bars_have_words_and_failures_are_hatched(desk: Desk) -> None:
    await count(desk, ended(NOW), ended(NOW, "failed"))
    await count(desk, ended(NOW - HOUR_US, "unrecognized", tokens=7))
    got = await shown(desk)
    assert "<title>Nov 24 09:00 to 10:00 UTC: 1 succeeded, 1 failed</title>" in got.body
    assert "<title>Nov 24 08:00 to 09:00 UTC: 0 succeeded, 0 failed, 1 unrecognized, 7 tokens</title>" in got.body
    assert '<rect class=failed fill="url(#hatch)"' in got.body
    assert "<rect class=unknown x" in got.body


async def test_times_without_knowledge_are_marked_and_a_problem_leads_to_its_page(desk: Desk) -> None:
    await know_from(desk, NOW - 2 * HOUR_US)
    await count(desk, ended(NOW))
    await open_problem(desk, 5, opened_at=NOW - HOUR_US)
    got = await shown(desk)
    assert "not watched</text>" in got.body
    link = f"/problems/{UUID(bytes=bytes([5] * 16))}"
    assert f'<a href="{link}" tabindex=-1 aria-hidden=true>' in got.body  # of each graph; for all others below them
    assert "Problems: failing 08:25:00 UTC, open" in got.page.says()


async def test_the_table_has_the_same_numbers_newest_first(desk: Desk) -> None:
    await know_from(desk, NOW - 2 * HOUR_US)
    await count(desk, ended(NOW, tokens=1_200), ended(NOW - HOUR_US, "failed"))
    body = (await shown(desk)).body
    table = body[body.index("<details>") : body.index("</details>")]
    rows = [re.sub(r"<td[^>]*>", "|", row) for row in table.split("<tr>")[2:]]
    texts = [re.sub(r"<[^>]*>|\s+", "", row) for row in rows]
    assert texts[:4] == [
        "|09:00:00UTC|1|1|0||12s|12s|1,200",
        "|08:00:00UTC|1|0|1||||",
        "|07:00:00UTC|0|0|0||||",
        "|06:00:00UTC|notwatched",
    ]
    assert len(texts) == 24
    desk.clock.us += 2 * HOUR_US
    body = (await shown(desk)).body
    assert body[body.index("<details>") :].index(">unknown") < body[body.index("<details>") :].index("09:00:00")


async def test_the_most_frequent_errors_are_beside_escaped_and_lead_to_the_executions(desk: Desk) -> None:
    hostile = HOSTILE_PARTS[0] + "\u202e" + "x" * 300
    await count(desk, *(ended(NOW - MINUTE_US, "failed", error=hostile) for _ in range(3)), ended(NOW, "failed"))
    got = await shown(desk, "7d")
    assert re.search(r" 3 .? Greeting: ", got.page.says())
    assert "new" in got.page.says().partition("Most frequent errors")[2][:400]
    assert HOSTILE_PARTS[0] not in got.body
    assert "\u202e" not in got.body
    assert "x" * 170 not in got.body
    link = f"/executions?status=failed&account=default&pipeline={PIPELINE}&since=7d"
    assert link in got.page.values("a", "href")


async def test_the_page_stays_the_same_while_only_time_goes_on(desk: Desk) -> None:
    await a_night(desk)
    tags = set()
    for _ in range(4):
        desk.clock.us += 11_000_000
        await be_well(desk)
        tags.add((await shown(desk)).headers["ETag"])
    assert len(tags) == 1
    await count(desk, ended(NOW))
    assert (await shown(desk)).headers["ETag"] not in tags
