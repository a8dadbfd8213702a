"""Reports on all pipelines: when a report is due, and its contents. Pure functions."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import partial
from math import inf
from operator import attrgetter
from typing import NamedTuple
from zoneinfo import ZoneInfo

from watcher.domain.envelope import Json, cut, encode, present, timestamp
from watcher.domain.event import Severity
from watcher.domain.history import Totals, error_kind_of, has_changed
from watcher.domain.timestamps import Micros, from_us

WELL_RATE = 0.9
"""The success rate (0 to 1) below which a pipeline needs attention."""

LISTED_COUNT = 20
"""The most pipelines, and the most lines about what happened, in the event of a report."""

WHAT_BYTES = 256
"""The most bytes of a text that says what happened to which pipelines."""

NAMES_COUNT = 3
"""The most names in one line about what happened."""

STRETCH_US = 10 * 60_000_000
"""The longest pause in a stretch of trouble. What happens after a longer pause is another stretch."""

ERRORS_COUNT = 3
"""The most kinds of error in a report, for all pipelines together."""

shorten_text = partial(cut, limit=128)
"""Cuts a text of a report to 128 bytes."""

REPORT_BYTES = 15 * 1024
"""The most bytes of a report. Together with the envelope, its event stays below 16 KiB."""


@dataclass(frozen=True, slots=True)
class ReportSchedule:
    """The schedule of a report: `minute` minutes after midnight on each of `days` (Monday is 0), in a time zone."""

    days: frozenset[int]
    minute: int
    zone: ZoneInfo

    def last_two(self, at: datetime) -> tuple[datetime, datetime]:
        """Return the last two scheduled moments (UTC) that are not after `at`.

        Each of `days` has one moment. If the local time occurs twice on a day, its first occurrence counts. If the
        clock skips the local time, the moment is later by the time that was skipped.
        """
        today = at.astimezone(self.zone).date()
        near = (today + timedelta(days=count) for count in range(-15, 1))  # two weeks back, for one day a week
        at_clock = time(*divmod(self.minute, 60), tzinfo=self.zone)
        moments = [datetime.combine(day, at_clock).astimezone(UTC) for day in near if day.weekday() in self.days]
        before, newest = [moment for moment in moments if moment <= at][-2:]
        return before, newest


@dataclass(slots=True)
class Happening:
    """A line of a report: a trouble of one or more pipelines in one stretch of time, or of an account or a sink."""

    kind: str
    """The type of the event that reported it; `unknown`, `low_rate` or `silenced` for the state of a pipeline."""
    about: str
    """`pipeline`, `account` or `sink`."""
    names: dict[str, str]
    """The names of the pipelines, of the account or of the sink, by account and id of the pipeline or by the name."""
    since: Micros
    until: Micros | None
    """The time at which it was over: that of the event if it closes nothing. `None` if it is not over."""
    title: str
    """The words for what happened, with the name: for a line about a single name."""
    error: str = ""
    """The newest error, or the reason."""
    rank: int = len(Severity)
    """The place of its severity: 0 is the most severe."""
    is_acknowledged: bool = False
    count: int = 1
    """The number of problems or events."""

    @property
    def only(self) -> str | None:
        """Return the key of the only name, or `None`."""
        return next(iter(self.names)) if len(self.names) == 1 else None

    @property
    def trouble(self) -> str | bytes | None:
        """Return what two pipelines with the same trouble have in common: the kind of error."""
        return error_kind_of(None, self.error).fingerprint if self.about == "pipeline" else self.only

    @property
    def place(self) -> tuple[float, ...]:
        """Return the sort key: first what is not over, then what nobody acknowledged, causes, the severe, the many."""
        is_effect = self.about == "pipeline"
        return self.until is not None, self.is_acknowledged, is_effect, self.rank, -len(self.names), self.since


class PipelineResult(NamedTuple):
    """The results of one pipeline: `now` in the period of the report, `before` in the equally long period before it."""

    account: str
    id: str
    name: str | None
    state: str
    """The kind of the worst open problem (`failing`, for example), else `unknown` or `well`."""
    open_problems_count: int
    now: Totals
    before: Totals
    error: Json | None = None
    """The most frequent kind of error."""
    is_over: bool = False
    """Whether its failures are over."""

    @property
    def needs_look(self) -> bool:
        """Return whether the pipeline needs attention: something is not over, by its state or by its success rate."""
        if self.state != "well":
            return True
        if not self.now.ended or self.is_over:
            return False
        rate, before = success_rate(self.now) or 0.0, success_rate(self.before) or 0.0
        return rate < WELL_RATE or (rate < before and has_changed(self.now, self.before))


def error_of(node: str | None, text: str, count: int) -> Json:
    """Return a kind of error as a report shows it: its node, newest text, and number of failed executions."""
    return present({"node": shorten_text(node), "text": shorten_text(text), "count": count})


def report_of(
    pipelines: Iterable[PipelineResult], errors: Sequence[Json], about: Json, happenings: Iterable[Happening] = ()
) -> Json:
    """Return the data of a report with all pipelines, the worst first. `about` is its name, period, time zone, link."""
    happened = _lines(happenings)
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
        "lineCount": len(happened),
        "happened": happened,
        "total": _figures(now, before, sum(each.open_problems_count for each in ranked)),
        "pipelines": list(map(_pipeline, ranked)),
        "errors": errors[:ERRORS_COUNT],
    }


def shorten_report(report: Json) -> Json:
    """Return the report with its first 20 pipelines and lines, or with fewer if its event would be too large."""
    for count in range(LISTED_COUNT, -1, -1):
        short = {key: each[:count] if key in {"pipelines", "happened"} else each for key, each in report.items()}
        short["moreCount"] = max(0, len(report["pipelines"]) - count)
        if len(encode(short)) <= REPORT_BYTES:
            break
    return short


def success_rate(totals: Totals) -> float | None:
    """Return the share of ends that are successes, rounded down: 1 means all of them. `None` without ends."""
    return totals.success * 10_000 // totals.ended / 10_000 if totals.ended else None


def _lines(happenings: Iterable[Happening]) -> Sequence[Json]:
    """Return a line for each stretch of one trouble, and one for all that happened to a single pipeline."""
    stretches = _merged(happenings, lambda each: each.trouble, STRETCH_US)
    lines = _merged(stretches, lambda each: each.only or id(each), inf)
    return [_line(each) for each in sorted(lines, key=attrgetter("place"))]


def _merged(happenings: Iterable[Happening], same: Callable[[Happening], object], pause_us: float) -> list[Happening]:
    """Return one line for all of a kind that are the same, and a further one after a longer pause."""
    lines: list[Happening] = []
    newest: dict[object, Happening] = {}
    for each in sorted(happenings, key=attrgetter("since")):
        key = each.kind, each.until is None, each.is_acknowledged, same(each)
        line = newest.get(key)
        if line is None or each.since > (line.until or inf) + pause_us:
            newest[key] = each
            lines.append(each)
        else:
            line.names |= each.names
            line.count += each.count
            line.title, line.error = each.title, each.error
            line.until = each.until and max(line.until or each.until, each.until)
    return lines


def _line(each: Happening) -> Json:
    names, until = list(each.names.values()), each.until and timestamp(from_us(each.until))
    few = ", ".join(names) if len(names) <= NAMES_COUNT else f"{len(names):,} pipelines"
    what = each.title if len(names) == 1 else few
    what += f" ({each.count:,} times)" if each.count > len(names) else ""
    who = {"kind": each.kind, "about": each.about, "names": list(map(shorten_text, names[:NAMES_COUNT]))}
    words = {
        "what": cut(what, limit=WHAT_BYTES),
        "error": shorten_text(each.error or (each.kind.rpartition(".")[2] if len(names) > 1 else "")),
    }
    times = {"from": timestamp(from_us(each.since)), "until": until}
    return present({**who, **words, **times, "acknowledged": each.is_acknowledged or None})


def _place(each: PipelineResult) -> tuple[bool, bool, float, int, str]:
    """Return the sort key of a pipeline. The worst pipeline comes first."""
    rate = 1.0 if (known := success_rate(each.now)) is None else known
    return not each.needs_look, not each.open_problems_count, rate, -each.now.failed, each.name or each.id


def _pipeline(each: PipelineResult) -> Json:
    about: Json = {"account": each.account, "id": each.id, "name": shorten_text(each.name)}
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
