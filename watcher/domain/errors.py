"""The program's own errors, and the exit codes of its commands."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of the commands."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    TIMEOUT = 3
    UNREACHABLE = 4
    NOT_FOUND = 5


class WatcherError(Exception):
    """A failure with a message for the user: what is wrong, where, and what would be right.

    The message holds no secret. On the command line `label` stands before the message.
    """

    exit_code = Exit.FAILED
    label = "error: "


class ConfigError(WatcherError):
    """A configuration that cannot be used. The message has one line per mistake."""

    exit_code = Exit.USAGE


class UsageError(WatcherError):
    """A command line that asks for something impossible."""

    exit_code = Exit.USAGE


class WaitEndedError(WatcherError):
    """The end of `watcher wait` before the end of the execution."""

    def __init__(self, message: str, exit_code: Exit) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class DaemonError(WatcherError):
    """The failure of a request to the daemon, with an optional hint. After a refusal a retry does not help."""

    def __init__(
        self, message: str, *, hint: str = "", code: Exit = Exit.UNREACHABLE, is_refusal: bool = False
    ) -> None:
        super().__init__(f"{message}\nhint: {hint}" if hint else message)
        self.exit_code, self.is_refusal = code, is_refusal


class StoreError(WatcherError):
    """A failed read or write of the store. The same work may be tried again.

    Nothing was recorded, unless the connection broke at the commit. If events were recorded, writing them again raises
    `SequenceConflictError`.
    """


class StoreNotReadyError(StoreError):
    """A store that cannot be used yet: its server may be starting, or another process may be migrating its tables."""


class StoreUnusableError(StoreError):
    """A store that a new attempt does not make usable: for example, it is corrupt, read-only or of a newer version."""

    exit_code = Exit.USAGE


class StoreHeldError(StoreUnusableError):
    """A store that another daemon holds. A later start may find the store free."""

    exit_code = Exit.FAILED


class ListenError(WatcherError):
    """An address that cannot be listened on now: another program may use it, or the network is not up yet."""


class ListenDeniedError(ListenError):
    """An address that this user may not listen on. A new attempt does not help."""

    exit_code = Exit.USAGE


class OwnershipLostError(StoreError):
    """An owner that has lost its lease, or whose state in memory differs from the store. Nothing was written.

    Usually another process has become the owner. A broken connection to the database is the other cause. The next owner
    reloads from the store.
    """


class SequenceConflictError(OwnershipLostError):
    """A refused write of an owner with a valid lease: the store holds another sequence or row than it expected."""


FINAL_STORE_ERRORS = (OwnershipLostError, StoreUnusableError)
"""The errors of the store after which an owner ends."""


class LeaseExpiredError(StoreError):
    """A lease that was not renewed in time, so another process may be the owner. The present request was not sent."""


class OutputClosedError(WatcherError):
    """A stdout that takes no more events: its reader closed it, or its file cannot grow."""


class TransportFailedError(Exception):
    """A request that got no usable answer.

    `kind` is `timeout`, `dns`, `tls`, `refused`, `reset`, `truncated`, `too_large`, `private`, `proxy`, `proxy_auth` or
    `connection`. `remedy` is an instruction for the user; it is empty if none is known.
    """

    def __init__(self, kind: str, *, remedy: str = "") -> None:
        """Keep no text of the network error: such texts hold addresses and paths, and paths are secrets."""
        super().__init__(kind)
        self.kind = kind
        self.remedy = remedy
