"""The rendering of templates, and their filters: ages, times, strips of ends, timelines.

All text in a template is escaped, and its control characters are shown by their codes. This module imports Jinja2,
which takes memory; import this module only when the first page is rendered.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from statistics import median
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from watcher.domain.event import EventType, Severity
from watcher.domain.execution import END_LABELS, LOST, OPEN_STATUSES, TERMINAL_STATUSES, Status
from watcher.domain.problems import severity_of
from watcher.domain.snapshots import ENDS_COUNT
from watcher.runtime.terminal import harmless
from watcher.runtime.units import percent, spell_duration
from watcher.sinks.alert import sign_of, usable_link
from watcher.web.graphs import graphs, short, spell_period
from watcher.web.models import Stay
from watcher.web.overview import PipelineStatus

_CLASSES = dict[str | None, str]((each, each) for each in Status) | {"counts_as_failed": "failed counted"}

LONGEST_MEDIANS = 10
"""Longest stay that is drawn to scale, as a multiple of the median stay. A longer stay is drawn with this length."""

NARROWEST = 1.2
"""Least width of a stay, in percent of the timeline's width."""


class Bar(NamedTuple):
    """The bar of a stay in a timeline. `x` and the widths are percent of the timeline's width."""

    x: float
    width: float
    uncertain: float
    """Width of the time before `x` in which the status changed: the time between two polls."""
    is_cut: bool
    stay: Stay
    seconds: float


def glyph(status: str | None) -> str:
    """Return the sign of a status of executions."""
    return event_glyph(f"execution.{status}") if status in {*Status} else "?"


def status_class(status: str | None) -> str:
    """Return the CSS class of a status of executions. `lost`, unrecognized and missing statuses share one class."""
    return _CLASSES.get(status, "unknown")


def event_glyph(type_: str, severity: Severity | None = None) -> str:
    """Return the sign of an event. A reminder has a sign of its own: a check mark would look like good news."""
    if type_ == EventType.PROBLEM_REMINDER:
        return "◷"
    return sign_of(EventType(type_), severity)[0]


def severity_class(severity: Severity) -> str:
    """Return the CSS class of a severity."""
    return {Severity.INFO: "", Severity.WARNING: "paused"}.get(severity, "failed")


def pipeline_mark(pipeline: PipelineStatus) -> tuple[str, str]:
    """Return the CSS class and the sign of a pipeline: those of its most severe problem, if it has one."""
    if not pipeline.problems:
        known = ("success", "✓") if pipeline.ends else ("", "·")
        return ("unknown", "?") if pipeline.unknown else known
    worst = EventType(pipeline.problems[0])
    return severity_class(severity_of(worst)), event_glyph(worst)


def span(seconds: float | None) -> str:
    """Return a duration in words, with a decimal below ten seconds."""
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 10 else spell_duration(seconds)


def seconds_between(start: datetime, end: datetime) -> float:
    """Return the seconds between two times, at least 0: the times may come from different clocks."""
    return max(0.0, (end - start).total_seconds())


@pass_context
def age(context: Context, when: datetime | None) -> Markup | str:
    """Return the time since or until a moment, as an HTML element whose text the page's script keeps current."""
    if when is None:
        return ""
    text = spell_duration(abs((context["now"] - when).total_seconds()))
    return Markup(f"<time class=age datetime={_iso(when)}>{text}</time>")  # noqa: S704 (digits and units)


@pass_context
def at(context: Context, when: datetime | str | None) -> Markup | str:
    """Return a moment in UTC, with its day unless that is today, as an HTML element.

    The page's script can show the moment in local time.
    """
    if when is None:
        return ""
    when = (datetime.fromisoformat(when) if isinstance(when, str) else when).astimezone(UTC)
    form = "%H:%M:%S\xa0UTC" if when.date() == context["now"].date() else "%b %-d %H:%M:%S\xa0UTC"
    return Markup(f"<time class=at datetime={_iso(when)}>{when:{form}}</time>")  # noqa: S704 (digits and months)


def _iso(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def strip(ends: Sequence[str]) -> Mapping[str, str]:
    """Return the SVG path of each status in a strip of the last ends; the strip is 300 pixels wide, the newest right.

    Successive equal ends are one line. The style sheet cuts the line into bars, 4 pixels wide, and sets their height.
    """
    paths: dict[str, str] = {}
    x = 5 * (ENDS_COUNT - len(ends))
    for name, run in groupby(map(status_class, ends)):
        width = 5 * len(list(run))
        paths[name] = paths.get(name, "") + f"M{x} {16 if name == Status.SUCCESS else 10}h{width - 1}"
        x += width
    return paths


def timeline(stays: Sequence[Stay], now: datetime) -> Sequence[Bar]:
    """Return the bars of a timeline. The bar of a stay that is far longer than the others is cut."""
    lengths = [seconds_between(stay.at, stay.until or now) for stay in stays]
    if stays and stays[-1].status in TERMINAL_STATUSES:
        lengths[-1] = 0.0  # a final status has no length
    typical = median([length for length in lengths if length] or [1.0])
    drawn = [min(length, LONGEST_MEDIANS * typical) for length in lengths]
    scale = (100 - NARROWEST * len(stays)) / (sum(drawn) or 1)
    bars: list[Bar] = []
    x = 0.0
    for stay, length, shown in zip(stays, lengths, drawn, strict=True):
        width = NARROWEST + shown * scale
        uncertain = 0.0
        if stay.not_before and bars:
            uncertain = min(bars[-1].width, max(0.3, seconds_between(stay.not_before, stay.at) * scale))
        bars.append(Bar(x, width, uncertain, shown < length, stay, length))
        x += width
    return bars


def _shown(value: object) -> object:
    """Return a value as templates print it: in a text, codes replace characters that are not printable."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return harmless(value)


_ENVIRONMENT = Environment(
    autoescape=True,
    finalize=_shown,
    loader=PackageLoader("watcher.web"),
    lstrip_blocks=True,
    trim_blocks=True,
    undefined=StrictUndefined,
)
_FILTERS = (age, at, event_glyph, glyph, percent, seconds_between, span, status_class, strip, timeline)
_OF_SEVERITY = (pipeline_mark, severity_class, severity_of)
_OF_GRAPHS = (graphs, short, spell_period)
_ENVIRONMENT.filters |= {function.__name__: function for function in (*_FILTERS, *_OF_GRAPHS, *_OF_SEVERITY)}
_ENVIRONMENT.filters |= {"link": usable_link, "tally": Counter}
_ENVIRONMENT.globals |= {"open_statuses": OPEN_STATUSES, "final_statuses": TERMINAL_STATUSES, "end_labels": END_LABELS}
_ENVIRONMENT.globals |= {"statuses": (*Status, LOST)}


def render(template: str, **shown: Any) -> str:
    """Return the HTML of a template with these values."""
    return _ENVIRONMENT.get_template(template).render(**shown)
