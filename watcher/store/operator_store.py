"""The store for people: acknowledgements, silences, replays, and actions that owners are asked to do."""

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import starmap
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, delete, insert, select, text, update

from watcher.domain.event import EventKey
from watcher.domain.event_factory import EventFactory
from watcher.domain.timestamps import Micros, to_us
from watcher.store.problems import problem_of
from watcher.store.recording import load_events
from watcher.store.sources import Source
from watcher.store.sql_store import SqlStore
from watcher.store.tables import action, problem, silence

ActionKind = Literal["scan", "enable"]

SOURCE_KINDS: dict[ActionKind, str] = {"scan": "pipeline", "enable": "sink"}
"""The kind of source that an action of each kind is about. The owner of the source does the action."""

REPLAYED_COUNT = 1_000
"""Most dead letters that one transaction replays if all those of a sink are to be replayed."""

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
    "UPDATE delivery SET state = 'waiting', lane = (SELECT CASE WHEN problem.id IS NULL THEN event_id ELSE lane END"
    " FROM event LEFT JOIN problem ON problem.id = event.problem_id AND problem.closed_at IS NULL"
    " WHERE event.id = delivery.number), group_key = NULL, due_at = :now, attempts = 0, rejections = 0, tried = false,"
    " tried_at = 0, first_due_us = NULL, settled_at = NULL, answer = NULL, replayed = true"
    " WHERE sink_id = (SELECT id FROM source WHERE kind = 'sink' AND name = :name)"
    " AND state = 'dead' AND number = :of_number"
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


def _is_open(id_: UUID) -> Sequence[ColumnElement[bool]]:
    return problem.c.id == id_.bytes, problem.c.closed_at.is_(None)


class OperatorStore:
    """The store for the actions of people. All methods raise `StoreError`.

    `on_acknowledged` is called with the number of problems that were acknowledged.
    """

    def __init__(self, store: SqlStore, events: EventFactory) -> None:
        self._store = store
        self._events = events
        self.on_acknowledged: Callable[[int], object] = lambda _count: None

    async def acknowledge(
        self, *ids: UUID, by: str | None, comment: str | None, until: datetime | None
    ) -> Sequence[UUID]:
        """Acknowledge problems in one transaction, with an event for each; return those that were open."""
        at = self._store.clock.now()
        values = {
            "told_count": problem.c.told_count + 1,
            "acked_at": to_us(at),
            "acked_until": None if until is None else to_us(until),
            "acked_by": by,
            "acked_comment": comment,
        }

        def acknowledge(connection: Connection) -> tuple[Sequence[UUID], set[str]]:
            acknowledged, emitted = [], []
            for id_ in sorted(set(ids)):  # in the order of all writers, so that two cannot deadlock
                this = _is_open(id_)
                if not connection.execute(update(problem).where(*this).values(values)).rowcount:
                    continue
                row = connection.execute(select(problem).where(*this)).one()
                opening = EventKey(row.stream, row.sequence)
                entry = self._events.acknowledgement(
                    problem_of(row),
                    load_events(connection, [opening]).get(opening),
                    by=by,
                    comment=comment,
                    until=until,
                    after=row.told_count - 1,
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

    async def unacknowledge(self, id_: UUID) -> bool:
        """Withdraw an acknowledgement, so that reminders continue.

        Returns `False` if the problem is not open, or not acknowledged.
        """
        nobody = dict.fromkeys(("acked_at", "acked_until", "acked_by", "acked_comment"))
        given_back = update(problem).where(*_is_open(id_), problem.c.acked_at.is_not(None)).values(nobody)
        return await self._store.write(lambda connection: connection.execute(given_back).rowcount > 0)

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
