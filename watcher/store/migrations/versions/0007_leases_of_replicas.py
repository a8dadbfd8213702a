"""What a replica's configuration stands for, beside the lease that says it is alive."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make schema 7 of schema 6. A program of schema 1 can live with it, so `oldest_reader` stays."""
    op.add_column("lease", sa.Column("fingerprint", sa.String))
    op.execute("UPDATE meta SET value = '7' WHERE key = 'schema_version'")
