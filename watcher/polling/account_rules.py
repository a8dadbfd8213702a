"""The rules of one account's pipelines: who judges which change, and where there is nobody, nothing is in the way."""

from collections.abc import Iterable, Sequence
from operator import attrgetter

from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Watch
from watcher.polling.evaluator import Evaluated
from watcher.polling.pipeline_list import PipelineStream
from watcher.polling.poll_queue import TrackedExecution
from watcher.polling.rule_recorder import PipelineRecorder
from watcher.polling.session import AccountDependencies
from watcher.store.changes import together


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

    async def record(self, several: Sequence[Evaluated]) -> None:
        """Write the changes of one pipeline, with what its rules make of them, together. Raises `StoreError`."""
        recorder = self.recorders.get(several[0].entry.known.pipeline)
        if recorder is not None:
            await recorder.record(several)
        else:
            changes = map(attrgetter("evaluation.change"), several)
            await self._deps.store.record(together(self._deps.lease, changes))

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
