"""The store as pages and API read it: pages of lists by a cursor, each looking at no more than so many rows."""

from watcher.store.sql_store import SqlStore


class ConsoleStore:
    """What people ask of what is recorded. Nothing here writes."""

    def __init__(self, store: SqlStore) -> None:
        """Ask nothing yet."""
        self._store = store
