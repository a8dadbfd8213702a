"""The machine's clocks, and times as integers."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from stores import START_US, SetClock, from_us

from watcher.domain.timestamps import Micros, to_us
from watcher.runtime.clock import SLEWED_US, STOPPED_AFTER_S, ServerClock, SystemClock


def test_the_wall_clock_is_aware_utc() -> None:
    before = datetime.now(UTC)
    now = SystemClock().now()
    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC


def test_the_monotonic_clock_is_the_one_asyncio_uses() -> None:
    before = time.monotonic()
    assert before <= SystemClock().monotonic() <= time.monotonic()


def test_boot_time_goes_on_while_the_machine_sleeps() -> None:
    name = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    before = time.clock_gettime(name)
    assert before <= SystemClock().boot_time() <= time.clock_gettime(name)


def test_the_steady_clock_reads_like_the_wall_clock_and_runs_like_the_monotonic_one() -> None:
    clock = SystemClock()
    steady, monotonic = clock.steady_us(), clock.monotonic()
    assert abs(steady - time.time_ns() // 1000) < 1_000_000
    assert abs((clock.steady_us() - steady) / 1e6 - (clock.monotonic() - monotonic)) < 0.1


def test_the_steady_clock_alone_is_set_to_another_machines() -> None:
    clock = SystemClock()
    steady, monotonic = clock.steady_us(), clock.monotonic()
    clock.advance(-3_600_000_000)
    assert abs((clock.steady_us() - steady) / 1e6 + 3_600 - (clock.monotonic() - monotonic)) < 0.1
    assert abs(clock.now().timestamp() - time.time()) < 1


def test_time_in_which_the_process_was_stopped_does_not_count_as_run() -> None:
    now = 50.0
    clock = SystemClock(read=lambda: now)
    readings = []
    for passed_s in (0.5, 0.5, 310.0, 0.5):
        now += passed_s
        readings.append(clock.running())
    assert readings == [0.5, 1.0, 1.0 + STOPPED_AFTER_S, 1.5 + STOPPED_AFTER_S]


@pytest.mark.parametrize(
    ("server_ahead_us", "asked_us_ago", "moved_us"),
    [
        (3_600_000_000, 0, 3_600_000_000),
        (5, 10, 5),  # the answer came as long after it was read
        (-5, 10, 0),
        (-15, 10, -5),
        (-3_600_000_000, 10, -SLEWED_US),  # what waits already is not to wait an hour longer
    ],
)
def test_a_clock_follows_a_servers_as_far_as_it_is_known_to_differ(
    server_ahead_us: int, asked_us_ago: int, moved_us: int
) -> None:
    own = SetClock()
    clock = ServerClock(own)
    clock.follow(Micros(START_US + server_ahead_us), asked_at=Micros(START_US - asked_us_ago))
    assert clock.steady_us() - own.steady_us() == moved_us
    assert (clock.now(), clock.monotonic(), clock.boot_time()) == (own.now(), own.monotonic(), own.boot_time())


@pytest.mark.parametrize("us", [0, 1, 999_999, 1_764_000_001_000_001, 1_799_999_999_999_999, 4_102_444_800_000_001])
def test_microseconds_survive_the_way_to_a_datetime_and_back(us: int) -> None:
    assert to_us(from_us(us)) == us


@pytest.mark.parametrize("offset_h", [-12, 0, 5.5, 14])
def test_a_moment_is_the_same_number_in_every_zone(offset_h: float) -> None:
    moment = datetime(2026, 11, 24, 10, 0, 0, 123_457, tzinfo=UTC)
    assert to_us(moment.astimezone(timezone(timedelta(hours=offset_h)))) == to_us(moment) == 1_795_514_400_123_457
