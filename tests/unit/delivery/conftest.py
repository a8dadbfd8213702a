from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from worker_rig import Rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path / "watcher.db")
    await rig.start()
    yield rig
    await rig.kill()
