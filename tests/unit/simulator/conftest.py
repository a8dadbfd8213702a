"""A world whose time the test decides, and requests to it over a real socket."""

from collections.abc import Callable

import pytest
from worker_rig import FakeClock

from watcher.simulator.world import World


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def world(clock: FakeClock) -> World:
    return World(clock)


@pytest.fixture
def travel(clock: FakeClock) -> Callable[[float], None]:
    """Set the second the world is in."""

    def to(passed_s: float) -> None:
        clock.elapsed_s = passed_s

    return to
