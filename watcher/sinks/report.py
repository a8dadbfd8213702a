"""A report in words, for a chat, a mail or a terminal: what is not over, what happened and is over, then the totals.

The title is made by `report_title` in `watcher/sinks/alert.py`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from watcher.domain.event import EventType
from watcher.domain.problems import PROBLEM_KINDS
from watcher.runtime.units import percent, spell_duration
from watcher.sinks.alert import GOOD, SIGNS, TROUBLE, in_words, length, report_times, shorten

NAME_LENGTH = 40
ERROR_LENGTH = 60

_WORDS: Mapping[str, str] = {
    EventType.PIPELINE_OVERSPENDING: "over its tokens for the day",
    EventType.PIPELINE_NEW_ERROR: "new error",
    EventType.PIPELINE_GAP: "executions may have been missed",
    EventType.DELIVERY_DEAD: "dead letters",
}
"""The words of a kind of trouble. Other kinds have the last word of their type, such as `failing`."""

ReportData = Mapping[str, Any]


def report_lines(report: ReportData, *, limit: int) -> Sequence[str]:
    """Return a line for all that is not over, then for what happened and is over, then the totals.

    The lines have at most `limit` characters together: the least important ones are left out. A report of version
    1.1.0 says only which pipelines need a look.
    """
    happened, pipelines = report.get("happened"), report.get("pipelines", ())
    told = [
        *(_happened(each, report) for each in happened or () if "until" not in each),
        *(_pipeline(each) for each in pipelines if each["needsLook"] and (happened is None or each["state"] == "well")),
        *(_happened(each, report) for each in happened or () if "until" in each),
    ]
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
    all_count = report["lookCount"] + well_count
    problems = f"{total['openProblems']:,} open problem{'' if total['openProblems'] == 1 else 's'}"
    parts = (_result(total), problems, f"{total['tokens']:,} tokens")
    return [
        *([f"✓ {well_count:,} {'is' if well_count == 1 else 'are'} well"] if well_count else []),
        f"All {all_count:,}: {'; '.join(parts)}",
    ]


def _happened(each: ReportData, report: ReportData) -> str:
    """Return the line about one stretch of trouble: who, what, how often, why, when."""
    kind, names, today, is_over = each["kind"], each["names"], report_times(report)[1], "until" in each
    is_closed = is_over and kind in PROBLEM_KINDS
    sign = GOOD[0] if is_closed else "!" if is_over else "?" if kind == "unknown" else SIGNS.get(kind, TROUBLE)[0]
    who = ", ".join(shorten(name, NAME_LENGTH) for name in names)
    if each["about"] != "pipeline":
        who = f"{each['about'].capitalize()} {who}"
    elif each["nameCount"] > len(names):
        who = f"{each['nameCount']:,} pipelines"
    error = shorten(": ".join(filter(None, (each.get("node"), each.get("text")))), ERROR_LENGTH)
    what = _WORDS.get(kind, kind.rpartition(".")[2])
    if kind == EventType.DELIVERY_DEAD:
        what += f" ({each['count']:,})"
    elif each["times"] > each["nameCount"]:
        what += f" ({each['times']:,} times)"
    elif error and (is_closed or kind == EventType.ACCOUNT_DEGRADED):
        what = ""
    since, *until = (
        datetime.fromisoformat(each[key]).astimezone(today.tzinfo) for key in ("from", "until")[: 1 + is_over]
    )
    first, last = _clock(since, today), [_clock(moment, today, since) for moment in until]
    when = f"since {first}" if not last else first if first.endswith(last[0]) else f"{first} to {last[0]}"
    alone = [one for one in report["pipelines"] if [one.get("name") or one["id"]] == names and one["ended"]]
    rate = f"; {_rate(alone[0])}" if alone and each["about"] == "pipeline" and not is_over else ""
    said = ": ".join(filter(None, (who, what, error)))
    return f"{sign} {said}, {when}{', over' if is_closed else ''}{rate}"


def _clock(moment: datetime, *days: datetime) -> str:
    """Return a time as `06:40`, with its weekday or its date if it is on none of `days`."""
    if moment.date() in {day.date() for day in days}:
        return f"{moment:%H:%M}"
    is_near = days[0] - moment < timedelta(days=6)
    return f"{moment:%a %H:%M}" if is_near else f"{moment.day} {moment:%b %H:%M}"


def _pipeline(each: ReportData) -> str:
    sign, name = "?" if each["state"] == "unknown" else "✕", shorten(each.get("name") or each["id"], NAME_LENGTH)
    state = "" if each["state"] == "well" else f"{each['state']}; "
    return f"{sign} {name}: {state}{_result(each)}"


def _result(each: ReportData) -> str:
    """Return the results of a pipeline, or of all pipelines."""
    if not each["ended"]:
        return "none ended"
    parts = [_rate(each)]
    if error := each.get("error"):
        kind = ": ".join(filter(None, (error.get("node"), error.get("text"))))
        parts.append(f"{error['count']:,} \N{MULTIPLICATION SIGN} {shorten(kind, ERROR_LENGTH)}")
    if "medianSeconds" in each:
        parts.append(f"median {_duration(each['medianSeconds'])}, p95 {_duration(each['p95Seconds'])}")
    return "; ".join(parts)


def _rate(each: ReportData) -> str:
    was = f", was {percent(each['successRateBefore'], 1)} %" if "successRateBefore" in each else ""
    return f"{percent(each['successRate'], 1)} % of {each['ended']:,} succeeded{was}"


def _duration(seconds: float) -> str:
    return in_words(seconds) if seconds < 10 else spell_duration(round(seconds))
