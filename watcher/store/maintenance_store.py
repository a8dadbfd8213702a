"""The store as its upkeep uses it: what goes in the end, and when, and what is closed that nobody watches any more.

What goes: ended executions with their events, old events of sources, deliveries of sinks that are gone.

Each function writes one short page of it in the transaction of its caller. Those that prune return how many executions'
events went, and where the next page begins (`None` after the last).
"""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import BindParameter, Connection, bindparam, delete, or_, select, tuple_, update

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import OutboxEntry
from watcher.domain.problems import ProblemChange
from watcher.domain.timestamps import Micros
from watcher.store.changes import Lease
from watcher.store.problems import close_problems
from watcher.store.sql_store import SqlStore
from watcher.store.states import execution_id, forget_rules, mark_absent_pipelines, pipeline_id
from watcher.store.tables import WAITING, AnyRow, delivery, event, execution, problem, problem_message, reminder, source

EXECUTIONS_COUNT = 250
"""Executions of one page: with about four events each and two deliveries of each, some thousand rows."""

ROWS_COUNT = 1_000
"""Events or deliveries of one page."""

SINK_REMOVED = "sink_removed"
"""The answer in deliveries that died because their sink is gone from the configuration."""


T = TypeVar("T")

Keep = Callable[[str, str, str, Micros], bool]
"""Says of an account, a pipeline, an execution and when it ended (microseconds) whether its id must stay behind."""

Position = tuple[Any, ...]
Pruned = tuple[int, Position | None]

FIRST: Position = (-1, -1, b"")
"""Where the first page begins: before every moment."""

_account = source.alias("account")
_pipeline = source.alias("pipeline")
_position = tuple_(execution.c.ended_at, execution.c.account_id, execution.c.execution)
_ENDED = (
    select(
        execution.c.ended_at,
        execution.c.account_id,
        execution.c.execution,
        execution.c.stream,
        _account.c.name.label("account"),
        _pipeline.c.name.label("pipeline"),
    )
    .join(_account, _account.c.id == execution.c.account_id)
    .join(_pipeline, _pipeline.c.id == execution.c.pipeline_id)
    .where(
        execution.c.ended_at < bindparam("before"),
        _position > tuple_(bindparam("ended_at"), bindparam("account_id"), bindparam("after")),
    )
    .order_by(execution.c.ended_at, execution.c.account_id, execution.c.execution)
    .limit(EXECUTIONS_COUNT)
)


# What opened a problem stays while that is open, and says where its closing goes.
_OPENS_NOTHING = (
    ~select(problem.c.id)
    .where(problem.c.stream == event.c.stream, problem.c.sequence == event.c.sequence, problem.c.closed_at.is_(None))
    .exists()
)
# A dead letter can be replayed, so it stays as long again, from its death.
_PAST_USE = (
    delivery.c.state != WAITING,
    or_(delivery.c.state != DeliveryState.DEAD, delivery.c.settled_at < bindparam("before")),
)
_WITHOUT_DELIVERY = ~select(delivery.c.sink_id).where(delivery.c.number == event.c.id).exists()
_OF_STREAM: BindParameter[Any] = bindparam("of_stream")
_DELETE_STREAM_DELIVERIES = delete(delivery).where(
    delivery.c.number.in_(select(event.c.id).where(event.c.stream == _OF_STREAM, _OPENS_NOTHING)), *_PAST_USE
)
_DELETE_STREAM_EVENTS = delete(event).where(event.c.stream == _OF_STREAM, _WITHOUT_DELIVERY, _OPENS_NOTHING)
_OF_EXECUTION = (
    execution.c.account_id == bindparam("of_account"),
    execution.c.execution == bindparam("of_execution"),
)
_NOTE_EMPTY = (
    update(execution)
    .where(*_OF_EXECUTION, ~select(event.c.id).where(event.c.stream == execution.c.stream).exists())
    .values(stream=None)
)
_DELETE_EMPTY = delete(execution).where(*_OF_EXECUTION, execution.c.stream.is_(None))


def prune_executions(connection: Connection, *, before: int, after: Position, keep: Keep) -> Pruned:
    """Delete what may go of a page of executions that ended before that moment; count those whose events all went.

    A row whose events are not all gone stays: another first sight of it would emit sequence 1 again.
    """
    ended_at, account_id, key = after
    parameters = {"before": before, "ended_at": ended_at, "account_id": account_id, "after": key}
    rows = connection.execute(_ENDED, parameters).all()
    gone_count = _empty([row for row in rows if row.stream is not None], connection=connection, before=before)
    forgotten = [row for row in rows if not _is_kept(row, keep=keep)]
    if forgotten:
        connection.execute(_DELETE_EMPTY, _keys(forgotten))
    last = rows[-1] if len(rows) == EXECUTIONS_COUNT else None
    return gone_count, last and (last.ended_at, last.account_id, last.execution)


def _is_kept(row: AnyRow, *, keep: Keep) -> bool:
    return keep(row.account, pipeline_id(row.pipeline), execution_id(row.execution), row.ended_at)


def _empty(rows: Sequence[AnyRow], *, connection: Connection, before: int) -> int:
    if not rows:
        return 0
    streams = [{"of_stream": stream, "before": before} for stream in sorted(row.stream for row in rows)]
    connection.execute(_DELETE_STREAM_DELIVERIES, streams)
    connection.execute(_DELETE_STREAM_EVENTS, streams)
    return connection.execute(_NOTE_EMPTY, _keys(rows)).rowcount


def _keys(rows: Sequence[AnyRow]) -> list[dict[str, Any]]:
    keys = sorted((row.account_id, row.execution) for row in rows)
    return [{"of_account": account_id, "of_execution": key} for account_id, key in keys]


_OLD_EVENTS = (
    select(event.c.id, event.c.recorded_at)
    .where(
        event.c.execution.is_(None),
        event.c.recorded_at < bindparam("before"),
        tuple_(event.c.recorded_at, event.c.id) > tuple_(bindparam("recorded_at"), bindparam("after")),
    )
    .order_by(event.c.recorded_at, event.c.id)
    .limit(ROWS_COUNT)
)
_DELETE_EVENT_DELIVERIES = delete(delivery).where(
    delivery.c.number.in_(select(event.c.id).where(event.c.id == bindparam("of_event"), _OPENS_NOTHING)), *_PAST_USE
)
_DELETE_EVENT = delete(event).where(event.c.id == bindparam("of_event"), _WITHOUT_DELIVERY, _OPENS_NOTHING)


def prune_source_events(connection: Connection, *, before: int, after: Position) -> Pruned:
    """Delete what may go of a page of events of accounts and sinks reported before that moment."""
    recorded_at, event_id, *_ = after
    rows = connection.execute(_OLD_EVENTS, {"before": before, "recorded_at": recorded_at, "after": event_id}).all()
    if rows:
        keys = [{"of_event": number, "before": before} for number in sorted(row.id for row in rows)]
        connection.execute(_DELETE_EVENT_DELIVERIES, keys)
        connection.execute(_DELETE_EVENT, keys)
    last = rows[-1] if len(rows) == ROWS_COUNT else None
    return 0, last and (last.recorded_at, last.id)


_CLOSED = (
    select(problem.c.id)
    .where(problem.c.closed_at < bindparam("before"), problem.c.id > bindparam("after"))
    .order_by(problem.c.id)
    .limit(ROWS_COUNT)
)
_DELETE_REMINDERS = delete(reminder).where(reminder.c.problem_id == bindparam("of_problem"))
_DELETE_MESSAGES = delete(problem_message).where(problem_message.c.problem_id == bindparam("of_problem"))
_DELETE_PROBLEM = delete(problem).where(problem.c.id == bindparam("of_problem"))


def prune_problems(connection: Connection, *, before: int, after: Position) -> Pruned:
    """Delete a page of the problems that were closed before that moment."""
    *_, last_id = after
    ids = connection.execute(_CLOSED, {"before": before, "after": last_id}).scalars().all()
    if ids:
        keys = [{"of_problem": id_} for id_ in ids]
        connection.execute(_DELETE_REMINDERS, keys)
        connection.execute(_DELETE_MESSAGES, keys)
        connection.execute(_DELETE_PROBLEM, keys)
    return 0, (ids[-1],) if len(ids) == ROWS_COUNT else None


_MARK_SINK = update(source).where(source.c.id == bindparam("of_sink")).values(absent_since=bindparam("since"))


def mark_absent_sinks(connection: Connection, *, present: Collection[str], now: Micros) -> dict[int, int]:
    """Note which sinks are not configured; return since when, by number, for those that are not."""
    columns = (source.c.id, source.c.name, source.c.absent_since)
    sinks = connection.execute(select(*columns).where(source.c.kind == "sink")).all()
    absent = {row.id: row.absent_since or now for row in sinks if row.name not in present}
    if sinks:  # sorted, so that two writers never wait for each other
        marks = [{"of_sink": row.id, "since": absent.get(row.id)} for row in sinks]
        connection.execute(_MARK_SINK, sorted(marks, key=itemgetter("of_sink")))
    return absent


_SOME_WAITING = (
    select(delivery.c.number, delivery.c.sink_id)
    .where(delivery.c.sink_id == bindparam("of_sink"), delivery.c.state == WAITING)
    .limit(ROWS_COUNT)
)
_EXPIRE = (
    update(delivery)
    .where(tuple_(delivery.c.number, delivery.c.sink_id).in_(_SOME_WAITING))
    .values(state=DeliveryState.DEAD, settled_at=bindparam("now"), answer=SINK_REMOVED)
)


def expire_deliveries(connection: Connection, *, sink_id: int, now: Micros) -> int:
    """Make some of a sink's waiting deliveries dead letters; return how many, 0 when none is left."""
    return connection.execute(_EXPIRE, {"of_sink": sink_id, "now": now}).rowcount


class MaintenanceStore:
    """What whoever holds the lease of the upkeep does. Nothing is done once another process holds it."""

    def __init__(self, store: SqlStore, lease: Lease) -> None:
        """Ask nothing yet."""
        self._store = store
        self._lease = lease

    async def mark_absent_sinks(self, *, present: Collection[str], now: Micros, dead_after_us: int) -> int:
        """Note which sinks are not configured; those absent for `dead_after_us` have their deliveries made dead.

        Returns how many died.
        """
        absent = await self._write(partial(mark_absent_sinks, present=present, now=now))
        died_count = 0
        for sink_id in (sink_id for sink_id, since in absent.items() if since <= now - dead_after_us):
            expire = partial(expire_deliveries, sink_id=sink_id, now=now)
            while count := await self._write(expire):
                died_count += count
        return died_count

    async def close_problems(self, closings: Sequence[tuple[OutboxEntry, ProblemChange]]) -> int:
        """Close problems whose owner does so no more, each with its event, but those that are closed by now.

        Returns how many.
        """

        def close(connection: Connection) -> tuple[int, set[str]]:
            emitted = close_problems(connection, closings)
            return len(emitted), self._store.outbox.write(connection, emitted, now=self._store.clock.steady_us())

        count, names = await self._write(close)
        self._store.on_recorded(names)
        return count

    async def forget_rules(self, *, present: Collection[tuple[str, str]]) -> None:
        """Forget what rules went by of all pipelines but these, as (account, pipeline)."""
        await self._write(partial(forget_rules, present=present))

    async def mark_absent_pipelines(self, *, present: Collection[tuple[str, str]], now: Micros) -> None:
        """Note which pipelines are watched whole no more; `present` are those that are, as (account, pipeline)."""
        await self._write(partial(mark_absent_pipelines, present=present, now=now))

    async def prune(self, *, ended_before: Micros, keep: Keep) -> AsyncIterator[int]:
        """Delete what ended before that moment: settled deliveries, events with none waiting, executions.

        `keep` says whose id must stay behind. In short transactions, one at each step, which yields the number of
        executions whose events went with it.
        """
        for prune in (prune_source_events, partial(prune_executions, keep=keep), prune_problems):
            after: Position | None = FIRST
            while after is not None:
                gone_count, after = await self._write(partial(prune, before=ended_before, after=after))
                yield gone_count

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await self._store.write(work, lease=self._lease)
