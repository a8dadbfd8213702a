"""The circuit breaker of an account: whether its API is usable, how long it pauses, and whether its budget suffices.

It also says what failures mean for one item, an execution or a list: whether it is lost, and how long it waits. Each
item counts its own failures.

No I/O, no events. Failures and delays are measured in running time, because a stopped process (SIGSTOP, `docker pause`)
sends no requests. A pause is measured in monotonic time, because a pause also passes while the process is stopped.
"""

from watcher.clerk.api import Reply
from watcher.domain.event import AccountTrouble
from watcher.domain.execution import LostReason, Outcome
from watcher.domain.timestamps import EARLIEST, LATEST, Monotonic
from watcher.domain.transitions import EXECUTION_REASONS
from watcher.polling.poll_item import LOST_EVERY_S, Failures, PollItem, PollRules
from watcher.runtime.clock import Clock
from watcher.runtime.pacing import Jitter, doubling, spread
from watcher.store.changes import AccountRecord, BackoffState

PAUSE_CAP_S = 15 * 60.0
PAUSE_BASE_S = 1.0
PAUSE_DOUBLING_CAP_S = 60.0
PROBE_EVERY_S = 10.0
UNAUTHORIZED_PROBE_EVERY_S = 60.0
OVER_BUDGET_AFTER_S = 300.0

UNREADABLE_AFTER_S = 3600.0

ERROR_JITTER = 0.1

ROUNDING_S = 0.01
"""The time added to a wait, because a sum of times may come out a little too small."""

HTTP_OK = 200
PAUSING_CODES = frozenset({429, 503})

GAP_TOLERANCE = 1.1
TIMER_TOLERANCE_S = 0.1
"""A poll is late if it comes more than 10 % and 0.1 s after `max_interval`: jitter and a busy event loop are no sign of
a small budget."""

_TROUBLES = {
    Outcome.UNAUTHORIZED: AccountTrouble.UNAUTHORIZED,
    Outcome.FORBIDDEN: AccountTrouble.UNAUTHORIZED,
    Outcome.RATE_LIMITED: AccountTrouble.RATE_LIMITED,
    Outcome.INVALID: AccountTrouble.INVALID,
    Outcome.NOT_FOUND: AccountTrouble.INVALID,
    Outcome.REJECTED: AccountTrouble.INVALID,
}
"""The trouble that an outcome means. Any other failure means that the API is unreachable."""

_ABOUT_THE_EXECUTION = frozenset({Outcome.NOT_FOUND, Outcome.REJECTED})
_EXPECTED_OF_LOST = _ABOUT_THE_EXECUTION | {Outcome.FORBIDDEN}


class Pause:
    """The pause after a 429 or 503. No request is sent before `until` (monotonic seconds).

    It lasts as long as `Retry-After` says, at least 1 s and at most 15 minutes. Without `Retry-After` the first pause
    lasts 1 s, and each further one in a row twice as long, up to 60 s. `nth` counts the pauses in a row.
    """

    def __init__(self, until: Monotonic) -> None:
        self.until = until
        self.nth = 0

    def begin(self, reply: Reply, *, now: Monotonic) -> None:
        """Begin a pause after this reply. If a pause in progress ends later, its end stays."""
        if reply.sent_at >= self.until:  # requests that were in flight when the pause began do not double it
            self.nth += 1
        wanted_s = doubling(self.nth, base_s=PAUSE_BASE_S, cap_s=PAUSE_DOUBLING_CAP_S)
        if reply.retry_after_s is not None:
            wanted_s = min(PAUSE_CAP_S, max(PAUSE_BASE_S, reply.retry_after_s))
        self.until = max(self.until, Monotonic(now + wanted_s))


class Budget:
    """Whether the rate limit of an account suffices: `is_over` is set once requests have been late for 5 minutes.

    A request is late if its item has waited longer than `max_interval`. `is_over` is reset once no request has been
    late for one `max_interval`. After a start of the daemon this time begins with the first request.
    """

    def __init__(self, max_interval_s: float, *, clock: Clock, is_over: bool) -> None:
        self._max_interval_s, self._clock = max_interval_s, clock
        self._allowed_gap_s = max_interval_s * GAP_TOLERANCE + TIMER_TOLERANCE_S
        self.restart(EARLIEST, is_over=is_over)

    def restart(self, now: Monotonic, *, is_over: bool = False) -> None:
        """Measure waits from `now` on, because no request could be sent before."""
        self.is_over, self._counts_from = is_over, now
        self._late_since: float | None = None  # running time, like the next one
        self._late_at = 0.0

    def note(self, item: PollItem, *, last_at: Monotonic, now: Monotonic) -> None:
        """Note that a request for an item was sent at `now`, and the one before it at `last_at`.

        The time of a slow answer does not count, because it delays when the next poll is due. Time in which no request
        could be sent does not count, either.
        """
        waits_from = max(last_at, item.due_at - self._max_interval_s, self._counts_from)
        is_late = now - waits_from > self._allowed_gap_s and now - self._clock.resumed_at() > self._allowed_gap_s
        if is_late or (self.is_over and self._late_since is None):
            self._late_at = self._clock.running()
            self._late_since = self._late_at if self._late_since is None else self._late_since
            self.is_over |= self._late_at - self._late_since >= OVER_BUDGET_AFTER_S
        elif self._late_since is not None and self._clock.running() - self._late_at > self._allowed_gap_s:
            self._late_since, self.is_over = None, False


class AccountCircuitBreaker:
    """Evaluates all replies of one account: for the requested item, and for the account.

    The account is degraded by a 401, or once no request has succeeded for `degraded_after_s` since the first failure.
    It recovers with the next success. After a start or a stop of the process a new failure is needed first. The first
    failure after the last success came at `failing_since` (running time). `probe_target` is the item that succeeded
    last, at `success_at` (monotonic seconds).

    While the account is unusable because of the trouble `unusable_for`, one probe is sent per interval; the last one
    went out at `last_probe_at` (monotonic seconds). An account over budget is degraded, but usable.
    """

    def __init__(self, rules: PollRules, record: AccountRecord, *, clock: Clock, jitter: Jitter) -> None:
        """Start with the recorded state. A pause longer than the cap came from a wrong clock, so the pause is cut."""
        trouble, pause_s, failing_for_s = record.trouble, record.backoff.pause_s, record.backoff.failing_for_s
        until = EARLIEST if pause_s is None else Monotonic(clock.monotonic() + min(pause_s, PAUSE_CAP_S))
        self.pause = Pause(until)
        self.budget = Budget(rules.max_interval_s, clock=clock, is_over=trouble == AccountTrouble.OVER_BUDGET)
        self.failing_since = None if failing_for_s is None else clock.running() - failing_for_s
        self.success_at = EARLIEST
        self.probe_target: PollItem | None = None
        self.last_probe_at = EARLIEST
        self._rules, self._clock, self._jitter = rules, clock, jitter
        self.unusable_for = None if trouble is None or self.budget.is_over else AccountTrouble(trouble)
        self._unusable_from = EARLIEST
        self._is_key_refused = trouble == AccountTrouble.UNAUTHORIZED  # by a 401; a 403 is probed like other trouble
        self._last_failure: Reply | None = None

    @property
    def trouble(self) -> AccountTrouble | None:
        """The trouble to report as `account.degraded`, `None` if there is none."""
        return self.unusable_for or (AccountTrouble.OVER_BUDGET if self.budget.is_over else None)

    @property
    def cause(self) -> str | None:
        """The last failure of an unusable account: the status code, or a word of ours. `None` while it is usable."""
        failure = self._last_failure
        if failure is None or self.unusable_for is None:
            return None
        is_coded = failure.status_code not in {None, HTTP_OK}
        return str(failure.status_code) if is_coded else failure.reason or failure.outcome.value

    def failing_for_s(self) -> float | None:
        """Return the running time since the first failure after the last success; `None` without a failure."""
        return None if self.failing_since is None else self._clock.running() - self.failing_since

    def backoff(self) -> BackoffState:
        """Return the pause and the time of failing to record. The time of failing is cut to `degraded_after_s`."""
        pause_s, failing_for_s = self.pause.until - self._clock.monotonic(), self.failing_for_s()
        if failing_for_s is not None:
            failing_for_s = min(self._rules.degraded_after_s, failing_for_s)
        return BackoffState(pause_s if pause_s > 0 else None, failing_for_s)

    def opens_at(self) -> Monotonic:
        """Return when the next request may be sent: after the pause, and after the interval of probes."""
        if self.unusable_for is None:
            return self.pause.until
        every_s = UNAUTHORIZED_PROBE_EVERY_S if self._is_key_refused else PROBE_EVERY_S
        return max(self.pause.until, Monotonic(self.last_probe_at + every_s))

    def note(
        self, item: PollItem, reply: Reply, *, now: Monotonic, alone: bool = False, lost: bool = False
    ) -> LostReason | None:
        """Evaluate a reply about an item. Return the reason if the item is lost now.

        `alone` means that all other items of the account are lost: a 404 is then about the item, and shows that the
        API works. `lost` means that the item was reported as lost before: if the API still does not know it, this says
        nothing about the account. A success ends the trouble of the account, unless its request was sent before the
        trouble began.
        """
        is_ok, reason = reply.outcome is Outcome.OK, None
        if is_ok:
            self.success_at, self.probe_target = now, item
        else:
            reason = self._note_failure(item, reply, now=now, alone=alone)
        if is_ok or (alone and reply.outcome in _ABOUT_THE_EXECUTION):
            self.failing_since = self._last_failure = None
            self.pause.nth = 0
            if self.unusable_for is not None and reply.sent_at >= self._unusable_from:
                self.unusable_for, self._is_key_refused = None, False
                self.budget.restart(now)
        elif not (lost and reply.outcome in _EXPECTED_OF_LOST):
            self._fail(reply, now=now)
        return reason

    def wait_s(self, item: PollItem, reason: LostReason | None, *, sent_at: Monotonic) -> float:
        """Return the seconds from a failed request, sent at `sent_at`, to the next. `reason` is set for a lost item.

        The wait doubles with each failure. If one more refusal could show that the item is lost, the wait ends no later
        than that refusal could count.
        """
        if reason not in {None, LostReason.UNREADABLE}:
            return LOST_EVERY_S
        rules, failures = self._rules, item.failures or Failures()
        delay_s = doubling(max(1, failures.count), base_s=rules.min_interval_s, cap_s=rules.max_interval_s)
        spread_s = min(rules.max_interval_s, spread(delay_s, share=ERROR_JITTER, jitter=self._jitter))
        left_s = failures.refused_from + rules.lost_grace_s + ROUNDING_S - sent_at
        if failures.refusals and failures.refusals + 1 >= rules.lost_after and left_s > 0:
            return min(spread_s, max(left_s, rules.min_interval_s))
        return spread_s

    def to_verify(self, now: Monotonic) -> PollItem | None:
        """Return the item to poll again as a check of the account; `None` if no check is due.

        It is the item that succeeded last, once the account has failed for half of `degraded_after_s`. If it succeeds
        again, the failures are those of other items, and the account is not degraded.
        """
        target, failing_for_s = self.probe_target, self.failing_for_s() or 0.0
        if target is None or not target.is_queued or now - target.asked_at < failing_for_s:
            return None
        return target if failing_for_s >= self._rules.degraded_after_s / 2 else None

    def check(self, now: Monotonic) -> None:
        """Mark the account as unusable after a 401, or once it has failed for `degraded_after_s`.

        Unless it is a 401, the last failure must be of a request that was sent after the last stop of the process.
        While the account is unusable, neither another reason nor its budget is reported.
        """
        # The clock must be read often, also without failures: a long time between two readings counts as a stop.
        resumed_at, failing_for_s, failure = self._clock.resumed_at(), self.failing_for_s() or 0.0, self._last_failure
        if failure is None or self.unusable_for is not None:
            return
        is_long = failing_for_s >= self._rules.degraded_after_s and failure.sent_at >= resumed_at
        if is_long or failure.outcome is Outcome.UNAUTHORIZED:
            self.unusable_for = _TROUBLES.get(failure.outcome, AccountTrouble.UNREACHABLE)
            self._unusable_from = self.last_probe_at = now
            self.budget.restart(now)

    def rest(self, now: Monotonic) -> None:
        """Forget failures and late requests: no request could be sent until now."""
        self.failing_since = self._last_failure = None
        self.budget.restart(now, is_over=self.budget.is_over)

    def _note_failure(self, item: PollItem, reply: Reply, *, now: Monotonic, alone: bool) -> LostReason | None:
        """Note a failure of an item. Return the reason if the item is lost now.

        An item is lost once it was refused `lost_after` times in a row over at least `lost_grace`, or has been
        unreadable for an hour of running time. Another item of the account must have succeeded meanwhile. `alone` means
        that no other item could succeed: the item's own refusals, except a 403, then suffice.

        Executions and lists differ in two rules, by `any_failure_counts` of `PollItem`. An execution becomes unreadable
        only by unreadable bodies, a list by every failure that is no refusal. For a list such a failure also ends the
        refusals in a row.
        """
        failures = item.failures = item.failures or Failures()
        if self.unusable_for is None and reply.status_code not in PAUSING_CODES:
            failures.count += 1
        # Other codes, such as 402, never make an execution unreadable.
        is_unread = reply.outcome is Outcome.INVALID and reply.status_code in {None, HTTP_OK}
        makes_unreadable = is_unread or item.any_failure_counts
        if makes_unreadable and failures.unreadable_since == LATEST:
            failures.unreadable_since, failures.ran_s = now, self._clock.running()
        refusal = EXECUTION_REASONS.get(reply.outcome)
        if refusal is not None:
            # A gateway may refuse everything, so another item must have succeeded since the last refusal.
            is_own = failures.refusals > 0 and self.success_at >= failures.refused_at
            is_own |= alone and refusal is not LostReason.FORBIDDEN
            failures.refused_from = failures.refused_from if failures.refusals else now
            failures.refusals, failures.refused_at = failures.refusals + 1, now
            is_long = now - failures.refused_from >= self._rules.lost_grace_s
            return refusal if is_own and is_long and failures.refusals >= self._rules.lost_after else None
        if item.any_failure_counts:
            failures.refusals = 0
        is_long = self._clock.running() - failures.ran_s >= UNREADABLE_AFTER_S
        is_long &= self.success_at >= failures.unreadable_since
        return LostReason.UNREADABLE if makes_unreadable and is_long else None

    def _fail(self, reply: Reply, *, now: Monotonic) -> None:
        if reply.status_code is None and reply.sent_at < self._clock.resumed_at():
            return  # the stop of the process may have broken this request
        self._last_failure = reply
        self._is_key_refused |= reply.outcome is Outcome.UNAUTHORIZED
        if self.failing_since is None:
            self.failing_since = self._clock.running()
        if reply.status_code in PAUSING_CODES:
            self.pause.begin(reply, now=now)
        self.check(now)
