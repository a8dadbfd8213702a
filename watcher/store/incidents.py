"""Incidents: each is one or more problems that a pager shows as one.

A problem joins an incident in the transaction that takes its opening, before the opening is sent. The problem never
moves to another incident.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from uuid import UUID, uuid5

from sqlalchemy import Connection, text

from watcher.domain.delivery import TAKEN, AttemptRecord
from watcher.domain.envelope import NAMESPACE
from watcher.domain.event import EventType
from watcher.domain.problems import Incident, IncidentProblem, Severity, severity_of
from watcher.domain.timestamps import Micros
from watcher.store.problems import acked_until, problem_of
from watcher.store.tables import AnyRow

JOINABLE_FOR_US = 600_000_000
"""Time for which an incident accepts further problems, from its first trigger on.

A pager alerts nobody again for a key that it already shows, so later problems begin the group's next incident.
"""

GroupOf = Callable[[AnyRow], bytes | None]
"""A function that returns the group of an opening's row; `None` if the problem becomes an incident of its own."""

FURTHER_COUNT = 3
"""The further pipelines that an incident accepts in any case."""

_SEVERITIES = tuple(Severity)  # the highest first

_OF_PROBLEM = " FROM incident WHERE problem_id = :of_problem AND sink_id = :of_sink"
_MEMBER, _LEAVE = text(f"SELECT key{_OF_PROBLEM}"), text(f"DELETE{_OF_PROBLEM}")
_OF_GROUP = "incident.sink_id = :of_sink AND incident.group_key = :of_group"
_JOINABLE = text(
    "SELECT nth, begun_at, at_trigger, outside_count, kind, pipeline_id, told_count, closed_at FROM incident"
    f" JOIN problem ON problem.id = incident.problem_id WHERE {_OF_GROUP}"
    " AND begun_at > :begun_after AND begun_at <= :now ORDER BY nth DESC"
)
_LAST_NTH = text(f"SELECT coalesce(max(nth), 0) FROM incident WHERE {_OF_GROUP}")
_IN_TROUBLE = text(
    f"SELECT pipeline_id FROM incident JOIN problem ON problem.id = incident.problem_id WHERE {_OF_GROUP}"
    " AND NOT resolved AND closed_at IS NULL AND pipeline_id IS NOT NULL"
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


class _Joinable:
    """An incident that may accept further problems. `rows` are its problems."""

    def __init__(self, rows: Sequence[AnyRow]) -> None:
        self.nth, self.begun_at, self.outside_count = rows[0].nth, rows[0].begun_at, rows[0].outside_count
        is_acknowledged = any(row.told_count for row in rows)  # or was: the acknowledgement may be withdrawn
        self.is_open = any(row.closed_at is None for row in rows) and not is_acknowledged
        at_trigger = [row for row in rows if row.at_trigger]  # none: a version without limits began it
        self._highest = min((_rank(row.kind) for row in at_trigger), default=len(_SEVERITIES))
        self.pipelines = {row.pipeline_id for row in rows} - {None}
        first_count = len({row.pipeline_id for row in at_trigger} - {None})
        self._most_count = first_count + max(FURTHER_COUNT, first_count + self.outside_count)

    def accepts(self, opening: AnyRow) -> bool:
        """Return whether the problem of an opening may join. A problem of no pipeline needs no room."""
        has_room = {None, *self.pipelines} >= {opening.pipeline_id} or len(self.pipelines) < self._most_count
        return has_room and _rank(opening.type) >= self._highest

    def add(self, opening: AnyRow) -> bool:
        """Add the pipeline of an opening if its problem may join; return whether it may."""
        if accepts := self.accepts(opening):
            self.pipelines |= {opening.pipeline_id} - {None}
        return accepts


def _rank(kind: str) -> int:
    return _SEVERITIES.index(severity_of(EventType(kind)))


def key_of(connection: Connection, sink_id: int, problem_id: bytes) -> bytes | None:
    """Return the key of the incident that holds a problem at a sink; `None` if there is none."""
    key: bytes | None = connection.scalar(_MEMBER, {"of_problem": problem_id, "of_sink": sink_id})
    return key


def join(
    connection: Connection, sink_id: int, first: AnyRow, others: Iterable[AnyRow], *, group_of: GroupOf, now: Micros
) -> bytes:
    """Add the problem of an opening to an incident of its group, or begin the group's next one; return its key.

    `others` are further openings that may be sent together with `first`. Those of the same group that the incident
    accepts join it, too: a new incident accepts them all. An incident accepts problems for ten minutes from its first
    trigger, until one of its problems is acknowledged or all are closed; of pipelines that are not yet in it as many
    as had open problems in its group when it was triggered, at least `FURTHER_COUNT`; and none of a higher severity
    than it was triggered with. docs/alerts.md gives the reasons.
    """
    group = group_of(first)
    if group is None:
        return begin_own(connection, sink_id, first.problem_id, now=now)
    of_group = {"of_sink": sink_id, "of_group": group, "now": now, "begun_after": now - JOINABLE_FOR_US}
    by_nth = groupby(connection.execute(_JOINABLE, of_group).all(), key=attrgetter("nth"))
    joinable = [each for each in (_Joinable(list(rows)) for _, rows in by_nth) if each.is_open]
    its_own = [each for each in joinable if first.pipeline_id in each.pipelines]
    incident = next((each for each in (*its_own, *joinable[:1]) if each.add(first)), None)
    members = [first]
    waiting = [each for each in others if each.problem_id != first.problem_id and group_of(each) == group]
    if incident is not None:
        members += filter(incident.add, waiting)
        row = {"nth": incident.nth, "begun_at": incident.begun_at, "outside_count": incident.outside_count}
    else:
        members += waiting
        in_trouble = set(connection.scalars(_IN_TROUBLE, of_group)) - {each.pipeline_id for each in members}
        nth = connection.scalars(_LAST_NTH, of_group).one() + 1
        row = {"nth": nth, "begun_at": now, "outside_count": len(in_trouble)}
    key = uuid5(NAMESPACE, f"incident/{group.hex()}/{row['nth']}").bytes
    row |= {"of_sink": sink_id, "key": key, "group_key": group, "at_trigger": incident is None}
    connection.execute(_JOIN, [row | {"of_problem": each.problem_id} for each in members])
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
