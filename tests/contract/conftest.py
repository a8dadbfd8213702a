"""Each kind of database there is, with an account and a sink that are claimed."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from postgres import PostgresServer
from stores import SetClock, StoreRig, Woken, claim, open_soon, sink_of, upkeep

from watcher.domain.timestamps import Micros
from watcher.store.changes import Lease
from watcher.store.maintenance_store import KeepsId
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import SqlStore


def drop(_account: str, _pipeline: str, _execution: str, _ended_at: int) -> bool:
    """Keep no id of what is pruned."""
    return False


async def prune(store: SqlStore, *, before: int, keep: KeepsId = drop) -> int:
    """Prune what ended before that moment; return how many executions' events went."""
    steps = (await upkeep(store)).prune(ended_before=Micros(before), keep=keep)
    return sum([count async for count in steps])


on_both = pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
"""`make test` runs the contract on SQLite, and one case of each class of a store on PostgreSQL, too: this one."""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.ci)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/watcher.db"
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    with postgres.database() as url:
        yield url


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def woken() -> Woken:
    return Woken()


@pytest.fixture
async def store(url: str, clock: SetClock, woken: Woken) -> AsyncIterator[SqlStore]:
    opened = await open_soon(url, clock=clock)
    opened.wakes = woken
    yield opened
    await opened.close()


@pytest.fixture
async def account(store: SqlStore) -> Lease:
    return await claim(store, "account", "default")


@pytest.fixture
async def ops(store: SqlStore) -> SinkStore:
    return await sink_of(store)


@pytest.fixture
def rig(store: SqlStore, account: Lease, ops: SinkStore, clock: SetClock, woken: Woken) -> StoreRig:
    return StoreRig(store, account, ops, clock, woken)
