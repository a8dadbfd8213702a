"""What the API calls a pipeline, for a list does not say it; and the latest beginning that its first scan showed."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make schema 4 of schema 3. A program of schema 1 can live with it, so `oldest_reader` stays."""
    op.add_column("scan", sa.Column("name", sa.String))
    op.add_column("scan", sa.Column("newest_at", sa.BigInteger))
    op.execute("UPDATE meta SET value = '4' WHERE key = 'schema_version'")
