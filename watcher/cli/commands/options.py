"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

CONFIG_HELP = "The YAML file; default: $WATCHER_CONFIG, else ./watcher.yaml, else /etc/watcher/watcher.yaml."

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help=CONFIG_HELP)]
