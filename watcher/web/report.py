"""A report, and how it is made: from the hours in the store, and from the pipelines as the overview shows them now."""

from collections.abc import Sequence
from operator import itemgetter

from pydantic import Field

from watcher.domain.envelope import Json, cut, timestamp
from watcher.domain.history import HOUR_US, Totals, period_start
from watcher.domain.report import TEXT_BYTES, PipelineResult, error_of, report_of
from watcher.domain.timestamps import Micros, from_us
from watcher.web.history import PAST_SPAN, PastSpan
from watcher.web.models import ApiModel, ApiRequest, Time
from watcher.web.shown import Console

ERROR_KINDS_COUNT = 1_000
"""Kinds of error of all pipelines that are read, at most: the most frequent ones."""


class ReportQuery(ApiRequest):
    """The time of a report."""

    last: PastSpan = PAST_SPAN


class ReportedError(ApiModel):
    """A kind of error: the node that failed, the newest text, and how many executions. `pipeline` is a name."""

    pipeline: str | None = None
    node: str | None = None
    text: str | None = None
    count: int


class Figures(ApiModel):
    """What happened within the time of a report. Rates are shares from 0 to 1, rounded down."""

    open_problems: int
    """How many are open now."""
    ended: int
    failed: int
    success_rate: float | None = None
    """Absent if nothing ended."""
    success_rate_before: float | None = None
    """That of the time before, if it differs by more than chance explains (p < 0.05)."""
    median_seconds: float | None = None
    """Of those that succeeded, within 5 %; so the next."""
    p95_seconds: float | None = Field(default=None, alias="p95Seconds")
    tokens: int


class PipelineReport(Figures):
    """A pipeline in a report. `state` is how it is now, as in `/status`."""

    account: str
    id: str
    name: str | None = None
    state: str
    needs_look: bool
    error: ReportedError | None = None
    """The most frequent kind."""


class Report(ApiModel):
    """How the pipelines did within a time, the worst first. `look_count` of them need a look, `well_count` do not."""

    from_: Time = Field(alias="from")
    until: Time
    look_count: int
    well_count: int
    more_count: int = 0
    """How many pipelines are left out; none here, in an event perhaps."""
    total: Figures
    pipelines: Sequence[PipelineReport] = ()
    errors: Sequence[ReportedError] = ()
    """The three most frequent kinds."""
    link: str | None = None
    """The address of the pages."""


async def make_report(
    console: Console, *, since: Micros, until: Micros, name: str | None = None, timezone: str | None = None
) -> Json:
    """Return the data of a report on the time from the hour that holds `since` until `until`."""
    since = period_start(since, HOUR_US)
    await console.status.get()
    store = console.store
    now = await store.totals(since=since, until=until)
    before = await store.totals(since=period_start(Micros(2 * since - until), HOUR_US), until=since)
    errors: list[Json] = []
    worst: dict[str, Json] = {}
    for row in await store.frequent_errors(since=since, until=until, limit=ERROR_KINDS_COUNT):
        # Kinds of error are counted by the day: a day may have more of a kind than failed in this time.
        count = min(row.failed_count, now.get(row.pipeline_name, Totals()).failed)
        if count and (known := console.pipelines.get(row.pipeline_name)) is not None:
            error = error_of(row.node, row.text, count)
            errors.append({"pipeline": cut(known.name or known.id, limit=TEXT_BYTES), **error})
            worst.setdefault(row.pipeline_name, error)
    results = []
    for key, each in console.pipelines.items():
        totals = (now.get(key, Totals()), before.get(key, Totals()))
        count = console.problem_counts.get(key, 0)
        results.append(PipelineResult(each.account, each.id, each.name, each.state, count, *totals, worst.get(key)))
    times = {"from": timestamp(from_us(since)), "until": timestamp(from_us(until))}
    about = {"name": name, **times, "timezone": timezone, "link": console.settings().http.public_url}
    return report_of(results, sorted(errors, key=itemgetter("count"), reverse=True), about)
