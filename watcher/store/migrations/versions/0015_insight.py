"""Changes no table. From here on the store may have `pipeline.slow` and other words that older programs do not know."""

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Do nothing: only the version of the schema is new."""
