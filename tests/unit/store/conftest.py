from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from copies import Databases
from postgres import PostgresServer
from stores import claim

from watcher.store.changes import Lease
from watcher.store.sql_store import SqlStore


@pytest.fixture
async def account(store: SqlStore) -> Lease:
    return await claim(store, "account", "default")


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    """Give a PostgreSQL database with the tables of a store."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def databases(tmp_path: Path, postgres: PostgresServer) -> Iterator[Databases]:
    with ExitStack() as stack:
        yield Databases(tmp_path, stack, postgres)
