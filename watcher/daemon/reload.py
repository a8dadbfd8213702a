"""Reloading the configuration on SIGHUP and when its files change. A bad configuration changes nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from traceback import extract_tb

import structlog

from watcher.config.document import ConfigProblemsError
from watcher.config.files import Stamps, stamps_of
from watcher.config.loader import ConfigSource, changes_between
from watcher.config.models import Settings
from watcher.domain.errors import ConfigError, StoreError
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.runtime.tasks import start_task, stop_task, wait_at_most
from watcher.runtime.threads import run_detached

log = structlog.get_logger()

CHECK_EVERY_S = 2.0
"""The interval of the checks of the files, and of the attempts to apply a configuration after an error of the store."""

QUIET_S = 0.1
"""The time for which the files must not have changed before they are read: a writer may empty a file first."""

SHOWN_COUNT = 50
"""The most problems of one configuration that are logged. A file may have 100,000 similar ones."""


class ConfigFollower:
    """The current configuration of the daemon, reloaded when its files change.

    `settings` are the applied settings. `apply` applies new settings; they wait until `apply` is set. It may raise
    `StoreError`, and is then called again. While the files are refused, `problems` are the reasons, and `refused_at` is
    when they were first refused (wall clock).
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
        """Start with the settings in use. Without a `source` nothing is reloaded. A call of `fatal` ends the daemon."""
        self._source = source
        self._started = self.settings = settings
        self._metrics = metrics
        self._clock = clock
        self._fatal = fatal
        self._check_every_s = check_every_s
        self.apply: Callable[[Settings], Awaitable[None]] | None = None
        self._pending: Settings | None = None
        self._logged: set[str] = set()  # errors logged since the files were last read: two may alternate
        self.problems: list[str] = []
        self.refused_at: datetime | None = None
        self._following: asyncio.Task[None] | None = None
        self._applying: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Check the files from now on."""
        if self._source is not None and self._following is None:
            self._following = start_task(self._follow(self._source), fatal=self._fatal)

    async def end(self) -> None:
        """Stop checking the files and applying settings."""
        await stop_task(self._following)
        await stop_task(self._applying)

    async def _follow(self, source: ConfigSource) -> None:
        """Read and apply each new configuration.

        A newer one cancels an older one that is still being applied: an owner may take long to drain.
        """
        while True:
            await wait_at_most(self._check_every_s, source.asked.wait())
            if source.asked.is_set() or stamps_of(source.files) != source.files:
                source.asked.clear()
                if (settings := await self._read(source)) is not None:
                    await stop_task(self._applying)
                    self._pending, self._logged = settings, set()
            is_applying = self._applying is not None and not self._applying.done()
            if self._pending is not None and self.apply is not None and not is_applying:
                self._applying = start_task(self._apply(self._pending, self.apply), fatal=self._fatal)

    async def _read(self, source: ConfigSource) -> Settings | None:
        """Read the files once they stop changing. Return the settings, or log the problems and return `None`."""
        before: Stamps | None = None
        while (now := stamps_of(source.files)) != before:
            before = now
            await asyncio.sleep(QUIET_S)
        try:
            settings = await run_detached(source.load, name="read")
        except ConfigError as error:
            problems = error.problems if isinstance(error, ConfigProblemsError) else [error]
            self._reject(list(map(str, problems)))
        except Exception as error:  # noqa: BLE001 (the old configuration stays in use)
            raised = extract_tb(error.__traceback__)[-1]  # the text of an error may hold a secret
            place = f"{type(error).__name__} at {Path(raised.filename).name}:{raised.lineno}"
            self._reject([f"reading it failed ({place}); this is a bug: report it"])
        else:
            self.problems, self.refused_at = [], None
            for warning in source.warnings:
                log.warning("config.warning", problem=str(warning))
            self._metrics.restart_pending.set(bool(_keys_for_restart(self._started, settings)))
            return settings
        return None

    def _reject(self, problems: list[str]) -> None:
        self.problems, self.refused_at = problems, self.refused_at or self._clock.now()
        self._metrics.record_reload(well=False, at=self._clock.now())
        for problem in problems[:SHOWN_COUNT]:
            log.error("config.rejected", problem=problem, note="the old configuration stays in use")

    async def _apply(self, settings: Settings, apply: Callable[[Settings], Awaitable[None]]) -> None:
        """Apply the settings and log the reload. After an error of the store the settings wait for the next attempt."""
        try:
            await apply(settings)
        except StoreError as error:
            self._metrics.record_reload(well=False, at=self._clock.now())
            if str(error) not in self._logged:
                note = f"tried again every {self._check_every_s:g} s"
                log.error("config.not_applied", problem=str(error), note=note)  # noqa: TRY400 (the text is enough)
            self._logged.add(str(error))
            return
        self._pending = None
        for key in _keys_for_restart(self._started, settings):
            log.warning("config.needs_restart", key=key, note="the old value stays in use until then")
        self._metrics.record_reload(well=not self.problems, at=self._clock.now())  # a newer file may be refused
        changes = changes_between(self.settings, settings)
        self.settings = settings
        log.info(
            "config.reloaded",
            changes=changes,
            accounts=len(settings.accounts),
            watches=len(settings.watch),
            sinks=len(settings.sinks),
        )


def _keys_for_restart(running: Settings, wanted: Settings) -> list[str]:
    return [key for key in ("store.url", "http.listen") if attrgetter(key)(running) != attrgetter(key)(wanted)]
