"""The circuit breaker of an account: whether its API can be used, for how long it pauses, and whether requests suffice.

No I/O, no events. Failing and being late are counted in running time: a process that is stopped (SIGSTOP,
`docker pause`) asks nothing. A pause is the server's, and goes on meanwhile.
"""

from watcher.clerk.api import Reply
from watcher.domain.event import AccountTrouble
from watcher.domain.execution import LostReason, Outcome
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.polling.failures import HTTP_OK, PAUSING_CODES, lost_reason, retry_wait_s
from watcher.polling.poll_item import Failures, PollItem, PollRules
from watcher.runtime.clock import Clock
from watcher.runtime.pacing import Jitter, doubling
from watcher.store.changes import AccountRecord, BackoffState

PAUSE_CAP_S = 15 * 60.0
PAUSE_BASE_S = 1.0
PAUSE_DOUBLING_CAP_S = 60.0
PROBE_EVERY_S = 10.0
UNAUTHORIZED_PROBE_EVERY_S = 60.0
OVER_BUDGET_AFTER_S = 300.0

GAP_TOLERANCE = 1.1
TIMER_TOLERANCE_S = 0.1
"""A poll is late against `max_interval` beyond both: jitter and a busy event loop are no budget that is too small."""

_TROUBLES = {
    Outcome.UNAUTHORIZED: AccountTrouble.UNAUTHORIZED,
    Outcome.FORBIDDEN: AccountTrouble.UNAUTHORIZED,
    Outcome.RATE_LIMITED: AccountTrouble.RATE_LIMITED,
    Outcome.INVALID: AccountTrouble.INVALID,
    Outcome.NOT_FOUND: AccountTrouble.INVALID,
    Outcome.REJECTED: AccountTrouble.INVALID,
}
"""Every other outcome but `ok` means the API cannot be reached."""

_ABOUT_THE_EXECUTION = frozenset({Outcome.NOT_FOUND, Outcome.REJECTED})
_EXPECTED_OF_LOST = _ABOUT_THE_EXECUTION | {Outcome.FORBIDDEN}


class Pause:
    """The pause that the API asked for by a 429 or 503. Nothing is sent before `until`.

    It is as long as the API wishes, at most 15 minutes; without a wish 1 s, and for the `nth` in a row ever longer.
    """

    def __init__(self, until: Monotonic) -> None:
        self.until = until
        self.nth = 0

    def begin(self, reply: Reply, *, now: Monotonic) -> None:
        """Pause for this reply. A shorter wish does not end a longer pause."""
        if reply.sent_at >= self.until:  # a request that was in flight when the pause began does not double it
            self.nth += 1
        wanted_s = doubling(self.nth, base_s=PAUSE_BASE_S, cap_s=PAUSE_DOUBLING_CAP_S)
        if reply.retry_after_s is not None:
            wanted_s = min(PAUSE_CAP_S, max(PAUSE_BASE_S, reply.retry_after_s))
        self.until = max(self.until, Monotonic(now + wanted_s))


class Budget:
    """Whether the requests of an account suffice: `is_over` once it could not hold `max_interval` for 5 minutes.

    It stays so until the account held `max_interval` for one. Restored, that counts from the first poll. Before
    `counts_from` nothing could be asked.
    """

    def __init__(self, max_interval_s: float, *, clock: Clock, is_over: bool) -> None:
        self._max_interval_s, self._clock = max_interval_s, clock
        self._allowed_gap_s = max_interval_s * GAP_TOLERANCE + TIMER_TOLERANCE_S
        self.restart(EARLIEST, is_over=is_over)

    def restart(self, now: Monotonic, *, is_over: bool = False) -> None:
        """Count again from `now` on: before that nothing could be asked."""
        self.is_over, self._counts_from = is_over, now
        self._late_since: float | None = None  # this and the next in running time
        self._late_at = 0.0

    def note(self, item: PollItem, *, last_at: Monotonic, now: Monotonic) -> None:
        """Note that an item is asked for at `now`, and was before at `last_at`.

        A slow answer is not to blame: it only makes a poll due late. Nor is time in which nothing could be asked.
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
    """Evaluates all replies of one account: what they mean for what was asked for, and for the account.

    The account is degraded when nothing has succeeded for `degraded_after_s` since the first failure, at once with a
    401, until the next success. After a start or a stop of the process something must fail anew first. The first
    failure after the last success came at `failing_since` (running time). `probe_target` is what last succeeded, at
    `success_at`. Trouble that makes the account unusable stops its polls: being over budget does not. Meanwhile one
    probe is sent per interval; the last went out at `last_probe_at`.
    """

    def __init__(self, rules: PollRules, record: AccountRecord, *, clock: Clock, jitter: Jitter) -> None:
        """Start with what was recorded last. A pause longer than any was written by a wrong clock."""
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
        self._is_key_refused = trouble == AccountTrouble.UNAUTHORIZED  # by a 401; a 403 is probed as any other trouble
        self._last_failure: Reply | None = None

    @property
    def trouble(self) -> AccountTrouble | None:
        """Return what is to be reported as `account.degraded` now, if anything is."""
        return self.unusable_for or (AccountTrouble.OVER_BUDGET if self.budget.is_over else None)

    @property
    def cause(self) -> str | None:
        """Return what went wrong last of an account that is unusable: a word of ours, or the code of the answer."""
        failure = self._last_failure
        if failure is None or self.unusable_for is None:
            return None
        is_coded = failure.status_code not in {None, HTTP_OK}
        return str(failure.status_code) if is_coded else failure.reason or failure.outcome.value

    def failing_for_s(self) -> float | None:
        """Return for how long nothing has succeeded, since the first failure; `None` after a success."""
        return None if self.failing_since is None else self._clock.running() - self.failing_since

    def backoff(self) -> BackoffState:
        """Return what a restart must not forget. Of failures no more than what makes them trouble."""
        pause_s, failing_for_s = self.pause.until - self._clock.monotonic(), self.failing_for_s()
        if failing_for_s is not None:
            failing_for_s = min(self._rules.degraded_after_s, failing_for_s)
        return BackoffState(pause_s if pause_s > 0 else None, failing_for_s)

    def opens_at(self) -> Monotonic:
        """Return the moment from which something may be sent: after the pause, and after the probe's interval."""
        if self.unusable_for is None:
            return self.pause.until
        every_s = UNAUTHORIZED_PROBE_EVERY_S if self._is_key_refused else PROBE_EVERY_S
        return max(self.pause.until, Monotonic(self.last_probe_at + every_s))

    def note(
        self, item: PollItem, reply: Reply, *, now: Monotonic, alone: bool = False, lost: bool = False
    ) -> LostReason | None:
        """Evaluate a reply. Return why the item is lost now, if it is.

        `alone`: nothing else is watched but what is lost. A 404 then is its own, the API works. That an execution
        reported as `lost` is still not known says nothing of the account. A success ends trouble, unless it was asked
        for before that began: it only came late.
        """
        is_ok, reason = reply.outcome is Outcome.OK, None
        if is_ok:
            self.success_at, self.probe_target = now, item
        else:
            failures = item.failures = item.failures or Failures()
            if self.unusable_for is None and reply.status_code not in PAUSING_CODES:
                failures.count += 1
            ran_s, success_at = self._clock.running(), self.success_at
            reason = lost_reason(item, reply, self._rules, now=now, ran_s=ran_s, success_at=success_at, alone=alone)
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
        """Return the seconds from a request that failed, sent at `sent_at`, to the next. `reason` is why it is lost."""
        return retry_wait_s(item, reason, self._rules, sent_at=sent_at, jitter=self._jitter)

    def to_verify(self, now: Monotonic) -> PollItem | None:
        """Return what last succeeded, to ask for it again once half the time to trouble has passed.

        If it still succeeds, the others failed by themselves, and the account is not degraded.
        """
        target, failing_for_s = self.probe_target, self.failing_for_s() or 0.0
        if target is None or not target.queued or now - target.asked_at < failing_for_s:
            return None
        return target if failing_for_s >= self._rules.degraded_after_s / 2 else None

    def check(self, now: Monotonic) -> None:
        """Let time pass: failures old enough become trouble, if one was of a request sent after the last stop.

        Trouble begins once: another reason for the same silence is not reported again, nor is its budget.
        """
        # The clock must be read often, also while nothing fails: else it takes the time between for a stop.
        resumed_at, failing_for_s, failure = self._clock.resumed_at(), self.failing_for_s() or 0.0, self._last_failure
        if failure is None or self.unusable_for is not None:
            return
        is_long = failing_for_s >= self._rules.degraded_after_s and failure.sent_at >= resumed_at
        if is_long or failure.outcome is Outcome.UNAUTHORIZED:
            self.unusable_for = _TROUBLES.get(failure.outcome, AccountTrouble.UNREACHABLE)
            self._unusable_from = self.last_probe_at = now
            self.budget.restart(now)

    def rest(self, now: Monotonic) -> None:
        """Note that nothing could be asked until now. What failed, or came late, is counted anew."""
        self.failing_since = self._last_failure = None
        self.budget.restart(now, is_over=self.budget.is_over)

    def _fail(self, reply: Reply, *, now: Monotonic) -> None:
        if reply.status_code is None and reply.sent_at < self._clock.resumed_at():
            return  # it was in flight while the process was stopped, and broke by that for all we know
        self._last_failure = reply
        self._is_key_refused |= reply.outcome is Outcome.UNAUTHORIZED
        if self.failing_since is None:
            self.failing_since = self._clock.running()
        if reply.status_code in PAUSING_CODES:
            self.pause.begin(reply, now=now)
        self.check(now)
