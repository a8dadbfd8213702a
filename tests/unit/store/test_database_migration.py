import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from copies import KINDS, Databases, copy, engine_of, first_store, opened, rows_of, run
from stores import SetClock, claim

from watcher.domain.errors import StoreUnusableError
from watcher.domain.execution import FailedNode
from watcher.domain.history import EndedExecution, error_kind_of
from watcher.domain.problems import LatestFailure
from watcher.domain.timestamps import Micros
from watcher.rules import load_states
from watcher.rules.failing import End, Failing, FailingSettings, FailingState, Tally
from watcher.rules.silent import Silent, SilentState
from watcher.store.account_store import AccountStore
from watcher.store.database import MIGRATIONS
from watcher.store.sources import execution_key
from watcher.store.sql_store import open_store
from watcher.store.tables import FIRST_VERSION, OLDEST_READER, SCHEMA_VERSION, metadata

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


@pytest.mark.ci
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


@pytest.mark.ci
def test_only_a_migration_loads_alembic(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN, f"sqlite:///{tmp_path}/watcher.db"]
    loaded = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert loaded == ["True\n", "False\n"]


NEXT_VERSION = SCHEMA_VERSION + 1
REVISION = f"""
import sqlalchemy as sa
from alembic import op

revision = "{NEXT_VERSION:04}"
down_revision = "{SCHEMA_VERSION:04}"

def upgrade() -> None:
    op.add_column("problem", sa.Column("came_later", sa.Integer, nullable=False, server_default="7"))
"""


def versions(url: str) -> tuple[int, int]:
    """Return which schema a store says it has, and which the oldest program is that can read it."""
    facts = dict(run(url, "SELECT key, value FROM meta"))
    return int(facts["schema_version"]), int(facts["oldest_reader"])


def differences(url: str) -> list[Any]:
    """Return by what a database is not what the tables say."""
    engine = engine_of(url)
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    return list(found)


async def use(url: str) -> None:
    await (await opened(url)).close()


@dataclass
class NextVersion:
    """Has this process be the next version of the program for as long as it is set up, with one more revision."""

    monkeypatch: pytest.MonkeyPatch
    migrations: Path

    def set_up(self, *, oldest_reader: int = NEXT_VERSION, revision: str = REVISION) -> None:
        shutil.copytree(MIGRATIONS, self.migrations)
        (self.migrations / "versions" / f"{NEXT_VERSION:04}_later.py").write_text(revision)
        for module in ("copying", "database", "postgresql"):
            self.monkeypatch.setattr(f"watcher.store.{module}.SCHEMA_VERSION", NEXT_VERSION)
        self.monkeypatch.setattr("watcher.store.database.OLDEST_READER", oldest_reader)
        self.monkeypatch.setattr("watcher.store.database.MIGRATIONS", self.migrations)

    def take_down(self) -> None:
        self.monkeypatch.undo()


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> NextVersion:
    return NextVersion(monkeypatch, tmp_path / "migrations")


@pytest.mark.ci
@pytest.mark.parametrize("is_first_build", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_store_of_version_1_is_brought_up_to_date(
    databases: Databases, kind: str, is_first_build: bool
) -> None:
    url = first_store(databases.nothing(kind))
    run(url, "INSERT INTO meta (key, value) VALUES ('commit:7', '7')")  # processes of versions before kept a number
    if is_first_build:
        run(url, "ALTER TABLE scan DROP COLUMN dated")
        run(url, "ALTER TABLE scan ADD COLUMN newest_at BIGINT")
    counts = {table: run(url, f"SELECT count(*) FROM {table}") for table in ("event", "delivery", "problem", "scan")}
    await use(url)
    assert versions(url) == (SCHEMA_VERSION, OLDEST_READER)
    assert differences(url) == [], "raise SCHEMA_VERSION, and let a revision make what watcher/store/tables.py says"
    assert {table: run(url, f"SELECT count(*) FROM {table}") for table in counts} == counts
    assert run(url, "SELECT count(*) FROM meta WHERE key = 'commit:7'") == [(0,)]
    if is_first_build:
        assert set(run(url, "SELECT dated FROM scan")) == {(False,)}


def back_to_17(url: str) -> None:
    """Have an empty store be of schema 17."""
    key = "BYTEA" if url.startswith("postgresql") else "BLOB"
    for statement in (
        "DROP TABLE unjudged_end",
        f"CREATE TABLE unjudged_end (pipeline_id BIGINT, execution {key}, ended_at BIGINT, failed BOOLEAN)",
        "ALTER TABLE problem RENAME COLUMN event_count TO told_count",
        "DROP INDEX delivery_ordering_key",
        "ALTER TABLE delivery RENAME COLUMN ordering_key TO lane",
        "CREATE INDEX delivery_lane ON delivery (lane, number, sink_id) WHERE state = 'waiting'",
        "UPDATE alembic_version SET version_num = '0017'",
        "UPDATE meta SET value = '17' WHERE key = 'schema_version'",
    ):
        run(url, statement)


@pytest.mark.ci
@pytest.mark.parametrize("kind", KINDS)
async def test_the_days_of_the_history_are_made_of_its_hours(databases: Databases, kind: str) -> None:
    url = await databases.without_rows(kind)
    await use(url)
    back_to_17(url)
    run(url, "INSERT INTO source (id, kind, name) VALUES (10, 'pipeline', 'default/p')")
    hour, day = 3_600_000_000, 86_400_000_000
    before = ScriptDirectory(str(MIGRATIONS)).get_revision("0017").down_revision
    for at, durations in ((5 * day, '{"7":1}'), (5 * day + 23 * hour, '{"7":2,"9":1}'), (6 * day, "{}")):
        run(url, f"INSERT INTO pipeline_hour VALUES (10, {at}, 1, 2, 3, 4, 5, '{durations}')")
    for statement in (
        "DROP TABLE pipeline_day",
        f"UPDATE alembic_version SET version_num = '{before}'",
        "UPDATE meta SET value = '16' WHERE key = 'schema_version'",
    ):
        run(url, statement)
    await use(url)
    days = [(10, 5 * day, 2, 4, 6, 8, 10, '{"7":3,"9":1}'), (10, 6 * day, 1, 2, 3, 4, 5, "{}")]
    assert sorted(run(url, "SELECT * FROM pipeline_day")) == days


SAID = {
    "status": "failed",
    "durationSeconds": 1.5,
    "aiTokensUsed": 69.6,
    "nodesStarted": 3,
    "error": "all failed",
    "failedNodes": [{"id": "n1", "name": "Greeting", "error": "HTTP 502"}],
}


@pytest.mark.parametrize("kind", KINDS)
async def test_rules_of_earlier_versions_go_on_with_their_states_and_the_ends_that_wait(
    databases: Databases, kind: str
) -> None:
    url = await databases.without_rows(kind)
    await use(url)
    back_to_17(url)
    names = [str(UUID(int=number)) for number in (1, 2, 3)]
    old = {"ends": [[5, True]], "started_at": 3, "opened_at": 4, "tallies": [[4, 2, 1]], "in_api_time": False}
    old |= {"failed": names[0], "failed_at": 5}
    run(url, "INSERT INTO source (id, kind, name) VALUES (9, 'account', 'default')")
    insert_source = "INSERT INTO source (id, kind, name, rules) VALUES (:id, 'pipeline', :name, :rules)"
    first = {"in_api_time": True, "ends": [[5, True]], "failed_in_row": 1, "newest_at": 5, "started_at": 3}
    run(url, insert_source, id=10, name=f"default/{names[0]}", rules=json.dumps(old))
    run(url, insert_source, id=11, name=f"default/{names[1]}", rules=json.dumps(first))
    for number, name in enumerate(names, 1):
        key = {"key": execution_key(name)}
        run(
            url,
            "INSERT INTO execution (account_id, execution, pipeline_id, status, since_at, looked_at, sequence, counts,"
            " was_paused, stream) VALUES (9, :key, 10, 'failed', 1, 1, 2, '', false, :key)",
            **key,
        )
        run(
            url,
            "INSERT INTO unjudged_end (pipeline_id, execution, ended_at, failed)"
            f" VALUES (10, :key, {number + 6}, {'false' if number == 3 else 'true'})",
            **key,
        )
        if number < 3:
            body = json.dumps({"data": {"execution": SAID if number == 1 else {"status": "success"}}}).encode()
            run(
                url,
                "INSERT INTO event (event_id, stream, sequence, source_id, type, body, recorded_at, closes)"
                " VALUES (:key, :key, 2, 9, 'execution.failed', :body, 1, false)",
                body=body,
                **key,
            )
    store = await opened(url)
    assert versions(url) == (SCHEMA_VERSION, OLDEST_READER)
    assert differences(url) == []
    account = AccountStore(store, await claim(store, "account", "default"))
    record = await account.load_rules(names[0])
    latest = LatestFailure(Micros(5), names[0], "Greeting", "HTTP 502")
    states = load_states(record.states, [Failing(FailingSettings(consecutive=3)), Silent(9.0)])
    assert states == {
        "failing": FailingState((End(5, failed=True),), 4, (Tally(4, 2, 1),), latest),
        "silent": SilentState(3),
    }
    node, kind_of_error = FailedNode("n1", "Greeting", "HTTP 502"), error_kind_of("Greeting", "HTTP 502")
    at = [Micros(number) for number in (7, 8, 9)]
    unknown = FailedNode(None, None, None)
    assert record.unjudged == [
        EndedExecution(at[0], at[0], "failed", 70, 1.5, kind_of_error, names[0], 3, node, "all failed"),
        EndedExecution(at[1], at[1], "success", execution=names[1], node=unknown),
        EndedExecution(at[2], at[2], "success", execution=names[2], node=unknown),  # its event is deleted
    ]
    first_states = json.loads((await account.load_rules(names[1])).states or "")
    assert first_states == {"failing": {"ends": [[5, True]]}, "silent": {"started_at": 3}, "in_api_time": True}
    await store.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_migration_is_noted_and_done_once(databases: Databases, kind: str, next_version: NextVersion) -> None:
    url = first_store(databases.nothing(kind))
    next_version.set_up(oldest_reader=FIRST_VERSION)
    await use(url)
    assert versions(url) == (NEXT_VERSION, FIRST_VERSION)
    assert set(run(url, "SELECT came_later FROM problem")) == {(7,)}
    ((change, _, table, column),) = differences(url)
    assert (change, table, column.name) == ("remove_column", "problem", "came_later")
    shutil.rmtree(next_version.migrations)  # so that Alembic, were it asked again, would not find them
    await use(url)
    next_version.take_down()
    await use(url)
    assert versions(url) == (NEXT_VERSION, FIRST_VERSION)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_program_too_old_for_it_is_refused(databases: Databases, kind: str, next_version: NextVersion) -> None:
    url = await databases.without_rows(kind)
    next_version.set_up()
    await use(url)
    next_version.take_down()
    words = f"newer version .*schema {NEXT_VERSION}, .* at least {NEXT_VERSION}; this one knows {SCHEMA_VERSION}"
    with pytest.raises(StoreUnusableError, match=words):
        await use(url)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failed_migration_changes_nothing(databases: Databases, kind: str, next_version: NextVersion) -> None:
    url = first_store(databases.nothing(kind))
    next_version.set_up(revision=f"{REVISION}    raise ZeroDivisionError")
    with pytest.raises(ZeroDivisionError):
        await use(url)
    assert versions(url) == (FIRST_VERSION, FIRST_VERSION)
    assert "came_later" not in [str(getattr(each[-1], "name", "")) for each in differences(url)]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_copy_migrates_its_target_alone(databases: Databases, kind: str, next_version: NextVersion) -> None:
    source, target = await databases.full("sqlite"), await databases.without_rows(kind)
    next_version.set_up()
    with pytest.raises(StoreUnusableError, match=f"has schema {SCHEMA_VERSION}, and this program copies"):
        copy(source, target)
    await use(source)
    copy(source, target)
    assert versions(target) == versions(source) == (NEXT_VERSION, NEXT_VERSION)
    assert rows_of(target) == rows_of(source)
