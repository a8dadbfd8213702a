"""From a reply to what is recorded and when to look next: the rules of SPEC 4, bound to one account."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NamedTuple

from watcher.clerk.protocol import Reply
from watcher.domain.cloudevents import ExecutionNews, GapNews, Sighting
from watcher.domain.event_factory import EventFactory
from watcher.domain.models import EventType, Execution, GapReason, Known, LostReason, Outcome, Outgoing, Watch
from watcher.domain.transitions import (
    EXECUTION_REASONS,
    Happening,
    Look,
    Observed,
    give_up,
    grace_left_s,
    lose,
    means_lost,
    observe,
    prolong,
)
from watcher.polling.cadence import Cadence
from watcher.polling.circuit_breaker import PAUSING_CODES
from watcher.polling.poll_queue import Entry
from watcher.runtime.backoff import Jitter, doubling, spread
from watcher.runtime.clock import Clock
from watcher.store.protocol import ExecutionChange, Lease

LOST_LOOK_EVERY_S = 600.0
LOST_LOOKS_FOR_US = 24 * 3600 * 1_000_000
UNREADABLE_AFTER_S = 3600.0
_UNREADABLE_CODES = frozenset({None, 200})
"""Of an `invalid` answer: 402 and the like are the API's trouble, however long (SPEC 4, "anything else")."""
ERROR_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Policy:
    """What the configuration says of polling: bounds in seconds, `lost_after` in answers."""

    min_interval_s: float
    max_interval_s: float
    lost_after: int
    lost_grace_s: float


class AccountState(NamedTuple):
    """How the rest of the account is doing: whether nothing else is watched, the last success, whether it is usable.

    `success_at` is monotonic seconds.
    """

    alone: bool
    success_at: float | None
    usable: bool


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
        policy: Policy,
        cadence: Cadence,
        jitter: Jitter,
        link: str | None,
    ) -> None:
        """Bind the account's policy; `link` is its template for links to an execution."""
        self._lease = lease
        self._events = events
        self._clock = clock
        self._policy = policy
        self._cadence = cadence
        self._jitter = jitter
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
        entry.failure_count, entry.streak, entry.unreadable_since = 0, None, None
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
        if around.usable and reply.status_code not in PAUSING_CODES:
            entry.failure_count += 1
        if entry.known.lost is not None and entry.known.lost is not LostReason.UNREADABLE:
            return self._still_lost(entry)
        reason = self._lost_for(entry, reply, around)
        if reason is None or entry.known.lost is reason:
            next_s = min(self._error_interval_s(entry), self._grace_left_s(entry, sent_at=reply.sent_at))
            return Judged(entry.known, None, next_s)
        at = self._clock.steady_us()
        observed = lose(entry.known, reason, at=at, looked_at=entry.looked_at)
        next_s = self._error_interval_s(entry) if reason is LostReason.UNREADABLE else LOST_LOOK_EVERY_S
        return Judged(observed.known, self._change(entry, observed, facts=None, seen_at=at), next_s)

    def _still_lost(self, entry: Entry) -> Judged:
        """Look at a lost execution every 10 minutes, for a day (SPEC 4)."""
        at = self._clock.steady_us()
        if at - (entry.known.lost_at or 0) < LOST_LOOKS_FOR_US:
            return Judged(entry.known, None, LOST_LOOK_EVERY_S)
        known = give_up(entry.known, at=at)
        return Judged(known, ExecutionChange(self._lease, known.sequence, known, ()), None)

    def found(self, entry: Entry) -> ExecutionChange | None:
        """Return what records that an execution was found, of which nothing is told yet; nothing if it is recorded."""
        return None if entry.recorded else ExecutionChange(self._lease, None, entry.known, ())

    def _lost_for(self, entry: Entry, reply: Reply, around: AccountState) -> LostReason | None:
        now = self._clock.monotonic()
        if reason := EXECUTION_REASONS.get(reply.outcome):
            entry.streak = prolong(entry.streak, reason, at=now, other_success_at=around.success_at)
            lost = means_lost(
                entry.streak,
                lost_after=self._policy.lost_after,
                lost_grace_s=self._policy.lost_grace_s,
                alone=around.alone,
            )
            return reason if lost else None
        if reply.outcome is Outcome.INVALID and reply.status_code in _UNREADABLE_CODES:
            return self._unreadable(entry, around, now=now)
        return None

    def _unreadable(self, entry: Entry, around: AccountState, *, now: float) -> LostReason | None:
        """Lose what could not be read for an hour, while the process ran, in which something else could."""
        ran_s = self._clock.running()
        if entry.unreadable_since is None:
            entry.unreadable_since, entry.unreadable_ran_s = now, ran_s
        vouched = around.success_at is not None and around.success_at >= entry.unreadable_since
        return LostReason.UNREADABLE if vouched and ran_s - entry.unreadable_ran_s >= UNREADABLE_AFTER_S else None

    def _error_interval_s(self, entry: Entry) -> float:
        policy = self._policy
        delay_s = doubling(max(1, entry.failure_count), base_s=policy.min_interval_s, cap_s=policy.max_interval_s)
        return min(policy.max_interval_s, spread(delay_s, share=ERROR_JITTER, jitter=self._jitter))

    def _grace_left_s(self, entry: Entry, *, sent_at: float) -> float:
        policy = self._policy
        left_s = grace_left_s(
            entry.streak, lost_after=policy.lost_after, lost_grace_s=policy.lost_grace_s, sent_at=sent_at
        )
        return max(left_s, policy.min_interval_s)

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
        stayed_us = self._clock.steady_us() - known.since_at
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
                overdue_s=self._overdue_s(entry.watch.overdue_after_s, known, stayed_us=stayed_us) if overdue else None,
            )
        )

    def _overdue_s(self, overdue_after_s: Mapping[str, float], known: Known, *, stayed_us: int) -> float:
        return stayed_us / 1_000_000 - overdue_after_s[known.status or ""]

    def _sighting(self, entry: Entry, *, seen_at: int) -> Sighting:
        """Date what was seen by the wall clock, and the last look before it by the time that went by since."""
        at = self._clock.now()
        if entry.known.status is None:
            return Sighting(at, None)
        return Sighting(at, at - timedelta(microseconds=max(0, seen_at - entry.looked_at)))
