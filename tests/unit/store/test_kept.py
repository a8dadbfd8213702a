"""A store that an earlier version wrote opens, and holds what it held."""

import shutil
from pathlib import Path

import pytest
from stores import PIPELINE, SECOND_US, START_US, SetClock, Woken, execution_id, executions_of, stream_of

from watcher.domain.execution import LostReason
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.store.changes import NO_BACKOFF, BackoffState
from watcher.store.open import open_store
from watcher.store.records import Backlog, PipelineRecord

FIXTURES = Path(__file__).parents[2] / "fixtures"
LATER = Micros(START_US + 60 * SECOND_US)


@pytest.mark.parametrize(
    ("kept", "backoff"), [("store-0001.db", NO_BACKOFF), ("store-0002.db", BackoffState(60.0, 40.0))]
)
async def test_a_store_of_an_earlier_schema_holds_what_it_held(
    tmp_path: Path, kept: str, backoff: BackoffState
) -> None:
    shutil.copy(FIXTURES / kept, tmp_path / "watcher.db")
    store = await open_store(f"sqlite:///{tmp_path}/watcher.db", clock=SetClock(), on_recorded=Woken())
    assert not store.created
    lease = await store.claim("account", "default")
    account = await store.load_account(lease)
    assert (account.sequence, account.trouble, account.backoff) == (1, "unreachable", backoff)
    ended, overdue, lost, odd = await executions_of(store, lease)
    assert {each.pipeline for each in (ended, overdue, lost, odd)} == {PIPELINE}
    assert (ended.execution, ended.status, ended.ended_at) == (execution_id(1), "success", LATER)
    assert ended.counts == (("running", 1), ("success", 1))
    assert (overdue.status, overdue.was_paused, overdue.overdue_sequence) == ("paused", True, 1)
    assert (lost.lost, lost.lost_at, lost.sequence) == (LostReason.NOT_FOUND, LATER, 2)
    assert odd.counts == (("unrecognized:odd", 1),)
    assert {each.found_at for each in (ended, overdue, lost, odd)} == {0}
    assert list(await store.load_open(lease, [PIPELINE])) == [overdue, lost, odd]
    assert await store.load_pipeline(lease, PIPELINE) == PipelineRecord(0, None)
    ops = await store.claim("sink", "ops")
    sink = await store.load_sink(ops, fingerprint="one")
    assert (sink.sequence, sink.state, sink.clock_s, sink.backoff) == (1, "failing", 2.5, NO_BACKOFF)
    assert await store.backlog() == {"ops": Backlog(4, START_US), "log": Backlog(1, START_US)}
    found = await store.next_deliveries(ops, now=LATER, limit=9)
    assert {(each.stream, each.sequence, each.attempts) for each in found.deliveries} == {
        (stream_of(execution_id(1)), 2, 0),
        (stream_of(execution_id(3)), 1, 1),
        (stream_of("accounts/default"), 1, 0),
    }
    await store.close()


async def test_a_store_of_schema_3_holds_how_far_a_pipeline_was_read(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "store-0003.db", tmp_path / "watcher.db")
    store = await open_store(f"sqlite:///{tmp_path}/watcher.db", clock=SetClock(), on_recorded=Woken())
    lease = await store.claim("account", "default")
    cursor = Cursor(START_US, LATER, None, found=True)
    assert await store.load_pipeline(lease, PIPELINE) == PipelineRecord(1, cursor)
    assert (await store.load_open(lease, [PIPELINE]))[-1].found_at == LATER
    await store.close()
