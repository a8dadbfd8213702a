"""Where the database file stands, and whether the one that was opened still does.

SQLite goes on writing into a file that was deleted, and all of it is gone with the program.
"""

import os
from pathlib import Path

from watcher.domain.errors import StoreUnusableError
from watcher.store.file_lock import note_address


class Place:
    """The path of a database, and which file was opened there."""

    def __init__(self, path: Path, *, opened: os.stat_result) -> None:
        """Remember the file by its device and inode."""
        self._path = path
        self._opened = opened

    def check(self) -> None:
        """Raise `StoreUnusableError` if the file is no longer there, or is another."""
        try:
            found = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise self._error("was deleted or moved") from None
        except OSError:  # a directory that was closed to us, say: the file itself goes on
            return
        if not os.path.samestat(found, self._opened):
            raise self._error("was replaced by another file")

    def announce(self, http: str) -> None:
        """Write beside the file where the daemon that holds it listens (`host:port`)."""
        note_address(self._path, http)

    def _error(self, what: str) -> StoreUnusableError:
        return StoreUnusableError(
            f"{self._path} {what} while it was in use, so nothing can be kept; put the file back or restore a copy,"
            " then start again (else everything is reported again), and change it only while the daemon is stopped"
        )
