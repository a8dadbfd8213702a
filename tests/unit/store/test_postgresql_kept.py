"""A PostgreSQL store that an earlier version wrote opens, is brought up to date, and holds what it held."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import EMPTY, PostgresServer, shape
from stores import PIPELINE, SECOND_US, START_US, SetClock, Woken, execution_id, executions_of, stream_of

from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.store.changes import BackoffState
from watcher.store.open import open_store
from watcher.store.records import Backlog, PipelineRecord

FIXTURES = Path(__file__).parents[2] / "fixtures"
LATER = Micros(START_US + 60 * SECOND_US)


@pytest.fixture(params=["store-0006.sql"])
def kept(request: pytest.FixtureRequest, postgres: PostgresServer) -> Iterator[str]:
    with postgres.database(EMPTY) as url:
        postgres.run((FIXTURES / request.param).read_text(), url)
        yield url


async def test_what_waited_is_due_and_what_was_known_is_known(kept: str) -> None:
    store = await open_store(kept, clock=SetClock(), on_recorded=Woken())
    assert not store.created
    account, ops = await store.claim("account", "default"), await store.claim("sink", "ops")
    executions = await executions_of(store, account)
    assert [(each.execution, each.status, each.sequence) for each in executions] == [
        (execution_id(1), "success", 2),
        (execution_id(2), "paused", 1),
        (execution_id(3), "running", 2),
        (execution_id(4), "odd", 1),
        (execution_id(5), None, 0),
    ]
    assert (await store.load_account(account)).backoff == BackoffState(60.0, 40.0)
    cursor = Cursor(START_US, LATER, None, found=True, name="Sales agent", newest_at=START_US)
    assert await store.load_pipeline(account, PIPELINE) == PipelineRecord(1, cursor)
    assert await store.backlog() == {"ops": Backlog(4, Micros(START_US + 1)), "log": Backlog(2, Micros(START_US + 7))}
    found = await store.next_deliveries(ops, now=LATER, limit=9)
    assert {(each.stream, each.sequence, each.attempts) for each in found.deliveries} == {
        (stream_of(execution_id(1)), 2, 0),
        (stream_of(execution_id(3)), 1, 1),
        (stream_of("accounts/default"), 1, 0),
    }
    assert await store.count_dead_letters() == {"ops": 1}
    await store.close()


async def test_its_tables_become_those_of_a_new_database(kept: str, postgres: PostgresServer) -> None:
    store = await open_store(kept, clock=SetClock(), on_recorded=Woken())
    await store.close()
    with postgres.database() as new:
        assert shape(postgres, kept) == shape(postgres, new)
