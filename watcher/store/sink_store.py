"""The store for the owner of a sink. It takes writes only while the owner holds the lease of the sink."""

from collections.abc import Collection, Sequence
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from sqlalchemy import Connection, case, delete, select, text, update

from watcher.domain.envelope import problem_source, sink_source, stream_of
from watcher.domain.problems import SentOpening
from watcher.domain.timestamps import NEVER, Micros, from_us, to_us
from watcher.store.changes import SinkRecord
from watcher.store.deliveries import IS_HEAD, UNBLOCK
from watcher.store.problems import LAST_ENDED_AT, acked_until, open_problem_of, problem_of
from watcher.store.recording import load_backoff
from watcher.store.sql_store import LeasedStore
from watcher.store.tables import OPENS, AnyRow, action, source

_FAILURES = text(
    "SELECT coalesce(sum(attempts), 0) FROM delivery WHERE sink_id = :of_sink AND state = 'waiting' AND tried = true"
)
_NOTE_FIRST_DUE = text(
    f"UPDATE delivery SET first_due_us = :clock_us WHERE {IS_HEAD} AND due_at <= :now AND first_due_us IS NULL"
)
_TOO_OLD = text(f"SELECT number, ordering_key FROM delivery WHERE {IS_HEAD} AND first_due_us <= :due_before_us")
# A time later than now was written before the clock was set back. What waits then waits as if that time were now, so no
# longer than was wanted when it was written.
_LATER, _EARLIER = (f"CASE WHEN {{0}} {sign} {{1}} THEN {{0}} ELSE {{1}} END" for sign in "><")
_WRITTEN_AT = _LATER.format(_LATER.format("recorded_at", "tried_at"), ":written_at")
_RECORDED_AT, _TRIED_AT = _EARLIER.format("recorded_at", ":now"), _EARLIER.format("tried_at", ":now")
_BOUND_DUE = text(
    f"UPDATE delivery SET due_at = due_at - {_WRITTEN_AT} + :now, recorded_at = {_RECORDED_AT}, tried_at = {_TRIED_AT}"
    f" WHERE sink_id = :of_sink AND state = 'waiting' AND due_at > :now AND {_WRITTEN_AT} > :now"
)
_BOUND_SENT = text(
    f"UPDATE delivery SET recorded_at = {_RECORDED_AT}, settled_at = :now WHERE sink_id = :of_sink"
    f" AND settled_at > :now AND number IN (SELECT event.id FROM problem JOIN event ON {OPENS} WHERE closed_at IS NULL)"
)
_BOUND_REMINDED = text("UPDATE reminder SET reminded_at = :now WHERE sink_id = :of_sink AND reminded_at > :now")
_MAKE_DEAD = text(
    "UPDATE delivery SET state = 'dead', settled_at = :now, answer = coalesce(answer, 'never_tried')"
    " WHERE sink_id = :of_sink AND number = :of_number AND state || '' = 'waiting'"  # `|| ''`: by the primary key
)
_SILENCED_OPENINGS = text(
    "SELECT number, problem.id, acked_at, acked_until FROM delivery JOIN event ON event.id = number"
    f" JOIN problem ON {OPENS} WHERE sink_id = :of_sink AND state = 'silenced' AND closed_at IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM event AS later WHERE later.stream = problem.stream"
    " AND later.sequence > event.sequence AND later.problem_id = problem.id AND later.closes = false)"
)
_RELEASE = (
    "UPDATE delivery SET state = 'waiting', due_at = :now, tried = false, first_due_us = NULL, settled_at = NULL,"
    " tried_at = CASE WHEN tried THEN tried_at ELSE :now END"  # no previous owner sent it
    " WHERE sink_id = :of_sink AND state = 'silenced' AND number "
)
_RELEASE_OPENING = text(_RELEASE + "= :of_number")
_RELEASE_ACKNOWLEDGEMENTS = text(_RELEASE + "IN (SELECT id FROM event WHERE stream = :of_stream)")
_SENT = (
    "SELECT problem.*, delivery.recorded_at, settled_at, reminded_at, incident.key AS incident,"
    f" {LAST_ENDED_AT} AS last_ended_at, event.body FROM problem JOIN event ON {OPENS}"
    " JOIN delivery ON number = event.id AND delivery.sink_id = :of_sink AND state IN ('delivered', 'accepted')"
    " LEFT JOIN reminder ON reminder.problem_id = problem.id AND reminder.sink_id = delivery.sink_id"
    " LEFT JOIN incident ON incident.problem_id = problem.id AND incident.sink_id = delivery.sink_id"
    " WHERE closed_at IS NULL{} ORDER BY opened_at, problem.id, event.sequence"
)
_SENT_OPEN, _OPEN_OR_LATE = text(_SENT.format("")), text(_SENT.format(" OR closed_at >= :closed_from"))
_LAST_REPORT_OF_DEAD = text(
    "SELECT recorded_at FROM event WHERE stream = :of_stream AND type = 'delivery.dead' ORDER BY sequence DESC LIMIT 1"
)
# Dead letters of `delivery.dead` do not count: otherwise two sinks that refuse everything would report to each other
# for ever.
_DEAD_SINCE = text(
    "SELECT count(*) OVER () AS dead_count, type, event_id, answer FROM delivery JOIN event ON event.id = number"
    " WHERE sink_id = :of_sink AND state = 'dead' AND settled_at > :since AND answer <> 'sink_removed'"
    " AND event.type <> 'delivery.dead' ORDER BY settled_at DESC, number DESC LIMIT 1"
)
DEAD_FOR_US = 3_600_000_000
"""Greatest age of the dead letters that are reported for a sink without any earlier report.

Older ones may come from an earlier version, which reported none.
"""


def _bound_waits(connection: Connection, sink_id: int, *, written_at: Micros, now: Micros) -> None:
    """Bound the waits of a sink's deliveries and reminders after the clock was set back.

    `written_at` is when the state of the sink was written: the same transaction may have called all deliveries forward.
    """
    for statement in (_BOUND_DUE, _BOUND_SENT, _BOUND_REMINDED):
        connection.execute(statement, {"of_sink": sink_id, "written_at": written_at, "now": now})


class SinkStore(LeasedStore):
    """The deliveries and the state of one sink. `record` of a `Turn` returns a future of what the turn takes."""

    async def load(self, *, fingerprint: str) -> SinkRecord:
        """Return the stored state of the sink, and mark the sink as present.

        `fingerprint` identifies the sink's block in the configuration. If the block has changed, it may name another
        receiver, which has never answered 410. A disabled sink then becomes a failing one, until a delivery succeeds.
        """
        same_block = source.c.fingerprint == fingerprint
        state = case((same_block, source.c.state), (source.c.state == "disabled", "failing"), else_=source.c.state)
        values = {"fingerprint": fingerprint, "absent_since": None, "state": state}
        now = self._store.clock.steady_us()

        def load(connection: Connection, sink_id: int) -> SinkRecord:
            connection.execute(update(source).where(source.c.id == sink_id).values(**values))
            row = connection.execute(select(source).where(source.c.id == sink_id)).one()
            _bound_waits(connection, sink_id, written_at=row.backoff_at or NEVER, now=now)
            opened = open_problem_of(connection, source_id=sink_id)
            failures_count = connection.scalars(_FAILURES, {"of_sink": sink_id}).one()
            backoff = load_backoff(connection, row, now=now)
            of_stream = {"of_stream": stream_of(sink_source(row.name))}
            reported_at = connection.scalar(_LAST_REPORT_OF_DEAD, of_stream) or now - DEAD_FOR_US
            dead_from = Micros(min(now, reported_at))  # the clock may have been ahead when the report was recorded
            return SinkRecord(row.sequence, row.state, row.clock_us / 1e6, backoff, opened, failures_count, dead_from)

        return await self._write(load)

    async def enable(self) -> None:
        """Make a disabled sink a failing one, and delete the action that asked for it. A success closes the problem."""

        def enable(connection: Connection, sink_id: int) -> None:
            of_sink = (source.c.id == sink_id, source.c.state == "disabled")
            connection.execute(update(source).where(*of_sink).values(state="failing"))
            connection.execute(delete(action).where(action.c.kind == "enable", action.c.source_id == sink_id))

        await self._write(enable)

    async def give_up(self, *, clock_s: float, after_s: float, skip: Collection[bytes], group_wait_s: float) -> int:
        """Make deliveries dead letters if they were first due `after_s` ago or earlier; return how many.

        Times are on the sink's own clock, which shows `clock_s`: the seconds for which the sink was served. A delivery
        that is due for the first time is marked with `clock_s`. Deliveries with ordering keys in `skip` stay as they
        are. Deliveries that a dead letter blocked become due, those of a group `group_wait_s` after their recording at
        the earliest.
        """
        now, clock_us = self._store.clock.steady_us(), round(clock_s * 1e6)

        def give_up(connection: Connection, sink_id: int) -> int:
            key = {"of_sink": sink_id, "now": now}
            _bound_waits(connection, sink_id, written_at=now, now=now)  # other replicas may have started before
            connection.execute(_NOTE_FIRST_DUE, key | {"clock_us": clock_us})
            due_before_us = clock_us - round(after_s * 1e6)
            found = connection.execute(_TOO_OLD, {"of_sink": sink_id, "due_before_us": due_before_us})
            old = sorted((row.number, row.ordering_key) for row in found if row.ordering_key not in skip)
            if old:
                key["group_wait_us"] = round(group_wait_s * 1e6)
                rows = [key | {"of_number": number, "of_key": ordering_key} for number, ordering_key in old]
                connection.execute(_MAKE_DEAD, rows)
                UNBLOCK.run(connection, *rows)
            return len(old)

        return await self._write(give_up)

    async def dead_since(self, since: Micros) -> AnyRow | None:
        """Return `dead_count` since that time, and `type`, `event_id` and `answer` of the newest dead letter.

        Two kinds do not count: dead letters made because the sink was removed, and those of `delivery.dead` events.
        Returns `None` if there are no others.
        """
        key = {"since": since}
        return await self._read(
            lambda connection, sink_id: connection.execute(_DEAD_SINCE, key | {"of_sink": sink_id}).one_or_none()
        )

    async def release(self) -> None:
        """Make silenced openings of open problems due again, as if new, together with their acknowledgements.

        An acknowledgement that was withdrawn or has run out stays silenced, because people must be alerted again.
        """
        now, at = self._store.clock.steady_us(), self._store.clock.now()

        def release(connection: Connection, sink_id: int) -> None:
            key = {"of_sink": sink_id, "now": now}
            silenced = sorted(connection.execute(_SILENCED_OPENINGS, key), key=attrgetter("number"))
            if silenced:
                connection.execute(_RELEASE_OPENING, [key | {"of_number": row.number} for row in silenced])
            acked = [UUID(bytes=row.id) for row in silenced if (until := acked_until(row)) is not None and at < until]
            if acked:
                rows = [key | {"of_stream": stream_of(problem_source(id_))} for id_ in acked]
                connection.execute(_RELEASE_ACKNOWLEDGEMENTS, rows)

        await self._write(release)

    async def sent_openings(self, *, closed_from: datetime | None = None) -> Sequence[SentOpening]:
        """Return the problems whose opening was delivered: open ones, and those closed since `closed_from`."""
        since = None if closed_from is None else to_us(closed_from)
        statement = _SENT_OPEN if closed_from is None else _OPEN_OR_LATE

        def read(connection: Connection, sink_id: int) -> Sequence[SentOpening]:
            rows = connection.execute(statement, {"of_sink": sink_id, "closed_from": since})
            return [
                SentOpening(
                    problem=problem_of(row),
                    body=row.body,
                    recorded_at=row.recorded_at,
                    settled_at=row.settled_at,
                    reminded_at=row.reminded_at,
                    last_ended_at=row.last_ended_at,
                    closed_at=None if row.closed_at is None else from_us(row.closed_at),
                    acked_until=acked_until(row),
                    incident=row.incident,
                )
                for row in {row.id: row for row in rows}.values()  # the last opening of each problem
            ]

        return await self._read(read)
