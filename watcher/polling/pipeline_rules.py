"""Records starts and ends together with what the rules of their pipeline conclude from them: docs/alerts.md.

The rules are a table, watcher/domain/rules.py. Here is when they are asked: at once or, after a start, a gap or trouble
with the list, once a scan is complete; and that no end is judged twice, or never, whenever the process ends.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from operator import attrgetter

import structlog

from watcher.domain.envelope import Json, pipeline_source, stream_of
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.event_factory import execution_block
from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.problems import CLOSED_BY, PROBLEM_KINDS, Problem, ProblemChange
from watcher.domain.rules import RULES, Asked, End, Rules, RuleState, UnjudgedEnd
from watcher.domain.timestamps import EARLIEST, NEVER, Micros, Monotonic
from watcher.domain.watch import Watch
from watcher.polling.dependencies import AccountDependencies
from watcher.polling.evaluator import Evaluation
from watcher.polling.list_scan import dated
from watcher.polling.pipeline_list import PipelineStream
from watcher.polling.poll_item import TrackedExecution
from watcher.store.changes import ChangeSet, ExecutionChange, SingleChange, SourceChange

log = structlog.get_logger()


@dataclass(slots=True)
class _Draft:
    """What rules conclude from what is written now: `state` and `problems` hold then, `entries` are their events.

    `bodies` are the last events of the executions that are written, by their ids.
    """

    state: RuleState
    problems: dict[EventType, Problem]
    bodies: Mapping[str, bytes]
    entries: list[OutboxEntry] = field(default_factory=list)
    changes: list[ProblemChange] = field(default_factory=list)


@dataclass(slots=True)
class _Batch:
    """Answers that are written together, and why they could not be."""

    several: list[Evaluation] = field(default_factory=list)
    error: BaseException | None = None


class PipelineRecorder:
    """The rules of one pipeline. They judge an end after all older ones, those too that are `pending`."""

    def __init__(self, deps: AccountDependencies, watch: Watch, stream: PipelineStream) -> None:
        """Hold ends back: `begin` is to follow."""
        self.watch = watch
        self.has_begun = False  # by the rules of `watch`
        self.pending: set[TrackedExecution] = set()
        self._deps = deps
        self._stream = stream
        self._clock = deps.clock
        self._state = RuleState()
        self._problems: Mapping[EventType, Problem] = {}
        self._waiting = _Batch()  # for what is being written
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
            await self._write()
        self.has_begun = True

    async def forget(self) -> None:
        """Let the store forget what the rules went by: if they return they begin with nothing. Raises `StoreError`."""
        async with self._stream.writing:
            lease, at = self._deps.lease, self._stream.sequence
            of_rules = SourceChange(lease, at, at, pipeline=self.watch.pipeline, rules=RuleState(), judges_all=True)
            await self._deps.store.record(of_rules)

    def hold(self) -> None:
        """Judge no end before a scan is complete that begins from now on: some may not have been seen yet."""
        if self.watch.whole:
            self._held_since, self._awaited = self._clock.monotonic(), None

    def shown(self, rows: Iterable[ExecutionSnapshot]) -> None:
        """Take in what its list shows, known or not: silence counts from the last start, recorded for it or not."""
        dates = [row.began_at for row in rows if row.began_at is not None]
        self._shown_at = max([self._shown_at, *dates])

    async def scanned(self, asked_at: Monotonic, *, silent_until: Micros | None) -> None:
        """Take in that a scan is complete whose first page was asked for then. Raises `StoreError`.

        What waits to be judged is, once those are recorded that a GET is to confirm. It would have seen all starts
        before `silent_until`.
        """
        if self._held_since is not None and self._awaited is None and asked_at >= self._held_since:
            self._awaited = self._unconfirmed()
        async with self._stream.writing:
            # What a scan showed that began before the rules is not known here: it may have been the last start.
            await self._write(silent_until=silent_until if asked_at >= self._begun_at else None)

    async def record(self, several: Sequence[Evaluation]) -> None:
        """Write changes, and with them what the rules make of them. Raises `StoreError`: then nothing was written.

        What comes while something is written goes together in one transaction then.
        """
        batch = self._waiting
        batch.several += several
        async with self._stream.writing:
            if batch is self._waiting:
                self._waiting = _Batch()
                try:
                    await self._write(batch.several)
                except BaseException as error:
                    batch.error = error
                    raise
            elif batch.error is not None:
                raise batch.error

    async def _write(self, several: Sequence[Evaluation] = (), *, silent_until: Micros | None = None) -> None:
        deps, rules, before = self._deps, self._rules, self._stream.sequence
        unconfirmed = self._unconfirmed() - {each.entry for each in several if each.known.ended_at}
        is_released = self._awaited is not None and unconfirmed.isdisjoint(self._awaited)
        until = min([dated(each.pending.execution) or 0 for each in unconfirmed if each.pending], default=inf)
        if self._held_since is not None:
            until = inf if is_released else -inf
        news = [(each.change, each.execution) for each in several if each.change is not None]
        bodies = {change.known.execution: change.entries[-1].event.body for change, _ in news if change.entries}
        draft = _Draft(self._state.kept_for(rules), dict(self._problems), bodies)
        new = [each for change, execution in news if (each := self._end_of(change, execution)) is not None]
        ends = sorted([*self._held, *new], key=attrgetter("end")) if rules.ask_about(Asked.END) else []
        judged = [each for each in ends if each.end.ended_at <= until]
        held = ends[len(judged) :]
        for execution, end in judged:
            draft.state = draft.state.with_end(end, rules)
            problem = draft.problems.get(EventType.PIPELINE_FAILING)
            if end.failed and problem is not None:
                draft.problems[problem.kind] = replace(problem, failed_count=problem.failed_count + 1)
            if not is_released or end is judged[-1].end:  # what waited is judged once, by what stands then
                await self._ask(draft, Asked.END, at=end.ended_at, execution=execution)
        if rules.ask_about(Asked.START):
            starts = [self._started_at(change, execution) for change, execution in news]
            starts += [] if silent_until is None else [min(self._shown_at, silent_until)]
            draft.state = draft.state.with_start(max(starts, default=NEVER))
            if draft.state.started_at > self._state.started_at:
                await self._ask(draft, Asked.START, at=self._clock.steady_us())
            if silent_until is not None and not draft.state.started_at:  # so silence counts from then on
                draft.state = draft.state.with_start(silent_until)
        if silent_until is not None:
            await self._ask(draft, Asked.SCAN, at=silent_until)
        counted = [each for each in draft.problems.values() if each != self._problems.get(each.kind)]
        draft.changes += map(ProblemChange, counted)
        changes: list[SingleChange] = [change for change, _ in news]
        is_any_judged = len(held) < len(self._held) + len(new)
        sequence, judges_all = before + len(draft.entries), is_any_judged and bool(self._held)
        unjudged = tuple(held if is_any_judged else new)
        if draft.state != self._state or draft.changes or unjudged or judges_all:
            written = (tuple(draft.entries), tuple(draft.changes))
            of_rules = SourceChange(deps.lease, before, sequence, None, *written, pipeline=self.watch.pipeline)
            changes.append(replace(of_rules, rules=draft.state, unjudged=unjudged, judges_all=judges_all))
        if changes:
            await deps.store.record(ChangeSet(deps.lease, tuple(changes)))
        self._state, self._problems, self._stream.sequence = draft.state, draft.problems, sequence
        self._held = held
        if is_released:
            self._held_since, self._awaited = None, None
        for type_ in [entry.event.type for entry in draft.entries]:
            log_it = log.warning if type_ in PROBLEM_KINDS else log.info
            log_it(type_.value, account=deps.lease.name, pipeline=self.watch.pipeline)
            deps.metrics.events.labels(type_).inc()

    def _unconfirmed(self) -> frozenset[TrackedExecution]:
        """Return those whose end a GET is to confirm still."""
        self.pending = {each for each in self.pending if each.pending and not (each.unwatched or each.known.ended_at)}
        return frozenset(self.pending)

    def _end_of(self, change: ExecutionChange, execution: ExecutionSnapshot | None) -> UnjudgedEnd | None:
        type_ = change.entries[-1].event.type if change.entries else None
        if type_ not in {EventType.EXECUTION_SUCCESS, EventType.EXECUTION_FAILED}:
            return None
        ended_at = self._dated(None if execution is None else execution.ended_at)
        return UnjudgedEnd(change.known.execution, End(ended_at, type_ is EventType.EXECUTION_FAILED))

    def _started_at(self, change: ExecutionChange, execution: ExecutionSnapshot | None) -> Micros:
        """Return when an execution started, if it says so, else when one that is new ended."""
        started_at, ended_at = (execution.began_at, execution.ended_at) if execution else (None, None)
        return NEVER if started_at is None and change.before is not None else self._dated(started_at or ended_at)

    def _dated(self, at: Micros | None) -> Micros:
        """Return when something happened: what has no date, or one that is yet to come, counts as now."""
        now = self._clock.steady_us()
        return now if at is None else min(now, at)

    async def _ask(self, draft: _Draft, asked: Asked, *, at: int, execution: str | None = None) -> None:
        """Open and close the problems that rules say do, now that an end of an execution, or something else, asks."""
        evaluator = self._deps.evaluator
        for rule in RULES:
            problem = draft.problems.get(rule.kind)
            opens = problem is None
            if getattr(self._rules, rule.key) is None or asked is not (rule.opened_by if opens else rule.closed_by):
                continue
            if rule.holds(draft.state, self._rules, at) is not opens:
                continue
            entry, change = evaluator.events.pipeline(
                rule.kind if opens else CLOSED_BY[rule.kind],
                self.watch,
                {"execution": await self._block(draft, execution) if opens and execution is not None else None},
                problem,
                name=evaluator.pipeline_names.get(self.watch.pipeline),
                link=evaluator.link,
                failed_count=rule.failed_count(draft.state, self._rules) if opens else 0,
                after=self._stream.sequence + len(draft.entries),
                at=evaluator.clock.now(),
            )
            assert change is not None
            draft.entries.append(entry)
            draft.changes.append(change)
            if opens:
                draft.problems[rule.kind] = change.problem
            else:
                del draft.problems[rule.kind]

    async def _block(self, draft: _Draft, execution: str) -> Json | None:
        """Return what the event of an end says of its execution; one that was held back is in the store."""
        body, store = draft.bodies.get(execution), self._deps.store
        if body is None and (known := (await store.load_executions([execution])).get(execution)) is not None:
            key = EventKey(stream_of(pipeline_source(self.watch), execution), known.sequence)
            body = (await store.load_events([key])).get(key)
        return None if body is None else execution_block(body)


class AccountRules:
    """The recorders of pipelines that have rules, by pipeline, and the sequences of pipelines' own events."""

    def __init__(self, deps: AccountDependencies) -> None:
        self._deps = deps
        self.recorders: dict[str, PipelineRecorder] = {}
        self._streams: dict[str, PipelineStream] = {}

    def stream(self, pipeline: str, *, sequence: int = 0) -> PipelineStream:
        """Return a pipeline's own events, of which the store had that one last."""
        stream = self._streams.setdefault(pipeline, PipelineStream(sequence))
        stream.sequence = max(stream.sequence, sequence)
        return stream

    async def watch(self, watches: Sequence[Watch]) -> None:
        """Go by the rules of these watches alone. Raises `StoreError`; then, or cancelled, it is to be called again."""
        gone = self.recorders.keys() - {watch.pipeline for watch in watches if watch.rules is not None}
        for pipeline in gone:
            await self.recorders[pipeline].forget()
            del self.recorders[pipeline]
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
