"""Writes how far the pipelines of one account are read and, in the same transaction, what is told of gaps."""

import structlog

from watcher.domain.models import Cursor, GapReason, Outgoing
from watcher.polling.pipeline_list import Listing
from watcher.polling.session import AccountParts, AccountSession
from watcher.store.protocol import PipelineChange

log = structlog.get_logger()


class Cursors:
    """The cursors of one account's pipelines in its store."""

    def __init__(self, parts: AccountParts, *, session: AccountSession) -> None:
        """Write for this account."""
        self._lease = parts.lease
        self._judge = parts.judge
        self._clock = parts.clock
        self._metrics = parts.metrics
        self._session = session
        self._store = parts.store

    async def record(
        self, listing: Listing, cursor: Cursor, *, gap: GapReason | None = None, at_most: int | None = None
    ) -> None:
        """Write a cursor, and with it tell a gap in which so many executions may be missing. Raises `StoreError`.

        Nothing is noted before that is written, and nothing is written of a list that is no longer watched.
        """
        if listing.unwatched:  # by now another may stand in its place, and counts from what is recorded
            return
        outgoing = () if gap is None else (self._gap(listing, gap, at_most=at_most),)
        sequence = listing.sequence + len(outgoing)
        change = PipelineChange(self._lease, listing.watch.pipeline, listing.sequence, sequence, cursor, outgoing)
        await self._session.write(self._store.record(change))
        listing.cursor, listing.sequence, listing.recorded_at = cursor, sequence, self._clock.steady_us()
        for each in outgoing:
            log.warning("pipeline.gap", account=self._lease.name, pipeline=listing.watch.pipeline, reason=gap)
            self._metrics.events.labels(each.event.type).inc()

    def _gap(self, listing: Listing, reason: GapReason, *, at_most: int | None) -> Outgoing:
        return self._judge.gap(listing.watch, reason, at_most=at_most, sequence=listing.sequence + 1)
