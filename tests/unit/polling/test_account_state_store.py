"""What is kept of an account's health, and how seldom."""

import asyncio
from dataclasses import dataclass, field

from virtual import FakeClock

from watcher.clerk.protocol import Reply
from watcher.domain.models import Outcome
from watcher.polling.account_state_store import HealthKeeper
from watcher.polling.circuit_breaker import Health
from watcher.store.protocol import AT_EASE, Lease, Strain

LEASE = Lease("account", "default", 7)


@dataclass
class Pages:
    """A store that takes strains only, each in a while of its own."""

    written: list[Strain] = field(default_factory=list)

    async def note_strain(self, lease: Lease, strain: Strain) -> None:
        assert lease is LEASE
        await asyncio.sleep(0)
        self.written.append(strain)


class Kept:
    """A health that is kept."""

    def __init__(self, strain: Strain = AT_EASE) -> None:
        self.clock = FakeClock()
        self.health = Health(degraded_after_s=60.0, now=self.clock.monotonic(), strain=strain)
        self.pages = Pages()
        self.keeper = HealthKeeper(LEASE, self.health, store=self.pages, clock=self.clock)  # type: ignore[arg-type]

    def answer(self, outcome: Outcome, *, code: int | None = None, retry_after_s: float | None = None) -> None:
        now = self.clock.monotonic()
        self.health.note(Reply(outcome, now, None, code, retry_after_s), now=now)

    def busy(self, retry_after_s: float) -> None:
        self.answer(Outcome.RATE_LIMITED, code=429, retry_after_s=retry_after_s)

    async def keep(self) -> list[Strain]:
        """Return what is written by a flush."""
        self.pages.written.clear()
        await self.keeper.keep()
        return self.pages.written


async def test_an_account_that_is_well_writes_nothing() -> None:
    kept = Kept()
    kept.answer(Outcome.OK)
    await kept.keeper.keep_pause()
    assert await kept.keep() == []


async def test_what_was_loaded_is_not_written_again() -> None:
    assert await Kept(Strain(30.0, 40.0)).keep() == []


async def test_a_pause_is_written_at_once_and_once_however_many_answers_ask_for_it() -> None:
    kept = Kept()
    kept.busy(30)
    await asyncio.gather(*(kept.keeper.keep_pause() for _ in range(64)))
    await kept.keeper.keep_pause()
    assert kept.pages.written == [Strain(30.0, 0.0)]


async def test_a_pause_of_a_moment_waits_for_the_flush() -> None:
    kept = Kept()
    kept.busy(1.75)
    await kept.keeper.keep_pause()
    assert kept.pages.written == []
    assert await kept.keep() == [Strain(1.75, 0.0)]


async def test_a_pause_that_is_over_is_written_as_none() -> None:
    kept = Kept()
    kept.busy(5)
    await kept.keeper.keep_pause()
    kept.clock.advance(5)
    kept.answer(Outcome.OK)
    assert await kept.keep() == [AT_EASE]
    assert await kept.keep() == []


async def test_failures_are_written_as_they_last_until_they_are_trouble() -> None:
    kept = Kept()
    kept.answer(Outcome.SERVER_ERROR)
    lasting = []
    for _ in range(14):
        kept.clock.advance(5)
        lasting += await kept.keep()
    assert [strain.failing_for_s for strain in lasting] == [float(5 * step) for step in range(1, 13)]
    kept.answer(Outcome.OK)
    assert await kept.keep() == [AT_EASE]
