"""Reads the configuration anew on SIGHUP and when its files change, and has it applied. A bad one changes nothing.

Files are checked and read aside: their file system may hang, which keeps neither the daemon nor its end waiting.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb

import structlog
from watchfiles import awatch

from watcher.config.models import Settings
from watcher.config.problems import ConfigProblemsError
from watcher.config.source import ConfigSource, changes_between
from watcher.daemon.maintenance import Maintenance
from watcher.daemon.retention_policy import retention_policy_of
from watcher.daemon.supervisor import Supervisor
from watcher.domain.errors import ConfigError, StoreError
from watcher.domain.timestamps import Monotonic
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.runtime.threads import run_detached

log = structlog.get_logger()

CHECK_EVERY_S = 5.0
"""Files are also checked this often: not every file system says when they change, nor can every link be followed."""

Awatch = Callable[..., AsyncGenerator[object]]
"""Yields when files have changed, as `watchfiles.awatch`."""

SAID_AT_FAILURE = 2
"""One failure passes by itself: a directory that is just being replaced cannot be watched."""

QUIET_S = 0.1
"""A file is read once nothing has changed for so long: whoever writes it may first make it empty."""

RESTLESS_S = 3.0
"""What changes for longer than this is read as it is; the next change is seen as always."""

SHOWN_COUNT = 50
"""Problems, or changes, in one line of the log: a file may have 100,000, the rest of them like these."""


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
        check_every_s: float = CHECK_EVERY_S,
    ) -> None:
        """Begin with these settings, which are applied. `apply` may raise `StoreError`, and is then called again."""
        self._source = reloading.source
        self._asked = reloading.asked
        self._started = self._applied = settings
        self._apply = apply
        self._metrics = metrics
        self._clock = clock
        self._watch = watch
        self._check_every_s = check_every_s
        self._failure_count = 0
        self._rejected: list[str] = []

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
            asked = self._asked.is_set()
            if asked or await self._changed():
                self._asked.clear()
                if (settings := await self._read(asked=asked)) is not None:
                    return settings

    async def _changed(self) -> bool:
        return await run_detached(self._source.changed, name="stat")

    async def _await_reason(self) -> None:
        """Return when the configuration may be another."""
        try:
            await self._follow_files()
        except (OSError, RuntimeError) as error:  # the latter from watchfiles: no inotify instance is left
            self._failure_count += 1
            if self._failure_count == SAID_AT_FAILURE:
                reason = getattr(error, "strerror", None) or type(error).__name__
                note = f"the files are checked every {self._check_every_s:g} s instead"
                log.warning("config.unwatched", error=reason, note=note)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._check_every_s):
                    await self._asked.wait()

    async def _follow_files(self) -> None:
        """As `_await_reason`. Raises if the system does not tell of changes."""
        directories = await run_detached(self._source.directories, name="stat")
        if await self._changed():  # since it was read, unnoticed by anybody
            return
        watching = self._watch(
            *directories,
            watch_filter=None,
            recursive=False,
            stop_event=self._asked,
            rust_timeout=round(self._check_every_s * 1000),
            yield_on_timeout=True,
        )
        async with aclosing(watching):
            async for _ in watching:
                self._failure_count = 0
                if await self._changed():
                    return

    async def _read(self, *, asked: bool) -> Settings | None:
        """Read until what was read is what is there. Return it, if it is any good; say it, if that is news."""
        outcome: Settings | ConfigError | None = None
        until = Monotonic(self._clock.monotonic() + RESTLESS_S)
        while outcome is None or (self._clock.monotonic() < until and await self._changed()):
            await self._await_quiet(until)
            try:
                outcome = await run_detached(self._source.load, name="read")
            except ConfigError as error:
                outcome = error
            except Exception as error:  # noqa: BLE001 (the old configuration is good, whatever is wrong with this one)
                outcome = ConfigError(f"reading it failed ({_place_of(error)}); this is a bug: report it")
        before, self._rejected = self._rejected, [] if isinstance(outcome, Settings) else _problems(outcome)
        if isinstance(outcome, Settings):
            self._metrics.restart_pending.set(bool(_waiting_for_restart(self._started, outcome)))
            return outcome
        self._metrics.reloaded(well=False, at=self._clock.now())
        if asked or not self._source.hangs or self._rejected != before:  # what hangs by turns is tried by turns
            shown = self._rejected[:SHOWN_COUNT]
            more = len(self._rejected) - len(shown)
            log.error("config.rejected", problems=shown, more=more, note="the old one stays in use")
        return None

    async def _await_quiet(self, until: Monotonic) -> None:
        before: object = None
        while (
            now := await run_detached(self._source.stamps, name="stat")
        ) != before and self._clock.monotonic() < until:
            before = now
            await asyncio.sleep(QUIET_S)

    async def _take(self, settings: Settings) -> None:
        """Have it applied, however many tries that takes."""
        while (error := await self._try(settings)) is not None:
            self._metrics.reloaded(well=False, at=self._clock.now())
            log.error("config.not_applied", problem=str(error), note=f"tried again every {self._check_every_s:g} s")
            await asyncio.sleep(self._check_every_s)
        for key in _waiting_for_restart(self._started, settings):
            log.warning("config.needs_restart", key=key, note="the old value stays in use until then")
        self._metrics.reloaded(well=not self._rejected, at=self._clock.now())  # a later one may have been, meanwhile
        changes = changes_between(self._applied, settings)
        self._applied = settings
        log.info(
            "config.reloaded",
            changes=changes[:SHOWN_COUNT],
            more=max(0, len(changes) - SHOWN_COUNT),
            accounts=len(settings.accounts),
            watches=len(settings.watch),
            sinks=len(settings.sinks),
        )

    async def _try(self, settings: Settings) -> StoreError | None:
        try:
            await self._apply(settings)
        except StoreError as error:
            return error
        return None


def _place_of(error: Exception) -> str:
    """Return an error's class and the line that raised it; its text may hold a secret."""
    raised = extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(raised.filename).name}:{raised.lineno}"


def _problems(error: ConfigError) -> list[str]:
    return [str(each) for each in error.problems] if isinstance(error, ConfigProblemsError) else [str(error)]


def _waiting_for_restart(running: Settings, wanted: Settings) -> list[str]:
    """Return the keys whose old value is in use until the daemon ends, whatever the file says by then."""
    changed = {
        "store.url": running.store.url != wanted.store.url,
        "http.listen": running.http.listen != wanted.http.listen,
    }
    return [key for key, differs in changed.items() if differs]


async def apply_settings(settings: Settings, *, supervisor: Supervisor, maintenance: Maintenance) -> None:
    """Own, and keep, what another configuration asks for. Raises `StoreError`, and is then to be called again.

    Until it is applied in full, however many tries or newer configurations that takes, nothing is tidied up.
    """
    await maintenance.pause()
    await supervisor.apply(settings)
    maintenance.replace_policy(retention_policy_of(settings))
