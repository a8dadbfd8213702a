"""Reports on pipelines, made from the hourly counts in the store and from the present state of the pipelines."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Literal

from pydantic import Field
from yarl import URL

from watcher.config.checks import fits
from watcher.domain.envelope import Json, timestamp
from watcher.domain.event import EventType
from watcher.domain.history import HOUR_US, Totals, period_start
from watcher.domain.report import Happening, PipelineResult, error_of, report_of, shorten_text, success_rate
from watcher.domain.timestamps import Micros, from_us, to_us
from watcher.runtime.units import percent
from watcher.sinks.alert import NAME_LENGTH, Alert, shorten
from watcher.sinks.settings import Match
from watcher.web.console import Console
from watcher.web.history import PAST_SPAN, PastSpan, load_frequent_errors, load_totals
from watcher.web.models import ApiModel, ApiRequest, Time
from watcher.web.overview import StatusView
from watcher.web.problems import TroubleRow, load_troubles
from watcher.web.silences import load_past_silences

ERROR_KINDS_COUNT = 1_000
"""Maximum number of kinds of errors that are read from the store, the most frequent ones of all pipelines."""

PROBLEMS_COUNT = 1_000
"""Maximum number of problems that are read from the store: the open ones, then those that opened last."""

CLEAN_COUNT = 20
"""If none of its last 20 executions failed, the failures of a pipeline are over."""


class ReportQuery(ApiRequest):
    """The span of a report."""

    last: PastSpan = PAST_SPAN
    """Length of the span, from `1h` to `90d`."""


class ReportedError(ApiModel):
    """A kind of error: the pipeline's name, the failed node, the newest text, and the number of executions."""

    pipeline: str | None = None
    node: str | None = None
    text: str | None = None
    count: int


class Figures(ApiModel):
    """The figures of a report. Rates are from 0 to 1, rounded down."""

    open_problems: int
    """Number of problems that are open now."""
    ended: int
    failed: int
    success_rate: float | None = None
    """Absent if no execution ended."""
    success_rate_before: float | None = None
    """The success rate of the span before, if the two rates differ by more than chance explains (p < 0.05)."""
    median_seconds: float | None = None
    """Median duration of successes, within 5 %."""
    p95_seconds: float | None = Field(default=None, alias="p95Seconds")
    tokens: int


class PipelineReport(Figures):
    """A pipeline in a report. `state` is its present state, as in `/status`."""

    account: str
    id: str
    name: str | None = None
    state: str
    needs_look: bool
    error: ReportedError | None = None
    """The most frequent kind of error."""


class Happened(ApiModel):
    """A line of a report: the problems, or the events that close nothing, of one kind in one stretch of time."""

    kind: str
    """The type of the event that reported it; `unknown`, `low_rate` or `silenced` for the state of pipelines."""
    about: Literal["account", "sink", "pipeline"]
    names: Sequence[str]
    """At most three names of pipelines, or that of the account or sink."""
    what: str
    """The words for what happened to whom, and how many times if more than once."""
    error: str | None = None
    """The newest error, or the reason."""
    acknowledged: bool = False
    from_: Time = Field(alias="from")
    until: Time | None = None
    """The time of the last closing, of the last event that closes nothing, or of the end of a silence.

    It is absent while a problem is open.
    """


class Report(ApiModel):
    """The report on pipelines over a span, the worst first. `look_count` need a look, `well_count` do not."""

    from_: Time = Field(alias="from")
    until: Time
    look_count: int
    well_count: int
    more_count: int = 0
    """Number of pipelines that are left out: 0 in an answer of the API, but an event may leave out some."""
    line_count: int = 0
    """Number of entries in `happened`, of which an event may leave out some."""
    happened: Sequence[Happened] = ()
    """The problems and events of the span; those that are not over come first."""
    total: Figures
    pipelines: Sequence[PipelineReport] = ()
    errors: Sequence[ReportedError] = ()
    """The three most frequent kinds of errors."""
    link: str | None = None
    """The address of the pages; of a report with `match` that of the executions of its pipelines."""


async def make_report(
    console: Console,
    *,
    since: Micros,
    until: Micros,
    name: str | None = None,
    timezone: str | None = None,
    match: Match | None = None,
) -> Json:
    """Return the data of a report on the span from the full hour at or before `since` to `until`.

    With a `match` that is not empty the report is about its pipelines alone, and says nothing of accounts and sinks.
    """
    since = period_start(since, HOUR_US)
    status, store = await console.status.get(), console.store
    pipelines, problem_counts, of = console.pipelines, console.problem_counts, None  # a later status replaces them
    if is_of_some := match is not None and match != Match():
        of = {key for key, watch in console.watches().items() if key in pipelines and fits(watch, match)}
        pipelines = {key: each for key, each in pipelines.items() if key in of}
    now = await load_totals(store, pipelines.keys(), since=since, until=until, with_durations=True)
    since_before = period_start(Micros(2 * since - until), HOUR_US)
    before = await load_totals(store, pipelines.keys(), since=since_before, until=since)
    errors: list[Json] = []
    worst: dict[str, Json] = {}
    for row in await load_frequent_errors(store, since=since, until=until, limit=ERROR_KINDS_COUNT, of=of):
        # Errors are counted by whole days: the count of a kind may be higher than the number of failures in the span.
        count = min(row.failed_count, now.get(row.pipeline_name, Totals()).failed)
        if count and (known := pipelines.get(row.pipeline_name)) is not None:
            error = error_of(row.node, row.text, count)
            errors.append({"pipeline": shorten_text(known.name or known.id), **error})
            worst.setdefault(row.pipeline_name, error)
    names = {key: shorten(each.name or each.id, NAME_LENGTH) for key, each in pipelines.items()}
    rows = await load_troubles(store, since=since, until=until, limit=PROBLEMS_COUNT, of=of)
    # In a thread, as with 1,000 pipelines and problems it takes 100 ms, in which the event loop would do nothing else.
    happenings = await asyncio.to_thread(_happenings, console, status, names, rows)
    happenings += await _silenced(console, names, since, until)
    recovered = {each.only for each in happenings if each.kind == EventType.PIPELINE_FAILING and each.until}
    results = []
    for key, each in pipelines.items():
        who, frequent, ends = {key: names[key]}, worst.get(key, {}), each.snapshot.ends
        is_over = key in recovered or bool(ends and "f" not in ends[-CLEAN_COUNT:])
        what = (each.account, each.id, each.name, each.state, problem_counts.get(key, 0))
        result = PipelineResult(*what, now.get(key, Totals()), before.get(key, Totals()), frequent or None, is_over)
        results.append(result)
        if each.state == "unknown":
            at = each.unknown_since or to_us(console.clock.now())
            happenings.append(Happening("unknown", "pipeline", who, at, None, f"{names[key]} is unknown"))
        elif each.state == "well" and result.needs_look:
            title = f"{names[key]}: {percent(success_rate(result.now) or 0.0, 1)} % of {result.now.ended:,} succeeded"
            happenings.append(Happening("low_rate", "pipeline", who, since, None, title, frequent.get("text", "")))
    times = {"from": timestamp(from_us(since)), "until": timestamp(from_us(until))}
    about = {"name": name, **times, "timezone": timezone, "link": _link(console, match if is_of_some else None)}
    errors.sort(key=itemgetter("count"), reverse=True)
    return await asyncio.to_thread(report_of, results, errors, about, happenings)


def _link(console: Console, match: Match | None) -> str | None:
    """Return the address of the page that shows what a report is about; `None` if the page has no public address."""
    link = console.settings().http.public_url
    if link is None or match is None:
        return link
    query = [("label", f"{key}:{value}") for key, value in match.labels.items()]
    query += [("pipeline", str(id_)) for id_ in match.pipelines]
    return str(URL(link).joinpath("executions").with_query(query))


async def _silenced(console: Console, names: Mapping[str, str], since: Micros, until: Micros) -> list[Happening]:
    """Return a line for each window of a silence that may have concerned one of these pipelines.

    The sinks and the comment of a silence that concerns other pipelines, too, may be about these: they are left out.
    """
    found, watches = [], console.watches()
    for each in await load_past_silences(console, since=from_us(since), until=from_us(until)):
        concerned = {key for key, watch in watches.items() if fits(watch, each.settings.match)}
        if who := {key: name for key, name in names.items() if key in concerned}:
            times = max(since, to_us(each.begins_at)), to_us(each.ends_at)
            words = each.words if concerned <= names.keys() else "silenced"
            found.append(Happening("silenced", "pipeline", who, *times, next(iter(who.values())), words))
    return found


def _happenings(
    console: Console, status: StatusView, names: Mapping[str, str], rows: Sequence[TroubleRow]
) -> list[Happening]:
    """Return the problems, and the events that open none, that these rows are about."""
    have_dead, found = {each.name for each in status.sinks if each.dead}, []
    dead: dict[str, tuple[int, Happening]] = {}  # the number of each sink's dead letters, and their line
    for row in rows:
        if not row.body or (row.pipeline_name is not None and row.pipeline_name not in names):
            continue
        event = json.loads(row.body)
        event["data"] |= {"latest": row.latest._asdict()} if row.latest else {}
        is_dead = event["type"] == EventType.DELIVERY_DEAD
        if is_dead and event["data"]["sink"] in dead:
            event["data"]["count"] += dead[event["data"]["sink"]][0]
        alert = Alert.of(event)
        if alert.data.get("percent", 100) == 100:
            about = "pipeline" if alert.pipeline else "sink" if "sink" in alert.data else "account"
            key = row.pipeline_name or alert.who
            over_at = None if is_dead and key in have_dead else row.closed_at
            words = (alert.title, alert.error, alert.severity.rank)
            is_acked = over_at is None and row.is_acknowledged
            who = {key: names.get(key, alert.who)}
            happened = Happening(alert.type, about, who, row.opened_at, over_at, *words, is_acked)
            if is_dead:
                happened.since = dead[key][1].since if key in dead else row.opened_at
                dead[key] = alert.data["count"], happened
            else:
                found.append(happened)
    return [*found, *(line for _, line in dead.values())]
