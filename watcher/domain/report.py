"""Reports of how the pipelines did: when one is due, and what it says. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from watcher.domain.envelope import Json, cut, encode, present
from watcher.domain.history import Totals, has_changed

WELL_RATE = 0.9
"""A pipeline of which a smaller share succeeded needs a look."""

PIPELINES_COUNT = 20
"""Pipelines in the event of a report, at most."""

ERRORS_COUNT = 3
"""Kinds of error over all pipelines in a report, at most."""

TEXT_BYTES = 128
REPORT_BYTES = 15 * 1024
"""With the envelope around it the event stays below 16 KiB."""


@dataclass(frozen=True, slots=True)
class ReportSchedule:
    """The moments of a report: at `minute` (from midnight) of each of `days` (Monday is 0), by the clock of a zone."""

    days: frozenset[int]
    minute: int
    zone: ZoneInfo

    def last_two(self, at: datetime) -> tuple[datetime, datetime]:
        """Return the last two moments (UTC) that are not later than that time.

        There is one moment a day: the first one where the clock shows the time twice. Where it skips the time, the
        moment is as much later as it skips.
        """
        today = at.astimezone(self.zone).date()
        near = (today + timedelta(days=count) for count in range(-15, 1))  # two weeks back, for one day a week
        at_clock = time(*divmod(self.minute, 60), tzinfo=self.zone)
        moments = [datetime.combine(day, at_clock).astimezone(UTC) for day in near if day.weekday() in self.days]
        before, newest = [moment for moment in moments if moment <= at][-2:]
        return before, newest


class PipelineResult(NamedTuple):
    """The result of a pipeline: now, and in the time before, which was as long.

    `state` is its worst open problem, `unknown` or `well`. `error` is its most frequent kind of error.
    """

    account: str
    id: str
    name: str | None
    state: str
    open_problems_count: int
    now: Totals
    before: Totals
    error: Json | None = None

    @property
    def needs_look(self) -> bool:
        """Return whether a person should look at it: by its state, or by how many of its executions succeeded."""
        if self.state != "well" or not self.now.ended:
            return self.state != "well"
        rate, before = success_rate(self.now) or 0.0, success_rate(self.before) or 0.0
        return rate < WELL_RATE or (rate < before and has_changed(self.now, self.before))


def error_of(node: str | None, text: str, count: int) -> Json:
    """Return a kind of error as a report shows it: where, its newest text, and how many executions failed by it."""
    return present({"node": cut(node, limit=TEXT_BYTES), "text": cut(text, limit=TEXT_BYTES), "count": count})


def report_of(pipelines: Iterable[PipelineResult], errors: Sequence[Json], about: Json) -> Json:
    """Return the data of a report with all pipelines, the worst first. `about` has its name, its time and its link."""
    ranked = sorted(pipelines, key=_place)
    now, before = Totals(), Totals()
    for each in ranked:
        now.add(each.now)
        before.add(each.before)
    look_count = sum(each.needs_look for each in ranked)
    return {
        **present(about),
        "lookCount": look_count,
        "wellCount": len(ranked) - look_count,
        "moreCount": 0,
        "total": _figures(now, before, sum(each.open_problems_count for each in ranked)),
        "pipelines": list(map(_pipeline, ranked)),
        "errors": errors[:ERRORS_COUNT],
    }


def shorten_report(report: Json) -> Json:
    """Return a report with at most 20 pipelines, fewer if it would be larger than an event may be."""
    for count in range(PIPELINES_COUNT, -1, -1):
        more_count = max(0, len(report["pipelines"]) - count)
        short = {**report, "pipelines": report["pipelines"][:count], "moreCount": more_count}
        if len(encode(short)) <= REPORT_BYTES:
            break
    return short


def success_rate(totals: Totals) -> float | None:
    """Return the share that succeeded, rounded down: it is 1 only if nothing failed. `None` if nothing ended."""
    return totals.success * 10_000 // totals.ended / 10_000 if totals.ended else None


def _place(each: PipelineResult) -> tuple[bool, bool, float, int, str]:
    """Return the place of a pipeline among all: the worst comes first."""
    rate = 1.0 if (known := success_rate(each.now)) is None else known
    return not each.needs_look, not each.open_problems_count, rate, -each.now.failed, each.name or each.id


def _pipeline(each: PipelineResult) -> Json:
    about: Json = {"account": each.account, "id": each.id, "name": cut(each.name, limit=TEXT_BYTES)}
    figures = _figures(each.now, each.before, each.open_problems_count)
    return present({**about, "state": each.state, "needsLook": each.needs_look, **figures, "error": each.error})


def _figures(now: Totals, before: Totals, open_problems_count: int) -> Json:
    figures = {
        "openProblems": open_problems_count,
        "ended": now.ended,
        "failed": now.failed,
        "successRate": success_rate(now),
        "successRateBefore": success_rate(before) if has_changed(now, before) else None,
        "medianSeconds": now.quantile(0.5),
        "p95Seconds": now.quantile(0.95),
        "tokens": now.tokens,
    }
    return present(figures)
