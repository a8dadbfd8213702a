"""The tables of the first release, which `tables` makes in a new database: there this revision is only noted.

A later change has a revision of its own, which builds on this one. Numbers up to 10 were used before the first release.
"""

revision = "0011"
down_revision = None


def upgrade() -> None:
    """Do nothing: there is no older store to bring up to date."""
