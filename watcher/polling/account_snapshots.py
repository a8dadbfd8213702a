"""The snapshots of one account and its pipelines, counted from memory, for metrics, pages and the API.

No other process can count them without reading every open execution from the store.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from watcher.domain.snapshots import AccountSnapshot, PipelineSnapshot
from watcher.domain.timestamps import EARLIEST, NEVER, Micros, Monotonic
from watcher.domain.watch import Watch
from watcher.polling.recent_ends import RecentEnds
from watcher.polling.session import AccountSession, SessionPart
from watcher.runtime.metrics import PipelineMetrics, open_label

SLICE_COUNT = 10_000
"""The most executions that are counted in one turn of the event loop. Counting them takes some milliseconds."""

SAMPLE_COUNT = 1_000
"""The most executions from which the wanted requests per second are extrapolated."""

USED_OVER_S = 60.0
UNKNOWN_AFTER_S = 10.0
"""The running time since the first failure after which the state of an account's executions counts as unknown."""
ALIVE_EVERY_S = 30.0
"""Interval at which an unchanged snapshot is written again, to show that the account has an owner."""


class AccountSnapshots(SessionPart):
    """Counts and writes the snapshots of one account."""

    def __init__(self, session: AccountSession) -> None:
        super().__init__(session)
        self._recent_ends = session.recent_ends
        self._names: dict[str, str | None] = {}
        self._written: AccountSnapshot | None = None
        self._written_at = EARLIEST
        self._request_counts = deque([(self._deps.clock.monotonic(), 0)])  # the number of requests sent by each time

    async def watch(self, watches: Sequence[Watch]) -> None:
        """Count for pipelines of these watches and no others. New counts come from the store. Raises `StoreError`."""
        pipelines, recent, recorded = self._deps.metrics.pipelines, self._recent_ends, self._deps.record.snapshot
        self._names = {watch.pipeline: watch.name for watch in watches}
        for gone in pipelines.keys() - self._names.keys():
            del pipelines[gone]
            recent.pop(gone, None)
        for pipeline, ends in (await self._deps.store.load_ends(self._names.keys() - recent.keys())).items():
            before = (recorded and recorded.pipelines.get(pipeline)) or PipelineSnapshot()
            recent[pipeline] = RecentEnds(before, ends)
            pipelines.setdefault(pipeline, PipelineMetrics()).last_at = recent[pipeline].last_at
            self._deps.evaluator.learn_name(pipeline, before.name)
        for pipeline in self._names:
            pipelines[pipeline].name = self._name_of(pipeline)

    async def write(self, *, request_count: int) -> None:
        """Count the open executions, and write the snapshot if it has changed or was last written 30 s ago.

        It is also written after trouble with the store: pages distrust what was written before. `request_count`
        requests were sent since the start. Raises `StoreError`.
        """
        deps, now = self._deps, self._deps.clock.monotonic()
        wanted_per_s, longest_gap_s = await self._count_open(now)
        while len(self._request_counts) > 1 and self._request_counts[1][0] <= now - USED_OVER_S:
            self._request_counts.popleft()
        from_at, from_count = self._request_counts[0]
        self._request_counts.append((now, request_count))
        snapshot = AccountSnapshot(
            wanted_per_s=round(wanted_per_s, 2),
            used_per_s=round((request_count - from_count) / max(1.0, now - from_at), 2),
            longest_gap_s=round(longest_gap_s, 1),
            pipelines={pipeline: self._snapshot_of(pipeline) for pipeline in self._recent_ends},
            known_at=self._known_at(now),
            ahead_us=deps.api.ahead_us if self._session.ahead_before_us is None else self._session.ahead_before_us,
        )
        latest_at = max(now - ALIVE_EVERY_S, deps.store.monitor.last_failing_since)
        if snapshot != self._written or self._written_at <= latest_at:
            await deps.store.save_snapshot(snapshot)
            self._written, self._written_at = snapshot, now

    def _snapshot_of(self, pipeline: str) -> PipelineSnapshot:
        counted, listing = self._deps.metrics.pipelines[pipeline], self._registry.lists.get(pipeline)
        return replace(
            self._recent_ends[pipeline].snapshot(),
            open=counted.open,
            oldest=counted.oldest,
            name=self._deps.evaluator.pipeline_names.get(pipeline),
            is_read=listing is None or listing.is_read,
        )

    def _known_at(self, now: Monotonic) -> Micros | None:
        """Return when a request last succeeded before the current outage (microseconds UTC, steady); 0 for never.

        All snapshots of an outage keep the time that the first one wrote, also those of a later owner. The time is
        `None` while requests succeed, or if nothing is watched.
        """
        breaker, record, before = self._deps.breaker, self._deps.record, self._written or self._deps.record.snapshot
        fails = (breaker.failing_for_s() or 0.0) >= UNKNOWN_AFTER_S
        is_idle = not self._registry.entries and not self._registry.lists
        if is_idle or not (breaker.unusable_for or fails or breaker.success_at == EARLIEST):
            return None
        if before is not None and before.known_at is not None:
            return before.known_at
        if breaker.success_at == EARLIEST:
            return record.snapshot_at or NEVER
        return Micros(self._deps.clock.steady_us() - round((now - breaker.success_at) * 1e6))

    async def _count_open(self, now: Monotonic) -> tuple[float, float]:
        """Count the open executions. Return the wanted requests per second and the longest wait in seconds."""
        deps, lists, entries = self._deps, self._registry.lists, list(self._registry.entries.values())
        steady_us, cadence = deps.clock.steady_us(), deps.evaluator.cadence
        # For each pipeline, by label: the count, and the earliest `since_at`.
        found = defaultdict[str, dict[str, list[int]]](dict)
        # A list that is queued first, for an operator, has no time of a last request.
        first_at = min([now, *(each.asked_at for each in lists.values() if each.asked_at != EARLIEST)])
        for start in range(0, len(entries), SLICE_COUNT):
            if start:
                await asyncio.sleep(0)
            for entry in entries[start : start + SLICE_COUNT]:
                known = entry.known
                pipeline, since_at = known.pipeline, known.since_at
                counted = found[pipeline].setdefault(open_label(known), [0, steady_us])
                counted[0] += 1
                counted[1] = min(counted[1], since_at)
                if known.lost is None and entry.asked_at < first_at:
                    first_at = entry.asked_at
        for pipeline, each in deps.metrics.pipelines.items():
            each.name = self._name_of(pipeline)
            each.open = {label: count for label, (count, _) in found[pipeline].items()}
            each.oldest = {label: Micros(at) for label, (_, at) in found[pipeline].items() if at != NEVER}
        named = [entry.known.since_at for entry in entries if entry.known.pipeline not in lists]
        sample = named[:: len(named) // SAMPLE_COUNT + 1]
        named_per_s = len(named) * fmean(1 / cadence((steady_us - at) / 1e6) for at in sample) if sample else 0.0
        return named_per_s + len(lists) / deps.rules.min_interval_s, now - first_at

    def _name_of(self, pipeline: str) -> str:
        """Return the name of a pipeline from the file, else from the API, else its id."""
        return self._names.get(pipeline) or self._deps.evaluator.pipeline_names.get(pipeline) or pipeline
