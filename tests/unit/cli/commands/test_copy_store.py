import asyncio
import fcntl
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from copies import fill, nothing_is_left, opened, rows_of, run
from e2e.programme import COMMAND, environment
from postgres import EMPTY, WITH_PASSWORD, PostgresServer
from unit.cli.conftest import OnTerminal
from unit.conftest import Command

OLD, NEW = "sqlite:///old.db", "sqlite:///new.db"
MANY = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 50000)
INSERT INTO event (event_id, stream, sequence, type, source_id, recorded_at, closes, body)
SELECT randomblob(16), randomblob(16), n, 'execution.new', 1, n, 0, zeroblob(1) FROM number
"""


async def make_empty(url: str) -> None:
    await (await opened(url)).close()


@pytest.fixture(autouse=True)
def old(alone: None, tmp_path: Path) -> Path:
    """Lay a store with rows into the test's folder."""
    url = f"sqlite:///{tmp_path}/old.db"
    asyncio.run(make_empty(url))
    fill(url, count=3)
    return tmp_path / "old.db"


@pytest.fixture
def user(postgres: PostgresServer) -> Iterator[str]:
    """Give the name of a user whose password is hunter2."""
    postgres.run(f"DROP ROLE IF EXISTS {WITH_PASSWORD}")
    postgres.run(f"CREATE ROLE {WITH_PASSWORD} LOGIN SUPERUSER PASSWORD 'hunter2'")
    yield WITH_PASSWORD
    postgres.run(f"DROP ROLE {WITH_PASSWORD}")


@pytest.fixture
def empty(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database(EMPTY) as url:
        yield url


def test_it_says_what_it_does_what_it_did_and_what_to_do_next(command: Command, old: Path) -> None:
    code, out, err = command("copy-store", OLD, NEW)
    assert (code, out) == (0, "")
    counts = {name: len(rows) for name, rows in rows_of(OLD).items()}
    total, new = sum(counts.values()), old.parent / "new.db"
    assert re.fullmatch(
        rf"✓ copied {total} rows from {old} to {new} in \d s\n"
        rf"Next: set store.url to {NEW} and start the daemon.\n"
        rf"{old} is left as it is; let no daemon use it any more.\n",
        err,
    )
    assert rows_of(NEW) == rows_of(OLD)


def test_on_a_terminal_a_bar_shows_how_far_it_is_and_leaves_nothing_behind(on_terminal: OnTerminal) -> None:
    shown = on_terminal("copy-store", OLD, NEW, columns=120)
    total = sum(map(len, rows_of(OLD).values()))
    assert f"{total} of {total} rows" in shown
    assert shown.rstrip().splitlines()[-3].rpartition("\x1b[2K")[2].startswith(f"✓ copied {total} rows from")


@pytest.mark.parametrize(
    ("urls", "code", "said"),
    [
        (("mysql://h/db", NEW), 2, "FROM is not the address of a SQLite file or a PostgreSQL database; write sqlite"),
        ((OLD, "postgresql://u:hunter2@h/db"), 2, "TO holds a password; write it into a file, and name that in"),
        (("postgresql://127.0.0.1:99999/db", NEW), 2, "cannot be connected to: connection is bad: invalid port"),
        (("sqlite:///gone.db", NEW), 2, "/gone.db is not there; name the file of a store"),
        ((OLD, OLD), 2, "/old.db are the same store; name two"),
        ((OLD, "sqlite:///gone/new.db"), 2, "/gone/new.db cannot be used: No such file or directory"),
        ((OLD, "postgresql://u@127.0.0.1:1/db"), 1, "postgresql://u@127.0.0.1:1/db cannot be connected to"),
        ((OLD, "postgresql:///db?colour=red"), 2, "TO has the parameter colour, which libpq does not"),
    ],
)
def test_what_cannot_be_copied_is_said_with_a_remedy(
    command: Command, urls: tuple[str, str], code: int, said: str
) -> None:
    ended = command("copy-store", *urls)
    assert (ended[0], ended[1]) == (code, "")
    assert ended[2].startswith("error: ")
    assert said in ended[2]
    assert "hunter2" not in ended[2]


def test_a_store_in_use_is_no_mistake_of_a_person(command: Command) -> None:
    with closing(sqlite3.connect("old.db")), Path("old.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, err = command("copy-store", OLD, NEW)
    assert (code, "is in use by" in err) == (1, True)


def test_the_password_is_that_of_the_file_and_never_shown(command: Command, user: str, empty: str) -> None:
    url = empty.replace("postgres@", f"{user}@")
    Path("watcher.yaml").write_text("store: {password_file: db}\naccounts: {a: {api_key: '${NOT_SET}'}}")
    Path("db").write_text("wrong\n")
    refused = command("copy-store", OLD, url)
    Path("db").write_text("hunter2\n")
    code, _, err = command("copy-store", OLD, url)
    assert (refused[0], "password authentication failed" in refused[2]) == (2, True)
    assert (code, "hunter2" in err) == (0, False)
    assert rows_of(empty) == rows_of(OLD)


def test_without_a_file_the_password_is_that_of_the_environment(command: Command, user: str, empty: str) -> None:
    code, _, _ = command("copy-store", OLD, empty.replace("postgres@", f"{user}@"), PGPASSWORD="hunter2")
    assert code == 0


def until_written(path: Path) -> None:
    for _ in range(6000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} was not written")


@pytest.mark.ci
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_copies_nothing_and_says_so(old: Path, signum: signal.Signals) -> None:
    run(OLD, MANY)
    with (
        closing(sqlite3.connect("new.db", isolation_level=None)) as other,
        subprocess.Popen(
            [*COMMAND, "copy-store", OLD, NEW], env=environment(), stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        other.execute("BEGIN IMMEDIATE")  # so that it waits before its first row until the signal is sent
        until_written(old.parent / "new.db.lock")
        process.send_signal(signum)
        other.rollback()
        assert process.stderr
        said = process.stderr.read()
    assert process.returncode == 128 + signum
    assert said == f"✕ interrupted: nothing was copied, {old.parent}/new.db is as it was\n"
    assert nothing_is_left(NEW)
