"""What is saved of an account's health, and how seldom."""

import asyncio
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs
from virtual import FakeClock

from watcher.clerk.protocol import Reply
from watcher.domain.event_factory import EventFactory
from watcher.domain.execution import Outcome
from watcher.domain.routing import Router
from watcher.polling.circuit_breaker import AccountCircuitBreaker
from watcher.polling.status_reporter import StatusReporter
from watcher.runtime.metrics import Metrics
from watcher.runtime.transport_failures import REMEDIES
from watcher.store.changes import NO_BACKOFF, BackoffState, Lease, SourceChange
from watcher.store.records import AccountRecord

LEASE = Lease("account", "default", 7)


@dataclass
class Pages:
    """A store that keeps backoffs only, each in a while of its own."""

    written: list[BackoffState] = field(default_factory=list)

    async def save_backoff(self, lease: Lease, backoff: BackoffState) -> None:
        assert lease is LEASE
        await asyncio.sleep(0)
        self.written.append(backoff)

    async def record(self, change: SourceChange) -> None:
        assert change.lease is LEASE


class Saved:
    """A health that is saved."""

    def __init__(self, backoff: BackoffState = NO_BACKOFF) -> None:
        self.clock = FakeClock()
        self.breaker = AccountCircuitBreaker(degraded_after_s=60.0, now=self.clock.monotonic(), backoff=backoff)
        self.pages = Pages()
        self.reporter = StatusReporter(
            LEASE,
            AccountRecord(0, None, backoff),
            self.breaker,
            store=self.pages,  # type: ignore[arg-type]
            events=EventFactory(Router({})),
            clock=self.clock,
            metrics=Metrics().account("default"),
        )

    def answer(
        self,
        outcome: Outcome,
        *,
        code: int | None = None,
        retry_after_s: float | None = None,
        reason: str | None = None,
    ) -> None:
        now = self.clock.monotonic()
        self.breaker.note(Reply(outcome, now, None, code, retry_after_s, reason), now=now)

    def busy(self, retry_after_s: float) -> None:
        self.answer(Outcome.RATE_LIMITED, code=429, retry_after_s=retry_after_s)

    async def save(self) -> list[BackoffState]:
        """Return what is written by a flush."""
        self.pages.written.clear()
        await self.reporter.save_backoff()
        return self.pages.written


async def test_an_account_that_is_well_writes_nothing() -> None:
    saved = Saved()
    saved.answer(Outcome.OK)
    await saved.reporter.save_pause()
    assert await saved.save() == []


async def test_what_was_loaded_is_not_written_again() -> None:
    assert await Saved(BackoffState(30.0, 40.0)).save() == []


async def test_a_pause_is_written_at_once_and_once_however_many_answers_ask_for_it() -> None:
    saved = Saved()
    saved.busy(30)
    await asyncio.gather(*(saved.reporter.save_pause() for _ in range(64)))
    await saved.reporter.save_pause()
    assert saved.pages.written == [BackoffState(30.0, 0.0)]


async def test_a_pause_of_a_moment_waits_for_the_flush() -> None:
    saved = Saved()
    saved.busy(1.125)
    await saved.reporter.save_pause()
    assert saved.pages.written == []
    assert await saved.save() == [BackoffState(1.125, 0.0)]


async def test_a_pause_that_outlasts_a_quick_restart_is_written_at_once() -> None:
    saved = Saved()
    saved.busy(1.875)  # two seconds, a moment later
    await saved.reporter.save_pause()
    assert saved.pages.written == [BackoffState(1.875, 0.0)]


async def test_a_pause_that_is_over_is_written_as_none() -> None:
    saved = Saved()
    saved.busy(5)
    await saved.reporter.save_pause()
    saved.clock.advance(5)
    saved.answer(Outcome.OK)
    assert await saved.save() == [NO_BACKOFF]
    assert await saved.save() == []


async def test_failures_are_written_as_they_last_until_they_are_trouble() -> None:
    saved = Saved()
    saved.answer(Outcome.SERVER_ERROR)
    lasting = []
    for _ in range(14):
        saved.clock.advance(5)
        lasting += await saved.save()
    assert [backoff.failing_for_s for backoff in lasting] == [float(5 * step) for step in range(1, 13)]
    saved.answer(Outcome.OK)
    assert await saved.save() == [NO_BACKOFF]


@pytest.mark.parametrize(("cause", "remedy"), [(cause, REMEDIES[cause]) for cause in REMEDIES] + [("status_500", None)])
async def test_trouble_is_logged_with_its_cause_and_what_helps_where_that_is_known(
    cause: str, remedy: str | None
) -> None:
    saved = Saved()
    for _ in range(2):
        saved.answer(Outcome.CONNECTION, reason=cause)
        saved.clock.advance(60)
    with capture_logs() as logs:
        await saved.reporter.report()
    (log,) = logs
    assert (log["event"], log["cause"], log.get("remedy")) == ("account.degraded", cause, remedy)
