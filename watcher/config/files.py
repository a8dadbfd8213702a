"""What a file looked like when it was read, to notice later that it is another."""

from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """Which file a path led to, links followed, and when it was last written."""

    device: int
    inode: int
    size: int
    written_ns: int


def stamp_of(path: Path) -> Stamp | None:
    """Return what is at that path now, `None` if nothing can be found there."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # a path may hold a null character
        return None
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
