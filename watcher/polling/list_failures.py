"""What it means that a list cannot be read: when it is asked again, and when its pipeline has a gap."""

from dataclasses import replace
from typing import NamedTuple

from watcher.clerk.protocol import PageReply
from watcher.domain.event import GapReason
from watcher.domain.execution import LostReason
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.domain.transitions import EXECUTION_REASONS
from watcher.polling.account_rules import AccountRules
from watcher.polling.list_scans import ListScans
from watcher.polling.pipeline_list import PipelineListState
from watcher.polling.policy import AccountState
from watcher.polling.poll_queue import QueueKind
from watcher.polling.registry import ExecutionRegistry
from watcher.polling.session import AccountDependencies, AccountSession


class Step(NamedTuple):
    """What is next for a list, so many seconds after it was asked for: why it waits then is what `queue` says."""

    queue: QueueKind
    wait_s: float = 0.0


class ListFailures:
    """Evaluates the failures of one account's lists."""

    def __init__(
        self,
        deps: AccountDependencies,
        *,
        session: AccountSession,
        registry: ExecutionRegistry,
        scans: ListScans,
        rules: AccountRules,
    ) -> None:
        self._rules = rules
        self._breaker = deps.breaker
        self._failures = deps.failures
        self._session = session
        self._registry = registry
        self._scans = scans

    async def failed(self, listing: PipelineListState, reply: PageReply, *, now: Monotonic) -> LostReason | None:
        """Take in a failure, and return why the list is to be given up, if it is. Raises `StoreError`."""
        self._rules.hold(listing.watch.pipeline)
        alone = self._registry.found_count == 0 and len(self._registry.listings) == 1
        around = AccountState(alone, self._session.success_at, not self._breaker.unusable)
        is_refused = listing.cursor.refused is not None
        reason = self._failures.note_failure(listing, reply, around)
        if is_refused and not listing.progress.began_at:  # it was before, so once more is enough
            reason = EXECUTION_REASONS.get(reply.outcome, reason)
        self._session.note_failure(reply, now=now, alone=alone, lost=is_refused)
        await self._session.report_answer(failed=True)
        return reason

    async def give_up(self, listing: PipelineListState, reason: LostReason | None, *, now: Monotonic) -> Step:
        """Report once, if there is a reason to give a list up, and let it rest. Raises `StoreError`."""
        if reason is not None and listing.cursor.refused is None:
            gap = GapReason(reason.value)
            await self._scans.record(listing, replace(listing.cursor, refused=gap), gap=gap)
        return self.rests(listing, self._failures.wait_s(listing, reason, sent_at=listing.asked_at), now=now)

    def rests(self, listing: PipelineListState, wait_s: float, *, now: Monotonic) -> Step:
        """Let a list rest for so long: meanwhile it answers for nobody."""
        listing.failing_until = Monotonic(now + wait_s)
        return Step(QueueKind.DUE, wait_s)

    def works(self, listing: PipelineListState) -> None:
        """Note that a list answered."""
        self._failures.note_success(listing)
        listing.failing_until = EARLIEST
