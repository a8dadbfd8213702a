"""`watcher init`: a configuration file to begin with, or a new signing secret."""

import base64
import secrets
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from watcher.cli.console import console_on, say
from watcher.cli.shell import put, write_file
from watcher.sinks.webhook import SECRET_PREFIX

EXAMPLES = ("watcher init", "export OPS_WEBHOOK_SECRET=$(watcher init --secret)")

SECRET_BYTES = 32


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
        put(f"{SECRET_PREFIX}{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}")
        return
    text = files("watcher.cli.commands").joinpath("starter.yaml").read_text(encoding="utf-8")
    write_file(path, text, force=force)
    say(
        console_on(sys.stderr),
        ("✓ ", "green"),
        f"wrote {path}. Next: fill in the id, export CLERK_API_KEY, watcher check",
    )
