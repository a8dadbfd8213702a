from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest
from e2e.stage import Stage
from postgres import PostgresServer


@pytest.fixture
async def sqlite_stage(tmp_path: Path, dice: Random) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        yield Stage(tmp_path, stack, dice=dice)


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Stage:
    """Give a stage whose program keeps its state in SQLite, or in what a test is parametrised with."""
    stage: Stage = request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_stage")
    return stage


@pytest.fixture
async def postgres_stage(tmp_path: Path, dice: Random, postgres: PostgresServer) -> AsyncIterator[Stage]:
    """Give a stage whose program keeps its state in PostgreSQL."""
    with postgres.database() as url:
        async with AsyncExitStack() as stack:
            yield Stage(tmp_path, stack, dice=dice, store_url=url)
