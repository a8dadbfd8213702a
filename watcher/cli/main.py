"""The entry point of the command line: it imports one command, runs it, and prints its error."""

import gc
import io
import json
import os
import shutil
import sys
from collections.abc import Mapping
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from typing import Annotated, NoReturn, cast

import typer

from watcher.cli.shell import fill_gaps, put_all_out, put_error
from watcher.domain.errors import Exit, WatcherError
from watcher.runtime.signals import find_command
from watcher.runtime.version import VERSION

COMMANDS: Mapping[str, str] = {
    "run": "run",
    "status": "status",
    "report": "report",
    **dict.fromkeys(("events", "problems", "ack", "silence", "deliveries"), "operate"),
    "history": "history",
    **dict.fromkeys(("replay", "scan", "enable-sink", "test-sink"), "operate"),
    "wait": "wait",
    "check": "check",
    **dict.fromkeys(("init", "schema"), "starter"),
    "health": "health",
    "copy-store": "copy_store",
    "demo": "demo",
    "simulate": "simulate",
}
"""The commands in the order of the help, each with the module of `commands` that holds its function."""

app = typer.Typer(
    name="watcher",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's panels cut the names of options on a narrow terminal
    context_settings={
        "help_option_names": ["-h", "--help"],
        "terminal_width": min(80, shutil.get_terminal_size().columns),  # click's default is never below 50
    },
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"clerk-watcher {VERSION}")
        raise typer.Exit


@app.callback(epilog="Try it without a key: watcher demo")
def watcher(
    *,
    _version_asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Know when a Clerk Chat AI-agent execution starts, pauses, succeeds or fails, within seconds."""


def register(words: list[str]) -> None:
    """Add the command that the command line `words` names. If it names none, add a summary of each for the help.

    No module of another command is imported: all together take half a second. Completion in a shell needs them all.
    The examples at the end of a command's docstring become the end of its help.
    """
    named = find_command(words)
    gc.disable()  # what is imported stays: to search it for garbage takes a sixth of the time
    for command, module in COMMANDS.items():
        name = command.replace("-", "_")
        if named == command or "_WATCHER_COMPLETE" in os.environ:
            function = getattr(import_module(f"watcher.cli.commands.{module}"), name)
            text, heading, examples = (getdoc(function) or "").partition("Examples:\n")
            app.command(command, help=text, epilog=f"\b\n{heading}{examples}")(function)
        elif named not in COMMANDS:
            source = (Path(__file__).parent / "commands" / f"{module}.py").read_text(encoding="utf-8")
            text = source.partition(f"\ndef {name}(")[2].partition('"""')[2].partition("\n")[0]
            app.command(command, help=text)(lambda: None)
    gc.freeze()  # and no later search goes through it
    gc.enable()


def main() -> None:
    """Run the command that the command line names. Print an error as one message, and exit with the error's code."""
    try:
        fill_gaps()
        for stream in (sys.stdout, sys.stderr):
            cast("io.TextIOWrapper", stream).reconfigure(errors="replace")  # for signs that the encoding lacks
        try:
            register(sys.argv[1:])
            app(_with_values(sys.argv[1:]), prog_name="watcher")  # also for `python -m`: shells complete it
        finally:
            _flush_logs()
            put_all_out()
    except WatcherError as error:
        if "--json" in sys.argv:
            message, _, hint = str(error).partition("\nhint: ")
            code = error.exit_code
            answer = {"code": code.name.lower(), "message": message, "hint": hint, "exit": int(code)}
            _fail(json.dumps({"error": answer}), code=code)
        _fail(f"{error.label}{error}", code=error.exit_code)
    except OSError as error:
        _fail(f"error: {type(error).__name__} ({error.strerror}) ended the program", code=Exit.FAILED)
    except Exception as error:  # noqa: BLE001 (nothing above handles it; its text may hold data, so only its type is printed)
        _fail(f"error: {type(error).__name__} ended the program; this is a bug", code=Exit.FAILED)


def _with_values(words: list[str]) -> list[str]:
    """Return the command line with an empty value for an option whose value may be left out: Typer has no such."""
    pairs = zip(words, [*words[1:], "-"], strict=False)
    return [f"{word}=" if word in _MAY_LACK_VALUE and after.startswith("-") else word for word, after in pairs]


_MAY_LACK_VALUE = ("--who",)


def _flush_logs() -> bool:
    """Wait until the logs are written, if the command has imported them. Return whether they are written."""
    logs = sys.modules.get("watcher.runtime.logs")
    return logs is None or bool(logs.flush_logs())


def _fail(message: str, *, code: Exit) -> NoReturn:
    if _flush_logs():  # if the logs cannot be flushed, nobody reads stderr: a write would block
        put_error(message)
    sys.exit(code)
