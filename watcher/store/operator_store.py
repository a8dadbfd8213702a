"""The store as people change it: acknowledgements, silences, replays, and what owners are asked to do."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, delete, insert, select, text, update

from watcher.domain.event import EventKey
from watcher.domain.event_factory import EventFactory
from watcher.domain.timestamps import to_us
from watcher.store.problems import problem_of
from watcher.store.recording import load_events
from watcher.store.sources import Source
from watcher.store.sql_store import SqlStore
from watcher.store.tables import AnyRow, action, problem, silence

ActionKind = Literal["scan", "enable"]

SOURCE_KINDS: dict[ActionKind, str] = {"scan": "pipeline", "enable": "sink"}
"""What is asked for of what."""

REPLAYED_COUNT = 1_000
"""Dead letters of one transaction, where all are sent again."""

_ASK = text(
    "INSERT INTO action (kind, source_id, asked_at) VALUES (:kind, :source_id, :asked_at) ON CONFLICT DO NOTHING"
)
_ASKED = text(
    "SELECT action.kind, source.name FROM action JOIN source ON source.id = action.source_id"
    " ORDER BY action.kind, source.name"
)
_DEAD = text(
    "SELECT number FROM delivery WHERE sink_id = (SELECT id FROM source WHERE kind = 'sink' AND name = :name)"
    " AND state = 'dead' AND settled_at <= :by ORDER BY settled_at LIMIT :limit"
)
# A replayed delivery has a lane of its own: it waits for nothing, and holds nothing back. A delivery of an open problem
# keeps its lane: otherwise the closing would overtake it, and a receiver that keeps state would show it for ever.
_REPLAY = text(
    "UPDATE delivery SET state = 'waiting', lane = (SELECT CASE WHEN problem.id IS NULL THEN event_id ELSE lane END"
    " FROM event LEFT JOIN problem ON problem.id = event.problem_id AND problem.closed_at IS NULL"
    " WHERE event.id = delivery.number), group_key = NULL, due_at = :now, attempts = 0, rejections = 0, tried = false,"
    " tried_at = 0, first_due_us = NULL, settled_at = NULL, answer = NULL, replayed = true"
    " WHERE sink_id = (SELECT id FROM source WHERE kind = 'sink' AND name = :name)"
    " AND state = 'dead' AND number = :of_number"
)


def _open(id_: UUID) -> Sequence[ColumnElement[bool]]:
    return problem.c.id == id_.bytes, problem.c.closed_at.is_(None)


class OperatorStore:
    """What people do, each in one transaction. All raise `StoreError`. `on_acknowledged` hears how many were."""

    def __init__(self, store: SqlStore, events: EventFactory) -> None:
        self._store = store
        self._events = events
        self.on_acknowledged: Callable[[int], object] = lambda _count: None

    async def acknowledge(
        self, *ids: UUID, by: str | None, comment: str | None, until: datetime | None
    ) -> Sequence[UUID]:
        """Acknowledge problems, with an event each, in one transaction; return which of them were open."""
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
            for id_ in sorted(set(ids)):  # as everywhere: replicas that lock problems in another order would deadlock
                this = _open(id_)
                if not connection.execute(update(problem).where(*this).values(values)).rowcount:
                    continue
                row = connection.execute(select(problem).where(*this)).one()
                opening = EventKey(row.stream, row.sequence)
                entry = self._events.acknowledged(
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
            self._store.on_recorded(names)
        return acknowledged

    async def unacknowledge(self, id_: UUID) -> bool:
        """Have reminders go on; return `False` if it is not open, or nobody had taken it."""
        nobody = dict.fromkeys(("acked_at", "acked_until", "acked_by", "acked_comment"))
        given_back = update(problem).where(*_open(id_), problem.c.acked_at.is_not(None)).values(nobody)
        return await self._store.write(lambda connection: connection.execute(given_back).rowcount > 0)

    async def silences(self) -> Sequence[AnyRow]:
        """Return the silences that have not ended. `match` is JSON; times are the wall clock's."""
        lasting = select(silence).where(silence.c.ends_at > to_us(self._store.clock.now())).order_by(silence.c.id)
        return await self._store.read(lambda connection: connection.execute(lasting).all())

    async def add_silence(
        self, match: str, *, starts_at: datetime, ends_at: datetime, by: str | None, comment: str | None
    ) -> AnyRow:
        """Add a silence and return it. `match` is JSON."""
        row = {"match": match, "starts_at": to_us(starts_at), "ends_at": to_us(ends_at), "by": by, "comment": comment}

        def add(connection: Connection) -> AnyRow:
            key = connection.execute(insert(silence), row).inserted_primary_key
            assert key is not None
            return connection.execute(select(silence).where(silence.c.id == key[0])).one()

        return await self._store.write(add)

    async def end_silence(self, number: int) -> bool:
        """End a silence now; return `False` if there is none of that number."""
        now = to_us(self._store.clock.now())
        end = update(silence).where(silence.c.id == number, silence.c.ends_at > now).values(ends_at=now)
        return await self._store.write(lambda connection: connection.execute(end).rowcount > 0)

    async def replay(self, sink: str, numbers: Sequence[int] | None) -> int:
        """Have dead letters of a sink wait again, by their events' numbers or all; return how many."""
        count, now = 0, self._store.clock.steady_us()
        key = {"name": sink, "by": now, "limit": REPLAYED_COUNT}

        def replay_some(connection: Connection) -> int:
            some = connection.scalars(_DEAD, key).all() if numbers is None else set(numbers)
            rows = [{"name": sink, "of_number": number, "now": now} for number in sorted(some)]
            return connection.execute(_REPLAY, rows).rowcount if rows else 0

        while done := await self._store.write(replay_some):
            count += done
            self._store.on_recorded([sink])
            if numbers is not None:
                break
        return count

    async def ask(self, kind: ActionKind, name: str) -> None:
        """Ask the owner of a sink (`name`), or of a pipeline (`account/pipeline`), to do something."""
        number = await self._store.number_of(Source(SOURCE_KINDS[kind], name))
        row = {"kind": kind, "source_id": number, "asked_at": self._store.clock.steady_us()}
        await self._store.write(lambda connection: connection.execute(_ASK, row))

    async def asked(self) -> Sequence[tuple[ActionKind, str]]:
        """Return what is still to be done, of all owners."""
        rows = await self._store.read(lambda connection: connection.execute(_ASKED).all())
        return [(row.kind, row.name) for row in rows]

    async def done(self, kind: ActionKind, name: str) -> None:
        """Note that it is done; what is written for it goes into the same transaction where it has one."""
        number = await self._store.number_of(Source(SOURCE_KINDS[kind], name))
        done = delete(action).where(action.c.kind == kind, action.c.source_id == number)
        await self._store.write(lambda connection: connection.execute(done))
