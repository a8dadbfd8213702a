"""`watcher copy-store`: it copies a store into another database."""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from watcher.cli.config_loading import read_config
from watcher.cli.console import console_on, say
from watcher.cli.event_loop import run_interruptible
from watcher.cli.shell import ConfigOption
from watcher.config.files import find_config
from watcher.domain.errors import ConfigError, UsageError
from watcher.runtime.clock import Clock
from watcher.runtime.threads import run_detached
from watcher.runtime.units import InvalidValueError, spell_duration
from watcher.store.copying import CopyStoppedError, StoreEnd, copy_all
from watcher.store.store_url import check_store_url, is_postgresql


def copy_store(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The store to copy, as store.url names it.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Where to: a new file, or an empty database.")],
    *,
    config: ConfigOption = None,
) -> None:
    """Copy a store into another database, SQLite or PostgreSQL.

    Stop every daemon first: a store in use is refused, and no daemon can use a store while it is copied. The whole
    store is copied or nothing; the old store stays as it is. A daemon on the new store then goes on where the daemon
    on the old store stopped. The password for PostgreSQL is store.password or store.password_file of the configuration
    file, if there is one, else libpq's own (PGPASSWORD, ~/.pgpass). Exit codes: 1 a store is in use, or the copy
    failed; 2 a person must correct something (TO is not empty, FROM is not there); 130 interrupted, and nothing copied.

    Examples:
      watcher copy-store sqlite:///watcher.db postgresql://watcher@db/watcher
      watcher copy-store postgresql:///watcher sqlite:////var/lib/watcher/watcher.db

    """
    clock = Clock()
    urls = (_check_url(source, "FROM"), _check_url(target, "TO"))
    password = _find_password(config) if any(map(is_postgresql, urls)) else None
    from_end, to_end = (StoreEnd(url, password, clock) for url in urls)
    run_interruptible(lambda stop: _copy(from_end, to_end, clock=clock, stop=stop))


async def _copy(source: StoreEnd, target: StoreEnd, *, clock: Clock, stop: asyncio.Event) -> None:
    console, began_at = console_on(sys.stderr), clock.monotonic()
    rows = TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows")
    columns = (TextColumn("{task.description}"), BarColumn(), rows, TimeRemainingColumn(compact=True))
    with_bar = console.is_terminal and not console.is_dumb_terminal
    try:
        with Progress(*columns, console=console, transient=True, disable=not with_bar) as progress:
            bar = progress.add_task("reading", total=0)

            def show(table: str, done: int, total: int) -> None:
                progress.update(bar, completed=done, total=total, description=f"copying {table}")

            work = partial(copy_all, source, target, copied=show, stopped=stop.is_set)
            counts = await run_detached(work, name="copy")
    except CopyStoppedError:
        say(console, ("✕ ", "red"), f"interrupted: nothing was copied, {target.where} is as it was", wrap=False)
        return
    took = spell_duration(clock.monotonic() - began_at)
    done = f"copied {sum(counts.values()):,} rows from {source.where} to {target.where} in {took}"
    say(console, ("✓ ", "green"), done, wrap=False)
    say(console, f"Next: set store.url to {target.url} and start the daemon.", wrap=False)
    say(console, f"{source.where} is left as it is; let no daemon use it any more.", wrap=False)


def _check_url(url: str, argument: str) -> str:
    try:
        return check_store_url(url)
    except InvalidValueError as error:
        raise UsageError(f"{argument} {error}") from None


def _find_password(config: Path | None) -> str | None:
    """Return the password for PostgreSQL from the configuration file, `None` without a file or a password."""
    try:
        path = find_config(config, environ=os.environ)
    except ConfigError:
        return None
    password = read_config(path, only=("store",)).store.password
    return None if password is None else password.get_secret_value()
