"""The schema of a database: what is there, whether this program may use it, and bringing it up to date."""

from importlib import import_module
from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select

from watcher.domain.errors import StoreUnusableError
from watcher.store.tables import FIRST_VERSION, OLDEST_READER, SCHEMA_VERSION, meta, metadata

_MIGRATIONS = Path(__file__).parent / "migrations"


def prepare(connection: Connection, *, where: str) -> bool:
    """Bring the schema up to date inside the transaction the connection has begun; return whether it was empty.

    A new database is made as `tables` says, and counts as migrated. `where` names the database in errors. Raises
    `StoreUnusableError` as `found_version`.
    """
    found = found_version(connection, where=where)
    if not found:
        metadata.create_all(connection, checkfirst=False)
        versions = {"schema_version": SCHEMA_VERSION, "oldest_reader": OLDEST_READER}
        connection.execute(insert(meta), [{"key": key, "value": str(value)} for key, value in versions.items()])
    if found < SCHEMA_VERSION:
        # Alembic costs 12 MB and 0.1 s for as long as the daemon lives, so it is loaded only when there is work.
        config = import_module("alembic.config").Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))  # "%" interpolates there
        config.attributes["connection"] = connection
        command = import_module("alembic.command")
        (command.upgrade if found else command.stamp)(config, "head")
    return not found


def found_version(connection: Connection, *, where: str) -> int:
    """Return the version of the schema that is there, 0 if the database is empty.

    Raises `StoreUnusableError` for somebody else's database, and for one that is too old or too new.
    """
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
    if version < FIRST_VERSION:
        raise StoreUnusableError(
            f"{where} is a store of a version before the first release (schema {version}), which cannot be read any"
            " more; begin with an empty store: move this one away, or name another in store.url"
        )
    if oldest_reader > SCHEMA_VERSION:
        raise StoreUnusableError(
            f"{where} was written by a newer version of clerk-watcher (schema {version}, which needs at least"
            f" {oldest_reader}; this one knows {SCHEMA_VERSION}); start the newer version, or use another store"
        )
    return version
