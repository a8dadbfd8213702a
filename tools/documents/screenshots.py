"""Pictures of the dashboard, made by opening the demonstration in a real browser: about two minutes."""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from browser import a_browser, visit
from playwright.async_api import Page

from documents.pictures import FOLDER, SWAYING
from watcher.simulator.scenarios import WORSE

READY_AFTER_S = 100.0
"""Then enough has started, ended and failed to be seen."""


async def main() -> None:
    """Run the demonstration, photograph its pages and end it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(SWAYING)}
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "watcher", "demo", "--forever"),
            cwd=folder,
            env=environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            async for line in process.stderr:
                if line.startswith(b"Dashboard: "):
                    await photograph(line.decode().removeprefix("Dashboard: ").strip())
                    return
        finally:
            process.terminate()
            await process.wait()


async def photograph(address: str) -> None:
    """Take the pictures once there is something to see."""
    await asyncio.sleep(READY_AFTER_S)
    async with a_browser() as browser:
        for theme in ("light", "dark"):
            person = await visit(browser, address, color_scheme=theme)
            await person.go("/")
            await person.sees("keeps failing")
            await shoot(person.page, f"dashboard-{theme}.png")
            if theme == "light":
                await person.page.get_by_text("keeps failing").first.click()
                await person.sees("Who was notified")
                await shoot(person.page, "problem-light.png")
                await person.go("/")
                await person.page.get_by_role("link", name=WORSE).click()
                await person.page.get_by_role("link", name="7 d").click()
                await person.sees("Most frequent errors")
                await person.page.locator("section", has=person.page.locator("#h-history")).screenshot(
                    path=FOLDER / "history-light.png"
                )
            else:
                await person.go("/executions?status=failed&q=Appointment")
                await person.page.locator("tr[data-key] a.id").first.click()
                await person.sees("Who was notified")
                await shoot(person.page, "execution-dark.png")


async def shoot(page: Page, name: str) -> None:
    """Write a picture of what fits on the screen, but for its last lines: with them a full page is too large a file."""
    await page.wait_for_timeout(1000)
    await page.screenshot(path=FOLDER / name, clip={"x": 0, "y": 0, "width": 1280, "height": 690})


if __name__ == "__main__":
    asyncio.run(main())
