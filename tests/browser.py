"""The real Chromium, as Debian packages it, without a screen. What a page asks for, or complains of, is remembered."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Page, Request, Response, async_playwright

PROGRAM = shutil.which("chromium")
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
PATIENCE_MS = 30_000

installed = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed: apt-get install chromium")
"""For tests that need it."""


STRICTER = {
    "rules": {rule: {"enabled": True} for rule in ("label-content-name-mismatch", "target-size")},
    "resultTypes": ["violations"],
}
"""What axe looks for only if it is told to: names that are not what is shown, targets under 24 pixels.

It tells all of what it finds, and not of what is well: that would be a megabyte each time.
"""


class Visit:
    """A page in a browser of its own, as a person has it."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.complaints: list[str] = []
        self.places: set[str] = set()
        self.policies: set[str] = set()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._ask)
        page.on("response", self._answer)

    async def go(self, path: str) -> None:
        await self.page.goto(self.address + path)

    async def sees(self, text: str) -> None:
        """Wait until the page shows a text."""
        await self.page.locator("main").get_by_text(text).locator("visible=true").first.wait_for()

    async def serious(self) -> list[str]:
        """Return what axe finds that keeps somebody from using the page."""
        found: Any = (await Axe().run(self.page, options=STRICTER)).response
        return [
            f"{each['id']}: {node['html']}"
            for each in found["violations"]
            if each["impact"] in {"serious", "critical"}
            for node in each["nodes"]
        ]

    async def overflow(self) -> int:
        """Return by how many pixels the page is wider than the screen."""
        width: int = await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return width

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in {"error", "warning"}:
            self.complaints.append(said.text)

    def _ask(self, request: Request) -> None:
        self.places.add("{0.scheme}://{0.netloc}".format(urlsplit(request.url)))

    def _answer(self, response: Response) -> None:
        self.policies.add(response.headers.get("content-security-policy", ""))


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = playwright.chromium
        arguments = [*QUIET.split(), "--disable-component-update", "--disable-sync"]
        browser = await chromium.launch(executable_path=PROGRAM, args=arguments)
        yield browser
        await browser.close()


async def visit(browser: Browser, address: str, **how: Any) -> Visit:
    """Open a browser without a past; `how` are Playwright's words for it, such as `viewport`."""
    context = await browser.new_context(**{"viewport": {"width": 1280, "height": 720}} | how)
    return Visit(await context.new_page(), address)
