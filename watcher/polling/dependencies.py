"""The collaborators and settings that the parts of one account's poller share."""

from collections.abc import Callable
from dataclasses import dataclass

from watcher.clerk.api import ClerkApi
from watcher.polling.circuit_breaker import AccountCircuitBreaker
from watcher.polling.evaluator import ReplyEvaluator
from watcher.polling.poll_item import PollRules
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import AccountMetrics
from watcher.runtime.pacing import Pacer
from watcher.runtime.scheduler import WakeIn
from watcher.store.account_store import AccountStore
from watcher.store.changes import AccountRecord, Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountDependencies:
    """The collaborators of one account's poller. `record` is the account as the store knew it at the start.

    `fatal` ends the daemon, or only the poller if its lease is lost. While `is_trusted` returns false, nothing is
    requested, because the lease may have expired.
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
    evaluator: ReplyEvaluator
    metrics: AccountMetrics
    concurrency: int
    wake: WakeIn
    fatal: Callable[[BaseException], None]
