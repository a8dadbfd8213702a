"""The block `store` of the configuration file."""

import re
from importlib import import_module
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from watcher.runtime.settings import Block, Duration, as_written
from watcher.runtime.units import InvalidValueError

_SQLITE = re.compile(r"sqlite:///(?!:memory:)[^?#]*[^?#/]")
_POSTGRESQL = re.compile(r"postgres(?:ql)?://")


def check_store_url(value: str) -> str:
    """Return the URL of a store. Raises `InvalidValueError`, which shows none of it: it may hold a password."""
    if _SQLITE.fullmatch(value):
        return value
    if _POSTGRESQL.match(value):
        _check_postgresql_url(value)
        return value
    remedy = "write sqlite:///watcher.db, sqlite:////var/lib/watcher/watcher.db or postgresql://user@host/db"
    raise InvalidValueError("is not the address of a SQLite file or a PostgreSQL database", remedy=remedy, quote=False)


def _check_postgresql_url(value: str) -> None:
    try:
        module = import_module("watcher.store.postgresql_url")
    except ImportError:
        remedy = "pip install 'clerk-watcher[postgres]'"
        raise InvalidValueError("postgresql needs the extra", remedy=remedy, quote=False) from None
    module.check_postgresql_url(value)


class StoreSettings(Block):
    """Where state lives."""

    url: Annotated[str, AfterValidator(check_store_url)] = Field(
        default="sqlite:///watcher.db",
        description="A SQLite file, after three slashes from where the daemon starts, after four from the root; or a "
        "[PostgreSQL](operations.md#postgresql) database, as libpq reads it. A change needs a restart.",
        examples=["sqlite:////var/lib/watcher/watcher.db", "postgresql://watcher@db.example.com/watcher"],
    )
    password: SecretStr | None = Field(
        default=None,
        description="PostgreSQL's password. Without one libpq's own ways are open: `PGPASSWORD`, `~/.pgpass`.",
        examples=["${WATCHER_DB_PASSWORD}"],
    )
    password_file: str | None = Field(
        default=None, description="The file that holds the password.", examples=["/run/secrets/db"]
    )
    retention_s: Duration = Field(
        default=as_written("30d"),
        alias="retention",
        description="How long ended executions, their events and settled deliveries are kept.",
        examples=["90d"],
    )
