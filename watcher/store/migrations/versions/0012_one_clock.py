"""Keep no time of the API's clock, and when executions ended as the API dates it."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

OPEN = {
    "execution_open": ["pipeline_id", "since_at", "execution", "status"],
    "execution_since": ["since_at", "execution", "pipeline_id", "status"],
}
"""The indexes of open executions: of one pipeline, and of all. With the status, so that pages need no other row."""


def upgrade() -> None:
    """Bring a store of version 1.0.0 up to date."""
    op.add_column("execution", sa.Column("finished_at", sa.BigInteger))
    op.drop_index("execution_open", "execution")
    for name, columns in OPEN.items():
        is_open = sa.text("ended_at IS NULL")
        op.create_index(name, "execution", columns, sqlite_where=is_open, postgresql_where=is_open)
