"""Where the configuration file is, and which variables stand in for some of its defaults."""

import os
from collections.abc import Mapping
from pathlib import Path

from watcher.domain.errors import ConfigError

VARIABLE = "WATCHER_CONFIG"
PLACES = (Path("watcher.yaml"), Path("/etc/watcher/watcher.yaml"))
STORE_VARIABLE = "WATCHER_STORE_URL"
LISTEN_VARIABLE = "WATCHER_HTTP_LISTEN"
DEFAULTS = {
    STORE_VARIABLE: ("store", "url"),
    LISTEN_VARIABLE: ("http", "listen"),
    "WATCHER_LOG_LEVEL": ("log", "level"),
}
"""Variables that change a default; what the file says wins. An empty one is as good as none."""


def find_config(explicit: Path | None, *, environ: Mapping[str, str]) -> Path:
    """Return the file to read: `--config`, else `$WATCHER_CONFIG`, else the first of `PLACES` that is there.

    Raises `ConfigError` naming every place that was tried.
    """
    if explicit is not None:
        return explicit
    if named := environ.get(VARIABLE):
        return Path(named)
    if found := next((place for place in PLACES if os.path.lexists(place)), None):
        return found
    tried = f"--config is not given, ${VARIABLE} is not set, there is no ./{PLACES[0]} and no {PLACES[1]}"
    raise ConfigError(f"no configuration: {tried}; write watcher.yaml, or name a file with --config")
