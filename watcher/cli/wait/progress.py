"""How far a wait for one execution has come, what ends it, and how that is shown.

`Progress` is pure: replies and changes come in, with the time they came at. It is shown as four lines that are redrawn
in place on a terminal, else as a line per change. What the API said is text and nothing else: never markup, and no
character of it is obeyed by a terminal.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

from rich.live import Live
from rich.text import Text

from watcher.clerk.protocol import Reply
from watcher.cli.shell import put, put_all_out, put_error
from watcher.domain.errors import Exit
from watcher.domain.event import Event
from watcher.domain.execution import LOST, ExecutionSnapshot, Outcome, Status
from watcher.domain.timestamps import Micros, Monotonic
from watcher.runtime.terminal import first_visible, harmless
from watcher.runtime.units import spell_duration
from watcher.sinks.alert import SIGNS
from watcher.sinks.stdout import why
from watcher.store.changes import Change, ExecutionChange, SourceChange

_MISSING = frozenset({Outcome.NOT_FOUND, Outcome.REJECTED})
_REACHED = _MISSING | {Outcome.OK, Outcome.RATE_LIMITED}
"""Answers that only the API itself gives."""


_WORDS = {
    Outcome.CONNECTION: "no connection",
    Outcome.TIMEOUT: "no answer in time",
    Outcome.INVALID: "unreadable answers",
}


@dataclass(frozen=True, slots=True)
class RenderTime:
    """When a picture is made: steady microseconds, monotonic seconds, and the monotonic time of the next poll."""

    steady_us: Micros
    monotonic: Monotonic
    next_poll_at: Monotonic | None


class StatusPeriod(NamedTuple):
    """A status, and since when (microseconds UTC, steady): as it was seen, or as the API dates a start."""

    status: str
    since_us: Micros


class PollFailure(NamedTuple):
    """Why the last poll failed: its outcome, a code or word for people, and when that began (wall clock)."""

    outcome: Outcome
    word: str
    since: datetime


@dataclass(frozen=True, slots=True)
class WaitResult:
    """Why a wait is over. `problem` is there where the execution itself does not say it."""

    code: Exit
    problem: str = ""
    key_refused: bool = False


class Progress:
    """What is known of the one execution that is waited for.

    `polled_at` is the monotonic time of the last answer, `execution` what the last successful poll said, `why` the
    reason that the last event gave.
    """

    def __init__(self, pipeline_id: str, execution_id: str, *, lost_after: int) -> None:
        """Know nothing. So many times in a row not known, before it was ever seen, is not found."""
        self.pipeline_id = pipeline_id
        self.execution_id = execution_id
        self.lost_after = lost_after
        self.poll_count = 0
        self.polled_at: Monotonic | None = None
        self.missing_count = 0
        self.execution: ExecutionSnapshot | None = None
        self.periods: tuple[StatusPeriod, ...] = ()
        self.why = ""
        self.failure: PollFailure | None = None
        self.ending: WaitResult | None = None
        self._degraded = False
        self._reached = False

    @property
    def status(self) -> str | None:
        """Return the last status, `lost` for what is, or `None` before the first sight."""
        return self.periods[-1].status if self.periods else None

    @property
    def has_ended(self) -> bool:
        """Return whether the execution has ended, rather than the wait for it."""
        return self.ending is not None and self.ending.code in (Exit.DONE, Exit.FAILED)

    def answered(self, reply: Reply, *, at: datetime, now: Monotonic) -> None:
        """Take in one reply, which came at `at` (wall clock) and `now` (monotonic)."""
        self.poll_count += 1
        self.polled_at = now
        self._reached = self._reached or reply.outcome in _REACHED
        if reply.execution is not None:
            self.execution, self.failure = reply.execution, None
            return
        since = self.failure.since if self.failure else at
        code = reply.status_code
        word = _WORDS.get(reply.outcome, reply.outcome) if code in {None, 200} else str(code)
        self.failure = PollFailure(reply.outcome, word, since)
        if self.execution is None:
            self.missing_count += reply.outcome in _MISSING
            self._consider()

    def recorded(self, change: Change) -> None:
        """Take in one change, of the execution or of the account."""
        if isinstance(change, ExecutionChange):
            known = change.known
            status = LOST if known.lost else str(known.status)
            if status != self.status:
                since_us = known.since_at if known.lost_at is None else known.lost_at
                self.periods = (*self.periods, StatusPeriod(status, since_us))
            if known.lost is not None or known.ended_at is not None:
                self.ending = WaitResult(Exit.DONE if status == Status.SUCCESS else Exit.FAILED)
            for entry in change.entries:
                self.why = why(json.loads(entry.event.body)["data"])
        elif isinstance(change, SourceChange):
            self._degraded = change.state is not None
            self._consider()

    def _consider(self) -> None:
        """End what cannot begin. Once the execution was seen no failed poll ends the wait, however many there are."""
        if self.execution is not None or self.failure is None:
            return
        outcome, word, _ = self.failure
        if self.missing_count >= self.lost_after:
            self.ending = WaitResult(Exit.NOT_FOUND, f"Clerk Chat knows no such execution ({word})")
        elif self._degraded and (
            outcome is Outcome.UNAUTHORIZED or (outcome is Outcome.FORBIDDEN and not self._reached)
        ):
            self.ending = WaitResult(Exit.UNREACHABLE, f"Clerk Chat refuses this key ({word})", key_refused=True)
        elif self._degraded and not self._reached:
            self.ending = WaitResult(Exit.UNREACHABLE, f"Clerk Chat cannot be reached ({word})")


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
