"""Writes how far the pipelines of one account are read and, in the same transaction, what is told of gaps."""

import structlog

from watcher.listing import Listing
from watcher.looks import AccountParts, Looks
from watcher.models import Cursor, GapReason, Outgoing
from watcher.ports.store import PipelineChange

log = structlog.get_logger()


class Cursors:
    """The cursors of one account's pipelines in its store."""

    def __init__(self, parts: AccountParts, *, looks: Looks) -> None:
        """Write for this account."""
        self._lease = parts.lease
        self._judge = parts.judge
        self._clock = parts.clock
        self._metrics = parts.metrics
        self._looks = looks

    def gap(self, listing: Listing, reason: GapReason, *, at_most: int | None = None) -> tuple[Outgoing, ...]:
        """Log a gap, in which so many executions may be missing, and return what is to be told of it."""
        log.warning("pipeline.gap", account=self._lease.name, pipeline=listing.watch.pipeline, reason=reason)
        return (self._judge.gap(listing.watch, reason, at_most=at_most, sequence=listing.sequence + 1),)

    async def record(self, listing: Listing, cursor: Cursor, outgoing: tuple[Outgoing, ...] = ()) -> None:
        """Write a cursor and what is told with it, if the list is still watched. Raises `StoreError`."""
        if listing.unwatched:  # by now another may stand in its place, and counts from what is recorded
            return
        sequence = listing.sequence + len(outgoing)
        change = PipelineChange(self._lease, listing.watch.pipeline, listing.sequence, sequence, cursor, outgoing)
        await self._looks.write(change)
        listing.cursor, listing.sequence, listing.recorded_at = cursor, sequence, self._clock.steady_us()
        for each in outgoing:
            self._metrics.events.labels(each.event.type).inc()
