"""Adds the counts of each pipeline by the hour, its kinds of errors by the day, and the due times of reports."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_ROWID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the tables and columns. The history begins with the upgrade."""
    op.add_column("execution", sa.Column("started_at", sa.BigInteger))
    op.add_column("scan", sa.Column("known_from", sa.BigInteger))
    where = sa.text("ended_at IS NULL")
    columns = ["pipeline_id", "started_at"]
    op.create_index("execution_started", "execution", columns, sqlite_where=where, postgresql_where=where)
    where = sa.text("execution IS NULL")
    columns = ["pipeline_id", "opened_at"]
    op.create_index("problem_history", "problem", columns, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "pipeline_hour",
        sa.Column("pipeline_id", _ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("from_at", sa.BigInteger, primary_key=True),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("started", "success", "failed", "unrecognized")),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("durations", sa.String, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("pipeline_hour_from", "pipeline_hour", ["from_at"])
    op.create_table(
        "error_kind",
        sa.Column("pipeline_id", _ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("from_at", sa.BigInteger, primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary, primary_key=True),
        sa.Column("failed_count", sa.Integer, nullable=False),
        sa.Column("node", sa.String),
        sa.Column("text", sa.String, nullable=False),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("error_kind_from", "error_kind", ["from_at"])
    op.create_table(
        "report",
        sa.Column("source_id", _ROWID, sa.ForeignKey("source.id"), primary_key=True, autoincrement=False),
        sa.Column("moment_at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.execute("DELETE FROM meta WHERE key LIKE 'commit:%'")  # rows of processes of earlier versions
