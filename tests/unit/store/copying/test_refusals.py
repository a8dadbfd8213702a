"""What is not copied, or not copied into, and what is said of it."""

import os
import re
import shutil
from pathlib import Path

import pytest
from copies import COPIED, KINDS, Databases, Heard, copy, nothing_is_left, opened, path_of, rows_of, run
from postgres import EMPTY, PostgresServer

from watcher.domain.errors import Exit, StoreError
from watcher.store.copying import transfer

FIXTURES = Path(__file__).parents[3] / "fixtures"


def lend(url: str, *, seconds: int) -> None:
    """Let a daemon hold something of a database for so long from now on."""
    until = f"(extract(epoch FROM clock_timestamp()) + {seconds}) * 1000000"
    run(url, "INSERT INTO lease (kind, name, owner, epoch) VALUES ('sink', 'ops', 'pid 7@host', 1)")
    run(url, f"UPDATE lease SET until = {until}")


def refused(source: str, target: str, *, code: Exit = Exit.USAGE) -> str:
    """Return why a copy is refused."""
    with pytest.raises(StoreError) as caught:
        copy(source, target)
    assert caught.value.exit_code is code
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_target_with_rows_is_refused_and_keeps_them(databases: Databases, kind: str) -> None:
    source, target = await databases.full("sqlite"), await databases.full(kind, count=2)
    before = rows_of(target)
    assert "is not empty, it has rows of source, " in refused(source, target)
    assert rows_of(target) == before


@pytest.mark.parametrize("kind", KINDS)
async def test_a_copy_is_a_target_no_more(databases: Databases, kind: str) -> None:
    source, target = await databases.full("sqlite"), databases.nothing(kind)
    copy(source, target)
    assert "is not empty" in refused(source, target)


async def test_a_target_that_cannot_keep_every_name_is_refused(databases: Databases, postgres: PostgresServer) -> None:
    source = await databases.full("sqlite")
    with postgres.database(f"{EMPTY} ENCODING 'LATIN1'") as target:
        assert "has the encoding LATIN1, in which not every text can be kept; create it" in refused(source, target)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_newer_schema_is_refused(databases: Databases, kind: str) -> None:
    source, target = await databases.full(kind), databases.nothing("sqlite")
    run(source, "UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    message = refused(source, target)
    assert re.search(r"newer version of clerk-watcher \(schema 99; this one knows \d+\); copy it with that", message)
    assert not path_of(target).exists()


@pytest.mark.parametrize("kind", KINDS)
async def test_tables_of_a_newer_schema_than_the_sources_are_refused(
    databases: Databases, tmp_path: Path, kind: str
) -> None:
    shutil.copy(FIXTURES / "store-0001.db", tmp_path / "old.db")
    target = await databases.without_rows(kind)
    message = refused(f"sqlite:///{tmp_path}/old.db", target)
    assert re.search(r"has tables of schema \d+, and .*old\.db of schema 1; name a target without tables", message)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_holds_no_store_is_no_source(databases: Databases, kind: str) -> None:
    source, target = databases.nothing(kind), databases.nothing("sqlite")
    if kind == "sqlite":
        path_of(source).touch()
    assert "is empty, so there is nothing to copy" in refused(source, target)
    run(source, "CREATE TABLE meta (id INTEGER)")
    assert "is a database, but not one of clerk-watcher; name another" in refused(source, target)


def test_a_file_that_is_not_there_is_not_made(databases: Databases, tmp_path: Path) -> None:
    source = databases.nothing("sqlite")
    assert "is not there; name the file of a store" in refused(source, databases.nothing("sqlite"))
    assert list(tmp_path.iterdir()) == []


async def test_one_store_under_two_names_is_refused(databases: Databases, tmp_path: Path) -> None:
    file, database = await databases.full("sqlite"), await databases.full("postgresql")
    (tmp_path / "link.db").symlink_to(path_of(file))
    (tmp_path / "hard.db").hardlink_to(path_of(file))
    others = [(file, f"sqlite:///{tmp_path}/{name}.db") for name in ("link", "hard")]
    for source, target in [(file, file), *others, (database, f"{database}&application_name=other")]:
        assert "are the same store; name two" in refused(source, target)


async def test_a_file_that_a_daemon_uses_is_refused_at_either_end(databases: Databases) -> None:
    used, other, nothing = await databases.full("sqlite"), await databases.full("sqlite"), databases.nothing("sqlite")
    store = await opened(used)
    for source, target in ((used, nothing), (other, used)):
        assert f"is in use by pid {os.getpid()}" in refused(source, target, code=Exit.FAILED)
    await store.close()
    assert not path_of(nothing).exists()


async def test_a_database_that_a_daemon_uses_is_refused_at_either_end(databases: Databases) -> None:
    used, file = await databases.full("postgresql"), await databases.full("sqlite")
    lend(used, seconds=9)
    for source, target in ((used, databases.nothing("sqlite")), (file, used)):
        message = refused(source, target, code=Exit.FAILED)
        assert "is in use by pid 7@host; stop every daemon that uses it (after a kill, wait 10 s)" in message


async def test_a_lease_that_ran_out_holds_nothing(databases: Databases) -> None:
    source, target = await databases.full("postgresql"), databases.nothing("sqlite")
    lend(source, seconds=-1)
    copy(source, target)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_copy_in_which_a_row_is_missing_is_not_kept(
    databases: Databases, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = await databases.full("sqlite"), databases.nothing(kind)
    counts = iter([*[7] * len(COPIED), 7, 7, 6])
    monkeypatch.setattr(transfer, "_count", lambda *_: next(counts))
    message = refused(source, target, code=Exit.FAILED)
    assert re.search(r"has 7 rows of \w+, but 6 arrived in .*, so nothing is kept there; this is a bug", message)
    assert nothing_is_left(target)


async def test_an_error_of_a_database_is_told_in_its_words_and_leaves_nothing(
    databases: Databases, postgres: PostgresServer
) -> None:
    source, target = await databases.full("sqlite"), databases.nothing("postgresql")
    heard = Heard(meanwhile=lambda: postgres.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                                                 "WHERE application_name = 'clerk-watcher copy-store'"))  # fmt: skip
    with pytest.raises(StoreError, match=r"the connection broke") as caught:
        copy(source, target, heard=heard)
    assert caught.value.exit_code is Exit.FAILED
    assert nothing_is_left(target)
