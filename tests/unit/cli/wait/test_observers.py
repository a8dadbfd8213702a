"""Ears, and a store that keeps nothing."""

from virtual import PIPELINE, FakeClock, ScriptedApi, said

from watcher.clerk.protocol import Reply
from watcher.cli.wait.observers import EphemeralStore, ObservedApi
from watcher.domain.execution import ExecutionRecord
from watcher.domain.timestamps import Micros
from watcher.store.changes import NO_BACKOFF, Change, ExecutionChange, Lease
from watcher.store.protocol import AccountStore
from watcher.store.records import AccountRecord, PipelineRecord


async def test_a_reply_is_heard_and_passed_on() -> None:
    heard: list[Reply] = []
    api = ObservedApi(ScriptedApi(FakeClock(), {"e": said("e", "running")}), heard.append)
    reply = await api.get(pipeline=PIPELINE, execution="e")
    assert heard == [reply]


async def test_a_page_of_a_list_is_passed_on_unheard() -> None:
    heard: list[Reply] = []
    api = ObservedApi(ScriptedApi(FakeClock(), pages={2: (said("e", "running"),)}), heard.append)
    assert (await api.list(pipeline=PIPELINE, page=2)).rows == (said("e", "running"),)
    assert heard == []


async def test_a_change_is_heard_and_kept_nowhere() -> None:
    heard: list[Change] = []
    ledger: AccountStore = EphemeralStore(heard.append)
    lease = Lease("account", "default", 1)
    change = ExecutionChange(lease, None, ExecutionRecord("e", PIPELINE, "running"), ())
    await ledger.record(change)
    await ledger.save_poll_times(lease, {"e": Micros(1)})
    await ledger.save_backoff(lease, NO_BACKOFF)
    assert heard == [change]
    assert await ledger.load_account(lease) == AccountRecord(0, None, NO_BACKOFF)
    assert await ledger.load_executions(lease, ["e"]) == {}
    assert await ledger.load_pipeline(lease, PIPELINE) == PipelineRecord(0, None)
    assert list(await ledger.load_open(lease, [PIPELINE])) == []
