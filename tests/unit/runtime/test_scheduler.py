"""The schedule on the real APScheduler and the real event loop, with jobs that are counted instead of timed."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from virtual import FakeClock

from watcher.runtime.clock import SystemClock
from watcher.runtime.scheduler import Schedule


class Failures(list[BaseException]):
    """What was fatal."""


@pytest.fixture
def failures() -> Failures:
    return Failures()


@pytest.fixture
async def schedule(failures: Failures) -> AsyncIterator[Schedule]:
    schedule = Schedule(clock=SystemClock(), fatal=failures.append, lag=lambda _lag_s: None)
    yield schedule
    await schedule.stop()


class CountedTick:
    """A job that says when it ran; `wants` is the delay it asks for."""

    def __init__(self, wants: float) -> None:
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


async def test_a_job_runs_at_once_and_again_after_the_delay_it_asks_for(schedule: Schedule) -> None:
    ran = CountedTick(0.01)
    schedule.add("account:a", ran)
    schedule.start()
    await ran.reached(5)


async def test_a_wake_runs_a_job_early(schedule: Schedule) -> None:
    ran = CountedTick(10.0)
    schedule.add("account:a", ran)
    wake = schedule.waker("account:a")
    schedule.start()
    await ran.reached(1)
    wake()
    await ran.reached(2)


async def test_a_wake_for_nobody_is_nothing(schedule: Schedule) -> None:
    schedule.waker("account:none")()
    assert schedule.not_yet_run() == []


async def test_a_wake_while_the_job_runs_is_not_lost(schedule: Schedule) -> None:
    begun, go_on, count = asyncio.Event(), asyncio.Event(), 0
    again = asyncio.Event()

    async def slow_job() -> float:
        nonlocal count
        count += 1
        if count > 1:
            again.set()
        begun.set()
        await go_on.wait()
        return 10.0

    schedule.add("account:a", slow_job)
    schedule.start()
    await begun.wait()
    schedule.waker("account:a")()
    go_on.set()
    async with asyncio.timeout(5):
        await again.wait()


async def test_a_job_that_wants_to_run_on_and_on_is_never_skipped(
    schedule: Schedule, caplog: pytest.LogCaptureFixture
) -> None:
    ran = CountedTick(0.0)
    schedule.add("account:a", ran)
    schedule.start()
    await ran.reached(200)
    assert caplog.records == []


async def test_a_job_never_overlaps_itself(schedule: Schedule) -> None:
    running, most, done = 0, 0, asyncio.Event()

    async def overlapping_job() -> float:
        nonlocal running, most
        running += 1
        most = max(most, running)
        ours = schedule._jobs["account:a"]
        assert ours.scheduled is not None
        ours.scheduled.modify(next_run_time=datetime.now(UTC))
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        done.set()
        return 10.0

    schedule.add("account:a", overlapping_job)
    schedule.start()
    await done.wait()
    await asyncio.sleep(0)
    assert most == 1


async def test_a_job_that_the_wall_clock_left_behind_is_run_by_the_guard(schedule: Schedule) -> None:
    ran = CountedTick(0.2)
    schedule.add("account:a", ran)
    schedule.start()
    await ran.reached(1)
    job = schedule._jobs["account:a"].scheduled
    assert job is not None
    job.modify(next_run_time=datetime.now(UTC) + timedelta(hours=1))
    await ran.reached(2)


async def test_a_job_that_raises_is_fatal(schedule: Schedule, failures: Failures) -> None:
    raised = asyncio.Event()

    async def broken_job() -> float:
        raised.set()
        raise RuntimeError

    schedule.add("account:a", broken_job)
    schedule.start()
    await raised.wait()
    await asyncio.sleep(0)
    assert [type(error) for error in failures] == [RuntimeError]
    assert schedule.not_yet_run() == ["account:a"]


async def test_stopping_waits_for_the_job_under_way_and_starts_no_other(schedule: Schedule) -> None:
    begun, go_on, ended = asyncio.Event(), asyncio.Event(), []

    async def slow_job() -> float:
        begun.set()
        await go_on.wait()
        ended.append(True)
        return 0.0

    schedule.add("account:a", slow_job)
    schedule.start()
    await begun.wait()
    stopping = asyncio.create_task(schedule.stop())
    await asyncio.sleep(0)
    go_on.set()
    await stopping
    assert ended == [True]


@pytest.mark.parametrize(("after_s", "stalled"), [(29.0, []), (31.0, ["account:a"])])
async def test_a_job_that_has_not_woken_for_30_s_is_stalled(after_s: float, stalled: list[str]) -> None:
    clock = FakeClock()
    schedule = Schedule(clock=clock, fatal=_never, lag=lambda _lag_s: None)
    ran = CountedTick(10.0)
    schedule.add("account:a", ran)
    assert schedule.not_yet_run() == ["account:a"]
    schedule.start()
    await ran.reached(1)
    await asyncio.sleep(0)
    assert schedule.not_yet_run() == []
    clock.advance(after_s)
    assert schedule.stalled() == stalled
    await schedule.stop()


async def test_a_job_of_a_process_that_was_stopped_is_not_stalled() -> None:
    clock = FakeClock()
    schedule = Schedule(clock=clock, fatal=_never, lag=lambda _lag_s: None)
    ran = CountedTick(10.0)
    schedule.add("account:a", ran)
    schedule.start()
    await ran.reached(1)
    clock.advance(20.0)
    clock.stop_for(3600.0)
    assert schedule.stalled() == []
    clock.advance(11.0)
    assert schedule.stalled() == ["account:a"]
    await schedule.stop()


async def test_a_guard_that_raises_ends_the_daemon(failures: Failures) -> None:
    failed = asyncio.Event()

    def fail(error: BaseException) -> None:
        failures.append(error)
        failed.set()

    def measure(_lag_s: float) -> None:
        raise ZeroDivisionError

    schedule = Schedule(clock=SystemClock(), fatal=fail, lag=measure)
    schedule.start()
    async with asyncio.timeout(5):
        await failed.wait()
    assert isinstance(failures[0], ZeroDivisionError)
    await schedule.stop()


async def test_the_lag_of_the_event_loop_is_reported() -> None:
    noted = asyncio.Event()

    def raises(_lag_s: float) -> None:
        noted.set()

    schedule = Schedule(clock=SystemClock(), fatal=_never, lag=raises)
    schedule.start()
    async with asyncio.timeout(5):
        await noted.wait()
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
    assert (schedule.not_yet_run(), schedule.stalled(), failures) == ([], [], [])


async def test_removing_waits_for_the_job_that_is_under_way(schedule: Schedule) -> None:
    entered, released = asyncio.Event(), asyncio.Event()

    async def held() -> float:
        entered.set()
        await released.wait()
        return 0.0

    schedule.add("account:a", held)
    schedule.start()
    await entered.wait()
    removing = asyncio.create_task(schedule.remove("account:a"))
    await asyncio.sleep(0)
    assert not removing.done()
    released.set()
    await removing


async def test_removing_what_is_not_there_is_nothing(schedule: Schedule) -> None:
    await schedule.remove("account:a")


async def test_removing_after_the_stop_is_nothing(schedule: Schedule) -> None:
    ran = CountedTick(10.0)
    schedule.add("account:a", ran)
    schedule.start()
    await ran.reached(1)
    await schedule.stop()
    await asyncio.sleep(0)  # the scheduler shuts down in a turn of its own
    await schedule.remove("account:a")
