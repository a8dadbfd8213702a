"""Trying the store of a configuration, if that is a PostgreSQL database: a file is made where there is none."""

from collections.abc import Mapping
from functools import partial
from importlib import import_module

from watcher.cli.check.connectivity import Trial
from watcher.config.store_settings import StoreSettings
from watcher.daemon.store_opening import password_of
from watcher.domain.errors import Exit, StoreError
from watcher.runtime.clock import Clock
from watcher.runtime.threads import run_detached
from watcher.store.store_url import is_postgresql


async def try_store(settings: StoreSettings, *, clock: Clock) -> tuple[list[Trial], Mapping[str, str]]:
    """Log in and look, writing nothing. Return what came of it, and the sinks that are recorded as disabled."""
    if not is_postgresql(settings.url):
        return [], {}
    state_of = import_module("watcher.store.postgresql").state_of  # what it needs is of an extra
    began_at, where = clock.monotonic(), settings.url.partition("?")[0]
    code, hint, disabled = Exit.DONE, "", {}
    try:
        look = partial(state_of, settings.url, password=password_of(settings), clock=clock)
        state = await run_detached(look, name="store")
        words, disabled = "can be used; it is empty" if state.is_empty else "can be used", state.disabled
    except StoreError as error:
        code = Exit.UNREACHABLE
        words, _, hint = str(error).removeprefix(f"{where} ").rpartition("; ")
    return [Trial("store.url", where, code, words, (clock.monotonic() - began_at) * 1000, hint)], disabled
