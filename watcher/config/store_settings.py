"""The block `store` of the configuration file."""

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from watcher.runtime.settings import Block, Duration, as_written
from watcher.store.store_url import check_store_url


class StoreSettings(Block):
    """Where state lives."""

    url: Annotated[str, AfterValidator(check_store_url)] = Field(
        default="sqlite:///watcher.db",
        description="A SQLite file, after three slashes from where the daemon starts, after four from the root; or a "
        "[PostgreSQL](run.md#postgresql) database, as libpq reads it. A change needs a restart.",
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
