"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

CONFIG_HELP = "The YAML file. Else $WATCHER_CONFIG, ./watcher.yaml, /etc/watcher/watcher.yaml."

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help=CONFIG_HELP)]
