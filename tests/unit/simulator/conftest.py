"""A world whose time the test decides, and requests to it over a real socket."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from watcher.domain.timestamps import BootTime, Micros, Monotonic
from watcher.simulator.world import World

EPOCH = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


class FrozenClock:
    def __init__(self) -> None:
        self.passed_s = 0.0

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.passed_s)

    def monotonic(self) -> Monotonic:
        return Monotonic(1000.0 + self.passed_s)

    def running(self) -> float:
        return self.monotonic()

    def boot_time(self) -> BootTime:
        return BootTime(self.monotonic())

    def steady_us(self) -> Micros:
        return Micros(round(self.now().timestamp() * 1_000_000))


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def world(clock: FrozenClock) -> World:
    return World(clock)


@pytest.fixture
def travel(clock: FrozenClock) -> Callable[[float], None]:
    """Set the second the world is in."""

    def to(passed_s: float) -> None:
        clock.passed_s = passed_s

    return to
