"""Trouble with a store: noted wherever it is met, and logged once per edge."""

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import psycopg
import pytest
from stores import backlog_of, change, claim, execution_id, held, source_change
from structlog.testing import capture_logs
from virtual import FakeClock

from watcher.domain.errors import OwnershipLostError, SequenceConflictError, StoreError
from watcher.domain.timestamps import Micros
from watcher.runtime.metrics import Metrics
from watcher.store.account_store import AccountStore
from watcher.store.changes import BackoffState, Lease, Turn
from watcher.store.maintenance_store import MaintenanceStore
from watcher.store.postgresql import explain_error as explain_postgresql
from watcher.store.recording import Writing
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import SqlStore, StoreMonitor
from watcher.store.sqlite import explain_error

EXPLAIN = partial(explain_error, where="watcher.db")
Use = Callable[[SqlStore, Lease, Lease], Awaitable[object]]

Leases = tuple[Lease, Lease]

EDGES = ["store.failed", "store.recovered"]

CHANGES: list[Use] = [
    lambda store, account, _sink: store.record(source_change(account)),
    lambda store, account, _sink: AccountStore(store, account).save_backoff(BackoffState()),
    lambda store, account, _sink: AccountStore(store, account).save_poll_times({execution_id(1): Micros(1)}),
    lambda store, _account, sink: SinkStore(store, sink).record(Turn(sink, backoff=BackoffState(), clock_s=1.0)),
    lambda store, _account, sink: SinkStore(store, sink).record(Turn(sink, calls_forward=True)),
]
SMALL_WRITES: list[Use] = [
    lambda store, _account, sink: SinkStore(store, sink).give_up(clock_s=1.0, after_s=1.0, skip=(), group_wait_s=0.0),
    lambda store, _account, sink: MaintenanceStore(store, sink).mark_absent_sinks(
        present=("ops",), now=Micros(1), dead_after_us=1
    ),
    lambda store, _account, _sink: store.probe_writable(),
]


@pytest.fixture
async def leases(store: SqlStore) -> Leases:
    await claim(store, "account", "other")
    return await claim(store, "account", "default"), await claim(store, "sink", "ops")


async def all_fail(store: SqlStore, leases: Leases, *uses: Use) -> None:
    for use in uses:
        with pytest.raises(StoreError, match="locked by another program"):
            await use(store, *leases)


async def is_usable(store: SqlStore) -> bool:
    with suppress(StoreError):
        await store.probe_writable()
        return True
    return False


async def test_whoever_meets_trouble_it_is_logged_once_and_so_is_its_end(
    store: SqlStore, leases: Leases, path: Path
) -> None:
    with capture_logs() as logs:
        with held(path):
            await all_fail(store, leases, *CHANGES, *SMALL_WRITES, *CHANGES)
        for use in (*CHANGES, *SMALL_WRITES):
            await use(store, *leases)
    assert [line["event"] for line in logs] == EDGES
    assert "locked by another program; close the other program" in logs[0]["problem"]


@pytest.mark.parametrize(
    ("refused", "passes"),
    [(use, use) for use in (*CHANGES, *SMALL_WRITES)] + [(use, CHANGES[0]) for use in SMALL_WRITES],
)
async def test_what_was_refused_and_now_passes_ends_the_trouble_at_once(
    store: SqlStore, leases: Leases, path: Path, refused: Use, passes: Use
) -> None:
    with capture_logs() as logs:
        with held(path):
            await all_fail(store, leases, refused)
        await passes(store, *leases)
    assert [line["event"] for line in logs] == EDGES


async def test_neither_a_read_nor_a_small_write_shows_that_changes_are_taken_again(
    store: SqlStore, leases: Leases, path: Path, clock: FakeClock
) -> None:
    with capture_logs() as logs:
        with held(path):
            await all_fail(store, leases, CHANGES[0])
            clock.advance(31)
            await backlog_of(store)
            await all_fail(store, leases, CHANGES[0], SMALL_WRITES[0])
        clock.advance(29.9)
        await claim(store, "account", "other")
        assert not await is_usable(store)
        assert [line["event"] for line in logs] == EDGES[:1]
        clock.advance(0.1)
        assert await is_usable(store)
    assert [line["event"] for line in logs] == EDGES


@pytest.mark.parametrize(("error", "is_over"), [(psycopg.OperationalError(), True), (psycopg.errors.DiskFull(), False)])
def test_a_small_write_shows_that_a_server_is_back_and_not_that_it_has_room(
    error: psycopg.Error, *, is_over: bool
) -> None:
    monitor = StoreMonitor(explain=partial(explain_postgresql, where="db"), clock=FakeClock())
    monitor.note_failure(error, Writing.CHANGES)
    with capture_logs() as logs:
        monitor.note_write(Writing.A_LITTLE)
    assert [each["event"] for each in logs] == ["store.recovered"] * is_over


async def test_one_write_that_is_refused_alone_is_no_trouble_of_the_others(
    store: SqlStore, leases: Leases, path: Path, clock: FakeClock
) -> None:
    account, _ = leases
    with closing(sqlite3.connect(path, isolation_level=None)) as database, capture_logs() as logs:
        database.execute("CREATE TRIGGER refused BEFORE INSERT ON execution BEGIN SELECT RAISE(ABORT, ''); END")
        for _ in range(3):
            with pytest.raises(StoreError, match="did not take this"):
                await store.record(change(account))
            await CHANGES[1](store, *leases)
            assert await is_usable(store)
            clock.advance(29.9)
        assert [line["event"] for line in logs] == EDGES[:1]
        with held(path):
            await all_fail(store, leases, CHANGES[1])
        await CHANGES[1](store, *leases)
    assert [line["event"] for line in logs] == ["store.failed", *EDGES]


async def test_a_bug_and_an_owner_that_was_replaced_are_no_trouble_of_the_store(
    store: SqlStore, leases: Leases
) -> None:
    account, _ = leases
    with capture_logs() as logs:
        with pytest.raises(SequenceConflictError):
            await store.record(source_change(account, sequence=7))
        await claim(store, "account", "default")
        await claim(store, "sink", "ops")
        for use in (CHANGES[0], SMALL_WRITES[1]):
            with pytest.raises(OwnershipLostError):
                await use(store, *leases)
    assert logs == []


def test_trouble_with_reading_says_nothing_of_writing_and_ends_when_it_has_not_come_for_a_while(
    clock: FakeClock,
) -> None:
    cause = sqlite3.OperationalError("secret")
    cause.sqlite_errorname = "SQLITE_IOERR_READ"
    monitor = StoreMonitor(explain=EXPLAIN, clock=clock)
    with capture_logs() as logs:
        monitor.note_failure(cause, Writing.NOTHING)
        assert monitor.failing_since is None
        for after_s, edges in ((29.9, 1), (0.1, 2)):
            clock.advance(after_s)
            monitor.note_write(Writing.CHANGES)
            assert [line["event"] for line in logs] == EDGES[:edges]
    assert "secret" not in str(logs)


def test_what_keeps_the_store_away_is_said_anew_when_it_changes_and_each_cause_once(clock: FakeClock) -> None:
    monitor = StoreMonitor(explain=EXPLAIN, clock=clock)
    full, away = sqlite3.OperationalError(), sqlite3.OperationalError()
    full.sqlite_errorname, away.sqlite_errorname = "SQLITE_FULL", "SQLITE_CANTOPEN"
    with capture_logs() as logs:
        for cause in (full, full, away, ValueError(), full, away):
            monitor.note_failure(cause, Writing.CHANGES)
        assert (monitor.failing_since is not None, "CANTOPEN" in monitor.problem) == (True, True)
        monitor.note_write(Writing.CHANGES)
        monitor.note_failure(full, Writing.CHANGES)
    assert [line["event"] for line in logs] == ["store.failed", *EDGES, "store.failed"]
    assert [name in line["problem"] for line, name in zip(logs[:2], ("FULL", "CANTOPEN"), strict=True)] == [True, True]


def shown(metrics: Metrics) -> tuple[float | None, float | None]:
    """Whether the store is up, and how many failures there were."""
    value = metrics.registry.get_sample_value
    return value("watcher_store_up"), value("watcher_store_failures_total")


async def test_metrics_show_a_store_that_refuses_writes_until_one_goes_through(
    store: SqlStore, leases: Leases, path: Path
) -> None:
    metrics = Metrics()
    assert shown(metrics) == (0, 0)  # it is not open yet
    metrics.store_up.set_function(lambda: store.monitor.failing_since is None)
    store.monitor.on_failure = metrics.store_failures.inc
    await store.record(source_change(leases[0]))
    assert shown(metrics) == (1, 0)
    with held(path):
        await all_fail(store, leases, lambda store, account, _: store.record(source_change(account, sequence=2)))
        await backlog_of(store)
        assert shown(metrics) == (0, 1)
    await store.record(source_change(leases[0], sequence=2))
    assert shown(metrics) == (1, 1)
