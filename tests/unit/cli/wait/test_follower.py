"""A wait that ends otherwise than by what the API says; the rest is tested with the real program."""

import pytest
from virtual import FakeClock

from watcher.clerk.api import Reply
from watcher.cli.wait import (
    Progress,
    View,
    take,
    timed_out,
    wait_cadence,
    wait_polling,
)
from watcher.config.models import PollingSettings
from watcher.domain.errors import StoreError
from watcher.domain.execution import Outcome
from watcher.domain.timestamps import Monotonic
from watcher.polling.failures import ERROR_JITTER


def unknown() -> Progress:
    return Progress("p", "e", lost_after=3)


def test_what_would_end_the_daemon_ends_the_wait() -> None:
    progress, view = unknown(), View()
    take(Reply(Outcome.TIMEOUT, Monotonic(0.0)), progress, view, clock=FakeClock())
    assert progress.poll_count == 1
    with pytest.raises(StoreError, match="gone"):
        take(StoreError("gone"), progress, view, clock=FakeClock())


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
    assert timed_out(unknown(), timeout_s).problem == f"not seen after {waited} (--timeout)"
