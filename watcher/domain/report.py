"""Reports on all pipelines: when a report is due, and its contents. Pure functions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import NamedTuple
from zoneinfo import ZoneInfo

from watcher.domain.envelope import Json, cut, encode, present, timestamp
from watcher.domain.event import EventType
from watcher.domain.history import Totals, error_kind_of, has_changed
from watcher.domain.problems import Severity, severity_of
from watcher.domain.timestamps import Micros, from_us

WELL_RATE = 0.9
"""The success rate (0 to 1) below which a pipeline needs attention."""

PIPELINES_COUNT = 20
"""The most pipelines in the event of a report."""

HAPPENED_COUNT = 20
"""The most lines about what happened in the event of a report."""

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


class Happening(NamedTuple):
    """A problem, or an event that closes nothing, for a report. Equal troubles at the same time are one line of it."""

    kind: str
    """The type of the event that reported it; `unknown` for a pipeline about which nothing is known now."""
    about: str
    """`pipeline`, `account` or `sink`."""
    name: str
    since: Micros
    until: Micros | None
    """The time at which it was over: that of the event if it closes nothing. `None` if it is not over."""
    failed_count: int = 0
    """The number of failures, or of dead letters."""
    node: str | None = None
    text: str | None = None
    """The error, or the reason."""


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
    happened = _happened(happenings)
    others = {(each["about"], *each["names"]) for each in happened if "until" not in each}
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
        "lookAccounts": sum(about == "account" for about, *_ in others),
        "lookSinks": sum(about == "sink" for about, *_ in others),
        "lineCount": len(happened) + sum(each.needs_look and each.state == "well" for each in ranked),
        "happened": happened,
        "total": _figures(now, before, sum(each.open_problems_count for each in ranked)),
        "pipelines": list(map(_pipeline, ranked)),
        "errors": errors[:ERRORS_COUNT],
    }


def shorten_report(report: Json) -> Json:
    """Return the report with its first 20 pipelines, or with fewer if its event would otherwise be too large.

    If that is not enough, fewer lines say what happened.
    """
    sizes = [(count, HAPPENED_COUNT) for count in range(PIPELINES_COUNT, -1, -1)]
    for count, happened_count in [*sizes, *((0, count) for count in range(HAPPENED_COUNT - 1, -1, -1))]:
        more_count = max(0, len(report["pipelines"]) - count)
        short = {**report, "pipelines": report["pipelines"][:count], "moreCount": more_count}
        short["happened"] = report["happened"][:happened_count]
        if len(encode(short)) <= REPORT_BYTES:
            break
    return short


def success_rate(totals: Totals) -> float | None:
    """Return the share of ends that are successes, rounded down: 1 means all of them. `None` without ends."""
    return totals.success * 10_000 // totals.ended / 10_000 if totals.ended else None


def _happened(happenings: Iterable[Happening]) -> Sequence[Json]:
    """Return the data of a line for each stretch of trouble, and of one for all that happened to a single pipeline.

    What is not over comes first, then the most severe, then causes (accounts and sinks), then what affects the most.
    """
    stretches: list[list[Happening]] = []
    newest: dict[object, tuple[int, Micros]] = {}  # the number and the end of the newest stretch of a trouble
    for each in sorted(happenings, key=lambda each: each.since):
        trouble = error_kind_of(each.node, each.text or "").fingerprint if each.about == "pipeline" else each.name
        key = each.kind, each.until is None, trouble
        number, end = newest.get(key, (len(stretches), each.since))
        if each.until is not None and each.since > end + STRETCH_US:
            number = len(stretches)
        stretches += [[]] if number == len(stretches) else []
        stretches[number].append(each)
        newest[key] = number, max(end, each.until or end)
    lines = defaultdict[object, list[Happening]](list)
    for number, stretch in enumerate(stretches):
        one, is_single = stretch[0], len({each.name for each in stretch}) == 1
        lines[(one.kind, one.until is None, one.about, one.name) if is_single else number] += stretch
    return [_line(each) for each in sorted(lines.values(), key=_urgency)]


def _urgency(stretch: Sequence[Happening]) -> tuple[bool, int, bool, int, Micros]:
    first, count = stretch[0], len({each.name for each in stretch})
    severity = severity_of(EventType(first.kind)) if first.kind != "unknown" else Severity.INFO
    is_cause = first.about != "pipeline"
    return first.until is not None, list(Severity).index(severity), not is_cause, -count, first.since


def _line(stretch: Sequence[Happening]) -> Json:
    first, last, names = stretch[0], stretch[-1], list(dict.fromkeys(each.name for each in stretch))
    until = last.until and timestamp(from_us(max(each.until or last.until for each in stretch)))
    shown = {"names": list(map(shorten_text, names[:NAMES_COUNT])), "nameCount": len(names), "times": len(stretch)}
    error = {"node": shorten_text(last.node), "text": shorten_text(last.text)}
    times = {
        "count": sum(each.failed_count for each in stretch),
        "from": timestamp(from_us(first.since)),
        "until": until,
    }
    return present({"kind": last.kind, "about": last.about, **shown, **error, **times})


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
