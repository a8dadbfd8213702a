"""The owners over a real store and real sockets; their ticks run when the test says."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from receiver import answer, hangs, says
from sample_events import OPENED_AT, PROBLEM, sample
from stores import claim, held, operator_of
from structlog.testing import capture_logs
from supervision import LONG_S, A, B, Setup, Slowly, set_up
from virtual import FakeClock
from worker_rig import in_flight

from watcher.delivery.worker import DeliveryWorker
from watcher.domain.errors import ConfigError, StoreError
from watcher.domain.event import Event, EventKey, EventType, OutboxEntry
from watcher.domain.problems import Problem, ProblemChange
from watcher.polling.account_poller import AccountPoller
from watcher.runtime.pacing import LATENESS_S
from watcher.store.changes import SinkRecord, SourceChange
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import SqlStore


@pytest.fixture
async def setup(store: SqlStore, clock: FakeClock) -> AsyncIterator[Setup]:
    async with set_up(store, clock, Setup) as setup:
        yield setup


async def broken_off(applying: Coroutine[Any, Any, None], *, setup: Setup, once_added: str) -> None:
    """Begin to apply a configuration, and break that off once it has added that tick."""
    task = asyncio.create_task(applying)
    while await setup.schedule.added() != once_added:
        pass
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@contextmanager
def refusing(path: Path, name: str) -> Iterator[None]:
    """Let the store number nothing of that name meanwhile."""
    refused = f"BEFORE INSERT ON source WHEN new.name = '{name}' BEGIN SELECT RAISE(ABORT, ''); END"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"CREATE TRIGGER refused {refused}")
        yield
        database.execute("DROP TRIGGER refused")


def served_s(path: Path) -> float:
    """Return for how long, as the store knows, the sink `ops` has been served."""
    with closing(sqlite3.connect(path)) as database:
        (clock_us,) = database.execute("SELECT clock_us FROM source WHERE kind = 'sink' AND name = 'ops'").fetchone()
        return float(clock_us) / 1e6


async def test_what_is_asked_for_is_owned_and_works(setup: Setup) -> None:
    await setup.apply(sinks={"ops": setup.webhook()})
    assert setup.ticks() == {"account:a", "sink:ops"}
    event = Event(UUID(int=1), EventType.ACCOUNT_DEGRADED, b"s", 1, b"{}", b"s")
    assert setup.shared.events.router.entry_of(event).sinks == ("ops",)
    assert A in await setup.poll()
    await setup.record()
    assert await setup.deliver()


async def test_the_requests_of_one_delivery_keep_to_the_rate_of_its_sink(setup: Setup) -> None:
    moments: list[float] = []

    async def reply(writer: asyncio.StreamWriter) -> None:
        moments.append(asyncio.get_running_loop().time())
        await says(answer(202))(writer)

    setup.hook.reply = reply
    pager = setup.webhook(template="pagerduty", routing_key="k" * 32, rate_limit="5/s")
    await setup.apply(sinks={"ops": pager})
    overdue = sample(EventType.EXECUTION_OVERDUE)
    problem = Problem(UUID(PROBLEM), EventType.EXECUTION_OVERDUE, OPENED_AT, EventKey(overdue.ordering_key, 1))
    event = Event(
        overdue.event_id,
        EventType.EXECUTION_OVERDUE,
        overdue.ordering_key,
        1,
        overdue.body,
        overdue.ordering_key,
        problem=problem.id,
    )
    opened = (ProblemChange(problem, is_new=True),)
    lease = await claim(setup.store, "account", "teller")
    await setup.store.record(SourceChange(lease, 0, 1, None, (OutboxEntry(event, ("ops",)),), opened))
    await operator_of(setup.store).acknowledge(problem.id, by=None, comment=None, until=None)
    assert (await setup.deliver(), await setup.hook.asked()) == (str(event.id), str(event.id))  # trigger, acknowledge
    assert moments[1] - moments[0] >= 0.2 - LATENESS_S


async def test_what_the_store_holds_otherwise_than_its_owner_believes_begins_anew_after_a_pause(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watcher.daemon.ownership.RENEW_AGAIN_S", 0.0)
    await setup.apply(sinks={"ops": setup.webhook()})
    watcher, worker = setup.watcher(), setup.worker()
    await claim(setup.store, "sink", "ops")
    await setup.schedule.job("sink:ops")()
    async with asyncio.timeout(LONG_S):
        while await setup.schedule.added() != "sink:ops" or setup.worker() is worker:
            pass
    assert setup.watcher() is watcher
    await setup.record()
    assert await setup.deliver()


async def test_what_cannot_begin_anew_is_tried_again(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watcher.daemon.ownership.RENEW_AGAIN_S", 0.01)
    monkeypatch.setattr("watcher.daemon.supervisor.RETRY_S", 0.01)
    await setup.apply(sinks={"ops": setup.webhook()})
    load = SinkStore.load

    tries = iter(range(3))

    async def fail(store: SinkStore, *, fingerprint: str) -> SinkRecord:
        if next(tries, None) is None:
            return await load(store, fingerprint=fingerprint)
        raise StoreError("not now")

    monkeypatch.setattr(SinkStore, "load", fail)
    worker = setup.worker()
    await claim(setup.store, "sink", "ops")
    with capture_logs() as logs:
        await setup.schedule.job("sink:ops")()
        async with asyncio.timeout(LONG_S):
            while not setup.supervisor.workers() or setup.worker() is worker:
                await asyncio.sleep(0.001)
    failed = {"event": "ownership.failed", "log_level": "warning", "sink": "ops", "problem": "not now"}
    assert [entry for entry in logs if entry["event"] == "ownership.failed"] == [failed] * 3


async def test_a_tick_that_hangs_beyond_the_end_of_its_owner_and_then_goes_on_ends_nothing(setup: Setup) -> None:
    await setup.send(says(answer(410)))
    await until_answered(setup.worker())
    go_on = setup.schedule.job("sink:ops")
    await setup.apply(sinks={"ops": setup.webhook(rate_limit="9/s")})
    await go_on()
    assert setup.fatal == []
    assert setup.ticks() == {"account:a", "sink:ops"}


@pytest.mark.parametrize(
    ("more", "begin_anew"),
    [
        ({}, [False, False]),
        ({"sinks": {"ops": {"rate_limit": "9/s"}}}, [False, True]),
        ({"http": {"public_url": "https://watcher.example.com"}}, [False, True]),
        ({"polling": {"max_interval": "50s"}}, [True, False]),
        ({"store": {"retention": "29d"}}, [True, False]),
    ],
)
async def test_an_owner_is_another_with_whatever_it_was_built_from_and_else_goes_on_undisturbed(
    setup: Setup, more: dict[str, Any], begin_anew: list[bool]
) -> None:
    await setup.apply(sinks={"ops": setup.webhook()})
    before = setup.watcher(), setup.worker()
    await setup.apply(**more | {"sinks": {"ops": setup.webhook(**more.get("sinks", {}).get("ops", {}))}})
    assert [setup.watcher() is not before[0], setup.worker() is not before[1]] == begin_anew
    assert setup.ticks() == {"account:a", "sink:ops"}


async def test_a_watcher_that_runs_is_handed_its_watches(setup: Setup) -> None:
    await setup.apply()
    watcher = setup.watcher()
    await setup.apply(watched=B)
    assert setup.watcher() is watcher
    assert B in await setup.poll()
    await watcher.drain()
    assert setup.api.quiet


async def test_what_is_asked_for_no_more_ends_and_is_forgotten(setup: Setup) -> None:
    await setup.apply({"a": setup.account(), "b": setup.account()}, sinks={"ops": setup.webhook()})
    assert (setup.named("account"), setup.named("sink")) == ({"a", "b"}, {"ops"})
    await setup.apply({"b": setup.account()})
    assert setup.ticks() == {"account:b"}
    assert (setup.named("account"), setup.named("sink")) == ({"b"}, set())


async def test_what_is_in_flight_is_finished_and_not_done_again(setup: Setup) -> None:
    await setup.send(slowly := Slowly())
    changed = {"ops": setup.webhook(rate_limit="9/s"), "new": setup.webhook()}
    changing = asyncio.create_task(setup.apply(sinks=changed))
    while await setup.schedule.added() != "sink:new":
        pass
    assert "sink:ops" not in setup.ticks()
    slowly.may_answer.set()
    await changing
    await setup.apply(sinks={"ops": changed["ops"]})
    assert await setup.sends_nothing()


async def test_what_does_not_end_in_time_is_broken_off_and_comes_due_again(setup: Setup) -> None:
    setup.api.reply = hangs
    sent, asked = await setup.send(hangs), await setup.poll()
    setup.supervisor._drain_s = 0.01
    with capture_logs() as logs:
        await setup.apply({"a": setup.account(rate_limit="9/s")}, sinks={"ops": setup.webhook(rate_limit="9/s")})
    cut_short = {"event": "drain.cut_short", "log_level": "warning"}
    assert sorted(logs, key=str) == [cut_short | {"account": "a"}, cut_short | {"sink": "ops"}]
    assert (await setup.deliver(), await setup.poll()) == (sent, asked)


async def test_at_the_end_all_have_the_same_time_to_finish(setup: Setup) -> None:
    setup.api.reply = hangs
    await setup.send(hangs)
    await setup.poll()
    setup.supervisor._drain_s = 0.01
    with capture_logs() as logs:
        await setup.supervisor.stop()
    assert [entry["event"] for entry in logs] == ["drain.cut_short"] * 2
    assert (setup.supervisor.parts(), setup.ticks()) == ([], set())


async def test_what_was_not_worth_a_write_before_is_written_at_the_end(setup: Setup, path: Path) -> None:
    await setup.apply(sinks={"ops": setup.webhook()})
    setup.clock.advance(60.0)
    await setup.supervisor.stop()
    assert served_s(path) == 60.0


async def test_a_store_that_takes_nothing_holds_up_no_end(setup: Setup, path: Path) -> None:
    await setup.apply(sinks={"ops": setup.webhook()})
    setup.clock.advance(60.0)
    with held(path):
        await setup.supervisor.stop()
    assert setup.supervisor.parts() == []
    assert served_s(path) == 0.0


async def test_an_error_in_one_change_stops_no_other_and_the_next_try_goes_on_from_there(
    setup: Setup, path: Path
) -> None:
    sinks = {"ops": setup.webhook(), "more": setup.webhook()}
    with refusing(path, "ops"), pytest.raises(StoreError, match="did not take this"):
        await setup.apply(sinks=sinks)
    assert setup.ticks() == {"account:a", "sink:more"}
    worker = setup.worker()
    await setup.apply(sinks=sinks)
    assert setup.ticks() == {"account:a", "sink:more", "sink:ops"}
    assert worker in setup.supervisor.parts()


async def test_of_several_errors_one_that_is_not_the_store_s_is_raised(
    setup: Setup, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1")
    accounts = {"a": setup.account(), "far": setup.account(base_url="https://far.example")}
    with refusing(path, "ops"), pytest.raises(ConfigError, match="HTTPS_PROXY"):
        await setup.apply(accounts, sinks={"ops": setup.webhook()})
    assert setup.ticks() == {"account:a"}


async def test_a_newer_configuration_waits_for_no_drain_but_in_the_owner_that_drains(setup: Setup) -> None:
    await setup.send(slowly := Slowly())
    between = {"ops": setup.webhook(rate_limit="8/s"), "between": setup.webhook()}
    await broken_off(setup.apply(sinks=between), setup=setup, once_added="sink:between")
    newest = {"ops": setup.webhook(rate_limit="9/s"), "newest": setup.webhook()}
    applying = asyncio.create_task(setup.apply(sinks=newest))
    assert await setup.schedule.added() == "sink:newest"
    slowly.may_answer.set()
    assert await setup.schedule.added() == "sink:ops"
    await applying
    assert setup.ticks() == {"account:a", "sink:newest", "sink:ops"}
    assert setup.named("sink") == {"newest", "ops"}

    await setup.apply(sinks={"ops": newest["ops"]})
    assert await setup.sends_nothing()


async def test_what_drains_begins_anew_even_if_it_is_wanted_again_as_it_was(setup: Setup) -> None:
    await setup.send(slowly := Slowly())
    await broken_off(setup.apply(sinks={"other": setup.webhook()}), setup=setup, once_added="sink:other")
    applying = asyncio.create_task(setup.apply(sinks={"ops": setup.webhook()}))
    slowly.may_answer.set()
    await applying
    assert setup.ticks() == {"account:a", "sink:ops"}


@pytest.mark.parametrize("is_the_end", [False, True])
async def test_neither_a_newer_configuration_nor_the_end_gives_a_drain_more_time(
    setup: Setup, *, is_the_end: bool
) -> None:
    await setup.send(hangs)
    setup.supervisor._drain_s = 0.5
    with capture_logs() as logs:
        await broken_off(setup.apply(sinks={"other": setup.webhook()}), setup=setup, once_added="sink:other")
        setup.supervisor._drain_s = 10 * LONG_S
        async with asyncio.timeout(LONG_S):
            await (setup.supervisor.stop() if is_the_end else setup.apply())
    assert [entry["event"] for entry in logs] == ["drain.cut_short"]
    assert setup.ticks() == (set() if is_the_end else {"account:a"})


async def test_a_key_is_used_by_one_account_only_wherever_it_went_in_between(setup: Setup) -> None:
    await setup.apply({"old": setup.account()})
    await broken_off(setup.apply({"between": setup.account()}), setup=setup, once_added="account:between")
    between = [part for part in setup.supervisor.parts() if isinstance(part, AccountPoller)]
    await setup.apply({"newest": setup.account()})
    await setup.poll()
    for watcher in between:
        await watcher.tick()
    await setup.watcher().drain()
    assert setup.api.quiet
    assert (setup.ticks(), setup.named("account")) == ({"account:newest"}, {"newest"})


class BrokenError(Exception):
    """A bug that nobody foresaw."""


async def break_down() -> None:
    raise BrokenError


@pytest.mark.parametrize("method", ["drain", "cancel", "flush"])
async def test_an_owner_that_does_not_end_well_is_loud_and_in_nobody_s_way(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    await setup.apply(sinks={"ops": setup.webhook()})
    worker = setup.worker()
    monkeypatch.setattr(worker, method, break_down)
    changed = {"ops": setup.webhook(rate_limit="9/s")}
    with pytest.raises(BrokenError):
        await setup.apply(sinks=changed)
    await setup.apply(sinks=changed)
    assert setup.worker() is not worker
    await setup.record()
    assert await setup.deliver()


async def test_at_the_end_one_that_does_not_end_well_keeps_no_other_from_it(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    await setup.apply(sinks={"ops": setup.webhook()})
    monkeypatch.setattr(setup.watcher(), "drain", break_down)
    setup.clock.advance(60.0)
    with pytest.raises(BrokenError):
        await setup.supervisor.stop()
    assert (setup.supervisor.parts(), served_s(path)) == ([], 60.0)


async def until_answered(worker: DeliveryWorker) -> None:
    while in_flight(worker):
        await asyncio.wait(in_flight(worker))
