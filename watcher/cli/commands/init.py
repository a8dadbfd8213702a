"""`watcher init`: a configuration file to begin with, or a new signing secret."""

import base64
import secrets
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from watcher.cli.console import say, stderr_console
from watcher.cli.stdio import put
from watcher.delivery.sinks.signing import SECRET_PREFIX
from watcher.domain.errors import Exit, WatcherError

EXAMPLES = ("watcher init", "export OPS_WEBHOOK_SECRET=$(watcher init --secret)")

SECRET_BYTES = 32


class NotWrittenError(WatcherError):
    """The file was not written."""

    exit_code = Exit.USAGE


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("watcher.yaml"),
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    secret: Annotated[
        bool, typer.Option("--secret", help="Print a new signing secret for a webhook; write no file.")
    ] = False,
) -> None:
    """Write a commented starter file.

    It still needs your key and your pipeline's id. Exit code 2: the file exists already, or cannot be written.
    """
    if secret:
        put(new_secret())
        return
    _write(path, starter(), force=force)
    say(stderr_console(), ("✓ ", "green"), f"wrote {path}. Next: fill in the id, export CLERK_API_KEY, watcher check")


def new_secret() -> str:
    """Return a new signing secret as Standard Webhooks writes it."""
    return f"{SECRET_PREFIX}{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def starter() -> str:
    """Return the file to begin with."""
    return files("watcher.cli.commands").joinpath("starter.yaml").read_text(encoding="utf-8")


def _write(path: Path, text: str, *, force: bool) -> None:
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise NotWrittenError(f"{path} exists already; name another file, or overwrite it with --force") from None
    except OSError as error:
        reason = (error.strerror or "I/O error").lower()
        raise NotWrittenError(f"cannot write {path} ({reason}); name a file in a folder of yours") from None
