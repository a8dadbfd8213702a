"""What the parts of one account's poller work with, and what the configuration says of it."""

from collections.abc import Callable
from dataclasses import dataclass

from watcher.clerk.api import ClerkApi
from watcher.domain.event_factory import EventFactory
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Details, FirstSight
from watcher.polling.evaluator import ReplyEvaluator
from watcher.polling.failures import AccountCircuitBreaker
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import AccountMetrics
from watcher.runtime.pacing import Pacer
from watcher.runtime.scheduler import WakeIn
from watcher.store.account_store import AccountStore
from watcher.store.changes import AccountRecord, Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRules:
    """What the configuration says of polling. Times in microseconds or, with `_s`, seconds.

    What ended longer than `history_us` ago may be forgotten, so it is never reported. `pages_at_most` is what a scan
    may read before it counts as outrun, `confirmed_at_most` are the ends that can be confirmed in time.
    """

    details: Details
    first_sight: FirstSight
    lookback_us: int
    history_us: int
    pages_at_most: int
    confirmed_at_most: float
    min_interval_s: float
    max_interval_s: float
    lost_after: int
    lost_grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountDependencies:
    """What the poller of an account works with. `record` is how the account was; `fatal` ends the daemon.

    `is_trusted` says whether the lease is: while it is not, nothing is asked.
    """

    lease: Lease
    is_trusted: Callable[[], bool]
    api: ClerkApi
    store: AccountStore
    clock: Clock
    pacer: Pacer
    breaker: AccountCircuitBreaker
    record: AccountRecord
    rules: PollRules
    events: EventFactory
    evaluator: ReplyEvaluator
    metrics: AccountMetrics
    concurrency: int
    wake: WakeIn
    fatal: Callable[[BaseException], None]

    def api_now_us(self) -> Micros:
        """Return what the API's clock shows (microseconds): what the API dates is compared with that alone."""
        return Micros(self.clock.steady_us() + self.api.ahead_us)
