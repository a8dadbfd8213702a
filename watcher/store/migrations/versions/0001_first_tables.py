"""The first tables."""

import secrets

import sqlalchemy as sa
from alembic import op

from watcher.store.tables import only_where

revision = "0001"
down_revision = None

OFTEN_WRITTEN = {"autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_cost_delay": 0}
ROWID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make every table of schema 1."""
    _make_meta()
    _make_sources()
    _make_execution()
    _make_event()
    _make_delivery()


def _make_meta() -> None:
    meta = op.create_table(
        "meta",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
    )
    values = {"schema_version": "1", "oldest_reader": "1", "salt": secrets.token_hex(16)}
    op.bulk_insert(meta, [{"key": key, "value": value} for key, value in values.items()])


def _make_sources() -> None:
    op.create_table(
        "source",
        sa.Column("id", ROWID, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("state", sa.String),
        sa.Column("fingerprint", sa.String),
        sa.Column("clock_us", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("absent_since", sa.BigInteger),
        sa.UniqueConstraint("kind", "name", name="source_kind_name"),
    )
    op.create_table(
        "lease",
        sa.Column("kind", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger),
    )


def _make_execution() -> None:
    op.create_table(
        "execution",
        sa.Column("account_id", ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("execution", sa.LargeBinary, primary_key=True),
        sa.Column("pipeline_id", ROWID, sa.ForeignKey("source.id"), nullable=False),
        sa.Column("status", sa.String),
        sa.Column("since_at", sa.BigInteger, nullable=False),
        sa.Column("looked_at", sa.BigInteger, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("counts", sa.String, nullable=False),
        sa.Column("overdue_sequence", sa.BigInteger),
        sa.Column("lost", sa.String),
        sa.Column("lost_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("was_paused", sa.Boolean, nullable=False),
        sa.Column("stream", sa.LargeBinary),
        sqlite_with_rowid=False,
        postgresql_with=OFTEN_WRITTEN,
    )
    op.create_index("execution_ended", "execution", ["ended_at"], **only_where("ended_at IS NOT NULL"))


def _make_event() -> None:
    op.create_table(
        "event",
        sa.Column("id", ROWID, primary_key=True),
        sa.Column("event_id", sa.LargeBinary, nullable=False),
        sa.Column("stream", sa.LargeBinary, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("source_id", ROWID, sa.ForeignKey("source.id"), nullable=False),
        sa.Column("pipeline_id", ROWID, sa.ForeignKey("source.id")),
        sa.Column("execution", sa.LargeBinary),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("stream", "sequence", name="event_stream_sequence"),
        sqlite_autoincrement=True,
    )
    op.create_index("event_without_execution", "event", ["recorded_at"], **only_where("execution IS NULL"))


def _make_delivery() -> None:
    op.create_table(
        "delivery",
        sa.Column("stream", sa.LargeBinary, primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("sink_id", ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("rejections", sa.Integer, nullable=False, server_default="0"),
        sa.Column("first_tried_us", sa.BigInteger),
        sa.Column("settled_at", sa.BigInteger),
        sa.Column("answer", sa.String),
        sa.ForeignKeyConstraint(["stream", "sequence"], ["event.stream", "event.sequence"], name="delivery_event"),
        sqlite_with_rowid=False,
        postgresql_with=OFTEN_WRITTEN,
    )
    columns = ["sink_id", "due_at", "recorded_at"]
    op.create_index("delivery_due", "delivery", columns, **only_where("state = 'waiting'"))
