import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from stores import SetClock

from watcher.store.database import MIGRATIONS
from watcher.store.sql_store import open_store
from watcher.store.tables import OLDEST_READER, metadata

OPEN = """
import asyncio, sys
from watcher.runtime.clock import Clock
from watcher.store.sql_store import open_store

async def main():
    store = await open_store(sys.argv[1], clock=Clock())
    await store.close()

asyncio.run(main())
print("alembic" in sys.modules)
"""

KILL = """
import alembic.command, asyncio, json, os, signal, sys
from sqlalchemy import Engine, event
from watcher.runtime.clock import Clock
from watcher.store.sql_store import open_store

def open_until(last_words, url):
    def kill(_connection, _cursor, statement, *_rest):
        if last_words in statement:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "after_cursor_execute", kill)
    asyncio.run(open_store(url, clock=Clock()))

ends = {}
for last_words, url in json.loads(sys.argv[1]).items():
    child = os.fork()
    if not child:
        open_until(last_words, url)
        os._exit(0)
    ends[last_words] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(ends))
"""

FIRST = ["CREATE TABLE meta", "CREATE TABLE delivery", "CREATE INDEX delivery_due", "INTO alembic_version"]
"""What the making of a store says, and last says before the process is killed."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return stores whose opening was killed right after a statement that holds these words."""
    directory = tmp_path_factory.mktemp("killed")
    paths = {words: directory / f"{number}.db" for number, words in enumerate(FIRST)}
    urls = {words: f"sqlite:///{path}" for words, path in paths.items()}
    command = [sys.executable, "-c", KILL, json.dumps(urls)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == dict.fromkeys(paths, -signal.SIGKILL)
    return paths


def made(path: Path) -> dict[str, str]:
    database = sqlite3.connect(path)
    rows = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    database.close()
    return dict(rows)


@pytest.mark.parametrize("last_words", FIRST)
async def test_a_kill_inside_the_migration_leaves_nothing_half_done(killed: dict[str, Path], last_words: str) -> None:
    assert made(killed[last_words]) == {}
    store = await open_store(f"sqlite:///{killed[last_words]}", clock=SetClock())
    assert store.created
    await store.close()


async def test_a_new_store_is_where_the_migrations_end(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    store = await open_store(f"sqlite:///{path}", clock=SetClock())
    await store.close()
    assert made(path).keys() > metadata.tables.keys()
    with closing(sqlite3.connect(path)) as database:
        ((revision,),) = database.execute("SELECT version_num FROM alembic_version")
        versions = dict(database.execute("SELECT key, value FROM meta WHERE key != 'proved_at'"))
    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [revision]
    assert versions == {"schema_version": str(int(revision)), "oldest_reader": str(OLDEST_READER)}


@pytest.mark.untraced  # much longer with coverage, which others give
def test_only_a_migration_loads_alembic(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN, f"sqlite:///{tmp_path}/watcher.db"]
    loaded = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert loaded == ["True\n", "False\n"]
