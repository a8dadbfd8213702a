"""The tables of the store, the same for SQLite and PostgreSQL.

Times are microseconds UTC, on the steady clock if no comment names another clock. Ids are 16 bytes. Tables that are
written often (execution, delivery) have short rows; long texts are in other tables (event). A new database is created
from these tables, and an older database is migrated to them.
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

from watcher.domain.execution import END_LABELS

FIRST_VERSION, SCHEMA_VERSION, OLDEST_READER = 11, 19, 19
"""The oldest schema that can be migrated, the current one, and the oldest whose program can use the current one."""

metadata = MetaData()

AnyRow = Row[*tuple[Any, ...]]
"""A row of any columns."""


def _only_where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


_OFTEN_WRITTEN = {"autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_cost_delay": 0}
"""Makes PostgreSQL remove old versions of rows once they are 1 % of a table, not 20 %, and without pauses."""

_ROWID = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only for INTEGER


def _table(name: str, *parts: SchemaItem, **options: Any) -> Table:
    return Table(name, metadata, *parts, **options)


_table_by_key = partial(_table, sqlite_with_rowid=False)
"""Makes a table whose rows are stored in the order of the key in SQLite, too."""

meta = _table("meta", Column("key", String, primary_key=True), Column("value", String, nullable=False))

source = _table(
    "source",
    Column("id", _ROWID, primary_key=True),
    Column("kind", String, nullable=False),  # account, pipeline (named account/pipeline), sink, report
    Column("name", String, nullable=False),
    Column("sequence", BigInteger, nullable=False, server_default="0"),  # of the last of its own events
    Column("state", String),  # the trouble of an account; `failing` or `disabled` for a sink
    Column("fingerprint", String),
    Column("clock_us", BigInteger, nullable=False, server_default="0"),  # a sink's own clock: the time it was served
    Column("absent_since", BigInteger),  # since when a sink is not configured, or a pipeline not watched whole
    Column("paused_until", BigInteger),
    Column("failing_for_s", Float),  # seconds of running time without a success, at the last write
    Column("backoff_at", BigInteger),  # when the two columns before were written
    Column("rules", String),  # the states of a pipeline's rules: JSON of watcher/rules
    UniqueConstraint("kind", "name", name="source_kind_name"),
)

lease = _table(
    "lease",
    Column("kind", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("until", BigInteger),  # by PostgreSQL's clock; SQLite's file lock needs no rows
    # The fingerprint of a replica's configuration. The row of a replica shows that the replica is alive.
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
    Column("stream", LargeBinary),  # the key of the stream of its events; NULL without events
    Column("found_at", BigInteger, nullable=False, server_default="0"),
    Column("overdue_at", BigInteger),  # when `execution.overdue` was emitted (wall clock)
    Column("finished_at", BigInteger),  # the API's date, or when the end was seen
    Column("started_at", BigInteger),  # the API's date, or when it was first seen
    Index("execution_ended", "ended_at", **_only_where("ended_at IS NOT NULL")),
    Index("execution_finished", "finished_at", **_only_where("finished_at IS NOT NULL")),
    # The last ends that pages show: none from before the watch, and no lost execution.
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

# The cursor of each pipeline that is watched whole: how far its list was read.
scan = _table(
    "scan",
    Column("account_id", ForeignKey("source.id"), primary_key=True),
    Column("pipeline_id", ForeignKey("source.id"), primary_key=True),
    Column("since_at", BigInteger, nullable=False),
    Column("complete_at", BigInteger, nullable=False),
    Column("refused", String),
    Column("found", Boolean, nullable=False),
    Column("name", String),  # what the API calls the pipeline
    Column("total", BigInteger),  # the API's number of rows when the last complete scan began
    Column("ahead_us", BigInteger),  # the lead of the API's clock over ours, at the first answer
    Column("known_from", BigInteger),  # the start of the pipeline's known history
    # Set only by version 1.0.0, whose times are on the API's clock. Another replica may still run that version.
    Column("dated", Boolean, nullable=False),
)

event = _table(
    "event",
    Column("id", _ROWID, primary_key=True),  # never reused, because cursors hold it
    Column("event_id", LargeBinary, nullable=False),
    Column("stream", LargeBinary, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("type", String, nullable=False),
    Column("source_id", ForeignKey("source.id"), nullable=False),  # its account or sink
    Column("pipeline_id", ForeignKey("source.id")),
    Column("execution", LargeBinary),
    Column("recorded_at", BigInteger, nullable=False),
    Column("account", String),  # silences match on this and the next two
    Column("pipeline", String),
    Column("labels", String),  # JSON
    Column("problem_id", LargeBinary),  # the problem that the event is about
    Column("closes", Boolean, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("stream", "sequence", name="event_stream_sequence"),
    Index("event_without_execution", "recorded_at", **_only_where("execution IS NULL")),
    sqlite_autoincrement=True,
)

# `number` is the id of the event. Deliveries with the same ordering key are sent in the order of `number`.
delivery = _table_by_key(
    "delivery",
    Column("number", ForeignKey("event.id"), primary_key=True, autoincrement=False),
    Column("sink_id", ForeignKey("source.id"), primary_key=True),
    Column("ordering_key", LargeBinary, nullable=False),  # only its first pending delivery is sent
    Column("group_key", LargeBinary),  # deliveries with the same key are sent together
    Column("state", String, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("rejections", Integer, nullable=False, server_default="0"),
    Column("first_due_us", BigInteger),  # on the sink's own clock
    Column("settled_at", BigInteger),
    Column("answer", String),
    Column("tried_at", BigInteger, nullable=False, server_default="0"),
    Column("tried", Boolean, nullable=False, server_default="0"),  # whether the delivery was sent, or may have been
    Column("replayed", Boolean, nullable=False, server_default="0"),
    Column("only_closes", Boolean, nullable=False, server_default="0"),  # the sink gets only the closing of a problem
    Index("delivery_due", "sink_id", "tried", "due_at", "recorded_at", **_only_where("state = 'waiting'")),
    Index("delivery_ordering_key", "ordering_key", "number", "sink_id", **_only_where("state = 'waiting'")),
    Index("delivery_group", "group_key", "number", **_only_where("state = 'waiting' AND group_key IS NOT NULL")),
    Index("delivery_dead", "sink_id", "settled_at", **_only_where("state = 'dead'")),
    postgresql_with=_OFTEN_WRITTEN,
)

# Problems: open ones, and closed ones until retention deletes them. Times are the wall clock's.
problem = _table_by_key(
    "problem",
    Column("id", LargeBinary, primary_key=True),
    Column("kind", String, nullable=False),  # the type of the event that opened it
    Column("source_id", ForeignKey("source.id"), nullable=False),  # its account or sink
    Column("pipeline_id", ForeignKey("source.id")),
    Column("execution", LargeBinary),
    Column("opened_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
    Column("failed_count", Integer, nullable=False, server_default="0"),  # failed ends, those that opened it included
    Column("stream", LargeBinary, nullable=False),  # with `sequence`: the key of its opening
    Column("sequence", BigInteger, nullable=False),
    Column("event_count", Integer, nullable=False, server_default="0"),  # events in its own stream
    Column("acked_at", BigInteger),  # this and the next three: its acknowledgement
    Column("acked_until", BigInteger),  # the end of the acknowledgement; NULL: the end of the problem
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
    Column("group_key", LargeBinary),  # NULL: an incident of its own, which no other problem joins
    Column("nth", Integer, nullable=False),  # the nth incident of its group at this sink
    Column("begun_at", BigInteger, nullable=False),  # when its first opening was taken
    Column("resolved", Boolean, nullable=False, server_default="0"),  # the receiver accepted the end of the incident
    Column("at_trigger", Boolean, nullable=False, server_default="0"),  # the incident was triggered with this problem
    # The pipelines of the group, outside the incident, that had open problems when it was triggered.
    Column("outside_count", Integer, nullable=False, server_default="0"),
    Index("incident_key", "sink_id", "key"),
    Index("incident_unresolved", "sink_id", "group_key", "nth", **_only_where("NOT resolved")),
    Index("incident_group", "sink_id", "group_key", "nth"),
)

# The due time (steady clock) of the last reminder of a problem at a sink.
reminder = _table_by_key(
    "reminder",
    Column("problem_id", ForeignKey("problem.id"), primary_key=True),
    Column("sink_id", ForeignKey("source.id"), primary_key=True),
    Column("reminded_at", BigInteger, nullable=False),
)

# The place of the message that shows a problem at a sink. The sink updates the message and replies to it. `problem_id`
# is no foreign key: retention may delete the problem while the result of an attempt is being written.
problem_message = _table_by_key(
    "problem_message",
    Column("problem_id", LargeBinary, primary_key=True),
    Column("sink_id", ForeignKey("source.id"), primary_key=True),
    Column("channel", String, nullable=False),
    Column("number", String, nullable=False),
)

# Ends that the rules of their pipeline will judge after the next complete scan.
unjudged_end = _table_by_key(
    "unjudged_end",
    Column("pipeline_id", ForeignKey("source.id"), primary_key=True),
    Column("execution", LargeBinary, primary_key=True),
    Column("body", String, nullable=False),  # JSON of `EndedExecution` in domain/history
)


def _counts_by(period: str) -> Table:
    return _table_by_key(
        f"pipeline_{period}",
        Column("pipeline_id", ForeignKey("source.id"), primary_key=True),
        Column("from_at", BigInteger, primary_key=True),
        Column("started", Integer, nullable=False),  # executions that started in this period and have ended since
        *(Column(label, Integer, nullable=False) for label in END_LABELS),
        Column("tokens", BigInteger, nullable=False),
        Column("durations", String, nullable=False),  # number of successes by duration: JSON of domain/history
        Index(f"pipeline_{period}_from", "from_at"),
        postgresql_with=_OFTEN_WRITTEN,
    )


# The counts of a pipeline by the hour, and the same by the day. `from_at` is the start of the hour or the day (UTC).
pipeline_hour, pipeline_day = _counts_by("hour"), _counts_by("day")

# The failed executions of a pipeline by the day and the kind of error. `from_at` is the start of the day (UTC).
error_kind = _table_by_key(
    "error_kind",
    Column("pipeline_id", ForeignKey("source.id"), primary_key=True),
    Column("from_at", BigInteger, primary_key=True),
    Column("fingerprint", LargeBinary, primary_key=True),
    Column("failed_count", Integer, nullable=False),
    Column("node", String),
    Column("text", String, nullable=False),  # of the newest error, cut
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Index("error_kind_from", "from_at"),
    postgresql_with=_OFTEN_WRITTEN,
)

# Silences that people add while the daemon runs; others are in the file. Times are the wall clock's.
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

# The last state of an account or a sink, written from its owner's memory: JSON of domain/snapshots.
snapshot = _table_by_key(
    "snapshot",
    Column("source_id", ForeignKey("source.id"), primary_key=True, autoincrement=False),
    Column("written_at", BigInteger, nullable=False),  # steady clock
    Column("body", LargeBinary, nullable=False),
    postgresql_with=_OFTEN_WRITTEN,
)

# Actions that people ask owners to do. The same action is in the table only once, and is deleted when it is done.
action = _table_by_key(
    "action",
    Column("kind", String, primary_key=True),  # scan (of a pipeline), enable (of a sink)
    Column("source_id", ForeignKey("source.id"), primary_key=True, autoincrement=False),
    Column("asked_at", BigInteger, nullable=False),
)

# The time at which a report was last due (wall clock). A report without a row is new.
report = _table_by_key(
    "report",
    Column("source_id", ForeignKey("source.id"), primary_key=True, autoincrement=False),
    Column("moment_at", BigInteger, nullable=False),
)

WAITING: ColumnElement[str] = literal_column("'waiting'")
DEAD: ColumnElement[str] = literal_column("'dead'")
"""These states are literals in each statement: with bound values a database could not use the partial indexes."""

OPENS = (
    "event.stream = problem.stream AND event.sequence >= problem.sequence AND event.problem_id = problem.id"
    " AND event.closes = false"
)
"""The condition that an event is an opening of a problem.

The problem of a sink has two openings, `sink.failing` and `sink.disabled`, if the failing sink answers 410.
"""
