"""What separates a delivery's own trouble from its sink's: the steps it took, and when it was tried."""

import sqlalchemy as sa
from alembic import op

from watcher.store.tables import only_where

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make schema 5 of schema 4. A program of schema 1 can live with it, so `oldest_reader` stays."""
    op.add_column("delivery", sa.Column("steps", sa.Integer, nullable=False, server_default="0"))
    op.add_column("delivery", sa.Column("tried_at", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("delivery", sa.Column("tried", sa.Boolean, nullable=False, server_default="0"))
    op.execute("UPDATE delivery SET tried = true WHERE state = 'waiting' AND attempts > 0")
    op.drop_index("delivery_due", "delivery")
    columns = ["sink_id", "tried", "due_at", "recorded_at"]
    op.create_index("delivery_due", "delivery", columns, **only_where("state = 'waiting'"))
    op.execute("UPDATE meta SET value = '5' WHERE key = 'schema_version'")
