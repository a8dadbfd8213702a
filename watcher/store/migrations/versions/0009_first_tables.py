"""The tables of the first release. Numbers up to 8 were used before it."""

import sqlalchemy as sa
from alembic import op

from watcher.store.tables import only_where

revision = "0009"
down_revision = None

OFTEN_WRITTEN = {"autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_cost_delay": 0}
ROWID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make every table."""
    _make_meta()
    _make_sources()
    _make_executions()
    _make_outbox()
    _make_problems()


def _make_meta() -> None:
    meta = op.create_table(
        "meta",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
    )
    values = {"schema_version": "9", "oldest_reader": "9"}
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
        sa.Column("paused_until", sa.BigInteger),
        sa.Column("failing_for_s", sa.Float),
        sa.Column("rules", sa.String),
        sa.UniqueConstraint("kind", "name", name="source_kind_name"),
    )
    op.create_table(
        "lease",
        sa.Column("kind", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger),
        sa.Column("fingerprint", sa.String),
    )
    op.create_table(
        "scan",
        sa.Column("account_id", ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("pipeline_id", ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("since_at", sa.BigInteger, nullable=False),
        sa.Column("complete_at", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.String),
        sa.Column("found", sa.Boolean, nullable=False),
        sa.Column("name", sa.String),
        sa.Column("newest_at", sa.BigInteger),
    )


def _make_executions() -> None:
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
        sa.Column("found_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("overdue_at", sa.BigInteger),
        sqlite_with_rowid=False,
        postgresql_with=OFTEN_WRITTEN,
    )
    op.create_index("execution_ended", "execution", ["ended_at"], **only_where("ended_at IS NOT NULL"))
    op.create_index("execution_open", "execution", ["pipeline_id", "execution"], **only_where("ended_at IS NULL"))
    op.create_table(
        "unjudged_end",
        sa.Column("pipeline_id", ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("execution", sa.LargeBinary, primary_key=True),
        sa.Column("ended_at", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.Boolean, nullable=False),
        sqlite_with_rowid=False,
    )


def _make_outbox() -> None:
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
        sa.Column("first_due_us", sa.BigInteger),
        sa.Column("settled_at", sa.BigInteger),
        sa.Column("answer", sa.String),
        sa.Column("steps", sa.Integer, nullable=False, server_default="0"),
        sa.Column("tried_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("tried", sa.Boolean, nullable=False, server_default="0"),
        sa.Column("group_id", sa.LargeBinary),
        sa.Column("replayed", sa.Boolean, nullable=False, server_default="0"),
        sa.ForeignKeyConstraint(["stream", "sequence"], ["event.stream", "event.sequence"], name="delivery_event"),
        sqlite_with_rowid=False,
        postgresql_with=OFTEN_WRITTEN,
    )
    due, grouped = ["sink_id", "tried", "due_at", "recorded_at"], "state = 'waiting' AND group_id IS NOT NULL"
    op.create_index("delivery_due", "delivery", due, **only_where("state = 'waiting'"))
    op.create_index("delivery_group", "delivery", ["sink_id", "group_id"], **only_where(grouped))
    op.create_index("delivery_dead", "delivery", ["sink_id", "settled_at"], **only_where("state = 'dead'"))


def _make_problems() -> None:
    op.create_table(
        "problem",
        sa.Column("id", sa.LargeBinary, primary_key=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("source_id", ROWID, sa.ForeignKey("source.id"), nullable=False),
        sa.Column("pipeline_id", ROWID, sa.ForeignKey("source.id")),
        sa.Column("execution", sa.LargeBinary),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("closed_at", sa.BigInteger),
        sa.Column("failed_count", sa.Integer, nullable=False, server_default="0"),
        sa.Column("stream", sa.LargeBinary, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    is_open, of_pipelines = "closed_at IS NULL", "closed_at IS NULL AND execution IS NULL"
    op.create_index("problem_open", "problem", ["source_id"], **only_where(is_open))
    op.create_index("problem_opening", "problem", ["stream", "sequence"], **only_where(is_open))
    op.create_index("problem_pipeline", "problem", ["pipeline_id"], **only_where(of_pipelines))
    op.create_table(
        "reminder",
        sa.Column("problem_id", sa.LargeBinary, sa.ForeignKey("problem.id"), primary_key=True),
        sa.Column("sink_id", ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("reminded_at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "problem_message",
        sa.Column("problem_id", sa.LargeBinary, primary_key=True),
        sa.Column("sink_id", ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("number", sa.String, nullable=False),
        sqlite_with_rowid=False,
    )
