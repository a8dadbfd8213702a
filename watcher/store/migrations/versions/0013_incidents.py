"""Adds the incidents of pagers, and the newest failure of each problem."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_ROWID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the table and the column. Versions before 1.1.0 can no longer use the store."""
    op.add_column("problem", sa.Column("latest", sa.String))
    op.create_table(
        "incident",
        sa.Column("problem_id", sa.LargeBinary, primary_key=True),
        sa.Column("sink_id", _ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("group_key", sa.LargeBinary),
        sa.Column("nth", sa.Integer, nullable=False),
        sa.Column("begun_at", sa.BigInteger, nullable=False),
        sa.Column("resolved", sa.Boolean, nullable=False, server_default="0"),
        sqlite_with_rowid=False,
    )
    op.create_index("incident_key", "incident", ["sink_id", "key"])
    where = sa.text("NOT resolved")
    op.create_index("incident_unresolved", "incident", ["sink_id"], sqlite_where=where, postgresql_where=where)
    op.create_index("incident_group", "incident", ["sink_id", "group_key", "nth"])
