"""Opens the store at the start. A server that is not ready yet is waited for; what else is wrong ends the daemon."""

import asyncio
from collections.abc import Callable, Collection

import structlog

from watcher.config.store_settings import StoreSettings
from watcher.domain.errors import StoreNotReadyError
from watcher.runtime.backoff import doubling
from watcher.runtime.clock import Clock
from watcher.store.open import open_store
from watcher.store.sql_store import SqlStore

log = structlog.get_logger()

WAIT_BASE_S, WAIT_CAP_S = 0.25, 2.0


async def open_when_ready(
    settings: StoreSettings, *, clock: Clock, on_recorded: Callable[[Collection[str]], None], stop: asyncio.Event
) -> SqlStore | None:
    """Return the store; `None` if it was not ready by the time the daemon is to stop. Raises `StoreError`."""
    attempt, said = 0, ""
    while not stop.is_set():
        try:
            password = password_of(settings)
            store = await open_store(settings.url, clock=clock, on_recorded=on_recorded, password=password)
        except StoreNotReadyError as error:
            if str(error) != said:
                log.error("store.failed", problem=str(error), note="tried again until it works")  # noqa: TRY400 (its text says all)
            attempt, said = attempt + 1, str(error)
            await _wait(stop, at_most_s=doubling(attempt, base_s=WAIT_BASE_S, cap_s=WAIT_CAP_S))
        else:
            if said:
                log.info("store.recovered")
            return store
    return None


def password_of(settings: StoreSettings) -> str | None:
    """Return the password of the store's database, if one is given."""
    return None if settings.password is None else settings.password.get_secret_value()


async def _wait(stop: asyncio.Event, *, at_most_s: float) -> None:
    await asyncio.wait([waiting := asyncio.create_task(stop.wait())], timeout=at_most_s)
    waiting.cancel()
