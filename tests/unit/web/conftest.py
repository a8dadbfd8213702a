from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from console_rig import Desk, a_desk


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with a_desk(tmp_path) as desk:
        yield desk
