"""Reads the configuration anew on SIGHUP and when its files change, and has it applied. A bad one changes nothing."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import structlog
from watchfiles import awatch
from watchfiles._rust_notify import WatchfilesRustInternalError

from watcher.clock import Clock
from watcher.config.models import Settings
from watcher.config.problems import ConfigProblemsError
from watcher.config.source import ConfigSource
from watcher.errors import ConfigError, StoreError
from watcher.metrics import Metrics

log = structlog.get_logger()

LOOK_EVERY_S = 5.0
"""Files are also looked at this often: not every file system says when they change, nor can every link be followed."""

Awatch = Callable[..., AsyncGenerator[object]]
"""Yields when files have changed, as `watchfiles.awatch`."""

SAID_AT_FAILURE = 2
"""One failure passes by itself: a directory that is just being replaced cannot be watched."""

QUIET_S = 0.1
"""A file is read once nothing has changed for so long: whoever writes it may first make it empty."""


@dataclass(frozen=True, slots=True)
class Reloading:
    """Where another configuration comes from. `asked` is set to have it read whatever its files look like."""

    source: ConfigSource
    asked: asyncio.Event


class Reloader:
    """Keeps the daemon at what its configuration says now."""

    def __init__(
        self,
        reloading: Reloading,
        *,
        settings: Settings,
        apply: Callable[[Settings], Awaitable[None]],
        metrics: Metrics,
        clock: Clock,
        watch: Awatch = awatch,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """Begin with these settings, which are applied. `apply` may raise `StoreError`, and is then called again."""
        self._source = reloading.source
        self._asked = reloading.asked
        self._started = settings
        self._apply = apply
        self._metrics = metrics
        self._clock = clock
        self._watch = watch
        self._look_every_s = look_every_s
        self._failure_count = 0
        self._rejected = False

    async def run(self) -> None:
        """Follow the configuration until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._follow(group)
        except ExceptionGroup as errors:  # of one: nothing outlives the first
            raise errors.exceptions[0] from None

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        """Have each configuration applied, breaking that off for the next one: it may wait for what hangs."""
        applying: asyncio.Task[None] | None = None
        while True:
            settings = await self._next()
            if applying is not None:
                applying.cancel()
                await asyncio.wait([applying])
            applying = group.create_task(self._take(settings))

    async def _next(self) -> Settings:
        """Return the next configuration that is any good."""
        while True:
            await self._await_reason()
            if self._asked.is_set() or self._source.changed():
                self._asked.clear()
                if (settings := await self._read()) is not None:
                    return settings

    async def _await_reason(self) -> None:
        """Return when the configuration may be another."""
        try:
            await self._follow_files()
        except (OSError, WatchfilesRustInternalError) as error:
            self._failure_count += 1
            if self._failure_count == SAID_AT_FAILURE:
                reason = getattr(error, "strerror", None) or type(error).__name__
                note = f"the files are looked at every {self._look_every_s:g} s instead"
                log.warning("config.unwatched", error=reason, note=note)
            await self._wait()

    async def _follow_files(self) -> None:
        """As `_await_reason`. Raises if the system does not tell of changes."""
        watching = self._watch(
            *self._source.directories(),
            watch_filter=None,
            recursive=False,
            stop_event=self._asked,
            rust_timeout=round(self._look_every_s * 1000),
            yield_on_timeout=True,
        )
        async with aclosing(watching):
            async for _ in watching:
                self._failure_count = 0
                if self._source.changed():
                    return

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._look_every_s):
                await self._asked.wait()
        except TimeoutError:
            return

    async def _read(self) -> Settings | None:
        """Read until what was read is what is there. Return it, if it is any good."""
        outcome: Settings | ConfigError | None = None
        while outcome is None or self._source.changed():
            await self._await_quiet()
            outcome = await self._load()
        self._rejected = not isinstance(outcome, Settings)
        if isinstance(outcome, Settings):
            return outcome
        self._metrics.reloaded(well=False, at=self._clock.now())
        log.error("config.rejected", problems=_problems(outcome), note="the old one stays in use")
        return None

    async def _load(self) -> Settings | ConfigError:
        try:
            return await asyncio.to_thread(self._source.load)
        except ConfigError as error:
            return error

    async def _await_quiet(self) -> None:
        before: object = None
        while (now := self._source.look()) != before:
            before = now
            await asyncio.sleep(QUIET_S)

    async def _take(self, settings: Settings) -> None:
        """Have it applied, however many tries that takes."""
        while (error := await self._try(settings)) is not None:
            self._metrics.reloaded(well=False, at=self._clock.now())
            log.error("config.not_applied", problem=str(error), note=f"tried again every {self._look_every_s:g} s")
            await asyncio.sleep(self._look_every_s)
        _warn_of_restart(self._started, settings)
        self._metrics.reloaded(well=not self._rejected, at=self._clock.now())  # a later one may have been, meanwhile
        log.info(
            "config.reloaded", accounts=len(settings.accounts), watches=len(settings.watch), sinks=len(settings.sinks)
        )

    async def _try(self, settings: Settings) -> StoreError | ConfigError | None:
        try:
            await self._apply(settings)
        except (StoreError, ConfigError) as error:  # a proxy may be set that cannot work
            return error
        return None


def _problems(error: ConfigError) -> list[str]:
    return [str(each) for each in error.problems] if isinstance(error, ConfigProblemsError) else [str(error)]


def _warn_of_restart(old: Settings, new: Settings) -> None:
    for key, changed in {
        "store.url": old.store.url != new.store.url,
        "http.listen": old.http.listen != new.http.listen,
    }.items():
        if changed:
            log.warning("config.needs_restart", key=key, note="the old value stays in use until then")
