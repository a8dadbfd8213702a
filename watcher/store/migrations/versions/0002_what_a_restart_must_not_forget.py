"""What a restart must not forget of an account or a sink; and no salt any more, which nothing ever used."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make schema 2 of schema 1. A program of schema 1 can live with it, so `oldest_reader` stays."""
    op.add_column("source", sa.Column("paused_until", sa.BigInteger))
    op.add_column("source", sa.Column("failing_for_s", sa.Float))
    op.execute("DELETE FROM meta WHERE key = 'salt'")
    op.execute("UPDATE meta SET value = '2' WHERE key = 'schema_version'")
