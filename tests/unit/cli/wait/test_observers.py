"""Ears, and a ledger that keeps nothing."""

from virtual import PIPELINE, FakeClock, ScriptedApi, said

from watcher.clerk.protocol import Reply
from watcher.cli.wait.observers import PassingLedger, TappedApi
from watcher.domain.models import Known
from watcher.store.protocol import AT_EASE, AccountRecord, Change, ExecutionChange, Ledger, PipelineRecord


async def test_a_reply_is_heard_and_passed_on() -> None:
    heard: list[Reply] = []
    api = TappedApi(ScriptedApi(FakeClock(), {"e": said("e", "running")}), heard.append)
    reply = await api.get(pipeline=PIPELINE, execution="e")
    assert heard == [reply]


async def test_a_page_of_a_list_is_passed_on_unheard() -> None:
    heard: list[Reply] = []
    api = TappedApi(ScriptedApi(FakeClock(), pages={2: (said("e", "running"),)}), heard.append)
    assert (await api.list(pipeline=PIPELINE, page=2)).rows == (said("e", "running"),)
    assert heard == []


async def test_a_change_is_heard_and_kept_nowhere() -> None:
    heard: list[Change] = []
    ledger: Ledger = PassingLedger(heard.append)
    lease = await ledger.claim("account", "default")
    change = ExecutionChange(lease, None, Known("e", PIPELINE, "running"), ())
    await ledger.record(change)
    await ledger.note_looks(lease, {"e": 1})
    await ledger.note_strain(lease, AT_EASE)
    assert heard == [change]
    assert await ledger.load_account(lease) == AccountRecord(0, None, AT_EASE)
    assert await ledger.load_executions(lease, ["e"]) == {}
    assert await ledger.load_pipeline(lease, PIPELINE) == PipelineRecord(0, None)
    assert list(await ledger.load_open(lease, [PIPELINE])) == []
