"""What a database's error means: whether it concerns one write or all of them, and what the user can do.

Which names a database gives its errors is its own file's business. Refuses to pass on the text of a statement's error:
it may hold parameters.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb

from sqlalchemy.exc import DBAPIError

from watcher.domain.errors import SequenceConflictError, StoreError


@dataclass(frozen=True, slots=True)
class DatabaseFault:
    """What kind of error it is, in words fit to be shown, and whether it stands in the way of every write.

    `is_away` says that the database could not be reached: once it can, there is room for all that was refused.
    """

    kind: type[StoreError]
    text: str
    concerns_all: bool = False
    is_away: bool = False

    def error(self) -> StoreError:
        """Return it anew for each who must hear it: what is raised twice carries two tracebacks."""
        return self.kind(self.text)


@dataclass(frozen=True, slots=True)
class ErrorNames:
    """The names that a database has for errors.

    `name_of` returns the name of an error of the driver, or `None`. `of_all` has, by how a name begins, what stands in
    the way of every write, and `taken` the names that say that a row is there already.
    """

    name_of: Callable[[BaseException], str | None]
    of_all: Mapping[str, tuple[type[StoreError], str]]
    taken: Collection[str]


def explain(error: Exception, *, where: str, names: ErrorNames) -> DatabaseFault:
    """Say what an error while reading or writing means. `where` names the database."""
    if isinstance(error, StoreError):
        return DatabaseFault(type(error), str(error))
    cause = cause_of(error)
    name = names.name_of(cause) or _line_of(error, cause)
    if name in names.taken:
        text = f"{where} already holds what its owner believes new ({name}); this is a bug: start again, and report it"
        return DatabaseFault(SequenceConflictError, text)
    for prefix, (kind, text) in names.of_all.items():
        if name.startswith(prefix):
            return DatabaseFault(kind, f"{where} {text} ({name})", concerns_all=True)
    return DatabaseFault(StoreError, f"{where} did not take this ({name})")


def cause_of(error: BaseException) -> BaseException:
    """Return the driver's error in an error of SQLAlchemy; any other as it is."""
    return (error.orig or error) if isinstance(error, DBAPIError) else error


def _line_of(error: Exception, cause: BaseException) -> str:
    """Return an error's class and the line of ours it came through."""
    ours = [frame for frame in extract_tb(error.__traceback__) if "watcher" in Path(frame.filename).parts]
    return (
        f"{type(cause).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else type(cause).__name__
    )
