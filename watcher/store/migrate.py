"""Runs the migrations. The only module that imports Alembic; it is loaded only when a schema is not up to date."""

from pathlib import Path

from alembic.command import upgrade
from alembic.config import Config
from sqlalchemy import Connection

_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(connection: Connection, *, version: int) -> None:
    """Bring the schema up to that version, inside the transaction the connection has begun."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))  # "%" interpolates there
    config.attributes["connection"] = connection
    upgrade(config, f"{version:04}")
