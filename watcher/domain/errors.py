"""The error tree and the exit codes: what each failure means to whoever started the program."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    TIMEOUT = 3
    UNREACHABLE = 4
    NOT_FOUND = 5


class WatcherError(Exception):
    """A failure with a message fit for the user: what is wrong, where, and what would be right. Never a secret.

    On the command line it stands behind `label`.
    """

    exit_code = Exit.FAILED
    label = "error: "


class ConfigError(WatcherError):
    """The configuration cannot be used; the message holds one line per problem."""

    exit_code = Exit.USAGE


class UsageError(WatcherError):
    """What was asked for on the command line cannot be done."""

    exit_code = Exit.USAGE


class WaitEndedError(WatcherError):
    """A wait is over without an end of its execution."""

    def __init__(self, message: str, exit_code: Exit) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StoreError(WatcherError):
    """The store could not be read or written. The same work may be tried again.

    Nothing was recorded, unless the connection broke at the commit: then an owner that tries again has lost its lease.
    """


class StoreNotReadyError(StoreError):
    """The store's server cannot be used yet: it may be starting, or another process brings the tables up to date."""


class StoreUnusableError(StoreError):
    """The store cannot be used at all, now or by trying again: corrupt, of a newer version, or not to be written."""

    exit_code = Exit.USAGE


class StoreHeldError(StoreUnusableError):
    """Another daemon holds the store. It may end: whoever starts this one again may find it free."""

    exit_code = Exit.FAILED


class ListenError(WatcherError):
    """The address to listen on cannot be had now: another program may have it, or the network is not up yet."""


class ListenDeniedError(ListenError):
    """A user without the right to listen on that address has it no sooner by trying again."""

    exit_code = Exit.USAGE


class OwnershipLostError(StoreError):
    """The store holds something else than an owner believes, and what it was to write is not written.

    Somebody else owns this account or sink by now, which is ordinary, or a connection to the database broke.
    Whoever owns it next begins anew from the store.
    """


class SequenceConflictError(OwnershipLostError):
    """An owner wrote from a sequence that is not the recorded one, under a lease that is its own."""


class LeaseExpiredError(StoreError):
    """A lease was not renewed in time, so somebody else may own this by now. Nothing was sent; it comes due again."""


class OutputClosedError(WatcherError):
    """Events can no longer be written to stdout: its reader closed it, or its file takes no more."""


class TransportFailedError(Exception):
    """A request got no usable answer.

    `kind` is `timeout`, `dns`, `tls`, `refused`, `reset`, `truncated`, `too_large`, `private`, of a proxy `proxy` and
    `proxy_auth`, else `connection`. `remedy` says what a person has to do, where that is known.
    """

    def __init__(self, kind: str, *, remedy: str = "") -> None:
        """Keep no other text: those of network errors carry addresses and paths, and paths are secrets."""
        super().__init__(kind)
        self.kind = kind
        self.remedy = remedy
