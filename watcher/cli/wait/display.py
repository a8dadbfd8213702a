"""What a wait shows: four lines redrawn in place on a terminal, else a line per change.

What the API said is text and nothing else: never markup, and no character of it is obeyed by a terminal.
"""

import json
from datetime import UTC, datetime
from itertools import pairwise

from rich.live import Live
from rich.text import Text

from watcher.cli.shell import put, put_all_out, put_error
from watcher.cli.wait.progress import PollFailure, Progress, RenderTime, StatusPeriod
from watcher.domain.event import Event
from watcher.domain.execution import LOST, Outcome
from watcher.domain.timestamps import Micros
from watcher.runtime.terminal import first_visible, harmless
from watcher.runtime.units import spell_duration
from watcher.sinks.alert import SIGNS
from watcher.sinks.stdout import why

ECHO_COLUMNS = 2
"""Left free at the end of a line: there a terminal shows the `^C` that was typed, which must not begin a new line."""

SIGN_OF_LIFE_S = 60.0
_FEW_S = 10.0


class LinesView:
    """One line per change on stdout, or with `as_json` each event. After a minute without one, a sign on stderr."""

    def __init__(self, *, as_json: bool) -> None:
        """Nothing was written yet."""
        self._as_json = as_json
        self._sign_at: float | None = None

    def on_event(self, event: Event) -> None:
        """Write an event. The account's trouble is no line of its own, but part of a sign of life."""
        if self._as_json:
            put(event.body.decode())
        elif event.type.startswith("execution."):
            put(change_line(event))
        put_all_out()
        self._sign_at = None

    def show(self, progress: Progress, moment: RenderTime) -> None:
        """Say how it stands, if nothing was said for a minute."""
        if self._sign_at is not None and moment.monotonic >= self._sign_at:
            put_error(sign_of_life(progress, moment))
            self._sign_at = None
        if self._sign_at is None:
            self._sign_at = moment.monotonic + SIGN_OF_LIFE_S


class LiveView:
    """Four lines redrawn in place, the last of which stay."""

    def __init__(self, live: Live) -> None:
        """Draw there, once it is started."""
        self._live = live

    def on_event(self, event: Event) -> None:
        """Leave it to the next picture."""

    def show(self, progress: Progress, moment: RenderTime) -> None:
        """Redraw."""
        self._live.update(picture(progress, moment, columns=self._live.console.width), refresh=True)


View = LinesView | LiveView


def change_line(event: Event) -> str:
    """Return one change for programs and people: when, which status, seconds it has run or `-`, and why it failed."""
    body = json.loads(event.body)
    data, at = body["data"], datetime.fromisoformat(body["time"])
    execution = data["execution"]
    ran_s = execution.get("durationSeconds")
    if ran_s is None and "startedAt" in execution:
        ran_s = max(0.0, (at - datetime.fromisoformat(execution["startedAt"])).total_seconds())
    ran = "-" if ran_s is None else f"{ran_s:.1f}"
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} {harmless(execution['status'])} {ran} {why(data)}".rstrip()


def picture(progress: Progress, moment: RenderTime, *, columns: int) -> Text:
    """Return up to four lines: where it stands, how it came there, the polls, and what else there is to say."""
    lines = (
        _standing(progress, moment),
        Text(_history(progress.periods)),
        Text(_polls(progress, moment), style="dim"),
        _remark(progress),
    )
    shown = [Text("  " if index else "").append_text(line) for index, line in enumerate(lines) if line]
    for line in shown:
        line.truncate(columns - ECHO_COLUMNS, overflow="ellipsis")
    return Text("\n", no_wrap=True, overflow="ignore").join(shown)


def sign_of_life(progress: Progress, moment: RenderTime) -> str:
    """Return one line that says what is waited for, for whoever has read nothing for a minute."""
    parts = ["waiting: not seen yet"]
    if progress.status is not None:
        parts = [f"waiting: {harmless(progress.status)} {_elapsed(progress, moment)}"]
    parts.append(f"polls {progress.poll_count}")
    if progress.failure is not None:
        parts.append(_complaint(progress.failure, progress))
    return " · ".join(parts)


def _standing(progress: Progress, moment: RenderTime) -> Text:
    if progress.status is None:
        line = Text("· not seen yet")
    else:
        glyph, style = SIGNS.get(f"execution.{progress.status}", SIGNS["execution.unrecognized"])
        line = Text(f"{glyph} {harmless(progress.status)} {_elapsed(progress, moment)}", style=f"bold {style}")
    name = harmless(first_visible(progress.execution.pipeline_name if progress.execution else None))
    return Text.assemble(line, f"   {name or 'pipeline ' + progress.pipeline_id[:8]} · {progress.execution_id}")


def _elapsed(progress: Progress, moment: RenderTime) -> str:
    """Return how long it has been so; of an end, how long it all took."""
    periods, execution = progress.periods, progress.execution
    if not progress.has_ended:
        return _between(periods[-1].since_us, moment.steady_us)
    if execution and execution.started_at and execution.finished_at:
        return f"after {spell_duration((execution.finished_at - execution.started_at).total_seconds())}"
    return f"after {_between(periods[0].since_us, periods[-1].since_us)}"


def _between(begin_us: Micros, end_us: Micros) -> str:
    return spell_duration(max(0, end_us - begin_us) / 1_000_000)


def _history(periods: tuple[StatusPeriod, ...]) -> str:
    """Return every status there was, with how long it lasted."""
    before = [f"{period.status} {_between(period.since_us, after.since_us)}" for period, after in pairwise(periods)]
    return harmless(" → ".join((*before, *(period.status for period in periods[-1:]))))


def _polls(progress: Progress, moment: RenderTime) -> str:
    parts = [f"polls {progress.poll_count}"]
    if progress.ending is not None:
        return " · ".join((*parts, f"exit {progress.ending.code.value}"))
    if progress.polled_at is not None:
        parts.append(f"last {_few(moment.monotonic - progress.polled_at)} ago")
    if moment.next_poll_at is None:
        parts.append("polling")
    else:
        parts.append(f"next in {_few(max(0.0, moment.next_poll_at - moment.monotonic))}")
    return " · ".join(parts)


def _few(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < _FEW_S else spell_duration(seconds)


def _remark(progress: Progress) -> Text:
    """Return why it failed, or what keeps it from being seen."""
    if progress.has_ended:
        return Text("Clerk Chat no longer knows it" if progress.status == LOST else progress.why, style="red")
    if progress.failure is None or progress.ending is not None:  # how a wait ended without it is reported as an error
        return Text()
    return Text(_complaint(progress.failure, progress), style="yellow")


def _complaint(failure: PollFailure, progress: Progress) -> str:
    seen = progress.execution is not None
    if not seen and progress.missing_count and failure.outcome in (Outcome.NOT_FOUND, Outcome.REJECTED):
        return f"not known yet ({failure.word}), {progress.missing_count} of {progress.lost_after} answers"
    never = " (a passing error never ends this)" if seen else ""
    return f"API {failure.word} since {failure.since.astimezone():%H:%M}, retrying{never}"
