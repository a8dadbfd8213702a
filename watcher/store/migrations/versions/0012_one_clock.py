"""Adds columns and indexes for times on our own clock. Version 1.0.0 stored times on the API's clock.

Owners convert most of the stored times once the API answers. Only the order of `found_at` matters, so this revision
sets `found_at` itself: to long ago for settled rows, and to now for all others.
"""

from time import time_ns

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

SETTLED_AFTER_US = 15_000_000
OPEN = {
    "execution_open": ["pipeline_id", "since_at", "execution", "status"],
    "execution_since": ["since_at", "execution", "pipeline_id", "status"],
}
"""The indexes of open executions, of one pipeline and of all. They hold the status, so pages read only the index."""


def upgrade() -> None:
    """Bring a store of version 1.0.0 up to date."""
    op.add_column("execution", sa.Column("finished_at", sa.BigInteger))
    op.execute("UPDATE execution SET finished_at = ended_at WHERE ended_at IS NOT NULL")
    where = sa.text("finished_at IS NOT NULL")
    op.create_index("execution_finished", "execution", ["finished_at"], sqlite_where=where, postgresql_where=where)
    where = sa.text("finished_at IS NOT NULL AND sequence > 0 AND lost IS NULL")
    columns = ["pipeline_id", "finished_at", "ended_at"]
    op.create_index("execution_strip", "execution", columns, sqlite_where=where, postgresql_where=where)
    if "dated" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("scan")}:
        # The first builds of version 1.0.0 had another column here, and kept the times of scans on our own clock.
        op.execute("ALTER TABLE scan DROP COLUMN newest_at")
        op.add_column("scan", sa.Column("dated", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("scan", sa.Column("total", sa.BigInteger))
    op.add_column("scan", sa.Column("ahead_us", sa.BigInteger))
    op.execute(
        "UPDATE execution SET found_at = CASE WHEN found_at <="
        f" (SELECT complete_at - {SETTLED_AFTER_US} FROM scan WHERE scan.account_id = execution.account_id"
        " AND scan.pipeline_id = execution.pipeline_id)"
        f" THEN 1 ELSE {time_ns() // 1000} END WHERE found_at > 0"
    )
    op.drop_index("execution_open", "execution")
    for name, columns in OPEN.items():
        is_open = sa.text("ended_at IS NULL")
        op.create_index(name, "execution", columns, sqlite_where=is_open, postgresql_where=is_open)
