"""Records the starts and ends of one pipeline together with what its rules conclude from them: docs/alerts.md.

What a rule concludes the domain says. Here is when it is asked: at once or, after a start, a gap or trouble with the
list, once a scan is complete; and that no end is judged twice, or never, whenever the process ends.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import structlog

from watcher.domain.cloudevents import execution_block
from watcher.domain.envelope import Json, pipeline_source, stream_of
from watcher.domain.errors import StoreError
from watcher.domain.event import EventKey, EventType
from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.problems import PROBLEM_KINDS
from watcher.domain.rules import End, Rules, RuleState, UnjudgedEnd
from watcher.domain.timestamps import NEVER, Micros, to_us
from watcher.domain.watch import Watch
from watcher.polling.confirmations import ConfirmationOrder
from watcher.polling.evaluator import Evaluated
from watcher.polling.pipeline_list import PipelineStream
from watcher.polling.poll_queue import TrackedExecution
from watcher.polling.rules_draft import JudgedEnd, RulesDraft, RulesState
from watcher.polling.session import AccountDependencies
from watcher.store.changes import ChangeSet, ExecutionChange, RulesChange, together

log = structlog.get_logger()


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
            await self._deps.store.record(together(self._deps.lease, [each.change for each in handed]))
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
