"""Records starts and ends together with what the rules of their pipeline conclude from them: docs/alerts.md.

The rules are a table, watcher/domain/rules.py. Here is when they are asked: at once or, after a start, a gap or trouble
with the list, once a scan is complete; and that no end is judged twice, or never, whenever the process ends.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import NamedTuple

import structlog

from watcher.domain.envelope import Json, pipeline_source, stream_of
from watcher.domain.errors import StoreError
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.event_factory import execution_block
from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.problems import CLOSED_BY, PROBLEM_KINDS, Problem, ProblemChange
from watcher.domain.rules import RULES, Asked, End, Rule, Rules, RuleState, UnjudgedEnd
from watcher.domain.timestamps import EARLIEST, NEVER, Micros, Monotonic, to_us
from watcher.domain.watch import Watch
from watcher.polling.confirmations import ConfirmationOrder
from watcher.polling.evaluator import Evaluated, ReplyEvaluator
from watcher.polling.pipeline_list import PipelineStream
from watcher.polling.poll_item import TrackedExecution
from watcher.polling.session import AccountDependencies
from watcher.store.changes import ChangeSet, ExecutionChange, Lease, RulesChange

log = structlog.get_logger()


class _ToJudge(NamedTuple):
    """An end that is judged now, with its change if that is yet to be written."""

    end: End
    execution: str
    change: ExecutionChange | None


class RulesDraft:
    """What is to be written: `changes`, in order. `state`, `problems` and `sequence` are what holds then."""

    def __init__(
        self, state: RuleState, problems: Mapping[EventType, Problem], *, sequence: int, lease: Lease, watch: Watch
    ) -> None:
        """Begin with what holds before."""
        self.changes: list[ExecutionChange | RulesChange] = []
        self.problems = dict(problems)
        self.sequence = sequence
        self._rules = watch.rules or Rules()
        self.state = state.kept_for(self._rules)
        self._before = state
        self._counted: Problem | None = None
        self._lease = lease
        self._watch = watch

    def add_end(self, end: End) -> None:
        """Let one more end take its place. The rule that looks at ends may be gone since it was handed in."""
        if self._rules.failing is None:
            return
        self.state = self.state.with_end(end, self._rules)
        problem = self.problems.get(EventType.PIPELINE_FAILING)
        if end.failed and problem is not None:
            self._counted = replace(problem, failed_count=problem.failed_count + 1)
            self.problems[problem.kind] = self._counted

    def add_start(self, started_at: int) -> None:
        """Take in when something started. The rule that looks at starts may be gone since it was handed in."""
        if self._rules.silent_us is not None:
            self.state = self.state.with_start(started_at)

    def turning(self, asked: Asked, *, at: int) -> list[Rule]:
        """Return the rules whose problem opens now, or closes; `turn` is to follow for each."""
        found: list[Rule] = []
        for rule in RULES:
            is_open = rule.kind in self.problems
            if getattr(self._rules, rule.key) is None or asked is not (rule.closed_by if is_open else rule.opened_by):
                continue
            if rule.holds(self.state, self._rules, at) is (not is_open):
                found.append(rule)
        return found

    def turn(self, rule: Rule, evaluator: ReplyEvaluator, *, execution: Json | None = None) -> None:
        """Add the event of the pipeline that opens the problem of a rule, or closes it."""
        problem = self.problems.pop(rule.kind, None)
        entry, change = evaluator.concluded(
            rule.kind if problem is None else CLOSED_BY[rule.kind],
            self._watch,
            execution=execution,
            problem=problem,
            failed_count=0 if problem is not None else rule.failed_count(self.state, self._rules),
            after=self.sequence,
        )
        assert change is not None
        if problem is None:
            self.problems[rule.kind] = change.problem
        elif self._counted is not None and self._counted.kind is rule.kind:
            self._counted = None
        self._add((entry,), (change,))

    def finish(self, *, unjudged: tuple[UnjudgedEnd, ...], judges_all: bool) -> None:
        """Add what is left to be written: what rules go by, how many failed, the ends to be judged later."""
        problems = () if self._counted is None else (ProblemChange(self._counted),)
        if self.state != self._before or problems or unjudged or judges_all:
            self._add((), problems, unjudged=unjudged, judges_all=judges_all)

    def _add(
        self,
        entries: tuple[OutboxEntry, ...],
        problems: tuple[ProblemChange, ...],
        *,
        unjudged: tuple[UnjudgedEnd, ...] = (),
        judges_all: bool = False,
    ) -> None:
        before, self.sequence = self.sequence, self.sequence + len(entries)
        written = (self._lease, self._watch.pipeline, before, self.sequence, self.state)
        self.changes.append(RulesChange(*written, entries, problems, unjudged, judges_all))


@dataclass(slots=True, eq=False)
class _Handed:
    """A change that waits to be written: what it ends, if that is to be judged, and when it started, if that counts."""

    change: ExecutionChange
    end: End | None
    started_at: int | None
    is_done: bool = False
    error: BaseException | None = None


class PipelineRecorder:
    """The rules of one pipeline. `order` knows those of its ends that a GET is to confirm."""

    def __init__(self, deps: AccountDependencies, watch: Watch, stream: PipelineStream) -> None:
        """Know nothing yet, and hold ends back: `begin` is to follow."""
        self.watch = watch
        self.has_begun = False  # by the rules of `watch`
        self.order = ConfirmationOrder()
        self._deps = deps
        self._stream = stream
        self._clock = deps.clock
        self._state = RuleState()
        self._problems: Mapping[EventType, Problem] = {}
        self._waiting: list[_Handed] = []
        self._held: list[UnjudgedEnd] = []
        self._held_since: Monotonic | None = None  # the last start, gap or trouble with the list
        self._awaited: Collection[TrackedExecution] | None = None  # a scan is complete, but for these
        self._shown_at = NEVER
        self._begun_at = EARLIEST
        self.hold()

    @property
    def _rules(self) -> Rules:
        return self.watch.rules or Rules()

    async def begin(self, watch: Watch) -> None:
        """Go by the rules of this watch, from where the record ends. Raises `StoreError`: then it is to be repeated."""
        self.has_begun = False
        async with self._stream.writing:
            record = await self._deps.store.load_rules(watch.pipeline)
            is_new_list, self.watch = watch.whole and not self.watch.whole, watch
            self._state, self._problems = record.state, record.problems
            self._held = list(record.unjudged)
            self._begun_at = self._clock.monotonic()
            if is_new_list:
                self.hold()
            elif not watch.whole:  # there is no scan to wait for
                self._held_since, self._awaited = None, ()
            await self._write(())
        self.has_begun = True

    async def retire(self) -> None:
        """Forget what the rules went by, once all is written that was handed in: nothing more comes.

        What ends from now on they do not see, so if they return they must not go by it. Raises `StoreError`.
        """
        async with self._stream.writing:  # whoever handed in something before is let in before
            at = self._stream.sequence
            forgotten = RulesChange(self._deps.lease, self.watch.pipeline, at, at, RuleState(), judges_all=True)
            await self._deps.store.record(forgotten)

    def hold(self) -> None:
        """Judge no end before a scan is complete that begins from now on: some may not have been seen yet."""
        if self.watch.whole:
            self._held_since, self._awaited = self._clock.monotonic(), None

    def shown(self, rows: Iterable[ExecutionSnapshot]) -> None:
        """Take in what its list shows, known or not: silence counts from the last start, recorded for it or not."""
        dates = [to_us(row.started_at) for row in rows if row.started_at is not None]
        self._shown_at = max([self._shown_at, *dates])

    async def scanned(self, asked_at: Monotonic, *, silent_until: Micros | None) -> None:
        """Take in that a scan is complete whose first page was asked for then. Raises `StoreError`.

        What waits to be judged is, once those are recorded that a GET is to confirm. It would have seen all starts
        before `silent_until`, by the API's clock.
        """
        if self._held_since is not None and self._awaited is None and asked_at >= self._held_since:
            self._awaited = self.order.waiting()
        async with self._stream.writing:
            # What a scan showed that began before the rules is not known here: it may have been the last start.
            await self._write_waiting(silent_until=silent_until if asked_at >= self._begun_at else None)

    async def record(self, several: Sequence[Evaluated]) -> None:
        """Write changes, and with them what the rules make of them. Raises `StoreError`: then nothing was written."""
        handed: list[_Handed] = []
        for entry, evaluation, execution in several:
            self.order.end(entry)
            if evaluation.change is not None:
                handed.append(self._handed(evaluation.change, execution))
        if all(each.end is None and each.started_at is None for each in handed):
            await self._deps.store.record(ChangeSet(self._deps.lease, tuple(each.change for each in handed)))
            return
        self._waiting += handed
        last = handed[-1]  # they are written together
        async with self._stream.writing:
            if not last.is_done:
                await self._write_waiting()
        if last.error is not None:
            raise last.error

    def _handed(self, change: ExecutionChange, execution: ExecutionSnapshot | None) -> _Handed:
        """Return what rules make of a change. What has no date counts as now, and so does one that is yet to come."""
        now = self._deps.api_now_us()
        started_at, finished_at = (
            None if at is None else min(now, to_us(at))
            for at in ((execution.started_at, execution.finished_at) if execution else (None, None))
        )
        type_ = change.entries[-1].event.type if change.entries else None
        end = None
        if self._rules.failing is not None and type_ in {EventType.EXECUTION_SUCCESS, EventType.EXECUTION_FAILED}:
            end = End(now if finished_at is None else finished_at, type_ is EventType.EXECUTION_FAILED)
        if change.before is None and started_at is None:
            started_at = now if finished_at is None else finished_at
        is_news = started_at is not None and started_at > self._state.started_at
        return _Handed(change, end, started_at if is_news and self._rules.silent_us is not None else None)

    async def _write_waiting(self, *, silent_until: Micros | None = None) -> None:
        """Write what waits, together, also what comes in the same turn of the event loop."""
        await asyncio.sleep(0)
        batch, self._waiting = self._waiting, []
        try:
            await self._write(batch, silent_until=silent_until)
        except BaseException as error:
            for handed in batch:  # an error of its own for each: what is raised twice carries two tracebacks
                handed.error = type(error)(*error.args) if isinstance(error, StoreError) else error
            raise
        finally:
            for handed in batch:
                handed.is_done = True

    async def _write(self, batch: Sequence[_Handed], *, silent_until: Micros | None = None) -> None:
        is_released = self._awaited is not None and self.order.waiting().isdisjoint(self._awaited)
        is_held = not is_released and self._held_since is not None
        evaluator, lease, sequence = self._deps.evaluator, self._deps.lease, self._stream.sequence
        draft = RulesDraft(self._state, self._problems, sequence=sequence, lease=lease, watch=self.watch)
        draft.changes += [handed.change for handed in batch if handed.end is None]
        ends = [_ToJudge(each.end, each.change.known.execution, each.change) for each in batch if each.end is not None]
        ends += [_ToJudge(each.end, each.execution, None) for each in self._held if is_released]
        ends.sort(key=attrgetter("end"))
        unjudged = tuple(UnjudgedEnd(each.execution, each.end) for each in ends if is_held)
        for each in ends:
            if each.change is not None:
                draft.changes.append(each.change)
            if is_held:
                continue
            draft.add_end(each.end)
            for rule in draft.turning(Asked.END, at=each.end.ended_at):
                opens = rule.kind not in draft.problems
                draft.turn(rule, evaluator, execution=await self._block(each) if opens else None)
        for handed in batch:
            if handed.started_at is not None:
                draft.add_start(handed.started_at)
        if silent_until is not None:
            draft.add_start(min(self._shown_at, silent_until))
        if draft.state.started_at > self._state.started_at:
            for rule in draft.turning(Asked.START, at=self._deps.api_now_us()):
                draft.turn(rule, evaluator)
        if silent_until is not None and draft.state.started_at:
            for rule in draft.turning(Asked.SCAN, at=silent_until):
                draft.turn(rule, evaluator)
        elif silent_until is not None:  # no start is known, so silence counts from then on
            draft.add_start(silent_until)
        draft.finish(unjudged=unjudged, judges_all=is_released and bool(self._held))
        if draft.changes:
            await self._deps.store.record(ChangeSet(lease, tuple(draft.changes)))
        self._state, self._problems, self._stream.sequence = draft.state, draft.problems, draft.sequence
        self._held += unjudged
        if is_released:
            self._held, self._held_since, self._awaited = [], None, None
        for change in draft.changes:
            for entry in change.entries if isinstance(change, RulesChange) else ():
                type_, account, pipeline = entry.event.type, lease.name, self.watch.pipeline
                (log.warning if type_ in PROBLEM_KINDS else log.info)(type_.value, account=account, pipeline=pipeline)
                self._deps.metrics.events.labels(type_).inc()

    async def _block(self, end: _ToJudge) -> Json | None:
        """Return what the event of an end says of its execution; one that was held back is in the store."""
        if end.change is not None:
            return execution_block(end.change.entries[-1].event.body)
        known = (await self._deps.store.load_executions([end.execution])).get(end.execution)
        if known is None:
            return None
        key = EventKey(stream_of(pipeline_source(self.watch), end.execution), known.sequence)
        body = (await self._deps.store.load_events([key])).get(key)
        return None if body is None else execution_block(body)


class AccountRules:
    """The recorders of pipelines that have rules, by pipeline, and the sequences of pipelines' own events."""

    def __init__(self, deps: AccountDependencies) -> None:
        """Start with none."""
        self._deps = deps
        self.recorders: dict[str, PipelineRecorder] = {}
        self._retired: list[PipelineRecorder] = []  # and not forgotten yet
        self._streams: dict[str, PipelineStream] = {}

    def stream(self, pipeline: str, *, sequence: int) -> PipelineStream:
        """Return a pipeline's own events, which begin with that sequence if nothing of them was written here."""
        return self._streams.setdefault(pipeline, PipelineStream(sequence))

    def drop(self, watches: Sequence[Watch]) -> list[Evaluated]:
        """Judge by no rules but those of these watches; return what waits no more. `watch` is to follow."""
        gone = self.recorders.keys() - {watch.pipeline for watch in watches if watch.rules is not None}
        dropped = [self.recorders.pop(pipeline) for pipeline in gone]
        self._retired += dropped
        return [confirmed for recorder in dropped for confirmed in recorder.order.all_confirmed()]

    async def watch(self, watches: Sequence[Watch]) -> None:
        """Go by the rules of these watches. Raises `StoreError`; then, or cancelled, it is to be called again."""
        while self._retired:
            await self._retired[-1].retire()
            self._retired.pop()
        for watch in watches:
            if watch.rules is None:
                continue
            recorder = self.recorders.get(watch.pipeline)
            if recorder is None:
                record = await self._deps.store.load_rules(watch.pipeline)
                stream = self.stream(watch.pipeline, sequence=record.sequence)
                recorder = PipelineRecorder(self._deps, watch, stream)
            is_same = (recorder.watch.rules, recorder.watch.whole) == (watch.rules, watch.whole)
            if recorder.has_begun and is_same:
                recorder.watch = watch
            else:
                await recorder.begin(watch)
            self.recorders[watch.pipeline] = recorder

    def shown(self, pipeline: str, rows: Iterable[ExecutionSnapshot]) -> None:
        """Take in what a list shows, known or not."""
        if (recorder := self.recorders.get(pipeline)) is not None:
            recorder.shown(rows)

    def hold(self, pipeline: str) -> None:
        """Judge no end of a pipeline before its list was read in full: some may not have been seen yet."""
        if (recorder := self.recorders.get(pipeline)) is not None:
            recorder.hold()

    def hold_all(self) -> None:
        """Do so for all pipelines."""
        for recorder in self.recorders.values():
            recorder.hold()

    async def scanned(self, pipeline: str, asked_at: Monotonic, *, silent_until: Micros | None) -> None:
        """Take in that a scan is complete. Raises `StoreError`."""
        if (recorder := self.recorders.get(pipeline)) is not None:
            await recorder.scanned(asked_at, silent_until=silent_until)

    # Ends that a GET is to confirm

    def confirms(self, entry: TrackedExecution) -> None:
        """Note that the end of an execution is to be confirmed."""
        if (recorder := self.recorders.get(entry.known.pipeline)) is not None:
            recorder.order.begin(entry)
