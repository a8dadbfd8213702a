"""Follows the configuration, also before the store is open: a bad one is loud, a good one waits for the store."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from watcher.config.models import Settings
from watcher.daemon.maintenance import Maintenance
from watcher.daemon.reload import Reloader, Reloading, apply_settings
from watcher.daemon.store_opening import password_of
from watcher.daemon.supervisor import Supervisor
from watcher.runtime.clock import Clock
from watcher.runtime.logs import configure_logs
from watcher.runtime.metrics import Metrics
from watcher.store.sql_store import SqlStore


@dataclass(frozen=True, slots=True)
class _Target:
    store: SqlStore
    supervisor: Supervisor
    maintenance: Maintenance


class ConfigFollower:
    """Has changes of the configuration applied to the daemon, if they are to be followed at all."""

    def __init__(
        self,
        reloading: Reloading | None,
        settings: Settings,
        *,
        metrics: Metrics,
        clock: Clock,
        fatal: Callable[[BaseException], None],
    ) -> None:
        """Follow nothing yet. Needs a running event loop. `fatal` gets what ends the daemon."""
        self._target: asyncio.Future[_Target] = asyncio.get_running_loop().create_future()
        self._fatal = fatal
        self._task: asyncio.Task[None] | None = None
        self._reloader: Reloader | None = None
        if reloading is not None:
            self._reloader = Reloader(reloading, settings=settings, apply=self._apply, metrics=metrics, clock=clock)

    def begin(self) -> None:
        """Follow it from now on."""
        if self._reloader is not None and self._task is None:
            self._task = asyncio.create_task(self._reloader.run())
            self._task.add_done_callback(self._ended)

    def apply_to(self, store: SqlStore, supervisor: Supervisor, maintenance: Maintenance) -> None:
        """Apply what has changed, and what will, to these."""
        self._target.set_result(_Target(store, supervisor, maintenance))

    async def end(self) -> None:
        """Follow it no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _apply(self, changed: Settings) -> None:
        target = await asyncio.shield(self._target)
        target.store.use_password(password_of(changed.store))
        await apply_settings(changed, supervisor=target.supervisor, maintenance=target.maintenance)
        configure_logs(level=changed.log.level, format_=changed.log.format)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._fatal(error)
