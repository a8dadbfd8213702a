"""`watcher wait`: it follows one execution until its end, and exits with a code for the status."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from pydantic import ValidationError
from rich.live import Live
from rich.text import Text

from watcher.cli.config_loading import parse_seconds, read_config
from watcher.cli.console import console_on
from watcher.cli.event_loop import run_interruptible
from watcher.cli.shell import ConfigOption
from watcher.cli.wait.next_execution import NextSearch
from watcher.cli.wait.poller import wait_for
from watcher.cli.wait.progress import Progress
from watcher.cli.wait.view import View
from watcher.config.document import quoted
from watcher.config.files import find_config
from watcher.config.models import AccountSettings, Settings, WatchSettings
from watcher.domain.errors import ConfigError, Exit, UsageError, WaitEndedError
from watcher.domain.timestamps import Micros
from watcher.runtime.clock import Clock
from watcher.runtime.logs import configure_logs
from watcher.runtime.units import spell_duration

KEY_VARIABLE = "CLERK_API_KEY"
SINCE = "30s"
"""The default of `--since`."""


def wait(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline's id.")],
    execution: Annotated[str | None, typer.Argument(metavar="EXECUTION", help="The execution's id.")] = None,
    *,
    is_next: Annotated[bool, typer.Option("--next", help="Follow the next execution to start; print its id.")] = False,
    conversation: Annotated[str | None, typer.Option(metavar="ID", help="--next: only of this conversation.")] = None,
    since: Annotated[str | None, typer.Option(metavar=SINCE, help="--next: it may have started this long ago.")] = None,
    timeout: Annotated[str | None, typer.Option(metavar="10m", help="Wait no longer than this; then exit 3.")] = None,
    interval: Annotated[str, typer.Option(metavar="2s", help="Poll this often, 1s or more; 10s after an hour.")] = "2s",
    as_json: Annotated[bool, typer.Option("--json", help="Print the events as JSON, one per line.")] = False,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="The account, if the file has several.")] = None,
    config: ConfigOption = None,
) -> None:
    """Follow one execution until it ends.

    On a terminal the display is live; otherwise a line is printed per change. The command polls every 2 s, every 10 s
    after an hour, and never faster than the key's rate_limit. Its requests are added to those of a daemon with the
    same key. Without a file the key is $CLERK_API_KEY. Once the execution was seen, a passing error of the API never
    ends the wait.
    With --next the execution is the earliest of the pipeline that started after the command, or at most --since before
    it, by the dates in the first and the last page of the list; one that had ended by then is taken only if the second
    poll shows no other. Its id is the first line, with --json in the events.
    Exit codes: 0 success, 1 failed or lost, 2 usage, 3 --timeout passed, 4 the key is refused or nothing ever
    answered, 5 not found.

    Examples:
      watcher wait PIPELINE EXECUTION --json | jq .type
      watcher wait PIPELINE --next --timeout 10m

    """
    if is_next is (execution is not None):
        raise UsageError("name either an EXECUTION, or --next for the one that starts next")
    search = make_search(conversation, since or SINCE) if is_next else None
    if search is None and (conversation is not None or since is not None):
        raise UsageError("--conversation and --since are only for --next")
    pipeline = parse_id(pipeline, of="pipeline")
    execution = parse_id(execution, of="execution") if execution is not None else ""
    timeout_s = None if timeout is None else parse_seconds(timeout, option="--timeout")
    interval_s = parse_seconds(interval, option="--interval")
    if interval_s < 1:
        raise UsageError(f"--interval: {quoted(interval)} is too short; write 1s or more")
    settings, key_place = find_account(config, account, environ=os.environ)
    ((name, asked),) = settings.accounts.items()
    named = {"executions": [execution]} if execution else {}
    watch = WatchSettings.model_validate(named | {"pipeline": pipeline, "account": name})
    settings, polling = settings.model_copy(update={"watch": (watch,)}), settings.polling
    progress = Progress(pipeline, execution, lost_after=polling.lost_after, search=search)
    configure_logs(level="critical", format_="auto")  # the display shows the failures that a daemon would log
    with _view(as_json=as_json) as view:
        waiting = partial(wait_for, progress, view, settings=settings, interval_s=interval_s, timeout_s=timeout_s)
        ending = run_interruptible(waiting)
    if ending is None or not ending.problem:
        raise typer.Exit(ending.code if ending else Exit.FAILED)
    hints = {
        Exit.UNREACHABLE: f"polled {asked.base_url} for {spell_duration(polling.degraded_after_s)}",
        Exit.NOT_FOUND: "are both ids right, and is it an execution of this pipeline and of this key's account?",
    }
    if search is not None:
        hints[Exit.NOT_FOUND] = "is the id right, and is it a pipeline of this key's account?"
        hints[Exit.TIMEOUT] = f"starts more than {since or SINCE} before the command do not count (--since)"
    hint = f"the key came from {key_place}" if ending.key_refused else hints.get(ending.code)
    raise WaitEndedError(ending.problem + (f"\nhint: {hint}" if hint else ""), ending.code)


def make_search(conversation: str | None, since: str) -> NextSearch:
    """Return the search of `--next`, which begins now. Raises `UsageError`."""
    since_us = round(parse_seconds(since, option="--since") * 1_000_000)
    if conversation is not None:
        conversation = parse_id(conversation, of="conversation", name="--conversation")
    now = Clock().steady_us()
    return NextSearch(Micros(now - since_us), now, conversation)


def parse_id(text: str, *, of: str, name: str | None = None) -> str:
    """Return a UUID of the command line in lower case. Raises `UsageError`.

    `of` is the kind of thing that the UUID names; `name` is that of the argument, if it is another word.
    """
    try:
        return str(UUID(text))
    except ValueError:
        remedy = f"copy the id from the {of}'s address in Clerk Chat"
        raise UsageError(f"{name or of.upper()}: {quoted(text)} is not a UUID; {remedy}") from None


def find_account(config: Path | None, name: str | None, *, environ: Mapping[str, str]) -> tuple[Settings, str]:
    """Return settings with one account, and the place from which the account's key came, in words.

    The account is the one in the file that `name` names, or the file's only account. If no file has an account, the
    key comes from the environment. Raises `UsageError` and `ConfigError`.
    """
    settings, file = Settings(), None
    with suppress(ConfigError):
        file = find_config(config, environ=environ)
    if file is not None:  # neither the sinks nor their secrets are needed here
        settings = read_config(file, only=("accounts", "polling"))
    accounts, place = settings.accounts, f"the environment variable {KEY_VARIABLE}"
    if accounts:
        if name is None and len(accounts) == 1:
            (name,) = accounts
        if name is None or name not in accounts:
            raise UsageError(f"--account: name one of those in {file}: {', '.join(accounts)}")
        accounts = {name: accounts[name]}
        place = f"accounts.{name}.{'api_key_file' if accounts[name].api_key_file else 'api_key'} in {file}"
    elif name is None:
        accounts = {"default": _from_environment(environ)}
    else:
        raise UsageError(f"--account: no file defines {quoted(name)}; name the file with --config")
    return settings.model_copy(update={"accounts": accounts}), place


def _from_environment(environ: Mapping[str, str]) -> AccountSettings:
    key = environ.get(KEY_VARIABLE)
    if not key:
        raise UsageError(f"no API key; export {KEY_VARIABLE}, or name a file with --config")
    try:
        return AccountSettings.model_validate({"api_key": key})
    except ValidationError:
        raise UsageError(f"{KEY_VARIABLE} holds characters no key has; copy the key again, without quotes") from None


@contextmanager
def _view(*, as_json: bool) -> Iterator[View]:
    """Yield a live view on a terminal that can move its cursor, else a view of lines."""
    console = console_on(sys.stdout)
    can_redraw = sys.stdout.isatty() and not console.is_dumb_terminal and console.encoding.startswith("utf")
    if as_json or not can_redraw:
        yield View(as_json=as_json)
        return
    with Live(Text(), console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        yield View(live)
