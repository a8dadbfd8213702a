"""Pings a service outside as long as all is well: one that gets none for a while raises the alarm.

A ping is a GET. Of its URL only scheme and host are ever shown: the path is a secret.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import aiohttp
import structlog
from yarl import URL

from watcher.config.models import HeartbeatSettings
from watcher.runtime.http_client import USER_AGENT, failure_of, limited_session, proxy_for
from watcher.runtime.settings import shown_url
from watcher.sinks.template import REDIRECTED

log = structlog.get_logger()

TIMEOUT = aiohttp.ClientTimeout(total=10.0)


class Heartbeat:
    """The pings of one process. `stalled` names the loops that make no progress, `store_problem` says what ails it."""

    def __init__(
        self, stalled: Callable[[], Sequence[str]], store_problem: Callable[[], Awaitable[str | None]]
    ) -> None:
        """Ping nobody yet."""
        self._stalled = stalled
        self._store_problem = store_problem
        self._settings: HeartbeatSettings | None = None
        self._task: asyncio.Task[None] | None = None

    async def go_by(self, settings: HeartbeatSettings | None) -> None:
        """Ping as this says from now on, the first time at once. Without it ping no more."""
        if settings == self._settings:
            return
        pinging, self._settings, self._task = self._task, None, None
        if pinging is not None:
            pinging.cancel()
            await asyncio.wait([pinging])
        self._settings = settings
        if settings is not None:
            self._task = asyncio.create_task(self._repeat(URL(settings.url.get_secret_value()), settings.every_s))
            self._task.add_done_callback(lambda task: task.cancelled() or task.result())  # a bug of ours is loud

    async def _repeat(self, url: URL, every_s: float) -> None:
        has_failed = False
        while True:
            trouble = ", ".join(f"{name} is stalled" for name in self._stalled()) or await self._store_problem()
            answer, remedy = (f"withheld: {trouble}", "") if trouble else await ping(url)
            if answer and not has_failed:
                log.warning("heartbeat.failed", url=shown_url(str(url)), answer=answer, remedy=remedy)
            elif has_failed and not answer:
                log.info("heartbeat.recovered", url=shown_url(str(url)))
            has_failed = bool(answer)
            await asyncio.sleep(every_s)


async def ping(url: URL) -> tuple[str, str]:
    """Send one GET, through the proxy of the environment, following no redirect.

    Return what is wrong, a status code or a word, and what to do about it; nothing after a 2xx.
    """
    proxy = proxy_for(url)
    # Over http:// the proxy reads the request itself, there is no CONNECT.
    headers = {"User-Agent": USER_AGENT, **(proxy.headers if url.scheme == "http" else {})}
    try:
        async with (
            limited_session(timeout=TIMEOUT, cookie_jar=aiohttp.DummyCookieJar(), headers=headers) as session,
            session.get(url, allow_redirects=False, proxy=proxy.url, proxy_headers=proxy.headers) as response,
        ):
            status = response.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        failure = failure_of(error, by_proxy=proxy.url is not None)
        return failure.kind, failure.remedy
    if status // 100 == 2:
        return "", ""
    return str(status), REDIRECTED if status // 100 == 3 else "correct url of heartbeat"
