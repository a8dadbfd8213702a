"""The command line: which commands there are, and what becomes of an error. What a command does is in `commands`."""

import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer

from watcher.config.problems import ConfigProblemsError
from watcher.errors import Exit, WatcherError
from watcher.signals import command_named

COMMANDS = ("run", "demo", "simulate")
"""In the order of the help. `copy-store` is the function `copy_store` of the module `watcher.commands.copy_store`."""

app = typer.Typer(
    name="watcher",
    help="Know when a Clerk Chat execution starts, pauses, succeeds or fails.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:  # noqa: FBT001 (Typer calls it with the flag)
    if asked:
        typer.echo(f"clerk-watcher {version('clerk-watcher')}")
        raise typer.Exit


@app.callback()
def watcher(
    *,
    _version_asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Know when a Clerk Chat AI-agent execution starts, pauses, succeeds or fails, within seconds."""


def register(words: list[str]) -> None:
    """Add the command that the words name, or all of them when they name none.

    Only that one's modules are imported: all together take half a second, too long for a health check.
    """
    named = command_named(words)
    for command in (named,) if named in COMMANDS else COMMANDS:
        name = command.replace("-", "_")
        app.command(command)(getattr(import_module(f"watcher.commands.{name}"), name))


def main() -> None:
    """Run a command; a failure with a message for the user is that message and its exit code."""
    try:
        register(sys.argv[1:])
        app()
    except WatcherError as error:
        lines = str(error) if isinstance(error, ConfigProblemsError) else f"error: {error}"
        print(lines, file=sys.stderr)  # noqa: T201 (this is the command line)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 (the one in main: the text of an unknown error may hold data)
        print(f"error: {type(error).__name__} ended the program; this is a bug", file=sys.stderr)  # noqa: T201
        sys.exit(Exit.FAILED)
