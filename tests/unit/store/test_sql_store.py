"""In how few transactions a store writes what is handed in, and what one bad write costs the others."""

import asyncio
import os
import resource
import shutil
import socket
import sqlite3
import stat
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import OperationalError
from stores import (
    LATER,
    PIPELINE,
    SetClock,
    attempt_record,
    backlog_of,
    change,
    claim,
    due,
    execution_id,
    executions_of,
    held,
    pipeline_change,
    settle_all,
    sink_of,
    source_change,
)
from structlog.testing import capture_logs
from virtual import FakeClock

from watcher.domain.errors import Exit, OwnershipLostError, SequenceConflictError, StoreError, StoreUnusableError
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.runtime.metrics import Metrics
from watcher.runtime.threads import WorkerThreads
from watcher.store.account_store import AccountStore
from watcher.store.changes import BackoffState, Lease, Take, Turn
from watcher.store.maintenance_store import MaintenanceStore
from watcher.store.postgresql import explain_error as explain_postgresql
from watcher.store.recording import Writing
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import GROUP_COUNT, MOST_TURNS, QUIET_TURNS, SqlStore, StoreMonitor, open_store
from watcher.store.sqlite import explain_error

Trips = list[object]


@pytest.fixture
async def account(store: SqlStore) -> Lease:
    lease = await claim(store, "account", "default")
    await store.record(change(lease, 9_999))  # what is named is numbered by now
    return lease


@pytest.fixture
def trips(store: SqlStore, account: Lease, monkeypatch: pytest.MonkeyPatch) -> Trips:
    """Return the transactions that are begun from now on."""
    write, begun = store.database.write, Trips()

    def note(work: Callable[[Any], Any]) -> Awaitable[Any]:
        begun.append(work)
        return write(work)

    monkeypatch.setattr(store.database, "write", note)
    return begun


async def record_all(store: SqlStore, account: Lease, count: int, **of_100: Any) -> list[int]:
    """Record so many at once; return the numbers of those that were refused."""
    changes = [change(account, number, **(of_100 if number == 100 else {})) for number in range(count)]
    outcomes = await asyncio.gather(*map(store.record, changes), return_exceptions=True)
    errors = [outcome for outcome in outcomes if outcome is not None]
    assert all(isinstance(error, StoreError) for error in errors)
    assert len({id(error) for error in errors}) == len(errors)
    return [number for number, outcome in enumerate(outcomes) if outcome is not None]


async def record_each_turn(store: SqlStore, account: Lease, numbers: range) -> None:
    writes = []
    for number in numbers:
        writes.append(store.record(change(account, number)))
        await asyncio.sleep(0)
    await asyncio.gather(*writes)


async def test_what_is_handed_in_together_is_written_together(store: SqlStore, account: Lease, trips: Trips) -> None:
    assert await record_all(store, account, 10) == []
    assert len(trips) == 1


async def test_a_group_is_never_larger_than_its_limit(store: SqlStore, account: Lease, trips: Trips) -> None:
    await record_all(store, account, 2 * GROUP_COUNT + 88)
    assert len(trips) == 3


async def test_what_comes_turn_by_turn_is_gathered_for_a_while(store: SqlStore, account: Lease, trips: Trips) -> None:
    await record_each_turn(store, account, range(20))
    assert len(trips) == 1
    await record_each_turn(store, account, range(20, 20 + 2 * MOST_TURNS))
    assert len(trips) > 2


async def test_what_comes_alone_is_not_kept_waiting(store: SqlStore, account: Lease, trips: Trips) -> None:
    write = store.record(change(account))
    for _ in range(QUIET_TURNS + 3):  # to be handed in, taken and begun
        await asyncio.sleep(0)
    assert len(trips) == 1
    await write


async def test_bad_writes_are_found_by_halving(store: SqlStore, account: Lease, trips: Trips) -> None:
    assert await record_all(store, account, GROUP_COUNT, status="\ud800") == [100]
    assert len(trips) == 17
    recorded = {each.execution for each in await executions_of(store, account, count=GROUP_COUNT)}
    assert recorded == {execution_id(number) for number in range(GROUP_COUNT)} - {execution_id(100)}


async def test_what_concerns_all_is_tried_once(
    store: SqlStore, account: Lease, trips: Trips, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(work: object) -> None:
        trips.append(work)
        cause = sqlite3.OperationalError()
        cause.sqlite_errorname = "SQLITE_FULL"
        raise OperationalError(None, None, cause)

    with monkeypatch.context() as full:
        full.setattr(store.database, "write", fail)
        assert len(await record_all(store, account, GROUP_COUNT)) == GROUP_COUNT
    assert len(trips) == 1
    assert await record_all(store, account, 3) == []


async def test_a_worker_that_is_woken_by_a_write_cannot_end_the_writing(store: SqlStore, account: Lease) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context["message"]))

    def wake() -> None:
        if store._writing is None or store._writing.done():  # not while it is handed in
            raise RuntimeError

    store.wakes["ops"] = wake
    for number in (1, 2):
        await store.record(change(account, number))
    await asyncio.sleep(0)
    assert len(complaints) == 2


async def test_an_event_that_is_recorded_and_delivered_takes_two_trips(
    store: SqlStore, account: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops = await sink_of(store)
    await settle_all(ops)
    await store.record(change(account, 1))
    trips, run = Trips(), WorkerThreads.run
    woken = asyncio.Event()
    store.wakes["ops"] = woken.set

    async def count(self: WorkerThreads, work: Any) -> object:
        trips.append(work)
        return await run(self, work)

    monkeypatch.setattr(WorkerThreads, "run", count)
    recorded = store.record(change(account, 2))
    await woken.wait()
    one, other = await due(ops)
    await recorded
    attempts = (attempt_record(one), attempt_record(other))
    await ops.record(Turn(ops.lease, attempts, take=Take(LATER, 1, frozenset())))
    assert len(trips) == len(("record and take", "settle and take"))


# Trouble: noted wherever it is met, and logged once per edge

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


async def test_trouble_is_logged_once_and_so_is_its_end(store: SqlStore, leases: Leases, path: Path) -> None:
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
async def test_one_passed_write_ends_it(store: SqlStore, leases: Leases, path: Path, refused: Use, passes: Use) -> None:
    with capture_logs() as logs:
        with held(path):
            await all_fail(store, leases, refused)
        await passes(store, *leases)
    assert [line["event"] for line in logs] == EDGES


async def test_no_read_or_small_write_ends_it(store: SqlStore, leases: Leases, path: Path, clock: FakeClock) -> None:
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
def test_a_small_write_shows_that_a_server_is_back_not_that_it_has_room(error: psycopg.Error, *, is_over: bool) -> None:
    monitor = StoreMonitor(explain=partial(explain_postgresql, where="db"), clock=FakeClock())
    monitor.note_failure(error, Writing.CHANGES)
    with capture_logs() as logs:
        monitor.note_write(Writing.A_LITTLE)
    assert [each["event"] for each in logs] == ["store.recovered"] * is_over


async def test_one_refused_write_troubles_no_other(
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


async def test_a_bug_and_a_replaced_owner_are_no_trouble_of_the_store(store: SqlStore, leases: Leases) -> None:
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


def test_trouble_with_reading_says_nothing_of_writing_and_ends_after_a_while(clock: FakeClock) -> None:
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


async def test_metrics_show_a_store_that_refuses_writes(store: SqlStore, leases: Leases, path: Path) -> None:
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


# Opening a file

NOBODY = 65534


async def opened(path: Path) -> SqlStore:
    return await open_store(f"sqlite:///{path}", clock=SetClock(), busy_timeout_s=0.01)


async def refusal(path: Path, *, code: Exit = Exit.USAGE) -> str:
    with pytest.raises(StoreUnusableError) as caught:
        await opened(path)
    assert caught.value.exit_code is code
    return str(caught.value)


async def test_a_file_that_somebody_left_empty_becomes_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    path.touch(0o644)
    store = await open_store(f"sqlite:///{path}", clock=SetClock())
    assert set(modes_in(tmp_path).values()) == {0o600}
    await store.close()


def modes_in(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


async def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    store = await opened(path)
    await claim(store, "account", "default")
    names = ("watcher.db", "watcher.db-wal", "watcher.db-shm", "watcher.db.lock")
    assert modes_in(tmp_path) == dict.fromkeys(names, 0o600)
    await store.close()


async def test_what_is_not_a_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o644)
    assert f"{path} is not a file; write sqlite:///watcher.db" in await refusal(path)
    assert modes_in(tmp_path) == {"pipe": 0o644}


async def test_a_second_daemon_is_refused_and_names_who_holds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    store = await opened(path)
    (tmp_path / "link.db").symlink_to(path)
    for name in ("watcher.db", "link.db"):
        message = await refusal(tmp_path / name, code=Exit.FAILED)
        assert f"pid {os.getpid()} on {socket.gethostname()} since 2026-11-24T00:00:00+00:00" in message
    await store.close()
    await (await opened(path)).close()


def set_versions(path: Path, *, schema_version: int, oldest_reader: int) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (schema_version,))
        database.execute("UPDATE meta SET value = ? WHERE key = 'oldest_reader'", (oldest_reader,))
    database.close()


async def test_a_store_of_before_the_first_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    await (await opened(path)).close()
    set_versions(path, schema_version=8, oldest_reader=1)
    before = path.read_bytes()
    assert await refusal(path) == (
        f"{path} is a store of a version before the first release (schema 8), which cannot be read any more; begin with"
        " an empty store: move this one away, or name another in store.url"
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize(("table", "columns"), [("customer", "name"), ("meta", "key, value"), ("meta", "id")])
async def test_a_strangers_database_is_refused_and_left_alone(table: str, columns: str, tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    with sqlite3.connect(path) as database:
        database.execute(f"CREATE TABLE {table} ({columns})")
    database.close()
    assert "not one of clerk-watcher" in await refusal(path)
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [(table,)]
    database.close()


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    path.write_text("dear diary\n" * 500)
    assert "is not a SQLite database" in await refusal(path)
    assert path.read_text() == "dear diary\n" * 500


async def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    await (await opened(path)).close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    assert "is damaged" in await refusal(path)


async def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    message = await refusal(tmp_path / "gone" / "watcher.db")
    assert f"{tmp_path}/gone/watcher.db" in message
    assert "No such file or directory" in message


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_what_may_pass_by_itself_is_nothing_a_person_must_correct(tmp_path: Path) -> None:
    with no_descriptor_left(), pytest.raises(StoreError, match="Too many open files") as caught:
        await opened(tmp_path / "watcher.db")
    assert caught.value.exit_code is Exit.FAILED


@pytest.fixture
def directory_as_nobody() -> Iterator[Path]:
    """Run as a user whom permissions bind, in a directory of their own: root may write whatever it likes."""
    directory = Path(tempfile.mkdtemp())
    user = os.geteuid()
    if user == 0:
        os.chown(directory, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield directory
    os.seteuid(user)
    directory.chmod(0o700)
    shutil.rmtree(directory)


def forbid_writing(path: Path) -> None:
    path.chmod(0o500)


@pytest.mark.parametrize("is_there", [False, True])
async def test_what_may_not_be_written_is_refused(directory_as_nobody: Path, *, is_there: bool) -> None:
    path = directory_as_nobody / "watcher.db"
    if is_there:
        path.touch()
    forbid_writing(path if is_there else directory_as_nobody)
    assert "Permission denied" in await refusal(path)


async def test_a_store_locked_by_a_stranger_may_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    await (await opened(path)).close()
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="locked by another program") as caught:
        await opened(path)
    assert not isinstance(caught.value, StoreUnusableError)
    stranger.close()
    await (await opened(path)).close()


# What stands in the rows of what a pipeline emits

EMITTED = """
    SELECT teller.kind, teller.name, subject.kind, subject.name, event.execution FROM event
    JOIN source AS teller ON teller.id = event.source_id JOIN source AS subject ON subject.id = event.pipeline_id
"""


async def test_an_event_of_a_pipeline_names_it_and_the_account_that_reported_it(tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    store = await open_store(f"sqlite:///{path}", clock=SetClock())
    account = await claim(store, "account", "default")
    await store.record(pipeline_change(account, cursor=Cursor(Micros(1)), sinks=("ops",)))
    await store.close()
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute(EMITTED).fetchall()
    assert rows == [("account", "default", "pipeline", f"default/{PIPELINE}", None)]
