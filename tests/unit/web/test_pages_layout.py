"""The pages in a real browser, with much on them: what can be read, tapped and told apart, on a desk and on a phone."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from browser import Visit, installed, visit
from console_rig import DEGRADED, NAMED, OVERDUE, SETTINGS, Desk, a_desk, executed
from playwright.async_api import Browser
from sample_events import PIPELINE, data_of, execution_id
from sqlalchemy import update
from stores import LATER, claim, due, settle

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import EventType
from watcher.domain.snapshots import AccountSnapshot, PipelineSnapshot
from watcher.domain.timestamps import Micros
from watcher.store.changes import ExecutionChange, Lease
from watcher.store.sink_store import SinkStore
from watcher.store.sources import Source
from watcher.store.tables import problem, snapshot

pytestmark = [pytest.mark.ci, installed]

LONG_NAME = "Appointment reminders and cancellations for dental practices"
LONG_ERROR = "upstream answered 503 after 30 s: the provider of the model is overloaded, try again in a minute. " * 3
LABELS = {"team": "customer-success", "env": "production"}
FAILED_COUNT, ENDED_COUNT, OPEN_COUNT = 4, 22, 6
FIRST = 100
"""The number of the first execution."""

PAGES = (
    "/",
    "/executions",
    "/executions?status=running,success",
    f"/executions/default/{PIPELINE}/{execution_id(FIRST)}",
    f"/executions/default/{PIPELINE}/{execution_id(1)}",
    f"/pipelines/default/{PIPELINE}",
    "/problems",
    f"/problems/{OVERDUE}",
    f"/problems/{DEGRADED}",
    "/events",
    "/events?type=execution.*",
    "/deliveries",
    "/deliveries?type=*",
    "/deliveries?state=dead",
    "/silences",
    "/executions?since=foo",
)


@asynccontextmanager
async def a_busy_desk(folder: Path) -> AsyncIterator[Desk]:
    """Serve pages with much on them: long names and errors, two labels, dead letters, 22 ends of each pipeline."""
    others = [execution_id(number) for number in range(18)]
    names = [LONG_NAME[: 4 + 4 * number] for number in range(18)]
    watch = [
        {"pipeline": PIPELINE, "account": "default", "name": LONG_NAME, "labels": LABELS},
        SETTINGS["watch"][1],  # type: ignore[index]
        *(
            {"pipeline": id_, "account": "default", "name": name, "labels": LABELS if index % 2 else {}}
            for index, (id_, name) in enumerate(zip(others, names, strict=True))
        ),
    ]
    sinks = SETTINGS["sinks"] | {"crm-production": {"type": "webhook", "url": "https://crm.example.com/x"}}  # type: ignore[operator]
    async with a_desk(folder, watch=watch, sinks=sinks) as desk:
        account = await claim(desk.store, "account", "default")
        for number in range(FIRST, FIRST + ENDED_COUNT + OPEN_COUNT):
            await _record(desk, account, number)
        for name in ("ops", "crm-production"):
            sink = SinkStore(desk.store, await claim(desk.store, "sink", name))
            waiting = await due(sink, now=LATER)
            await settle(sink, *waiting[:2], state=DeliveryState.WAITING, answer="503 " + LONG_ERROR)
            await settle(sink, *waiting[2:8], state=DeliveryState.DEAD, answer="503 " + LONG_ERROR, attempts=12)
            await settle(sink, *waiting[8:])
        moment = Micros(desk.clock.us - 7_000_000_000)
        ends = "ssfs" * 5 + "ss"
        stands = PipelineSnapshot(
            {"new": 3, "running": 144, "paused": 17}, {"running": moment}, ends, moment, last_started_at=moment
        )
        its = {PIPELINE: stands, NAMED: PipelineSnapshot(), **dict.fromkeys(others, stands)}
        body = json.dumps(asdict(AccountSnapshot(7.1, 4.9, 84.0, its))).encode()
        number = await desk.store.number_of(Source("account", "default"))
        written = update(snapshot).where(snapshot.c.source_id == number).values(body=body, written_at=desk.clock.us)
        await desk.store.write(lambda connection: connection.execute(written))
        silence = {"match": {"labels": LABELS}, "for": "2h", "by": "ana", "comment": LONG_ERROR[:200]}
        async with desk.session.post("/api/v1/silences", json=silence) as answer:
            assert answer.status == 201
        desk.clock.us += 2_000_000
        yield desk


async def _record(desk: Desk, account: Lease, number: int) -> None:
    sinks = ("ops", "crm-production")
    change = executed(account, "execution.running", number=number, since_at=desk.clock.us)
    await desk.store.record(_to(change, sinks))
    desk.clock.us += 1_000_000
    if number >= FIRST + ENDED_COUNT:
        return
    status = "failed" if number < FIRST + FAILED_COUNT else "success"
    type_ = EventType(f"execution.{status}")
    data: dict[str, Any] = data_of(type_, number)
    if status == "failed":
        data["execution"]["failedNodes"] = [{"name": "Look up the customer", "error": LONG_ERROR}]
    known = {"since_at": desk.clock.us, "end_seen_at": desk.clock.us}
    await desk.store.record(_to(executed(account, type_, number=number, sequence=2, data=data, **known), sinks))


def _to(change: ExecutionChange, sinks: tuple[str, ...]) -> ExecutionChange:
    return replace(change, entries=tuple(replace(entry, sinks=sinks) for entry in change.entries))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with a_busy_desk(tmp_path) as desk:
        yield desk


async def a_person(desk: Desk, browser: Browser, width: int = 1280, **how: Any) -> Visit:
    size = {"width": width, "height": 720 if width > 1000 else 780}
    return await visit(browser, str(desk.session._base_url).rstrip("/"), viewport=size, **how)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
async def test_no_word_or_id_is_broken_and_nothing_is_wider_than_the_page(
    desk: Desk, browser: Browser, scripts: bool
) -> None:
    person = await a_person(desk, browser, java_script_enabled=scripts)
    for path in PAGES:
        await person.go(path)
        for width in (1280, 1201, 1200, 768, 360, 320):
            await person.page.set_viewport_size({"width": width, "height": 720})
            assert await person.overflow() == 0, (path, width)
            assert await person.page.evaluate(BROKEN) == [], (path, width)


BROKEN = """() => {
  const lines = (range) => {
    return new Set([...range.getClientRects()].filter((box) => box.width).map((box) => box.bottom)).size;
  };
  const found = [...document.querySelectorAll(".id, time.age, .s, .d")].filter((each) => {
    const range = document.createRange();
    range.selectNodeContents(each.lastChild);
    return lines(range) > 1;
  }).map((each) => each.textContent);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) for (const word of texts.currentNode.data.matchAll(/[^\\s-]+/g)) {
    const range = document.createRange();
    range.setStart(texts.currentNode, word.index);
    range.setEnd(texts.currentNode, word.index + word[0].length);
    if (lines(range) > 1) found.push(word[0]);
  }
  return found;
}"""


async def test_rows_of_pipelines_have_one_height_on_a_desk_and_headings_on_a_phone(
    desk: Desk, browser: Browser
) -> None:
    person = await a_person(desk, browser)
    await person.go("/")
    heights = await person.page.locator("tr[data-row]").evaluate_all("rows => rows.map(row => row.offsetHeight)")
    assert (len(heights), len(set(heights))) == (20, 1)
    assert max(heights) <= 36
    phone = await a_person(desk, browser, 360)
    for path in PAGES:
        await phone.go(path)
        without = await phone.page.locator("td:visible:not(.act)").evaluate_all(
            "cells => cells.filter(cell => getComputedStyle(cell, '::before').content === 'none')"
            ".map(cell => cell.textContent)"
        )
        assert len(without) == (20 if path == "/" else 0), (path, without)  # the names of pipelines are headings


async def test_three_labels_of_a_pipeline_stay_in_their_column(desk: Desk, browser: Browser) -> None:
    person = await a_person(desk, browser)
    await person.go("/")
    labels = person.page.locator("tr[data-row]").first.locator(".name>.label")
    assert sorted(await labels.all_inner_texts()) == ["overdue", "silenced", "unknown"]
    for width in (1280, 1201, 360):
        await person.page.set_viewport_size({"width": width, "height": 720})
        outside = await labels.evaluate_all(
            "all => all.map(each => each.getBoundingClientRect().right"
            " - each.closest('td').getBoundingClientRect().right)"
        )
        assert max(outside) <= 0, width


async def test_rows_of_problems_and_events_have_one_height_on_a_desk_however_long_their_words_are(
    desk: Desk, browser: Browser
) -> None:
    acknowledged = {"acked_at": desk.clock.us, "acked_by": "ana " * 16, "acked_until": desk.clock.us + 7_200_000_000}
    taken = update(problem).where(problem.c.id == DEGRADED.bytes).values(**acknowledged)
    await desk.store.write(lambda connection: connection.execute(taken))
    person = await a_person(desk, browser)
    for path in ("/problems", "/events"):
        for width in (1280, 1201):
            await person.page.set_viewport_size({"width": width, "height": 720})
            await person.go(path)
            rows = person.page.locator("tr[data-row]")
            heights = await rows.evaluate_all("rows => rows.map(row => row.offsetHeight)")
            assert (len(set(heights)), max(heights) <= 38) == (1, True), (path, width, heights)
            assert await person.overflow() == 0
    long = person.page.locator("td.text", has_text="upstream answered 503").first
    assert LONG_ERROR[:200] in (await long.get_attribute("title") or "")


async def test_a_row_of_problems_and_one_of_events_is_opened_by_keys(desk: Desk, browser: Browser) -> None:
    person = await a_person(desk, browser)
    page = person.page
    await person.go("/")
    for letter, row, address in (("p", 1, "/problems/*"), ("v", 1, "/executions/**")):
        await page.keyboard.press("g")
        await page.keyboard.press(letter)
        await page.wait_for_url("**/problems" if letter == "p" else "**/events")
        for _ in range(row):
            await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**{address}")
        assert await page.locator("h1").count() == 1


async def test_a_column_without_a_value_on_the_page_is_not_shown(desk: Desk, browser: Browser) -> None:
    person = await a_person(desk, browser)
    headings = person.page.locator("th:visible")
    await person.go("/executions?status=paused")
    assert await headings.all_inner_texts() == ["Status", "Pipeline", "Execution", "In status since, or ended ↓"]
    await person.go("/executions")
    assert (await headings.all_inner_texts())[4:] == ["Ran", "Error"]
    await person.go("/deliveries?state=delivered&type=*")
    assert (await headings.all_inner_texts())[-1] == "Settled, or next try"
    await person.go("/deliveries?state=dead")
    assert (await headings.all_inner_texts())[-1] == "Action"
    await person.go("/problems")
    assert (await headings.all_inner_texts())[-1] == "How long"  # nobody has acknowledged one
    unscripted = await a_person(desk, browser, java_script_enabled=False)
    await unscripted.go("/deliveries?state=dead")
    assert await unscripted.page.locator("th:visible").last.inner_text() == "Settled, or next try"


@pytest.mark.parametrize(("width", "theme"), [(1280, "dark"), (360, "light")])
async def test_axe_finds_nothing_serious_and_every_target_can_be_hit(
    desk: Desk, browser: Browser, width: int, theme: str
) -> None:
    person = await a_person(desk, browser, width, color_scheme=theme)
    for path in PAGES:
        await person.go(path)
        assert await person.serious() == [], path
        assert (
            await person.page.locator(":is(a,button,input,select):not(.skip,[aria-hidden]):visible").evaluate_all(SMALL)
            == []
        ), path


SMALL = """all => all.filter((each) => {
  const boxes = [...each.getClientRects()];
  return Math.min(Math.max(...boxes.map((box) => box.width)), Math.max(...boxes.map((box) => box.height))) < 24;
}).map((each) => each.outerHTML)"""


async def test_in_forced_colours_the_page_row_and_status_are_still_marked(desk: Desk, browser: Browser) -> None:
    person = await a_person(desk, browser, forced_colors="active")
    page = person.page
    for path in ("/", "/executions"):
        await person.go(path)
        current = page.locator("header [aria-current]")
        assert await current.evaluate("link => getComputedStyle(link).textDecorationLine") == "underline"
        await page.keyboard.press("j")
        assert await page.locator("[data-row].at").evaluate("row => getComputedStyle(row).outlineStyle") == "solid"
    glyphs = await page.locator("tbody .s").all_inner_texts()
    assert {glyph[0] for glyph in glyphs} == {"▶", "‖", "✓", "✕", "?"}
    await person.go(PAGES[3])
    fills = "all => all.map(each => getComputedStyle(each).fill)"
    assert len(set(await page.locator(".time > svg > rect").evaluate_all(fills))) == 2
    (text,) = set(await page.locator(".time text").evaluate_all(fills))
    assert text == "rgb(255, 255, 255)"
