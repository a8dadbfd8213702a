"""The schedule of the daemon's jobs: owners' jobs on the monotonic clock, periodic jobs by APScheduler.

APScheduler goes by the wall clock. If that clock is set back by an hour, periodic jobs would wait an hour longer. A
guard on the monotonic clock notices the step and runs these jobs at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from watcher.runtime.clock import Clock

WakeIn = Callable[..., None]
"""A function that wakes a job after some seconds, or at once if called without seconds."""

Tick = Callable[[], Awaitable[float | None]]
"""The work of a job. It returns the seconds until the next run, or `None` to run only when woken."""

LONGEST_SLEEP_S = 2.0
"""The longest wait of an owner's job. A lost wake-up therefore delays the job by at most this."""

GUARD_EVERY_S = 0.5
ALIVE_WITHIN_S = 30.0

SET_BACK_S = 0.25
"""The smallest step back of the wall clock that the guard acts on. Time synchronisation makes smaller steps."""


@dataclass(slots=True)
class _Job:
    """A job: work that is run again and again in one task, so two runs never overlap."""

    name: str
    run: Tick
    woke_at: float  # running time, because a stop of the process is no fault of the job
    failed: Callable[[BaseException], None]
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    is_ending: bool = False
    has_run: bool = False
    task: asyncio.Task[None] | None = None


class Every(BaseTrigger):  # type: ignore[misc]
    """A trigger with a fixed interval. APScheduler's own trigger computes all runs missed while the clock was wrong."""

    def __init__(self, every_s: float) -> None:
        self._every = timedelta(seconds=every_s)

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        """Return the time of the next run: one interval after `now` (wall clock)."""
        return now + self._every


class Schedule:
    """The jobs on the event loop. A job runs again and again until it raises, it is removed, or the schedule stops."""

    def __init__(self, *, clock: Clock, fatal: Callable[[BaseException], None], lag: Callable[[float], None]) -> None:
        """Start nothing yet. `fatal` gets the error of a job, `lag` the seconds by which the event loop woke late."""
        self._clock = clock
        self._fatal = fatal
        self._lag = lag
        self._jobs: dict[str, _Job] = {}
        self._is_started = False
        self._guard: asyncio.TimerHandle | None = None
        self._ran_s = clock.running()
        self._wall_ahead_s = clock.now().timestamp() - clock.monotonic()
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )

    def add(self, name: str, run: Tick, *, failed: Callable[[BaseException], None] | None = None) -> None:
        """Add a job that runs at once, whenever it is woken, and after the seconds that a run returns, at most 2.

        `failed` gets the error that the job raises, in place of `fatal`.
        """
        self._begin(_Job(name, run, self._ran_s, failed or self._fatal))

    def repeat(self, name: str, run: Tick, *, every_s: float) -> None:
        """Add a job that runs at once, whenever it is woken, and every `every_s` seconds."""
        job = _Job(name, run, self._ran_s, self._fatal)
        self._scheduler.add_job(_wake, Every(every_s), args=(job,))
        self._begin(job)

    async def remove(self, name: str) -> None:
        """Remove the job of this name, if there is one, and wait for its present run."""
        job = self._jobs.pop(name, None)
        if job is not None:
            await _end([job])

    def waker(self, name: str) -> WakeIn:
        """Return a function that wakes the job of this name. The job may be added later."""

        def wake(in_s: float = 0.0) -> None:
            job = self._jobs.get(name)
            if job is not None and in_s > 0:
                asyncio.get_running_loop().call_later(in_s, job.woken.set)
            elif job is not None:
                job.woken.set()

        return wake

    def start(self) -> None:
        """Start the jobs and the guard."""
        self._is_started = True
        for job in self._jobs.values():
            self._begin(job)
        self._scheduler.start()
        self._run_guard(self._clock.monotonic())

    async def stop(self) -> None:
        """Start no more runs, and wait for the present ones. Owners drain their requests in flight themselves."""
        self._is_started = False
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None
            self._scheduler.shutdown(wait=False)
        await _end(self._jobs.values())

    def stalled_jobs(self) -> list[str]:
        """Return the names of the jobs that have not begun a run for 30 s of running time."""
        now = self._clock.running()
        return [job.name for job in self._jobs.values() if now - job.woke_at > ALIVE_WITHIN_S]

    def jobs_not_run_yet(self) -> list[str]:
        """Return the names of the jobs that have not finished a first run."""
        return [job.name for job in self._jobs.values() if not job.has_run]

    def _begin(self, job: _Job) -> None:
        self._jobs[job.name] = job
        if self._is_started:
            job.task = asyncio.create_task(self._work(job), name=job.name)

    async def _work(self, job: _Job) -> None:
        loop = asyncio.get_running_loop()
        try:
            while not job.is_ending:
                job.woken.clear()
                job.woke_at = self._ran_s
                delay_s = await job.run()
                job.has_run = True
                if job.woken.is_set():  # woken during the run: run again, after other tasks
                    await asyncio.sleep(0)
                elif delay_s is None:
                    await job.woken.wait()
                else:
                    timer = loop.call_later(min(LONGEST_SLEEP_S, delay_s), job.woken.set)
                    await job.woken.wait()
                    timer.cancel()
        except Exception as error:  # noqa: BLE001 (nobody awaits the task, and a dead job must end the daemon)
            job.failed(error)

    def _run_guard(self, expected_at: float) -> None:
        """Measure the delay of this call, and run all periodic jobs at once if the wall clock was set back."""
        try:
            now = self._clock.monotonic()
            self._ran_s = self._clock.running()  # also because the running time must be read often
            self._lag(max(0.0, now - expected_at))
            wall_ahead_s = self._clock.now().timestamp() - now
            if wall_ahead_s < self._wall_ahead_s - SET_BACK_S:
                for scheduled in self._scheduler.get_jobs():
                    scheduled.modify(next_run_time=datetime.now(UTC))
            self._wall_ahead_s = wall_ahead_s
            loop = asyncio.get_running_loop()
            self._guard = loop.call_later(GUARD_EVERY_S, self._run_guard, now + GUARD_EVERY_S)
        except Exception as error:  # noqa: BLE001 (the event loop would only log it, and the guard would be gone)
            self._fatal(error)


async def _wake(job: _Job) -> None:
    # A coroutine, because APScheduler runs plain functions in a thread.
    job.woken.set()


async def _end(jobs: Collection[_Job]) -> None:
    for job in jobs:
        job.is_ending = True
        job.woken.set()
    if tasks := [job.task for job in jobs if job.task is not None]:
        await asyncio.wait(tasks)
