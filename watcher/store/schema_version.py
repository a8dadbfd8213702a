"""The version of the schema: what is in a database, whether this program may use it, and bringing it up to date."""

from importlib import import_module

from sqlalchemy import Connection, inspect, select

from watcher.domain.errors import StoreUnusableError
from watcher.store.tables import SCHEMA_VERSION, meta


def prepare(connection: Connection, *, where: str, version: int = SCHEMA_VERSION) -> bool:
    """Bring the schema up to that version inside the transaction the connection has begun; return whether it was empty.

    `where` names the database in errors. Raises `StoreUnusableError` for a stranger's or a newer database.
    """
    found = found_version(connection, where=where)
    if found < version:
        # Alembic costs 12 MB and 0.1 s for as long as the daemon lives, so it is loaded only when there is work.
        import_module("watcher.store.migrate").migrate(connection, version=version)
    return found == 0


def found_version(connection: Connection, *, where: str) -> int:
    """Return the version of the schema that is there, 0 if the database is empty. Raises as `prepare`."""
    database = inspect(connection)
    tables = database.get_table_names()
    if not tables:
        return 0
    columns = {column["name"] for column in database.get_columns("meta")} if "meta" in tables else set()
    rows = connection.execute(select(meta.c.key, meta.c.value)) if columns >= {"key", "value"} else ()
    facts = {row.key: row.value for row in rows}
    if "oldest_reader" not in facts:
        raise StoreUnusableError(f"{where} is a database, but not one of clerk-watcher; name another")
    version, oldest_reader = int(facts["schema_version"]), int(facts["oldest_reader"])
    if oldest_reader > SCHEMA_VERSION:
        raise StoreUnusableError(
            f"{where} was written by a newer version of clerk-watcher (schema {version}, which needs at least"
            f" {oldest_reader}; this one knows {SCHEMA_VERSION}); start the newer version, or use another store"
        )
    return version
