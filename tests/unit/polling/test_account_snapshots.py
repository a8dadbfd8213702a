"""How an account and its pipelines stand: counted per pipeline, shown as metrics, written down, gone on from."""

import asyncio
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from sample_metrics import sample_value
from stores import execution_id
from virtual import EPOCH, PIPELINE, WHOLE, Account, FakeClock, Start, account_of, name_of, pages_of, said, watch_of
from worker_rig import FAILED, GONE, Rig

from watcher.domain.execution import Outcome
from watcher.domain.snapshots import AccountSnapshot, SinkSnapshot
from watcher.domain.timestamps import NEVER, to_us
from watcher.domain.watch import Watch
from watcher.polling.account_snapshots import SLICE_COUNT
from watcher.runtime.metrics import GOALS_COUNT
from watcher.store.sql_store import SqlStore
from watcher.web.overview import load_overview

FIRST, SECOND, THIRD = map(name_of, range(1, 4))
EMPTY_PIPELINE = "77aa0000-0000-4000-8000-000000000000"
NAMED = Watch("default", PIPELINE, (FIRST,))
NAMED_TOO = Watch("default", EMPTY_PIPELINE, (SECOND,))
WHOLE_TOO = Watch("default", EMPTY_PIPELINE, ())
START = EPOCH + timedelta(seconds=1000)


def written(path: Path, kind: str = "account") -> tuple[int, Any]:
    with closing(sqlite3.connect(path)) as database:
        query = "SELECT written_at, body FROM snapshot JOIN source ON id = source_id WHERE kind = ?"
        at, body = database.execute(query, [kind]).fetchone()
    model: type = AccountSnapshot if kind == "account" else SinkSnapshot
    return at, TypeAdapter(model).validate_json(body)


async def snapshot_of(account: Account, path: Path) -> Any:
    """Have an account write how it stands, and return that."""
    await account.watcher.flush()
    return written(path)[1]


def shown(account: Account, metric: str, **labels: str) -> float | None:
    every = {"account": "default", "pipeline": PIPELINE} | labels
    return sample_value(account.metrics, f"watcher_{metric}", **every)


def ran(execution: str, status: str, seconds: float, **facts: Any) -> Any:
    return said(execution, status, started_at=START, finished_at=START + timedelta(seconds=seconds), **facts)


async def test_what_starts_and_ends_is_counted_for_its_pipeline(start: Start, clock: FakeClock, path: Path) -> None:
    account = await start(FIRST, SECOND, THIRD)
    assert shown(account, "pipeline_info", name=PIPELINE) == 1
    api = account.api
    api.script = {FIRST: said(FIRST, "new"), SECOND: said(SECOND, "running"), THIRD: said(THIRD, "paused")}
    await account.run_for(20)
    api.script[FIRST] = ran(FIRST, "success", 10, ai_tokens_used=512, goals=("Booked", "Booked", "Paid"))
    api.script[SECOND] = ran(SECOND, "failed", 15, ai_tokens_used=-5, goals=("Paid",))
    await account.run_for(20)
    assert shown(account, "executions_started_total") == 3
    statuses = ("success", "failed", "unrecognized")
    ended = {each: shown(account, "executions_ended_total", status=each) for each in statuses}
    assert ended == {"success": 1, "failed": 1, "unrecognized": 0}
    assert shown(account, "execution_duration_seconds_bucket", status="success", le="3.0") == 0
    assert shown(account, "execution_duration_seconds_bucket", status="success", le="10.0") == 1
    assert shown(account, "execution_duration_seconds_count", status="failed") == 1
    assert shown(account, "execution_duration_seconds_sum", status="failed") == 15
    assert shown(account, "execution_ai_tokens_total") == 512
    assert [shown(account, "execution_goals_total", goal=goal) for goal in ("Booked", "Paid")] == [1, 2]
    assert shown(account, "pipeline_last_ended_timestamp_seconds", status="failed") == START.timestamp() + 15
    assert shown(account, "pipeline_last_started_timestamp_seconds") == START.timestamp()
    await account.watcher.flush()
    assert shown(account, "pipeline_open_executions", status="paused") == 1
    assert shown(account, "pipeline_open_executions", status="running") == 0
    oldest_at = shown(account, "pipeline_oldest_open_timestamp_seconds", status="paused")
    assert oldest_at == pytest.approx(START.timestamp(), abs=1)
    assert shown(account, "pipeline_info", name="Sales agent") == 1
    at, snapshot = written(path)
    assert at == clock.steady_us()
    stands = snapshot.pipelines[PIPELINE]
    assert (stands.open, sorted(stands.ends)) == ({"paused": 1}, ["f", "s"])
    assert stands.last_failed_at == to_us(START + timedelta(seconds=15))


async def test_when_a_request_succeeded_is_written_if_none_does(start: Start, clock: FakeClock, path: Path) -> None:
    account = await start(FIRST)
    account.api.script = {FIRST: Outcome.SERVER_ERROR}
    await account.run_for(5)
    assert (await snapshot_of(account, path)).known_at == NEVER  # nothing has ever succeeded
    account.api.script = {FIRST: said(FIRST, "running")}
    await account.run_for(60)
    assert (await snapshot_of(account, path)).known_at is None
    account.api.script = {FIRST: Outcome.SERVER_ERROR}
    failed_at = clock.steady_us()
    await account.run_for(70)
    known_at = (await snapshot_of(account, path)).known_at
    assert failed_at - 61_000_000 < known_at <= failed_at
    await account.run_for(200)
    assert (await snapshot_of(account, path)).known_at == known_at
    again = await start(FIRST)
    again.api.script = {FIRST: Outcome.SERVER_ERROR}
    await again.run_for(5)
    assert (await snapshot_of(again, path)).known_at == known_at  # another owner goes on


async def test_a_new_owner_knows_nothing_since_the_last_one_wrote(start: Start, clock: FakeClock, path: Path) -> None:
    account = await start(FIRST)
    account.api.script = {FIRST: said(FIRST, "running")}
    await account.run_for(30)
    await account.watcher.flush()
    written_at, snapshot = written(path)
    assert snapshot.known_at is None
    clock.advance(600)
    again = await start(FIRST)
    again.api.script = {FIRST: Outcome.SERVER_ERROR}
    await again.run_for(5)
    assert (await snapshot_of(again, path)).known_at == written_at


async def test_a_pipeline_is_read_once_its_list_was_read_as_a_whole(start: Start, path: Path) -> None:
    account = await start(watches=[WHOLE, NAMED_TOO])
    account.api.pages = {1: Outcome.SERVER_ERROR}
    await account.run_for(5)
    pipelines = (await snapshot_of(account, path)).pipelines
    assert {name: each.is_read for name, each in pipelines.items()} == {PIPELINE: False, EMPTY_PIPELINE: True}
    account.api.pages = pages_of()
    await account.run_for(60)
    assert (await snapshot_of(account, path)).pipelines[PIPELINE].is_read


async def test_a_pipeline_has_50_goals_and_others_without_what_a_terminal_obeys(start: Start) -> None:
    account = await start(FIRST, SECOND, THIRD, name_of(4))
    for count, execution in enumerate(account.api.script):
        goals = tuple(f"\x1b[31mgoal\n {count * 20 + number} {'x' * 300}\ud800" for number in range(20))
        account.api.script[execution] = ran(execution, "success", 1, goals=goals)
    await account.run_for(20)
    text = b"".join(account.metrics.text()).decode()
    lines = [line for line in text.splitlines() if line.startswith("watcher_execution_goals_total{")]
    assert len(lines) == GOALS_COUNT + 1
    assert shown(account, "execution_goals_total", goal="other") == 4 * 20 - GOALS_COUNT
    assert max(map(len, lines)) < 300
    assert not any("\x1b" in line for line in lines)


async def test_a_removed_watch_takes_its_series_along(start: Start) -> None:
    account = await start(FIRST)
    assert shown(account, "executions_started_total") == 0
    await account.watcher.watch([Watch("default", EMPTY_PIPELINE, (SECOND,))])
    assert shown(account, "executions_started_total") is None
    assert shown(account, "executions_started_total", pipeline=EMPTY_PIPELINE) == 0
    account.metrics.forget("account", "default")
    assert "watcher_executions_started_total{" not in b"".join(account.metrics.text()).decode()


async def strip(account: Account) -> str:
    """Return the last ends of the pipeline as every page shows them."""
    await account.watcher.flush()
    found = await load_overview(account.store, since=NEVER)
    (body,) = (row.body for row in found.sources if row.kind == "account")
    ends: str = json.loads(body or b"")["pipelines"][PIPELINE]["ends"]
    return ends


async def test_after_a_downtime_the_last_ends_are_the_truth_over_kills(store: SqlStore, clock: FakeClock) -> None:
    def ended(number: float, execution: str, end: str) -> Any:
        """Return one that ended so many minutes after the start."""
        return ran(execution, {"f": "failed", "s": "success"}[end], 60 * number)

    old, truth, late = said(FIRST, "success", started_at=EPOCH, finished_at=EPOCH), "fss" * 10, execution_id(99)
    account = await account_of(store, clock, watches=[WHOLE])
    account.api.pages = pages_of(old)
    await account.run_for(30)
    assert await strip(account) == ""
    await account.watcher.cancel()
    clock.stop_for(3600)
    rows = [ended(number, execution_id(number), end) for number, end in enumerate(truth, 1)]
    running = said(late, "running", started_at=START + timedelta(minutes=31))
    api = account.api
    api.script, api.pages = {row.id: row for row in [running, *rows]}, pages_of(running, *rows[::-1], old)
    account = await account_of(store, clock, watches=[WHOLE], api=api)
    await account.run_for(60)  # the failed ones are fetched one by one, so they are recorded last
    await account.watcher.cancel()  # without a word of how it stands
    account = await account_of(store, clock, watches=[WHOLE], api=api)
    assert await strip(account) == truth
    assert shown(account, "pipeline_last_ended_timestamp_seconds", status="failed") == START.timestamp() + 28 * 60
    seen_late = ended(3.5, late, "f")
    api.script[late], api.pages = seen_late, pages_of(seen_late, *rows[::-1], old)
    await account.run_for(60)
    truth = truth[:3] + "f" + truth[3:]
    assert await strip(account) == truth
    account = await account_of(store, clock, watches=[WHOLE], api=api)
    assert await strip(account) == truth


async def test_what_an_account_wants_uses_and_its_longest_gap(store: SqlStore, clock: FakeClock, path: Path) -> None:
    watches = [watch_of(FIRST, SECOND), WHOLE_TOO]
    account = await account_of(store, clock, FIRST, SECOND, rate_per_s=5.0, watches=watches)
    account.api.script = {FIRST: said(FIRST, "running"), SECOND: said(SECOND, "running")}
    account.api.pipelines.add(EMPTY_PIPELINE)
    await account.run_for(240)
    await account.watcher.flush()
    await account.run_for(60)  # a tenth of 300 s: each execution wants to be looked at every 30 s
    snapshot = await snapshot_of(account, path)
    assert snapshot.wanted_per_s == pytest.approx(2 / 30 + 1, rel=0.15)  # and the list every second
    assert 0.5 < snapshot.used_per_s < 1.2
    assert 0 < snapshot.longest_gap_s <= 33


async def test_a_snapshot_that_cannot_be_read_keeps_no_owner_from_starting(start: Start, path: Path) -> None:
    account = await start(FIRST)
    await account.watcher.flush()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE snapshot SET body = replace(body, '0', 'null')")
    again = await start(watches=[watch_of(FIRST)])
    assert (await snapshot_of(again, path)).longest_gap_s >= 0


@pytest.mark.ci
async def test_many_executions_are_looked_through_in_slices(start: Start, path: Path) -> None:
    account = await start(*map(execution_id, range(2 * SLICE_COUNT + 1)))
    looking = asyncio.create_task(account.watcher.flush())
    for _ in range(3):
        assert shown(account, "pipeline_open_executions", status="unseen") == 0
        await asyncio.sleep(0)
    await looking
    assert shown(account, "pipeline_open_executions", status="unseen") == 2 * SLICE_COUNT + 1
    assert shown(account, "pipeline_oldest_open_timestamp_seconds", status="unseen") is None
    assert written(path)[1].wanted_per_s == pytest.approx((2 * SLICE_COUNT + 1) / 60, rel=0.1)


async def test_what_the_api_calls_a_pipeline_is_written_and_known_to_the_next_owner(start: Start, path: Path) -> None:
    account = await start(FIRST, watches=[replace(NAMED, name="Ours")])
    account.api.script[FIRST] = replace(said(FIRST, "running"), pipeline_name="Theirs")
    await account.run_for(5)
    assert (await snapshot_of(account, path)).pipelines[PIPELINE].name == "Theirs"
    await account.watcher.cancel()
    account = await start(FIRST, watches=[NAMED])
    assert shown(account, "pipeline_info", name="Theirs") == 1


async def test_what_has_not_changed_is_written_every_half_minute(start: Start, clock: FakeClock, path: Path) -> None:
    account = await start(FIRST)
    account.api.script[FIRST] = ran(FIRST, "success", 1)
    await account.run_for(5)
    times = []
    for _ in range(24):
        clock.advance(5)
        await account.watcher.flush()
        times.append(written(path)[0])
    assert 4 <= len(set(times[12:])) + 2 <= 6  # two in the last minute, once what was used lies a minute back


async def test_a_sink_says_how_it_is_and_when_it_tries_again(path: Path) -> None:
    rig = Rig(path)
    await rig.start()
    await rig.send("a")
    last_success_at = rig.clock.steady_us()
    await rig.worker.flush()
    assert written(path, "sink") == (last_success_at, SinkSnapshot("204", last_success_at))
    rig.sink.answer = lambda _: FAILED
    await rig.send("a", "b", "c", "d", "e", "f")
    await rig.worker.flush()
    _, snapshot = written(path, "sink")
    assert (snapshot.answer, snapshot.has_failed, snapshot.last_success_at) == ("500", True, last_success_at)
    assert snapshot.next_try_at > rig.clock.steady_us()
    rig.sink.answer = lambda _: GONE
    await rig.go_for(60)
    await rig.worker.flush()
    _, snapshot = written(path, "sink")
    assert (snapshot.answer, snapshot.next_try_at) == ("410", None)
    await rig.stop()


async def test_after_trouble_with_the_store_an_unchanged_snapshot_is_written_again(path: Path) -> None:
    rig = Rig(path)
    await rig.start()
    await rig.send("a")
    await rig.worker.flush()
    first_at, snapshot = written(path, "sink")
    await rig.go_for(2)
    await rig.worker.flush()
    assert written(path, "sink") == (first_at, snapshot)
    rig.store.monitor.last_failing_since = rig.clock.monotonic()
    await rig.go_for(2)
    await rig.worker.flush()
    again_at, unchanged = written(path, "sink")
    assert (again_at > first_at, unchanged) == (True, snapshot)
    await rig.stop()
