"""What a wait shows: four lines redrawn in place on a terminal, else a line per change. Pure; nothing is written here.

What the API said is text and nothing else: never markup, and no character of it is obeyed by a terminal.
"""

import json
from datetime import UTC, datetime
from itertools import pairwise

from rich.text import Text

from watcher.cli.wait.progress import PollFailure, Progress, RenderTime, StatusPeriod, Subject
from watcher.delivery.sinks.alert import SIGNS
from watcher.domain.errors import Exit
from watcher.domain.event import Event
from watcher.domain.event_size import cut
from watcher.domain.execution import LOST, ExecutionSnapshot, Outcome
from watcher.domain.timestamps import Micros
from watcher.runtime.terminal import first_visible, harmless
from watcher.runtime.units import spell_duration

WIDE_COLUMNS = 80
ECHO_COLUMNS = 2
"""Left free at the end of a line: there a terminal shows the `^C` that was typed, which must not begin a new line."""

_FEW_S = 10.0


def reason(execution: ExecutionSnapshot) -> str:
    """Return why it failed: its first failed node and that one's error, else its own error; empty if neither."""
    node = next(iter(execution.failed_nodes), None)
    of_node = ": ".join(filter(None, map(first_visible, (node.name, node.error)))) if node else ""
    return harmless(cut(first_visible(of_node, execution.error)))


def change_line(event: Event, execution: ExecutionSnapshot | None) -> str:
    """Return one change for programs and people: when, which status, seconds it has run or `-`, and why it failed."""
    event_data = json.loads(event.body)
    at = datetime.fromisoformat(event_data["time"])
    status = harmless(event_data["data"]["execution"]["status"])
    ran = _ran_s(execution, until=at)
    why = event_data["data"].get("reason") or (reason(execution) if execution else "")
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} {status} {'-' if ran is None else f'{ran:.1f}'} {why}".rstrip()


def _ran_s(execution: ExecutionSnapshot | None, *, until: datetime) -> float | None:
    if execution is None or execution.started_at is None:
        return None
    return max(0.0, ((execution.finished_at or until) - execution.started_at).total_seconds())


def wrapped_count(lines: Text, *, columns: int) -> int:
    """Return over how many more rows these lines run once a terminal this narrow has wrapped them."""
    return sum(max(0, line.cell_len - 1) // columns for line in lines.split())


def picture(subject: Subject, progress: Progress, moment: RenderTime, *, columns: int) -> Text:
    """Return up to four lines: where it stands, how it came there, the polls, and what else there is to say."""
    wide = columns >= WIDE_COLUMNS
    lines = (
        _standing(subject, progress, moment, wide=wide),
        Text(_history(progress.periods)),
        Text(_polls(progress, moment, wide=wide), style="dim"),
        _remark(progress, wide=wide),
    )
    event_data = [Text("  " if index else "").append_text(line) for index, line in enumerate(lines) if line]
    for line in event_data:
        line.truncate(columns - ECHO_COLUMNS, overflow="ellipsis")
    return Text("\n", no_wrap=True, overflow="ignore").join(event_data)


def sign_of_life(progress: Progress, moment: RenderTime) -> str:
    """Return one line that says what is waited for, for whoever has read nothing for a minute."""
    parts = ["waiting: not seen yet"]
    if progress.status is not None:
        parts = [f"waiting: {harmless(progress.status)} {_elapsed(progress, moment)}"]
    parts.append(f"polls {progress.poll_count}")
    if progress.failure is not None:
        parts.append(_complaint(progress.failure, progress, wide=False))
    return " · ".join(parts)


def _standing(subject: Subject, progress: Progress, moment: RenderTime, *, wide: bool) -> Text:
    if progress.status is None:
        line = Text("· not seen yet")
    else:
        glyph, style = SIGNS.get(f"execution.{progress.status}", SIGNS["execution.unrecognized"])
        line = Text(f"{glyph} {harmless(progress.status)} {_elapsed(progress, moment)}", style=f"bold {style}")
    execution = subject.execution if wide else f"{subject.execution[:4]}…{subject.execution[-4:]}"
    name = harmless(first_visible(progress.execution.pipeline_name if progress.execution else None))
    return Text.assemble(line, f"   {name or 'pipeline ' + subject.pipeline[:8]} · {execution}")


def _elapsed(progress: Progress, moment: RenderTime) -> str:
    """Return how long it has been so; of an end, how long it all took."""
    periods, execution = progress.periods, progress.execution
    if not _has_ended(progress):
        return _between(periods[-1].since_us, moment.steady_us)
    if execution and execution.started_at and execution.finished_at:
        return f"after {spell_duration((execution.finished_at - execution.started_at).total_seconds())}"
    return f"after {_between(periods[0].since_us, periods[-1].since_us)}"


def _has_ended(progress: Progress) -> bool:
    """Return whether the execution has ended, rather than the wait for it."""
    return progress.ending is not None and progress.ending.code in (Exit.DONE, Exit.FAILED)


def _between(begin_us: Micros, end_us: Micros) -> str:
    return spell_duration(max(0, end_us - begin_us) / 1_000_000)


def _history(periods: tuple[StatusPeriod, ...]) -> str:
    before = (
        f"{harmless(period.status)} {_between(period.since_us, after.since_us)}" for period, after in pairwise(periods)
    )
    return " → ".join((*before, *(harmless(period.status) for period in periods[-1:])))


def _polls(progress: Progress, moment: RenderTime, *, wide: bool) -> str:
    parts = [f"polls {progress.poll_count}"]
    if progress.ending is not None:
        return " · ".join((*parts, f"exit {progress.ending.code.value}"))
    if progress.polled_at is not None:
        parts.append(f"last {_few(moment.monotonic - progress.polled_at)}{' ago' if wide else ''}")
    if moment.next_poll_at is None:
        parts.append("polling")
    else:
        parts.append(f"next{' in' if wide else ''} {_few(max(0.0, moment.next_poll_at - moment.monotonic))}")
    return " · ".join(parts)


def _few(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < _FEW_S else spell_duration(seconds)


def _remark(progress: Progress, *, wide: bool) -> Text:
    """Return why it failed, or what keeps it from being seen."""
    if _has_ended(progress) and progress.execution is not None:
        lost = progress.status == LOST
        return Text("Clerk Chat no longer knows it" if lost else reason(progress.execution), style="red")
    if progress.failure is None or progress.ending is not None:  # how a wait ended without it is reported as an error
        return Text()
    return Text(_complaint(progress.failure, progress, wide=wide), style="yellow")


def _complaint(failure: PollFailure, progress: Progress, *, wide: bool) -> str:
    seen = progress.execution is not None
    if not seen and progress.missing_count and failure.outcome in (Outcome.NOT_FOUND, Outcome.REJECTED):
        return f"not known yet ({failure.word}), {progress.missing_count} of {progress.lost_after} answers"
    if not seen and failure.outcome is Outcome.UNAUTHORIZED:
        return f"API {failure.word}: it refuses this key"
    how = "pausing as requested" if failure.outcome is Outcome.RATE_LIMITED else "retrying"
    never = " (a passing error never ends this)" if seen and wide else ""
    return f"API {failure.word} since {failure.since.astimezone():%H:%M}, {how}{never}"
