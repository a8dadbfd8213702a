import json
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from stores import SetClock, Woken

from watcher.store.open import open_store
from watcher.store.tables import metadata

OPEN = """
import asyncio, sys
from watcher.runtime.clock import SystemClock
from watcher.store.open import open_store

async def main():
    store = await open_store(sys.argv[1], clock=SystemClock(), on_recorded=print)
    await store.close()

asyncio.run(main())
print("alembic" in sys.modules)
"""

KILL = """
import alembic.command, asyncio, json, os, signal, sys
from sqlalchemy import Engine, event
from watcher.runtime.clock import SystemClock
from watcher.store.open import open_store

def open_until(last_words, url):
    def kill(_connection, _cursor, statement, *_rest):
        if last_words in statement:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "after_cursor_execute", kill)
    asyncio.run(open_store(url, clock=SystemClock(), on_recorded=print))

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
"""What the first migration says, and last says before the process is killed."""


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


def clauses(sql: str) -> tuple[str, ...]:
    """Return a statement in its parts, sorted between the brackets: what was added later stands at the end there."""
    head, _, rest = sql.partition("(")
    body, _, tail = rest.rpartition(")")
    between = re.split(r",(?![^(]*\))", body)
    return (head.strip(), *sorted(" ".join(clause.split()) for clause in between), tail.strip())


def made(path: Path) -> dict[str, str]:
    database = sqlite3.connect(path)
    rows = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    database.close()
    return dict(rows)


@pytest.mark.parametrize("last_words", FIRST)
async def test_a_kill_inside_the_migration_leaves_nothing_half_done(killed: dict[str, Path], last_words: str) -> None:
    assert made(killed[last_words]) == {}
    store = await open_store(f"sqlite:///{killed[last_words]}", clock=SetClock(), on_recorded=Woken())
    assert store.created
    await store.close()


async def test_the_migrations_make_what_the_tables_say(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/migrated.db", clock=SetClock(), on_recorded=Woken())
    await store.close()
    engine = create_engine(f"sqlite:///{tmp_path}/tables.db")
    metadata.create_all(engine)
    engine.dispose()
    migrated = made(tmp_path / "migrated.db")
    assert migrated.pop("alembic_version")
    wanted = made(tmp_path / "tables.db")
    assert {name: clauses(sql) for name, sql in migrated.items()} == {
        name: clauses(sql) for name, sql in wanted.items()
    }


@pytest.mark.untraced  # much longer with coverage, which others give
def test_only_a_migration_loads_alembic(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN, f"sqlite:///{tmp_path}/watcher.db"]
    loaded = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert loaded == ["True\n", "False\n"]
