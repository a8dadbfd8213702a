"""What is recorded, as the API shows it: rows of the store become models, with the names that the configuration has."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict
from urllib.parse import quote
from uuid import UUID

from pydantic import TypeAdapter

from watcher.config.models import WatchSettings
from watcher.domain.event import EventType
from watcher.domain.problems import severity_of
from watcher.domain.snapshots import AccountSnapshot, PipelineSnapshot, SinkSnapshot
from watcher.domain.timestamps import Micros, from_us
from watcher.runtime.terminal import first_visible
from watcher.runtime.version import VERSION
from watcher.sinks.alert import Alert, clean
from watcher.sinks.registry import SINK_KINDS
from watcher.sinks.settings import SilenceMatch
from watcher.store.console_store import Overview, Told
from watcher.store.operator_store import StoredSilence
from watcher.store.tables import AnyRow
from watcher.web import models
from watcher.web.console import Console

DAY_US = 86_400_000_000

OWNED_WITHIN_US = 30_000_000
"""An owner writes its snapshot every 5 s: one that is older is nobody's."""

_ACCOUNT, _SINK = TypeAdapter(AccountSnapshot), TypeAdapter(SinkSnapshot)
_ENDS = {"s": "success", "f": "failed", "u": "unrecognized"}


class Parts(TypedDict):
    """What was told: of an execution, or of a problem."""

    events: Sequence[models.Event]
    deliveries: Sequence[models.Delivery]


def told(console: Console, found: Told) -> Parts:
    """Return events and their deliveries."""
    bodies, rows = found
    return Parts(events=[event(body) for body in bodies], deliveries=deliveries(console, rows))


def event(body: bytes) -> models.Event:
    """Return an event as it was recorded."""
    return models.Event.model_validate_json(body)


def _moment(us: int | None) -> datetime | None:
    return None if us is None else from_us(Micros(us))


def watches(console: Console) -> Mapping[str, WatchSettings]:
    """Return what is watched, by account and pipeline (`account/id`)."""
    return {f"{each.account}/{each.pipeline}": each for each in console.settings().watch}


def _pipeline(id_: str, watch: WatchSettings | None, name: str | None = None) -> models.PipelineRef:
    return models.PipelineRef(id=id_, name=(watch and watch.name) or name)


def problem(row: AnyRow) -> models.Problem:
    """Return a problem, in the words of the event that opened it."""
    alert = None if row.body is None else Alert.of(json.loads(row.body))
    data = {} if alert is None else alert.data
    account, _, pipeline = (row.pipeline_name or "").rpartition("/")
    acked = row.acked_at and models.Acknowledgement(
        at=_moment(row.acked_at), until=_moment(row.acked_until), by=row.acked_by, comment=row.acked_comment
    )
    return models.Problem(
        id=str(UUID(bytes=row.id)),
        kind=row.kind,
        severity=severity_of(EventType(row.kind)),
        title=row.kind if alert is None else alert.title,
        reason="" if alert is None else clean(alert.error),
        opened_at=_moment(row.opened_at),
        closed_at=_moment(row.closed_at),
        count=row.failed_count or None,
        account=row.owner if row.owner_kind == "account" else None,
        pipeline=models.PipelineRef(id=pipeline, name=data.get("pipeline", {}).get("name")) if account else None,
        execution=row.execution and str(UUID(bytes=row.execution)),
        sink=row.owner if row.owner_kind == "sink" else None,
        labels=data.get("labels", {}),
        link=None if alert is None else alert.link,
        runbook=data.get("runbook"),
        acknowledged=acked,
    )


def execution(row: AnyRow, watches: Mapping[str, WatchSettings]) -> models.Execution:
    """Return an execution, with what its last event said of it."""
    account, _, pipeline = row.pipeline_name.rpartition("/")
    alert = None if row.body is None else Alert.of(json.loads(row.body))
    data = {} if alert is None else alert.data
    block, nodes = data.get("execution", {}), () if alert is None else alert.nodes
    watch = watches.get(row.pipeline_name)
    return models.Execution(
        account=account,
        pipeline=_pipeline(pipeline, watch, data.get("pipeline", {}).get("name") or row.title),
        id=str(UUID(bytes=row.execution)),
        status=row.status,
        since=_moment(row.since_at),
        ended_at=_moment(row.ended_at),
        lost=row.lost,
        overdue=row.overdue_sequence is not None,
        started_at=block.get("startedAt"),
        finished_at=block.get("finishedAt"),
        duration_seconds=block.get("durationSeconds"),
        error=first_visible(nodes[0][1] if nodes else None, block.get("error")) or None,
        node=(nodes[0][0] if nodes else None) or None,
        labels=data.get("labels", {}) if watch is None else watch.labels,
        link=None if alert is None else alert.link,
    )


def stays(events: Sequence[models.Event]) -> Sequence[models.Stay]:
    """Return the times that an execution was in each status, from its events."""
    found: list[models.Stay] = []
    for each in events:
        if not each.type.startswith("execution.") or each.type is EventType.EXECUTION_OVERDUE:
            continue
        observed = each.data["observed"]
        status = "lost" if each.type is EventType.EXECUTION_LOST else each.data["execution"]["status"]
        stay = models.Stay(status=status, at=observed["at"], not_before=observed.get("notBefore"))
        if found:
            found[-1] = found[-1].model_copy(update={"until": stay.at})
        found.append(stay)
    return found


def deliveries(console: Console, rows: Iterable[AnyRow]) -> Sequence[models.Delivery]:
    """Return deliveries. Of one that waits the state says why it does."""
    watched, now = watches(console), console.clock.steady_us()
    return [_delivery(row, watched, now) for row in rows]


def _delivery(row: AnyRow, watches: Mapping[str, WatchSettings], now: Micros) -> models.Delivery:
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
        if state != "disabled":
            next_try_at = _moment(max(row.due_at, paused_until))
    return models.Delivery(
        id=str(row.number),
        sink=row.sink,
        event=str(UUID(bytes=row.event_id)),
        type=row.type,
        account=row.account,
        pipeline=row.pipeline and _pipeline(row.pipeline, watches.get(f"{row.account}/{row.pipeline}")),
        execution=row.execution and str(UUID(bytes=row.execution)),
        state=state,
        attempts=row.attempts,
        answer=row.answer,
        recorded_at=_moment(row.recorded_at),
        next_try_at=next_try_at,
        settled_at=_moment(row.settled_at),
    )


# Silences


def in_future(console: Console, seconds: float) -> datetime:
    """Return when so many seconds are over, by the wall clock."""
    return console.clock.now() + timedelta(seconds=seconds)


def _concerns(match: SilenceMatch, watch: WatchSettings) -> bool:
    return (
        (not match.accounts or watch.account in match.accounts)
        and (not match.pipelines or watch.pipeline in match.pipelines)
        and match.labels.items() <= watch.labels.items()
    )


def _silence(console: Console, match: SilenceMatch, from_: datetime, until: datetime, **more: Any) -> models.Silence:
    return models.Silence(
        match=match,
        from_=from_,
        until=until,
        active=from_ <= console.clock.now() < until,
        pipelines=sum(_concerns(match, watch) for watch in console.settings().watch),
        **more,
    )


def stored_silence(console: Console, stored: StoredSilence) -> models.Silence:
    """Return a silence that was made while the daemon ran."""
    match = SilenceMatch.model_validate_json(stored.match)
    more = {"id": str(stored.id), "by": stored.by, "comment": stored.comment}
    return _silence(console, match, stored.starts_at, stored.ends_at, **more)


async def silences(console: Console) -> Sequence[models.Silence]:
    """Return the silences of the file that are not over, and those of the store."""
    now, of_file = console.clock.now(), []
    for each in console.settings().silences:
        from_, until = each.window(now)
        if until > now:
            weekly = each.weekly and models.WeeklyHours(**each.weekly.model_dump(by_alias=True))
            of_file.append(_silence(console, each.match, from_, until, comment=each.comment, weekly=weekly))
    return [*of_file, *(stored_silence(console, each) for each in await console.operator.silences())]


# The overview


async def find_status(console: Console) -> models.Status:
    """Return the first view."""
    now = console.clock.steady_us()
    found = await console.store.overview(since=Micros(now - DAY_US))
    problems = [problem(row) for row in found.problems]
    kept_back = await silences(console)
    settings = console.settings()
    by_source = {(row.kind, row.name): row for row in found.sources}
    snapshots = {
        name: _ACCOUNT.validate_json(row.body)
        for name in settings.accounts
        if (row := by_source.get(("account", name))) is not None and row.body is not None
    }
    kinds: dict[str, list[str]] = defaultdict(list)  # by pipeline
    for row in (*found.problems, *found.overdue):
        if row.pipeline_name and row.kind not in kinds[row.pipeline_name]:
            kinds[row.pipeline_name].append(row.kind)
    pipelines: list[models.PipelineStatus] = []
    for watch in settings.watch:
        name = f"{watch.account}/{watch.pipeline}"
        its = snapshots[watch.account].pipelines.get(str(watch.pipeline)) if watch.account in snapshots else None
        stands = its or PipelineSnapshot()
        ends = [each.until for each in kept_back if each.active and each.until and _concerns(each.match, watch)]
        pipelines.append(
            models.PipelineStatus(
                account=watch.account,
                id=str(watch.pipeline),
                name=watch.name or found.titles.get(name),
                labels=watch.labels,
                runbook=watch.runbook,
                whole=not watch.executions,
                open=stands.open,
                oldest={status: from_us(at) for status, at in stands.oldest.items()},
                ends=[_ENDS[letter] for letter in stands.ends],
                ends_from=_moment(stands.ends_from),
                last_ended_at=_moment(stands.last_ended_at),
                last_failed_at=_moment(stands.last_failed_at),
                last_started_at=_moment(stands.last_started_at),
                problems=kinds[name],
                silenced_until=max(ends, default=None),
            )
        )
    opened: dict[str, int] = defaultdict(int)
    for each in pipelines:
        for status, count in each.open.items():
            opened[status] += count
    names = {f"{each.account}/{each.id}": each.name or each.id for each in pipelines}
    return models.Status(
        version=VERSION,
        needs=[*console.troubles(), *_needs(found, problems, names)],
        open=opened,
        pipelines=pipelines,
        sinks=[_sink(console, name, by_source.get(("sink", name)), found, now) for name in settings.sinks],
        accounts=[
            _account(console, name, by_source.get(("account", name)), snapshots.get(name), now)
            for name in settings.accounts
        ],
        silences=kept_back,
    )


def _as_of(row: AnyRow | None, now: Micros) -> datetime | None:
    return _moment(row.written_at) if row is not None and (row.written_at or 0) > now - OWNED_WITHIN_US else None


def _account(
    console: Console, name: str, row: AnyRow | None, snapshot: AccountSnapshot | None, now: Micros
) -> models.AccountStatus:
    return models.AccountStatus(
        name=name,
        trouble=row and row.state,
        wanted=snapshot and snapshot.wanted_per_s,
        used=snapshot and snapshot.used_per_s,
        allowed=console.settings().accounts[name].rate_limit,
        longest_gap_seconds=snapshot and snapshot.longest_gap_s,
        pipelines=sum(watch.account == name for watch in console.settings().watch),
        as_of=_as_of(row, now),
    )


def _sink(console: Console, name: str, row: AnyRow | None, found: Overview, now: Micros) -> models.SinkStatus:
    settings = console.settings().sinks[name]
    snapshot = None if row is None or row.body is None else _SINK.validate_json(row.body)
    is_paused = row is not None and (row.paused_until or 0) > now
    waiting, dead = found.backlog.get(name), found.dead.get(name)
    return models.SinkStatus(
        name=name,
        type=next(kind for kind, model in SINK_KINDS.items() if isinstance(settings, model)),
        state=(row and row.state) or ("paused" if is_paused or (snapshot and snapshot.is_open) else "well"),
        waiting=0 if waiting is None else waiting.pending_count,
        oldest_waiting_at=None if waiting is None else _moment(waiting.oldest_at),
        dead=0 if dead is None else dead.all_count,
        answer=(snapshot and snapshot.answer) or None,
        last_delivered_at=None if snapshot is None else _moment(snapshot.through_at),
        next_try_at=None if snapshot is None else _moment(snapshot.next_try_at),
        as_of=_as_of(row, now),
    )


_CAUSES = (EventType.ACCOUNT_DEGRADED, EventType.SINK_FAILING, EventType.SINK_DISABLED)
"""Problems that others follow from: they come first, in this order."""


def _needs(found: Overview, problems: Sequence[models.Problem], names: dict[str, str]) -> Sequence[models.Need]:
    """Return what needs somebody, causes first."""
    ranked = {kind: rank for rank, kind in enumerate(_CAUSES)}
    of_problems = [
        models.Need(
            kind="problem",
            title=each.title,
            reason=each.reason,
            since=each.opened_at,
            count=each.count or 1,
            page=f"/problems/{each.id}",
            acknowledged=each.acknowledged is not None,
        )
        for each in sorted(problems, key=lambda each: (ranked.get(each.kind, len(ranked)), each.opened_at))
    ]
    causes_count = sum(each.kind in ranked for each in problems)
    dead = [
        models.Need(
            kind="dead_letters",
            title=f"Sink {name}: {row.late_count:,} dead letter{'s' if row.late_count > 1 else ''}",
            reason="given up within the last 24 h; send them again once their receiver takes them",
            since=_moment(row.since_at),
            count=row.late_count,
            page=f"/deliveries?state=dead&sink={quote(name)}",
        )
        for name, row in found.dead.items()
        if row.late_count
    ]
    overdue: dict[str, list[AnyRow]] = defaultdict(list)
    for row in found.overdue:
        overdue[row.pipeline_name].append(row)
    late = [
        models.Need(
            kind="problem",
            title=f"{names.get(name, name)}: {len(rows):,} overdue",
            reason="in one status for longer than overdue_after allows",
            since=_moment(min(row.opened_at for row in rows)),
            count=len(rows),
            page=f"/pipelines/{name}" if len(rows) > 1 else f"/problems/{UUID(bytes=rows[0].id)}",
            acknowledged=all(row.acked_at for row in rows),
        )
        for name, rows in overdue.items()
    ]
    gaps: dict[str, list[AnyRow]] = defaultdict(list)
    for row in found.gaps:
        gaps[f"{row.account}/{row.pipeline}"].append(row)
    missed = [
        models.Need(
            kind="gap",
            title=alert.title,
            reason=clean(alert.error),
            since=_moment(rows[-1].recorded_at),
            count=len(rows),
            page=f"/pipelines/{name}",
        )
        for name, rows in gaps.items()
        for alert in (Alert.of(json.loads(rows[0].body)),)
    ]
    return [*of_problems[:causes_count], *dead, *of_problems[causes_count:], *late, *missed]
