"""What stands in the rows of what a pipeline emits: by them, events are found by their pipeline."""

import sqlite3
from contextlib import closing
from pathlib import Path

from stores import PIPELINE, SetClock, claim, pipeline_change

from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.store.sql_store import open_store

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
