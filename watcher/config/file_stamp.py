"""Files of the configuration: which one it is, what it holds, or why it cannot be had. Knows nothing of YAML.

A file system may hang (NFS whose server is gone), with `stat` as well as with `read`. So every file is checked and
read in a thread that is left behind after a while. Threads left behind are bounded.
"""

import errno
import os
import select
import stat
import time
from collections.abc import Iterable
from concurrent.futures import Future
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from watcher.runtime.threads import begin

T = TypeVar("T")

WITHIN_S = 5.0
"""A disk answers within milliseconds, a mounted file within a second."""

HURRIED_S = 0.5
"""What is left for a file once another has used up the time: together they may be many."""

SECRET_BYTES = 64 * 1024
CONFIG_BYTES = 16 * 1024 * 1024
"""100,000 executions take 4 MiB."""

PIPE_BYTES = 64 * 1024
LEFT_BEHIND_COUNT = 32
ASKED_AGAIN_S = 60.0


class Stamp(NamedTuple):
    """Which file a path led to, links followed, and when it, or who may read it, was last changed."""

    device: int
    inode: int
    size: int
    changed_ns: int


HANGS = Stamp(-1, -1, -1, -1)
"""Of a file of which nothing was learnt in time."""


class Cause(Enum):
    """Why a file cannot be had."""

    NO_PATH = auto()
    MISSING = auto()
    DENIED = auto()
    DIRECTORY = auto()
    NOT_REGULAR = auto()
    TOO_LARGE = auto()
    HANGS = auto()
    SILENT = auto()
    OTHER = auto()


class FileError(Exception):
    """A file cannot be had; the message is the reason in words, without the path."""

    def __init__(self, cause: Cause, reason: str) -> None:
        """Keep both."""
        super().__init__(reason)
        self.cause = cause


class _PendingStamp(NamedTuple):
    outcome: Future[Stamp | None]
    began_at: float


class Files:
    """Stamps files and reads them. A file that hangs costs `within_s`, and no more than the thread it hangs in."""

    def __init__(self, *, within_s: float = WITHIN_S) -> None:
        """Begin with nothing left behind."""
        self._within_s = within_s
        self._pending: dict[Path, _PendingStamp] = {}
        self._left_behind: list[Future[Any]] = []

    def stamps(self, paths: Iterable[Path], *, hurried: bool = False) -> dict[Path, Stamp | None]:
        """Return what is at those paths now: `None` where nothing can be found, `HANGS` where there is no answer."""
        limit_s = self._limit_s(hurried=hurried)
        pending = {path: self._stamp_pending(path) for path in paths}
        return {
            path: _result(each.outcome, within_s=each.began_at + limit_s - time.monotonic(), otherwise=HANGS)
            for path, each in pending.items()
        }

    def read(self, path: Path, *, limit: int, pipe: bool = False, hurried: bool = False) -> bytes:
        """Return what a regular file holds, or, if that may be, a `pipe`. Raises `FileError`."""
        if not self._may_leave_behind():
            raise FileError(Cause.HANGS, f"no answer to {LEFT_BEHIND_COUNT} attempts so far")
        within_s = self._limit_s(hurried=hurried)
        read = begin(partial(_read, path, limit=limit, pipe=pipe, within_s=within_s), name="read")
        self._left_behind.append(read)  # it may be
        try:
            return read.result(within_s + HURRIED_S)  # a pipe that stays silent says so by itself
        except TimeoutError:
            raise FileError(Cause.HANGS, f"no answer within {within_s:g} s") from None
        except ValueError:  # a path may hold a null character
            raise FileError(Cause.NO_PATH, "no path") from None
        except OSError as error:
            reason = f"{(error.strerror or 'I/O error').lower()}, running as uid {os.geteuid()}"
            raise FileError(_cause(error), reason) from None

    def directories(self, paths: Iterable[Path]) -> set[Path]:
        """Return where the files at those paths, and those they link to, can be seen to be replaced."""
        answering = [path for path, stamp in self.stamps(paths).items() if stamp != HANGS]
        found = begin(partial(_directories, answering), name="stat")
        return _result(found, within_s=self._within_s, otherwise=set())

    def is_directory(self, path: Path) -> bool:
        """Return whether there is a directory, as far as can be learnt soon."""
        found = begin(partial(os.path.isdir, path), name="stat")
        return _result(found, within_s=self._limit_s(hurried=True), otherwise=False)

    def _limit_s(self, *, hurried: bool) -> float:
        return min(HURRIED_S, self._within_s) if hurried else self._within_s

    def _stamp_pending(self, path: Path) -> _PendingStamp:
        """Return a file's pending stamp: the one under way if it hangs, for another would hang too, for a while."""
        pending, now = self._pending.get(path), time.monotonic()
        if pending is not None and not pending.outcome.done():
            if now - pending.began_at < ASKED_AGAIN_S or not self._may_leave_behind():
                return pending
            self._left_behind.append(pending.outcome)  # what hangs may be mounted anew, and the old call hang on
        self._pending[path] = _PendingStamp(begin(partial(_stamp_of, path), name="stat"), now)
        return self._pending[path]

    def _may_leave_behind(self) -> bool:
        self._left_behind = [each for each in self._left_behind if not each.done()]
        return len(self._left_behind) < LEFT_BEHIND_COUNT


def _result(pending: Future[T], *, within_s: float, otherwise: T) -> T:
    try:
        return pending.result(max(0.0, within_s))
    except TimeoutError:
        return otherwise


def _stamp_of(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except (OSError, ValueError):  # a path may hold a null character
        return None
    if stat.S_ISREG(found.st_mode):
        return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)
    return Stamp(found.st_dev, found.st_ino, 0, 0)  # each write to a pipe, and each file in a directory, is news


def _directories(paths: Iterable[Path]) -> set[Path]:
    directories = set()
    for path in paths:
        try:
            places = (os.path.abspath(path), os.path.realpath(path))  # noqa: PTH100 (`resolve` raises for a loop)
        except ValueError:  # a path may hold a null character
            continue
        directories |= {os.path.dirname(place) for place in places}  # noqa: PTH120
    return {Path(each) for each in directories if os.path.isdir(each)}  # noqa: PTH112 (`is_dir` raises if it may not)


def _read(path: Path, *, limit: int, pipe: bool, within_s: float) -> bytes:
    _refuse_odd(path.stat(), limit=limit, pipe=pipe)  # to open a device may do something
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:  # noqa: PTH123 (it may be another by now than what was checked)
        found = os.fstat(fd)
        _refuse_odd(found, limit=limit, pipe=pipe)
        is_pipe = stat.S_ISFIFO(found.st_mode)
        data = _drain(fd, limit=limit, within_s=within_s) if is_pipe else file.read(limit + 1)
    if data is not None and len(data) > limit:
        raise _too_large(limit)
    return data or b""  # some of /proc have nothing to say yet


def _refuse_odd(found: os.stat_result, *, limit: int, pipe: bool) -> None:
    if stat.S_ISREG(found.st_mode):
        if found.st_size > limit:
            raise _too_large(limit)
    elif stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    elif not stat.S_ISFIFO(found.st_mode):
        raise FileError(Cause.NOT_REGULAR, "a device or a socket, not a regular file")
    elif not pipe:
        raise FileError(Cause.NOT_REGULAR, "a named pipe, not a regular file")


def _too_large(limit: int) -> FileError:
    size = f"{limit // 1024} KiB" if limit < 1024 * 1024 else f"{limit // (1024 * 1024)} MiB"
    return FileError(Cause.TOO_LARGE, f"larger than {size}")


def _drain(fd: int, *, limit: int, within_s: float) -> bytes:
    """Return what is written into a pipe until it is closed."""
    until, data, closed = time.monotonic() + within_s, bytearray(), False
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while len(data) <= limit:
        try:
            chunk = os.read(fd, PIPE_BYTES)  # nothing if no writer has it open
        except BlockingIOError:
            chunk = None  # one has, and may have more to say
        if chunk:
            data += chunk
        elif chunk is not None and (data or closed):
            break
        elif not (events := poll.poll(max(0, round((until - time.monotonic()) * 1000)))):
            raise FileError(Cause.SILENT, f"a pipe that nobody wrote and closed within {within_s:g} s")
        else:
            closed = events[0][1] == select.POLLHUP
    return bytes(data)


def _cause(error: OSError) -> Cause:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.ELOOP | errno.ENAMETOOLONG:
            return Cause.MISSING
        case errno.EACCES | errno.EPERM:
            return Cause.DENIED
        case errno.EISDIR:
            return Cause.DIRECTORY
    return Cause.OTHER
