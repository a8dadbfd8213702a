"""The history of a pipeline, as API and pages show it."""

from watcher.domain.history import DAY_US, HOUR_US, Totals, has_changed, period_start, sum_up
from watcher.domain.timestamps import Micros, to_us
from watcher.web import models
from watcher.web.shown import Console


async def find_history(console: Console, name: str, *, span_us: int, length_us: int) -> models.History:
    """Return what happened in a pipeline (account/id) within a span until now, by periods of this length.

    The pipeline must be one of the last status.
    """
    pipeline, now = console.pipelines[name], console.clock.steady_us()
    until = Micros(period_start(now, length_us) + length_us)
    from_at = Micros(until + -span_us // length_us * length_us)  # rounded up to whole periods, with the running one
    found = await console.store.history(name, since=from_at)
    kept_from = Micros(period_start(now, HOUR_US) - round(console.settings().store.retention_s * 1e6))
    # Without lists to read the history begins with the first execution that is named.
    first_at = found.known_from if pipeline.whole else found.first_at
    known_from = until if first_at is None else max(first_at, kept_from)
    known_until = until if pipeline.unknown_since is None else to_us(pipeline.unknown_since)
    parts, total = [], Totals()
    for start in map(Micros, range(from_at, until, length_us)):
        end = Micros(start + length_us)
        totals = sum_up(found.hours, start, end)
        is_known = (known_from < end and start < known_until) or bool(totals.started or totals.ended)
        parts.append(_period(start, end, totals, is_known=is_known))
        total.add(totals)
    before, before_at, of_before = None, Micros(from_at - (until - from_at)), Totals()
    if known_from <= before_at:
        of_before = sum_up((await console.store.history(name, since=before_at)).hours, before_at, from_at)
        before = _period(before_at, from_at, of_before, is_known=True)
    day_ago = now - DAY_US
    return models.History(
        account=pipeline.account,
        pipeline=models.PipelineRef(id=pipeline.id, name=pipeline.name),
        from_=from_at,
        until=until,
        known_from=None if first_at is None else known_from,
        periods=parts,
        total=_period(from_at, until, total, is_known=any(each.known for each in parts)),
        before=before,
        rate_has_changed=has_changed(total, of_before),
        errors=[
            models.ErrorCount(**row._asdict(), count=row.failed_count, is_new=known_from <= day_ago < first_seen_at)
            for row, first_seen_at in found.errors
        ],
        problems=[models.PastProblem(**row._asdict()) for row in found.problems],
    )


def _period(from_at: Micros, until: Micros, totals: Totals, *, is_known: bool) -> models.HistoryPeriod:
    return models.HistoryPeriod(
        from_=from_at,
        until=until,
        known=is_known,
        started=totals.started,
        ended=models.EndCounts(success=totals.success, failed=totals.failed, unrecognized=totals.unrecognized),
        median_seconds=totals.quantile(0.5),
        p95_seconds=totals.quantile(0.95),
        tokens=totals.tokens,
    )
