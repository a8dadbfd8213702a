"""Adds when the pause of an account or a sink was written."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the column."""
    op.add_column("source", sa.Column("backoff_at", sa.BigInteger))
