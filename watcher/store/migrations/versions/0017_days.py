"""Adds the counts of each pipeline by the day, so that a report on weeks does not read every hour."""

import json
from collections import Counter, defaultdict

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

_ROWID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_DAY_US = 86_400_000_000
_COUNTS = ("started", "success", "failed", "unrecognized", "tokens")


def upgrade() -> None:
    """Add the table, with the days of all hours."""
    days = op.create_table(
        "pipeline_day",
        sa.Column("pipeline_id", _ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("from_at", sa.BigInteger, primary_key=True),
        *(sa.Column(name, sa.Integer, nullable=False) for name in _COUNTS[:-1]),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("durations", sa.String, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("pipeline_day_from", "pipeline_day", ["from_at"])
    connection = op.get_bind()
    hours = sa.text("SELECT * FROM pipeline_hour WHERE pipeline_id = :number")
    for number in connection.scalars(sa.text("SELECT DISTINCT pipeline_id FROM pipeline_hour")).all():
        counts, durations = defaultdict[int, Counter[str]](Counter), defaultdict[int, Counter[str]](Counter)
        for row in connection.execute(hours, {"number": number}):
            from_at = row.from_at - row.from_at % _DAY_US
            counts[from_at].update({name: getattr(row, name) for name in _COUNTS})
            durations[from_at].update(json.loads(row.durations))
        found = {at: json.dumps(each, separators=(",", ":")) for at, each in durations.items()}
        rows = [{"pipeline_id": number, "from_at": at, **counts[at], "durations": each} for at, each in found.items()]
        op.bulk_insert(days, rows)
