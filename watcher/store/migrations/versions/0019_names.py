"""Renames two columns and an index to the terms of the code: ordering key, and number of events."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Rename them. Values stay."""
    op.execute("ALTER TABLE problem RENAME COLUMN told_count TO event_count")
    op.drop_index("delivery_lane", "delivery")
    op.execute("ALTER TABLE delivery RENAME COLUMN lane TO ordering_key")
    where = sa.text("state = 'waiting'")
    columns = ["ordering_key", "number", "sink_id"]
    op.create_index("delivery_ordering_key", "delivery", columns, sqlite_where=where, postgresql_where=where)
