"""Who owns what: how it is where one process has it all, and what is wanted by a configuration."""

from collections.abc import Callable, Collection, Mapping

from watcher.config.models import Settings
from watcher.daemon.fingerprint import fingerprint_of_key
from watcher.runtime.clock import Clock
from watcher.store.leases import MAINTENANCE, NO_BUDGETS, HeldLease, LeaseKey
from watcher.store.sql_store import SqlStore

Notice = Callable[[Collection[LeaseKey]], None]


class Ownership:
    """Which accounts and sinks this process may own: all, at once and for ever, where the store lets in no other.

    None of its methods raises an error but `take`. Where replicas share the store, they share the leases: `Leases`.
    """

    def __init__(self, store: SqlStore, *, clock: Clock) -> None:
        """Want no more than to tidy the store yet."""
        self._store = store
        self._clock = clock
        self._wanted = frozenset({MAINTENANCE})

    def follow(self, *, changed: Notice, trusted: Notice) -> None:
        """Tell `changed` what may be owned from now on, or may not, and `trusted` what is trusted again."""

    async def want(
        self, keys: Collection[LeaseKey], *, fingerprint: str, budgets: Mapping[LeaseKey, str] = NO_BUDGETS
    ) -> None:
        """Want to own these, and to tidy the store, by a configuration with that fingerprint.

        `budgets` says by whose key an account asks: two that spend the same one are not owned at once.
        """
        self._wanted = frozenset(keys) | {MAINTENANCE}

    def may_own(self, key: LeaseKey) -> bool:
        """Return whether this is wanted and held, and to be kept."""
        return key in self._wanted

    def is_current(self, held: HeldLease) -> bool:
        """Return whether this is still the lease on what it names."""
        return True

    async def take(self, key: LeaseKey) -> HeldLease:
        """Return the lease for a new owner of what may be owned. Raises `StoreError`."""
        return HeldLease(await self._store.claim(key.kind, key.name), clock=self._clock)

    async def release(self, key: LeaseKey) -> None:
        """Let others have what is held and may not be owned."""

    def decline(self, key: LeaseKey) -> None:
        """Own this no longer, though it is wanted and held; it is to be released, and not taken again for a while."""

    def lost(self, held: HeldLease) -> None:
        """Take note that the store says somebody else owns this."""

    def leave(self) -> None:
        """Take nothing any more; what is held may still be used, until it is released."""

    async def close(self) -> None:
        """Release all that is left."""

    def is_agreed(self) -> bool:
        """Return whether all that own anything here go by the same configuration."""
        return True

    def problem(self) -> str | None:
        """Return why this process cannot be sure of what it owns, if it cannot."""
        return None


def wanted_by(settings: Settings) -> dict[LeaseKey, object]:
    """Return what each owner is built from: another value of it means another owner."""
    sinks = {LeaseKey("sink", name): sink for name, sink in settings.sinks.items()}
    accounts = {
        LeaseKey("account", name): (account, settings.polling, settings.store.retention_s)
        for name, account in settings.accounts.items()
    }
    return {**sinks, **accounts}


def budgets_of(settings: Settings) -> dict[LeaseKey, str]:
    """Return whose budget each account spends."""
    return {LeaseKey("account", name): fingerprint_of_key(each.api_key) for name, each in settings.accounts.items()}
