"""A report in words, for a chat, a mail or a terminal: a line for each pipeline that needs a look, then the totals.

The title is made by `report_title` in `watcher/sinks/alert.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from watcher.runtime.units import percent, spell_duration
from watcher.sinks.alert import in_words, length, report_times, shorten

NAME_LENGTH = 40
ERROR_LENGTH = 60

ReportData = Mapping[str, Any]


def report_lines(report: ReportData, *, limit: int) -> Sequence[str]:
    """Return a line for each pipeline that needs a look, then the number of those that are well, and the totals.

    The lines have at most `limit` characters together: the least important pipelines are left out.
    """
    looks = [_pipeline(each) for each in report.get("pipelines", ()) if each["needsLook"]]
    while True:
        lines = [*looks, *_rest(report, report["lookCount"] - len(looks))]
        if not looks or sum(length(line) + 1 for line in lines) <= limit:
            return lines
        looks.pop()


def report_span(report: ReportData) -> str:
    """Return the span that a report covers, in the time zone of the report."""
    since, until = report_times(report)
    return f"{since:%a} {since.day} {since:%b %H:%M} to {until:%a} {until.day} {until:%b %H:%M} ({until:%Z})"


def _rest(report: ReportData, more_count: int) -> Sequence[str]:
    total, well_count = report["total"], report["wellCount"]
    all_count = report["lookCount"] + well_count
    problems = f"{total['openProblems']:,} open problem{'' if total['openProblems'] == 1 else 's'}"
    parts = (_result(total), problems, f"{total['tokens']:,} tokens")
    return [
        *([f"and {more_count:,} more need{'s' if more_count == 1 else ''} a look"] if more_count else []),
        *([f"✓ {well_count:,} {'is' if well_count == 1 else 'are'} well"] if well_count else []),
        f"All {all_count:,}: {'; '.join(parts)}",
    ]


def _pipeline(each: ReportData) -> str:
    sign, name = "?" if each["state"] == "unknown" else "✕", shorten(each.get("name") or each["id"], NAME_LENGTH)
    state = "" if each["state"] == "well" else f"{each['state']}; "
    return f"{sign} {name}: {state}{_result(each)}"


def _result(each: ReportData) -> str:
    """Return the results of a pipeline, or of all pipelines."""
    if not each["ended"]:
        return "none ended"
    was = f", was {percent(each['successRateBefore'], 1)} %" if "successRateBefore" in each else ""
    parts = [f"{percent(each['successRate'], 1)} % of {each['ended']:,} succeeded{was}"]
    if error := each.get("error"):
        kind = ": ".join(filter(None, (error.get("node"), error.get("text"))))
        parts.append(f"{error['count']:,} \N{MULTIPLICATION SIGN} {shorten(kind, ERROR_LENGTH)}")
    if "medianSeconds" in each:
        parts.append(f"median {_duration(each['medianSeconds'])}, p95 {_duration(each['p95Seconds'])}")
    return "; ".join(parts)


def _duration(seconds: float) -> str:
    return in_words(seconds) if seconds < 10 else spell_duration(round(seconds))
