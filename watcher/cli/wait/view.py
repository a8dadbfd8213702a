"""The output of a wait: a live display, or a line per change.

Texts of the API are never read as markup, and their control characters never reach the terminal.
"""

import json
from datetime import UTC, datetime
from itertools import pairwise

from rich.live import Live
from rich.text import Text

from watcher.cli.shell import put, put_all_out, put_error
from watcher.cli.wait.progress import PollFailure, Progress, StatusPeriod
from watcher.domain.event import Event, EventType
from watcher.domain.execution import LOST, Outcome
from watcher.domain.timestamps import Micros
from watcher.runtime.terminal import first_visible, harmless
from watcher.runtime.units import spell_duration
from watcher.sinks.alert import sign_of
from watcher.sinks.stdout import reason_of

SIGN_OF_LIFE_US = 60_000_000
"""After this time without a printed line the state is printed to stderr (microseconds)."""


class View:
    """The output of a wait: four lines that are redrawn in place, or without `live` a line per change.

    With `as_json` every event is printed as JSON instead. Without `live` the state is printed to stderr after a minute
    without a line.
    """

    def __init__(self, live: Live | None = None, *, as_json: bool = False) -> None:
        self._live = live
        self._as_json = as_json
        self._said_us: Micros | None = None

    def on_found(self, execution_id: str) -> None:
        """Print the id that the search has found. With `as_json` the events have it."""
        if self._live is not None:
            self._live.console.print(execution_id, highlight=False, soft_wrap=True)
        elif not self._as_json:
            put(execution_id)
            put_all_out()
        self._said_us = None

    def on_event(self, event: Event) -> None:
        """Print an event of the execution, with `as_json` also an event of its account. A live view prints no event."""
        if self._live is not None:
            return
        if self._as_json:
            put(event.body.decode())
        elif event.type.startswith("execution."):
            put(change_line(event))
        put_all_out()
        self._said_us = None

    def show(self, progress: Progress) -> None:
        """Redraw the state of a live view. Otherwise print it to stderr if no line was printed for a minute."""
        if self._live is not None:
            self._live.update(picture(progress, columns=self._live.console.width), refresh=True)
            return
        if self._said_us is None:
            self._said_us = progress.now_us
        elif progress.now_us >= self._said_us + SIGN_OF_LIFE_US:
            put_error(sign_of_life(progress))
            self._said_us = progress.now_us


def change_line(event: Event) -> str:
    """Return the line of a change: time, status, seconds of the run or `-`, and the error."""
    body = json.loads(event.body)
    data, at = body["data"], datetime.fromisoformat(body["time"])
    execution = data["execution"]
    ran_s = execution.get("durationSeconds")
    if ran_s is None and "startedAt" in execution:
        ran_s = max(0.0, (at - datetime.fromisoformat(execution["startedAt"])).total_seconds())
    ran = "-" if ran_s is None else f"{ran_s:.1f}"
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} {harmless(execution['status'])} {ran} {reason_of(data)}".rstrip()


def picture(progress: Progress, *, columns: int) -> Text:
    """Return up to four lines: the status, all statuses so far, the polls, and a remark."""
    lines = (
        _standing(progress),
        Text(_history(progress.periods)),
        Text(_polls(progress), style="dim"),
        _remark(progress),
    )
    shown = [Text("  " if index else "").append_text(line) for index, line in enumerate(lines) if line]
    for line in shown:
        line.truncate(columns, overflow="ellipsis")
    return Text("\n", no_wrap=True, overflow="ignore").join(shown)


def sign_of_life(progress: Progress) -> str:
    """Return the state in one line: the status, the number of polls, and the failure of the last poll."""
    parts = [f"waiting: {progress.unseen} yet"]
    if progress.status is not None:
        parts = [f"waiting: {harmless(progress.status)} {_elapsed(progress)}"]
    parts.append(f"polls {progress.poll_count}")
    if progress.failure is not None:
        parts.append(_complaint(progress.failure, progress))
    return " · ".join(parts)


def _standing(progress: Progress) -> Text:
    if progress.status is None:
        line = Text(f"· {progress.unseen} yet")
    else:
        type_ = f"execution.{progress.status}"
        glyph, style = sign_of(EventType(type_) if type_ in {*EventType} else EventType.EXECUTION_UNRECOGNIZED)
        line = Text(f"{glyph} {harmless(progress.status)} {_elapsed(progress)}", style=f"bold {style}")
    name = harmless(first_visible(progress.execution.pipeline_name if progress.execution else None))
    whose = f"   {name or 'pipeline ' + progress.pipeline_id[:8]}"
    return Text.assemble(line, f"{whose} · {progress.execution_id}" if progress.execution_id else whose)


def _elapsed(progress: Progress) -> str:
    """Return the time in the present status; after the end return the duration of the whole execution."""
    periods, execution = progress.periods, progress.execution
    if not progress.has_ended:
        return _between(periods[-1].since_us, progress.now_us)
    if execution and execution.started_at and execution.finished_at:
        return f"after {spell_duration((execution.finished_at - execution.started_at).total_seconds())}"
    return f"after {_between(periods[0].since_us, periods[-1].since_us)}"


def _between(begin_us: Micros, end_us: Micros) -> str:
    return spell_duration(max(0, end_us - begin_us) / 1_000_000)


def _history(periods: tuple[StatusPeriod, ...]) -> str:
    """Return all statuses so far; each but the last is followed by its duration."""
    before = [f"{period.status} {_between(period.since_us, after.since_us)}" for period, after in pairwise(periods)]
    return harmless(" → ".join((*before, *(period.status for period in periods[-1:]))))


def _polls(progress: Progress) -> str:
    polls = f"polls {progress.poll_count}"
    if progress.ending is not None:
        return f"{polls} · exit {progress.ending.code.value}"
    if progress.polled_us is not None:
        polls += f" · last {_few((progress.now_us - progress.polled_us) / 1_000_000)} ago"
    return f"{polls} · polling" if progress.next_s is None else f"{polls} · next in {_few(progress.next_s)}"


def _few(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else spell_duration(seconds)


def _remark(progress: Progress) -> Text:
    """Return the error of an execution that has ended, else the failure of the last poll."""
    if progress.has_ended:
        return Text("Clerk Chat no longer knows it" if progress.status == LOST else progress.why, style="red")
    if progress.failure is None or progress.ending is not None:  # the command prints why a wait ended early
        return Text()
    return Text(_complaint(progress.failure, progress), style="yellow")


def _complaint(failure: PollFailure, progress: Progress) -> str:
    seen = progress.execution is not None
    if not seen and progress.missing_count and failure.outcome in (Outcome.NOT_FOUND, Outcome.REJECTED):
        return f"not known yet ({failure.word}), {progress.missing_count} of {progress.lost_after} answers"
    never = " (a passing error never ends this)" if seen or progress.is_listed else ""
    return f"API {failure.word} since {failure.since.astimezone():%H:%M}, retrying{never}"
