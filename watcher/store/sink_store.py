"""The store as the owner of a sink uses it: each method is what it asks, under its lease."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, case, delete, exists, func, null, select, true, update

from watcher.domain.delivery import DeliveryState
from watcher.domain.timestamps import Micros, to_us
from watcher.store.changes import Lease, SourceChange, Turn
from watcher.store.deliveries import IS_HEAD, LET_GO
from watcher.store.problems import open_problem_of, sent_openings
from watcher.store.recording import backoff_of
from watcher.store.records import SentOpening, SinkRecord, Taken
from watcher.store.sql_store import LeasedStore, SqlStore
from watcher.store.tables import WAITING, action, delivery, event, opens, problem, source, waits

_FAILURES = select(func.coalesce(func.sum(delivery.c.attempts), 0)).where(
    delivery.c.sink_id == bindparam("of_sink"), delivery.c.state == WAITING, delivery.c.tried == true()
)
_NOTE_FIRST_DUE = (
    update(delivery)
    .where(*IS_HEAD, delivery.c.due_at <= bindparam("now"), delivery.c.first_due_us.is_(None))
    .values(first_due_us=bindparam("clock_us"))
)
_TOO_OLD = select(delivery.c.number, delivery.c.lane).where(
    *IS_HEAD, delivery.c.first_due_us <= bindparam("due_before_us")
)
_GIVE_UP = (
    update(delivery)
    .where(
        delivery.c.sink_id == bindparam("of_sink"),
        delivery.c.number == bindparam("of_number"),
        waits(delivery),
    )
    .values(
        state=DeliveryState.DEAD,
        settled_at=bindparam("now"),
        answer=func.coalesce(delivery.c.answer, "never_tried"),
    )
)
_later = event.alias("later")
_KEPT_BACK = (
    select(delivery.c.number)
    .join(event, event.c.id == delivery.c.number)
    .join(problem, opens(event, problem))
    .where(
        delivery.c.sink_id == bindparam("of_sink"),
        delivery.c.state == DeliveryState.SILENCED,
        problem.c.closed_at.is_(None),
        ~exists().where(opens(_later, problem), _later.c.sequence > event.c.sequence),
    )
    # Whoever closes a problem updates its row, and then reads which sinks were sent the opening. So that either this
    # comes first, and is read there, or the problem is found closed here: the sink is not sent the closing then, so it
    # must not be sent the opening. In the order in which problems are written, so that none waits in a circle.
    .order_by(problem.c.id)
    .with_for_update(of=problem)
)
_RELEASE = (
    update(delivery)
    .where(delivery.c.sink_id == bindparam("of_sink"), delivery.c.number == bindparam("of_number"))
    .values(
        state=DeliveryState.WAITING,
        due_at=bindparam("now"),
        tried=False,
        tried_at=case((delivery.c.tried, delivery.c.tried_at), else_=bindparam("now")),  # until now nobody sent it
        first_due_us=null(),
        settled_at=null(),
    )
)


class SinkStore(LeasedStore):
    """The deliveries of the leased sink, and how it is.

    `turn` writes how attempts ended; what may be sent next can be awaited, if it is asked for. `record` writes a new
    state of the sink and its events.
    """

    def __init__(self, store: SqlStore, lease: Lease) -> None:
        """Ask nothing yet."""
        super().__init__(store, lease)
        self.exclusive = store.exclusive  # whether this process alone records what is to be sent
        self.monitor = store.monitor
        self.turn: Callable[[Turn], Awaitable[Taken | None]] = store.record
        self.record: Callable[[SourceChange], Awaitable[object]] = store.record

    async def load(self, *, fingerprint: str) -> SinkRecord:
        """Return what is recorded of the sink, which is present again.

        `fingerprint` stands for its block in the configuration. Another block may name another receiver, which has not
        asked for a pause, nor to be left alone; that something gets through to it is still to be seen, so a disabled
        sink is a failing one from then on.
        """
        same_block = source.c.fingerprint == fingerprint
        state = case((same_block, source.c.state), (source.c.state == "disabled", "failing"), else_=source.c.state)
        paused_until = case((same_block, source.c.paused_until), else_=None)
        values = {"fingerprint": fingerprint, "absent_since": None, "state": state, "paused_until": paused_until}
        now = self._store.clock.steady_us()

        def load(connection: Connection, sink_id: int) -> SinkRecord:
            connection.execute(update(source).where(source.c.id == sink_id).values(**values))
            row = connection.execute(select(source).where(source.c.id == sink_id)).one()
            opened = open_problem_of(connection, source_id=sink_id)
            failures_count = connection.scalars(_FAILURES, {"of_sink": sink_id}).one()
            backoff = backoff_of(row, now=now)
            return SinkRecord(row.sequence, row.state, row.clock_us / 1e6, backoff, opened, failures_count)

        return await self._write(load)

    async def enable(self) -> None:
        """Take a sink that is disabled for a failing one: a success is to show that it is there again.

        Whoever asked for it has it done then.
        """

        def enable(connection: Connection, sink_id: int) -> None:
            of_sink = (source.c.id == sink_id, source.c.state == "disabled")
            connection.execute(update(source).where(*of_sink).values(state="failing"))
            connection.execute(delete(action).where(action.c.kind == "enable", action.c.source_id == sink_id))

        await self._write(enable)

    async def give_up(self, *, clock_s: float, after_s: float, skip: Collection[bytes], group_wait_us: int) -> int:
        """Note what is first due now; make dead letters of what was first due `after_s` ago on the sink's own clock.

        Lanes in `skip` are left alone. What a dead letter held back goes, but not before the `wait` of its group.
        Returns how many died.
        """
        now, clock_us = self._store.clock.steady_us(), round(clock_s * 1e6)

        def give_up(connection: Connection, sink_id: int) -> int:
            key = {"of_sink": sink_id, "now": now}
            connection.execute(_NOTE_FIRST_DUE, key | {"clock_us": clock_us})
            due_before_us = clock_us - round(after_s * 1e6)
            found = connection.execute(_TOO_OLD, {"of_sink": sink_id, "due_before_us": due_before_us})
            old = sorted((row.number, row.lane) for row in found if row.lane not in skip)
            if old:
                key["group_wait_us"] = group_wait_us
                rows = [key | {"of_number": number, "of_lane": lane} for number, lane in old]
                connection.execute(_GIVE_UP, rows)
                LET_GO.run(connection, *rows)
            return len(old)

        return await self._write(give_up)

    async def release(self) -> None:
        """Have the openings that a silence kept back wait again, as if new, of problems that are still open."""
        now = self._store.clock.steady_us()

        def release(connection: Connection, sink_id: int) -> None:
            kept_back = connection.scalars(_KEPT_BACK, {"of_sink": sink_id}).all()
            if kept_back:
                rows = [{"of_sink": sink_id, "of_number": number, "now": now} for number in sorted(kept_back)]
                connection.execute(_RELEASE, rows)

        await self._write(release)

    async def sent_openings(self, *, closed_from: datetime | None = None) -> Sequence[SentOpening]:
        """Return the open problems whose opening the sink took, and those closed since that moment, if given."""
        from_us: Micros | None = None if closed_from is None else to_us(closed_from)
        return await self._read(lambda connection, sink_id: sent_openings(connection, sink_id, closed_from=from_us))
