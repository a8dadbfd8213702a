"""The daemon's clock: jobs that say when they want to run next. The only file that imports APScheduler.

APScheduler lives on the wall clock, which may be set back or stand still; a guard on the monotonic clock wakes what
is overdue by it: a clock set back an hour would leave every job waiting for that hour.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog
from apscheduler.job import Job
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from watcher.domain.timestamps import Monotonic
from watcher.runtime.clock import Clock

log = structlog.get_logger()

Wake = Callable[[], None]
"""Asks a job to run now; never blocks."""

Tick = Callable[[], Awaitable[float]]
"""Does what is due and returns the seconds until it wants to run again."""

LONGEST_S = 10.0
GUARD_EVERY_S = 0.5
ALIVE_WITHIN_S = 30.0

MAX_INSTANCES = 3
"""APScheduler counts a run as running until a moment after it returned, and would skip the next one in that moment.

That a job never overlaps itself is ours to see to.
"""


@dataclass(slots=True)
class _Job:
    """One job that repeats. `due_at` is in monotonic seconds; `again` asks for another run right after this one.

    `woke_at` is by the clock of running time: a process that was stopped has not let its jobs sleep too long.
    """

    name: str
    run: Tick
    due_at: Monotonic
    woke_at: float
    has_run: bool = False
    again: bool = False
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    scheduled: Job | None = None


class Schedule:
    """Runs jobs on the event loop until stopped; a job that raises ends the daemon through `fatal`."""

    def __init__(self, *, clock: Clock, fatal: Callable[[BaseException], None], lag: Callable[[float], None]) -> None:
        """Start nothing yet. `lag` is given how late the event loop woke, in seconds."""
        self._clock = clock
        self._fatal = fatal
        self._lag = lag
        self._jobs: dict[str, _Job] = {}
        self._guard: asyncio.TimerHandle | None = None
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": MAX_INSTANCES}
        )

    def add(self, name: str, run: Tick) -> None:
        """Add a job that first runs at once."""
        job = _Job(name, run, self._clock.monotonic(), self._clock.running())
        job.idle.set()
        job.scheduled = self._scheduler.add_job(
            self._run,
            IntervalTrigger(seconds=int(LONGEST_S), timezone=UTC),
            args=(job,),
            id=name,
            next_run_time=datetime.now(UTC),
        )
        self._jobs[name] = job

    async def remove(self, name: str) -> None:
        """Run that job no more, if it is there; return once it is not under way."""
        job = self._jobs.pop(name, None)
        if job is None or job.scheduled is None:
            return
        job.scheduled.remove()
        job.scheduled = None
        await job.idle.wait()

    def waker(self, name: str) -> Wake:
        """Return what wakes the job of that name early, once it was added."""

        def wake() -> None:
            if name in self._jobs:
                self._wake(self._jobs[name])

        return wake

    def start(self) -> None:
        """Let the jobs run."""
        self._scheduler.start()
        self._arm_guard()

    async def stop(self) -> None:
        """Start no more jobs and wait for those under way. What the jobs started is theirs to drain."""
        if self._guard is not None:
            self._guard.cancel()
        if self._scheduler.running:
            self._scheduler.pause()
            for job in list(self._jobs.values()):
                await job.idle.wait()
                job.scheduled = None  # which goes with the scheduler: whoever removes the job now finds it gone
            self._scheduler.shutdown(wait=False)

    def stalled(self) -> list[str]:
        """Return the jobs that have not woken within 30 s in which the process ran."""
        now = self._clock.running()
        return [job.name for job in self._jobs.values() if now - job.woke_at > ALIVE_WITHIN_S]

    def not_yet_run(self) -> list[str]:
        """Return the jobs that have not run once."""
        return [job.name for job in self._jobs.values() if not job.has_run]

    async def _run(self, job: _Job) -> None:
        if self._jobs.get(job.name) is not job:  # removed after APScheduler had begun to start it
            return
        if not job.idle.is_set():
            job.again = True
            return
        job.idle.clear()
        job.again = False
        job.woke_at = self._clock.running()
        try:
            try:
                delay_s = min(LONGEST_S, await job.run())
            finally:
                job.idle.set()
            job.has_run = True
            # What woke it while it ran may have come too late for this run to see: it runs again at once.
            self._run_in(job, 0.0 if job.again else delay_s)
        except Exception as error:  # noqa: BLE001 (APScheduler would swallow it: a dead job must end the daemon)
            self._fatal(error)

    def _wake(self, job: _Job) -> None:
        if not job.idle.is_set():
            job.again = True
        elif job.due_at > self._clock.monotonic():
            self._run_in(job, 0.0)

    def _run_in(self, job: _Job, delay_s: float) -> None:
        job.due_at = Monotonic(self._clock.monotonic() + delay_s)
        if self._scheduler.running and job.scheduled is not None:
            job.scheduled.modify(next_run_time=datetime.now(UTC) + timedelta(seconds=delay_s))

    def _arm_guard(self) -> None:
        self._guard = asyncio.get_running_loop().call_later(
            GUARD_EVERY_S, self._stand_guard, self._clock.monotonic() + GUARD_EVERY_S
        )

    def _stand_guard(self, expected_at: float) -> None:
        """Wake what the wall clock has left behind, and measure how late this very call is."""
        try:
            now = self._clock.monotonic()
            self._clock.running()  # it must be read this often
            self._lag(max(0.0, now - expected_at))
            for job in self._jobs.values():
                if job.idle.is_set() and now - job.due_at > GUARD_EVERY_S:
                    self._run_in(job, 0.0)
            self._arm_guard()
        except Exception as error:  # noqa: BLE001 (the event loop would only log it, and nobody stood guard any more)
            self._fatal(error)
