"""The errors that reach the user, and the exit codes of the program."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of all commands."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    TIMEOUT = 3
    UNREACHABLE = 4
    NOT_FOUND = 5


class WatcherError(Exception):
    """A failure with a message for the user: what is wrong, where, and what would be right. It holds no secret.

    On the command line the message follows `label`.
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
    """The end of `watcher wait` before its execution has ended."""

    def __init__(self, message: str, exit_code: Exit) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StoreError(WatcherError):
    """A failed read or write of the store. The same work may be tried again.

    Nothing was recorded, unless the connection broke at the commit. In that case an owner that tries again loses its
    lease.
    """


class StoreNotReadyError(StoreError):
    """A store whose server cannot be used yet: it may be starting, or another process may be migrating the tables."""


class StoreUnusableError(StoreError):
    """A store that no new attempt makes usable: it is corrupt, of a newer version, or read-only."""

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
    """A refused write: the store does not hold the state that the owner has in memory.

    Another process owns this account or sink by now, which is ordinary, or a connection to the database broke.
    The next owner reloads from the store.
    """


class SequenceConflictError(OwnershipLostError):
    """A write by the present owner from a sequence that is not the recorded one."""


class LeaseExpiredError(StoreError):
    """A lease that was not renewed in time, so another process may be the owner. Nothing was sent."""


class OutputClosedError(WatcherError):
    """A stdout that takes no more events: its reader closed it, or its file cannot grow."""


class TransportFailedError(Exception):
    """A request that got no usable answer.

    `kind` is `timeout`, `dns`, `tls`, `refused`, `reset`, `truncated`, `too_large`, `private`, `proxy`, `proxy_auth` or
    `connection`. `remedy` is an instruction for the user; it is empty if none is known.
    """

    def __init__(self, kind: str, *, remedy: str = "") -> None:
        """Keep no other text: the texts of network errors hold addresses and paths, and paths are secrets."""
        super().__init__(kind)
        self.kind = kind
        self.remedy = remedy
