"""The protocol of rules: the news that a rule judges, and its judgement. Each rule is one file of `watcher/rules`.

All times are microseconds UTC on the steady clock.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from watcher.domain.envelope import Json
from watcher.domain.event import EventType
from watcher.domain.execution import ExecutionRecord
from watcher.domain.history import EndedExecution
from watcher.domain.problems import LatestFailure, Problem
from watcher.domain.timestamps import NEVER, Micros


class Tracked(Protocol):
    """An execution that is polled."""

    @property
    def known(self) -> ExecutionRecord:
        """The current record."""

    @property
    def is_unwatched(self) -> bool:
        """Whether the configuration has dropped the execution."""

    @property
    def unconfirmed_end(self) -> object | None:
        """A row with an end that a GET is to confirm: nothing is known of the execution."""


class Past(Protocol):
    """The recorded past of a pipeline. Every method raises `StoreError`."""

    async def durations(self, count: int) -> Sequence[int]:
        """Return the durations (microseconds) of the last `count` successes, oldest first.

        Executions that were seen paused do not count.
        """

    async def spending(self, day_at: Micros) -> tuple[int, int]:
        """Return the tokens of the ends since `day_at`, and the percentage of that day that was reported last."""

    async def count_errors(self, fingerprints: Collection[bytes], since: Micros) -> int:
        """Return the number of failures with errors of these kinds, on days whose last such error was after `since`."""


@dataclass(frozen=True, slots=True)
class News:
    """The executions of a pipeline that are recorded at `now`, or that an answer has shown."""

    now: Micros
    ends: Sequence[EndedExecution] = ()
    """The successes and failures to be judged, in this order. They may have been recorded earlier."""
    only_last_decides: bool = False
    """Whether only the last of `ends` may open or close a problem."""
    held: Sequence[EndedExecution] = ()
    """The ends that were recorded before and not yet judged; some of them are among `ends`."""
    recorded: Sequence[EndedExecution] = ()
    """The ends of all kinds that are recorded now, judged or not."""
    started_at: int = NEVER
    """The time of the last new start; 0 if there is none."""
    shown_start_at: int = NEVER
    """The newest start in the list, at most `scanned_until`; 0 without a complete scan."""
    scanned_until: Micros | None = None
    """The time before which a scan that is now complete showed all starts; `None` without such a scan."""
    changed: Mapping[Tracked, ExecutionRecord] = field(default_factory=dict)
    """The executions that change now, with their new records."""
    shown: Collection[Tracked] = ()
    """The executions that an answer has shown."""
    watched: Collection[Tracked] | None = None
    """The open executions, after a start or a reload."""
    loaded: Any = None
    """The result of the rule's `load`."""


class RuleEvent(NamedTuple):
    """An event to be emitted: the opening or the closing of the rule's problem, or a moment."""

    type: EventType
    data: Json | None = None
    execution: str | None = None
    """The id of the execution that the event names."""
    fault: str | None = None
    """Why that execution counts as failed, if it succeeded."""
    failed_count: int = 0
    """The failures of the problem so far."""


class Judged(NamedTuple):
    """The rule's new state, and the events to be emitted, in this order."""

    state: Any
    events: Sequence[RuleEvent] = ()
    failed_count: int = 0
    """The number of failures of the problem that is open afterwards."""
    latest: LatestFailure | None = None
    """The newest of these failures."""


class Rule(ABC):
    """A rule of a pipeline: an immutable value, equal to another with the same settings."""

    __slots__ = ()
    key: ClassVar[str]
    """The key of the rule in the configuration, and of its state in the store."""
    opens: ClassVar[EventType | None] = None
    """The kind of problem that the rule opens."""
    state_type: ClassVar[type[Any] | None] = None
    """The type of the stored state, whose fields all have a default; `None` if nothing is stored."""
    judges_ends: ClassVar[bool] = False
    """Whether the rule reads `News.ends`."""
    follows_open: ClassVar[bool] = False
    """Whether the rule reads `News.shown` and `News.watched`. Its state is in memory alone.

    With such news `judge` is called twice, and only the events of the second call, which has neither, are emitted: so
    return an opening until `problem` is set, a closing until it is not, and no moment.
    """

    async def begin(self, state: Any, past: Past, *, now: Micros) -> Any:
        """Return the state to begin with, given the stored one."""
        return state

    async def load(self, news: News, past: Past) -> Any:
        """Return what `judge` needs of the past in addition."""
        return None

    @abstractmethod
    def judge(self, state: Any, news: News, problem: Problem | None) -> Judged:
        """Judge news, given the rule's open problem."""

    def moved(self, state: Any, by_us: int, *, now: Micros) -> Any:
        """Return the state with each time moved by `by_us`, but not beyond `now`."""
        return state

    def fault_of(self, end: EndedExecution) -> str | None:
        """Return in words why a success counts as a failure; `None` if it does not."""
        return None

    def opens_when(self) -> str:
        """Return in words when the rule opens its problem."""
        return ""
