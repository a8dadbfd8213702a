"""The schedule on the real APScheduler and the real event loop, with jobs that are counted instead of timed."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from virtual import FakeClock

from watcher.runtime.clock import Clock
from watcher.runtime.scheduler import Every, Schedule


class Failures(list[BaseException]):
    """What was fatal."""


@pytest.fixture
def failures() -> Failures:
    return Failures()


@pytest.fixture
async def schedule(failures: Failures) -> AsyncIterator[Schedule]:
    schedule = Schedule(clock=Clock(), fatal=failures.append, lag=lambda _lag_s: None)
    yield schedule
    await schedule.stop()


class CountedTick:
    """A job that says when it ran; `wants` is the delay it asks for."""

    def __init__(self, wants: float = 10.0) -> None:
        self.wants = wants
        self.count = 0
        self._ran = asyncio.Condition()

    async def __call__(self) -> float:
        async with self._ran:
            self.count += 1
            self._ran.notify_all()
        return self.wants

    async def reached(self, count: int) -> None:
        async with asyncio.timeout(5), self._ran:
            await self._ran.wait_for(lambda: self.count >= count)


async def test_jobs_and_periodic_work_run_at_once_and_again(schedule: Schedule) -> None:
    ran = CountedTick(0.01)
    schedule.add("account:a", ran)
    schedule.start()
    await ran.reached(5)


async def test_a_wake_runs_a_job_early(schedule: Schedule) -> None:
    ran = CountedTick()
    schedule.add("account:a", ran)
    wake = schedule.waker("account:a")
    schedule.start()
    await ran.reached(1)
    wake()
    await ran.reached(2)


async def test_a_job_that_is_woken_while_it_runs_runs_again_and_lets_others_run(schedule: Schedule) -> None:
    wake, count = schedule.waker("account:a"), 0

    async def restless_job() -> float:
        nonlocal count
        count += 1
        wake()
        return 10.0

    schedule.add("account:a", restless_job)
    schedule.start()
    async with asyncio.timeout(5):
        while count < 5:
            before = count
            await asyncio.sleep(0)
            assert count <= before + 1


async def test_a_wake_that_was_lost_costs_a_second_or_two(schedule: Schedule) -> None:
    ran = CountedTick()
    schedule.add("account:a", ran)
    schedule.start()
    await ran.reached(2)


async def test_periodic_work_runs_at_once_and_then_every_so_often(schedule: Schedule) -> None:
    ran = CountedTick()
    schedule.repeat("upkeep", ran, every_s=0.01)
    assert schedule.jobs_not_run_yet() == ["upkeep"]
    schedule.start()
    await ran.reached(5)
    assert schedule.jobs_not_run_yet() == []


@pytest.mark.parametrize(("set_by_s", "runs_again"), [(-3600.0, True), (0.0, False), (3600.0, False)])
async def test_periodic_work_that_a_clock_set_back_delays_runs_at_once(set_by_s: float, runs_again: bool) -> None:
    clock, clocks_read = FakeClock(), asyncio.Event()
    schedule = Schedule(clock=clock, fatal=_never, lag=lambda _lag_s: clocks_read.set())
    ran = CountedTick()
    schedule.repeat("upkeep", ran, every_s=60.0)
    schedule.start()
    await ran.reached(1)
    clock.wall_offset_s += set_by_s
    clocks_read.clear()
    async with asyncio.timeout(5):
        await clocks_read.wait()
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert ran.count == 1 + runs_again
    await schedule.stop()


def test_periodic_work_does_not_go_through_the_times_that_a_clock_set_forward_has_missed() -> None:
    began = datetime(1970, 1, 1, tzinfo=UTC)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert Every(5.0).get_next_fire_time(began, now) == now + timedelta(seconds=5)


async def test_a_job_that_raises_is_fatal(schedule: Schedule, failures: Failures) -> None:
    raised = asyncio.Event()

    async def broken_job() -> float:
        raised.set()
        raise RuntimeError

    schedule.add("account:a", broken_job)
    schedule.start()
    await raised.wait()
    assert [type(error) for error in failures] == [RuntimeError]
    assert schedule.jobs_not_run_yet() == ["account:a"]


@pytest.mark.parametrize("ending", ["stop", "remove"])
async def test_what_ends_waits_for_the_job_under_way(schedule: Schedule, ending: str) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow_job() -> float:
        begun.set()
        await go_on.wait()
        return 0.0

    schedule.add("account:a", slow_job)
    schedule.start()
    await begun.wait()
    ended = asyncio.create_task(schedule.stop() if ending == "stop" else schedule.remove("account:a"))
    await asyncio.sleep(0)
    assert not ended.done()
    go_on.set()
    await ended


async def test_a_job_is_stalled_that_has_not_woken_for_30_s_in_which_the_process_ran() -> None:
    clock = FakeClock()
    schedule = Schedule(clock=clock, fatal=_never, lag=lambda _lag_s: None)
    ran = CountedTick()
    schedule.add("account:a", ran)
    assert schedule.jobs_not_run_yet() == ["account:a"]
    schedule.start()
    await ran.reached(1)
    await asyncio.sleep(0)
    assert schedule.jobs_not_run_yet() == []
    clock.advance(29.0)
    clock.stop_for(3600.0)
    assert schedule.stalled_jobs() == []
    clock.advance(2.0)
    assert schedule.stalled_jobs() == ["account:a"]
    await schedule.stop()


async def test_a_guard_that_raises_ends_the_daemon(failures: Failures) -> None:
    failed = asyncio.Event()

    def fail(error: BaseException) -> None:
        failures.append(error)
        failed.set()

    def measure(_lag_s: float) -> None:
        raise ZeroDivisionError

    schedule = Schedule(clock=Clock(), fatal=fail, lag=measure)
    schedule.start()
    async with asyncio.timeout(5):
        await failed.wait()
    assert isinstance(failures[0], ZeroDivisionError)
    await schedule.stop()


def _never(error: BaseException) -> None:
    raise AssertionError(error)


async def test_a_job_that_is_removed_runs_no_more(schedule: Schedule, failures: Failures) -> None:
    ran, other = CountedTick(0.01), CountedTick(0.01)
    schedule.add("account:a", ran)
    schedule.add("account:b", other)
    schedule.start()
    await ran.reached(2)
    await schedule.remove("account:a")
    count = ran.count
    schedule.waker("account:a")()
    await other.reached(other.count + 5)
    assert ran.count == count
    assert (schedule.jobs_not_run_yet(), schedule.stalled_jobs(), failures) == ([], [], [])
