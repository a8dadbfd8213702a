"""Tells a service outside that all is well, as long as it is: one that hears nothing for a while raises the alarm.

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

TIMEOUT_S = 10.0


class Heartbeat:
    """The pings of one process. `stalled` names the loops that make no progress, `store_problem` says what ails it."""

    def __init__(
        self,
        stalled: Callable[[], Sequence[str]],
        store_problem: Callable[[], Awaitable[str | None]],
        *,
        fatal: Callable[[BaseException], None],
    ) -> None:
        """Ping nobody yet. `fatal` gets an error of ours, which ends the daemon."""
        self._stalled = stalled
        self._store_problem = store_problem
        self._fatal = fatal
        self._settings: HeartbeatSettings | None = None
        self._task: asyncio.Task[None] | None = None
        self._has_failed = False

    def go_by(self, settings: HeartbeatSettings | None) -> None:
        """Ping as this says from now on, the first time at once."""
        if settings == self._settings:
            return
        if self._task is not None:
            self._task.cancel()
        self._settings, self._task, self._has_failed = settings, None, False
        if settings is not None:
            self._task = asyncio.create_task(self._repeat(settings))
            self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Ping no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _repeat(self, settings: HeartbeatSettings) -> None:
        url = settings.url.get_secret_value()
        while True:
            answer, remedy = await self._beat(URL(url))
            if bool(answer) is not self._has_failed:
                self._has_failed = bool(answer)
                if answer:
                    log.warning("heartbeat.failed", url=shown_url(url), answer=answer, remedy=remedy)
                else:
                    log.info("heartbeat.recovered", url=shown_url(url))
            await asyncio.sleep(settings.every_s)

    async def _beat(self, url: URL) -> tuple[str, str]:
        """Ping once, if all is well; return why that was not done, or did not work, and what to do about it."""
        trouble = ", ".join(f"{name} is stalled" for name in self._stalled()) or await self._store_problem()
        return (f"withheld: {trouble}", "") if trouble else await ping(url)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._fatal(error)


async def ping(url: URL) -> tuple[str, str]:
    """Send one GET, through the proxy of the environment, following no redirect.

    Return what is wrong, a status code or a word, and what to do about it; nothing after a 2xx.
    """
    proxy = proxy_for(url)
    headers = {"User-Agent": USER_AGENT}
    if url.scheme == "http":  # the proxy reads the request itself, there is no CONNECT
        headers.update(proxy.headers)
    try:
        async with (
            limited_session(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), cookie_jar=aiohttp.DummyCookieJar()
            ) as session,
            session.get(
                url, headers=headers, allow_redirects=False, proxy=proxy.url, proxy_headers=proxy.headers
            ) as response,
        ):
            status = response.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        failure = failure_of(error, by_proxy=proxy.url is not None)
        return failure.kind, failure.remedy
    if status // 100 == 2:
        return "", ""
    return str(status), REDIRECTED if status // 100 == 3 else "correct url of heartbeat"
