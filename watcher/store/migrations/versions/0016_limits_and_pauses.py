"""Adds to incidents what limits the problems that join them, and to accounts and sinks when their pause was written."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the columns. An incident that an older program began accepts no further problems."""
    op.add_column("incident", sa.Column("at_trigger", sa.Boolean, nullable=False, server_default="0"))
    op.add_column("incident", sa.Column("outside_count", sa.Integer, nullable=False, server_default="0"))
    op.drop_index("incident_unresolved")
    where, columns = sa.text("NOT resolved"), ["sink_id", "group_key", "nth"]
    op.create_index("incident_unresolved", "incident", columns, sqlite_where=where, postgresql_where=where)
    op.add_column("source", sa.Column("backoff_at", sa.BigInteger))
