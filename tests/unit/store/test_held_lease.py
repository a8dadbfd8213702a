"""A lease as its holder has it."""

import pytest
from stores import SECOND_US, SetClock

from watcher.domain.errors import LeaseExpiredError
from watcher.domain.timestamps import BootTime
from watcher.store.changes import Lease
from watcher.store.leases import HeldLease


def test_a_lease_is_trusted_until_its_moment_and_then_it_says_whose_it_is() -> None:
    clock = SetClock(us=0)
    held = HeldLease(Lease("account", "a", 1), clock=clock, trusted_until=BootTime(5.0))
    held.check()
    clock.us = 5 * SECOND_US
    with pytest.raises(LeaseExpiredError, match="the lease on account a was not renewed in time"):
        held.check()


def test_a_lease_that_nobody_else_can_have_is_trusted_for_ever() -> None:
    assert HeldLease(Lease("account", "a", 1), clock=SetClock(us=10**15)).is_trusted()
