"""Follows the configuration: reads it anew on SIGHUP and when its files change. A bad one changes nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import datetime
from functools import partial
from operator import attrgetter
from pathlib import Path
from traceback import extract_tb
from typing import Any

import structlog

from watcher.config.document import ConfigProblemsError
from watcher.config.files import Stamps, stamps_of
from watcher.config.loader import ConfigSource, changes_between
from watcher.config.models import Settings
from watcher.domain.errors import ConfigError, StoreError
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.runtime.threads import raise_to, run_detached

log = structlog.get_logger()

CHECK_EVERY_S = 2.0
"""So often files are looked at, and what the store could not take is applied again."""

QUIET_S = 0.1
"""A file is read once nothing has changed for so long: whoever writes it may first make it empty."""

SHOWN_COUNT = 50
"""So many problems are logged: a file may have 100,000, the rest of them like these."""


class ConfigFollower:
    """Keeps the daemon at what its configuration says now, also before the store is open: then a good one waits.

    `settings` are those that are applied. `apply`, once it is given, applies what has changed, and what will; it may
    raise `StoreError`, and is then called again. While a file is refused, `problems` are why, and `refused_at` says
    since when.
    """

    def __init__(
        self,
        source: ConfigSource | None,
        settings: Settings,
        *,
        metrics: Metrics,
        clock: Clock,
        fatal: Callable[[BaseException], None],
        check_every_s: float = CHECK_EVERY_S,
    ) -> None:
        """Begin with these settings, which are applied; without a `source` there is nothing to follow.

        `fatal` gets what ends the daemon.
        """
        self._source = source
        self._started = self.settings = settings
        self._metrics = metrics
        self._clock = clock
        self._fatal = fatal
        self._check_every_s = check_every_s
        self.apply: Callable[[Settings], Awaitable[None]] | None = None
        self._waiting: Settings | None = None
        self._said: set[str] = set()  # why it could not be applied: two causes may come by turns
        self.problems: list[str] = []  # of the file, for which it is refused
        self.refused_at: datetime | None = None
        self._following: asyncio.Task[None] | None = None
        self._applying: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Follow it from now on."""
        if self._source is not None and self._following is None:
            self._following = self._start(self._follow(self._source))

    async def end(self) -> None:
        """Follow it no longer."""
        await _stop(self._following)
        await _stop(self._applying)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(partial(raise_to, self._fatal))
        return task

    async def _follow(self, source: ConfigSource) -> None:
        """Have each configuration applied, breaking that off for the next one: an owner may take long to drain."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._check_every_s):
                    await source.asked.wait()
            if source.asked.is_set() or stamps_of(source.files) != source.files:
                source.asked.clear()
                if (settings := await self._read(source)) is not None:
                    await _stop(self._applying)
                    self._waiting, self._said = settings, set()
            is_applying = self._applying is not None and not self._applying.done()
            if self._waiting is not None and self.apply is not None and not is_applying:
                self._applying = self._start(self._take(self._waiting, self.apply))

    async def _read(self, source: ConfigSource) -> Settings | None:
        """Read it once it rests. Return it, if it is any good; what is not is loud."""
        before: Stamps | None = None
        while (now := stamps_of(source.files)) != before:
            before = now
            await asyncio.sleep(QUIET_S)
        try:
            settings = await run_detached(source.load, name="read")
        except ConfigError as error:
            problems = error.problems if isinstance(error, ConfigProblemsError) else [error]
            self._reject(list(map(str, problems)))
        except Exception as error:  # noqa: BLE001 (the old configuration is good, whatever is wrong with this one)
            raised = extract_tb(error.__traceback__)[-1]  # the text of an error may hold a secret
            place = f"{type(error).__name__} at {Path(raised.filename).name}:{raised.lineno}"
            self._reject([f"reading it failed ({place}); this is a bug: report it"])
        else:
            self.problems, self.refused_at = [], None
            for warning in source.warnings:
                log.warning("config.warning", problem=str(warning))
            self._metrics.restart_pending.set(bool(_waiting_for_restart(self._started, settings)))
            return settings
        return None

    def _reject(self, problems: list[str]) -> None:
        self.problems, self.refused_at = problems, self.refused_at or self._clock.now()
        self._metrics.reloaded(well=False, at=self._clock.now())
        for problem in problems[:SHOWN_COUNT]:
            log.error("config.rejected", problem=problem, note="the old configuration stays in use")

    async def _take(self, settings: Settings, apply: Callable[[Settings], Awaitable[None]]) -> None:
        """Have it applied, and say so; else it waits for the next try."""
        try:
            await apply(settings)
        except StoreError as error:
            self._metrics.reloaded(well=False, at=self._clock.now())
            if str(error) not in self._said:
                note = f"tried again every {self._check_every_s:g} s"
                log.error("config.not_applied", problem=str(error), note=note)  # noqa: TRY400 (its text says all)
            self._said.add(str(error))
            return
        self._waiting = None
        for key in _waiting_for_restart(self._started, settings):
            log.warning("config.needs_restart", key=key, note="the old value stays in use until then")
        self._metrics.reloaded(well=not self.problems, at=self._clock.now())  # a later one may have been, meanwhile
        changes = changes_between(self.settings, settings)
        self.settings = settings
        log.info(
            "config.reloaded",
            changes=changes,
            accounts=len(settings.accounts),
            watches=len(settings.watch),
            sinks=len(settings.sinks),
        )


async def _stop(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


def _waiting_for_restart(running: Settings, wanted: Settings) -> list[str]:
    return [key for key in ("store.url", "http.listen") if attrgetter(key)(running) != attrgetter(key)(wanted)]
