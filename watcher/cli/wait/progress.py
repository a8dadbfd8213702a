"""The state of a wait for the end of one execution: what the polls have shown so far, and how the wait ended."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from watcher.clerk.api import Reply
from watcher.cli.wait.next_execution import NextSearch
from watcher.domain.errors import Exit
from watcher.domain.event import AccountTrouble, Event
from watcher.domain.execution import LOST, ExecutionRecord, ExecutionSnapshot, Outcome, Status
from watcher.domain.timestamps import NEVER, Micros
from watcher.runtime.clock import Clock
from watcher.runtime.units import spell_duration
from watcher.sinks.stdout import reason_of

_MISSING = frozenset({Outcome.NOT_FOUND, Outcome.REJECTED})
_REACHED = _MISSING | {Outcome.OK, Outcome.RATE_LIMITED}
"""The outcomes of answers by the API itself: no gateway before the API gives such answers."""

_WORDS = {
    Outcome.CONNECTION: "no connection",
    Outcome.TIMEOUT: "no answer in time",
    Outcome.INVALID: "unreadable answers",
}


class StatusPeriod(NamedTuple):
    """The start of a period in which the execution has one status."""

    status: str
    since_us: Micros
    """The time (steady clock) at which the status was first seen; at the first poll, the start by the API's date."""


class PollFailure(NamedTuple):
    """The failure of the last poll."""

    outcome: Outcome
    word: str
    """The status code of the answer, or words for the outcome."""
    since: datetime
    """Time of the first failure since the last success (wall clock)."""


@dataclass(frozen=True, slots=True)
class WaitResult:
    """The result of a wait that is over."""

    code: Exit
    problem: str = ""
    """The reason why the wait ended before the execution; empty if the execution has ended."""
    key_refused: bool = False


@dataclass(slots=True)
class Progress:
    """The state of a wait. Times are in microseconds UTC, by the steady clock."""

    pipeline_id: str
    execution_id: str
    """Empty while there is a `search`."""
    lost_after: int
    """The wait ends with `NOT_FOUND` once `missing_count` is this number."""
    search: NextSearch | None = None
    """The search for the execution, `None` once it is found, or if the command line names it."""
    now_us: Micros = NEVER
    next_s: float | None = None
    """Seconds until the next poll, `None` while a poll is under way."""
    poll_count: int = 0
    polled_us: Micros | None = None
    """Time of the last answer."""
    missing_count: int = 0
    """Number of answers so far that do not know the execution or, while it is searched, its pipeline."""
    is_listed: bool = False
    """Whether a page of the pipeline's list was read: the pipeline exists, and the key is valid."""
    execution: ExecutionSnapshot | None = None
    """The execution as the last successful poll showed it."""
    periods: tuple[StatusPeriod, ...] = ()
    why: str = ""
    """The error in the last event of the execution, empty without an error."""
    failure: PollFailure | None = None
    ending: WaitResult | None = None
    is_degraded: bool = False
    is_reached: bool = False
    """Whether an answer has come from the API itself, not only from a gateway before it."""

    @property
    def status(self) -> str | None:
        """Return the last status, `lost` if the execution is lost, `None` if the execution was never seen."""
        return self.periods[-1].status if self.periods else None

    @property
    def unseen(self) -> str:
        """Return in words what has not happened yet while the execution was never seen."""
        return "not seen" if self.search is None else "no execution has started"

    @property
    def has_ended(self) -> bool:
        """Return whether the execution itself has ended, not only the wait."""
        return self.ending is not None and self.ending.code in (Exit.DONE, Exit.FAILED)

    def take_reply(self, reply: Reply, *, clock: Clock) -> None:
        """Update the state by the reply to the poll that has just ended."""
        self.poll_count += 1
        self.polled_us = clock.steady_us()
        self.is_reached = self.is_reached or reply.outcome in _REACHED
        if reply.outcome is Outcome.OK:
            self.execution, self.failure = reply.execution, None
            self.is_listed = self.is_listed or reply.rows is not None
            return
        since = self.failure.since if self.failure else clock.now()
        code = reply.status_code
        word = _WORDS.get(reply.outcome, reply.outcome) if code in {None, 200} else str(code)
        self.failure = PollFailure(reply.outcome, word, since)
        if self.execution is None:
            self.missing_count += reply.outcome in _MISSING and (self.search is None or not self.is_listed)
            self._end_if_hopeless()

    def take_page(self, search: NextSearch, reply: Reply) -> bool:
        """Update the state by a page of the list. Return whether the search has found the execution."""
        if (found := search.take(reply)) is not None:
            self.execution_id, self.search, self.missing_count = found, None, 0
        return found is not None

    def take_change(self, known: ExecutionRecord, events: Sequence[Event]) -> None:
        """Update the state by a changed record of the execution and the events of the change."""
        status = LOST if known.lost else str(known.status)
        if status != self.status:
            since_us = known.since_at if known.lost_at is None else known.lost_at
            self.periods = (*self.periods, StatusPeriod(status, since_us))
        if known.lost is not None or known.end_seen_at is not None:
            self.ending = WaitResult(Exit.DONE if status == Status.SUCCESS else Exit.FAILED)
        for event in events:
            self.why = reason_of(json.loads(event.body)["data"])

    def take_trouble(self, trouble: AccountTrouble | None) -> None:
        """Update the state by the trouble of the account, `None` if it has none."""
        self.is_degraded = trouble is not None
        self._end_if_hopeless()

    def _end_if_hopeless(self) -> None:
        """End the wait if the execution was never seen, and the failures so far leave no hope of seeing it."""
        if self.execution is not None or self.failure is None:
            return
        outcome, word, _ = self.failure
        if self.missing_count >= self.lost_after:
            what = "execution" if self.search is None else "pipeline"
            self.ending = WaitResult(Exit.NOT_FOUND, f"Clerk Chat knows no such {what} ({word})")
        elif self.is_listed or not self.is_degraded:
            return
        elif outcome is Outcome.UNAUTHORIZED or (outcome is Outcome.FORBIDDEN and not self.is_reached):
            self.ending = WaitResult(Exit.UNREACHABLE, f"Clerk Chat refuses this key ({word})", key_refused=True)
        elif not self.is_reached:
            self.ending = WaitResult(Exit.UNREACHABLE, f"Clerk Chat cannot be reached ({word})")


def make_timeout(progress: Progress, timeout_s: float) -> WaitResult:
    """Return the result of a wait that has lasted `timeout_s`."""
    status = f"still {progress.status}" if progress.status else progress.unseen
    waited = f"{timeout_s:g} s" if timeout_s % 1 else spell_duration(timeout_s)
    last = f"; the last poll failed: {progress.failure.word}" if progress.failure else ""
    return WaitResult(Exit.TIMEOUT, f"{status} after {waited} (--timeout){last}")
