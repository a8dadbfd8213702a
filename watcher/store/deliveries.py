"""The deliveries of a sink: writes the results of attempts, and takes the deliveries that may be sent next.

A head is the earliest pending delivery of its ordering key at its sink. It is sent before, or together with, the
deliveries that it blocks. A blocked delivery is due no earlier than its head, so due heads come first in the index,
however many deliveries are blocked.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from operator import attrgetter, itemgetter
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from watcher.domain.delivery import TOGETHER_COUNT, AttemptRecord, Delivery, DeliveryState, MessagePlace, ProblemMessage
from watcher.domain.event import EventType
from watcher.domain.problems import CLOSINGS, PROBLEM_KINDS, TROUBLED_ENDS
from watcher.domain.timestamps import Micros
from watcher.store.changes import Backlog, Take, Taken, Turn
from watcher.store.database import HotStatement
from watcher.store.incidents import begin_own, join, key_of, load_incident, note_settled
from watcher.store.problems import MESSAGE_OF_FAILING, MESSAGE_OF_PROBLEM, acked_until
from watcher.store.sources import SourceNumbers, sink
from watcher.store.tables import OPENS, AnyRow

CALLED_WITHIN_US = 45_000_000
"""Time over which the tried deliveries of a sink are spread when its circuit breaker closes.

An open circuit breaker waits at most 30 s, so these deliveries are due within 75 s after the receiver works again.
"""

TOGETHER_AT_MOST = 1_000
"""Most deliveries about one incident in one batch."""

_SPREAD = 7919
"""A prime factor that spreads deliveries evenly over time, whatever the numbers of their events."""

_ATTEMPT_COLUMNS = (
    *("state", "attempts", "due_at", "rejections", "tried", "tried_at", "first_due_us", "settled_at", "answer"),
    "group_key",
)
# `+ 0` and `|| ''` keep a database from searching the index `delivery_due`, which holds all pending deliveries of a
# sink, perhaps a million. It uses the primary key instead, or the index of ordering keys or groups (test_plans.py).
_WRITE_ATTEMPT = HotStatement(
    f"UPDATE delivery SET {', '.join(f'{name} = :new_{name}' for name in _ATTEMPT_COLUMNS)}"
    " WHERE sink_id = :of_sink AND number = :of_number AND state || '' = 'waiting'"
)
_POSTPONE_BLOCKED = HotStatement(
    "UPDATE delivery SET due_at = :new_due_at WHERE sink_id + 0 = :of_sink AND state = 'waiting'"
    " AND ordering_key = :of_key AND number > :of_number AND due_at + 0 < :new_due_at"
)
UNBLOCK = HotStatement(
    "UPDATE delivery SET due_at = CASE WHEN group_key IS NOT NULL AND :now < recorded_at + :group_wait_us"
    " THEN recorded_at + :group_wait_us ELSE :now END WHERE sink_id + 0 = :of_sink AND state = 'waiting'"
    " AND ordering_key = :of_key AND number > :of_number AND due_at + 0 > :now"
)
_CALLED_AT = (
    "(:now + CASE WHEN group_key IS NOT NULL THEN 0"  # deliveries of a group are due at once, so that they go together
    f" ELSE (number * {_SPREAD} % {CALLED_WITHIN_US // 1_000}) * 1000 END)"
)
CALL_FORWARD = text(
    f"UPDATE delivery SET due_at = {_CALLED_AT}"
    f" WHERE sink_id = :of_sink AND state = 'waiting' AND tried = true AND due_at > {_CALLED_AT}"
)
"""Makes all pending deliveries that were tried before due within 45 s, evenly spread."""

EARLIER = (
    "(SELECT max(earlier.number) FROM delivery AS earlier WHERE earlier.sink_id + 0 = delivery.sink_id"
    " AND earlier.ordering_key = delivery.ordering_key AND earlier.number < delivery.number"
    " AND earlier.state = 'waiting')"
)
# `<= 0` instead of IS NULL: PostgreSQL assumes that one row in 200 is NULL, and would choose a plan for many rows.
IS_HEAD = f"delivery.sink_id = :of_sink AND delivery.state = 'waiting' AND coalesce({EARLIER}, 0) <= 0"
_OF_EVENT = ("event_id", "type", "account", "pipeline", "pipeline_id", "labels", "problem_id", "closes", "body")
_IS_FOLLOWED = (
    "EXISTS (SELECT 1 FROM delivery AS later WHERE later.sink_id + 0 = delivery.sink_id"
    " AND later.ordering_key = delivery.ordering_key AND later.number > delivery.number"
    " AND later.state = 'waiting') AS is_followed"
)
_AS_TAKEN = ", ".join(["delivery.*", *(f"event.{name}" for name in _OF_EVENT), _IS_FOLLOWED])
_HEADS = f"SELECT {_AS_TAKEN} FROM delivery JOIN event ON event.id = delivery.number WHERE {IS_HEAD}"
_IN_TURN = f"{_HEADS} AND delivery.tried = %s ORDER BY delivery.due_at, delivery.recorded_at LIMIT :limit"
_NEVER_TRIED = text(_IN_TURN % "false")
HEADS = HotStatement(
    f"SELECT * FROM ({_IN_TURN % 'false'}) AS never_tried UNION ALL SELECT * FROM ({_IN_TURN % 'true'}) AS tried"
)
"""Selects heads of a sink by due time: at most `:limit` that were never tried, and as many that were tried.

The database reads along the index, without a sort.
"""
_TRIED_LONGEST_AGO = text(f"{_HEADS} AND delivery.tried = true ORDER BY delivery.tried_at LIMIT :limit")
_KINDS = ", ".join(f"'{kind}'" for kind in sorted(PROBLEM_KINDS))
_OF_INCIDENTS = (
    " FROM incident JOIN problem ON problem.id = incident.problem_id"
    " JOIN event AS opening ON opening.stream = problem.stream AND opening.sequence = problem.sequence"
    " JOIN delivery AS first ON first.number = opening.id AND first.sink_id = incident.sink_id"
    " JOIN delivery ON delivery.ordering_key = first.ordering_key AND delivery.sink_id + 0 = first.sink_id"
    " JOIN event ON event.id = delivery.number AND event.problem_id = problem.id"
    " WHERE incident.sink_id = :of_sink AND delivery.state = 'waiting' AND "
)
_WAITING_OF_INCIDENT = text(
    f"SELECT {_AS_TAKEN}, {EARLIER} AS earlier{_OF_INCIDENTS} incident.key = :of_key LIMIT :limit"
)
_INCIDENTS_WITH_NEWS = text(
    f"SELECT DISTINCT incident.key{_OF_INCIDENTS} NOT incident.resolved AND delivery.tried = false"
    f" AND (delivery.due_at <= :now OR event.type NOT IN ({_KINDS}))"
)
_NEXT_DUE = text(
    "SELECT number, problem_id, ordering_key, type, account, pipeline, pipeline_id, labels, delivery.recorded_at,"
    f" {EARLIER} AS earlier FROM delivery"
    " JOIN event ON event.id = delivery.number WHERE delivery.sink_id = :of_sink AND delivery.state = 'waiting'"
    " AND delivery.tried = false AND delivery.due_at <= :until AND NOT EXISTS (SELECT 1 FROM incident WHERE"
    " incident.problem_id = event.problem_id AND incident.sink_id = delivery.sink_id)"
    " ORDER BY delivery.due_at LIMIT :limit"
)
_WAIT_FOR_GROUP = text("UPDATE delivery SET due_at = :until WHERE sink_id = :of_sink AND number = :of_number")
_OF_GROUP = (
    f"SELECT {_AS_TAKEN}, {EARLIER} AS earlier FROM delivery JOIN event ON event.id = delivery.number"
    " WHERE delivery.sink_id + 0 = :of_sink AND delivery.state = 'waiting' AND delivery.group_key = :of_group"
    f" AND (delivery.tried = false AND (delivery.recorded_at <= :recorded_by OR event.type NOT IN ({_KINDS}))"
    " OR delivery.due_at <= :now){}"
    " ORDER BY delivery.number LIMIT :limit"
)
_MEMBERS = text(_OF_GROUP.format(""))
_MEMBERS_OF_TRIAL = text(_OF_GROUP.format(f" AND delivery.attempts < {TOGETHER_COUNT}"))
_OPENING = text(
    "SELECT closed_at, event_count, acked_at, acked_until, delivery.state, delivery.tried, delivery.answer FROM problem"
    f" LEFT JOIN event ON {OPENS} LEFT JOIN delivery ON delivery.number = event.id AND delivery.sink_id = :of_sink"
    " WHERE problem.id = :of_problem"
)

# A head of a group that was not tried waits for its group alone.
_FAILING_OPENING = text(
    f"SELECT delivery.state FROM problem JOIN event ON {OPENS} JOIN delivery ON delivery.number = event.id"
    " WHERE problem.pipeline_id = :of_pipeline AND problem.closed_at IS NULL AND problem.execution IS NULL"
    " AND problem.kind = 'pipeline.failing' AND delivery.sink_id = :of_sink AND (delivery.state IN"
    " ('delivered', 'accepted') OR delivery.state = 'waiting' AND NOT tried AND group_key IS NOT NULL"
    f" AND coalesce({EARLIER}, 0) <= 0) LIMIT 1"
)


def settle(connection: Connection, turns: Iterable[Turn], *, numbers: SourceNumbers, now: Micros) -> None:
    """Write the results of attempts.

    A delivery that is blocked by a failed one is postponed to the next attempt of the failed one. A delivery that was
    blocked by a settled one becomes due. A delivery that is already settled stays as it is: the same result may have
    been written before.
    """
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    freed: list[dict[str, Any]] = []
    for turn in turns:
        sink_id = numbers[sink(turn.lease.name)]
        of_incidents: list[AttemptRecord] = []
        for attempt in turn.attempts:
            if attempt.delivery.incident is not None:
                of_incidents.append(attempt)
            is_waiting, delivery = attempt.state is DeliveryState.WAITING, attempt.delivery
            first_due_at_s = delivery.first_due_at_s
            row = {
                "of_sink": sink_id,
                "of_number": delivery.number,
                "of_key": delivery.ordering_key,
                "new_state": attempt.state,
                "new_attempts": delivery.attempts,
                "new_due_at": delivery.due_at,
                "new_rejections": delivery.rejections,
                "new_tried": attempt.tried and not (is_waiting and delivery.attempts == 0),  # not a postponed opening
                "new_tried_at": delivery.tried_at,
                "new_first_due_us": None if first_due_at_s is None else round(first_due_at_s * 1e6),
                "new_settled_at": None if is_waiting else now,
                "new_answer": attempt.answer,
                "new_group_key": delivery.group_key,
                "now": now,
                "group_wait_us": round(turn.group_wait_s * 1e6),
            }
            rows.append(row)
            if is_waiting:
                failed.append(row)
            elif delivery.attempts > (attempt.state is not DeliveryState.SILENCED):
                freed.append(row)  # tried before: one that succeeds at once has postponed no other
        if of_incidents:
            note_settled(connection, sink_id, of_incidents)
    if rows:
        rows.sort(key=itemgetter("of_number", "of_sink"))
        _WRITE_ATTEMPT.run(connection, *rows)
    if failed:
        _POSTPONE_BLOCKED.run(connection, *failed)
    if freed:
        UNBLOCK.run(connection, *freed)


def take(connection: Connection, sink_id: int, *, name: str, request: Take) -> Taken:
    """Return the deliveries that a sink may send: heads that are due, each with others of its group or incident."""
    batches: list[list[Delivery]] = []
    taken: set[int] = set()
    groups: set[bytes] = set()  # those with a batch; the rest of such a group is left for the next `Take`
    later_due: list[Micros] = []
    of_sink = {"of_sink": sink_id, "limit": request.count + len(request.skip) + 1}  # one head per skipped key
    if request.trial is None:
        heads = sorted(HEADS.run(connection, of_sink), key=attrgetter("tried", "due_at", "recorded_at"))
    else:
        trial = _NEVER_TRIED if request.trial == "never_tried" else _TRIED_LONGEST_AGO
        heads = list(connection.execute(trial, of_sink))
    is_full = len(heads) >= of_sink["limit"]
    blocking: set[bytes] = {row.ordering_key for row in heads if row.is_followed}
    if request.incidents is not None:
        batches, heads = _take_incidents(
            connection, sink_id, heads, name=name, request=request, blocking=blocking, later_due=later_due
        )
    for row in heads:
        if row.ordering_key in request.skip or row.number in taken:
            continue
        if not _may_be_sent(row, request) or row.group_key in groups or len(batches) >= request.count:
            later_due.append(row.due_at)
            continue
        members = [row]
        if row.group_key is not None:
            members = _members(connection, sink_id, row, request)
            groups.add(row.group_key)
        blocking.update(member.ordering_key for member in members if member.is_followed)
        taken.update(member.number for member in members)
        batches.append([_with_problem(connection, sink_id, each, name=name, request=request) for each in members])
    if is_full and batches:  # more heads may be due; if no batch was taken, these are due first
        later_due.append(request.now)
    return Taken(batches, min(later_due, default=None), frozenset(blocking))


def _may_be_sent(row: AnyRow, request: Take) -> bool:
    # A delivery that was not tried, has no group and is no waiting opening was due when it was recorded. The due
    # time is not compared with the clock, which may have been set back since.
    waits = row.tried or row.group_key or (row.type in PROBLEM_KINDS and (request.incidents or request.after_s))
    return row.due_at <= request.now or not waits or request.trial == "tried_longest_ago"


def _take_incidents(
    connection: Connection,
    sink_id: int,
    heads: Iterable[AnyRow],
    *,
    name: str,
    request: Take,
    blocking: set[bytes],
    later_due: list[Micros],
) -> tuple[list[list[Delivery]], list[AnyRow]]:
    """Return a batch for each incident with deliveries to send, and the heads that are in no batch.

    A batch has all pending deliveries of its incident. One new delivery makes the batch go at once, even if another
    delivery of the incident is to be retried later. The key of a skipped incident with deliveries to send is added to
    `blocking`. If an opening waits for its group, `request.now` is added to `later_due`.
    """
    joining = _Joining(connection, sink_id, name, request)
    found: dict[bytes, dict[int, AnyRow]] = {}
    others: list[AnyRow] = []
    for row in heads:
        may_join = row.problem_id is not None and row.ordering_key not in request.skip and _may_be_sent(row, request)
        incident_key = joining.key_of(row) if may_join else None
        if incident_key is None:
            others.append(row)
        elif incident_key == _WAITS_FOR_GROUP:
            later_due.append(request.now)
        elif incident_key in request.skip:
            blocking.add(incident_key)
        else:
            found.setdefault(incident_key, {})[row.number] = row
    key = {"of_sink": sink_id, "now": request.now, "limit": TOGETHER_AT_MOST}
    if request.trial != "tried_longest_ago":
        for incident_key in connection.scalars(_INCIDENTS_WITH_NEWS, key).all():
            if incident_key not in request.skip:
                found.setdefault(incident_key, {})
    batches: list[list[Delivery]] = []
    for incident_key, rows in found.items():
        if len(batches) == request.count:
            others += rows.values()
            continue
        waiting_rows = connection.execute(_WAITING_OF_INCIDENT, key | {"of_key": incident_key})
        for row in sorted(waiting_rows, key=attrgetter("number")):
            if row.earlier is None or row.earlier in rows:
                rows[row.number] = row
        incident = load_incident(connection, sink_id, incident_key)
        batch = [_with_problem(connection, sink_id, row, name=name, request=request) for _, row in sorted(rows.items())]
        blocking.update(row.ordering_key for row in rows.values() if row.is_followed)
        if batch:
            batches.append([replace(each, incident=incident) for each in batch])
    return batches, others


_WAITS_FOR_GROUP = b""
"""The answer of `_Joining.key_of` for an opening that waits for its group before it joins an incident."""


class _Joining:
    """The incidents of one sink that due deliveries belong to, join or begin."""

    def __init__(self, connection: Connection, sink_id: int, name: str, request: Take) -> None:
        assert request.incidents is not None
        self._connection, self._sink_id, self._name, self._request = connection, sink_id, name, request
        self._rules = request.incidents
        self._after_us, self._wait_us = round(request.after_s * 1e6), round(self._rules.wait_s * 1e6)

    def key_of(self, row: AnyRow) -> bytes | None:
        """Return the key of the incident of a due delivery; `None` if the delivery is sent without an incident."""
        incident_key = key_of(self._connection, self._sink_id, row.problem_id)
        if incident_key is not None:
            return incident_key
        if row.type in PROBLEM_KINDS and not row.tried:
            return self._join(row)
        # a version without incidents may have sent the opening
        about = _with_opening(self._connection, self._sink_id, UUID(bytes=row.problem_id), _delivery(row, self._name))
        if not about.is_opening_sent:
            return None
        if about.is_problem_open:
            return begin_own(self._connection, self._sink_id, row.problem_id, now=self._request.now)
        return cast("bytes", row.problem_id)

    def _join(self, row: AnyRow) -> bytes:
        """Join or begin an incident with an opening that was never tried, or let the opening wait for its group.

        An opening that has waited for `after` and would only join an incident, which the pager shows already, waits for
        its group, too: each of a storm would be a request.
        """
        now, group = self._request.now, self._group_of(row)
        after_at = row.recorded_at + self._after_us
        waits_until = after_at + self._wait_us if self._after_us and after_at <= row.due_at else now
        incident_key = join(
            self._connection,
            self._sink_id,
            row,
            self._never_tried[group] if group is not None else [],
            group=group,
            now=now,
            only_begins=waits_until > now,
        )
        if incident_key is None:
            key = {"of_sink": self._sink_id, "of_number": row.number, "until": waits_until}
            self._connection.execute(_WAIT_FOR_GROUP, key)
            return _WAITS_FOR_GROUP
        return incident_key

    def _group_of(self, row: AnyRow) -> bytes | None:
        labels = labels_of(row.labels)
        return self._rules.group_of(self._name, account=row.account, pipeline=row.pipeline, labels=labels)

    @cached_property
    def _never_tried(self) -> Mapping[bytes | None, list[AnyRow]]:
        """The openings that may join an incident, by group. With `after` only those that have waited for it."""
        by_group, now = defaultdict[bytes | None, list[AnyRow]](list), self._request.now
        key = {"of_sink": self._sink_id, "now": now, "limit": TOGETHER_AT_MOST, "until": now + self._wait_us}
        for row in sorted(self._connection.execute(_NEXT_DUE, key), key=attrgetter("number")):
            is_free = row.earlier is None and row.ordering_key not in self._request.skip
            if (
                row.type in PROBLEM_KINDS
                and is_free
                and (not self._after_us or row.recorded_at + self._after_us <= now)
            ):
                by_group[self._group_of(row)].append(row)
        return by_group


def _members(connection: Connection, sink_id: int, first: AnyRow, request: Take) -> list[AnyRow]:
    """Return a head with the deliveries of its group that may go in the same request.

    In a trial a delivery that has failed `TOGETHER_COUNT` times goes alone, and never with others: a body that the
    receiver cannot take would make the request fail and keep the circuit breaker open.
    """
    if request.trial is not None and first.attempts >= TOGETHER_COUNT:
        return [first]
    limit = request.group_count + len(request.skip)
    by = {"now": request.now, "recorded_by": request.now - round(request.after_s * 1e6)}
    key = {"of_sink": sink_id, "of_group": first.group_key, "limit": limit, **by}
    members = {first.number: first}
    for row in connection.execute(_MEMBERS if request.trial is None else _MEMBERS_OF_TRIAL, key):
        is_free = row.earlier is None or row.earlier in members
        if is_free and row.ordering_key not in request.skip:
            members.setdefault(row.number, row)
    return [row for _, row in sorted(members.items())][: request.group_count]


_AS_READ = (
    *("number", "type", "body", "recorded_at", "due_at", "attempts", "rejections", "tried_at", "group_key"),
    *("account", "pipeline"),
)
_as_read = attrgetter(*_AS_READ)


def _delivery(row: AnyRow, name: str) -> Delivery:
    return Delivery(
        sink=name,
        ordering_key=row.ordering_key,
        event_id=UUID(bytes=row.event_id),
        first_due_at_s=None if row.first_due_us is None else row.first_due_us / 1_000_000,
        replayed=bool(row.replayed),
        labels=labels_of(row.labels),
        problem=None if row.problem_id is None else UUID(bytes=row.problem_id),
        closes=bool(row.closes),
        only_closes=bool(row.only_closes),
        **dict(zip(_AS_READ, _as_read(row), strict=True)),
    )


@lru_cache(maxsize=1024)
def labels_text(labels: tuple[tuple[str, str], ...]) -> str | None:
    """Return the text that stores these labels; `None` without labels."""
    return json.dumps(dict(labels)) if labels else None


@lru_cache(maxsize=1024)
def labels_of(text: str | None) -> dict[str, str]:
    """Return the labels that a stored text holds."""
    return {} if text is None else json.loads(text)


def _with_problem(connection: Connection, sink_id: int, row: AnyRow, *, name: str, request: Take) -> Delivery:
    """Return the delivery of a row, with the state of its problem and the sink's messages where these are needed."""
    sent = _delivery(row, name)
    if request.covers and sent.type == EventType.EXECUTION_FAILED:
        found = connection.scalar(_FAILING_OPENING, {"of_sink": sink_id, "of_pipeline": row.pipeline_id})
        sent = replace(sent, failing_opening=found and DeliveryState(found))
    if sent.problem is None and not request.with_messages:
        return sent
    follows_opening = sent.closes or sent.type in {EventType.PROBLEM_REMINDER, EventType.PROBLEM_ACKNOWLEDGED}
    is_deferred = request.after_s > 0 and sent.opens
    if sent.problem is not None and (follows_opening or is_deferred or sent.replayed):
        sent = _with_opening(connection, sink_id, sent.problem, sent)
    key: dict[str, Any] = {"of_sink": sink_id, "of_pipeline": f"{sent.account}/{sent.pipeline}"}
    if request.with_messages and sent.problem is not None:
        sent = replace(sent, message=_message(connection, MESSAGE_OF_PROBLEM, key | {"of_problem": sent.problem.bytes}))
    if request.with_messages and sent.type in TROUBLED_ENDS:
        sent = replace(sent, thread=_message(connection, MESSAGE_OF_FAILING, key))
    return sent


def _message(connection: Connection, statement: TextClause, key: dict[str, Any]) -> ProblemMessage | None:
    row = connection.execute(statement, key).one_or_none()
    if row is None:
        return None
    return ProblemMessage(UUID(bytes=row.problem_id), MessagePlace(row.channel, row.number), row.body)


def _with_opening(connection: Connection, sink_id: int, problem_id: UUID, sent: Delivery) -> Delivery:
    rows = connection.execute(_OPENING, {"of_problem": problem_id.bytes, "of_sink": sink_id}).all()
    if not rows:  # retention deletes a problem long after it was closed
        return replace(sent, is_problem_open=False)
    # A previous owner may have sent an opening that was tried and is silenced now: its closing is sent. An
    # acknowledgement is silenced until the opening is released, because it must come after the opening.
    was_sent = [
        row.state != DeliveryState.SILENCED or bool(row.tried and sent.closes) for row in rows if row.state is not None
    ]
    # Retention may have deleted the delivery of the opening. A closing shows that there was one, because it is recorded
    # only for sinks that got a delivery of the opening.
    is_sent = any(was_sent) if was_sent else sent.type in CLOSINGS
    sent = replace(sent, is_opening_sent=is_sent, silenced_as=None if is_sent else rows[-1].answer)
    row, until = rows[0], acked_until(rows[0])
    return replace(sent, is_problem_open=row.closed_at is None, problem_event_count=row.event_count, acked_until=until)


_BACKLOG = text(
    "SELECT source.name, pending, oldest, due FROM source JOIN (SELECT sink_id, count(*) AS pending,"
    " min(CASE WHEN tried = true THEN recorded_at ELSE due_at END) AS oldest, min(due_at) AS due"
    " FROM delivery WHERE state = 'waiting' GROUP BY sink_id) AS counted ON counted.sink_id = source.id"
)


def backlog(connection: Connection) -> dict[str, Backlog]:
    """Return the backlog of each sink with pending deliveries, by the name of the sink. Only the index is read."""
    return {row.name: Backlog(row.pending, row.oldest, row.due) for row in connection.execute(_BACKLOG)}
