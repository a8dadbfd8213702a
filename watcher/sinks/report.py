"""A report in words, for a chat, a mail or a terminal: what is not over, what happened and is over, then the totals.

The title is made by `report_title` in `watcher/sinks/alert.py`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from watcher.domain.event import EventType
from watcher.domain.problems import PROBLEM_KINDS
from watcher.runtime.units import percent, spell_duration
from watcher.sinks.alert import GOOD, TROUBLE, in_words, length, report_times, shorten, sign_of

ERROR_LENGTH = 80
WHAT_LENGTH = 120

_SIGNS = {"unknown": "?", "silenced": "‖"}
"""The signs of lines that are about no event."""

ReportData = Mapping[str, Any]


def report_lines(report: ReportData, *, limit: int) -> Sequence[str]:
    """Return a line for all that is not over, then for what happened and is over, then the totals.

    The lines have at most `limit` characters together: the least important ones are left out.
    """
    told = [_happened(each, report_times(report)[1]) for each in report.get("happened", ())]
    while True:
        more_count = report.get("lineCount", report["lookCount"]) - len(told)
        lines = [*told, *([f"and {more_count:,} more"] if more_count else []), *_rest(report)]
        if not told or sum(length(line) + 1 for line in lines) <= limit:
            return lines
        told.pop()


def report_span(report: ReportData) -> str:
    """Return the span that a report covers, in the time zone of the report."""
    since, until = report_times(report)
    return f"{since:%a} {since.day} {since:%b %H:%M} to {until:%a} {until.day} {until:%b %H:%M} ({until:%Z})"


def _rest(report: ReportData) -> Sequence[str]:
    total, well_count = report["total"], report["wellCount"]
    parts = ["none ended"]
    if total["ended"]:
        was = f", was {percent(total['successRateBefore'], 1)} %" if "successRateBefore" in total else ""
        parts = [f"{percent(total['successRate'], 1)} % of {total['ended']:,} succeeded{was}"]
    if "medianSeconds" in total:
        parts.append(f"median {_duration(total['medianSeconds'])}, p95 {_duration(total['p95Seconds'])}")
    parts.append(f"{total['openProblems']:,} open problem{'' if total['openProblems'] == 1 else 's'}")
    well = [f"{GOOD[0]} {well_count:,} {'is' if well_count == 1 else 'are'} well"] if well_count else []
    return [*well, f"All {report['lookCount'] + well_count:,}: {'; '.join(parts)}; {total['tokens']:,} tokens"]


def _happened(each: ReportData, today: datetime) -> str:
    """Return a line: what happened to whom, why, and when."""
    kind, is_over = each["kind"], "until" in each
    is_closed = is_over and kind in PROBLEM_KINDS
    sign = sign_of(EventType(kind))[0] if kind in set(EventType) else _SIGNS.get(kind, TROUBLE[0])
    if (is_over and kind != "silenced") or each.get("acknowledged"):
        sign = GOOD[0] if is_closed else "!" if is_over else sign_of(EventType.PROBLEM_ACKNOWLEDGED)[0]
    said = ": ".join(filter(None, (shorten(each["what"], WHAT_LENGTH), shorten(each.get("error", ""), ERROR_LENGTH))))
    times = (each["from"], each.get("until", each["from"]))
    since, until = (datetime.fromisoformat(time).astimezone(today.tzinfo) for time in times)
    when = ("" if is_over else "since ") + _clock(since, today)
    when += f" to {_clock(until, today, since)}" if until > since else ""
    return f"{sign} {said}, {when}{', over' if is_closed else ''}"


def _clock(moment: datetime, *days: datetime) -> str:
    """Return a time as `06:40`, with its weekday or its date if it is on none of `days`."""
    is_near = days[0] - moment < timedelta(days=6)
    day = "" if moment.date() in {day.date() for day in days} else "%a " if is_near else f"{moment.day} %b "
    return moment.strftime(f"{day}%H:%M")


def _duration(seconds: float) -> str:
    return in_words(seconds) if seconds < 10 else spell_duration(round(seconds))
