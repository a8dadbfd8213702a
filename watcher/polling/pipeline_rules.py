"""Records starts and ends together with what the rules of their pipeline conclude from them: docs/alerts.md.

What a rule concludes the domain says. Here is when it is asked: at once or, after a start, a gap or trouble with the
list, once a scan is complete; and that no end is judged twice, or never, whenever the process ends.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import structlog

from watcher.domain.envelope import Json, pipeline_source, stream_of
from watcher.domain.errors import StoreError
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.event_factory import execution_block
from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.problems import CLOSED_BY, PROBLEM_KINDS, Problem, ProblemChange
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
from watcher.domain.timestamps import NEVER, Micros, to_us
from watcher.domain.watch import Watch
from watcher.polling.confirmations import ConfirmationOrder
from watcher.polling.evaluator import Evaluated, ReplyEvaluator
from watcher.polling.pipeline_list import PipelineStream
from watcher.polling.poll_item import TrackedExecution
from watcher.polling.session import AccountDependencies
from watcher.store.changes import ChangeSet, ExecutionChange, Lease, RulesChange

log = structlog.get_logger()

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
        self._before = RulesState(RuleState(), {}, 0)
        self._waiting: list[_Handed] = []
        self._held: list[UnjudgedEnd] = []
        self._held_since: Micros | None = None
        self._trouble_at = NEVER
        self._released_by: Micros | None = None  # when the complete scan began that ends the hold
        self._awaited: Collection[TrackedExecution] = ()
        self._shown_at = NEVER
        self._begun_at = NEVER
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
            self._before = RulesState(record.state, record.problems, record.sequence)
            self._held = list(record.unjudged)
            self._begun_at = self._clock.steady_us()
            if is_new_list:
                self.hold()
            elif not watch.whole:  # there is no scan to wait for
                self._held_since, self._released_by = None, NEVER
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
            self._trouble_at = self._clock.steady_us()
            if self._held_since is None:
                self._held_since = self._trouble_at

    def shown(self, rows: Iterable[ExecutionSnapshot]) -> None:
        """Take in what its list shows, known or not: silence counts from the last start, recorded for it or not."""
        dates = [to_us(row.started_at) for row in rows if row.started_at is not None]
        self._shown_at = max([self._shown_at, *dates])

    async def scanned(self, began_at: Micros, *, proves_silence: bool) -> None:
        """Take in that a scan that began then is complete. Raises `StoreError`.

        What waits to be judged is, once those are recorded that a GET is to confirm. `proves_silence` tells whether a
        start would have been seen.
        """
        if self._held_since is not None and self._released_by is None and began_at >= self._held_since:
            self._released_by, self._awaited = began_at, self.order.waiting()
        async with self._stream.writing:
            # What a scan showed that began before the rules is not known here: it may have been the last start.
            is_seen = proves_silence and began_at >= self._begun_at
            await self._write_waiting(silent_until=began_at if is_seen else None)

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
        """Return what rules make of a change. A date of the API that is yet to come counts as now."""
        now = self._clock.steady_us()
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
        is_news = started_at is not None and started_at > self._before.state.started_at
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
        is_released = self._released_by is not None and self.order.waiting().isdisjoint(self._awaited)
        is_held = not is_released and self._held_since is not None
        before = replace(self._before, sequence=self._stream.sequence)  # a gap may have been reported since
        draft = RulesDraft(before, lease=self._deps.lease, watch=self.watch, evaluator=self._deps.evaluator)
        draft.changes += [handed.change for handed in batch if handed.end is None]
        ends = [JudgedEnd(each.change.known.execution, each.end, each.change) for each in batch if each.end is not None]
        ends += [JudgedEnd(*each) for each in self._held if is_released]
        ends.sort(key=attrgetter("end"))
        unjudged = [UnjudgedEnd(each.execution, each.end) for each in ends if is_held]
        if is_held:
            draft.changes += [each.change for each in ends if each.change is not None]
        else:
            draft.add(ends, blocks=await self._blocks(draft.judge(ends)))
        starts = [handed.started_at for handed in batch if handed.started_at is not None]
        if silent_until is not None:
            starts.append(min(self._shown_at, silent_until))
        draft.note_starts(starts, now=self._clock.steady_us())
        if silent_until is not None:
            draft.note_silence(silent_until)
        draft.finish(unjudged=tuple(unjudged), judges_all=is_released and bool(self._held))
        if draft.changes:
            await self._deps.store.record(ChangeSet(self._deps.lease, tuple(draft.changes)))
        self._written(draft, unjudged, is_released=is_released)

    async def _blocks(self, ends: Iterable[JudgedEnd]) -> dict[str, Json]:
        """Return what the events of some ends say of their executions, those that were held back from the store."""
        bodies: dict[str, bytes] = {}
        held: list[str] = []
        for each in ends:
            if each.change is None:
                held.append(each.execution)
            else:
                bodies[each.execution] = each.change.entries[-1].event.body
        if held:
            known = await self._deps.store.load_executions(held)
            source = pipeline_source(self.watch)
            keys = {EventKey(stream_of(source, name), each.sequence): name for name, each in known.items()}
            found = await self._deps.store.load_events(list(keys))
            bodies |= {keys[key]: body for key, body in found.items()}
        return {name: execution_block(body) for name, body in bodies.items()}

    def _written(self, draft: RulesDraft, unjudged: Iterable[UnjudgedEnd], *, is_released: bool) -> None:
        self._before, self._stream.sequence = draft.result, draft.result.sequence
        self._held += unjudged
        if is_released:
            is_troubled = self.watch.whole and self._trouble_at > (self._released_by or 0)
            self._held, self._released_by, self._awaited = [], None, ()
            self._held_since = self._trouble_at if is_troubled else None
        for change in draft.changes:
            for entry in change.entries if isinstance(change, RulesChange) else ():
                type_, account, pipeline = entry.event.type, self._deps.lease.name, self.watch.pipeline
                (log.warning if type_ in PROBLEM_KINDS else log.info)(type_.value, account=account, pipeline=pipeline)
                self._deps.metrics.events.labels(type_).inc()


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

    async def scanned(self, pipeline: str, began_at: Micros, *, proves_silence: bool) -> None:
        """Take in that a scan is complete. Raises `StoreError`."""
        if (recorder := self.recorders.get(pipeline)) is not None:
            await recorder.scanned(began_at, proves_silence=proves_silence)

    # Ends that a GET is to confirm

    def confirms(self, entry: TrackedExecution) -> None:
        """Note that the end of an execution is to be confirmed."""
        if (recorder := self.recorders.get(entry.known.pipeline)) is not None:
            recorder.order.begin(entry)

    def keeps(self, confirmed: Evaluated) -> bool:
        """Return whether a confirmed end must wait for an older one."""
        recorder = self.recorders.get(confirmed.entry.known.pipeline)
        return recorder is not None and recorder.order.keeps(confirmed)

    def holds(self, entry: TrackedExecution) -> bool:
        """Return whether the end of an execution is confirmed and waits."""
        recorder = self.recorders.get(entry.known.pipeline)
        return recorder is not None and recorder.order.holds(entry)

    def confirmed(self, entry: TrackedExecution) -> Sequence[Evaluated]:
        """Note that an end was recorded or denied; return those that wait no more."""
        recorder = self.recorders.get(entry.known.pipeline)
        if recorder is None:
            return ()
        recorder.order.end(entry)
        return recorder.order.released()
