"""The machine's clocks, and times as integers."""

import time
from datetime import UTC, datetime

from watcher.domain.timestamps import EARLIEST
from watcher.runtime.clock import STOPPED_AFTER_S, Clock


def test_clocks_read_as_the_machines_do_and_go_on_while_it_sleeps() -> None:
    before = datetime.now(UTC)
    now = Clock().now()
    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC
    name = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    booted = time.clock_gettime(name)
    assert booted <= Clock().boot_time() <= time.clock_gettime(name)
    clock = Clock()
    steady, boot_time = clock.steady_us(), clock.boot_time()
    assert abs(steady - time.time_ns() // 1000) < 1_000_000
    assert abs((clock.steady_us() - steady) / 1e6 - (clock.boot_time() - boot_time)) < 0.1


def test_the_steady_clock_alone_is_set_to_another_machines() -> None:
    clock = Clock()
    steady, monotonic = clock.steady_us(), clock.monotonic()
    clock.advance(-3_600_000_000)
    assert abs((clock.steady_us() - steady) / 1e6 + 3_600 - (clock.monotonic() - monotonic)) < 0.1
    assert abs(clock.now().timestamp() - time.time()) < 1


def test_a_stop_does_not_count_as_run_and_ends_when_the_clock_is_read() -> None:
    now = 50.0
    clock = Clock(read=lambda: now)
    readings = []
    for passed_s in (0.5, 0.5, 310.0, 0.5):
        now += passed_s
        readings.append(clock.running())
    assert readings == [0.5, 1.0, 1.0 + STOPPED_AFTER_S, 1.5 + STOPPED_AFTER_S]
    now = 50.0
    clock = Clock(read=lambda: now)
    moments = []
    for passed_s in (0.5, STOPPED_AFTER_S, 310.0, 0.5):
        now += passed_s
        moments.append(clock.resumed_at())
    assert moments == [EARLIEST, EARLIEST, 362.5, 362.5]
