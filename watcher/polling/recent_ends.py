"""The recent past of one pipeline for its page: the last ends, and the times of the last start and end."""

from bisect import insort
from collections.abc import Iterable, Sequence
from operator import itemgetter

from watcher.domain.execution import END_LABELS, ExecutionRecord, ExecutionSnapshot, Status
from watcher.domain.history import EndedExecution
from watcher.domain.rule import Rule
from watcher.domain.snapshots import COUNTED, ENDS_COUNT, PipelineSnapshot
from watcher.domain.timestamps import NEVER, Micros
from watcher.runtime.metrics import STARTED, end_label


class RecentEnds:
    """The last 60 ends of one pipeline by end time, and in `last_at` the last start and the last end by status.

    They start with the snapshot of an earlier owner, and with the last ends in the store.
    """

    def __init__(self, before: PipelineSnapshot, ends: Sequence[tuple[Micros, str]]) -> None:
        labels = {each.letter: label for label, each in END_LABELS.items()} | {COUNTED: Status.SUCCESS}
        newest = labels.get(before.ends[-1:], "")
        known = {STARTED: before.last_started_at, newest: before.last_ended_at, Status.FAILED: before.last_failed_at}
        self.last_at = {label: at for label, at in known.items() if label and at is not None}
        self._ends: list[tuple[Micros, str]] = []  # with the letter of the status
        for at, status in ends:
            self._add_end(at, status, now=at, counts=at in before.counted)

    def note(
        self,
        known: ExecutionRecord,
        facts: ExecutionSnapshot | None,
        ended: EndedExecution | None,
        rules: Iterable[Rule],
        *,
        starts: bool,
        now: Micros,
    ) -> None:
        """Record that an execution starts, or ends, or both. A time in the future counts as now.

        One of `rules` may count a success as failed.
        """
        if starts:
            self._note_last(STARTED, now if facts is None or facts.began_at is None else min(now, facts.began_at))
        if known.end_seen_at is not None:
            counts = ended is not None and any(rule.fault_of(ended) for rule in rules)
            self._add_end(known.ended_at or now, known.status, now=now, counts=counts)

    def snapshot(self) -> PipelineSnapshot:
        """Return the snapshot of the last ends and starts."""
        return PipelineSnapshot(
            ends="".join(letter for _, letter in self._ends),
            counted=tuple(at for at, letter in self._ends if letter == COUNTED),
            ends_from=self._ends[0][0] if self._ends else None,
            last_ended_at=max((at for label, at in self.last_at.items() if label != STARTED), default=None),
            last_failed_at=self.last_at.get(Status.FAILED),
            last_started_at=self.last_at.get(STARTED),
        )

    def _add_end(self, at: Micros, status: str | None, *, now: Micros, counts: bool) -> None:
        """Insert an end by its time. Ends with equal times stay in the order of recording."""
        insort(self._ends, (at, COUNTED if counts else END_LABELS[end_label(status)].letter), key=itemgetter(0))
        del self._ends[:-ENDS_COUNT]
        self._note_last(end_label(status), min(now, at))

    def _note_last(self, label: str, at: Micros) -> None:
        self.last_at[label] = max(self.last_at.get(label, NEVER), at)
