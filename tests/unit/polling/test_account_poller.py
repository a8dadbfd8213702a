"""The account watcher over the real store in virtual time."""

import asyncio
import itertools
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from stores import HeardStore, claim
from structlog.testing import capture_logs
from virtual import EPOCH, PIPELINE, FakeClock, Start, name_of, said

from watcher.domain.errors import Exit, OwnershipLostError, SequenceConflictError
from watcher.domain.execution import ExecutionRecord, Outcome
from watcher.domain.timestamps import EARLIEST, Micros
from watcher.polling.account_poller import IDLE_S
from watcher.runtime.http_client import REMEDIES
from watcher.store.changes import ExecutionChange
from watcher.store.sql_store import SqlStore

A, B, C = map(name_of, (10, 11, 12))


async def test_every_status_change_is_reported_once_in_order(start: Start) -> None:
    account = await start(A)
    for status in ("new", "running", "paused", "running", "success"):
        account.api.script[A] = said(A, status)
        await account.run_for(70)
    assert await account.emitted() == [
        ("execution.new", "new", None),
        ("execution.running", "running", "new"),
        ("execution.paused", "paused", "running"),
        ("execution.running", "running", "paused"),
        ("execution.success", "success", "running"),
    ]


async def test_an_ended_execution_is_not_polled_again_not_even_after_a_restart(start: Start) -> None:
    account = await start(A)
    account.api.script[A] = said(A, "failed")
    await account.run_for(600)
    assert len(account.api.asked) == 1
    again = await start(A)
    await again.run_for(600)
    assert again.api.asked == []


async def test_a_poll_comes_after_a_tenth_of_the_time_in_the_status(start: Start) -> None:
    account = await start(A)
    account.api.script[A] = said(A, "running", started_at=EPOCH + timedelta(seconds=1000))
    await account.run_for(1000)
    times = account.api.times(A)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[:5] == pytest.approx([1.0] * 5, abs=0.01)
    assert gaps == pytest.approx([max(1.0, min(60.0, at / 10)) for at in times[:-1]], rel=0.01)


async def test_a_lost_execution_is_polled_for_a_day_and_then_no_more(start: Start) -> None:
    account = await start(A, B)
    account.api.script[A] = Outcome.NOT_FOUND
    await account.run_for(26 * 3600)
    times = account.api.times(A)
    assert len(times) == pytest.approx(144 + 8, abs=3)
    assert 24 * 3600 < times[-1] < 25 * 3600
    again = await start(A, B)
    await again.run_for(5)
    assert again.api.times(A) == []


async def test_degraded_is_not_reported_again_by_a_restart_but_its_end_is(start: Start) -> None:
    account = await start(A)
    account.api.default = Outcome.UNAUTHORIZED
    assert await account.emitted(after_s=1) == [("account.degraded", "unauthorized", None)]
    again = await start(A)
    again.api.default = Outcome.UNAUTHORIZED
    assert await again.emitted(after_s=200) == []
    again.api.default = None
    assert ("account.recovered", "unauthorized", None) in await again.emitted(after_s=61)


async def test_no_more_requests_are_in_flight_than_allowed(start: Start) -> None:
    names = [name_of(n) for n in range(50)]
    account = await start(*names, concurrency=8)
    account.api.gate.clear()
    await account.run_for(1)
    await asyncio.sleep(0)
    assert account.api.in_flight == 8
    account.api.gate.set()
    await account.run_for(1)
    assert account.api.most_in_flight == 8
    assert {name for _, name in account.api.asked} == set(names)


async def test_a_wall_clock_that_jumps_makes_nothing_overdue_and_delays_nothing(start: Start, clock: FakeClock) -> None:
    account = await start(A, overdue_after_s={"running": 3600.0})
    await account.run_for(10)
    clock.wall_offset_s = 86_400.0
    await account.run_for(10)
    clock.wall_offset_s = -86_400.0
    polled = len(account.api.asked)
    await account.run_for(10)
    assert len(account.api.asked) > polled
    assert [type_ for type_, _, _ in await account.emitted()] == ["execution.running"]


async def test_unchanged_polls_are_written_lazily_and_known_after_a_restart(start: Start) -> None:
    account = await start(A)
    await account.run_for(100)
    await account.watcher.flush()
    again = await start(A)
    again.api.script[A] = said(A, "success")
    event = (await again.events(after_s=1))[-1]
    assert event["data"]["observed"]["notBefore"] > "2026-11-24T10:18:00"


async def test_draining_starts_nothing_more_and_waits_for_what_is_in_flight(start: Start) -> None:
    account = await start(A, B)
    account.api.gate.clear()
    await account.watcher.tick()
    account.api.gate.set()
    await account.watcher.drain()
    await account.run_for(100)
    assert len(account.api.asked) == 2
    assert len(await account.emitted()) == 2


async def test_trouble_the_store_cannot_take_is_reported_once_it_can(start: Start, heard: HeardStore) -> None:
    account = await start(A)
    account.api.default = Outcome.UNAUTHORIZED
    heard.takes = lambda _item: False
    await account.run_for(5)
    heard.takes = lambda _item: True
    assert await account.emitted(after_s=20) == [("account.degraded", "unauthorized", None)]


async def test_an_account_that_is_somebody_elses_ends_the_daemon(start: Start, store: SqlStore) -> None:
    account = await start(A)
    await claim(store, "account", "default")
    await account.run_for(1)
    assert isinstance(account.fatal[0], OwnershipLostError)


async def test_an_execution_recorded_behind_its_owner_s_back_ends_the_daemon(start: Start, store: SqlStore) -> None:
    account = await start(A)
    known = ExecutionRecord(A, PIPELINE, status="running", sequence=1, polled_at=Micros(1), since_at=Micros(1))
    await store.record(ExecutionChange(account.watcher._deps.lease, None, known, ()))
    await account.run_for(1)
    assert isinstance(account.fatal[0], SequenceConflictError)
    assert account.fatal[0].exit_code == Exit.FAILED


async def test_a_crash_in_one_poll_does_not_end_the_others(start: Start) -> None:
    account = await start(A, B)
    del account.api.script[A]
    await account.run_for(30)
    assert len(account.api.times(B)) > 5
    account.api.script[A] = said(A, "success")
    assert ("execution.success", "success", None) in await account.emitted(after_s=61)


class BrokenError(Exception):
    """A bug that nobody foresaw."""


def break_down(*_arguments: object, **_more: object) -> None:
    raise BrokenError


@pytest.mark.parametrize(("part", "method"), [("_registry", "put_back"), ("_poll_queue", "next")])
async def test_what_raises_where_nothing_catches_it_ends_the_daemon_and_loses_nothing_in_silence(
    start: Start, monkeypatch: pytest.MonkeyPatch, part: str, method: str
) -> None:
    account = await start(A)
    await account.watcher.tick()
    monkeypatch.setattr(getattr(account.watcher, part), method, break_down)
    await account.settle()
    assert {type(error) for error in account.fatal} == {BrokenError}


async def test_the_metric_of_the_last_success_stands_still_while_polls_fail_or_nothing_can_be_recorded(
    start: Start, heard: Any, clock: FakeClock
) -> None:
    heard.monitor = monitor = SimpleNamespace(failing_since=None, last_failing_since=EARLIEST)
    account = await start(A)
    name, labels = "watcher_last_successful_poll_timestamp_seconds", {"account": "default"}
    value = partial(account.metrics.registry.get_sample_value, name, labels)
    assert value() == 0
    await account.run_for(50)
    for stops in (True, False):
        failing_from = clock.now().timestamp()
        account.api.default = Outcome.SERVER_ERROR if stops else None
        monitor.failing_since = None if stops else clock.monotonic()
        await account.run_for(50)
        assert value() == pytest.approx(failing_from, abs=10)
        account.api.default = monitor.failing_since = None
        await account.run_for(70)
        assert value() == pytest.approx(clock.now().timestamp(), abs=10)


async def test_before_an_account_is_degraded_what_is_well_is_asked_however_seldom_it_is(start: Start) -> None:
    account = await start(A, B, max_interval_s=300.0)
    await account.emitted(after_s=7200)
    account.api.script[A] = Outcome.NOT_FOUND
    assert await account.emitted(after_s=7200) == [("execution.lost", "lost", "running")]


@pytest.mark.parametrize(
    ("before", "trouble", "reason", "probes"),
    [
        (None, Outcome.UNAUTHORIZED, "unauthorized", 5),
        (Outcome.TIMEOUT, Outcome.UNAUTHORIZED, "unreachable", 5),
        (Outcome.FORBIDDEN, Outcome.FORBIDDEN, "unauthorized", 30),
        (Outcome.TIMEOUT, Outcome.TIMEOUT, "unreachable", 30),
    ],
)
async def test_of_an_account_in_trouble_one_probe_goes_every_ten_seconds_but_every_minute_if_its_key_is_refused(
    start: Start, before: Outcome | None, trouble: Outcome, reason: str, probes: int
) -> None:
    account = await start(A, B, C)
    account.api.default = before
    await account.run_for(70)
    account.api.default = trouble
    await account.run_for(11)
    asked = len(account.api.asked)
    await account.run_for(300)
    assert len(account.api.asked) - asked == pytest.approx(probes, abs=1)
    account.api.default = None
    await account.run_for(61)
    told = [(event["type"], event["data"]) for event in await account.events() if event["type"].startswith("account.")]
    assert [type_ for type_, _ in told] == ["account.degraded", "account.recovered"]
    assert [(data["reason"], "cause" in data) for _, data in told] == [(reason, True), (reason, False)]


async def test_a_failed_poll_is_logged_with_its_reason(start: Start) -> None:
    account = await start(A)
    account.api.default, account.api.reason = Outcome.INVALID, "html"
    with capture_logs() as logs:
        await account.run_for(0)
    (failed,) = (line for line in logs if line["event"] == "poll.failed")
    assert (failed["outcome"], failed["reason"], failed["log_level"]) == ("invalid", "html", "debug")


@pytest.mark.parametrize(
    ("pause_s", "after_s", "left_s"),
    [
        pytest.param(60.0, 10.0, 50.0, id="goes on"),
        pytest.param(3600.0, -899.0, 900.0, id="of a clock that was ahead is no longer than any"),
        pytest.param(8.0, -7200.0, 8.0, id="of a clock that was set back is as long as it was"),
    ],
)
async def test_a_pause_outlives_a_kill(
    start: Start, clock: FakeClock, pause_s: float, after_s: float, left_s: float
) -> None:
    account = await start(A)
    account.api.default, account.api.retry_after_s = Outcome.RATE_LIMITED, pause_s
    account.api.status_codes = {Outcome.RATE_LIMITED: 429}
    await account.run_for(1)
    clock.elapsed_s += after_s - 1
    again = await start(A)
    await again.run_for(left_s - 0.1)
    assert again.api.asked == []
    await again.run_for(0.2)
    assert again.api.asked != []


async def test_trouble_goes_on_counting_after_a_restart_from_its_first_failure(start: Start, clock: FakeClock) -> None:
    account = await start(A)
    account.api.default = Outcome.SERVER_ERROR
    await account.run_for(40)
    await account.watcher.flush()
    clock.advance(5000)
    again = await start(A)
    again.api.default = Outcome.SERVER_ERROR
    assert await again.emitted(after_s=19) == []
    assert await again.emitted(after_s=2) == [("account.degraded", "unreachable", None)]


async def test_a_success_after_a_restart_ends_what_failed_before(start: Start) -> None:
    account = await start(A)
    account.api.default = Outcome.SERVER_ERROR
    await account.run_for(50)
    await account.watcher.flush()
    again = await start(A)
    await again.run_for(1)
    again.api.default = Outcome.SERVER_ERROR
    assert await again.emitted(after_s=55) == [("execution.running", "running", None)]


@pytest.mark.parametrize("cause", REMEDIES)
async def test_trouble_is_logged_with_what_helps_where_that_is_known(start: Start, cause: str) -> None:
    account = await start(A)
    account.api.default, account.api.reason = Outcome.CONNECTION, cause
    with capture_logs() as logs:
        await account.run_for(61)
    (line,) = (line for line in logs if line["event"] == "account.degraded")
    assert (line["cause"], line["remedy"]) == (cause, REMEDIES[cause])


# An account whose lease is not trusted: nothing is asked, until it is again


@pytest.mark.parametrize("fails_on", [False, True])
async def test_the_time_without_trust_is_nobody_s_failure(start: Start, clock: FakeClock, *, fails_on: bool) -> None:
    trusted = [True]
    account = await start(A, is_trusted=lambda: trusted[0])
    await account.run_for(5)
    account.api.script[A] = Outcome.CONNECTION
    await account.run_for(20)
    trusted[0] = False
    for _ in range(12):
        clock.advance(IDLE_S)
        await account.watcher.tick()
    trusted[0] = True
    if not fails_on:
        account.api.script[A] = said(A, "running")
    assert "account.degraded" not in [event["type"] for event in await account.events(after_s=20)]
    assert ("account.degraded" in [event["type"] for event in await account.events(after_s=40)]) is fails_on


async def test_time_without_trust_is_no_budget_that_is_too_small(start: Start, clock: FakeClock) -> None:
    trusted = [True]
    account = await start(A, max_interval_s=10.0, is_trusted=lambda: trusted[0])
    for _ in range(60):
        await account.run_for(8)
        trusted[0] = False
        for _ in range(3):
            await account.watcher.tick()
            clock.advance(IDLE_S)
        trusted[0] = True
    assert [type_ for type_, _, _ in await account.emitted()] == ["execution.running"]
