"""Which statements the program sends to PostgreSQL, and what plan a full database has for each.

`DEAREST` is what a plan may cost: beyond that a server that has LLVM compiles it, which takes longer than to carry it
out. A step that the transaction has turned off costs 10,000,000,000, or is marked as disabled from PostgreSQL 18 on.
"""

import re
from pathlib import Path
from typing import Any, Self

import psycopg
from postgres import TEMPLATE, PostgresServer, postgres_server
from sqlalchemy import Engine, event

DEAREST = 100_000

FULL = "all_full"
"""The database with much in each table, of every server that begins with the files of `make_files`."""

_OF_ALL_THAT_WAITS = ("SET first_due_us = ", "AND first_due_us <=", "ORDER BY delivery.tried_at")
"""These look up the ordering key of each of 50,000 that wait for a sink: its upkeep, and the trial after it failed."""

_LIST = re.compile(r"IN \([^()]*\)")
_COST = re.compile(r"cost=\S+\.\.(\S+)")
_PLANNED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")

UNCHECKED = "SET session_replication_role = replica"
"""Rows are written in a third of the time if no foreign key is checked."""

_BYTES = "decode(md5(n::text), 'hex')"
_FILL = f"""
INSERT INTO source (id, kind, name) OVERRIDING SYSTEM VALUE
    SELECT n, CASE WHEN n = 1 THEN 'account' WHEN n < 10 THEN 'sink' ELSE 'pipeline' END, 'default/' || n
    FROM generate_series(1, 1000) AS n;
INSERT INTO snapshot (source_id, written_at, body) SELECT n, n, {_BYTES} FROM generate_series(1, 1000) AS n;
INSERT INTO lease (kind, name, owner, epoch, until) SELECT 'account', n, n, n, n FROM generate_series(1, 1000) AS n;
INSERT INTO scan (account_id, pipeline_id, since_at, complete_at, found, dated)
    SELECT 1, n, n, n, true, true FROM generate_series(10, 1000) AS n;
INSERT INTO execution (account_id, execution, pipeline_id, status, since_at, looked_at, sequence, counts, ended_at,
        was_paused, stream)
    SELECT 1, {_BYTES}, 10 + n % 990, 'running', n, n, 2, '{{}}', CASE WHEN n % 5 > 0 THEN n END, false, {_BYTES}
    FROM generate_series(1, 100000) AS n;
INSERT INTO event (id, event_id, stream, sequence, type, source_id, pipeline_id, execution, recorded_at, closes, body)
    OVERRIDING SYSTEM VALUE
    SELECT n, {_BYTES}, {_BYTES}, 1, 'execution.new', 1, 10 + n % 990, CASE WHEN n % 100 > 0 THEN {_BYTES} END, n,
        false, {_BYTES}
    FROM generate_series(1, 200000) AS n;
INSERT INTO delivery (number, sink_id, ordering_key, group_key, state, recorded_at, due_at, tried, settled_at)
    SELECT n, sink, {_BYTES}, decode(md5((n % 100)::text), 'hex'),
        CASE WHEN n % 2 = 0 THEN 'waiting' WHEN n % 20 = 1 THEN 'dead' ELSE 'delivered' END, n, n, n % 4 = 0, n
    FROM generate_series(1, 100000) AS n, generate_series(1, 4) AS sink;
INSERT INTO problem (id, kind, source_id, pipeline_id, opened_at, closed_at, stream, sequence)
    SELECT {_BYTES}, 'execution.overdue', 1, 10 + n % 990, n, CASE WHEN n % 5 > 0 THEN n END, {_BYTES}, 1
    FROM generate_series(1, 20000) AS n;
INSERT INTO problem_message (problem_id, sink_id, channel, number)
    SELECT {_BYTES}, 2, n, n FROM generate_series(1, 20000) AS n;
INSERT INTO reminder (problem_id, sink_id, reminded_at) SELECT {_BYTES}, 2, n FROM generate_series(1, 20000) AS n;
INSERT INTO unjudged_end (pipeline_id, execution, body)
    SELECT 10 + n % 990, {_BYTES}, n FROM generate_series(1, 20000) AS n;
INSERT INTO pipeline_hour (pipeline_id, from_at, started, success, failed, unrecognized, tokens, durations)
    SELECT id, n, 1, 1, 1, 1, 1, '{{}}' FROM generate_series(10, 110) AS id, generate_series(1, 720) AS n;
INSERT INTO pipeline_day SELECT * FROM pipeline_hour;
INSERT INTO error_kind (pipeline_id, from_at, fingerprint, failed_count, text, first_at, last_at)
    SELECT id, n, {_BYTES}, 1, n, n, n FROM generate_series(10, 110) AS id, generate_series(1, 200) AS n;
INSERT INTO report (source_id, moment_at) SELECT n, n FROM generate_series(10, 100) AS n;
INSERT INTO silence (match, starts_at, ends_at) SELECT '{{}}', n, n FROM generate_series(1, 1000) AS n;
INSERT INTO action (kind, source_id, asked_at) SELECT 'scan', n, n FROM generate_series(10, 100) AS n;
ANALYZE
"""


class PlanCheck:
    """Notes each statement that this process sends to PostgreSQL, once, with the values it has first."""

    def __init__(self, server: PostgresServer) -> None:
        self._url = server.url(FULL)
        self._seen: set[str] = set()
        self._new: list[tuple[str, str, Any]] = []

    def __enter__(self) -> Self:
        """Hear the statements of all engines from now on."""
        event.listen(Engine, "before_cursor_execute", self._note)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(Engine, "before_cursor_execute", self._note)

    def costly(self) -> list[str]:
        """Return each statement that is new since it was asked last, and costs too much, with its plan."""
        new, self._new = self._new, []
        if not new:
            return []
        with psycopg.connect(self._url, autocommit=True) as connection:
            plans = [
                (statement, _costly_plan(connection, begin, statement, values)) for begin, statement, values in new
            ]
        return [f"{statement}\n{plan}" for statement, plan in plans if plan]

    def _note(self, connection: Any, _cursor: Any, text: str, values: Any, _context: Any, is_many: bool) -> None:
        if connection.dialect.name != "postgresql":
            return
        if text.startswith("BEGIN"):
            connection.info["begin"], _, text = text.rpartition("; ")  # the row of the process is written with it
        statement, shape = text.strip(), _LIST.sub("IN ()", text)
        if statement.startswith(_PLANNED) and shape not in self._seen:
            self._seen.add(shape)
            if not any(each in statement for each in _OF_ALL_THAT_WAITS):
                self._new.append((connection.info.get("begin", "BEGIN"), statement, values[0] if is_many else values))


def _costly_plan(connection: psycopg.Connection[Any], begin: str, statement: str, values: Any) -> str:
    connection.execute(begin.encode())
    try:
        steps = [row[0] for row in connection.execute(f"EXPLAIN {statement}".encode(), values or None)]
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):  # of a database that a test makes otherwise
        return ""
    finally:
        connection.execute("ROLLBACK")
    (cost,) = _COST.findall(steps[0])
    is_costly = float(cost) > DEAREST or any("Disabled: true" in step for step in steps)
    return "\n".join(steps) if is_costly else ""


def make_files(files: Path) -> None:
    """Make the files of a server with a full database, for many servers to begin with."""
    with postgres_server(max_wal_size="64MB") as server:
        server.run(f"CREATE DATABASE {FULL} TEMPLATE {TEMPLATE} STRATEGY file_copy")
        with psycopg.connect(server.url(FULL)) as connection:
            connection.execute(UNCHECKED)
            connection.execute(_FILL.encode())
        server.keep(files)
