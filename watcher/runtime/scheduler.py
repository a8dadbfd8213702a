"""When what runs all the time runs next: owners on the monotonic clock, periodic work by APScheduler.

That lives on the wall clock: set back an hour, it would wait for that hour, so a guard on the monotonic clock has what
is periodic run at once then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from watcher.runtime.clock import Clock

WakeIn = Callable[..., None]
"""Asks a job to run in so many seconds at the latest; without any, now."""

Tick = Callable[[], Awaitable[float | None]]
"""Does what is due and returns the seconds until it wants to run again, `None` for not before it is woken."""

LONGEST_S = 2.0
"""A wake that was lost costs an owner no more."""

GUARD_EVERY_S = 0.5
ALIVE_WITHIN_S = 30.0

SET_BACK_S = 0.25
"""A wall clock that is adjusted moves by less between two looks of the guard."""


@dataclass(slots=True)
class _Job:
    """What runs again and again, in a task of its own, so it never overlaps itself."""

    name: str
    run: Tick
    woke_at: float  # by the clock of running time: a process that was stopped has not let its jobs sleep too long
    failed: Callable[[BaseException], None]
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    is_ending: bool = False
    has_run: bool = False
    task: asyncio.Task[None] | None = None


class Every(BaseTrigger):  # type: ignore[misc]
    """Fires so long after each time it fired; APScheduler's own goes through all that a wrong clock missed."""

    def __init__(self, every_s: float) -> None:
        self._every = timedelta(seconds=every_s)

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        """Return when it fires next."""
        return now + self._every


class Schedule:
    """Runs jobs on the event loop until stopped; one that raises runs no more."""

    def __init__(self, *, clock: Clock, fatal: Callable[[BaseException], None], lag: Callable[[float], None]) -> None:
        """Start nothing yet. `lag` is given how late the event loop woke, in seconds."""
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
        """Add a job that runs at once, and again when it is woken, and after the time it asks for, 2 s at the most.

        `failed` is given what it raises.
        """
        self._begin(_Job(name, run, self._ran_s, failed or self._fatal))

    def repeat(self, name: str, run: Tick, *, every_s: float) -> None:
        """Add a job that runs at once, when it is woken, and every so often for as long as the schedule runs."""
        job = _Job(name, run, self._ran_s, self._fatal)
        self._scheduler.add_job(_wake, Every(every_s), args=(job,))
        self._begin(job)

    async def remove(self, name: str) -> None:
        """Run the job of that name no more, if it is there; return once it is not under way."""
        job = self._jobs.pop(name, None)
        if job is not None:
            await _end([job])

    def waker(self, name: str) -> WakeIn:
        """Return what wakes the job of that name early, once it was added."""

        def wake(in_s: float = 0.0) -> None:
            job = self._jobs.get(name)
            if job is not None and in_s > 0:
                asyncio.get_running_loop().call_later(in_s, job.woken.set)
            elif job is not None:
                job.woken.set()

        return wake

    def start(self) -> None:
        """Let the jobs run."""
        self._is_started = True
        for job in self._jobs.values():
            self._begin(job)
        self._scheduler.start()
        self._stand_guard(self._clock.monotonic())

    async def stop(self) -> None:
        """Start no more jobs and wait for those under way. What the jobs started is theirs to drain."""
        self._is_started = False
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None
            self._scheduler.shutdown(wait=False)
        await _end(self._jobs.values())

    def stalled(self) -> list[str]:
        """Return the jobs that have not woken within 30 s in which the process ran."""
        now = self._clock.running()
        return [job.name for job in self._jobs.values() if now - job.woke_at > ALIVE_WITHIN_S]

    def not_yet_run(self) -> list[str]:
        """Return the jobs that have not run once."""
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
                if job.woken.is_set():  # it may have come too late for this run to see; first it is others' turn
                    await asyncio.sleep(0)
                elif delay_s is None:
                    await job.woken.wait()
                else:
                    timer = loop.call_later(min(LONGEST_S, delay_s), job.woken.set)
                    await job.woken.wait()
                    timer.cancel()
        except Exception as error:  # noqa: BLE001 (nobody waits for the task: a dead job must end the daemon)
            job.failed(error)

    def _stand_guard(self, expected_at: float) -> None:
        """Measure how late this very call is, and have all run now that waits for a wall clock that was set back."""
        try:
            now = self._clock.monotonic()
            self._ran_s = self._clock.running()  # it must be read this often
            self._lag(max(0.0, now - expected_at))
            wall_ahead_s = self._clock.now().timestamp() - now
            if wall_ahead_s < self._wall_ahead_s - SET_BACK_S:
                for scheduled in self._scheduler.get_jobs():
                    scheduled.modify(next_run_time=datetime.now(UTC))
            self._wall_ahead_s = wall_ahead_s
            loop = asyncio.get_running_loop()
            self._guard = loop.call_later(GUARD_EVERY_S, self._stand_guard, now + GUARD_EVERY_S)
        except Exception as error:  # noqa: BLE001 (the event loop would only log it, and nobody stood guard any more)
            self._fatal(error)


async def _wake(job: _Job) -> None:
    job.woken.set()


async def _end(jobs: Collection[_Job]) -> None:
    for job in jobs:
        job.is_ending = True
        job.woken.set()
    if tasks := [job.task for job in jobs if job.task is not None]:
        await asyncio.wait(tasks)
