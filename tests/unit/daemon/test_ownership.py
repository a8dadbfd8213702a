"""What a replica believes it holds: leases in memory, a clock set by hand, and the rounds that the test asks for."""

import asyncio
from collections.abc import AsyncIterator, Collection

import pytest
from lease_store import FakeLeaseStore, LeaseTable, released
from structlog.testing import capture_logs
from virtual import FakeClock

from watcher.daemon.ownership import RENEW_AGAIN_S, RENEW_EVERY_S, Ownership
from watcher.domain.errors import OwnershipLostError, StoreError
from watcher.runtime.metrics import Metrics
from watcher.store.leases import LEASE_S, MAINTENANCE, HeldLease, LeaseKey

ACCOUNTS = [LeaseKey("account", name) for name in "abcdef"]
A, B = ACCOUNTS[:2]
OPS = LeaseKey("sink", "ops")


class Replica:
    """One process, which looks at its leases when the test says, and gives up at once what it is to give up."""

    def __init__(self, table: LeaseTable, name: str) -> None:
        self.store = FakeLeaseStore(table)
        self.clock = table.clock
        self.table = table
        self.name = name
        self.metrics = Metrics()
        self.fatal: list[BaseException] = []
        self.leases = Ownership(
            self.store.as_of_postgresql(), replica=name, clock=self.clock, metrics=self.metrics, fatal=self.fatal.append
        )
        self.changed: list[LeaseKey] = []
        self.leases.changed = self.changed.extend

    async def want(self, *keys: LeaseKey, fingerprint: str = "one", spends: str = "") -> None:
        await self.leases.want(dict.fromkeys(keys, spends), fingerprint=fingerprint)
        assert self.leases._renewing is not None
        self.leases._renewing.cancel()

    async def look(self) -> None:
        await self.leases._run_alone(self.leases._try_to_renew)

    def rests_s(self) -> float:
        """Return for how long it would renew nothing."""
        return self.leases._renew_at - self.clock.boot_time()

    def agrees(self) -> bool:
        return self.leases.is_agreed

    def owned(self, keys: Collection[LeaseKey]) -> list[LeaseKey]:
        return [key for key in keys if self.leases.may_own(key)]

    def held(self, kind: str) -> float | None:
        return self.metrics.registry.get_sample_value("watcher_leases_held", {"kind": kind})

    def takeovers(self, kind: str) -> float | None:
        return self.metrics.registry.get_sample_value("watcher_lease_takeovers_total", {"kind": kind})


@pytest.fixture
def table(clock: FakeClock) -> LeaseTable:
    return LeaseTable(clock)


@pytest.fixture
async def replica(table: LeaseTable) -> AsyncIterator[Replica]:
    replica = Replica(table, "one")
    yield replica
    replica.store.may_answer.set()
    assert replica.fatal == []


async def taken(replica: Replica, key: LeaseKey = A) -> HeldLease:
    """Return the lease as its first owner has it."""
    await replica.want(key)
    return await replica.leases.take(key)


async def test_what_is_wanted_and_free_is_held_at_once_and_said(replica: Replica) -> None:
    with capture_logs() as logs:
        await replica.want(A, OPS)
    assert replica.owned([A, B, OPS]) == [A, OPS]
    assert (replica.held("account"), replica.held("sink"), replica.held("maintenance")) == (1, 1, 1)
    assert replica.takeovers("account") == 0
    names = ["account a", "maintenance store", "sink ops"]
    of_it = {"event": "ownership.taken", "log_level": "info", "takeovers": 0, "replicas": 1}
    assert logs == [of_it | {"taken": names, "more": 0}]


async def test_a_lease_is_trusted_from_the_sending_and_a_second_less_than_it_lasts(replica: Replica) -> None:
    replica.store.may_answer.clear()
    wanting = asyncio.create_task(replica.want(A))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    replica.clock.advance(5)
    replica.store.may_answer.set()
    await wanting
    held = await replica.leases.take(A)
    replica.clock.advance(LEASE_S - 1 - 5 - 0.01)
    assert (held.is_trusted(), replica.held("account")) == (True, 1)
    replica.clock.advance(0.02)
    assert (held.is_trusted(), replica.held("account")) == (False, 0)


@pytest.mark.parametrize("is_committed", [False, True])
async def test_a_renewal_that_failed_however_it_ended_there_is_none(replica: Replica, *, is_committed: bool) -> None:
    held = await taken(replica)
    replica.store.trouble, replica.store.forgets_to_say = StoreError("rolled back, or who knows"), is_committed
    replica.clock.advance(RENEW_EVERY_S)
    await replica.look()
    assert replica.rests_s() == RENEW_AGAIN_S
    replica.clock.advance(LEASE_S - 1 - RENEW_EVERY_S)
    assert not held.is_trusted()
    assert replica.leases.problem() is None
    replica.clock.advance(1)
    assert replica.leases.problem() == "the leases were not renewed in time, so other replicas may have taken over"


async def test_a_renewal_that_hangs_keeps_nothing_trusted_and_comes_too_late(replica: Replica) -> None:
    held = await taken(replica)
    replica.clock.advance(RENEW_EVERY_S)
    replica.store.may_answer.clear()
    looking = asyncio.create_task(replica.look())
    while len(replica.store.asked) < 2:
        await asyncio.sleep(0)
    await replica.leases.release(A)  # it may be owned: nothing to do, and nothing to wait for
    replica.clock.advance(LEASE_S - RENEW_EVERY_S)
    assert not held.is_trusted()
    replica.clock.advance(LEASE_S)
    replica.store.may_answer.set()
    await looking
    assert not held.is_trusted()


async def test_what_another_took_over_while_this_one_slept_is_lost_and_said_once(replica: Replica) -> None:
    held = await taken(replica)
    replica.clock.advance(LEASE_S + 60)
    other = Replica(replica.table, "other")
    await other.want(A)
    assert other.owned([A]) == [A]
    assert (other.takeovers("account"), other.takeovers("maintenance")) == (1, 1)
    with capture_logs() as logs:
        assert not held.is_trusted()
        await replica.look()
        replica.leases.mark_lost(held)  # as an owner found out beside it
    assert not replica.leases.may_own(A)
    assert A in replica.changed
    lost = [line for line in logs if line["event"] == "ownership.lost"]
    assert {line["log_level"] for line in lost} == {"info"}
    assert [(line.get("account"), line.get("maintenance")) for line in lost] == [("a", None), (None, "store")]
    with pytest.raises(OwnershipLostError):
        await replica.leases.take(A)


async def test_surplus_is_given_up_one_at_a_time_and_held_until_it_is(replica: Replica) -> None:
    await replica.want(A, B)
    other = Replica(replica.table, "other")
    await other.want(A, B)
    replica.changed.clear()
    for _ in range(2):
        replica.clock.advance(RENEW_EVERY_S)
        await replica.look()
        await other.look()
    (given,) = set(replica.changed) & set(ACCOUNTS) - set(replica.owned(ACCOUNTS))
    assert replica.table.owned()["one"] == 2
    held = replica.leases._held.get(given)
    assert held is not None
    assert held.is_trusted()
    await replica.leases.release(given)
    assert not held.is_trusted()
    await other.look()
    assert other.owned(ACCOUNTS) == [given]
    assert other.takeovers("account") == 0


async def test_a_release_that_fails_or_hangs_holds_up_nobody(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watcher.daemon.ownership.RELEASE_S", 0.01)
    held = await taken(replica)
    await replica.want(B)
    replica.store.trouble = StoreError("no")
    await replica.leases.release(A)
    assert not held.is_trusted()
    replica.store.may_answer.clear()
    await replica.leases.close()


async def test_at_the_end_all_is_released_and_nothing_is_taken_any_more(replica: Replica) -> None:
    held = await taken(replica)
    await replica.leases.want({A: "", B: ""}, fingerprint="one")
    replica.leases.leave()
    replica.clock.advance(RENEW_EVERY_S)
    await replica.look()
    assert held.is_trusted()  # it may drain as long as it takes
    assert replica.table.replicas() == set()
    await replica.leases.release(A)
    assert replica.table.is_free(A)
    await replica.leases.close()
    await replica.leases.close()
    assert replica.table.is_free(MAINTENANCE)
    assert (replica.table.is_free(B), len(released(replica.store.asked))) == (True, 3)


async def test_it_renews_every_three_seconds_or_when_something_is_about_to_be_free(replica: Replica) -> None:
    await replica.want(A)
    assert replica.rests_s() == RENEW_EVERY_S
    await replica.table.give(B, owner="other")
    await replica.want(A, B)
    assert replica.rests_s() == RENEW_EVERY_S
    replica.clock.advance(LEASE_S - 1)
    await replica.look()
    assert 1.0 < replica.rests_s() < 1.1
    replica.clock.advance(1)
    await replica.look()
    assert replica.owned(ACCOUNTS) == [A, B]


async def test_it_renews_at_once_when_another_has_released_something(replica: Replica) -> None:
    await replica.table.give(A, owner="other")
    await replica.leases.want({A: ""}, fingerprint="one")
    await asyncio.sleep(0)
    replica.table.take_away(A)
    replica.store.renew_now()
    async with asyncio.timeout(10):
        while not replica.leases.may_own(A):
            await asyncio.sleep(0)
    await replica.leases.close()


async def test_a_bug_in_that_ends_the_program(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watcher.daemon.ownership.RENEW_EVERY_S", 0.0)
    await replica.leases.want({A: ""}, fingerprint="one")

    async def renew(_request: object) -> None:
        raise LookupError

    monkeypatch.setattr(replica.store, "renew", renew)
    keeping = replica.leases._renewing
    assert keeping is not None
    await asyncio.wait([keeping])
    await asyncio.sleep(0)
    assert [type(error) for error in replica.fatal] == [LookupError]
    replica.fatal.clear()


async def test_configurations_that_differ_are_said_once_until_they_agree(replica: Replica) -> None:
    other = Replica(replica.table, "other")
    await replica.want(A, fingerprint="new")
    assert replica.agrees()
    await other.want(A, fingerprint="old")
    with capture_logs() as logs:
        for _ in range(3):
            replica.clock.advance(RENEW_EVERY_S)
            await replica.look()
            await other.look()
    (line,) = logs  # of this one: the other said so when it came
    assert (line["event"], line["log_level"], line["replicas"]) == ("config.differs", "warning", 2)
    assert not replica.agrees()
    await other.want(A, fingerprint="new")
    replica.clock.advance(RENEW_EVERY_S)
    await replica.look()
    assert replica.agrees()
