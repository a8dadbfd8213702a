from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from browser import a_browser
from console_rig import Desk, a_desk
from playwright.async_api import Browser


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with a_desk(tmp_path) as desk:
        yield desk


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with a_browser() as browser:
        yield browser
