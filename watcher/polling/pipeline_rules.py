"""Records starts and ends of executions together with the problems that the rules of their pipeline open and close.

The rules are described in docs/alerts.md. They are pure: `judge` in watcher/domain/rules.py. The recorder decides when
ends are judged: at once or, after a start of the daemon, a gap or trouble with the list, once a scan is complete. Each
end is judged exactly once, even if the process is killed.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

import structlog

from watcher.domain.envelope import Json, cut, pipeline_source, present, stream_of, timestamp
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.event_factory import execution_block
from watcher.domain.execution import ExecutionSnapshot, Status
from watcher.domain.history import DAY_US, ErrorKind, error_kind_of, kind_without_node, period_start
from watcher.domain.problems import CLOSED_BY, PROBLEM_KINDS, LatestFailure, Problem, ProblemChange
from watcher.domain.rules import (
    KNOWN_FOR_US,
    End,
    FailingRule,
    News,
    Rules,
    RuleState,
    Spending,
    UnjudgedEnd,
    Verdict,
    judge,
)
from watcher.domain.timestamps import NEVER, Micros, Monotonic, from_us
from watcher.domain.watch import Watch
from watcher.polling.dependencies import AccountDependencies
from watcher.polling.evaluator import Evaluation
from watcher.polling.list_evidence import date_of
from watcher.polling.pipeline_list import PipelineStream
from watcher.polling.poll_item import TrackedExecution
from watcher.polling.slow_executions import SlowExecutions
from watcher.runtime.terminal import first_visible
from watcher.runtime.units import spell_duration
from watcher.store.changes import ChangeSet, RulesRecord, SingleChange, SourceChange

log = structlog.get_logger()


@dataclass(slots=True)
class _Batch:
    """Evaluations that are written in one transaction, and the error if that failed."""

    evaluations: list[Evaluation] = field(default_factory=list)
    error: BaseException | None = None


@dataclass(slots=True)
class _Hold:
    """A period in which no end is judged, because older ends may still appear: after a start, a gap or trouble.

    The hold began at `since` (monotonic seconds). `unconfirmed` is set once a scan that began later is complete. It has
    the executions with an end that a GET was still to confirm at that time. The hold ends when all of these ends are
    recorded.
    """

    since: Monotonic
    unconfirmed: Collection[TrackedExecution] | None = None


class PipelineRecorder:
    """Records the changes of one pipeline's executions, and applies the rules of the pipeline.

    An end is judged after all older ones, including those of the `unconfirmed` executions, which a GET is to confirm.
    """

    def __init__(self, deps: AccountDependencies, watch: Watch, stream: PipelineStream) -> None:
        """Start with a hold. Call `begin` before anything is recorded, then `note_watched`."""
        self.watch = watch
        self.unconfirmed: set[TrackedExecution] = set()
        self._deps = deps
        self._event = deps.evaluator.pipeline_event
        self._stream = stream
        self._clock = deps.clock
        self._record = RulesRecord(0, RuleState(), {}, ())  # as stored
        self._waiting = _Batch()  # for the next write
        self._hold: _Hold | None = None
        self._shown_at = NEVER  # the last start that the list showed
        self._slow: SlowExecutions | None = None  # with the rule `slow`
        self._spending = Spending(NEVER)
        self.begun_at: Monotonic | None = None
        """The time since which the rules of `watch` are applied; `None` before `begin`, or after it failed."""
        self.hold()

    @property
    def _rules(self) -> Rules:
        return self.watch.rules or Rules()

    async def begin(self, watch: Watch) -> None:
        """Apply the rules of a watch, from the recorded state on. After a `StoreError` it must be called again."""
        self.begun_at = None
        async with self._stream.writing:
            self._record = await self._deps.store.load_rules(watch.pipeline)
            self._stream.sequence = max(self._stream.sequence, self._record.sequence)
            is_new_list, self.watch = watch.whole and not self.watch.whole, watch
            await self._load(self._rules)
            begun_at = self._clock.monotonic()
            if is_new_list:
                self.hold()
            elif not watch.whole:  # there is no scan to wait for
                self._hold = None
            await self._write()
        self.begun_at = begun_at

    async def _load(self, rules: Rules) -> None:
        """Load from the store what the rules compare with. Raises `StoreError`."""
        store, pipeline = self._deps.store, self.watch.pipeline
        self._slow = None if rules.slow is None else SlowExecutions(rules.slow, await store.load_durations(pipeline))
        if rules.tokens_per_day is not None:
            day_at = period_start(self._clock.steady_us(), DAY_US)
            stream = stream_of(pipeline_source(self.watch))
            self._spending = await store.load_spending(pipeline, stream=stream, day_at=day_at)

    async def forget(self) -> None:
        """Delete the recorded state of the rules, so that later rules start without any. Raises `StoreError`."""
        async with self._stream.writing:
            lease, at = self._deps.lease, self._stream.sequence
            of_rules = SourceChange(lease, at, at, pipeline=self.watch.pipeline, rules=RuleState(), judges_all=True)
            await self._deps.store.record(of_rules)

    def hold(self) -> None:
        """Judge no end until a scan that begins from now on is complete: older ends may not have been seen yet."""
        if self.watch.whole:
            self._hold = _Hold(self._clock.monotonic())

    def note_starts(self, rows: Iterable[ExecutionSnapshot]) -> None:
        """Note the last start in a list until its first complete scan: the time without a start is counted from there.

        After that each start counts once, when it is recorded. A row may come again with another date on our clock,
        because the API's clock may have been set meanwhile.
        """
        if self._rules.silent_us is not None and not self._record.state.started_at:
            self._shown_at = max([self._shown_at, *(row.began_at for row in rows if row.began_at is not None)])

    async def note_scan(self, asked_at: Monotonic, *, silent_until: Micros | None) -> None:
        """Note that a scan is complete whose first page was requested at `asked_at` (monotonic). Raises `StoreError`.

        Ends on hold are judged once all ends that GETs are to confirm are recorded. The scan has shown all starts
        before `silent_until`, if that is given.
        """
        if self._hold is not None and self._hold.unconfirmed is None and asked_at >= self._hold.since:
            self._hold.unconfirmed = self._unconfirmed()
        async with self._stream.writing:
            # A scan that began before the rules may have shown a start that is not known here.
            has_seen_all = self.begun_at is not None and asked_at >= self.begun_at
            await self._write(silent_until=silent_until if has_seen_all else None)

    async def record(self, evaluations: Sequence[Evaluation]) -> None:
        """Write changes with the problems that the rules open and close. After a `StoreError` nothing is written.

        Evaluations that arrive during a write are written together in the next transaction.
        """
        batch = self._waiting
        batch.evaluations += evaluations
        async with self._stream.writing:
            if batch is self._waiting:
                self._waiting = _Batch()
                try:
                    await self._write(batch.evaluations)
                except BaseException as error:
                    batch.error = error
                    raise
            elif batch.error is not None:
                raise batch.error

    async def note_watched(self, entries: Iterable[TrackedExecution]) -> None:
        """Apply the rule `slow` to the account's open executions, after a start or a reload. Raises `StoreError`."""
        slow, now = self._slow, self._clock.steady_us()
        if slow is None or self.begun_at is None:
            return
        if slow.entries is None:  # what opened the problem is slow until an answer says otherwise
            is_open = EventType.PIPELINE_SLOW in self._record.problems
            slow.entries = {each for each in entries if is_open and each.known.pipeline == self.watch.pipeline}
        slow.keep_slow(now=now)
        await self._write_slow()

    async def note_shown(self, entries: Iterable[TrackedExecution]) -> None:
        """Apply the rule `slow` after an answer that shows these executions. Raises `StoreError`."""
        if self._slow is not None and self._slow.entries is not None:
            self._slow.note_shown(entries, now=self._clock.steady_us())
            await self._write_slow()

    async def _write_slow(self) -> None:
        """Open `pipeline.slow`, or close it, if the slow executions ask for that."""
        if not self._stream.writing.locked() and self._is_slow_as_recorded():
            return
        async with self._stream.writing:
            if not self._is_slow_as_recorded():
                await self._write()

    def _is_slow_as_recorded(self) -> bool:
        """Return whether the problem `pipeline.slow` is open if, and only if, an execution is slow."""
        is_slow = self._slow is not None and bool(self._slow.entries)
        return is_slow == (EventType.PIPELINE_SLOW in self._record.problems)

    async def move(self, by_us: int) -> None:
        """Move the recorded times of the rules by `by_us`. Raises `StoreError`."""
        async with self._stream.writing:
            await self._write(moved_us=by_us)

    async def _write(
        self, evaluations: Sequence[Evaluation] = (), *, silent_until: Micros | None = None, moved_us: int = 0
    ) -> None:
        """Write changes with the problems that the rules open and close, in one transaction. Raises `StoreError`.

        The recorded times move by `moved_us`.
        """
        deps, stored, record = self._deps, self._record, self._record
        changes: list[SingleChange] = [each.change for each in evaluations if each.change is not None]
        if stored.state.in_api_time:
            if deps.api.ahead_us is None:  # no start or end concerns the rules before the first answer
                if changes:
                    await deps.store.record(ChangeSet(deps.lease, tuple(changes)))
                return
            moved_us = -deps.api.ahead_us
        if moved_us:
            record = stored.moved(moved_us, now=self._clock.steady_us())
        hold, is_released, until = self._judged_until(evaluations)
        new = [end for each in evaluations if (end := self._end_of(each)) is not None]
        is_judging = self._rules.failing is not None or self._rules.reports_new_errors
        ends = sorted([*record.unjudged, *new], key=lambda each: each.end.ended_at) if is_judging else []
        judged = [each for each in ends if each.end.ended_at <= until]
        held = ends[len(judged) :]
        starts = [self._start_of(each) for each in evaluations]
        starts += [] if silent_until is None else [min(self._shown_at, silent_until)]
        now, slow, spending = self._clock.steady_us(), self._slow, self._spending
        known = {each.entry: each.known for each in evaluations}
        if slow is not None:
            slow = slow.with_changes(known, now=now)
        slowest = None if slow is None else slow.slowest()
        news = News(now, judged, is_released, max(starts, default=NEVER), silent_until, slowest)
        counts = {kind: problem.failed_count for kind, problem in record.problems.items()}
        verdict = judge(self._rules, record.state, counts, news)
        problems = dict(record.problems)
        entries, edges = await self._events_of(verdict, problems, evaluations, slow)
        if self._rules.reports_new_errors:
            after = self._stream.sequence + len(entries)
            entries += await self._new_errors(judged, record.unjudged, evaluations, after=after)
        if self._rules.tokens_per_day is not None:
            ended = [change.ended for each in evaluations if (change := each.change) is not None and change.ended]
            spending = spending.add(ended, per_day=self._rules.tokens_per_day, now=now)
            entries += self._overspending(spending, after=self._stream.sequence + len(entries))
        before, sequence = self._stream.sequence, self._stream.sequence + len(entries)
        is_as_before = record is stored and len(held) == len(stored.unjudged) + len(new)
        unjudged, judges_all = tuple(new if is_as_before else held), not is_as_before and bool(stored.unjudged)
        if verdict.state != stored.state or entries or edges or unjudged or judges_all:
            written = (tuple(entries), tuple(edges))
            of_rules = SourceChange(deps.lease, before, sequence, None, *written, pipeline=self.watch.pipeline)
            changes.append(replace(of_rules, rules=verdict.state, unjudged=unjudged, judges_all=judges_all))
        if changes:
            await deps.store.record(ChangeSet(deps.lease, tuple(changes)))
        self._record = RulesRecord(sequence, verdict.state, problems, held)
        self._spending = spending
        if self._slow is not None:  # an answer may have shown another slow execution meanwhile
            self._slow = self._slow.with_changes(known, now=now)
        self._stream.sequence = sequence
        if is_released and self._hold is hold:  # another hold may have begun meanwhile
            self._hold = None
        for type_ in [entry.event.type for entry in entries]:
            log_it = log.warning if type_ in PROBLEM_KINDS else log.info
            log_it(type_.value, account=deps.lease.name, pipeline=self.watch.pipeline)
            deps.metrics.events.labels(type_).inc()

    def _judged_until(self, evaluations: Sequence[Evaluation]) -> tuple[_Hold | None, bool, float]:
        """Return the current hold, whether these evaluations end it, and the time up to which ends are to be judged."""
        hold = self._hold
        unconfirmed = self._unconfirmed() - {each.entry for each in evaluations if each.known.end_seen_at}
        if hold is not None:
            is_released = hold.unconfirmed is not None and unconfirmed.isdisjoint(hold.unconfirmed)
            return hold, is_released, inf if is_released else -inf
        pending = [each.unconfirmed_end.execution for each in unconfirmed if each.unconfirmed_end]
        return None, False, min([date_of(row) or NEVER for row in pending], default=inf)

    def _unconfirmed(self) -> frozenset[TrackedExecution]:
        """Return the executions whose end a GET is still to confirm."""
        pending = [entry for entry in self.unconfirmed if entry.unconfirmed_end and not entry.known.end_seen_at]
        self.unconfirmed = {entry for entry in pending if not entry.is_unwatched}
        return frozenset(self.unconfirmed)

    def _end_of(self, evaluation: Evaluation) -> UnjudgedEnd | None:
        """Return the end that an evaluation records; `None` unless the execution succeeded or failed."""
        change, row = evaluation.change, evaluation.execution
        type_ = change.entries[-1].event.type if change and change.entries else None
        if type_ not in {EventType.EXECUTION_SUCCESS, EventType.EXECUTION_FAILED}:
            return None
        known, rule = evaluation.known, self._rules.failing
        # A date a little ahead of now is kept: otherwise the ends of two answers could change places.
        ended_at = known.ended_at or self._clock.steady_us()
        failed = type_ is EventType.EXECUTION_FAILED
        if not failed and row is not None and rule is not None:
            failed = rule.fault_of(duration_s=row.duration_s, nodes_count=row.nodes_started) is not None
        return UnjudgedEnd(known.execution, End(ended_at, failed))

    def _start_of(self, evaluation: Evaluation) -> Micros:
        """Return when an execution started, or when it ended if only that is dated; `NEVER` if its start is not new.

        A start is new if the execution is seen for the first time, or was only `new` before. A known start is not dated
        again, because the API's clock may have been set since.
        """
        change, row = evaluation.change, evaluation.execution
        is_news = change is not None and (change.before is None or evaluation.entry.known.status == Status.NEW)
        now = self._clock.steady_us()
        return min(now, row.began_at or row.ended_at or now) if is_news and row is not None else NEVER

    async def _events_of(
        self,
        verdict: Verdict,
        problems: dict[EventType, Problem],
        evaluations: Sequence[Evaluation],
        slow: SlowExecutions | None,
    ) -> tuple[list[OutboxEntry], Sequence[ProblemChange]]:
        """Return the events of a verdict and the changes of its problems. Update `problems` to the open ones.

        A problem that stays open gets only a new count of failures and a new latest failure.
        """
        rule, entries, changes = self._rules.failing, list[OutboxEntry](), list[ProblemChange]()
        failing, latest = EventType.PIPELINE_FAILING, dict[EventType, LatestFailure | None]()
        if failing in problems or failing in verdict.failed_counts:
            latest[failing] = await self._latest(verdict, problems.get(failing), evaluations)
        for kind, opens, failed_count, execution in verdict.edges:
            problem = None if opens else replace(problems.pop(kind), failed_count=failed_count, latest=latest.get(kind))
            more: Json = {"execution": None if execution is None else await self._block(evaluations, execution)}
            if kind is failing and opens and rule is not None:
                more["closesWhen"] = _closes_when(rule)
            elif kind is EventType.PIPELINE_SILENT and opens and self._rules.silent_us is not None:
                more["limitSeconds"] = self._rules.silent_us / 1e6
                more["silentSince"] = timestamp(from_us(Micros(verdict.state.started_at)))
            elif kind is EventType.PIPELINE_SLOW and opens and slow is not None:
                more |= slow.facts(now=self._clock.steady_us())
            after, type_ = self._stream.sequence + len(entries), kind if opens else CLOSED_BY[kind]
            entry, change = self._event(self.watch, type_, more, problem, count=failed_count, after=after)
            assert change is not None
            entries.append(entry)
            changes.append(change)
            if opens:
                problems[kind] = change.problem
        for kind, failed_count in verdict.failed_counts.items():
            now = replace(problems[kind], failed_count=failed_count, latest=latest.get(kind))
            if problems[kind] != now:
                problems[kind] = now
                changes.append(ProblemChange(now))
        return entries, changes

    async def _new_errors(
        self,
        judged: Sequence[UnjudgedEnd],
        unjudged: Sequence[UnjudgedEnd],
        evaluations: Sequence[Evaluation],
        *,
        after: int,
    ) -> Sequence[OutboxEntry]:
        """Return an event for each kind of error among the `judged` ends that was not seen within the last 30 days.

        A kind is known, too, if its text alone was seen: list rows, by which the history is counted, name no node. The
        store has counted the errors of the ends that were `unjudged` before. Their number is therefore subtracted.
        """
        blocks = await self._blocks(evaluations, [execution for execution, end in judged if end.failed])
        errors = {
            each.known.execution: each.change.ended.error for each in evaluations if each.change and each.change.ended
        }
        entries, seen, unjudged_counts = list[OutboxEntry](), set[bytes](), None
        for execution, end in judged:
            if (block := blocks.get(execution)) is None or block.get("status") != Status.FAILED:
                continue
            kind = errors.get(execution) or _error_in(block)
            same = {kind.fingerprint, kind_without_node(kind.text).fingerprint}
            if not kind.text or not seen.isdisjoint(same):
                continue
            seen.add(kind.fingerprint)
            since = Micros(end.ended_at - KNOWN_FOR_US)
            if count := await self._deps.store.count_errors(self.watch.pipeline, same, since):
                if unjudged_counts is None:
                    unjudged_counts = await self._kinds_of(unjudged)
                if count > sum(unjudged_counts[each] for each in same):
                    continue
            error = {"node": cut(kind.node), "text": cut(kind.text), "fingerprint": kind.fingerprint.hex()}
            more = {"execution": block, "error": present(error)}
            entry, _ = self._event(self.watch, EventType.PIPELINE_NEW_ERROR, more, after=after + len(entries))
            entries.append(entry)
        return entries

    async def _kinds_of(self, ends: Iterable[UnjudgedEnd]) -> Counter[bytes]:
        """Return the number of recorded failures of each kind of error, by fingerprint."""
        blocks = await self._blocks((), [execution for execution, end in ends if end.failed])
        return Counter(_error_in(each).fingerprint for each in blocks.values() if each.get("status") == Status.FAILED)

    def _overspending(self, spending: Spending, *, after: int) -> Sequence[OutboxEntry]:
        """Return the event for a share of the day's tokens that was not reported on that day yet, if there is one."""
        before = self._spending
        if spending.percent <= (before.percent if before.day_at == spending.day_at else 0):
            return ()
        spent: Json = {"percent": spending.percent, "tokensUsed": spending.tokens}
        spent |= {"tokensPerDay": self._rules.tokens_per_day, "day": f"{from_us(spending.day_at):%Y-%m-%d}"}
        return [self._event(self.watch, EventType.PIPELINE_OVERSPENDING, spent, after=after).entry]

    async def _latest(
        self, verdict: Verdict, problem: Problem | None, evaluations: Sequence[Evaluation]
    ) -> LatestFailure | None:
        """Return the newest failure of a verdict: from the open problem if it has that failure, else from its event."""
        known, execution = None if problem is None else problem.latest, verdict.state.failed
        if execution is None or (known is not None and known.execution == execution):
            return known
        block = await self._block(evaluations, execution) or {}
        node: Json = next(iter(block.get("failedNodes", ())), {})
        name = first_visible(node.get("name"), node.get("id"))
        error = first_visible(node.get("error"), block.get("error"))
        return LatestFailure(Micros(verdict.state.failed_at), execution, name or None, error or None)

    async def _block(self, evaluations: Sequence[Evaluation], execution: str) -> Json | None:
        """Return the `execution` block of the last event of an execution. See `_blocks`."""
        return (await self._blocks(evaluations, [execution])).get(execution)

    async def _blocks(self, evaluations: Sequence[Evaluation], executions: Collection[str]) -> Mapping[str, Json]:
        """Return the `execution` blocks of executions' last events: from these evaluations, else from the store.

        A success that counts as a failure has the reason as its error.
        """
        changes = {each.known.execution: each.change for each in evaluations}
        wanted = ((execution, changes.get(execution)) for execution in executions)
        bodies = {execution: change.entries[-1].event.body for execution, change in wanted if change and change.entries}
        if others := [execution for execution in executions if execution not in bodies]:
            source, known = pipeline_source(self.watch), await self._deps.store.load_executions(others)
            keys = {EventKey(stream_of(source, name), each.sequence): name for name, each in known.items()}
            bodies |= {keys[key]: body for key, body in (await self._deps.store.load_events(keys.keys())).items()}
        return {execution: self._with_fault(execution_block(body)) for execution, body in bodies.items()}

    def _with_fault(self, block: Json) -> Json:
        rule = self._rules.failing
        if rule is None or block.get("status") != Status.SUCCESS:
            return block
        fault = rule.fault_of(duration_s=block.get("durationSeconds"), nodes_count=block.get("nodesStarted"))
        return block if fault is None else {**block, "error": fault}


def _error_in(block: Json) -> ErrorKind:
    """Return the kind of the error in the `execution` block of a failure."""
    node: Json = next(iter(block.get("failedNodes", ())), {})
    return error_kind_of(node.get("name") or node.get("id"), node.get("error") or block.get("error") or "")


def _closes_when(rule: FailingRule) -> str:
    """Return the condition, in words for people, that closes a problem of this rule."""
    if rule.rate is not None:
        return f"less than {50 * rule.rate:g} % of the last {rule.of_last} executions failed"
    quiet_for = spell_duration(rule.quiet_for_us / 1_000_000)
    return (
        f"{rule.recover_after} in a row succeeded, at most a tenth of the last {quiet_for} failed,"
        f" and it has been open for {quiet_for}"
    )


class AccountRules:
    """The recorders of the pipelines that have rules, and the streams of pipelines' own events."""

    def __init__(self, deps: AccountDependencies) -> None:
        self._deps = deps
        self.recorders: dict[str, PipelineRecorder] = {}
        self._streams: dict[str, PipelineStream] = {}

    def stream(self, pipeline: str, *, sequence: int = 0) -> PipelineStream:
        """Return the stream of a pipeline's own events. The last event in the store has this `sequence`."""
        stream = self._streams.setdefault(pipeline, PipelineStream(sequence))
        stream.sequence = max(stream.sequence, sequence)
        return stream

    async def watch(self, watches: Sequence[Watch]) -> None:
        """Apply the rules of these watches and no others. Raises `StoreError`.

        After an error or a cancellation it must be called again.
        """
        gone = self.recorders.keys() - {watch.pipeline for watch in watches if watch.rules is not None}
        for pipeline in gone:
            await self.recorders[pipeline].forget()
            del self.recorders[pipeline]
        for watch in watches:
            if watch.rules is None:
                continue
            stream = self.stream(watch.pipeline)
            recorder = self.recorders.get(watch.pipeline) or PipelineRecorder(self._deps, watch, stream)
            is_same = (recorder.watch.rules, recorder.watch.whole) == (watch.rules, watch.whole)
            if recorder.begun_at is not None and is_same:
                recorder.watch = watch
            else:
                await recorder.begin(watch)
            self.recorders[watch.pipeline] = recorder
