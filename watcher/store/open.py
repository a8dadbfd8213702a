"""Opens a store: the lock, the file, the schema. What is wrong with any of them is said here, before anything runs.

What PostgreSQL needs is loaded only for a store that is there.
"""

from contextlib import AsyncExitStack

from watcher.runtime.clock import Clock
from watcher.store.database import Database
from watcher.store.sql_store import SqlStore
from watcher.store.sqlite import SqliteDatabase, hold_file
from watcher.store.store_url import is_postgresql, path_of

BUSY_TIMEOUT_S = 2.0
"""Short, for nothing interrupts it: a few of these in a row must fit into the 8 s an ending may take."""


async def open_store(
    url: str,
    *,
    clock: Clock,
    password: str | None = None,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
) -> SqlStore:
    """Open the store at `url`, a valid `store.url`, making or migrating it as needed, and hold it until it is closed.

    `password` is PostgreSQL's, `busy_timeout_s` how long a write waits for another program's lock on a file. Raises
    `StoreHeldError` when the file is in use, `StoreUnusableError` when a person must correct something (it is
    unwritable, damaged, somebody else's, newer, or refuses the login), `StoreNotReadyError` for a server that is not
    ready yet, and `StoreError` for what else may pass (locked, full).
    """
    async with AsyncExitStack() as stack:
        database: Database
        if is_postgresql(url):
            from watcher.store.postgresql import PostgresDatabase  # noqa: PLC0415 (of an extra)

            database = PostgresDatabase(url, password=password, clock=clock)
        else:
            file = stack.enter_context(hold_file(path_of(url), clock=clock))
            database = SqliteDatabase(file, busy_timeout_s=busy_timeout_s)
        stack.push_async_callback(database.close)
        created = await database.prepare()
        return SqlStore(database=database, created=created, clock=clock, resources=stack.pop_all())
