"""A copy has all that its source has."""

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from copies import COPIED, KINDS, Databases, Heard, copy, opened, path_of, rows_of, run
from stores import START_US, SetClock, attempt_record, change, pipeline_change, stream_of

from watcher.domain.delivery import DeliveryState
from watcher.domain.watch import Cursor
from watcher.store.copying import transfer

FIXTURES = Path(__file__).parents[3] / "fixtures"
FACTS = "SELECT key, value FROM meta"


async def test_every_row_of_every_table_arrives_as_it_was(databases: Databases, pair: Sequence[str]) -> None:
    source, target = await databases.full(pair[0]), databases.nothing(pair[1])
    before, heard = rows_of(source), Heard()
    counts = copy(source, target, heard=heard)
    assert rows_of(target) == rows_of(source) == before
    assert counts == heard.counts == heard.copied_counts == {table.name: 7 for table in COPIED}
    assert heard.is_finished


async def test_a_target_may_have_tables_as_long_as_they_are_empty(databases: Databases, pair: Sequence[str]) -> None:
    source, target = await databases.full(pair[0]), await databases.without_rows(pair[1])
    copy(source, target)
    assert rows_of(target) == rows_of(source)


async def test_many_pages_are_as_good_as_one(
    databases: Databases, pair: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PAGE_ROWS", 3)
    source, target = await databases.full(pair[0], count=10), databases.nothing(pair[1])
    copy(source, target)
    assert rows_of(target) == rows_of(source)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
async def test_an_older_schema_arrives_as_its_own_migration_would_leave_it(
    databases: Databases, tmp_path: Path, version: int, kind: str
) -> None:
    old, migrated = tmp_path / "old.db", tmp_path / "migrated.db"
    for path in (old, migrated):
        shutil.copy(FIXTURES / f"store-000{version}.db", path)
    target = databases.nothing(kind)
    copy(f"sqlite:///{old}", target)
    await (await opened(f"sqlite:///{migrated}")).close()
    assert rows_of(target) == rows_of(f"sqlite:///{migrated}")
    assert old.read_bytes() == (FIXTURES / f"store-000{version}.db").read_bytes()
    assert sorted(run(target, FACTS)) == sorted(run(f"sqlite:///{migrated}", FACTS))


async def test_what_is_of_the_processes_that_used_it_stays_behind(databases: Databases, pair: Sequence[str]) -> None:
    source, target = await databases.full(pair[0]), databases.nothing(pair[1])
    run(source, "INSERT INTO meta (key, value) VALUES ('proved_at', '17')")
    run(source, "INSERT INTO lease (kind, name, owner, epoch) VALUES ('sink', 'ops', 'gone', 1)")
    copy(source, target)
    assert {key for key, _ in run(target, FACTS)} == {"schema_version", "oldest_reader"}
    assert run(target, "SELECT * FROM lease") == []


async def test_a_sign_that_postgresql_has_not_is_left_out_as_in_what_the_api_says(databases: Databases) -> None:
    source, target = await databases.full("sqlite"), databases.nothing("postgresql")
    run(source, "UPDATE execution SET status = 'a' || char(0) || 'b'")
    copy(source, target)
    assert set(run(target, "SELECT status FROM execution")) == {("ab",)}


async def test_what_a_daemon_left_behind_it_finds_in_the_copy_and_goes_on_from(
    databases: Databases, pair: Sequence[str]
) -> None:
    source, target, clock = databases.nothing(pair[0]), databases.nothing(pair[1]), SetClock()
    store = await opened(source, clock)
    account, ops = await store.claim("account", "default"), await store.claim("sink", "ops")
    for number in (1, 2, 3):
        await store.record(change(account, number))
    delivered, dead, _ = (await store.next_deliveries(ops, now=clock.steady_us(), limit=10)).deliveries
    await store.settle(attempt_record(ops, delivered))
    await store.settle(attempt_record(ops, dead, state=DeliveryState.DEAD))
    cursor = Cursor(since_at=START_US, complete_at=START_US, refused=None, found=True, name="Sales", newest_at=START_US)
    await store.record(pipeline_change(account, cursor=cursor))
    await store.close()
    last_number = max(run(source, "SELECT id FROM event"))[0]

    copy(source, target)
    again = await opened(target, clock)
    assert not again.created
    account, ops = await again.claim("account", "default"), await again.claim("sink", "ops")
    due = (await again.next_deliveries(ops, now=clock.steady_us(), limit=10)).deliveries
    assert [(each.stream, each.sequence) for each in due] == [
        (stream, 1) for stream in map(stream_of, ("70000000-0000-0000-0000-000000000003",))
    ]
    assert (await again.load_pipeline(account, pipeline_change(account, cursor=cursor).pipeline)).cursor == cursor
    await again.record(change(account, 1, sequence=2))
    assert max(run(target, "SELECT id FROM event"))[0] == last_number + 1
    await again.close()


async def test_numbers_of_rows_that_are_gone_are_not_given_again(databases: Databases, pair: Sequence[str]) -> None:
    source, target = databases.nothing(pair[0]), databases.nothing(pair[1])
    store = await opened(source)
    account = await store.claim("account", "default")
    for number in (1, 2, 3):
        await store.record(change(account, number, sinks=()))
    await store.close()
    run(source, "DELETE FROM event")

    copy(source, target)
    again = await opened(target)
    await again.record(change(await again.claim("account", "default"), 4, sinks=()))
    await again.close()
    assert run(target, "SELECT id FROM event") == [(4,)]


async def test_a_file_that_was_written_is_for_its_owner_alone(databases: Databases) -> None:
    target = databases.nothing("sqlite")
    copy(await databases.full("sqlite"), target)
    assert path_of(target).stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in path_of(target).parent.iterdir() if "1.db" in each.name) == [
        "1.db", "1.db.lock"
    ]  # fmt: skip


async def test_a_file_that_is_copied_stays_as_it_is(databases: Databases) -> None:
    source = await databases.full("sqlite")
    before = path_of(source).read_bytes()
    copy(source, databases.nothing("postgresql"))
    assert path_of(source).read_bytes() == before


async def test_what_a_killed_daemon_left_in_the_log_is_copied_too(databases: Databases, tmp_path: Path) -> None:
    source, target = await databases.full("sqlite"), databases.nothing("sqlite")
    with closing(sqlite3.connect(path_of(source))) as database:
        database.execute("UPDATE source SET state = 'in the log'")
        database.commit()
        for suffix in ("", "-wal"):
            shutil.copy(f"{path_of(source)}{suffix}", tmp_path / f"killed.db{suffix}")
    copy(f"sqlite:///{tmp_path}/killed.db", target)
    assert set(run(target, "SELECT state FROM source")) == {("in the log",)}
