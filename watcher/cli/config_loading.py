"""The configuration a command works with: where it is, and what is said when it cannot be used."""

import os
import sys
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import typer

from watcher.cli.config_errors import report_mistakes
from watcher.cli.console import stderr_console
from watcher.config.loader import load_config
from watcher.config.locate import find_config
from watcher.config.models import Settings
from watcher.config.problems import ConfigProblemsError


def config_path(explicit: Path | None) -> Path:
    """Return the file a command reads. Raises `ConfigError` if there is none."""
    return find_config(explicit, environ=os.environ)


def read_config(path: Path, *, only: Collection[str] | None = None) -> Settings:
    """Read the file, or `only` these keys, as `loaded` does."""
    return loaded(partial(load_config, path, environ=os.environ, only=only))


def loaded(load: Callable[[], Settings]) -> Settings:
    """Load settings. What is wrong is shown on a terminal with its lines, and ends the command."""
    try:
        return load()
    except ConfigProblemsError as error:
        if not sys.stderr.isatty():
            raise
        report_mistakes(error, console=stderr_console())
        raise typer.Exit(error.exit_code) from None
