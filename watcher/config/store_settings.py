"""The block `store` of the configuration file (SPEC 3)."""

import re
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field, SecretStr

from watcher.runtime.settings import Block, Duration, as_written
from watcher.runtime.units import InvalidValueError

_SQLITE = re.compile(r"sqlite:///(?!:memory:)[^?#]*[^?#/]")
_POSTGRESQL = re.compile(r"postgres(?:ql)?://")
_PASSWORDS = {"password", "sslpassword"}


def check_store_url(value: str) -> str:
    """Return the URL of a store. Raises `InvalidValueError`, which shows none of it: it may hold a password."""
    if _SQLITE.fullmatch(value):
        return value
    if _POSTGRESQL.match(value):
        return _postgresql_url(value)
    remedy = "write sqlite:///watcher.db, sqlite:////var/lib/watcher/watcher.db or postgresql://user@host/db"
    raise InvalidValueError("is not the address of a SQLite file or a PostgreSQL database", remedy=remedy, quote=False)


def _postgresql_url(value: str) -> str:
    """Return the URL, which libpq reads; here is seen to it that it holds no password."""
    try:
        parts = urlsplit(value)
    except ValueError:
        parts = None
    if parts is None or re.search(r"\s", value):
        raise InvalidValueError("is not a URL", remedy="write postgresql://user@host/db", quote=False)
    if parts.password or _PASSWORDS & {key for key, _ in parse_qsl(parts.query)}:
        remedy = "write it into a file, and name that in store.password_file"
        raise InvalidValueError("holds a password", remedy=remedy, quote=False)
    return value


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
