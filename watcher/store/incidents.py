"""Incidents: each is one or more problems that a pager shows as one.

A problem joins an incident in the transaction that takes its opening, before the opening is sent. The problem never
moves to another incident.
"""

from collections.abc import Callable, Iterable
from operator import attrgetter
from uuid import UUID, uuid5

from sqlalchemy import Connection, text

from watcher.domain.delivery import TAKEN, AttemptRecord
from watcher.domain.envelope import NAMESPACE
from watcher.domain.problems import Incident, IncidentProblem
from watcher.domain.timestamps import Micros
from watcher.store.problems import acked_until, problem_of
from watcher.store.tables import AnyRow

JOINABLE_FOR_US = 600_000_000
"""Time for which an incident accepts further problems, from its first trigger on.

A pager alerts nobody again for a key that it already shows, so later problems begin the group's next incident.
"""

GroupOf = Callable[[AnyRow], bytes | None]
"""A function that returns the group of an opening's row; `None` if the problem becomes an incident of its own."""

_OF_PROBLEM = " FROM incident WHERE problem_id = :of_problem AND sink_id = :of_sink"
_MEMBER, _LEAVE = text(f"SELECT key{_OF_PROBLEM}"), text(f"DELETE{_OF_PROBLEM}")
_NEWEST = text(
    "SELECT max(incident.nth) AS nth, min(incident.begun_at) AS begun_at, sum(problem.told_count) AS acked_count,"
    " count(problem.id) - count(problem.closed_at) AS open_count"
    " FROM incident LEFT JOIN problem ON problem.id = incident.problem_id"
    " WHERE incident.sink_id = :of_sink AND incident.group_key = :of_group AND incident.nth ="
    " (SELECT max(nth) FROM incident WHERE sink_id = :of_sink AND group_key = :of_group)"
)
_JOIN = text(
    "INSERT INTO incident (problem_id, sink_id, key, group_key, nth, begun_at)"
    " VALUES (:of_problem, :of_sink, :key, :group_key, :nth, :begun_at) ON CONFLICT DO NOTHING"
)
_OPEN = text(
    "SELECT problem.*, event.account, event.pipeline, event.body FROM incident"
    " JOIN problem ON problem.id = incident.problem_id"
    " LEFT JOIN event ON event.stream = problem.stream AND event.sequence = problem.sequence"
    " WHERE incident.sink_id = :of_sink AND incident.key = :of_key AND problem.closed_at IS NULL"
)
_RESOLVED = text("UPDATE incident SET resolved = true WHERE sink_id = :of_sink AND key = :of_key")


def key_of(connection: Connection, sink_id: int, problem_id: bytes) -> bytes | None:
    """Return the key of the incident that holds a problem at a sink; `None` if there is none."""
    key: bytes | None = connection.scalar(_MEMBER, {"of_problem": problem_id, "of_sink": sink_id})
    return key


def join(
    connection: Connection, sink_id: int, first: AnyRow, others: Iterable[AnyRow], *, group_of: GroupOf, now: Micros
) -> bytes:
    """Add the problem of an opening to the newest incident of its group, or begin the next one; return its key.

    `others` are openings that wait for their group. Those of the same group join the incident, too. An incident accepts
    problems for ten minutes from its first trigger, until one of its problems is acknowledged or all are closed.
    """
    group = group_of(first)
    if group is None:
        return begin_own(connection, sink_id, first.problem_id, now=now)
    newest = connection.execute(_NEWEST, {"of_sink": sink_id, "of_group": group}).one()
    nth, begun_at = newest.nth, newest.begun_at
    if not newest.open_count or newest.acked_count or not begun_at <= now < begun_at + JOINABLE_FOR_US:
        nth, begun_at = (nth or 0) + 1, now
    key = uuid5(NAMESPACE, f"incident/{group.hex()}/{nth}").bytes
    row = {"of_sink": sink_id, "key": key, "group_key": group, "nth": nth, "begun_at": begun_at}
    members = [first, *(each for each in others if group_of(each) == group)]
    connection.execute(_JOIN, [row | {"of_problem": each.problem_id} for each in members])
    return key


def begin_own(connection: Connection, sink_id: int, problem_id: bytes, *, now: Micros) -> bytes:
    """Make a problem an incident of its own, whose key is the problem's id; return that key."""
    own = {"key": problem_id, "group_key": None, "nth": 1, "begun_at": now}
    connection.execute(_JOIN, own | {"of_problem": problem_id, "of_sink": sink_id})
    return problem_id


def load_incident(connection: Connection, sink_id: int, key: bytes) -> Incident:
    """Return an incident with its open problems as they are now."""
    rows = sorted(connection.execute(_OPEN, {"of_sink": sink_id, "of_key": key}), key=attrgetter("opened_at", "id"))
    problems = [IncidentProblem(problem_of(row), row.account, row.pipeline) for row in rows]
    acked = [until for row in rows if (until := acked_until(row)) is not None]
    all_until = min(acked, default=None) if len(acked) == len(rows) else None
    return Incident(UUID(bytes=key), problems, rows[-1].body if rows else None, all_until)


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
