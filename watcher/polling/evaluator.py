"""From a reply to what is recorded and when to look next: the rules of SPEC 4, bound to one account."""

from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

from watcher.clerk.protocol import Reply
from watcher.domain.cloudevents import ExecutionNews, GapNews, Sighting
from watcher.domain.event_factory import EventFactory
from watcher.domain.models import EventType, Execution, GapReason, Known, LostReason, Outgoing, Watch
from watcher.domain.transitions import (
    Happening,
    Look,
    Observed,
    give_up,
    lose,
    observe,
)
from watcher.polling.cadence import Cadence
from watcher.polling.policy import LOST_EVERY_S, AccountState, FailurePolicy
from watcher.polling.poll_queue import Entry
from watcher.runtime.clock import Clock
from watcher.store.protocol import ExecutionChange, Lease

LOST_LOOKS_FOR_US = 24 * 3600 * 1_000_000


class Judged(NamedTuple):
    """What a reply led to. `change` is to be recorded, if there is one; `known` holds from then on.

    `next_s` is the time from the request to the next look; `None` ends the watching. `looked_at` is set by a look
    that counts. `contradicts` marks an ended execution of which another status was answered.
    """

    known: Known
    change: ExecutionChange | None
    next_s: float | None
    looked_at: int | None = None
    contradicts: bool = False


class Judge:
    """The judge of one account's replies."""

    def __init__(
        self,
        *,
        lease: Lease,
        events: EventFactory,
        clock: Clock,
        failures: FailurePolicy,
        cadence: Cadence,
        link: str | None,
    ) -> None:
        """Bind the account's rules; `link` is its template for links to an execution."""
        self._lease = lease
        self._events = events
        self._clock = clock
        self._failures = failures
        self._cadence = cadence
        self._link = link
        self._pipeline_names: dict[str, str] = {}

    def learn_name(self, pipeline: str, name: str | None) -> None:
        """Note what the API calls a pipeline."""
        if name:
            self._pipeline_names[pipeline] = name

    def pipeline_name(self, pipeline: str) -> str | None:
        """Return what the API calls a pipeline, as far as it has said."""
        return self._pipeline_names.get(pipeline)

    def gap(self, watch: Watch, reason: GapReason, *, at_most: int | None, after: int) -> Outgoing:
        """Return what is told of a scan that could not prove that it saw everything."""
        news = GapNews(watch, reason, at_most, self.pipeline_name(watch.pipeline), self._link)
        return self._events.gap(news, after=after, at=self._clock.now())

    def success(self, entry: Entry, execution: Execution, *, sent_at: float) -> Judged:
        """Judge an answer that told the execution's state, which ends what trouble `entry` counted.

        `sent_at` is when it was asked for (monotonic seconds).
        """
        watch, before = entry.watch, entry.known
        self._failures.note_success(entry)
        self.learn_name(watch.pipeline, execution.pipeline_name)
        seen_at = self._clock.steady_us()
        elapsed_us = round((self._clock.monotonic() - sent_at) * 1_000_000)
        look = Look(execution, seen_at - elapsed_us, seen_at)
        observed = observe(before, look, looked_at=entry.looked_at, overdue_after_s=watch.overdue_after_s)
        known = observed.known
        change = None if known is before else self._change(entry, observed, facts=execution, seen_at=seen_at)
        next_s = None if known.ended_at else self._cadence((seen_at - known.since_at) / 1_000_000)
        return Judged(known, change, next_s, None if observed.dropped else seen_at, observed.contradicts)

    def failure(self, entry: Entry, reply: Reply, around: AccountState) -> Judged:
        """Judge any other reply, which `entry` counts as trouble."""
        lost = entry.known.lost
        reason = self._failures.note_failure(entry, reply, around)
        if lost is not None and lost is not LostReason.UNREADABLE:
            return self._still_lost(entry)
        next_s = self._failures.wait_s(entry, reason, sent_at=reply.sent_at)
        if reason is None or reason is lost:
            return Judged(entry.known, None, next_s)
        at = self._clock.steady_us()
        observed = lose(entry.known, reason, at=at, looked_at=entry.looked_at)
        return Judged(observed.known, self._change(entry, observed, facts=None, seen_at=at), next_s)

    def _still_lost(self, entry: Entry) -> Judged:
        """Look at a lost execution every 10 minutes, for a day (SPEC 4)."""
        at = self._clock.steady_us()
        if at - (entry.known.lost_at or 0) < LOST_LOOKS_FOR_US:
            return Judged(entry.known, None, LOST_EVERY_S)
        known = give_up(entry.known, at=at)
        return Judged(known, ExecutionChange(self._lease, known.sequence, known, ()), None)

    def _change(self, entry: Entry, observed: Observed, *, facts: Execution | None, seen_at: int) -> ExecutionChange:
        before = entry.known
        sighting = self._sighting(entry, seen_at=seen_at)
        outgoing = tuple(
            self._outgoing(entry, happening, observed.known, facts=facts, sighting=sighting)
            for happening in observed.happenings
        )
        if outgoing and before.overdue_sequence is not None:
            outgoing = (replace(outgoing[0], with_sinks_of=before.overdue_sequence), *outgoing[1:])
        return ExecutionChange(self._lease, before.sequence if entry.recorded else None, observed.known, outgoing)

    def _outgoing(
        self, entry: Entry, happening: Happening, known: Known, *, facts: Execution | None, sighting: Sighting
    ) -> Outgoing:
        overdue = happening.type is EventType.EXECUTION_OVERDUE
        stayed_s = (self._clock.steady_us() - known.since_at) / 1_000_000
        return self._events.execution(
            ExecutionNews(
                watch=entry.watch,
                happening=happening,
                known=known,
                sighting=sighting,
                pipeline_name=self._pipeline_names.get(entry.watch.pipeline),
                facts=facts,
                link=self._link,
                reason=known.lost,
                overdue_s=stayed_s - entry.watch.overdue_after_s[known.status or ""] if overdue else None,
            )
        )

    def _sighting(self, entry: Entry, *, seen_at: int) -> Sighting:
        """Date what was seen by the wall clock, and the last look before it by the time that went by since."""
        at = self._clock.now()
        if entry.known.status is None:
            return Sighting(at, None)
        return Sighting(at, at - timedelta(microseconds=max(0, seen_at - entry.looked_at)))
