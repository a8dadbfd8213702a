"""What a database's error means: whether it concerns one write or all of them, and what the user can do.

Refuses to pass on the text of an error: it may hold parameters.
"""

from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb

from sqlalchemy.exc import DBAPIError

from watcher.domain.errors import SequenceConflictError, StoreError, StoreUnusableError


@dataclass(frozen=True, slots=True)
class DatabaseFault:
    """What kind of error it is, in words fit to be shown, and whether it stands in the way of every write."""

    kind: type[StoreError]
    text: str
    concerns_all: bool = False

    def error(self) -> StoreError:
        """Return it anew for each who must hear it: what is raised twice carries two tracebacks."""
        return self.kind(self.text)


_OF_ALL: dict[str, tuple[type[StoreError], str]] = {
    "SQLITE_BUSY": (StoreError, "is locked by another program; close what else has it open"),
    "SQLITE_FULL": (StoreError, "cannot grow, the disk is full; make room"),
    "SQLITE_IOERR": (StoreError, "cannot be read or written, the disk reports an error; check its room and health"),
    "SQLITE_READONLY": (StoreError, "is read-only; allow this user to write it and its directory"),
    "SQLITE_CANTOPEN": (StoreError, "cannot be opened; check that it and its directory exist and may be written"),
    "SQLITE_CORRUPT": (StoreUnusableError, "is damaged; put back a copy, or move it away to start anew"),
    "SQLITE_NOTADB": (StoreUnusableError, "is not a SQLite database, or is damaged; set store.url to another file"),
}
_TAKEN = {"SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE"}


def explain(error: Exception, *, where: str) -> DatabaseFault:
    """Say what an error while reading or writing means. `where` names the database."""
    if isinstance(error, StoreError):
        return DatabaseFault(type(error), str(error))
    name = _name(error)
    if name in _TAKEN:
        text = f"{where} already holds what its owner believes new ({name}); this is a bug: start again, and report it"
        return DatabaseFault(SequenceConflictError, text)
    for prefix, (kind, text) in _OF_ALL.items():
        if name.startswith(prefix):
            return DatabaseFault(kind, f"{where} {text} ({name})", concerns_all=True)
    return DatabaseFault(StoreError, f"{where} did not take this ({name})")


def _name(error: Exception) -> str:
    """Return the database's own name of the error; of any other its class and the line of ours it came through."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if name := getattr(cause, "sqlite_errorname", None):
        return str(name)
    ours = [frame for frame in extract_tb(error.__traceback__) if "watcher" in Path(frame.filename).parts]
    return (
        f"{type(cause).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else type(cause).__name__
    )
