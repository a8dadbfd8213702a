"""How far a wait for one execution has come: what was answered and recorded so far, and whether that ends it.

Pure: replies and changes come in, with the time they came at.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from watcher.clerk.protocol import Reply
from watcher.domain.errors import Exit
from watcher.domain.execution import LOST, ExecutionSnapshot, Outcome, Status
from watcher.domain.timestamps import Micros, Monotonic
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
