"""The tables of the first release. In a new database `tables` creates them, and this revision is only noted.

Each later change has a revision of its own, based on this one. Numbers up to 10 were used before the first release.
"""

revision = "0011"
down_revision = None


def upgrade() -> None:
    """Do nothing: there is no older store to bring up to date."""
