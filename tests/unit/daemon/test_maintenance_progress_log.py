"""What the log says while all is well, over real metrics and a real store."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

from stores import change, claim, settle_all, sink_of, source_change
from structlog.testing import capture_logs
from supervision import dependencies_of
from virtual import FakeClock

from watcher.daemon.maintenance import ProgressLog
from watcher.daemon.supervisor import Supervisor
from watcher.domain.event import EventType, Group
from watcher.domain.execution import Outcome
from watcher.runtime.metrics import AccountMetrics, Metrics, SinkMetrics
from watcher.store.sql_store import SqlStore


def progress_of(
    store: SqlStore, clock: FakeClock, *, metrics: Metrics | None = None, accounts: object = (), workers: object = ()
) -> ProgressLog:
    owners = SimpleNamespace(accounts=lambda: accounts, workers=lambda: workers)
    return ProgressLog(dependencies_of(store, clock, metrics=metrics), cast("Supervisor", owners))


@dataclass
class Account:
    account: str = "default"
    lists_read: Sequence[bool] = ()


async def test_an_account_is_logged_once_when_all_of_it_was_seen(store: SqlStore, clock: FakeClock) -> None:
    account, metrics = Account(lists_read=[True, False]), Metrics()
    present = [account]
    unseen, running = (metrics.open_executions.labels("default", status) for status in ("unseen", "running"))
    unseen.set(3)
    running.set(5)
    progress = progress_of(store, clock, metrics=metrics, accounts=present)
    with capture_logs() as logs:
        await progress.tick()
        account.lists_read = [True, True]
        await progress.tick()
        assert logs == []
        unseen.set(0)
        await progress.tick()
        await progress.tick()
        assert logs == [{"event": "account.ready", "log_level": "info", "account": "default", "open": 5, "lists": 2}]
        present.clear()
        await progress.tick()
        present.append(account)
        await progress.tick()
    assert len(logs) == 2  # it is another one


async def test_every_hour_says_what_was_done_in_it(store: SqlStore, clock: FakeClock) -> None:
    metrics = Metrics()
    progress = progress_of(store, clock, metrics=metrics)
    with capture_logs() as logs:
        for _ in range(2):
            AccountMetrics(metrics, "default").count_poll(Outcome.OK, 0.1)
            AccountMetrics(metrics, "default").count_page(Outcome.TIMEOUT, 0.1)
            metrics.events.labels(EventType.EXECUTION_NEW).inc()
            SinkMetrics(metrics, "ops").outcomes["retried"].inc()
            SinkMetrics(metrics, "ops").count_delivery(0.1)
            clock.advance(3599)
            await progress.tick()
            clock.advance(1)
            await progress.tick()
    line = {"event": "summary", "log_level": "info", "hours": 1, "requests": 2, "events": 1, "deliveries": 1}
    assert logs == [line | {"open": 0, "waiting": 0}] * 2


@dataclass
class Sink:
    sink: str


async def test_a_sink_that_falls_behind_is_logged_once_and_once_when_it_has_caught_up(
    store: SqlStore, clock: FakeClock
) -> None:
    progress = progress_of(store, clock, workers=[Sink("ops"), Sink("chat")])
    ops, account = await sink_of(store), await claim(store, "account", "default")
    await store.record(source_change(account, sinks=("ops",)))
    await store.record(change(account, sinks=("chat",), group=Group(bytes(16), 600.0)))
    with capture_logs() as logs:
        for _ in range(8):
            await progress.tick()
            clock.advance(60)
        assert logs == [
            {"event": "deliveries.late", "log_level": "warning", "sink": "ops", "waiting": 1, "oldest_s": 360}
        ]
        await settle_all(ops, now=clock.steady_us())
        for _ in range(2):
            await progress.tick()
            clock.advance(60)
    assert logs[1:] == [{"event": "deliveries.caught_up", "log_level": "info", "sink": "ops"}]


async def test_a_store_that_does_not_answer_leaves_out_what_waits(store: SqlStore, clock: FakeClock) -> None:
    progress = progress_of(store, clock)
    await store.close()
    clock.advance(3600)
    with capture_logs() as logs:
        await progress.tick()
    assert logs[0]["waiting"] is None
