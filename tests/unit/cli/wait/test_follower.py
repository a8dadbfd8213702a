"""A wait that ends otherwise than by what the API says; the rest is tested with the real program."""

import asyncio
from pathlib import Path

import pytest
from virtual import EPOCH, FakeClock, account_of

from watcher.clerk.protocol import Reply
from watcher.cli.wait.follower import Heard, _Follower, _timed_out, wait_cadence, wait_polling
from watcher.cli.wait.progress import Progress, RenderTime
from watcher.config.models import PollingSettings
from watcher.domain.errors import StoreError
from watcher.domain.event import Event
from watcher.domain.execution import Outcome
from watcher.domain.timestamps import Monotonic
from watcher.polling.policy import ERROR_JITTER
from watcher.store.open import open_store


class Gallery:
    """A view that keeps its pictures."""

    def __init__(self) -> None:
        self.moments: list[RenderTime] = []

    async def on_event(self, event: Event, progress: Progress) -> None:
        raise AssertionError(event, progress)

    def show(self, progress: Progress, moment: RenderTime) -> None:
        self.moments.append(moment)


async def test_what_would_end_the_daemon_ends_the_wait(tmp_path: Path) -> None:
    clock = FakeClock()
    store = await open_store(f"sqlite:///{tmp_path}/watcher.db", clock=clock, on_recorded=lambda _: None)
    account = await account_of(store, clock, "9a1b0000-0000-4000-8000-000000000001")
    heard, gallery, progress = Heard(), Gallery(), Progress(lost_after=3)
    heard.put_nowait(Reply(Outcome.TIMEOUT, Monotonic(0.0)))
    heard.put_nowait(StoreError("gone"))
    with pytest.raises(StoreError, match="gone"):
        await asyncio.wait_for(_Follower(account.watcher, heard, clock, progress, gallery).follow(), 5)
    assert progress.poll_count == 1
    assert gallery.moments[0] == RenderTime(clock.steady_us(), clock.monotonic(), clock.monotonic())
    await store.close()


@pytest.mark.parametrize(("interval_s", "later_s"), [(2.0, 10.0), (1.0, 10.0), (30.0, 30.0)])
def test_it_polls_at_its_interval_however_old_the_execution_is_and_slower_after_an_hour(
    interval_s: float, later_s: float
) -> None:
    clock = FakeClock()
    clock.advance(5000)
    cadence = wait_cadence(clock, interval_s=interval_s)
    assert {cadence(dwell_s) for dwell_s in (0.0, 960.0, 90_000.0)} == {interval_s}
    clock.advance(3599)
    assert cadence(0.0) == interval_s
    clock.advance(1)
    assert cadence(0.0) == later_s


def test_after_an_error_it_polls_hardly_more_rarely_than_without_and_never_sooner() -> None:
    polling = wait_polling(PollingSettings(), interval_s=2.0, rate_limit=5.0)
    assert polling.min_interval_s == polling.max_interval_s == pytest.approx(2.0 / (1 - ERROR_JITTER))
    assert polling.lost_after == 3


def test_a_rate_limit_that_allows_less_is_no_trouble() -> None:
    assert wait_polling(PollingSettings(), interval_s=2.0, rate_limit=1 / 60).max_interval_s == 120


@pytest.mark.parametrize(("timeout_s", "waited"), [(1.5, "1.5 s"), (2.0, "2 s"), (600.0, "10 m")])
def test_time_that_is_over_is_reported_as_it_was_given(timeout_s: float, waited: str) -> None:
    assert _timed_out(Progress(lost_after=3), timeout_s).problem == f"not seen after {waited} (--timeout)"


def test_what_went_wrong_last_is_said_when_time_is_over() -> None:
    progress = Progress(lost_after=3)
    progress.answered(Reply(Outcome.CONNECTION, Monotonic(0.0)), at=EPOCH, now=Monotonic(0.0))
    assert _timed_out(progress, 8.0).problem == "not seen after 8 s (--timeout); the last poll failed: no connection"
