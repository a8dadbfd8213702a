"""Where the message of a problem is, in sinks that update theirs."""

import sqlalchemy as sa
from alembic import op

from watcher.store.tables import only_where

revision = "0008"
down_revision = "0007"

ROWID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make schema 8 of schema 7. A program of schema 1 can live with it, so `oldest_reader` stays."""
    op.create_table(
        "problem_message",
        sa.Column("problem_id", sa.LargeBinary, primary_key=True),
        sa.Column("sink_id", ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("number", sa.String, nullable=False),
        sqlite_with_rowid=False,
    )
    of_pipelines = only_where("closed_at IS NULL AND execution IS NULL")
    op.create_index("problem_pipeline", "problem", ["pipeline_id"], **of_pipelines)
    op.execute("UPDATE meta SET value = '8' WHERE key = 'schema_version'")
