"""Gives each rule of a pipeline a state of its own, and each end that is to be judged all that rules read of it."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

from watcher.domain.history import MAX_TOKENS, error_kind_of
from watcher.store.sources import execution_id, execution_key

revision = "0018"
down_revision = "0017"

_ROWID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_LAST_EVENT = sa.text(
    "SELECT event.body FROM execution JOIN event ON event.stream = execution.stream"
    " AND event.sequence = execution.sequence WHERE execution.execution = :execution"
    " AND execution.account_id IN (SELECT id FROM source WHERE kind = 'account')"  # so that it takes the primary key
)
_UNJUDGED = sa.text("SELECT pipeline_id, execution, ended_at, failed FROM unjudged_end")


def upgrade() -> None:
    """Convert the states and the ends. What an event has lost by retention is unknown."""
    connection = op.get_bind()
    for row in connection.execute(sa.text("SELECT id, rules FROM source WHERE rules IS NOT NULL")).all():
        converted = {"number": row.id, "rules": json.dumps(_states_of(connection, json.loads(row.rules)))}
        connection.execute(sa.text("UPDATE source SET rules = :rules WHERE id = :number"), converted)
    ends = [
        {"pipeline_id": each.pipeline_id, "execution": each.execution, "body": json.dumps(_end_of(connection, each))}
        for each in connection.execute(_UNJUDGED).all()
    ]
    op.drop_table("unjudged_end")
    unjudged_end = op.create_table(
        "unjudged_end",
        sa.Column("pipeline_id", _ROWID, sa.ForeignKey("source.id"), primary_key=True),
        sa.Column("execution", sa.LargeBinary, primary_key=True),
        sa.Column("body", sa.String, nullable=False),
        sqlite_with_rowid=False,
    )
    op.bulk_insert(unjudged_end, ends)


def _states_of(connection: sa.Connection, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the states by rule. Version 1.0.0 wrote `newest_at`, and all times on the API's clock."""
    latest = None
    if failed := before.get("failed"):
        said, node = _block(connection, execution_key(failed))
        name, error = node.get("name") or node.get("id"), node.get("error") or said.get("error")
        latest = [before["failed_at"], failed, name, error]
    failing = {name: before[name] for name in ("ends", "opened_at", "tallies") if before.get(name)}
    states: dict[str, Any] = {
        "failing": failing | ({"latest": latest} if latest else {}),
        "silent": {"started_at": before["started_at"]} if before.get("started_at") else {},
    }
    return {key: state for key, state in states.items() if state} | (
        {"in_api_time": True} if "newest_at" in before else {}
    )


def _end_of(connection: sa.Connection, row: Any) -> list[Any]:
    said, node = _block(connection, row.execution)
    status, error = said.get("status") or ("failed" if row.failed else "success"), None
    if status == "failed":
        kind = error_kind_of(node.get("name") or node.get("id"), node.get("error") or said.get("error") or "")
        error = [urlsafe_b64encode(kind.fingerprint).decode(), kind.node, kind.text]
    names = {name: node.get(name) for name in ("id", "name", "error")}
    tokens = min(MAX_TOKENS, max(0, round(said.get("aiTokensUsed") or 0)))  # any number: an event has what the API said
    of_it = (said.get("durationSeconds"), error, execution_id(row.execution), said.get("nodesStarted"))
    return [row.ended_at, row.ended_at, status, tokens, *of_it, names, said.get("error")]


def _block(connection: sa.Connection, execution: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the last event of an execution says of it, and of the node that failed first."""
    body = connection.scalar(_LAST_EVENT, {"execution": execution})
    said = {} if body is None else json.loads(body)["data"].get("execution", {})
    return said, next(iter(said.get("failedNodes", ())), {})
