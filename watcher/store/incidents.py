"""Incidents: each is one or more problems that a pager shows as one.

A problem joins an incident in the transaction that takes its opening, before the opening is sent. The problem never
moves to another incident.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from uuid import UUID, uuid5

from sqlalchemy import Connection, text

from watcher.domain.delivery import TAKEN, AttemptRecord
from watcher.domain.envelope import NAMESPACE
from watcher.domain.event import EventType, Severity
from watcher.domain.problems import Incident, IncidentProblem, severity_of
from watcher.domain.timestamps import Micros
from watcher.store.problems import acked_until, problem_of
from watcher.store.tables import AnyRow

JOINABLE_FOR_US = 600_000_000
"""Time for which an incident accepts further problems, from its first trigger on.

A pager alerts nobody again for a key that it already shows, so later problems begin the group's next incident.
"""

FURTHER_COUNT = 3
"""The further pipelines that an incident accepts in any case."""


_OF_PROBLEM = " FROM incident WHERE problem_id = :of_problem AND sink_id = :of_sink"
_MEMBER, _LEAVE = text(f"SELECT key{_OF_PROBLEM}"), text(f"DELETE{_OF_PROBLEM}")
_OF_GROUP = "incident.sink_id = :of_sink AND incident.group_key = :of_group"
_LAST_NTH = text(f"SELECT coalesce(max(nth), 0) FROM incident WHERE {_OF_GROUP}")
_UNRESOLVED = text(
    "SELECT nth, begun_at, at_trigger, outside_count, kind, pipeline_id, event_count, closed_at FROM incident"
    f" JOIN problem ON problem.id = incident.problem_id WHERE {_OF_GROUP} AND NOT incident.resolved"
)
_JOIN = text(
    "INSERT INTO incident (problem_id, sink_id, key, group_key, nth, begun_at, at_trigger, outside_count)"
    " VALUES (:of_problem, :of_sink, :key, :group_key, :nth, :begun_at, :at_trigger, :outside_count)"
    " ON CONFLICT DO NOTHING"
)
_OPEN = text(
    "SELECT problem.*, event.account, event.pipeline, event.body FROM incident"
    " JOIN problem ON problem.id = incident.problem_id"
    " LEFT JOIN event ON event.stream = problem.stream AND event.sequence = problem.sequence"
    " WHERE incident.sink_id = :of_sink AND incident.key = :of_key AND problem.closed_at IS NULL"
)
_RESOLVED = text("UPDATE incident SET resolved = true WHERE sink_id = :of_sink AND key = :of_key")


class _Incident:
    """An incident that may accept further problems. `rows` are its problems."""

    def __init__(self, rows: Sequence[AnyRow]) -> None:
        self.nth, self.begun_at = rows[0].nth, rows[0].begun_at
        self.outside_count = max(row.outside_count for row in rows)  # an older program writes 0
        self._is_open = any(row.closed_at is None for row in rows)
        self._was_acknowledged = any(row.event_count for row in rows)  # the acknowledgement may have been withdrawn
        at_trigger = [row for row in rows if row.at_trigger]  # none: an older program began it
        self._highest = min((_severity(row.kind).rank for row in at_trigger), default=len(Severity))
        self.pipelines = {row.pipeline_id for row in rows}
        first_count = len({row.pipeline_id for row in at_trigger} - {None})
        self._pipelines_limit = first_count + max(FURTHER_COUNT, first_count + self.outside_count)

    def is_joinable(self, *, now: Micros) -> bool:
        """Return whether the incident accepts any further problem."""
        return self._is_open and not self._was_acknowledged and self.begun_at <= now < self.begun_at + JOINABLE_FOR_US

    def add(self, opening: AnyRow) -> bool:
        """Add the pipeline of an opening if its problem may join; return whether it may."""
        pipelines = self.pipelines | {opening.pipeline_id}
        if len(pipelines - {None}) > self._pipelines_limit and pipelines != self.pipelines:
            return False
        if _severity(opening.type).rank < self._highest:
            return False
        self.pipelines = pipelines
        return True


def _severity(kind: str) -> Severity:
    return severity_of(EventType(kind))


def key_of(connection: Connection, sink_id: int, problem_id: bytes) -> bytes | None:
    """Return the key of the incident that holds a problem at a sink; `None` if there is none."""
    key: bytes | None = connection.scalar(_MEMBER, {"of_problem": problem_id, "of_sink": sink_id})
    return key


def join(
    connection: Connection,
    sink_id: int,
    first: AnyRow,
    others: list[AnyRow],
    *,
    group: bytes | None,
    now: Micros,
    only_begins: bool,
) -> bytes | None:
    """Add the problem of an opening to an incident of its group, or begin the group's next one; return its key.

    With `only_begins` a problem that an incident accepts is not added, and `None` is returned.

    `others` are further openings of the group that may be sent together with `first`. Those that join, too, are removed
    from the list: a new incident accepts them all. docs/receivers/pagerduty.md says what an incident accepts. The
    incident that already holds the pipeline is tried first, then the newest.
    """
    if group is None:
        return begin_own(connection, sink_id, first.problem_id, now=now)
    of_group = {"of_sink": sink_id, "of_group": group}
    last_nth, rows = connection.scalars(_LAST_NTH, of_group).one(), connection.execute(_UNRESOLVED, of_group).all()
    newest_first = sorted(rows, key=attrgetter("nth"), reverse=True)
    incidents = [_Incident(list(each)) for _, each in groupby(newest_first, key=attrgetter("nth"))]
    joinable = [each for each in incidents if each.is_joinable(now=now)]
    joinable.sort(key=lambda each: first.pipeline_id not in each.pipelines)
    tried = [each for each in joinable if first.pipeline_id in each.pipelines or each.nth == last_nth]
    incident = next((each for each in tried if each.add(first)), None)
    if incident is not None and only_begins:
        return None
    waiting = [each for each in others if each.problem_id != first.problem_id]
    members = [first, *(each for each in waiting if incident is None or incident.add(each))]
    if incident is not None:
        row = {"nth": incident.nth, "begun_at": incident.begun_at, "outside_count": incident.outside_count}
    else:
        in_trouble = {each.pipeline_id for each in rows if each.closed_at is None}
        outside_count = len(in_trouble - {each.pipeline_id for each in members} - {None})
        row = {"nth": last_nth + 1, "begun_at": now, "outside_count": outside_count}
    key = uuid5(NAMESPACE, f"incident/{group.hex()}/{row['nth']}").bytes
    row |= {"of_sink": sink_id, "key": key, "group_key": group, "at_trigger": incident is None}
    connection.execute(_JOIN, [row | {"of_problem": each.problem_id} for each in members])
    others[:] = [each for each in waiting if each not in members]
    return key


def begin_own(connection: Connection, sink_id: int, problem_id: bytes, *, now: Micros) -> bytes:
    """Make a problem an incident of its own, whose key is the problem's id; return that key."""
    own = {"key": problem_id, "group_key": None, "nth": 1, "begun_at": now, "at_trigger": True, "outside_count": 0}
    connection.execute(_JOIN, own | {"of_problem": problem_id, "of_sink": sink_id})
    return problem_id


def load_incident(connection: Connection, sink_id: int, key: bytes) -> Incident:
    """Return an incident with its open problems as they are now."""
    rows = sorted(connection.execute(_OPEN, {"of_sink": sink_id, "of_key": key}), key=attrgetter("opened_at", "id"))
    problems = [IncidentProblem(problem_of(row), row.account, row.pipeline, row.body) for row in rows]
    acked = [until for row in rows if (until := acked_until(row)) is not None]
    all_until = min(acked, default=None) if len(acked) == len(rows) else None
    return Incident(UUID(bytes=key), problems, all_until)


def note_settled(connection: Connection, sink_id: int, attempts: Iterable[AttemptRecord]) -> None:
    """Update incidents after deliveries about them were settled.

    A problem leaves its incident if its opening was settled without being sent. An incident is resolved once the
    receiver took a delivery that was sent when no problem of the incident was open.
    """
    left, resolved = set[bytes](), set[bytes]()
    for delivery, state, tried in map(attrgetter("delivery", "state", "tried"), attempts):
        if delivery.opens and not tried:
            left.add(delivery.problem.bytes)
        elif not delivery.incident.problems and state in TAKEN:
            resolved.add(delivery.incident.key.bytes)
    if left:
        connection.execute(_LEAVE, [{"of_problem": each, "of_sink": sink_id} for each in sorted(left)])
    if resolved:
        connection.execute(_RESOLVED, [{"of_key": each, "of_sink": sink_id} for each in sorted(resolved)])
