"""The history on a pipeline's page: what it says, draws and links to. Where it stands: `test_graphs_layout.py`."""

import re
from uuid import UUID

import pytest
from console_rig import NAMED, Desk
from history_rig import MINUTE_US, NOW, PATH, a_night, be_well, count, ended, know_from, open_problem, with_history
from sample_events import HOSTILE_PARTS, PIPELINE
from unit.web.test_pages import Got, get

from watcher.domain.history import HOUR_US


@pytest.fixture
async def desk(desk: Desk) -> Desk:
    return await with_history(desk)


async def shown(desk: Desk, span: str = "") -> Got:
    got = await get(desk, f"{PATH}{span and '?span='}{span}")
    assert got.status == 200, got.page.says()
    return got


async def test_the_page_says_how_many_succeeded_and_whether_it_is_getting_worse(desk: Desk) -> None:
    await count(desk, *(ended(NOW - index * MINUTE_US, "failed" if index < 4 else "success") for index in range(20)))
    assert "80.0 % of 20 succeeded in the last 24 h · median 12 s · p95 12 s" in (await shown(desk)).page.says()
    await count(desk, *(ended(NOW - 30 * HOUR_US) for _ in range(40)))
    assert "80.0 % of 20 succeeded in the last 24 h, ↓ was 100 % · median" in (await shown(desk)).page.says()
    await count(desk, *(ended(NOW - 30 * HOUR_US, "failed") for _ in range(40)))
    assert "↑ was 50.0 %" in (await shown(desk)).page.says()
    assert "in the last 30 d · " in (await shown(desk, "30d")).page.says()


async def test_the_page_says_that_none_ended_or_that_nobody_watched(desk: Desk) -> None:
    assert "none ended in the last 24 h" in (await shown(desk)).page.says()
    await know_from(desk, NOW - 2 * HOUR_US)
    assert "none ended in the last 24 h · complete since 07:25:00 UTC" in (await shown(desk)).page.says()
    await know_from(desk, None)
    assert "not watched in the last 24 h" in (await shown(desk)).page.says()


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


async def test_of_a_pipeline_of_which_only_some_executions_are_watched_no_history_is_shown(desk: Desk) -> None:
    await count(desk, ended(NOW), name=f"default/{NAMED}")
    page = (await get(desk, f"/pipelines/default/{NAMED}")).page
    assert ("Executions" in page.says(), "History" in page.says()) == (True, False)
