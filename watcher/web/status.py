"""Makes the overview from the configuration, the rows of the store, and the snapshots of owners."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import isinf
from typing import Generic, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from watcher.config.checks import fits
from watcher.config.models import WatchSettings
from watcher.domain.event import AccountTrouble, Severity
from watcher.domain.history import DAY_US
from watcher.domain.snapshots import AccountSnapshot, PipelineSnapshot, SinkSnapshot
from watcher.domain.timestamps import NEVER, Micros
from watcher.runtime.version import VERSION
from watcher.sinks.registry import SINK_KINDS
from watcher.web.console import Console
from watcher.web.models import SilenceView
from watcher.web.needs import find_needs, severity_place
from watcher.web.overview import (
    AccountStatus,
    OverviewRows,
    PipelineState,
    SinkStatus,
    SourceRow,
    StatusView,
    load_overview,
)
from watcher.web.silences import load_silences

OWNED_WITHIN_US = 60_000_000
"""Age in microseconds from which a snapshot does not count: an owner writes its snapshot at least every 30 s."""

BEHIND_AFTER_US = 60_000_000
"""A sink is behind if its oldest delivery that is due has waited for longer than this many microseconds."""

S = TypeVar("S", AccountSnapshot, SinkSnapshot)

_ACCOUNT, _SINK = TypeAdapter(AccountSnapshot), TypeAdapter(SinkSnapshot)


class Standing(NamedTuple, Generic[S]):
    """The last state of an account or a sink. Times are microseconds UTC."""

    state: str | None = None
    """The trouble of an account; `failing` or `disabled` for a sink."""
    snapshot: S | None = None
    as_of: Micros | None = None
    """The time of the snapshot, unless it is too old."""
    is_unknown: bool = True
    unknown_since: Micros | None = None


class StoreTrouble(NamedTuple):
    """Whether the store takes no writes now, and when the last such trouble began."""

    is_present: bool
    since: Micros


async def find_status(console: Console) -> StatusView:
    """Return the overview, and set the console's pipelines, backlog and counts of problems."""
    settings, now = console.settings(), console.clock.steady_us()
    found = await load_overview(console.store, since=Micros(now - DAY_US))
    console.backlog = found.backlog
    troubles, store_trouble = console.troubles(), _store_trouble(console, now)
    silences = await load_silences(console)
    rows = {(row.kind, row.name): row for row in found.sources}
    accounts = {
        name: _standing(rows.get(("account", name)), _ACCOUNT, now, store_trouble) for name in settings.accounts
    }
    sinks = {name: _standing(rows.get(("sink", name)), _SINK, now, store_trouble) for name in settings.sinks}
    kinds = defaultdict[str, list[str]](list)
    for row in (*found.others, *found.overdue):
        kinds[row.pipeline_name or ""].append(row.kind)
    console.pipelines = _pipelines(console.watches(), accounts, kinds, silences)
    console.problem_counts = {name: len(of_it) for name, of_it in kinds.items()}
    opened = Counter[str]()
    for each in worst_first(console):
        opened.update(each.snapshot.open)
    needs = [*troubles, *await find_needs(console, found)]
    unknown = [each.unknown_since for each in console.pipelines.values() if each.unknown]
    watched = Counter(watch.account for watch in settings.watch)
    return StatusView(
        version=VERSION,
        needs=sorted(needs, key=lambda need: (need.acknowledged, need.severity.rank)),
        open=opened,
        unknown=len(unknown),
        unknown_since=min(filter(None, unknown)) if unknown and all(unknown) else None,
        pipelines=(),
        sinks=[_sink(console, name, each, found, now) for name, each in sinks.items()],
        accounts=[
            _account(name, each, allowed=settings.accounts[name].rate_limit, watched=watched[name])
            for name, each in accounts.items()
        ],
        silences=silences,
    )


def worst_first(console: Console) -> Sequence[PipelineState]:
    """Return the console's pipelines: those with the most severe problems first, among equals by their names."""
    well = len(Severity)  # sorts after the least severe
    return sorted(
        console.pipelines.values(),
        key=lambda each: (
            [*map(severity_place, each.problems), (well, not each.unknown)],
            (each.name or each.id).lower(),
        ),
    )


def _store_trouble(console: Console, now: Micros) -> StoreTrouble:
    monitor = console.store.monitor
    ago_s = console.clock.monotonic() - monitor.last_failing_since
    since = NEVER if isinf(ago_s) else Micros(now - round(ago_s * 1e6))
    return StoreTrouble(monitor.failing_since is not None, since)


def _standing(row: SourceRow | None, adapter: TypeAdapter[S], now: Micros, trouble: StoreTrouble) -> Standing[S]:
    """Return the last state of an account or sink, whether it is unknown, and since when.

    A snapshot from before the store's last trouble is not known until its owner has written again.
    """
    if row is None:
        return Standing()
    snapshot = None
    if row.body is not None:
        with suppress(ValidationError):  # another version wrote it
            snapshot = adapter.validate_json(row.body)
    written_at = row.written_at or NEVER
    known_at = snapshot.known_at if isinstance(snapshot, AccountSnapshot) else None
    is_old, is_before = written_at <= now - OWNED_WITHIN_US, trouble.is_present or written_at <= trouble.since
    since = ((known_at, known_at is not None), (written_at, is_old), (trouble.since, is_before))
    is_unusable = row.kind == "account" and row.state not in (None, AccountTrouble.OVER_BUDGET)
    return Standing(
        row.state,
        snapshot,
        as_of=None if is_old else row.written_at,
        is_unknown=is_old or is_before or known_at is not None or is_unusable,
        unknown_since=min((at for at, holds in since if holds and at is not None), default=NEVER) or None,
    )


def _pipelines(
    watches: Mapping[str, WatchSettings],
    accounts: Mapping[str, Standing[AccountSnapshot]],
    kinds: Mapping[str, Iterable[str]],
    silences: Sequence[SilenceView],
) -> Mapping[str, PipelineState]:
    """Return the states of pipelines, by `account/id`. `kinds` has the kinds of the open problems of each."""
    silenced = [
        (each.match, each.until)
        for each in silences
        if each.active and each.until and not (each.match.sinks or each.match.events)
    ]
    snapshots = {
        f"{account}/{id_}": snapshot
        for account, standing in accounts.items()
        if standing.snapshot is not None
        for id_, snapshot in standing.snapshot.pipelines.items()
    }
    names, found = _names(watches, snapshots), {}
    for name, watch in watches.items():
        account, snapshot = accounts[watch.account], snapshots.get(name, PipelineSnapshot())
        is_unknown = account.is_unknown or not snapshot.is_read
        problems = sorted(set(kinds.get(name, ())), key=severity_place)
        found[name] = PipelineState(
            account=watch.account,
            id=name.rpartition("/")[2],
            name=names.get(name),
            labels=watch.labels,
            runbook=watch.runbook,
            whole=not watch.executions,
            problems=tuple(problems),
            state=problems[0].partition(".")[2] if problems else "unknown" if is_unknown else "well",
            unknown=is_unknown,
            unknown_since=account.unknown_since,
            silenced_until=max((end for match, end in silenced if fits(watch, match)), default=None),
            snapshot=snapshot,
        )
    return found


def _names(watches: Mapping[str, WatchSettings], snapshots: Mapping[str, PipelineSnapshot]) -> Mapping[str, str]:
    """Return the names of pipelines, by `account/id`, without those that have no name.

    A name that several pipelines have is followed by the account. A name that several pipelines of one account have is
    followed by the beginning of the id.
    """
    named = {key: each.name or (snapshots[key].name if key in snapshots else None) for key, each in watches.items()}
    count_of = Counter(named.values())
    count_in = Counter((watches[key].account, name) for key, name in named.items())
    found = {}
    for key, name in named.items():
        if name:
            account, _, id_ = key.rpartition("/")
            is_clear = count_of[name] == 1
            found[key] = name if is_clear else f"{name} ({account if count_in[account, name] == 1 else id_[:8]})"
    return found


def _account(name: str, standing: Standing[AccountSnapshot], *, allowed: float, watched: int) -> AccountStatus:
    snapshot = standing.snapshot
    return AccountStatus(
        name=name,
        state="degraded" if standing.state else "unknown" if standing.is_unknown else "well",
        unknown_since=standing.unknown_since,
        reason=standing.state,
        needed=snapshot and snapshot.wanted_per_s,
        used=snapshot and snapshot.used_per_s,
        allowed=allowed,
        longest_gap_seconds=snapshot and snapshot.longest_gap_s,
        pipelines=watched,
        as_of=standing.as_of,
    )


def _sink(
    console: Console, name: str, standing: Standing[SinkSnapshot], found: OverviewRows, now: Micros
) -> SinkStatus:
    settings, snapshot = console.settings().sinks[name], standing.snapshot or SinkSnapshot("")
    waiting, dead = found.backlog.get(name), found.dead.get(name)
    oldest_at = min(now, waiting.oldest_at) if waiting and waiting.oldest_at else None
    is_behind = waiting is not None and waiting.due_at < now - BEHIND_AFTER_US
    works = "in_trouble" if snapshot.has_failed else "behind" if is_behind else "well"
    return SinkStatus(
        name=name,
        type=next(kind for kind, model in SINK_KINDS.items() if isinstance(settings, model)),
        state=standing.state or ("unknown" if standing.is_unknown else works),
        unknown_since=standing.unknown_since,
        waiting=0 if waiting is None else waiting.pending_count,
        oldest_waiting_at=oldest_at,
        dead=0 if dead is None else dead.all_count,
        answer=snapshot.answer or None,
        last_delivered_at=snapshot.last_success_at,
        next_try_at=snapshot.next_try_at if (snapshot.next_try_at or 0) > now else None,
        as_of=standing.as_of,
    )
