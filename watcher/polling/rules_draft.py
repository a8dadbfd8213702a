"""What the rules of one pipeline make of a few starts and ends: the changes to write, and what holds once they are.

It writes nothing, and knows nothing of when rules are asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from watcher.domain.envelope import Json
from watcher.domain.event import EventType, OutboxEntry
from watcher.domain.problems import CLOSED_BY, Problem, ProblemChange
from watcher.domain.rules import (
    Edge,
    End,
    Rules,
    RuleState,
    UnjudgedEnd,
    failed_count,
    is_silent,
    judge_end,
    kept_for,
    note_start,
)
from watcher.domain.watch import Watch
from watcher.polling.evaluator import ReplyEvaluator
from watcher.store.changes import ExecutionChange, Lease, RulesChange

_FAILING, _SILENT = EventType.PIPELINE_FAILING, EventType.PIPELINE_SILENT


@dataclass(slots=True)
class JudgedEnd:
    """An end that is judged now, with its change if that is yet to be written, and what the rule concludes.

    `failed_count` are the failures it went by.
    """

    execution: str
    end: End
    change: ExecutionChange | None = None
    edge: Edge | None = None
    failed_count: int = 0


@dataclass(frozen=True, slots=True)
class RulesState:
    """What holds of a pipeline's rules: what they go by, the open problems, the sequence of its own events."""

    state: RuleState
    problems: Mapping[EventType, Problem]
    sequence: int


class RulesDraft:
    """What is to be written. `changes` are in order; `result` is what holds then."""

    def __init__(self, before: RulesState, *, lease: Lease, watch: Watch, evaluator: ReplyEvaluator) -> None:
        self.changes: list[ExecutionChange | RulesChange] = []
        self._before = before
        self._lease = lease
        self._watch = watch
        self._evaluator = evaluator
        self._rules = watch.rules or Rules()
        self._state = kept_for(before.state, self._rules)
        self._problems = dict(before.problems)
        self._sequence = before.sequence
        self._counted: Problem | None = None

    @property
    def result(self) -> RulesState:
        """What holds once it is written."""
        return RulesState(self._state, self._problems, self._sequence)

    def judge(self, ends: Sequence[JudgedEnd]) -> list[JudgedEnd]:
        """Judge ends, oldest first; return those that open a problem. `add` is to follow."""
        rule, is_open = self._rules.failing, _FAILING in self._problems
        if rule is None:  # it is gone since they were handed in
            return []
        for each in ends:
            self._state, each.edge = judge_end(self._state, each.end, rule=rule, is_open=is_open)
            each.failed_count = failed_count(self._state, rule)
            is_open = is_open if each.edge is None else each.edge is Edge.OPENS
        return [each for each in ends if each.edge is Edge.OPENS]

    def add(self, ends: Sequence[JudgedEnd], *, blocks: Mapping[str, Json]) -> None:
        """Add judged ends and what comes of them. `blocks` are what events say of the executions that open problems."""
        for each in ends:
            if each.change is not None:
                self.changes.append(each.change)
            if each.edge is Edge.OPENS:
                self._open(_FAILING, execution=blocks.get(each.execution), failed_count=each.failed_count)
                continue
            if each.end.failed and _FAILING in self._problems:
                problem = self._problems[_FAILING]
                self._counted = self._problems[_FAILING] = replace(problem, failed_count=problem.failed_count + 1)
            if each.edge is Edge.CLOSES:
                self._counted = None
                self._close(_FAILING)

    def note_starts(self, starts: Sequence[int], *, now: int) -> None:
        """Take in when something started, and what that ends."""
        silent_us = self._rules.silent_us
        for started_at in starts if silent_us is not None else ():  # the rule may be gone since they were handed in
            self._state = note_start(self._state, started_at)
        has_started = self._state.started_at > self._before.state.started_at
        if silent_us is None or not has_started or _SILENT not in self._problems:
            return
        if not is_silent(self._state, silent_us=silent_us, now=now):
            self._close(_SILENT)

    def note_silence(self, until: int) -> None:
        """Take in that all that started until then is known. Where no start is, silence counts from then on."""
        silent_us = self._rules.silent_us
        if silent_us is None or _SILENT in self._problems:
            return
        if not self._state.started_at:
            self._state = note_start(self._state, until)
        elif is_silent(self._state, silent_us=silent_us, now=until):
            self._open(_SILENT)

    def finish(self, *, unjudged: tuple[UnjudgedEnd, ...], judges_all: bool) -> None:
        """Add what is left to be written: what rules go by, how many failed, the ends to be judged later."""
        problems = () if self._counted is None else (ProblemChange(self._counted),)
        if self._state != self._before.state or problems or unjudged or judges_all:
            self._add((), problems, unjudged=unjudged, judges_all=judges_all)

    def _open(self, kind: EventType, *, execution: Json | None = None, failed_count: int = 0) -> None:
        self._problems[kind] = self._report(kind, problem=None, execution=execution, failed_count=failed_count)

    def _close(self, kind: EventType) -> None:
        self._report(CLOSED_BY[kind], problem=self._problems.pop(kind))

    def _report(
        self, type_: EventType, *, problem: Problem | None, execution: Json | None = None, failed_count: int = 0
    ) -> Problem:
        """Add an event of the pipeline, which opens a problem or closes that one; return it."""
        entry, change = self._evaluator.concluded(
            type_,
            self._watch,
            execution=execution,
            problem=problem,
            failed_count=failed_count,
            after=self._sequence,
        )
        assert change is not None
        self._add((entry,), (change,))
        return change.problem

    def _add(
        self,
        entries: tuple[OutboxEntry, ...],
        problems: tuple[ProblemChange, ...],
        *,
        unjudged: tuple[UnjudgedEnd, ...] = (),
        judges_all: bool = False,
    ) -> None:
        before, self._sequence = self._sequence, self._sequence + len(entries)
        written = (self._lease, self._watch.pipeline, before, self._sequence, self._state)
        self.changes.append(RulesChange(*written, entries, problems, unjudged, judges_all))
