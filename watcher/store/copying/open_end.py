"""From the URL of a store to one end of a copy. What PostgreSQL needs is loaded only for a store that is there."""

from importlib import import_module
from typing import cast

from watcher.runtime.clock import Clock
from watcher.store.copying.sqlite_end import SqliteEnd
from watcher.store.copying.store_end import StoreEnd
from watcher.store.open import is_postgresql, path_of


def open_end(url: str, *, password: str | None, clock: Clock) -> StoreEnd:
    """Return the store at a valid URL as one end of a copy; no connection is opened yet.

    `password` is PostgreSQL's.
    """
    if not is_postgresql(url):
        return SqliteEnd(path_of(url), clock=clock)
    module = import_module("watcher.store.copying.postgresql_end")
    return cast("StoreEnd", module.PostgresEnd(url, password=password, clock=clock))
