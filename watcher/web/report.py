"""How a report is made: from the hours in the store, and from the pipelines as the overview shows them now."""

from operator import itemgetter

from watcher.domain.envelope import Json, cut, timestamp
from watcher.domain.history import HOUR_US, Totals, period_start
from watcher.domain.report import TEXT_BYTES, PipelineResult, error_of, report_of
from watcher.domain.timestamps import Micros, from_us
from watcher.web.shown import Console

ERROR_KINDS_COUNT = 1_000
"""Kinds of error of all pipelines that are read, at most: the most frequent ones."""


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
