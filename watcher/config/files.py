"""The places and variables of a configuration, and its files: reading them, and their stamps.

This module imports little, because a container runs `watcher health` again and again.
"""

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from watcher.domain.errors import ConfigError

VARIABLE = "WATCHER_CONFIG"
SYSTEM_PLACE = Path("/etc/watcher/watcher.yaml")
PLACES = (Path("watcher.yaml"), SYSTEM_PLACE)
STORE_VARIABLE = "WATCHER_STORE_URL"
LISTEN_VARIABLE = "WATCHER_HTTP_LISTEN"
DEFAULTS = {
    STORE_VARIABLE: ("store", "url"),
    LISTEN_VARIABLE: ("http", "listen"),
    "WATCHER_LOG_LEVEL": ("log", "level"),
}
"""The environment variables that replace a key's default. The file takes precedence. Empty variables do not count."""

SUFFIX = ".yaml"
"""The end of the name of each file that is read in a folder."""

SECRET_BYTES = 64 * 1024
CONFIG_BYTES = 16 * 1024 * 1024
"""The largest configuration file. 100,000 executions take 4 MiB."""


class FileError(Exception):
    """The error for a file that cannot be read or parsed. Its text is the reason, without the path of the file.

    `place` is the line and the column of the mistake, from 1; both are 0 if the mistake has no place.
    """

    def __init__(self, reason: str, *, remedy: str, place: tuple[int, int] = (0, 0)) -> None:
        super().__init__(reason)
        self.remedy, self.place = remedy, place


def find_config(explicit: Path | None, *, environ: Mapping[str, str]) -> Path:
    """Return the file or folder to read: `--config`, else `$WATCHER_CONFIG`, else the first of `PLACES` that exists.

    Raises `ConfigError`, with all places that were tried, if there is no file.
    """
    if explicit is not None:
        return explicit
    if named := environ.get(VARIABLE):
        return Path(named)
    if found := next((place for place in PLACES if os.path.lexists(place)), None):
        return found
    tried = f"--config is not given, ${VARIABLE} is not set, there is no ./{PLACES[0]} and no {SYSTEM_PLACE}"
    raise ConfigError(f"no configuration: {tried}; write watcher.yaml, or name a file with --config")


def config_files(path: Path) -> list[Path]:
    """Return the files of a configuration: the `*.yaml` of a folder by name, but no hidden ones; else `path` itself.

    The list is empty if the folder has no such file, or cannot be listed.
    """
    if not os.path.isdir(path):  # noqa: PTH112 (`Path.is_dir` raises an error without permission)
        return [path]
    with suppress(OSError):
        return sorted(file for file in path.iterdir() if file.name.endswith(SUFFIX) and file.name[0] != ".")
    return []


Stamp = tuple[int, ...]
"""The device, inode, size and change time of a file. For a link they are those of its target. A folder has the first
two."""

Stamps = Mapping[Path, Stamp | None]


def stamps_of(paths: Iterable[Path]) -> Stamps:
    """Return the current stamp of each file, and for a folder also those of its `config_files`.

    The stamp of a file that does not exist or cannot be reached is `None`.
    """
    stamps: dict[Path, Stamp | None] = {}
    for path in paths:
        try:
            found = path.stat()
        except (OSError, ValueError):  # a path may hold a null character
            stamps[path] = None
            continue
        stamps[path] = (found.st_dev, found.st_ino)
        if stat.S_ISDIR(found.st_mode):
            stamps |= stamps_of(config_files(path))
        else:
            stamps[path] = (found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)
    return stamps


def read_file(path: Path, *, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes. Raises `FileError`."""
    data = b""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):  # opening a pipe or a device may have an effect, or never end
            with path.open("rb") as file:
                data = file.read(limit + 1)
    except (OSError, ValueError) as error:  # a path may hold a null character
        reason = (getattr(error, "strerror", None) or "no usable path").lower()
        remedy = "correct the path or its permissions"
        raise FileError(f"{reason}, running as uid {os.geteuid()}", remedy=remedy) from None
    if stat.S_ISDIR(mode):
        remedy = "name a file; Docker makes a directory where the file of a mount is missing"
        raise FileError("a directory", remedy=remedy)
    if not stat.S_ISREG(mode):
        raise FileError("not a regular file", remedy="name a regular file")
    if len(data) > limit:
        raise FileError(f"larger than {limit // 1024} KiB", remedy="correct the path")
    return data
