"""The tables of the first release. This revision creates nothing: a new database gets its tables from `tables`.

Each later change of the tables has a revision of its own. Numbers up to 10 were used before the first release.
"""

revision = "0011"
down_revision = None


def upgrade() -> None:
    """Do nothing: there is no older store to bring up to date."""
