"""The dashboard in a real browser, over the real daemon: what a person sees and does."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
from browser import Visit, a_browser, installed, visit
from e2e.endpoint import Answer, Attempt, Receiver, take
from e2e.programme import Life
from e2e.stage import Stage, document_of, webhook
from playwright.async_api import Browser
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from watcher.runtime.clock import Clock
from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.world import BRISK, Kind, World, make_lifecycle
from watcher.web.server import HEADERS

pytestmark = [pytest.mark.ci, installed]

TOKEN = "token-5e0b7c"
NAMES = ("Sales agent", "Onboarding <b>&amp;</b>")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with a_browser() as browser:
        yield browser


def reject_what_opens(attempt: Attempt) -> Answer:
    return Answer.REJECT if attempt.event["type"] == "pipeline.failing" else Answer.TAKE


async def a_daemon(
    stage: Stage, *, token: str = "", choose: Callable[[Attempt], Answer] = take
) -> tuple[Life, str, Receiver, World]:
    """Start the daemon; return it, where its pages are, and what it sends to.

    Of its two pipelines one then fails three times within seconds, in the other an execution runs on and on.
    """
    world = World(Clock())
    failing, other = (pipeline_named(name, seed=1) for name in NAMES)
    lifecycle = make_lifecycle(1, index=3, kind=Kind.LONG, pace=BRISK)
    world.add(lifecycle.stretched(600 / lifecycle.length_s()), pipeline=other)
    world.pipelines[failing.id] = failing
    simulator = await stage.simulator(world)
    receiver = await stage.receiver(choose)
    document = document_of({"default": simulator}, {"ops": webhook(receiver)})
    document["watch"] = [
        {
            "pipeline": pipeline.id,
            "account": "default",
            "labels": {"team": "sales" if pipeline.name == NAMES[0] else "ops"},
            "rules": {"failing": {"consecutive": 3}},
        }
        for pipeline in world.pipelines.values()
    ]
    document["polling"] |= {"first_sight": "notify"}
    document["http"] = {"listen": "127.0.0.1:0", "token": token}
    life = await stage.start(document)
    address = await life.started()
    for index in range(3):
        lifecycle = make_lifecycle(1, index=index, kind=Kind.FAILING, pace=BRISK)
        lifecycle = lifecycle.stretched((3 + index) / lifecycle.length_s())
        world.add(lifecycle, pipeline=failing, begins_s=world.now_s())
    return life, address, receiver, world


async def well(visit: Visit) -> None:
    """Hold that the page had no complaint, asked no other host, and kept its policy."""
    assert visit.complaints == []
    assert visit.places == {visit.address}
    assert visit.policies == {HEADERS["Content-Security-Policy"]}


async def test_a_person_logs_in_without_scripts_too_takes_a_problem_silences_it_and_sends_again(
    stage: Stage, browser: Browser
) -> None:
    life, address, receiver, _ = await a_daemon(stage, token=TOKEN, choose=reject_what_opens)
    await life.until(lambda: life.events("pipeline.failing"), what="it failed")
    reader = await visit(browser, address, java_script_enabled=False)
    view = reader.page
    await reader.go("/")
    await view.get_by_label("Token").fill("wrong")
    await view.get_by_role("button", name="Log in").click()
    await reader.sees("This is not the token.")
    await view.get_by_label("Token").fill(TOKEN)
    await view.get_by_role("button", name="Log in").click()
    await reader.sees("keeps failing")
    assert await view.get_by_role("button", name="Acknowledge").count() == 0
    await view.get_by_label("Label").select_option("team:ops")
    await view.get_by_role("button", name="Show").click()
    assert await view.locator("tr[data-row]").count() == 1
    await view.get_by_role("link", name="Executions", exact=True).click()
    await view.get_by_label("failed").check()
    await view.get_by_role("button", name="Show").click()
    assert await view.locator("tr[data-key]").count() == 3
    await view.locator("tr[data-key] a.id").first.click()
    await reader.sees("Who was notified")
    await view.get_by_role("button", name="Log out").click()
    await view.wait_for_url("**/login")
    await view.context.close()

    person = await visit(browser, address)
    page = person.page
    await person.go("/deliveries?state=dead")
    assert page.url == f"{address}/login?next=/deliveries%3Fstate%3Ddead"
    assert (await person.serious(), await person.overflow()) == ([], 0)
    await page.wait_for_timeout(1100)
    assert await page.get_by_text("as of").count() == 0  # nor does it say that it is live
    await page.get_by_label("Token").fill(TOKEN)
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url("**/deliveries?state=dead")
    await page.goto("about:blank")
    await page.set_content(f"<a href='{address}/silences'>of a chat</a>")
    await page.get_by_text("of a chat").click()  # the cookie does not come along
    await page.wait_for_url(f"{address}/silences")

    await person.go("/")
    await person.sees("keeps failing")  # it comes by itself
    await person.sees("failing")
    assert await person.serious() == []
    page.once("dialog", lambda dialog: dialog.accept("Kim <i>"))
    await page.get_by_role("button", name="Acknowledge: Sales agent").click()
    await person.sees("acknowledged")
    await page.get_by_text("keeps failing").first.click()
    await person.sees("by Kim <i>")
    await page.get_by_role("button", name="Take back the acknowledgement").click()
    assert await page.get_by_label("Your name").input_value() == "Kim <i>"
    await page.get_by_label("Comment").first.fill("calling the vendor")
    await page.get_by_role("button", name="Acknowledge").click()
    await person.sees("by Kim <i>: calling the vendor")
    assert await person.serious() == []

    silence = page.locator("form", has_text="Silence this pipeline")
    await silence.get_by_label("Silence").select_option("team=sales: 1 pipeline")
    await silence.get_by_label("for").select_option("8h")
    await silence.get_by_label("Comment").fill("deploy <b>")
    await silence.get_by_role("button").click()
    await silence.locator(".result.good").wait_for(state="attached")
    await person.go("/silences")
    await person.sees("deploy <b>")
    await page.get_by_role("button", name="End now: silence").click()
    await person.sees("Nothing is silenced")

    await person.go("/deliveries?state=dead")
    await person.sees("dead")
    receiver.choose = lambda _: Answer.TAKE
    page.once("dialog", lambda dialog: dialog.accept())
    await page.get_by_role("button", name="Send all 1 dead of ops again").click()
    await stage.board.until(lambda: receiver.subjects["pipeline.failing"], what="it was sent again")
    await person.sees("No dead deliveries")
    await page.context.clear_cookies()
    await page.wait_for_url("**/login?next=*")

    assert [each for each in person.complaints if "401" not in each] == []


async def test_every_page_fits_a_phone_can_be_used_by_keys_and_is_live_or_says_so(
    stage: Stage, browser: Browser
) -> None:
    life, address, _, world = await a_daemon(stage)
    person = await visit(browser, address, color_scheme="dark")
    page = person.page
    await person.go("/")
    await person.sees("keeps failing")
    await page.keyboard.press("j")
    assert await page.locator(".at").count() == 1
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/problems/*")
    problem = page.url.removeprefix(address)
    await page.keyboard.press("f")
    await page.wait_for_url("**/executions?status=failed")
    await person.sees("Sales agent")
    assert await page.locator("tr[data-key]").count() == 3
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/executions/default/**")
    await person.sees("Who was notified")
    execution = page.url.removeprefix(address)
    assert await page.locator("svg.time rect.failed").count() == 1
    await page.keyboard.press("?")
    await page.get_by_label("Keys are on").wait_for()
    await page.keyboard.press("Escape")
    await page.wait_for_function("!document.querySelector('#keys').open && !document.activeElement.matches('input')")
    for _ in range(5):  # until the browser has taken the focus out of what it closed, a key is text for the box there
        await page.keyboard.press("g")
        await page.keyboard.press("d")
        with suppress(PlaywrightTimeoutError):
            await page.wait_for_url("**/deliveries", timeout=5_000)
            break
    await page.wait_for_url("**/deliveries")
    await page.keyboard.press("/")
    await page.keyboard.type("Onboarding")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/executions?q=Onboarding")
    await person.sees(NAMES[1])
    await page.keyboard.press("u")
    await page.locator("#live", has_text="UTC+00:00").or_(page.locator("#live", has_text="UTC")).wait_for()
    await page.get_by_label("Switch between dark and light").click()
    assert await page.evaluate("document.documentElement.dataset.theme") == "light"
    pipeline = await page.locator("main a[href^='/pipelines/']").first.get_attribute("href")
    paths = ("/", "/problems", problem, "/executions", execution, f"{pipeline}", "/events", "/deliveries", "/silences")
    await page.set_viewport_size({"width": 360, "height": 740})
    for path in paths:
        await person.go(path)
        assert await person.overflow() == 0, path
        assert await person.serious() == [], path
    await well(person)
    await page.set_viewport_size({"width": 1280, "height": 720})

    # it says when it is not live, and goes on by itself
    await person.go("/executions?pipeline=" + next(iter(world.pipelines)))  # a list never jumps: what is new waits
    before = await page.locator("tr[data-key]").count()
    world.add(
        make_lifecycle(1, index=9, kind=Kind.LONG, pace=BRISK),
        pipeline=pipeline_named(NAMES[1], seed=1),
        begins_s=world.now_s(),
    )
    await page.get_by_role("button", name="new, show").click()
    assert await page.locator("tr[data-key]").count() > before
    await person.go("/")
    await page.locator("#live", has_text="live · as of").wait_for()
    await page.keyboard.press(".")
    await page.locator("#live", has_text="held").wait_for()
    await page.keyboard.press(".")
    await life.stop()
    await page.get_by_role("alert").get_by_text("Not live since").wait_for(timeout=60_000)
    document = (stage.folder / "watcher.yaml").read_text(encoding="utf-8")
    port = address.rpartition(":")[2]
    (stage.folder / "watcher.yaml").write_text(document.replace("127.0.0.1:0", f"127.0.0.1:{port}"), encoding="utf-8")
    again = await stage.begin("run", "--config", str(stage.folder / "watcher.yaml"))
    await again.started()
    await page.locator("#banner").wait_for(state="hidden", timeout=60_000)
    assert [each for each in person.complaints if "ERR_CONNECTION" not in each and "503" not in each] == []
