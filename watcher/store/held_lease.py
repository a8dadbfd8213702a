"""A lease as its holder has it: what may be done under it, and until when that may be believed without asking."""

from watcher.domain.errors import LeaseExpiredError
from watcher.domain.timestamps import LATEST, BootTime
from watcher.runtime.clock import Clock
from watcher.store.changes import Lease

FOR_EVER = BootTime(LATEST)


class HeldLease:
    """A lease that is trusted until a moment of this machine's boot time, which each renewal puts off.

    Whoever holds it asks before each request: whatever is written under it the store checks itself, but it cannot call
    a request back.
    """

    def __init__(self, lease: Lease, *, clock: Clock, trusted_until: BootTime = FOR_EVER) -> None:
        """Trust it until then: for ever where nobody else can own anything."""
        self.lease = lease
        self.trusted_until = trusted_until
        self._clock = clock

    def is_trusted(self) -> bool:
        """Return whether nobody else can own this yet."""
        return self.trusted_until == FOR_EVER or self._clock.boot_time() < self.trusted_until

    def check(self) -> None:
        """Raise `LeaseExpiredError` if somebody else may own this by now."""
        if not self.is_trusted():
            name = f"{self.lease.kind} {self.lease.name}"
            raise LeaseExpiredError(f"the lease on {name} was not renewed in time; another process may own it by now")
