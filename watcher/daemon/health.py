"""The health of the daemon: the checks for `/readyz`, and the pings of the heartbeat.

The pings go to an outside service, which alerts when they stop. A ping is a GET. Only scheme and host of its URL are
ever shown, because the path is a secret.
"""

import asyncio
from contextlib import aclosing

import structlog
from yarl import URL

from watcher.config.models import HeartbeatSettings
from watcher.daemon.build import OwnerDependencies
from watcher.daemon.ownership import Ownership
from watcher.domain.errors import StoreError
from watcher.runtime.clock import Clock
from watcher.runtime.scheduler import Schedule
from watcher.runtime.settings import redact_url
from watcher.runtime.tasks import stop_task
from watcher.sinks.http_post import Poster
from watcher.sinks.protocol import SendOutcome, SendResult, SinkContext
from watcher.sinks.template import REDIRECTED
from watcher.web.health import Recent

log = structlog.get_logger()

FRESH_S = 1.0
"""The shortest time between two probes of the store, however many requests ask for one."""

STORE_ANSWERS_WITHIN_S = 2.0
PING_TIMEOUT_S = 10.0


class Readiness:
    """The readiness of the daemon: every job has run once, the store takes a write now, and the leases are renewed.

    A read, or an earlier write, would not prove that the store takes a write now.
    """

    def __init__(self, shared: OwnerDependencies, ownership: Ownership) -> None:
        self._shared = shared
        self._ownership = ownership
        self._probe = Recent(self._probe_writable, fresh_s=FRESH_S, clock=shared.clock)

    async def problems(self) -> list[str]:
        """Return a text for each part that is not ready."""
        found = [f"{name} has not run yet" for name in self._shared.schedule.jobs_not_run_yet()]
        return [*found, *filter(None, (await self.store_problem(), self._ownership.problem()))]

    async def store_problem(self) -> str | None:
        """Return why the store takes no writes; `None` if it takes them."""
        try:
            async with asyncio.timeout(STORE_ANSWERS_WITHIN_S):
                return await self._probe.get()
        except TimeoutError:
            return "the store does not answer"

    async def _probe_writable(self) -> str | None:
        try:
            await self._shared.store.probe_writable()
        except StoreError:
            return "the store cannot be written"
        return None


class Heartbeat:
    """Pings an outside service while all loops of this process make progress and the store takes writes."""

    def __init__(self, schedule: Schedule, readiness: Readiness) -> None:
        self._schedule = schedule
        self._readiness = readiness
        self._settings: HeartbeatSettings | None = None
        self._task: asyncio.Task[None] | None = None

    async def apply(self, settings: HeartbeatSettings | None) -> None:
        """Ping by these settings from now on, for the first time at once. With `None`, stop the pings.

        Nothing changes if the settings are the same as before.
        """
        if settings == self._settings:
            return
        pinging, self._settings, self._task = self._task, None, None
        await stop_task(pinging)
        self._settings = settings
        if settings is not None:
            self._task = asyncio.create_task(self._repeat(URL(settings.url.get_secret_value()), settings.every_s))
            # A bug in the task is raised in its callback, where asyncio reports it.
            self._task.add_done_callback(lambda task: task.cancelled() or task.result())

    async def _repeat(self, url: URL, every_s: float) -> None:
        has_failed = False
        while True:
            stalled = ", ".join(f"{name} is stalled" for name in self._schedule.stalled_jobs())
            trouble = stalled or await self._readiness.store_problem()
            answer, remedy = (f"withheld: {trouble}", "") if trouble else await ping(url)
            if answer and not has_failed:
                log.warning("heartbeat.failed", url=redact_url(str(url)), answer=answer, remedy=remedy)
            elif has_failed and not answer:
                log.info("heartbeat.recovered", url=redact_url(str(url)))
            has_failed = bool(answer)
            await asyncio.sleep(every_s)


async def ping(url: URL) -> tuple[str, str]:
    """Send one GET, through a proxy if one is configured. Return the problem and its remedy.

    The problem is a status code or a word. Both texts are empty after a 2xx. No redirect is followed.
    """
    async with aclosing(Poster(url, headers={}, timeout_s=PING_TIMEOUT_S, context=SinkContext(Clock()))) as poster:
        result = await poster.request(None, judge=_judge_ping, method="GET")
    return ("", "") if result.outcome.is_taken else (result.answer, result.remedy)


def _judge_ping(status: int, _: bytes) -> SendResult:
    outcome = SendOutcome.DELIVERED if status // 100 == 2 else SendOutcome.RETRY
    return SendResult(outcome, str(status), remedy=REDIRECTED if status // 100 == 3 else "correct url of heartbeat")
