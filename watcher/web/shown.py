"""The console that handlers and pages use, and the functions that make models from rows of the store."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from math import isinf
from typing import Any
from urllib.parse import quote
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import from_json

from watcher.config.checks import fits
from watcher.config.models import Settings, SilenceSettings, WatchSettings
from watcher.domain.envelope import timestamp
from watcher.domain.event import EVENT_KINDS, AccountTrouble, EventType, Severity
from watcher.domain.event_factory import with_latest
from watcher.domain.history import DAY_US
from watcher.domain.problems import ProblemChange, severity_of
from watcher.domain.timestamps import NEVER, Micros, from_us
from watcher.runtime.clock import Clock
from watcher.runtime.terminal import first_visible
from watcher.runtime.version import VERSION
from watcher.sinks.alert import Alert, clean
from watcher.sinks.registry import SINK_KINDS
from watcher.store.changes import Backlog
from watcher.store.console_store import NEEDS_COUNT, ConsoleStore, EventsAndDeliveries, Overview
from watcher.store.operator_store import OperatorStore
from watcher.store.problems import acked_until, problem_of
from watcher.store.tables import AnyRow
from watcher.web import models
from watcher.web.health import Recent
from watcher.web.overview import AccountStatus, Need, PipelineState, SinkStatus, StatusView
from watcher.web.problem_text import ACCOUNT_REMEDIES, rule_of

OWNED_WITHIN_US = 60_000_000
"""Age in microseconds from which a snapshot does not count: an owner writes its snapshot at least every 30 s."""

BEHIND_AFTER_US = 60_000_000
"""A sink is behind if its oldest delivery that is due has waited for longer than this many microseconds."""


@dataclass(slots=True, eq=False)
class Console:
    """The stores, settings and actions that handlers and pages need; a process has one once its store is open."""

    settings: Callable[[], Settings]
    store: ConsoleStore
    operator: OperatorStore
    clock: Clock
    troubles: Callable[[], Sequence[Need]]
    """Returns the troubles of this process: a refused reload, a store that takes no writes."""
    test_sink: Callable[[str], Awaitable[models.TestResult]]
    """Sends a test message to a sink of the configuration."""
    changed: Callable[[], None]
    """Makes this process read silences and requested actions from the store at once."""
    status: Recent[StatusView] = field(init=False)
    """The overview without its pipelines, which are in `pipelines`: the models of all of them take long to make."""
    pipelines: Mapping[str, PipelineState] = field(default_factory=dict)
    """The pipelines of the last `status`, by `account/id`. Await `status.get()` before you read them."""
    backlog: Mapping[str, Backlog] = field(default_factory=dict)
    """The backlog of each sink, from the last `status`."""
    reporting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a report is made: one at a time."""
    problem_counts: Mapping[str, int] = field(default_factory=dict)
    """The number of open problems of each pipeline, from the last `status`."""

    def __post_init__(self) -> None:
        self.status = Recent(partial(find_status, self), fresh_s=1.0, clock=self.clock)


def events_and_deliveries(console: Console, found: EventsAndDeliveries) -> dict[str, Sequence[Any]]:
    """Return the `events` of an execution or a problem, and their `deliveries`."""
    bodies, rows = found
    return {
        "events": list(map(models.EventView.model_validate_json, bodies)),
        "deliveries": delivery_views(console, rows),
    }


def watches(console: Console) -> Mapping[str, WatchSettings]:
    """Return the watches of the configuration, by `account/id`."""
    return {f"{each.account}/{each.pipeline}": each for each in console.settings().watch}


def _alert(console: Console, row: AnyRow) -> Alert:
    """Return the opening of a problem as an alert, with the newest failure of the problem.

    Its time is that of the closing, or the present time if the problem is open.
    """
    event, now = json.loads(row.body), console.clock.now()
    data = with_latest(event["data"], ProblemChange(problem_of(row)))
    if row.slowest_from is not None:  # how many more are slow is known only of the opening
        data |= {"runningSeconds": max(0, console.clock.steady_us() - row.slowest_from) / 1e6, "slowCount": 1}
    time = timestamp(from_us(row.closed_at) if row.closed_at else now)
    return alert(console, {**event, "data": data, "time": time})


def alert(console: Console, event: Mapping[str, Any]) -> Alert:
    """Return an event as an alert, with the present name of its pipeline."""
    data = event["data"]
    pipeline = data.get("pipeline", {})
    if (known := console.pipelines.get(f"{data.get('account')}/{pipeline.get('id')}")) is not None:
        data = {**data, "pipeline": {**pipeline, "name": known.name or pipeline.get("name")}}
    return Alert.of({**event, "data": data})


def problem_view(console: Console, row: AnyRow, watches: Mapping[str, WatchSettings]) -> models.ProblemView:
    """Return a problem as a model, with the texts of its opening event and the rule of the present configuration."""
    said: dict[str, Any] = {"title": row.kind, "reason": ""}
    if row.body is not None:
        alert = _alert(console, row)
        said = {**alert.data, "title": alert.title, "reason": clean(alert.error), "link": alert.link}
        watch, polling = watches.get(row.pipeline_name), console.settings().polling
        rule, closes_when = rule_of(EventType(row.kind), alert.data, watch, polling)
        if row.closed_at is None and row.owner_kind == "sink" and (waiting := console.backlog.get(row.owner)):
            said["reason"] = f"{waiting.pending_count:,} waiting; {said['reason']}"
        remedy = ACCOUNT_REMEDIES.get(alert.data.get("reason", ""), EVENT_KINDS[row.kind].remedy)
        said |= {"rule": rule, "closes_when": said.get("closesWhen", closes_when), "remedy": remedy}
    opened_by = said.get("execution", {}).get("id") if row.kind == EventType.PIPELINE_SLOW else None
    pipeline = {"id": (row.pipeline_name or "").rpartition("/")[2], **said.get("pipeline", {})}
    acked = {"at": row.acked_at, "until": row.acked_until, "by": row.acked_by, "comment": row.acked_comment}
    was_acked = (row.closed_at and row.acked_at) or is_acknowledged(row, console.clock.now())
    fields = {
        **said,
        **row._asdict(),
        row.owner_kind: row.owner,
        "execution": row.execution or opened_by,
        "severity": severity_of(EventType(row.kind)),
        "count": row.failed_count or None,
        "latest": said.get("latest"),
        "pipeline": pipeline if row.pipeline_name else None,
        "acknowledged": acked if was_acked else None,
    }
    return models.ProblemView(**fields)


def is_acknowledged(row: AnyRow, now: datetime) -> bool:
    """Return whether a problem is acknowledged at the time `now`."""
    until = acked_until(row)
    return until is not None and until > now


def execution_view(console: Console, row: AnyRow, watches: Mapping[str, WatchSettings]) -> models.ExecutionView:
    """Return an execution as a model, with the data of its last event."""
    alert = None if row.body is None else Alert.of(json.loads(row.body))
    data = {} if alert is None else alert.data
    block = data.get("execution", {})
    node, error = alert.nodes[0] if alert is not None and alert.nodes else ("", "")
    watch, known = watches.get(row.pipeline_name), console.pipelines.get(row.pipeline_name)
    is_unknown = known is not None and known.unknown and row.ended_at is None
    name = (known and known.name) or data.get("pipeline", {}).get("name") or row.title
    fields = {
        **block,
        **row._asdict(),
        "id": row.execution,
        "since": row.since_at,
        "ended_at": row.finished_at,
        "end_seen_at": row.ended_at,
        "finished_at": block.get("finishedAt"),
        "pipeline": {"id": row.pipeline_name.rpartition("/")[2], "name": name},
        "overdue": row.overdue_sequence is not None,
        "unknown": is_unknown,
        "unknown_since": known.unknown_since if known and is_unknown else None,
        "error": first_visible(error, block.get("error")) or None,
        "node": node or None,
        "labels": data.get("labels", {}) if watch is None else watch.labels,
        "link": None if alert is None else alert.link,
    }
    return models.ExecutionView(**fields)


def stays_of(events: Sequence[models.EventView]) -> Sequence[models.Stay]:
    """Return the stays of an execution, made from its events. A stay is a period in one status."""
    found: list[models.Stay] = []
    for each in events:
        if not EVENT_KINDS[each.type].is_status:
            continue
        observed = each.data["observed"]
        status = "lost" if each.type is EventType.EXECUTION_LOST else each.data["execution"]["status"]
        stay = models.Stay(status=status, at=observed["at"], not_before=observed.get("notBefore"))
        if found:
            found[-1] = found[-1].model_copy(update={"until": stay.at})
        found.append(stay)
    return found


def delivery_views(console: Console, rows: Iterable[AnyRow]) -> Sequence[models.DeliveryView]:
    """Return deliveries as models. The state of a pending delivery says what the delivery waits for."""
    watched, now = watches(console), console.clock.steady_us()
    return [_delivery(row, watched, now) for row in rows]


def _delivery(row: AnyRow, watches: Mapping[str, WatchSettings], now: Micros) -> models.DeliveryView:
    state, next_try_at = row.state, None
    paused_until = row.paused_until or 0
    if state == "waiting":
        if row.sink_state == "disabled":
            state = "disabled"
        elif row.earlier is not None:
            state = "held"
        elif paused_until > now:
            state = "paused"
        elif row.tried:
            state = "retrying"
        if state != "disabled" and (at := max(row.due_at, paused_until)) > now:  # a due delivery has no next try
            next_try_at = at
    watch = watches.get(f"{row.account}/{row.pipeline}")
    fields = {
        **row._asdict(),
        "id": str(row.number),
        "event": row.event_id,
        "pipeline": row.pipeline and {"id": row.pipeline, "name": watch and watch.name},
        "state": state,
        "next_try_at": next_try_at,
    }
    return models.DeliveryView(**fields)


# Silences


def silence_of(row: AnyRow) -> SilenceSettings:
    """Return the settings of a stored silence. Raises `ValidationError` if only a later version can read it."""
    from_, until = (from_us(at).isoformat() for at in (row.starts_at, row.ends_at))
    return SilenceSettings.model_validate(
        {"match": json.loads(row.match), "from": from_, "until": until, "comment": row.comment}
    )


def stored_silence(console: Console, row: AnyRow) -> models.SilenceView:
    """Return a stored silence as a model. Raises `ValidationError` if only a later version can read it."""
    return _silence(console, silence_of(row), id=str(row.id), by=row.by)


def _silence(console: Console, settings: SilenceSettings, **more: str | None) -> models.SilenceView:
    now = console.clock.now()
    from_, until = settings.window(now)
    return models.SilenceView(
        match=settings.match,
        from_=from_,
        until=until,
        weekly=settings.weekly,
        active=from_ <= now < until,
        pipelines=sum(fits(watch, settings.match) for watch in console.settings().watch),
        comment=settings.comment,
        **more,
    )


async def load_silences(console: Console) -> Sequence[models.SilenceView]:
    """Return the silences of the file that are not over, and those of the store that this version can read."""
    now = console.clock.now()
    found = [_silence(console, each) for each in console.settings().silences if each.window(now)[1] > now]
    for row in await console.operator.silences():
        with suppress(ValidationError):  # `Operations` logs a silence that this version cannot read
            found.append(stored_silence(console, row))
    return found


# The overview


async def find_status(console: Console) -> StatusView:
    """Return the overview, and set the console's pipelines and counts of problems."""
    settings, now = console.settings(), console.clock.steady_us()
    found = await console.store.overview(since=Micros(now - DAY_US))
    console.backlog = found.backlog
    troubles = console.troubles()
    monitor = console.store.monitor
    failed_for_s = console.clock.monotonic() - monitor.last_failing_since
    trouble = monitor.failing_since is not None, NEVER if isinf(failed_for_s) else now - round(failed_for_s * 1e6)
    all_silences = await load_silences(console)
    silenced = [
        (each.match, each.until)
        for each in all_silences
        if each.active and each.until and not (each.match.sinks or each.match.events)
    ]
    sources = defaultdict[tuple[str, str], dict[str, Any]](lambda: {"is_unknown": True})
    for row in found.sources:
        sources[row.kind, row.name] = _source(row, now=now, store_trouble=trouble)
    accounts = {name: sources["account", name] for name in settings.accounts}
    problems = _by_pipeline([*found.others, *found.overdue])
    all_watches = watches(console)
    names = _names(all_watches, accounts)
    pipelines = {}
    for name, watch in all_watches.items():
        id_ = name.rpartition("/")[2]
        account = accounts[watch.account]
        snapshot = account.get("pipelines", {}).get(id_, {})
        is_unknown = account["is_unknown"] or not snapshot.get("is_read", True)
        kinds = sorted({row.kind for row in problems[name]}, key=_place)
        pipelines[name] = PipelineState(
            account=watch.account,
            id=id_,
            name=names.get(name),
            labels=watch.labels,
            runbook=watch.runbook,
            whole=not watch.executions,
            problems=tuple(kinds),
            state=kinds[0].partition(".")[2] if kinds else "unknown" if is_unknown else "well",
            unknown=is_unknown,
            unknown_since=account.get("unknown_since"),
            silenced_until=max((end for match, end in silenced if fits(watch, match)), default=None),
            snapshot=snapshot,
        )
    console.pipelines = pipelines
    console.problem_counts = {name: len(rows) for name, rows in problems.items()}
    opened = Counter[str]()
    for each in worst_first(console):
        opened.update(each.snapshot.get("open", {}))
    needs = [*troubles, *await _needs(console, found)]
    unknown = [each.unknown_since for each in pipelines.values() if each.unknown]
    return StatusView(
        version=VERSION,
        needs=sorted(needs, key=lambda need: (need.acknowledged, need.severity.rank)),
        open=opened,
        unknown=len(unknown),
        unknown_since=min(filter(None, unknown)) if unknown and all(unknown) else None,
        pipelines=(),
        sinks=[_sink(console, name, sources["sink", name], found, now) for name in settings.sinks],
        accounts=[
            AccountStatus(
                name=name,
                state="degraded" if row.get("state") else "unknown" if row["is_unknown"] else "well",
                unknown_since=row.get("unknown_since"),
                reason=row.get("state"),
                needed=row.get("wanted_per_s"),
                used=row.get("used_per_s"),
                allowed=settings.accounts[name].rate_limit,
                longest_gap_seconds=row.get("longest_gap_s"),
                pipelines=sum(watch.account == name for watch in settings.watch),
                as_of=row.get("as_of"),
            )
            for name, row in accounts.items()
        ],
        silences=all_silences,
    )


def worst_first(console: Console) -> Sequence[PipelineState]:
    """Return the console's pipelines: those with the most severe problems first, among equals by their names."""
    well = len(Severity)  # sorts after the least severe
    return sorted(
        console.pipelines.values(),
        key=lambda each: ([*map(_place, each.problems), (well, not each.unknown)], (each.name or each.id).lower()),
    )


def _source(row: AnyRow, *, now: Micros, store_trouble: tuple[bool, int]) -> dict[str, Any]:
    """Return the fields of an account or sink and of its snapshot, whether its state is unknown, and since when.

    `store_trouble` is whether the store takes no writes now, and when the last such trouble began. A snapshot from
    before is not known until its owner has written again.
    """
    is_failing, failed_at = store_trouble
    body, written_at = from_json(row.body or b"{}"), row.written_at or NEVER
    is_old, known_at = written_at <= now - OWNED_WITHIN_US, body.get("known_at")
    is_before = is_failing or written_at <= failed_at
    since = ((known_at, known_at is not None), (written_at, is_old), (failed_at, is_before))
    is_unusable = row.kind == "account" and row.state not in (None, AccountTrouble.OVER_BUDGET)
    return {
        **row._asdict(),
        **body,
        "as_of": None if is_old else row.written_at,
        "is_unknown": is_old or is_before or known_at is not None or is_unusable,
        "unknown_since": min((at for at, holds in since if holds), default=NEVER) or None,
    }


def _names(watches: Mapping[str, WatchSettings], accounts: Mapping[str, Mapping[str, Any]]) -> Mapping[str, str]:
    """Return the names of pipelines, by `account/id`, without those that have no name.

    A name that several pipelines have is followed by the account. A name that several pipelines of one account have is
    followed by the beginning of the id.
    """
    named = {}
    for key, each in watches.items():
        account, _, id_ = key.rpartition("/")
        named[account, id_] = each.name or accounts[account].get("pipelines", {}).get(id_, {}).get("name")
    count_of, count_in = Counter(named.values()), Counter((account, name) for (account, _), name in named.items())
    return {
        f"{account}/{id_}": name
        if count_of[name] == 1
        else f"{name} ({account if count_in[account, name] == 1 else id_[:8]})"
        for (account, id_), name in named.items()
        if name
    }


def _place(kind: str) -> tuple[int, bool]:
    """Return the sort key of a kind of problem: by severity; among equals overdue executions come last."""
    return severity_of(EventType(kind)).rank, kind == EventType.EXECUTION_OVERDUE


def _by_pipeline(rows: Iterable[AnyRow]) -> Mapping[str, list[AnyRow]]:
    found: dict[str, list[AnyRow]] = defaultdict(list)
    for row in rows:
        found[row.pipeline_name].append(row)
    return found


def _sink(console: Console, name: str, row: Mapping[str, Any], found: Overview, now: Micros) -> SinkStatus:
    settings = console.settings().sinks[name]
    waiting, dead = found.backlog.get(name), found.dead.get(name)
    oldest_at = min(now, waiting.oldest_at) if waiting and waiting.oldest_at else None
    is_behind = waiting is not None and waiting.due_at < now - BEHIND_AFTER_US
    stands = "in_trouble" if row.get("has_failed") else "behind" if is_behind else "well"
    return SinkStatus(
        name=name,
        type=next(kind for kind, model in SINK_KINDS.items() if isinstance(settings, model)),
        state=row.get("state") or ("unknown" if row["is_unknown"] else stands),
        unknown_since=row.get("unknown_since"),
        waiting=0 if waiting is None else waiting.pending_count,
        oldest_waiting_at=oldest_at,
        dead=0 if dead is None else dead.all_count,
        answer=row.get("answer") or None,
        last_delivered_at=row.get("last_success_at"),
        next_try_at=next_try_at if (next_try_at := row.get("next_try_at") or 0) > now else None,
        as_of=row.get("as_of"),
    )


async def _needs(console: Console, found: Overview) -> Sequence[Need]:
    """Return the needs that are read from the store.

    Among equally severe problems those of accounts and sinks come first: they may be the cause of the others.
    """
    now = console.clock.now()

    def place(row: AnyRow) -> Any:
        is_cause = row.pipeline_name is None
        return is_acknowledged(row, now), *_place(row.kind), not is_cause, row.owner_kind, row.opened_at

    overdue: dict[tuple[str, bool], list[AnyRow]] = defaultdict(list)
    for each in sorted(found.overdue, key=lambda each: (is_acknowledged(each, now), each.opened_at)):
        overdue[each.pipeline_name, is_acknowledged(each, now)].append(each)
    worst = [row.id for row in sorted(found.others, key=place)[:NEEDS_COUNT]]
    longest = [rows[0].id for rows in overdue.values()][:NEEDS_COUNT]
    rows = {row.id: row for row in await console.store.problems_by_id([*worst, *longest])}
    return [
        *_problem_needs(console, [rows[id_] for id_ in worst if id_ in rows]),
        *_dead_letter_needs(console, found),
        *_overdue_needs(console, overdue, rows),
        *_gap_needs(found),
    ]


def _problem_needs(console: Console, rows: Iterable[AnyRow]) -> Iterator[Need]:
    all_watches = watches(console)
    for row in rows:
        it = problem_view(console, row, all_watches)
        yield Need(
            kind="problem",
            severity=it.severity,
            title=it.title,
            reason=it.reason,
            since=it.opened_at,
            count=it.count or 1,
            page=f"/problems/{it.id}",
            problems=[it.id],
            acknowledged=it.acknowledged is not None,
            acknowledged_by=it.acknowledged and it.acknowledged.by,
            acknowledged_until=it.acknowledged and it.acknowledged.until,
        )


def _dead_letter_needs(console: Console, found: Overview) -> Iterator[Need]:
    for name, row in found.dead.items():
        if row.late_count:
            is_configured = name in console.settings().sinks
            remedy = "send them again once the receiver works" if is_configured else "no such sink now"
            yield Need(
                kind="dead_letters",
                severity=severity_of(EventType.DELIVERY_DEAD),
                title=f"Sink {name}: {row.late_count:,} dead letter{'s' if row.late_count > 1 else ''}",
                reason=f"last answer: {clean(row.answer or 'none')}; {remedy}",
                since=row.since_at,
                count=row.late_count,
                page=f"/deliveries?state=dead&sink={quote(name)}",
            )


def _overdue_needs(
    console: Console, overdue: Mapping[tuple[str, bool], Sequence[AnyRow]], rows: Mapping[bytes, AnyRow]
) -> Iterator[Need]:
    """Yield up to two needs per pipeline: one of its acknowledged overdue executions, one of its other overdue ones."""
    for (name, is_acknowledged), problems in overdue.items():
        pipeline, row = console.pipelines.get(name), rows.get(problems[0].id)
        yield Need(
            kind="problem",
            severity=severity_of(EventType.EXECUTION_OVERDUE),
            title=f"{(pipeline and pipeline.name) or name}: {len(problems):,} overdue",
            reason=_alert(console, row).dwell if row and row.body else "",
            since=problems[0].opened_at,
            count=len(problems),
            page=f"/pipelines/{name}" if len(problems) > 1 else f"/problems/{UUID(bytes=problems[0].id)}",
            problems=[each.id for each in problems[: models.ACK_COUNT]],
            acknowledged=is_acknowledged,
        )


def _gap_needs(found: Overview) -> Iterator[Need]:
    """Yield one need for the gaps of each pipeline."""
    for name, rows in _by_pipeline(found.gaps).items():
        newest = Alert.of(json.loads(rows[0].body))
        yield Need(
            kind="gap",
            severity=severity_of(EventType.PIPELINE_GAP),
            title=newest.title,
            reason=clean(newest.error),
            since=rows[-1].recorded_at,
            count=len(rows),
            page=f"/pipelines/{name}",
        )
