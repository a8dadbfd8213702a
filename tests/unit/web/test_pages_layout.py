"""The pages in a real browser, with much on them: what can be read, tapped and told apart, on a desk and on a phone.

One browser and two desks serve all tests, in any order.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from browser import Visit, a_browser, installed, visit
from console_rig import (
    DEGRADED,
    MINUTE_US,
    NAMED,
    OVERDUE,
    SETTINGS,
    Desk,
    a_desk,
    a_night,
    be_well,
    executed,
    know_from,
    open_problem,
)
from playwright.async_api import Browser
from sample_events import PIPELINE, execution_id
from sqlalchemy import update
from stores import DAY_US, LATER, START_US, claim, due, settle

from watcher.domain.delivery import DeliveryState
from watcher.domain.history import HOUR_US
from watcher.domain.snapshots import AccountSnapshot, PipelineSnapshot
from watcher.domain.timestamps import Micros
from watcher.store.changes import Lease
from watcher.store.sink_store import SinkStore
from watcher.store.sources import Source
from watcher.store.tables import problem, snapshot

pytestmark = [pytest.mark.ci, installed, pytest.mark.asyncio(loop_scope="module")]
once = pytest_asyncio.fixture(scope="module", loop_scope="module")

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
    names = {id_: LONG_NAME[: 4 + 4 * number] for number, id_ in enumerate(others)}
    watch = [{"pipeline": PIPELINE, "account": "default", "name": LONG_NAME, "labels": LABELS}, SETTINGS["watch"][1]]  # type: ignore[index]
    watch += [
        {"pipeline": id_, "account": "default", "name": name, "labels": LABELS if index % 2 else {}}
        for index, (id_, name) in enumerate(names.items())
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
        moment, open_ = Micros(desk.clock.us - 7_000_000_000), {"new": 3, "running": 144, "paused": 17}
        stands = PipelineSnapshot(open_, {"running": moment}, "ssfs" * 5 + "ss", moment, last_started_at=moment)
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
    """Record an execution that starts, and ends unless it is one of the last."""
    status = "failed" if number < FIRST + FAILED_COUNT else "success"
    node = {"name": "Look up the customer", "error": LONG_ERROR}
    running = executed(account, "execution.running", number=number, since_at=desk.clock.us)
    desk.clock.us += 1_000_000
    known = {"since_at": desk.clock.us, "end_seen_at": desk.clock.us}
    block = {"execution": {"id": execution_id(number), "status": status, "failedNodes": [node]}}
    ended = executed(account, f"execution.{status}", number=number, sequence=2, data=block, **known)
    for change in [running, ended] if number < FIRST + ENDED_COUNT else [running]:
        entries = tuple(replace(entry, sinks=("ops", "crm-production")) for entry in change.entries)
        await desk.store.record(replace(change, entries=entries))


@once
async def browser() -> AsyncIterator[Browser]:
    async with a_browser() as browser:
        yield browser


@once
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    async with a_busy_desk(tmp_path_factory.mktemp("busy")) as desk:
        yield desk


@once
async def history(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """Serve the pages of a pipeline with a past of 19 days."""
    async with a_desk(tmp_path_factory.mktemp("history")) as desk:
        desk.clock.us = START_US + 9 * HOUR_US + 25 * MINUTE_US
        await be_well(desk)
        await know_from(desk, desk.clock.us - 20 * DAY_US)
        await a_night(desk, days=19)
        for number in range(8):
            opened_at = desk.clock.us - (number + 1) * 50 * MINUTE_US
            await open_problem(desk, number, opened_at=opened_at, closed_at=opened_at + 30 * MINUTE_US)
        yield desk


async def a_person(desk: Desk, browser: Browser, **how: Any) -> Visit:
    return await visit(browser, str(desk.session._base_url).rstrip("/"), **how)


async def fits(person: Visit, path: str, *widths: int) -> None:
    """Check that nothing is wider than the page, and no word or id broken."""
    for width in widths:
        await person.page.set_viewport_size({"width": width, "height": 720 if width > 1000 else 780})
        assert await person.overflow() == 0, (path, width)
        assert await person.page.evaluate(BROKEN) == [], (path, width)


async def is_usable(person: Visit, path: str, targets: str) -> None:
    """Check that axe finds nothing serious, and that every target can be hit."""
    assert await person.serious() == [], path
    assert await person.page.locator(targets).evaluate_all(SMALL) == [], path


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

SMALL = """all => all.filter((each) => {
  const boxes = [...each.getClientRects()];
  return Math.min(Math.max(...boxes.map((box) => box.width)), Math.max(...boxes.map((box) => box.height))) < 24;
}).map((each) => each.outerHTML)"""

OVERLAPPING = """graphs => graphs.flatMap((graph) => {
  const words = [...graph.querySelectorAll("text,p span")];
  const boxes = words.map((each) => [each.textContent, each.getBoundingClientRect()]);
  return boxes.flatMap(([word, box], index) => boxes.slice(index + 1).filter(([, other]) =>
    box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom
  ).map(([other]) => `${word} ${other}`));
})"""

WITHOUT_HEADING = """cells => cells.filter(cell => getComputedStyle(cell, '::before').content === 'none')
.map(cell => cell.textContent)"""
HEIGHTS = "rows => rows.map(row => row.offsetHeight)"
FILLS = "all => [...new Set(all.map(each => getComputedStyle(each).fill))]"
TARGETS = ":is(a,button,input,select):not(.skip,[aria-hidden]):visible"


async def test_every_page_fits_each_screen_and_can_be_read_and_used_by_anybody(desk: Desk, browser: Browser) -> None:
    person = await a_person(desk, browser, color_scheme="dark")
    for path in PAGES:
        await person.go(path)
        await fits(person, path, 1201, 1200, 768, 320, 1280)
        await is_usable(person, path, TARGETS)
    await person.page.emulate_media(color_scheme="light")
    for path in PAGES:
        await person.go(path)
        await fits(person, path, 360)
        await is_usable(person, path, TARGETS)
        without = await person.page.locator("td:visible:not(.act)").evaluate_all(WITHOUT_HEADING)
        assert len(without) == (20 if path == "/" else 0), (path, without)  # the names of pipelines are headings


async def test_without_scripts_every_page_fits_each_screen(desk: Desk, browser: Browser) -> None:
    person = await a_person(desk, browser, java_script_enabled=False)
    for path in PAGES:
        await person.go(path)
        await fits(person, path, 1280, 1201, 1200, 768, 360, 320)


async def test_rows_of_pipelines_have_one_height_and_labels_in_their_column(desk: Desk, browser: Browser) -> None:
    person = await a_person(desk, browser)
    await person.go("/")
    rows = person.page.locator("tr[data-row]")
    heights = await rows.evaluate_all(HEIGHTS)
    assert (len(heights), len(set(heights)), max(heights) <= 36) == (20, 1, True)
    labels = rows.first.locator(".name>.label")
    assert sorted(await labels.all_inner_texts()) == ["overdue", "silenced", "unknown"]
    for width in (1280, 1201, 360):
        await person.page.set_viewport_size({"width": width, "height": 720})
        outside = await labels.evaluate_all(
            "all => all.map(each => each.getBoundingClientRect().right"
            " - each.closest('td').getBoundingClientRect().right)"
        )
        assert max(outside) <= 0, width


async def test_a_column_without_a_value_is_not_shown_and_rows_have_one_height(desk: Desk, browser: Browser) -> None:
    person = await a_person(desk, browser)
    headings = person.page.locator("th:visible")
    for path, last in (
        ("/executions?status=paused", ["Status", "Pipeline", "Execution", "In status since, or ended ↓"]),
        ("/executions", ["Ran", "Error"]),
        ("/deliveries?state=delivered&type=*", ["Settled, or next try"]),
        ("/deliveries?state=dead", ["Action"]),
        ("/problems", ["How long"]),  # nobody has acknowledged one
    ):
        await person.go(path)
        assert (await headings.all_inner_texts())[-len(last) :] == last
    unscripted = await a_person(desk, browser, java_script_enabled=False)
    await unscripted.go("/deliveries?state=dead")
    assert await unscripted.page.locator("th:visible").last.inner_text() == "Settled, or next try"
    acknowledged = {"acked_at": desk.clock.us, "acked_by": "ana " * 16, "acked_until": desk.clock.us + 7_200_000_000}
    taken = update(problem).where(problem.c.id == DEGRADED.bytes).values(**acknowledged)
    await desk.store.write(lambda connection: connection.execute(taken))
    for path in ("/problems", "/events"):
        for width in (1280, 1201):
            await person.page.set_viewport_size({"width": width, "height": 720})
            await person.go(path)
            heights = await person.page.locator("tr[data-row]").evaluate_all(HEIGHTS)
            assert (len(set(heights)), max(heights) <= 38) == (1, True), (path, width, heights)
            assert await person.overflow() == 0
    long = person.page.locator("td.text", has_text="upstream answered 503").first
    assert LONG_ERROR[:200] in (await long.get_attribute("title") or "")


async def test_a_row_of_problems_and_one_of_events_is_opened_by_keys(desk: Desk, browser: Browser) -> None:
    person = await a_person(desk, browser)
    await person.go("/")
    for letter, list_, address in (("p", "problems", "/problems/*"), ("v", "events", "/executions/**")):
        for key in ("g", letter):
            await person.page.keyboard.press(key)
        await person.page.wait_for_url(f"**/{list_}")
        for key in ("j", "Enter"):
            await person.page.keyboard.press(key)
        await person.page.wait_for_url(f"**{address}")
        assert await person.page.locator("h1").count() == 1


async def test_in_forced_colours_page_row_and_status_are_marked(desk: Desk, history: Desk, browser: Browser) -> None:
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
    assert len(await page.locator(".time > svg > rect").evaluate_all(FILLS)) == 2
    assert await page.locator(".time text").evaluate_all(FILLS) == ["rgb(255, 255, 255)"]
    person = await a_person(history, browser, forced_colors="active")
    await person.go(SPANS[0])
    assert len(await person.page.locator(".graph").first.locator("g rect").evaluate_all(FILLS)) == 2
    assert await person.page.locator(".graph g rect.failed").first.get_attribute("fill") == "url(#hatch)"
    colour = await person.page.evaluate("getComputedStyle(document.body).color")
    assert await person.page.locator(".graph text").evaluate_all(FILLS) == [colour]


SPANS = [f"/pipelines/default/{PIPELINE}{query}" for query in ("", "?span=7d", "?span=30d")]


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
async def test_graphs_fit_each_screen_errors_beside_or_below(history: Desk, browser: Browser, scripts: bool) -> None:
    person = await a_person(history, browser, java_script_enabled=scripts, color_scheme="dark")
    for path in SPANS:
        await person.go(path)
        await person.page.locator("summary").click()
        for width in (1280, 768, 320, 360):
            await fits(person, path, width)
            graph = await person.page.locator("[data-part=graphs]").bounding_box()
            errors = await person.page.locator("[data-part=errors]").bounding_box()
            assert graph is not None
            assert errors is not None
            assert (errors["x"] > graph["x"] + graph["width"]) is (width == 1280)
            assert (errors["y"] >= graph["y"] + graph["height"]) is (width != 1280)
            if scripts and width in {1280, 360}:
                await person.page.emulate_media(color_scheme="dark" if width == 1280 else "light")
                assert await person.page.locator(".graph").evaluate_all(OVERLAPPING) == [], path
                await is_usable(person, path, "main :is(a,summary):not([aria-hidden]):visible")
    assert person.complaints == []


async def test_a_click_on_a_problem_in_a_graph_leads_to_its_page(history: Desk, browser: Browser) -> None:
    person = await a_person(history, browser)
    await person.go(SPANS[0])
    band = person.page.locator(".graph").first.locator("a").last
    await band.scroll_into_view_if_needed()
    box = await band.locator("rect").bounding_box()
    assert box is not None
    await person.page.mouse.click(box["x"] + box["width"] - 3, box["y"] + 5)
    await person.page.wait_for_url("**/problems/**")


async def test_the_table_stays_open_while_the_page_keeps_itself_current(history: Desk, browser: Browser) -> None:
    person = await a_person(history, browser)
    await person.go(SPANS[0])
    await person.page.locator("summary").click()
    await open_problem(history, 40, opened_at=history.clock.us - MINUTE_US)
    history.clock.us += 2_000_000
    await person.page.locator(".graph a").nth(8).wait_for(state="attached")
    assert await person.page.locator("details[open]").count() == 1
