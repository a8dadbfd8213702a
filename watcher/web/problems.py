"""Reads problems from the store, and makes their models: with their rule, closing condition and remedy in words."""

import json
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, bindparam, func, not_, or_, select, text

from watcher.config.models import PollingSettings, WatchSettings
from watcher.delivery.sink_state import FAILING_AFTER_S
from watcher.domain.envelope import Json, timestamp
from watcher.domain.event import EVENT_KINDS, TROUBLES_WITHOUT_PROBLEM, AccountTrouble, EventType
from watcher.domain.event_factory import with_latest
from watcher.domain.problems import LatestFailure, Problem, ProblemChange, severity_of
from watcher.domain.timestamps import NEVER, Micros, from_us, to_us
from watcher.rules import rules_of
from watcher.runtime.units import spell_duration
from watcher.sinks.alert import Alert, clean
from watcher.store.problems import LAST_ENDED_AT, SLOWEST_FROM, problem_of
from watcher.store.sources import names_of
from watcher.store.sql_store import SqlStore
from watcher.store.tables import event, incident, problem
from watcher.web import listing, models
from watcher.web.console import Console
from watcher.web.events import DETAIL_COUNT, EVENTS, EventsAndDeliveries, with_deliveries
from watcher.web.listing import TOP, ListedRows, Listing, PageReader, Position
from watcher.web.overview import OpenProblemRow

ACCOUNT_REMEDIES: Mapping[str, str] = {
    AccountTrouble.UNAUTHORIZED: "correct the account's api_key; it is tried once a minute",
    AccountTrouble.RATE_LIMITED: "find who else uses the key, or lower rate_limit",
    AccountTrouble.UNREACHABLE: "wait, or check the network, the account's base_url, and proxies",
    AccountTrouble.INVALID: "check the account's base_url: a login page or a gateway may answer",
    AccountTrouble.OVER_BUDGET: "raise rate_limit, or polling.max_interval",
}
"""The remedy by the reason of `account.degraded`. `EVENT_KINDS` has those of other problems."""


class ProblemRow(NamedTuple):
    """A problem with the names of its owner and its pipeline (account/id). Times are microseconds UTC, wall clock."""

    problem: Problem
    opened_at: Micros
    closed_at: Micros | None
    execution: bytes | None
    acked_at: Micros | None
    acked_until: Micros | None
    """The end of the acknowledgement; `None` if it lasts as long as the problem is open."""
    acked_by: str | None
    acked_comment: str | None
    owner_kind: str
    """`account` or `sink`."""
    owner: str
    pipeline_name: str | None
    body: bytes | None
    """The opening of the problem."""
    last_ended_at: Micros | None
    """The last end of an execution of a failing pipeline."""
    slowest_from: Micros | None
    """The start of the slowest execution of an open `pipeline.slow`."""


class TroubleRow(NamedTuple):
    """A problem, or an event about trouble that opens none, for a report. Times are microseconds UTC."""

    pipeline_name: str | None
    body: bytes | None
    opened_at: Micros
    closed_at: Micros | None
    latest: LatestFailure | None = None
    is_acknowledged: bool = False


_LISTING = Listing(problem.c.opened_at, problem.c.id)
_IS_OPEN = problem.c.closed_at.is_(None)
_OF_INCIDENT = select(incident.c.problem_id).where(
    incident.c.key == bindparam("of_incident"), incident.c.sink_id.in_(bindparam("sinks", expanding=True))
)
_PROBLEMS = text(
    "SELECT problem.*, source.kind AS owner_kind, source.name AS owner, pipeline.name AS pipeline_name, body,"
    f" {LAST_ENDED_AT} AS last_ended_at, {SLOWEST_FROM} AS slowest_from FROM problem"
    " JOIN source ON source.id = problem.source_id"
    " LEFT JOIN source AS pipeline ON pipeline.id = problem.pipeline_id"
    " LEFT JOIN event ON event.stream = problem.stream AND event.sequence = problem.sequence WHERE problem.id IN :ids"
).bindparams(bindparam("ids", expanding=True, type_=problem.c.id.type))
_PROBLEM_EVENTS = text(
    f"SELECT event.id, recorded_at, body{listing.WITHOUT_EXECUTION % 'ASC'} WHERE looked_at.problem_id = :of_problem"
)
_NEWS = text(
    f"SELECT account || '/' || pipeline AS pipeline_name, body, recorded_at{listing.WITHOUT_EXECUTION % 'DESC'}"
    " WHERE recorded_at < :until AND looked_at.type IN"
    f" ({', '.join(map(repr, map(str, TROUBLES_WITHOUT_PROBLEM)))})"
)


async def load_problems(
    store: SqlStore,
    *,
    is_open: bool | None = None,
    kinds: Collection[str] = (),
    accounts: Collection[str] = (),
    is_of_pipeline: Callable[[str], bool] | None = None,
    incident_key: UUID | None = None,
    since: Micros = NEVER,
    after: Position | None = None,
    limit: int,
) -> tuple[Sequence[ProblemRow], Position | None]:
    """Return a page of problems: first open ones that nobody acknowledged, then other open ones, then closed ones.

    Each part has the last opened first. `is_of_pipeline` is called with names of pipelines (account/id).
    `incident_key` names an incident of a pager. Raises `StoreError`.
    """
    acked_until = func.coalesce(problem.c.acked_until, TOP)
    is_free = or_(problem.c.acked_at.is_(None), acked_until <= to_us(store.clock.now()))
    conditions = {"o": (_IS_OPEN, is_free), "a": (_IS_OPEN, not_(is_free)), "e": (not_(_IS_OPEN),)}

    def read(connection: Connection) -> tuple[Sequence[ProblemRow], Position | None]:
        # `+ 0` keeps SQLite from searching for open problems in the index of all problems.
        wanted: list[Any] = [problem.c.opened_at + 0 >= since]
        if kinds:
            wanted.append(problem.c.kind.in_(kinds))
        if accounts:
            wanted.append(problem.c.source_id.in_(_numbers(connection, "account", accounts.__contains__)))
        if is_of_pipeline is not None:
            wanted.append(problem.c.pipeline_id.in_(_numbers(connection, "pipeline", is_of_pipeline)))
        if incident_key is not None:
            key = {"of_incident": incident_key.bytes, "sinks": list(names_of(connection, "sink"))}
            wanted.append(problem.c.id.in_(connection.scalars(_OF_INCIDENT, key).all()))

        def read_part(page: PageReader, part: str) -> ListedRows:
            of_part = [*wanted, *conditions[part]]
            scopes = None if part == "e" and incident_key is None else [of_part]
            return page.read(_LISTING._replace(part=part, lowest=since), scopes, of_part)

        parts = {None: "oae", True: "oa", False: "e"}[is_open]
        found, position = PageReader(connection, after, limit).read_parts(parts, read_part)
        return _by_id(connection, [row.key for row in found]), position

    return await store.read(read)


async def load_problems_by_id(store: SqlStore, ids: Sequence[bytes]) -> Sequence[ProblemRow]:
    """Return these problems in this order, without those that the store does not have. Raises `StoreError`."""
    return await store.read(lambda connection: _by_id(connection, ids))


async def load_problem(store: SqlStore, id_: UUID) -> tuple[ProblemRow, EventsAndDeliveries] | None:
    """Return a problem with its last 200 events and their deliveries. Raises `StoreError`."""

    def read(connection: Connection) -> tuple[ProblemRow, EventsAndDeliveries] | None:
        rows = _by_id(connection, [id_.bytes])
        if not rows:
            return None
        (row,) = rows
        opening = row.problem.opening
        of_stream = EVENTS.where(event.c.stream == opening.stream, event.c.sequence >= opening.sequence)
        of_stream = of_stream.where(event.c.problem_id == id_.bytes).order_by(event.c.sequence).limit(DETAIL_COUNT)
        events = list(connection.execute(of_stream))
        if events:  # reminders and acknowledgements have streams of their own
            key = {"since": events[0].recorded_at, "of_problem": id_.bytes}
            events += connection.execute(_PROBLEM_EVENTS, key)
        return row, with_deliveries(connection, {each.id: each.body for each in events})

    return await store.read(read)


async def load_troubles(
    store: SqlStore, *, since: Micros, until: Micros, limit: int, of: Container[str] | None = None
) -> Sequence[TroubleRow]:
    """Return the problems that are open or were closed within a span, then the troubles without a problem.

    With `of` only those of these pipelines (account/id) are returned. At most `limit` problems are read, open ones
    first. Troubles without a problem are in the order of recording. Raises `StoreError`.
    """
    is_of_pipeline = None if of is None else of.__contains__
    rows, position = await load_problems(store, is_of_pipeline=is_of_pipeline, limit=limit)
    while position is not None and len(rows) < limit:  # the problems of others may fill the window of a page
        more, position = await load_problems(store, is_of_pipeline=is_of_pipeline, after=position, limit=limit)
        rows = [*rows, *more]
    rows = [row for row in rows if row.closed_at is None or since <= row.closed_at < until]
    now, span = store.clock.now(), {"since": since, "until": until}
    # Sorted here: for an ORDER BY, PostgreSQL would read all events.
    news = sorted(await store.read(lambda connection: connection.execute(_NEWS, span).all()), key=itemgetter(2))
    found = []
    for row in rows:
        times = row.opened_at, row.closed_at
        found.append(TroubleRow(row.pipeline_name, row.body, *times, row.problem.latest, is_acknowledged(row, now)))
    return found + [TroubleRow(name, body, at, at) for name, body, at in news if of is None or name in of]


def _numbers(connection: Connection, kind: str, is_wanted: Callable[[str], bool]) -> Sequence[int]:
    return [number for number, name in names_of(connection, kind).items() if is_wanted(name)]


def _by_id(connection: Connection, ids: Sequence[bytes]) -> Sequence[ProblemRow]:
    """Return these problems in this order."""
    columns, rows = ProblemRow._fields[1:], connection.execute(_PROBLEMS, {"ids": ids})
    by_id = {row.id: ProblemRow(problem_of(row), *(getattr(row, name) for name in columns)) for row in rows}
    return [by_id[id_] for id_ in ids if id_ in by_id]


def is_acknowledged(row: ProblemRow | OpenProblemRow, now: datetime) -> bool:
    """Return whether a problem is acknowledged at the time `now`."""
    return row.acked_at is not None and (row.acked_until is None or from_us(row.acked_until) > now)


def opening_alert(console: Console, row: ProblemRow) -> Alert:
    """Return the opening of a problem as an alert, with the newest failure of the problem. The row has a `body`.

    Its time is that of the closing, or the present time if the problem is open.
    """
    event = json.loads(row.body or b"")
    data = with_latest(event["data"], ProblemChange(row.problem))
    if row.slowest_from is not None:  # how many more are slow is known only of the opening
        data |= {"runningSeconds": max(0, console.clock.steady_us() - row.slowest_from) / 1e6, "slowCount": 1}
    time = timestamp(from_us(row.closed_at) if row.closed_at else console.clock.now())
    return alert_of(console, {**event, "data": data, "time": time})


def alert_of(console: Console, event: Json) -> Alert:
    """Return an event as an alert, with the present name of its pipeline."""
    data = event["data"]
    pipeline = data.get("pipeline", {})
    if (known := console.pipelines.get(f"{data.get('account')}/{pipeline.get('id')}")) is not None:
        data = {**data, "pipeline": {**pipeline, "name": known.name or pipeline.get("name")}}
    return Alert.of({**event, "data": data})


def problem_view(console: Console, row: ProblemRow, watches: Mapping[str, WatchSettings]) -> models.ProblemView:
    """Return a problem as a model, with the texts of its opening event and the rule of the present configuration."""
    kind, is_open, name = row.problem.kind, row.closed_at is None, row.pipeline_name or ""
    title, reason, link, rule, closes_when, remedy = kind.value, "", None, None, None, None
    data: Json = {}
    if row.body is not None:  # otherwise retention took the opening
        alert = opening_alert(console, row)
        data, title, reason, link = dict(alert.data), alert.title, clean(alert.error), alert.link
        rule, closes_when = rule_of(kind, data, watches.get(name), console.settings().polling)
        remedy = ACCOUNT_REMEDIES.get(data.get("reason", ""), EVENT_KINDS[kind].remedy)
        if is_open and row.owner_kind == "sink" and (waiting := console.backlog.get(row.owner)):
            reason = f"{waiting.pending_count:,} waiting; {reason}"
    opened_by = data.get("execution", {}).get("id") if kind is EventType.PIPELINE_SLOW else None
    was_acked = is_acknowledged(row, console.clock.now()) if is_open else row.acked_at is not None
    acked = {"at": row.acked_at, "until": row.acked_until, "by": row.acked_by, "comment": row.acked_comment}
    return models.ProblemView(
        id=str(row.problem.id),
        kind=kind,
        severity=severity_of(kind),
        title=title,
        reason=reason,
        opened_at=row.opened_at,
        closed_at=row.closed_at,
        count=row.problem.failed_count or None,
        latest=data.get("latest"),
        rule=rule,
        closes_when=data.get("closesWhen", closes_when),
        last_ended_at=row.last_ended_at,
        remedy=remedy,
        account=row.owner if row.owner_kind == "account" else data.get("account"),
        pipeline={"id": name.rpartition("/")[2], **data.get("pipeline", {})} if name else None,
        execution=row.execution or opened_by,
        sink=row.owner if row.owner_kind == "sink" else data.get("sink"),
        labels=data.get("labels", {}),
        link=link,
        runbook=data.get("runbook"),
        acknowledged=acked if was_acked else None,
    )


def rule_of(
    kind: EventType, data: Mapping[str, Any], watch: WatchSettings | None, polling: PollingSettings
) -> tuple[str | None, str | None]:
    """Return in words the rule that opened a problem, and the condition that closes the problem.

    The rule is `None` if the configuration no longer has it, the condition if none holds for all problems of the kind.
    """
    rules = rules_of(None if watch is None else watch.rules)
    rule = next((each.opens_when() for each in rules if each.opens is kind), None)
    closes_when = EVENT_KINDS[kind].closes_when
    if kind is EventType.EXECUTION_OVERDUE and "limitSeconds" in data:
        rule = f"{data['execution']['status']} for longer than {spell_duration(data['limitSeconds'])}"
    elif kind is EventType.ACCOUNT_DEGRADED and data.get("reason") == AccountTrouble.OVER_BUDGET:
        rule = f"polls are further apart than {spell_duration(polling.max_interval_s)} for 5 m"
        closes_when = "polls are in time again"
    elif kind is EventType.ACCOUNT_DEGRADED:
        rule = f"the key is refused, or no request succeeded for {spell_duration(polling.degraded_after_s)}"
    elif kind is EventType.SINK_FAILING:
        rule = f"nothing got through for {spell_duration(FAILING_AFTER_S)}"
    elif kind is EventType.SINK_DISABLED:
        rule = "the receiver answered 410 Gone"
    return rule, closes_when
