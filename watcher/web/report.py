"""Reports on all pipelines, made from the hourly counts in the store and from the present state of the pipelines."""

from collections.abc import Sequence
from operator import itemgetter

from pydantic import Field

from watcher.domain.envelope import Json, timestamp
from watcher.domain.history import HOUR_US, Totals, period_start
from watcher.domain.report import PipelineResult, error_of, report_of, shorten_text
from watcher.domain.timestamps import Micros, from_us
from watcher.web.history import PAST_SPAN, PastSpan
from watcher.web.models import ApiModel, ApiRequest, Time
from watcher.web.shown import Console

ERROR_KINDS_COUNT = 1_000
"""Maximum number of kinds of errors that are read from the store, the most frequent ones of all pipelines."""


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


class Report(ApiModel):
    """The report on all pipelines over a span, the worst first. `look_count` need a look, `well_count` do not."""

    from_: Time = Field(alias="from")
    until: Time
    look_count: int
    well_count: int
    more_count: int = 0
    """Number of pipelines that are left out: 0 in an answer of the API, but an event may leave out some."""
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
    await console.status.get()
    store = console.store
    now = await store.totals(console.pipelines, since=since, until=until, with_durations=True)
    since_before = period_start(Micros(2 * since - until), HOUR_US)
    before = await store.totals(console.pipelines, since=since_before, until=since)
    errors: list[Json] = []
    worst: dict[str, Json] = {}
    for row in await store.frequent_errors(since=since, until=until, limit=ERROR_KINDS_COUNT):
        # Errors are counted by whole days: the count of a kind may be higher than the number of failures in the span.
        count = min(row.failed_count, now.get(row.pipeline_name, Totals()).failed)
        if count and (known := console.pipelines.get(row.pipeline_name)) is not None:
            error = error_of(row.node, row.text, count)
            errors.append({"pipeline": shorten_text(known.name or known.id), **error})
            worst.setdefault(row.pipeline_name, error)
    results = []
    for key, each in console.pipelines.items():
        totals = (now.get(key, Totals()), before.get(key, Totals()))
        count = console.problem_counts.get(key, 0)
        results.append(PipelineResult(each.account, each.id, each.name, each.state, count, *totals, worst.get(key)))
    times = {"from": timestamp(from_us(since)), "until": timestamp(from_us(until))}
    about = {"name": name, **times, "timezone": timezone, "link": console.settings().http.public_url}
    return report_of(results, sorted(errors, key=itemgetter("count"), reverse=True), about)
