"""The graphs of a pipeline in a real browser: on a desk and on a phone, in every theme, with and without scripts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from browser import installed
from console_rig import Desk, a_desk
from history_rig import MINUTE_US, a_night, be_well, know_from, open_problem
from playwright.async_api import Browser
from sample_events import PIPELINE
from stores import DAY_US, START_US
from unit.web.test_pages_layout import BROKEN, SMALL, a_person

from watcher.domain.history import HOUR_US

pytestmark = [pytest.mark.ci, installed]

SPANS = [f"/pipelines/default/{PIPELINE}{query}" for query in ("", "?span=7d", "?span=30d")]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with a_desk(tmp_path) as desk:
        desk.clock.us = START_US + 9 * HOUR_US + 25 * MINUTE_US
        await be_well(desk)
        await know_from(desk, desk.clock.us - 20 * DAY_US)
        await a_night(desk, days=19)
        for number in range(8):
            opened_at = desk.clock.us - (number + 1) * 50 * MINUTE_US
            await open_problem(desk, number, opened_at=opened_at, closed_at=opened_at + 30 * MINUTE_US)
        yield desk


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
async def test_graphs_fit_every_screen_and_errors_are_beside_or_under_them(
    desk: Desk, browser: Browser, scripts: bool
) -> None:
    person = await a_person(desk, browser, java_script_enabled=scripts)
    for path in SPANS:
        await person.go(path)
        await person.page.locator("summary").click()
        for width in (1280, 768, 360, 320):
            await person.page.set_viewport_size({"width": width, "height": 720})
            assert await person.overflow() == 0, (path, width)
            assert await person.page.evaluate(BROKEN) == [], (path, width)
            graph = await person.page.locator("[data-part=graphs]").bounding_box()
            errors = await person.page.locator("[data-part=errors]").bounding_box()
            assert graph is not None
            assert errors is not None
            assert (errors["x"] > graph["x"] + graph["width"]) is (width == 1280)
            assert (errors["y"] >= graph["y"] + graph["height"]) is (width != 1280)
    assert person.complaints == []


@pytest.mark.parametrize(("width", "theme"), [(1280, "dark"), (360, "light")])
async def test_axe_finds_nothing_serious_in_graphs_and_every_target_can_be_hit(
    desk: Desk, browser: Browser, width: int, theme: str
) -> None:
    person = await a_person(desk, browser, width, color_scheme=theme)
    for path in SPANS:
        await person.go(path)
        await person.page.locator("summary").click()
        assert await person.serious() == [], path
        targets = person.page.locator("main :is(a,summary):not([aria-hidden]):visible")
        assert await targets.evaluate_all(SMALL) == [], path


@pytest.mark.parametrize("width", [1280, 360])
async def test_words_in_a_graph_do_not_overlap(desk: Desk, browser: Browser, width: int) -> None:
    person = await a_person(desk, browser, width)
    for path in SPANS:
        await person.go(path)
        assert await person.page.locator(".graph").evaluate_all(OVERLAPPING) == [], path


OVERLAPPING = """graphs => graphs.flatMap((graph) => {
  const words = [...graph.querySelectorAll("text,p span")];
  const boxes = words.map((each) => [each.textContent, each.getBoundingClientRect()]);
  return boxes.flatMap(([word, box], index) => boxes.slice(index + 1).filter(([, other]) =>
    box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom
  ).map(([other]) => `${word} ${other}`));
})"""


async def test_a_click_on_a_problem_in_a_graph_leads_to_its_page(desk: Desk, browser: Browser) -> None:
    person = await a_person(desk, browser)
    await person.go(SPANS[0])
    band = person.page.locator(".graph").first.locator("a").last
    await band.scroll_into_view_if_needed()
    box = await band.locator("rect").bounding_box()
    assert box is not None
    await person.page.mouse.click(box["x"] + box["width"] - 3, box["y"] + 5)
    await person.page.wait_for_url("**/problems/**")


async def test_in_forced_colours_failed_bars_are_hatched_and_words_can_be_read(desk: Desk, browser: Browser) -> None:
    person = await a_person(desk, browser, forced_colors="active")
    await person.go(SPANS[0])
    fills = "all => [...new Set(all.map(each => getComputedStyle(each).fill))]"
    bars = person.page.locator(".graph").first.locator("g rect")
    assert len(await bars.evaluate_all(fills)) == 2
    assert await person.page.locator(".graph g rect.failed").first.get_attribute("fill") == "url(#hatch)"
    words = person.page.locator(".graph text")
    assert await words.evaluate_all(fills) == [await person.page.evaluate("getComputedStyle(document.body).color")]


async def test_the_table_stays_open_while_the_page_keeps_itself_current(desk: Desk, browser: Browser) -> None:
    person = await a_person(desk, browser)
    await person.go(SPANS[0])
    await person.page.locator("summary").click()
    await open_problem(desk, 40, opened_at=desk.clock.us - MINUTE_US)
    desk.clock.us += 2_000_000
    await person.page.locator(".graph a").nth(8).wait_for(state="attached")
    assert await person.page.locator("details[open]").count() == 1
