"""Leases in a real PostgreSQL: several replicas of one database, whose clock the test sets on by aging the rows."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from postgres import PostgresServer
from sqlalchemy import Connection
from stores import SECOND_US, SetClock, change, executions_of
from structlog.testing import capture_logs

from watcher.domain.errors import OwnershipLostError, StoreError
from watcher.store.account_store import AccountStore
from watcher.store.changes import Lease
from watcher.store.leases import (
    FORGOTTEN_US,
    LEASE_S,
    ORPHANED_US,
    LeaseKey,
    PostgresLeases,
    RenewRequest,
    Sharing,
    key_of,
)
from watcher.store.sql_store import SqlStore, open_store

ACCOUNTS = [LeaseKey("account", name) for name in "abcdefghijkl"]
A, B = ACCOUNTS[:2]
OPS = LeaseKey("sink", "ops")
LONG_S = 20.0

END_ALL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@dataclass
class Replica:
    """One process, as far as its leases go. It gives up at once what it has too many of."""

    store: SqlStore
    name: str
    wanted: dict[LeaseKey, str]
    fingerprint: str | None = "one"
    held: dict[Lease, str] = field(default_factory=dict)

    @property
    def leases(self) -> PostgresLeases:
        assert isinstance(self.store.leases, PostgresLeases)
        return self.store.leases

    @property
    def names(self) -> list[str]:
        return sorted(lease.name for lease in self.held)

    async def renew(self, *released: Lease) -> Sharing:
        self.held = {lease: spends for lease, spends in self.held.items() if lease not in released}
        request = RenewRequest(self.name, self.fingerprint, self.held, self.wanted, released)
        report = await self.leases.renew(request)
        self.held = {lease: spends for lease, spends in self.held.items() if lease in report.kept}
        self.held |= {lease: self.wanted[key_of(lease)] for lease in report.taken}
        return report

    async def renew_and_give_up(self) -> None:
        surplus = (await self.renew()).surplus
        if surplus is not None:
            await self.renew(next(lease for lease in self.held if key_of(lease) == surplus))

    async def leave(self) -> None:
        self.fingerprint, self.wanted = None, {}
        await self.renew(*self.held)


class Replicas:
    """Replicas of one database, which lies at `url`."""

    def __init__(self, url: str, server: PostgresServer) -> None:
        self.url = url
        self.server = server
        self.all: list[Replica] = []

    async def start(
        self, name: str, *wanted: LeaseKey, fingerprint: str = "one", clock_error_s: float = 0.0
    ) -> Replica:
        clock = SetClock(clock_error_s)
        store = await open_store(self.url, clock=clock)
        self.all.append(Replica(store, name, dict.fromkeys(wanted or ACCOUNTS, ""), fingerprint))
        return self.all[-1]

    async def begin(self, name: str, *wanted: LeaseKey, **how: Any) -> Replica:
        """Start one that has asked once for what it wants."""
        replica = await self.start(name, *wanted, **how)
        await replica.renew()
        return replica

    def age(self, seconds: float, owner: str = "%") -> None:
        """Let so much time pass for what is that owner's."""
        aging = f"UPDATE lease SET until = until - {round(seconds * 1e6)} WHERE owner LIKE '{owner}'"
        self.server.run(aging, self.url)

    def until_s(self, key: LeaseKey) -> float:
        """Return in how many seconds a lease runs out, by the server's clock."""
        left = "until / 1e6 - extract(epoch FROM clock_timestamp())"
        asking = f"SELECT {left} FROM lease WHERE kind = '{key.kind}' AND name = '{key.name}'"
        ((seconds,),) = self.server.run(asking, self.url)
        return float(seconds)


@pytest.fixture
async def replicas(postgres: PostgresServer) -> AsyncIterator[Replicas]:
    with postgres.database() as url:
        replicas = Replicas(url, postgres)
        yield replicas
        for replica in replicas.all:
            await replica.store.close()


async def test_a_replica_alone_takes_all_and_holds_it_by_the_server_s_clock(replicas: Replicas) -> None:
    one = await replicas.start("one", *ACCOUNTS, OPS)
    report = await one.renew()
    assert (len(one.held), report.replica_count, report.differs) == (13, 1, False)
    assert set(report.taken.values()) == {False}
    assert LEASE_S - 2 < replicas.until_s(A) <= LEASE_S
    replicas.age(5)
    assert (await one.renew()).taken == {}
    assert LEASE_S - 2 < replicas.until_s(OPS) <= LEASE_S


@pytest.mark.parametrize("count", [2, 3])
async def test_replicas_share_evenly_whoever_came_first(replicas: Replicas, count: int) -> None:
    several = [await replicas.start(f"r{number}", *ACCOUNTS, OPS) for number in range(count)]
    for replica in several:
        await replica.renew()
    for _ in range(len(ACCOUNTS)):
        for replica in several:
            await replica.renew_and_give_up()
    kinds = [Counter(lease.kind for lease in replica.held) for replica in several]
    assert [each["account"] for each in kinds] == [len(ACCOUNTS) // count] * count
    assert sum(each["sink"] for each in kinds) == 1
    assert len({lease for replica in several for lease in replica.held}) == 13


async def test_replicas_that_begin_at_once_take_nothing_twice(replicas: Replicas) -> None:
    several = [await replicas.start(f"r{number}") for number in range(3)]
    for _ in range(3):
        await asyncio.gather(*(replica.renew() for replica in several))
    names = sorted(name for replica in several for name in replica.names)
    assert names == sorted(key.name for key in ACCOUNTS)


async def test_what_a_dead_one_held_is_taken_over_when_its_lease_has_run_out_and_no_sooner(replicas: Replicas) -> None:
    _, other = await replicas.begin("dead"), await replicas.start("other")
    await other.renew()
    assert other.held == {}
    replicas.age(LEASE_S - 1, "dead")
    report = await other.renew()
    assert (report.taken, 0 < report.next_free_us <= SECOND_US) == ({}, True)
    replicas.age(1.1, "dead")
    report = await other.renew()
    assert set(report.taken.values()) == {True}
    assert (len(other.held), report.replica_count) == (12, 1)


async def test_what_is_given_up_at_a_clean_stop_is_taken_at_the_next_renewal_and_no_takeover(
    replicas: Replicas,
) -> None:
    one, other = await replicas.begin("one"), await replicas.start("other")
    await other.renew()
    await one.leave()
    report = await other.renew()
    assert list(report.taken.values()) == [False] * 12
    assert report.replica_count == 1


async def test_one_that_is_leaving_renews_what_it_holds_and_counts_no_more(replicas: Replicas) -> None:
    one, other = await replicas.begin("one"), await replicas.start("other")
    one.fingerprint, one.wanted = None, {}
    await one.renew()
    assert len(one.held) == 12
    assert (await other.renew()).replica_count == 1
    await one.renew(*list(one.held)[:6])
    await other.renew()
    assert (len(one.held), len(other.held)) == (6, 6)


async def test_what_is_its_own_by_the_store_and_not_held_was_taken_without_an_answer(replicas: Replicas) -> None:
    one = await replicas.begin("one", A)
    (before,) = one.held
    one.held.clear()
    report = await one.renew()
    assert list(report.taken.values()) == [False]
    assert before not in one.held


async def in_a_write(replica: Replica, lease: Lease, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Have something done while a write under that lease is under way."""
    begun, may_end = threading.Event(), threading.Event()

    def work(connection: Connection) -> None:
        replica.leases.check(connection, [lease])
        begun.set()
        may_end.wait(LONG_S)

    writing = asyncio.ensure_future(replica.store.database.write(work))
    await asyncio.to_thread(begun.wait, LONG_S)
    try:
        await meanwhile()
    finally:
        may_end.set()
        await writing


async def test_nobody_takes_what_its_owner_is_writing_under_nor_waits_for_it(replicas: Replicas) -> None:
    one, other = await replicas.begin("one", A, B), await replicas.start("other", A, B)
    lease = next(lease for lease in one.held if lease.name == A.name)
    replicas.age(LEASE_S, "one")
    await in_a_write(one, lease, other.renew)
    assert other.names == ["b"]
    await other.renew()
    assert other.names == ["a", "b"]


async def test_what_its_owner_writes_under_gets_another_epoch_after_that_and_nobody_waits(replicas: Replicas) -> None:
    one = await replicas.begin("one", A)
    (lease,) = one.held

    async def meanwhile() -> None:
        report = await one.renew(lease)
        assert (list(report.taken), list(report.may_take)) == ([], [A])

    await in_a_write(one, lease, meanwhile)
    assert len((await one.renew()).taken) == 1


async def test_a_renewal_that_fails_or_is_too_slow_renews_nothing(replicas: Replicas, postgres: PostgresServer) -> None:
    one = await replicas.begin("one", A)
    replicas.age(5)
    raising = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$"
    postgres.run(raising, replicas.url)
    trigger = "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON lease DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
    postgres.run(f"{trigger} EXECUTE FUNCTION refuse()", replicas.url)
    with pytest.raises(StoreError):
        await one.renew()
    assert replicas.until_s(A) < LEASE_S - 4
    postgres.run("DROP TRIGGER late ON lease", replicas.url)
    with psycopg.connect(replicas.url) as stranger:
        stranger.execute("LOCK TABLE lease")
        with capture_logs() as logs, pytest.raises(StoreError, match="locked"):
            await one.renew()
    assert [line["event"] for line in logs] == ["store.failed"]
    assert replicas.until_s(A) < LEASE_S - 4
    await one.renew()
    assert one.names == ["a"]


async def test_while_configurations_differ_nothing_is_given_up(replicas: Replicas) -> None:
    old = await replicas.begin("old", fingerprint="old")
    new = await replicas.start("new", *ACCOUNTS, LeaseKey("account", "new"), fingerprint="new")
    sharing = await new.renew()
    assert (sharing.differs, sharing.surplus, new.names) == (True, None, ["new"])
    assert (await old.renew()).surplus is None
    old.fingerprint = "new"
    assert (await old.renew()).surplus == ACCOUNTS[-1]


async def test_what_is_left_to_a_replica_that_does_not_take_it_is_taken_beyond_one_s_share(replicas: Replicas) -> None:
    dead, dies, one = [await replicas.start(name) for name in ("dead", "dies", "one")]
    for replica in (dead, dies, one):
        await replica.renew()
    replicas.age(LEASE_S, "dead")
    await one.renew()
    assert len(one.held) == 6
    replicas.age(ORPHANED_US / 1e6, "dead")
    await one.renew()
    assert len(one.held) == 12


async def test_replicas_that_were_killed_long_ago_are_forgotten(replicas: Replicas, postgres: PostgresServer) -> None:
    _, other = await replicas.begin("dead", A), await replicas.start("other", A)
    count = "SELECT count(*) FROM lease WHERE kind = 'replica'"
    replicas.age(LEASE_S, "dead")
    await other.renew()
    assert postgres.run(count, replicas.url) == [(2,)]
    replicas.age(FORGOTTEN_US / 1e6, "dead")
    await other.renew()
    assert postgres.run(count, replicas.url) == [(1,)]


async def test_a_lease_lasts_no_longer_than_any_though_the_servers_clock_was_set_back(replicas: Replicas) -> None:
    await replicas.begin("dead")
    replicas.age(-7200, "dead")
    other = await replicas.begin("other")
    assert (other.names, replicas.until_s(A) <= LEASE_S) == ([], True)
    replicas.age(LEASE_S + ORPHANED_US / 1e6, "dead")
    assert (await other.renew()).replica_count == 1
    assert other.names == sorted(key.name for key in ACCOUNTS)


C, D = ACCOUNTS[2:4]


async def renamed(replicas: Replicas) -> tuple[Replica, Replica]:
    """Return one that has a key for the account a, and another that has the same for b, which is free, as c and d."""
    old, new = await replicas.start("old"), await replicas.start("new", fingerprint="two")
    old.wanted, new.wanted = {A: "key"}, {B: "key", C: "another", D: "third"}
    await old.renew()
    await new.renew()
    return old, new


async def test_an_account_is_free_once_no_other_spends_its_key(replicas: Replicas) -> None:
    old, new = await renamed(replicas)
    assert (old.names, new.names) == (["a"], ["c", "d"])
    replicas.server.run(f"UPDATE lease SET until = until - {ORPHANED_US} WHERE owner = ''", replicas.url)
    await new.renew()
    assert new.names == ["c", "d"]
    await old.leave()
    await new.renew()
    assert new.names == ["b", "c", "d"]


async def test_of_two_that_begin_at_once_with_one_key_under_two_names_one_does(replicas: Replicas) -> None:
    one, two = await replicas.start("one"), await replicas.start("two", fingerprint="two")
    one.wanted, two.wanted = {A: "key"}, {B: "key"}
    for _ in range(5):
        await asyncio.gather(one.renew(), two.renew())
        assert len(one.held | two.held) == 1
        replicas.server.run("DELETE FROM lease", replicas.url)
        one.held, two.held = {}, {}


async def test_after_a_connection_broke_all_is_lost_and_taken_under_other_epochs(replicas: Replicas) -> None:
    one, other = await replicas.begin("one", A, OPS), await replicas.begin("other", B)
    account = next(lease for lease in one.held if lease.kind == "account")
    await AccountStore(one.store, account).load_account()
    await one.store.record(change(account))
    gone = f"TRUNCATE source CASCADE; INSERT INTO source (kind, name) VALUES ('account', 'another'); {END_ALL}"
    replicas.server.run(gone, replicas.url)
    with pytest.raises(OwnershipLostError):
        await one.store.record(change(account, sequence=2))
    before = set(one.held)
    await one.renew()
    assert {key_of(lease) for lease in one.held} == {A, OPS}
    assert before.isdisjoint(one.held)
    with pytest.raises(OwnershipLostError):
        await one.store.record(change(account, sequence=2))
    again = next(lease for lease in one.held if lease.kind == "account")
    await AccountStore(one.store, again).load_account()
    assert await executions_of(one.store, again) == []
    await one.store.record(change(again))
    numbered = replicas.server.run("SELECT s.name FROM execution JOIN source s ON s.id = account_id", replicas.url)
    assert numbered == [("a",)]
    await other.renew()
    assert other.names == ["b"]
