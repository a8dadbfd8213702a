"""The store for people: acknowledgements, silences, replays, and actions that owners are asked to do."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import starmap
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, delete, insert, select, text, true, update

from watcher.domain.event import EventKey
from watcher.domain.event_factory import EventFactory
from watcher.domain.problems import Press
from watcher.domain.timestamps import Micros, to_us
from watcher.store.problems import acked_until, problem_of
from watcher.store.recording import load_events
from watcher.store.sources import Source
from watcher.store.sql_store import SqlStore
from watcher.store.tables import OPENS, AnyRow, action, problem, silence

ActionKind = Literal["scan", "enable"]

SOURCE_KINDS: dict[ActionKind, str] = {"scan": "pipeline", "enable": "sink"}
"""The kind of source that an action of each kind is about. The owner of the source does the action."""

REPLAYED_COUNT = 1_000
"""Most dead letters that one transaction replays if all those of a sink are to be replayed."""

CLOSED = "This problem has closed: there is nothing to acknowledge."

_ADD_ACTION = text(
    "INSERT INTO action (kind, source_id, asked_at) VALUES (:kind, :source_id, :asked_at) ON CONFLICT DO NOTHING"
)
_ACTIONS = text(
    "SELECT action.kind, source.name FROM action JOIN source ON source.id = action.source_id"
    " ORDER BY action.kind, source.name"
)
_DEAD = text(
    "SELECT number FROM delivery WHERE sink_id = (SELECT id FROM source WHERE kind = 'sink' AND name = :name)"
    " AND state = 'dead' AND settled_at <= :by ORDER BY settled_at LIMIT :limit"
)
# A replayed delivery gets an ordering key of its own: no delivery blocks it, and it blocks none. A delivery about an
# open problem keeps its ordering key: otherwise the closing could be sent before the replayed delivery, and a
# receiver that keeps state would show the problem for ever.
_REPLAY = text(
    "UPDATE delivery SET state = 'waiting',"
    " ordering_key = (SELECT CASE WHEN problem.id IS NULL THEN event_id ELSE ordering_key END"
    " FROM event LEFT JOIN problem ON problem.id = event.problem_id AND problem.closed_at IS NULL"
    " WHERE event.id = delivery.number), group_key = NULL, due_at = :now, attempts = 0, rejections = 0, tried = false,"
    " tried_at = 0, first_due_us = NULL, settled_at = NULL, answer = NULL, replayed = true"
    " WHERE sink_id = (SELECT id FROM source WHERE kind = 'sink' AND name = :name)"
    " AND state = 'dead' AND number = :of_number"
)


_PRESSED = text(
    "SELECT closed_at, acked_at, acked_until, acked_by, EXISTS (SELECT 1 FROM problem_message"
    " WHERE problem_id = problem.id AND channel = :channel) AS is_shown, EXISTS (SELECT 1 FROM event"
    " JOIN delivery ON number = event.id JOIN source ON source.id = sink_id AND source.kind = 'sink'"
    f" WHERE {OPENS} AND source.name = :sink) AS is_sent FROM problem WHERE id = :of_problem"
)
_SHOWN_AT = text(
    f"SELECT number AS of_number, delivery.sink_id AS of_sink, source.name FROM problem JOIN event ON {OPENS}"
    " JOIN delivery ON delivery.number = event.id AND delivery.state IN ('delivered', 'accepted')"
    " JOIN source ON source.id = delivery.sink_id WHERE problem.id = :of_problem AND closed_at IS NULL"
    " AND EXISTS (SELECT 1 FROM problem_message WHERE problem_id = problem.id AND sink_id = delivery.sink_id)"
)
_SHOW_AGAIN = text(
    "UPDATE delivery SET state = 'waiting', group_key = NULL, due_at = :now, attempts = 0, rejections = 0,"
    " tried = false, first_due_us = NULL, settled_at = NULL, answer = NULL, replayed = true"
    " WHERE number = :of_number AND sink_id = :of_sink AND state IN ('delivered', 'accepted')"
)


class StoredSilence(NamedTuple):
    """A silence that somebody added. `match` is JSON; times are microseconds UTC, wall clock."""

    id: int
    match: str
    starts_at: Micros
    ends_at: Micros
    by: str | None
    comment: str | None


_SILENCES = select(*(silence.c[name] for name in StoredSilence._fields))


def _is_open(id_: UUID, event_count: int | None = None) -> Sequence[ColumnElement[bool]]:
    is_current = true() if event_count is None else problem.c.event_count == event_count
    return problem.c.id == id_.bytes, problem.c.closed_at.is_(None), is_current


class OperatorStore:
    """The store for the actions of people. All methods raise `StoreError`.

    `on_acknowledged` is called with the number of problems that were acknowledged.
    """

    def __init__(self, store: SqlStore, events: EventFactory) -> None:
        self._store = store
        self._events = events
        self.on_acknowledged: Callable[[int], object] = lambda _count: None

    async def acknowledge(
        self, *ids: UUID, by: str | None, comment: str | None, until: datetime | None, event_count: int | None = None
    ) -> Sequence[UUID]:
        """Acknowledge problems in one transaction, with an event for each; return those that were open.

        With `event_count` a problem is acknowledged only if its own stream has that number of events.
        """
        at = self._store.clock.now()
        values = {
            "event_count": problem.c.event_count + 1,
            "acked_at": to_us(at),
            "acked_until": None if until is None else to_us(until),
            "acked_by": by,
            "acked_comment": comment,
        }

        def acknowledge(connection: Connection) -> tuple[Sequence[UUID], set[str]]:
            acknowledged, emitted = [], []
            for id_ in sorted(set(ids)):  # in the order of all writers, so that two cannot deadlock
                this = _is_open(id_, event_count)
                if not connection.execute(update(problem).where(*this).values(values)).rowcount:
                    continue
                row = connection.execute(select(problem).where(problem.c.id == id_.bytes)).one()
                opening = EventKey(row.stream, row.sequence)
                entry = self._events.acknowledgement(
                    problem_of(row),
                    load_events(connection, [opening]).get(opening),
                    by=by,
                    comment=comment,
                    until=until,
                    after=row.event_count - 1,
                    at=at,
                )
                acknowledged.append(id_)
                emitted.append((entry, {"source_id": row.source_id, "pipeline_id": row.pipeline_id, "execution": None}))
            return acknowledged, self._store.outbox.write(connection, emitted, now=self._store.clock.steady_us())

        acknowledged, names = await self._store.write(acknowledge)
        if acknowledged:
            self.on_acknowledged(len(acknowledged))
            self._store.wake(names)
        return acknowledged

    async def unacknowledge(self, id_: UUID, *, event_count: int | None = None) -> bool:
        """Withdraw an acknowledgement, so that reminders continue, and messages show that nobody has the problem.

        Returns `False` if the problem is not open, or not acknowledged. `event_count` is as in `acknowledge`.
        """
        nobody = dict.fromkeys(("acked_at", "acked_until", "acked_by", "acked_comment"))
        is_acked = (*_is_open(id_, event_count), problem.c.acked_at.is_not(None))

        def give_back(connection: Connection) -> tuple[bool, set[str]]:
            is_done = connection.execute(update(problem).where(*is_acked).values(nobody)).rowcount > 0
            return is_done, self._show_again(connection, id_) if is_done else set()

        is_done, names = await self._store.write(give_back)
        self._store.wake(names)
        return is_done

    def _show_again(self, connection: Connection, id_: UUID) -> set[str]:
        """Make the opening of a problem pending again at the sinks that keep a message of it; return their names."""
        shown = connection.execute(_SHOWN_AT, {"of_problem": id_.bytes}).all()
        now = self._store.clock.steady_us()
        if shown:
            connection.execute(_SHOW_AGAIN, [{"of_number": n, "of_sink": sink, "now": now} for n, sink, _ in shown])
        return {name for *_, name in shown}

    async def press(self, press: Press) -> str | None:
        """Carry out the press of a button; return the answer for the presser.

        The answer is empty if the press is done, or if no message in its channel shows the problem. It is `None` if the
        press must come again: its message is posted, but not yet in the store. An old message is shown again.
        """
        key = {"of_problem": press.problem.bytes, "channel": press.channel, "sink": press.sink or ""}
        row = await self._store.read(lambda connection: connection.execute(_PRESSED, key).one_or_none())
        if row is None or not (row.is_shown or row.is_sent):
            return ""
        if row.closed_at is not None:
            return CLOSED
        if not row.is_shown:
            return None
        id_, event_count = press.problem, press.event_count
        if press.gives_back:
            is_done = await self.unacknowledge(id_, event_count=event_count)
        else:
            is_done = bool(await self.acknowledge(id_, by=press.by, comment=None, until=None, event_count=event_count))
        return "" if is_done else await self._why_not(press, key)

    async def _why_not(self, press: Press, key: Mapping[str, object]) -> str:
        """Return why a press changed nothing; show the message of a problem again that nobody has acknowledged now."""

        def find(connection: Connection) -> tuple[AnyRow | None, set[str]]:
            row = connection.execute(_PRESSED, key).one_or_none()
            is_stale = row is not None and row.closed_at is None and not is_acknowledged(row)
            return row, self._show_again(connection, press.problem) if is_stale else set()

        def is_acknowledged(row: AnyRow) -> bool:
            until = acked_until(row)
            return until is not None and self._store.clock.now() < until

        row, names = await self._store.write(find)
        self._store.wake(names)
        if row is None or row.closed_at is not None:
            return CLOSED
        if not is_acknowledged(row):
            return "" if press.gives_back else "That message was out of date. Press again."
        if row.acked_by == press.by and not press.gives_back:
            return ""
        return f"{row.acked_by or 'Somebody'} has acknowledged it."

    async def silences(self, *, ending_after: datetime | None = None) -> Sequence[StoredSilence]:
        """Return the silences that end after a time, by default now."""
        after = to_us(ending_after or self._store.clock.now())
        lasting = _SILENCES.where(silence.c.ends_at > after).order_by(silence.c.id)
        return await self._store.read(lambda connection: list(starmap(StoredSilence, connection.execute(lasting))))

    async def add_silence(
        self, match: str, *, starts_at: datetime, ends_at: datetime, by: str | None, comment: str | None
    ) -> StoredSilence:
        """Add a silence and return it. `match` is JSON."""
        row = {"match": match, "starts_at": to_us(starts_at), "ends_at": to_us(ends_at), "by": by, "comment": comment}

        def add(connection: Connection) -> StoredSilence:
            key = connection.execute(insert(silence), row).inserted_primary_key
            assert key is not None
            return StoredSilence(*connection.execute(_SILENCES.where(silence.c.id == key[0])).one())

        return await self._store.write(add)

    async def end_silence(self, number: int) -> bool:
        """End a silence now; return `False` if there is no silence of that number, or if it has ended before."""
        now = to_us(self._store.clock.now())
        end = update(silence).where(silence.c.id == number, silence.c.ends_at > now).values(ends_at=now)
        return await self._store.write(lambda connection: connection.execute(end).rowcount > 0)

    async def replay(self, sink: str, numbers: Sequence[int] | None) -> int:
        """Make dead letters of a sink pending again: those of these events, or all (`None`); return how many."""
        count, now = 0, self._store.clock.steady_us()
        key = {"name": sink, "by": now, "limit": REPLAYED_COUNT}

        def replay_some(connection: Connection) -> int:
            some = connection.scalars(_DEAD, key).all() if numbers is None else set(numbers)
            rows = [{"name": sink, "of_number": number, "now": now} for number in sorted(some)]
            return connection.execute(_REPLAY, rows).rowcount if rows else 0

        while done := await self._store.write(replay_some):
            count += done
            self._store.wake([sink])
            if numbers is not None:
                break
        return count

    async def request_action(self, kind: ActionKind, name: str) -> None:
        """Ask the owner of a sink (`name`) to enable it, or of a pipeline (`account/pipeline`) to scan its list."""
        number = await self._store.number_of(Source(SOURCE_KINDS[kind], name))
        row = {"kind": kind, "source_id": number, "asked_at": self._store.clock.steady_us()}
        await self._store.write(lambda connection: connection.execute(_ADD_ACTION, row))

    async def load_actions(self) -> Sequence[tuple[ActionKind, str]]:
        """Return the actions that are still to be done, by all owners."""
        rows = await self._store.read(lambda connection: connection.execute(_ACTIONS).all())
        return [(row.kind, row.name) for row in rows]

    async def finish_action(self, kind: ActionKind, name: str) -> None:
        """Delete an action that is done and wrote nothing. An action that writes is deleted together with its write."""
        number = await self._store.number_of(Source(SOURCE_KINDS[kind], name))
        done = delete(action).where(action.c.kind == kind, action.c.source_id == number)
        await self._store.write(lambda connection: connection.execute(done))
