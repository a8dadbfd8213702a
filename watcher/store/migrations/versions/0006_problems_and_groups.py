"""Problems, what rules go by, and groups of deliveries. What goes on now becomes a problem, under the id it would have.

The ids are made as `watcher.domain.event_ids.new_problem` makes them.
"""

import json
from typing import Any
from uuid import UUID, uuid5

import sqlalchemy as sa
from alembic import op

from watcher.store.tables import only_where

revision = "0006"
down_revision = "0005"

ROWID = sa.BigInteger().with_variant(sa.Integer, "sqlite")

NAMESPACE = UUID("5b9a7c1e-6f43-5d0b-9c57-0e1a4f5d2b86")

OVERDUE = """
SELECT e.account_id, a.name AS account, e.pipeline_id, p.name AS pipeline, e.execution, e.counts, e.stream,
       e.overdue_sequence AS sequence, COALESCE(v.recorded_at, e.looked_at) AS opened_at
FROM execution e JOIN source a ON a.id = e.account_id JOIN source p ON p.id = e.pipeline_id
LEFT JOIN event v ON v.stream = e.stream AND v.sequence = e.overdue_sequence
WHERE e.overdue_sequence IS NOT NULL AND e.ended_at IS NULL AND e.stream IS NOT NULL
"""

# The event that opened the trouble of an account or a sink: the first of the last unbroken run of its kinds.
TROUBLE = """
SELECT s.id AS source_id, s.kind, s.name, v.type, v.stream, v.sequence, v.recorded_at AS opened_at
FROM source s JOIN event v ON v.source_id = s.id AND v.execution IS NULL AND v.pipeline_id IS NULL
WHERE s.state IS NOT NULL AND s.kind IN ('account', 'sink')
  AND v.type IN ('account.degraded', 'sink.failing', 'sink.disabled')
  AND NOT EXISTS (SELECT 1 FROM event r WHERE r.stream = v.stream AND r.sequence > v.sequence
                  AND r.type IN ('account.recovered', 'sink.recovered'))
ORDER BY s.id, v.sequence
"""


def upgrade() -> None:
    """Make schema 6 of schema 5. A program of schema 1 can live with it, so `oldest_reader` stays."""
    op.add_column("source", sa.Column("rules", sa.String))
    op.add_column("execution", sa.Column("overdue_at", sa.BigInteger))
    _extend_delivery()
    _create_tables()
    op.execute(
        "UPDATE execution SET overdue_at = (SELECT recorded_at FROM event v WHERE v.stream = execution.stream"
        " AND v.sequence = execution.overdue_sequence) WHERE overdue_sequence IS NOT NULL"
    )
    connection = op.get_bind()
    problems = [*_overdue(connection), *_trouble(connection)]
    for row in problems:
        connection.execute(sa.text(_INSERT), row)
    op.execute("UPDATE meta SET value = '6' WHERE key = 'schema_version'")


def _create_tables() -> None:
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
    is_open = only_where("closed_at IS NULL")
    op.create_index("problem_open", "problem", ["source_id"], **is_open)
    op.create_index("problem_opening", "problem", ["stream", "sequence"], **is_open)
    op.create_table(
        "reminder",
        sa.Column("problem_id", sa.LargeBinary, sa.ForeignKey("problem.id"), primary_key=True),
        sa.Column("sink_id", ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("reminded_at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "unjudged_end",
        sa.Column("pipeline_id", ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("execution", sa.LargeBinary, primary_key=True),
        sa.Column("ended_at", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.Boolean, nullable=False),
        sqlite_with_rowid=False,
    )


def _extend_delivery() -> None:
    op.add_column("delivery", sa.Column("group_id", sa.LargeBinary))
    op.add_column("delivery", sa.Column("replayed", sa.Boolean, nullable=False, server_default="0"))
    is_grouped = only_where("state = 'waiting' AND group_id IS NOT NULL")
    op.create_index("delivery_group", "delivery", ["sink_id", "group_id"], **is_grouped)
    op.create_index("delivery_dead", "delivery", ["sink_id", "settled_at"], **only_where("state = 'dead'"))


_INSERT = """
INSERT INTO problem (id, kind, source_id, pipeline_id, execution, opened_at, stream, sequence)
VALUES (:id, :kind, :source_id, :pipeline_id, :execution, :opened_at, :stream, :sequence)
"""


def _overdue(connection: sa.Connection) -> list[dict[str, Any]]:
    return [
        {
            "id": _id(
                "execution.overdue",
                f"/accounts/{row.account}/pipelines/{row.pipeline.rpartition('/')[2]}#{UUID(bytes=row.execution)}",
                json.loads(row.counts).get("overdue", 1),
            ),
            "kind": "execution.overdue",
            "source_id": row.account_id,
            "pipeline_id": row.pipeline_id,
            "execution": row.execution,
            "opened_at": row.opened_at,
            "stream": row.stream,
            "sequence": row.sequence,
        }
        for row in connection.execute(sa.text(OVERDUE))
    ]


def _trouble(connection: sa.Connection) -> list[dict[str, Any]]:
    opening: dict[int, sa.Row[Any]] = {}
    for row in connection.execute(sa.text(TROUBLE)):
        opening.setdefault(row.source_id, row)
    return [
        {
            "id": _id(row.type, f"/{row.kind}s/{row.name}#", row.sequence),
            "kind": row.type,
            "source_id": row.source_id,
            "pipeline_id": None,
            "execution": None,
            "opened_at": row.opened_at,
            "stream": row.stream,
            "sequence": row.sequence,
        }
        for row in opening.values()
    ]


def _id(kind: str, about: str, nth: int) -> bytes:
    return uuid5(NAMESPACE, f"problem/{kind}{about}/{nth}").bytes
