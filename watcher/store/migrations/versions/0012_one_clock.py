"""Keep no time of the API's clock, and when executions ended as the API dates it."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Bring a store of version 1.0.0 up to date."""
    op.add_column("execution", sa.Column("finished_at", sa.BigInteger))
