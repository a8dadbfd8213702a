"""The tables, in shapes that serve SQLite and PostgreSQL alike. Knows no query and no rule.

Times are microseconds UTC on the steady clock; ids are 16 bytes. What is written often (execution, delivery) is narrow
and apart from what is wide (event). A new database is made from what stands here, an older one migrated to it.
"""

from functools import partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    UniqueConstraint,
    literal_column,
    text,
)
from sqlalchemy.schema import SchemaItem

FIRST_VERSION, SCHEMA_VERSION, OLDEST_READER = 11, 14, 14
"""The oldest schema that is brought up to date, the one that is written, the oldest program that can read that."""

metadata = MetaData()

AnyRow = Row[*tuple[Any, ...]]
"""A row of any columns."""


def _only_where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


_OFTEN_WRITTEN = {"autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_cost_delay": 0}
"""PostgreSQL clears old rows away once they are a hundredth of a table, not a fifth, and does it at once."""

_ROWID = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only for INTEGER


def _table(name: str, *parts: SchemaItem, **options: Any) -> Table:
    return Table(name, metadata, *parts, **options)


_table_by_key = partial(_table, sqlite_with_rowid=False)
"""Makes a table that lies in the order of its key in SQLite, too."""

meta = _table("meta", Column("key", String, primary_key=True), Column("value", String, nullable=False))

source = _table(
    "source",
    Column("id", _ROWID, primary_key=True),
    Column("kind", String, nullable=False),  # account, pipeline (named account/pipeline), sink, report
    Column("name", String, nullable=False),
    Column("sequence", BigInteger, nullable=False, server_default="0"),  # of its own events
    Column("state", String),  # an account's trouble, or a sink's failing or disabled
    Column("fingerprint", String),
    Column("clock_us", BigInteger, nullable=False, server_default="0"),
    Column("absent_since", BigInteger),
    Column("paused_until", BigInteger),
    Column("failing_for_s", Float),  # when it was written; the time the daemon is off does not count
    Column("rules", String),  # what the rules of a pipeline go by: JSON of domain/rules
    UniqueConstraint("kind", "name", name="source_kind_name"),
)

lease = _table(
    "lease",
    Column("kind", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("until", BigInteger),  # by PostgreSQL's clock; under the file lock of SQLite there are no rows
    # Of a replica, which shows by its lease that it is alive, its configuration's; of an account its API key's.
    Column("fingerprint", String),
)

execution = _table_by_key(
    "execution",
    Column("account_id", ForeignKey("source.id"), primary_key=True),
    Column("execution", LargeBinary, primary_key=True),
    Column("pipeline_id", ForeignKey("source.id"), nullable=False),
    Column("status", String),
    Column("since_at", BigInteger, nullable=False),
    Column("looked_at", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("counts", String, nullable=False),
    Column("overdue_sequence", BigInteger),
    Column("lost", String),
    Column("lost_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("was_paused", Boolean, nullable=False),
    Column("stream", LargeBinary),  # of its events; NULL once retention took them, or before the first
    Column("found_at", BigInteger, nullable=False, server_default="0"),
    Column("overdue_at", BigInteger),  # the wall clock of `overdue_sequence`
    Column("finished_at", BigInteger),  # when it ended by the API's date, else when that was seen
    Column("started_at", BigInteger),  # when it started by the API's date, else when it was first seen
    Index("execution_ended", "ended_at", **_only_where("ended_at IS NOT NULL")),
    Index("execution_finished", "finished_at", **_only_where("finished_at IS NOT NULL")),
    # Those that a strip shows: not what had ended before the watch began, and not what was lost.
    Index(
        "execution_strip",
        "pipeline_id",
        "finished_at",
        "ended_at",
        **_only_where("finished_at IS NOT NULL AND sequence > 0 AND lost IS NULL"),
    ),
    Index("execution_open", "pipeline_id", "since_at", "execution", "status", **_only_where("ended_at IS NULL")),
    Index("execution_started", "pipeline_id", "started_at", **_only_where("ended_at IS NULL")),
    Index("execution_since", "since_at", "execution", "pipeline_id", "status", **_only_where("ended_at IS NULL")),
    postgresql_with=_OFTEN_WRITTEN,
)

# How far the lists of a pipeline that is watched whole were read.
scan = _table(
    "scan",
    Column("account_id", ForeignKey("source.id"), primary_key=True),
    Column("pipeline_id", ForeignKey("source.id"), primary_key=True),
    Column("since_at", BigInteger, nullable=False),
    Column("complete_at", BigInteger, nullable=False),
    Column("refused", String),
    Column("found", Boolean, nullable=False),
    Column("name", String),  # what the API calls the pipeline
    Column("total", BigInteger),  # the rows of the list, by what it said when the last complete scan began
    Column("ahead_us", BigInteger),  # the API's clock, at the pipeline's first answer
    Column("known_from", BigInteger),  # since when the history of the pipeline is known
    # Version 1.0.0 wrote it, with times by the API's clock. It may still run on another replica: so the name stays.
    Column("dated", Boolean, nullable=False),
)

event = _table(
    "event",
    Column("id", _ROWID, primary_key=True),  # a cursor: never reused
    Column("event_id", LargeBinary, nullable=False),
    Column("stream", LargeBinary, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("type", String, nullable=False),
    Column("source_id", ForeignKey("source.id"), nullable=False),  # the account or sink it is of
    Column("pipeline_id", ForeignKey("source.id")),
    Column("execution", LargeBinary),
    Column("recorded_at", BigInteger, nullable=False),
    Column("account", String),  # with the next two: what silences match on
    Column("pipeline", String),
    Column("labels", String),  # JSON
    Column("problem_id", LargeBinary),  # which it opens, reminds of or closes
    Column("closes", Boolean, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("stream", "sequence", name="event_stream_sequence"),
    Index("event_without_execution", "recorded_at", **_only_where("execution IS NULL")),
    sqlite_autoincrement=True,
)

# `number` is that of its event, and the order in a lane.
delivery = _table_by_key(
    "delivery",
    Column("number", ForeignKey("event.id"), primary_key=True, autoincrement=False),
    Column("sink_id", ForeignKey("source.id"), primary_key=True),
    Column("lane", LargeBinary, nullable=False),  # of what waits in one only the first is sent
    Column("group_key", LargeBinary),  # what is alike goes together
    Column("state", String, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("rejections", Integer, nullable=False, server_default="0"),
    Column("first_due_us", BigInteger),  # on the sink's own clock
    Column("settled_at", BigInteger),
    Column("answer", String),
    Column("tried_at", BigInteger, nullable=False, server_default="0"),
    Column("tried", Boolean, nullable=False, server_default="0"),  # whether it was, or may have been
    Column("replayed", Boolean, nullable=False, server_default="0"),
    Column("only_closes", Boolean, nullable=False, server_default="0"),  # the sink gets it only as what ends a problem
    Index("delivery_due", "sink_id", "tried", "due_at", "recorded_at", **_only_where("state = 'waiting'")),
    Index("delivery_lane", "lane", "number", "sink_id", **_only_where("state = 'waiting'")),
    Index("delivery_group", "group_key", "number", **_only_where("state = 'waiting' AND group_key IS NOT NULL")),
    Index("delivery_dead", "sink_id", "settled_at", **_only_where("state = 'dead'")),
    postgresql_with=_OFTEN_WRITTEN,
)

# What is open, and what was until retention takes it. Times of day are the wall clock's.
problem = _table_by_key(
    "problem",
    Column("id", LargeBinary, primary_key=True),
    Column("kind", String, nullable=False),  # the type of the event that opened it
    Column("source_id", ForeignKey("source.id"), nullable=False),  # the account or sink it is of
    Column("pipeline_id", ForeignKey("source.id")),
    Column("execution", LargeBinary),
    Column("opened_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
    Column("failed_count", Integer, nullable=False, server_default="0"),  # ends that failed meanwhile
    Column("stream", LargeBinary, nullable=False),  # with the sequence: the event that opened it
    Column("sequence", BigInteger, nullable=False),
    Column("told_count", Integer, nullable=False, server_default="0"),  # events of its own, such as that it was taken
    Column("acked_at", BigInteger),  # somebody took it; with the next three
    Column("acked_until", BigInteger),  # no reminder until then; NULL: as long as it is open
    Column("acked_by", String),
    Column("acked_comment", String),
    Column("latest", String),  # the newest failure (`pipeline.failing` only): JSON of domain/problems
    Index("problem_opened", "opened_at"),
    Index("problem_open", "source_id", **_only_where("closed_at IS NULL")),
    Index("problem_pipeline", "pipeline_id", **_only_where("closed_at IS NULL AND execution IS NULL")),
    Index("problem_history", "pipeline_id", "opened_at", **_only_where("execution IS NULL")),
)

# Problems that one sink shows as one incident: all rows with the same `key`. Times are the steady clock's.
incident = _table_by_key(
    "incident",
    Column("problem_id", LargeBinary, primary_key=True),
    Column("sink_id", ForeignKey("source.id"), primary_key=True),
    Column("key", LargeBinary, nullable=False),
    Column("group_key", LargeBinary),  # NULL: an incident of its own, which nothing joins
    Column("nth", Integer, nullable=False),  # of its group at this sink
    Column("begun_at", BigInteger, nullable=False),  # when its first opening was taken to be sent
    Column("resolved", Boolean, nullable=False, server_default="0"),  # the receiver knows that all is over
    Index("incident_key", "sink_id", "key"),
    Index("incident_unresolved", "sink_id", **_only_where("NOT resolved")),
    Index("incident_group", "sink_id", "group_key", "nth"),
)

# When a sink was last reminded of a problem (steady clock).
reminder = _table_by_key(
    "reminder",
    Column("problem_id", ForeignKey("problem.id"), primary_key=True),
    Column("sink_id", ForeignKey("source.id"), primary_key=True),
    Column("reminded_at", BigInteger, nullable=False),
)

# Where a sink's message of a problem is, which is updated and answered. The problem is no foreign key: retention may
# delete it in the moment in which an attempt is written down.
problem_message = _table_by_key(
    "problem_message",
    Column("problem_id", LargeBinary, primary_key=True),
    Column("sink_id", ForeignKey("source.id"), primary_key=True),
    Column("channel", String, nullable=False),
    Column("number", String, nullable=False),
)

# Ends that the rules of their pipeline are yet to judge: they wait for a complete scan.
unjudged_end = _table_by_key(
    "unjudged_end",
    Column("pipeline_id", ForeignKey("source.id"), primary_key=True),
    Column("execution", LargeBinary, primary_key=True),
    Column("ended_at", BigInteger, nullable=False),  # by the API's date, else when it was seen
    Column("failed", Boolean, nullable=False),
)

# What happened in a pipeline, by the hour. `from_at` is when the hour begins (UTC).
pipeline_hour = _table_by_key(
    "pipeline_hour",
    Column("pipeline_id", ForeignKey("source.id"), primary_key=True),
    Column("from_at", BigInteger, primary_key=True),
    Column("started", Integer, nullable=False),  # of executions that have ended, whenever that was
    *(Column(status, Integer, nullable=False) for status in ("success", "failed", "unrecognized")),  # ends
    Column("tokens", BigInteger, nullable=False),
    Column("durations", String, nullable=False),  # how many successes took how long: JSON of domain/history
    Index("pipeline_hour_from", "from_at"),
    postgresql_with=_OFTEN_WRITTEN,
)

# The failed executions of a pipeline, by the day and the kind of their error. `from_at` is when the day begins (UTC).
error_kind = _table_by_key(
    "error_kind",
    Column("pipeline_id", ForeignKey("source.id"), primary_key=True),
    Column("from_at", BigInteger, primary_key=True),
    Column("fingerprint", LargeBinary, primary_key=True),
    Column("failed_count", Integer, nullable=False),
    Column("node", String),
    Column("text", String, nullable=False),  # of the newest, cut
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Index("error_kind_from", "from_at"),
    postgresql_with=_OFTEN_WRITTEN,
)

# Silences that people made while the daemon ran, beside those of the file. Times are the wall clock's.
silence = _table(
    "silence",
    Column("id", _ROWID, primary_key=True),
    Column("match", String, nullable=False),  # JSON
    Column("starts_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Column("by", String),
    Column("comment", String),
    sqlite_autoincrement=True,
)

# What only the owner of an account or a sink knows, from its memory: JSON of domain/snapshots.
snapshot = _table_by_key(
    "snapshot",
    Column("source_id", ForeignKey("source.id"), primary_key=True, autoincrement=False),
    Column("written_at", BigInteger, nullable=False),  # steady clock
    Column("body", LargeBinary, nullable=False),
    postgresql_with=_OFTEN_WRITTEN,
)

# What the owner of an account or a sink is asked to do, once however often it is asked; the row goes when it is done.
action = _table_by_key(
    "action",
    Column("kind", String, primary_key=True),  # scan (of a pipeline), enable (of a sink)
    Column("source_id", ForeignKey("source.id"), primary_key=True, autoincrement=False),
    Column("asked_at", BigInteger, nullable=False),
)

# When a report was last due (wall clock). One that is new to this table is sent from its next moment on.
report = _table_by_key(
    "report",
    Column("source_id", ForeignKey("source.id"), primary_key=True, autoincrement=False),
    Column("moment_at", BigInteger, nullable=False),
)

WAITING: ColumnElement[str] = literal_column("'waiting'")
DEAD: ColumnElement[str] = literal_column("'dead'")
"""Spelled out in each statement: a bound value would keep an index that holds only these from being used."""

OPENS = (
    "event.stream = problem.stream AND event.sequence >= problem.sequence AND event.problem_id = problem.id"
    " AND event.closes = false"
)
"""Condition that an event opened a problem, or told of it again under its id, as a 410 of a sink that fails."""
