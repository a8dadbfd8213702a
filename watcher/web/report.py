"""Reports on all pipelines, made from the hourly counts in the store and from the present state of the pipelines."""

import json
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Literal

from pydantic import Field

from watcher.domain.envelope import Json, timestamp
from watcher.domain.event import EventType
from watcher.domain.execution import Status
from watcher.domain.history import HOUR_US, Totals, period_start
from watcher.domain.report import Happening, PipelineResult, error_of, report_of, shorten_text
from watcher.domain.timestamps import Micros, from_us, to_us
from watcher.sinks.alert import Alert
from watcher.store.tables import AnyRow
from watcher.web.history import PAST_SPAN, PastSpan
from watcher.web.models import ApiModel, ApiRequest, Time
from watcher.web.overview import StatusView
from watcher.web.shown import Console

ERROR_KINDS_COUNT = 1_000
"""Maximum number of kinds of errors that are read from the store, the most frequent ones of all pipelines."""


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
    """Problems that were open in the span of a report, or other events of it: all of one kind and one stretch."""

    kind: str
    """The type of the event that reported it; `unknown` for pipelines about which nothing is known now."""
    about: Literal["account", "sink", "pipeline"]
    names: Sequence[str]
    """At most three names of `name_count` pipelines, or that of the account or sink."""
    name_count: int
    times: int
    """Number of the problems or events."""
    count: int
    """Number of failed executions, or of dead letters."""
    node: str | None = None
    text: str | None = None
    """The newest error, or the reason."""
    from_: Time = Field(alias="from")
    until: Time | None = None
    """The time of the last closing, or of the last event that closes nothing; absent while a problem is open."""


class Report(ApiModel):
    """The report on all pipelines over a span, the worst first. `look_count` need a look, `well_count` do not."""

    from_: Time = Field(alias="from")
    until: Time
    look_count: int
    well_count: int
    more_count: int = 0
    """Number of pipelines that are left out: 0 in an answer of the API, but an event may leave out some."""
    look_accounts: int = 0
    look_sinks: int = 0
    """Number of accounts, and of sinks, that need a look."""
    line_count: int = 0
    """Number of entries in `happened`, and of pipelines that need a look for their success rate alone."""
    happened: Sequence[Happened] = ()
    """The problems and events of the span; those that are not over come first."""
    total: Figures
    pipelines: Sequence[PipelineReport] = ()
    errors: Sequence[ReportedError] = ()
    """The three most frequent kinds of errors."""
    link: str | None = None
    """The address of the pages."""


async def make_report(
    console: Console, *, since: Micros, until: Micros, name: str | None = None, timezone: str | None = None
) -> Json:
    """Return the data of a report on the span from the full hour at or before `since` to `until`."""
    since = period_start(since, HOUR_US)
    status, store = await console.status.get(), console.store
    now = await store.totals(since=since, until=until)
    before = await store.totals(since=period_start(Micros(2 * since - until), HOUR_US), until=since)
    errors: list[Json] = []
    worst: dict[str, Json] = {}
    for row in await store.frequent_errors(since=since, until=until, limit=ERROR_KINDS_COUNT):
        # Errors are counted by whole days: the count of a kind may be higher than the number of failures in the span.
        count = min(row.failed_count, now.get(row.pipeline_name, Totals()).failed)
        if count and (known := console.pipelines.get(row.pipeline_name)) is not None:
            error = error_of(row.node, row.text, count)
            errors.append({"pipeline": shorten_text(known.name or known.id), **error})
            worst.setdefault(row.pipeline_name, error)
    happenings = list(_happenings(console, status, await store.happened(since=since, until=until)))
    recovered = {each.name for each in happenings if each.kind == EventType.PIPELINE_FAILING and each.until}
    results = []
    for key, each in console.pipelines.items():
        totals = (now.get(key, Totals()), before.get(key, Totals()))
        count = console.problem_counts.get(key, 0)
        is_clean = each.ends and Status.FAILED not in each.ends[-CLEAN_COUNT:]
        what = (each.account, each.id, each.name, each.state, count, *totals, worst.get(key))
        results.append(PipelineResult(*what, is_over=bool(is_clean or (each.name or each.id) in recovered)))
    times = {"from": timestamp(from_us(since)), "until": timestamp(from_us(until))}
    about = {"name": name, **times, "timezone": timezone, "link": console.settings().http.public_url}
    return report_of(results, sorted(errors, key=itemgetter("count"), reverse=True), about, happenings)


def _happenings(console: Console, status: StatusView, rows: Sequence[AnyRow]) -> Iterator[Happening]:
    """Yield the contents of a report, without those of pipelines that are not in the configuration."""
    names = {key: each.name or each.id for key, each in console.pipelines.items()}
    have_dead = {each.name for each in status.sinks if each.dead}
    for row in rows:
        is_pipeline = row.pipeline_name is not None
        about, name = ("pipeline", names.get(row.pipeline_name)) if is_pipeline else (row.about, row.owner)
        latest, event = json.loads(row.latest or "{}"), json.loads(row.body or '{"data": {}}')
        node, text = (latest.get("node"), latest.get("error")) if row.body is None else _error_in(event)
        is_dead = row.kind == EventType.DELIVERY_DEAD
        if name is not None and event["data"].get("percent", 100) == 100:
            until = None if is_dead and name in have_dead else row.closed_at
            count = event["data"]["count"] if is_dead else row.failed_count
            yield Happening(row.kind, about, name, row.opened_at, until, count, node, text)
    for key, each in console.pipelines.items():
        if each.state == "unknown":
            since = to_us(each.unknown_since or console.clock.now())
            yield Happening("unknown", "pipeline", names[key], since, None)


def _error_in(event: Json) -> tuple[str | None, str]:
    """Return the node and the error, or the reason, of an event that is not about one execution."""
    data = event["data"]
    if "tokensUsed" in data:
        return None, f"{data['tokensUsed']:,} of {data['tokensPerDay']:,}"
    if "error" in data:
        return data["error"].get("node"), data["error"]["text"]
    return None, data.get("answer") or Alert.of(event).error
