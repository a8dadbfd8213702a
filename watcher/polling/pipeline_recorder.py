"""Records starts and ends of executions together with the events of their rules.

The rules stand in `watcher/rules`. The recorder decides when ends are judged: at once or, after a start of the daemon,
a gap or trouble with the list, once a scan is complete. Each end is judged exactly once, even if the process is killed.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import structlog

from watcher.domain.event import EventType, OutboxEntry
from watcher.domain.execution import ExecutionSnapshot, Status
from watcher.domain.history import EndedExecution
from watcher.domain.problems import PROBLEM_KINDS, Problem
from watcher.domain.rule import News, Rule
from watcher.domain.timestamps import NEVER, Micros, Monotonic
from watcher.domain.watch import Watch
from watcher.polling.dependencies import AccountDependencies
from watcher.polling.poll_item import Evaluation, TrackedExecution
from watcher.polling.verdict import RecordedPast, judge, verdict_of
from watcher.rules import dump_states, load_states
from watcher.store.changes import ChangeSet, SingleChange, SourceChange

log = structlog.get_logger()

IN_API_TIME = "in_api_time"
"""The key that the stored states have besides those of rules if their times are on the API's clock (version 1.0.0)."""


@dataclass(slots=True)
class PipelineStream:
    """The pipeline's own events: the sequence of the last one, and the lock for writing the next."""

    sequence: int
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class _Batch:
    """Evaluations that are written in one transaction, and the error if that failed."""

    evaluations: list[Evaluation] = field(default_factory=list)
    error: BaseException | None = None


@dataclass(slots=True)
class _Hold:
    """A period in which no end is judged, because older ends may still appear: after a start, a gap or trouble.

    A complete scan that began after `since` (monotonic seconds) sets `unconfirmed`: the executions whose ends GETs had
    still to confirm. The hold ends once all these ends are recorded.
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
        self._stream = stream
        self._clock = deps.clock
        self._states: dict[str, Any] = {}  # by the key of the rule
        self._stored: dict[str, Any] = {}  # the states that the store has
        self._problems: Mapping[EventType, Problem] = {}
        self._held: Sequence[EndedExecution] = ()  # recorded, and not yet judged
        self._following: Sequence[Rule] = ()  # the rules that follow open executions
        self._waiting = _Batch()  # for the next write
        self._hold: _Hold | None = None
        self._shown_at = NEVER  # the last start that the list showed
        self.begun_at: Monotonic | None = None
        """The time since which the rules of `watch` are applied; `None` before `begin`, or after it failed."""
        self.hold()

    async def begin(self, watch: Watch) -> None:
        """Apply the rules of a watch, from the recorded state on. After a `StoreError` it must be called again."""
        self.begun_at = None
        async with self._stream.writing:
            record, now = await self._deps.store.load_rules(watch.pipeline), self._clock.steady_us()
            self._stream.sequence = max(self._stream.sequence, record.sequence)
            stored, past, states = load_states(record.states, watch.rules), RecordedPast(self._deps.store, watch), {}
            for rule in watch.rules:
                state = stored.get(rule.key) or (rule.state_type and rule.state_type())
                states[rule.key] = await rule.begin(state, past, now=now)
            is_new_list, self.watch = watch.whole and not self.watch.whole, watch
            self._problems, self._held, self._stored, self._states = record.problems, record.unjudged, stored, states
            self._following = [rule for rule in watch.rules if rule.follows_open]
            if IN_API_TIME not in self._stored:  # the wall clock may have been set back since they were stored
                self._states, self._held = self._moved(0)
            begun_at = self._clock.monotonic()
            if is_new_list:
                self.hold()
            elif not watch.whole:  # there is no scan to wait for
                self._hold = None
            await self._write()
        self.begun_at = begun_at

    async def forget(self) -> None:
        """Delete the recorded state of the rules, so that later rules start without any. Raises `StoreError`."""
        async with self._stream.writing:
            lease, at = self._deps.lease, self._stream.sequence
            of_rules = SourceChange(lease, at, at, pipeline=self.watch.pipeline, rules="{}", replaces_unjudged=True)
            await self._deps.store.record(of_rules)

    def hold(self) -> None:
        """Judge no end until a scan that begins from now on is complete: older ends may not have been seen yet."""
        if self.watch.whole:
            self._hold = _Hold(self._clock.monotonic())

    def note_starts(self, rows: Iterable[ExecutionSnapshot]) -> None:
        """Note the last start in a list."""
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
        """Write changes with the events of the rules. After a `StoreError` nothing is written.

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
        """Apply the rules to the account's open executions, after a start or a reload. Raises `StoreError`."""
        if self.begun_at is not None and self._following:
            of_pipeline = [each for each in entries if each.known.pipeline == self.watch.pipeline]
            await self._follow(News(self._clock.steady_us(), watched=of_pipeline))

    async def note_shown(self, entries: Iterable[TrackedExecution]) -> None:
        """Apply the rules after an answer that shows these executions. Raises `StoreError`."""
        if self._following:
            await self._follow(News(self._clock.steady_us(), shown=list(entries)))

    async def _follow(self, news: News) -> None:
        """Let the rules judge open executions, and write their events."""
        if self._take_in(news) or self._stream.writing.locked():
            async with self._stream.writing:
                if self._take_in(News(news.now)):
                    await self._write()

    def _take_in(self, news: News) -> bool:
        """Let the rules that follow open executions take in news. Return whether one of them has an event."""
        judged = {rule.key: judge(rule, self._states[rule.key], news, self._problems) for rule in self._following}
        self._states |= {key: each.state for key, each in judged.items()}
        return any(each.events for each in judged.values())

    async def move(self, by_us: int) -> None:
        """Move the recorded times of the rules by `by_us`. Raises `StoreError`."""
        async with self._stream.writing:
            await self._write(moved_us=by_us)

    def _moved(self, by_us: int) -> tuple[dict[str, Any], Sequence[EndedExecution]]:
        """Return the states and the ends on hold with their times moved by `by_us`, but not beyond now."""
        now, rules = self._clock.steady_us(), self.watch.rules
        held = [each._replace(ended_at=Micros(min(now, each.ended_at + by_us))) for each in self._held]
        return {rule.key: rule.moved(self._states[rule.key], by_us, now=now) for rule in rules}, held

    async def _write(
        self, evaluations: Sequence[Evaluation] = (), *, silent_until: Micros | None = None, moved_us: int = 0
    ) -> None:
        """Write changes with the events of the rules, in one transaction. Raises `StoreError`.

        The recorded times move by `moved_us`.
        """
        deps, before = self._deps, self._stream.sequence
        changes: list[SingleChange] = [each.change for each in evaluations if each.change is not None]
        if IN_API_TIME in self._stored:
            if deps.api.ahead_us is None:  # no start or end concerns the rules before the first answer
                if changes:
                    await deps.store.record(ChangeSet(deps.lease, tuple(changes)))
                return
            moved_us = -deps.api.ahead_us
        states, before_held = self._moved(moved_us) if moved_us else (self._states, self._held)
        hold, is_released, until = self._judged_until(evaluations)
        new = [end for each in evaluations if (end := _judgeable(each)) is not None]
        is_judging = any(rule.judges_ends for rule in self.watch.rules)
        ends = sorted([*before_held, *new], key=lambda each: each.ended_at) if is_judging else []
        judged = [each for each in ends if each.ended_at <= until]
        held = ends[len(judged) :]
        news = News(
            self._clock.steady_us(),
            ends=judged,
            only_last_decides=is_released,
            held=before_held,
            recorded=[each.change.ended for each in evaluations if each.change and each.change.ended],
            started_at=max(map(self._start_of, evaluations), default=NEVER),
            shown_start_at=NEVER if silent_until is None else min(self._shown_at, silent_until),
            scanned_until=silent_until,
            changed={each.entry: each.known for each in evaluations},
        )
        past, event = RecordedPast(deps.store, self.watch), deps.evaluator.pipeline_event
        verdict = await verdict_of(news, states, self._problems, evaluations, past=past, event=event, after=before)
        sequence = before + len(verdict.entries)
        only_adds_ends = not moved_us and len(held) == len(self._held) + len(new)
        unjudged, replaces = tuple(new if only_adds_ends else held), not only_adds_ends and bool(self._held)
        if verdict.stored != self._stored or verdict.entries or verdict.problem_changes or unjudged or replaces:
            written = (tuple(verdict.entries), tuple(verdict.problem_changes))
            of_rules = SourceChange(deps.lease, before, sequence, None, *written, pipeline=self.watch.pipeline)
            of_rules = replace(of_rules, unjudged=unjudged, replaces_unjudged=replaces)
            changes.append(replace(of_rules, rules=dump_states(verdict.stored)))
        if changes:
            await deps.store.record(ChangeSet(deps.lease, tuple(changes)))
        self._problems, self._held, self._stored = verdict.problems, held, verdict.stored
        # An answer may have shown another slow execution meanwhile: its rule begins again from its state of now.
        after = {rule.key: judge(rule, self._states[rule.key], news, self._problems) for rule in self._following}
        self._states = verdict.states | {key: judged.state for key, judged in after.items()}
        self._stream.sequence = sequence
        if is_released and self._hold is hold:  # another hold may have begun meanwhile
            self._hold = None
        self._log(verdict.entries)

    def _log(self, entries: Iterable[OutboxEntry]) -> None:
        """Log and count the recorded events of the rules."""
        for type_ in [entry.event.type for entry in entries]:
            log_it = log.warning if type_ in PROBLEM_KINDS else log.info
            log_it(type_.value, account=self._deps.lease.name, pipeline=self.watch.pipeline)
            self._deps.metrics.events.labels(type_).inc()

    def _judged_until(self, evaluations: Sequence[Evaluation]) -> tuple[_Hold | None, bool, float]:
        """Return the current hold, whether these evaluations end it, and the time up to which ends are to be judged."""
        hold = self._hold
        unconfirmed = self._unconfirmed() - {each.entry for each in evaluations if each.known.end_seen_at}
        if hold is not None:
            is_released = hold.unconfirmed is not None and unconfirmed.isdisjoint(hold.unconfirmed)
            return hold, is_released, inf if is_released else -inf
        pending = [each.unconfirmed_end.execution for each in unconfirmed if each.unconfirmed_end]
        return None, False, min([row.dated_at or NEVER for row in pending], default=inf)

    def _unconfirmed(self) -> frozenset[TrackedExecution]:
        """Return the executions whose end a GET is still to confirm."""
        pending = [entry for entry in self.unconfirmed if entry.unconfirmed_end and not entry.known.end_seen_at]
        self.unconfirmed = {entry for entry in pending if not entry.is_unwatched}
        return frozenset(self.unconfirmed)

    def _start_of(self, evaluation: Evaluation) -> Micros:
        """Return when an execution started, or when it ended if only that is dated; `NEVER` if its start is not new.

        A start is new if the execution is seen for the first time, or was only `new` before. A known start is not dated
        again, because the API's clock may have been set since.
        """
        change, row = evaluation.change, evaluation.execution
        is_news = change is not None and (change.before is None or evaluation.entry.known.status == Status.NEW)
        now = self._clock.steady_us()
        return min(now, row.began_at or row.ended_at or now) if is_news and row is not None else NEVER


def _judgeable(evaluation: Evaluation) -> EndedExecution | None:
    """Return the end that an evaluation records and reports; `None` unless the execution succeeded or failed."""
    change = evaluation.change
    type_ = change.entries[-1].event.type if change and change.entries else None
    return change.ended if change and type_ in {EventType.EXECUTION_SUCCESS, EventType.EXECUTION_FAILED} else None


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
        gone = self.recorders.keys() - {watch.pipeline for watch in watches if watch.rules}
        for pipeline in gone:
            await self.recorders[pipeline].forget()
            del self.recorders[pipeline]
        for watch in watches:
            if not watch.rules:
                continue
            stream = self.stream(watch.pipeline)
            recorder = self.recorders.get(watch.pipeline) or PipelineRecorder(self._deps, watch, stream)
            is_same = (recorder.watch.rules, recorder.watch.whole) == (watch.rules, watch.whole)
            if recorder.begun_at is not None and is_same:
                recorder.watch = watch
            else:
                await recorder.begin(watch)
            self.recorders[watch.pipeline] = recorder
