"""What an error means: for what was asked for, how long it waits and when it is lost; for the account, its breaker.

One rule of failures for executions and for lists. No I/O, no events. How long something failed counts only while the
process ran: a stopped one (SIGSTOP, `docker pause`) asks nothing. A pause is the server's, and goes on meanwhile.
"""

from watcher.clerk.api import Reply
from watcher.domain.event import AccountTrouble
from watcher.domain.execution import LostReason, Outcome
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.domain.transitions import EXECUTION_REASONS
from watcher.polling.poll_item import Failures, PollItem, PollRules
from watcher.runtime.clock import Clock
from watcher.runtime.pacing import Jitter, doubling, spread
from watcher.store.changes import BackoffState

LOST_EVERY_S = 600.0
"""What is lost is asked for so often."""

UNREADABLE_AFTER_S = 3600.0

ERROR_JITTER = 0.1

ROUNDING_S = 0.01
"""A sum of times may come out a little too small."""

PAUSING_CODES = frozenset({429, 503})
PAUSE_CAP_S = 15 * 60.0
PAUSE_BASE_S = 1.0
PAUSE_DOUBLING_CAP_S = 60.0
PROBE_EVERY_S = 10.0
UNAUTHORIZED_PROBE_EVERY_S = 60.0
OVER_BUDGET_AFTER_S = 300.0

GAP_TOLERANCE = 1.1
TIMER_TOLERANCE_S = 0.1
"""A poll is late against `max_interval` beyond both: jitter and a busy event loop are no budget that is too small."""

STOP_S = 1.0
"""What is shorter is no stop, but a busy machine."""

HTTP_OK = 200

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


class AccountCircuitBreaker:
    """Judges all answers of one account: what they mean for what was asked for, and for the account.

    `trouble` is what is to be reported as `account.degraded` now, or `None`; `failing_since` is the first failure after
    the last success; `paused_until` the end of the last pause. Anything last succeeded at `success_at`: `probe_target`.
    Of an unusable account the one request of each interval goes out at `last_probe_at`.
    Trouble begins when nothing has succeeded for `degraded_after_s` since the first failure, at once with a 401, and
    ends with the next success. What failed before a restart counts once something fails after it.

    The failures of an item are counted in the item itself. An execution and a list differ in two things, as their
    `PollItem` says: of an execution only an unreadable body makes it unreadable, of a list every failure that is no
    refusal, and that also ends the refusals in a row.
    """

    def __init__(
        self,
        rules: PollRules,
        *,
        clock: Clock,
        jitter: Jitter,
        trouble: AccountTrouble | None = None,
        backoff: BackoffState | None = None,
    ) -> None:
        """Start with what was recorded last. A pause longer than any was written by a wrong clock."""
        self.trouble = trouble
        self.failing_since: Monotonic | None = None
        self.success_at: Monotonic | None = None
        self.probe_target: PollItem | None = None
        self.last_probe_at = EARLIEST
        self.paused_until = EARLIEST
        if backoff is not None and backoff.pause_s is not None:
            self.paused_until = Monotonic(clock.monotonic() + min(backoff.pause_s, PAUSE_CAP_S))
        self._rules = rules
        self._allowed_gap_s = rules.max_interval_s * GAP_TOLERANCE + TIMER_TOLERANCE_S
        self._clock, self._jitter = clock, jitter
        self._stopped_s = clock.monotonic() - clock.running()
        self._resumed_at = EARLIEST
        self._last_reason = trouble or AccountTrouble.UNREACHABLE
        self._last_cause: str | None = None
        self._failed_sent_at = EARLIEST
        self._failed_before_s = None if backoff is None else backoff.failing_for_s
        self._troubled_at = EARLIEST
        self._key_refused = trouble is AccountTrouble.UNAUTHORIZED  # by a 401; a 403 is probed as any other trouble
        self._pause_began_at = EARLIEST
        self._pause_count = 0
        self._over_since: Monotonic | None = None
        self._over_last_at = EARLIEST

    @property
    def cause(self) -> str | None:
        """Return what went wrong last of an account that is unusable: a word of ours, or the code of the answer."""
        return self._last_cause if self.unusable else None

    @property
    def unusable(self) -> bool:
        """Whether the account is in trouble that stops its polls; being over budget does not."""
        return self.trouble is not None and self.trouble is not AccountTrouble.OVER_BUDGET

    def backoff(self, now: Monotonic) -> BackoffState:
        """Return what a restart must not forget. Of failures no more than what makes them trouble."""
        self._take_in_stop(now)
        failing_for_s = self._failed_before_s if self.failing_since is None else now - self.failing_since
        return BackoffState(
            self.paused_until - now if self.paused_until > now else None,
            None if failing_for_s is None else min(self._rules.degraded_after_s, failing_for_s),
        )

    def opens_at(self) -> Monotonic:
        """Return the moment from which something may be sent: after the pause, and after the probe's interval."""
        if not self.unusable:
            return self.paused_until
        every_s = UNAUTHORIZED_PROBE_EVERY_S if self._key_refused else PROBE_EVERY_S
        return max(self.paused_until, Monotonic(self.last_probe_at + every_s))

    def note_stop(self, *, now: Monotonic, length_s: float) -> None:
        """Take in that nothing could be tried for so long until now: nobody failed, and nothing was late."""
        self._resumed_at = now
        if self.failing_since is not None:
            self.failing_since = min(now, Monotonic(self.failing_since + length_s))
        if self._over_since is not None:
            self._over_since = min(now, Monotonic(self._over_since + length_s))
            self._over_last_at = min(now, Monotonic(self._over_last_at + length_s))

    def _take_in_stop(self, now: Monotonic) -> None:
        """Take in whether the process was stopped, before anything that failed or came late is evaluated."""
        before_s, self._stopped_s = self._stopped_s, now - self._clock.running()
        if self._stopped_s - before_s >= STOP_S:
            self.note_stop(now=now, length_s=self._stopped_s - before_s)

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
            reason = self._count(item, reply, now=now, alone=alone)
        if is_ok or (alone and reply.outcome in _ABOUT_THE_EXECUTION):
            self.failing_since = self._failed_before_s = None
            self._pause_count = 0
            if self.trouble is not None and self.unusable and reply.sent_at >= self._troubled_at:
                self.trouble = None
                self._key_refused = False
        elif not (lost and reply.outcome in _EXPECTED_OF_LOST):
            self._fail(reply, now=now)
        return reason

    def _count(self, item: PollItem, reply: Reply, *, now: Monotonic, alone: bool) -> LostReason | None:
        """Count a failure of an item: it is lost once it was refused often enough, for long enough.

        Or could not be read for an hour in which the process ran; either while something else of the account succeeded.
        """
        failures = item.failures = item.failures or Failures()
        if not self.unusable and reply.status_code not in PAUSING_CODES:
            failures.count += 1
        # 402 and the like are the API's trouble, however long.
        is_unread = reply.outcome is Outcome.INVALID and reply.status_code in {None, HTTP_OK}
        if (is_unread or item.any_failure_counts) and failures.unreadable_since is None:
            failures.unreadable_since, failures.ran_s = now, self._clock.running()
        refusal = EXECUTION_REASONS.get(reply.outcome)
        if refusal is not None:
            # A gateway that refuses everything refuses the others too, so one of them must have succeeded meanwhile.
            is_own = bool(failures.refusals) and self.success_at is not None and self.success_at >= failures.refused_at
            is_own |= alone and refusal is not LostReason.FORBIDDEN
            failures.refused_from = failures.refused_from if failures.refusals else now
            failures.refusals, failures.refused_at = failures.refusals + 1, now
            is_long = now - failures.refused_from >= self._rules.lost_grace_s
            return refusal if is_own and is_long and failures.refusals >= self._rules.lost_after else None
        if item.any_failure_counts:
            failures.refusals = 0
        elif not is_unread:
            return None
        since, success_at = failures.unreadable_since, self.success_at
        if since is None or success_at is None or success_at < since:
            return None
        return LostReason.UNREADABLE if self._clock.running() - failures.ran_s >= UNREADABLE_AFTER_S else None

    def wait_s(self, item: PollItem, reason: LostReason | None, *, sent_at: Monotonic) -> float:
        """Return the seconds from the request, sent at `sent_at`, to the next one. `reason` is why the item is lost.

        Ever longer, but no longer than until one more refusal can mean a loss.
        """
        if reason not in {None, LostReason.UNREADABLE}:
            return LOST_EVERY_S
        failures = item.failures or Failures()
        delay_s = doubling(max(1, failures.count), base_s=self._rules.min_interval_s, cap_s=self._rules.max_interval_s)
        spread_s = min(self._rules.max_interval_s, spread(delay_s, share=ERROR_JITTER, jitter=self._jitter))
        left_s = failures.refused_from + self._rules.lost_grace_s + ROUNDING_S - sent_at
        if failures.refusals and failures.refusals + 1 >= self._rules.lost_after and left_s > 0:
            return min(spread_s, max(left_s, self._rules.min_interval_s))
        return spread_s

    def to_verify(self, now: Monotonic) -> PollItem | None:
        """Return what last succeeded, to ask for it again once half the time to trouble has passed.

        If it still succeeds, the others failed by themselves, and the account is not degraded.
        """
        target, since = self.probe_target, self.failing_since
        if target is None or since is None or not target.queued or target.asked_at > since:
            return None
        return target if now - since >= self._rules.degraded_after_s / 2 else None

    def check(self, now: Monotonic) -> None:
        """Let time pass: failures old enough become trouble."""
        self._take_in_stop(now)
        is_long = self.failing_since is not None and now - self.failing_since >= self._rules.degraded_after_s
        if is_long and self._failed_sent_at >= self._resumed_at:  # after a stop something must fail anew
            self._degrade(self._last_reason, now=now)

    def note_gap(self, item: PollItem, *, last_at: Monotonic, now: Monotonic) -> None:
        """Note that an item is asked for at `now`, and was before at `last_at`: whether the budget is too small.

        An account that cannot hold `max_interval` for 5 minutes is over budget, until it held it for one. Restored
        trouble goes on until then too, from the first poll. A slow answer is not to blame, it only makes a poll due
        late.
        """
        is_late = now - max(last_at, item.due_at - self._rules.max_interval_s) > self._allowed_gap_s
        if is_late:
            self._take_in_stop(now)
            if self._resumed_at > last_at:  # by how much the stop made it late nobody knows
                return
        if is_late or (self.trouble is AccountTrouble.OVER_BUDGET and self._over_since is None):
            self._over_since = now if self._over_since is None else self._over_since
            self._over_last_at = now
            if now - self._over_since >= OVER_BUDGET_AFTER_S:
                self.trouble = self.trouble or AccountTrouble.OVER_BUDGET
        elif self._over_since is not None and now - self._over_last_at > self._allowed_gap_s:
            self._over_since = None
            if self.trouble is AccountTrouble.OVER_BUDGET:
                self.trouble = None

    def _fail(self, reply: Reply, *, now: Monotonic) -> None:
        """Take in a failure. It pauses for as long as the server asks, else 1 s doubling to 60 s."""
        self._take_in_stop(now)
        if reply.status_code is None and reply.sent_at < self._resumed_at:
            return  # it was under way while the process was stopped, and broke by that for all we know
        self._last_reason = _TROUBLES.get(reply.outcome, AccountTrouble.UNREACHABLE)
        is_coded = reply.status_code is not None and reply.status_code != HTTP_OK
        self._last_cause = str(reply.status_code) if is_coded else reply.reason or reply.outcome.value
        self._failed_sent_at = max(self._failed_sent_at, reply.sent_at)
        if self.failing_since is None:
            self.failing_since = Monotonic(now - (self._failed_before_s or 0.0))
        if reply.status_code in PAUSING_CODES:
            if reply.sent_at >= self._pause_began_at:  # one that was in flight when the pause began does not double it
                self._pause_count += 1
                self._pause_began_at = now
            wanted_s = doubling(self._pause_count, base_s=PAUSE_BASE_S, cap_s=PAUSE_DOUBLING_CAP_S)
            if reply.retry_after_s is not None:
                wanted_s = min(PAUSE_CAP_S, max(PAUSE_BASE_S, reply.retry_after_s))
            self.paused_until = max(self.paused_until, Monotonic(now + wanted_s))
        if reply.outcome is Outcome.UNAUTHORIZED:
            self._key_refused = True
            self._degrade(AccountTrouble.UNAUTHORIZED, now=now)
        self.check(now)

    def _degrade(self, trouble: AccountTrouble, *, now: Monotonic) -> None:
        """Enter trouble, once: another reason for the same silence is not reported again, nor is its budget."""
        if not self.unusable:
            self.trouble = trouble
            self._troubled_at = self.last_probe_at = now
            self._over_since = None
