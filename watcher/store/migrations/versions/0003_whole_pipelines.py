"""What watching whole pipelines needs: how far each was read, and what a list showed."""

import sqlalchemy as sa
from alembic import op

from watcher.store.tables import only_where

revision = "0003"
down_revision = "0002"

ROWID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make schema 3 of schema 2. A program of schema 1 can live with it, so `oldest_reader` stays."""
    op.create_table(
        "scan",
        sa.Column("account_id", ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("pipeline_id", ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("since_at", sa.BigInteger, nullable=False),
        sa.Column("complete_at", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.String),
        sa.Column("found", sa.Boolean, nullable=False),
    )
    op.add_column("execution", sa.Column("found_at", sa.BigInteger, nullable=False, server_default="0"))
    columns = ["pipeline_id", "execution"]
    op.create_index("execution_open", "execution", columns, **only_where("ended_at IS NULL"))
    op.execute("UPDATE meta SET value = '3' WHERE key = 'schema_version'")
