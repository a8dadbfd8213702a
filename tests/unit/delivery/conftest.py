from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from worker_rig import Rig, do


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """Return a rig without a loop."""
    rig = Rig(tmp_path / "watcher.db", loop=False)
    do(rig.start())
    yield rig
    do(rig.kill())


@pytest.fixture
async def looped(tmp_path: Path) -> AsyncIterator[Rig]:
    """Return a rig whose worker sends by itself, and whose store has threads."""
    rig = Rig(tmp_path / "watcher.db")
    await rig.start()
    yield rig
    await rig.kill()
