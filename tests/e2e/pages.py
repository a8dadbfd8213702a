"""The pages of a running program, asked as a platform would ask."""

import asyncio

import aiohttp


async def ready(pages: str, *, within_s: float) -> None:
    """Ask until the daemon is ready, as whoever started it would."""
    async with asyncio.timeout(within_s):
        while (await page(f"{pages}/readyz"))[0] != 200:
            await asyncio.sleep(0.05)


async def page(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()
