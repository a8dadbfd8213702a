"""What tests of the store, and with the store, are made of: a clock that is set by hand, changes, attempt records."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from uuid import UUID, uuid5
from weakref import WeakKeyDictionary

from fake_clock import FakeClock
from sqlalchemy import Connection, update

from watcher.domain.delivery import AttemptRecord, Delivery, DeliveryState, ProblemMessage
from watcher.domain.errors import StoreError
from watcher.domain.event import Event, EventKey, EventType, Group, OutboxEntry
from watcher.domain.event_factory import EventFactory
from watcher.domain.execution import ExecutionRecord
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.routing import Router
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.runtime.clock import Clock
from watcher.store.account_store import AccountStore
from watcher.store.changes import (
    Backlog,
    BackoffState,
    ExecutionChange,
    Lease,
    OpenProblem,
    SourceChange,
    Take,
    Taken,
    Turn,
)
from watcher.store.database import Database, prepare_schema
from watcher.store.deliveries import backlog
from watcher.store.leases import MAINTENANCE, LeaseKey, LocalLeases, RenewRequest, key_of
from watcher.store.maintenance_store import MaintenanceStore
from watcher.store.operator_store import OperatorStore
from watcher.store.problems import open_problems
from watcher.store.recording import GroupWork, Item, Outbox, write_group
from watcher.store.sink_store import SinkStore
from watcher.store.sources import SourceNumbers
from watcher.store.sql_store import SqlStore, StoreMonitor, open_store
from watcher.store.sqlite import BEGIN, explain_error, make_engine
from watcher.store.tables import lease

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
START = datetime(2026, 11, 24, tzinfo=UTC)
T = TypeVar("T")

START_US = Micros(int(START.timestamp()) * 1_000_000)
SECOND_US = 1_000_000
LATER = Micros(START_US + 3_600 * SECOND_US)
DAY_US = 86_400 * SECOND_US
CLAIMANT = "a test"
_claimed: WeakKeyDictionary[SqlStore, dict[Lease, str]] = WeakKeyDictionary()


async def claim(store: SqlStore, kind: str, name: str) -> Lease:
    """Take ownership, whoever had it before: with replicas as if it had run out."""
    if isinstance(store.leases, LocalLeases):
        return store.leases.claim(kind, name)
    key, held = LeaseKey(kind, name), _claimed.setdefault(store, {})
    free = update(lease).where(lease.c.kind == kind, lease.c.name == name).values(owner=CLAIMANT, epoch=0)
    wanted, taken = dict.fromkeys((*map(key_of, held), key), ""), list[Lease]()
    while not taken:  # somebody else may take it as soon as it is free
        await store.write(lambda connection: connection.execute(free))
        sharing = await store.leases.renew(RenewRequest(CLAIMANT, "a test", held, wanted))
        held = _claimed[store] = dict.fromkeys((*sharing.kept, *sharing.taken), "")
        taken = [each for each in sharing.taken if key_of(each) == key]
    return taken[0]


async def release(store: SqlStore) -> None:
    """Give up what was claimed, as a daemon does at its end."""
    if not isinstance(store.leases, LocalLeases):
        held = _claimed.pop(store, {})
        await store.leases.renew(RenewRequest(CLAIMANT, None, {}, {}, held.keys()))


def from_us(us: int) -> datetime:
    """Return microseconds UTC as an aware datetime."""
    return datetime.fromtimestamp(us / 1_000_000, UTC)


class SetClock(FakeClock):
    """The clock of a store, which begins at midnight."""

    def __init__(self, elapsed_s: float = 0.0) -> None:
        super().__init__(elapsed_s, begins=START)


class Woken(dict[str, Callable[[], None]]):
    """Remembers which sinks were woken for what was recorded, in place of a store's `wakes`."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def get(self, name: str, _default: object = None) -> Callable[[], None]:
        return partial(self.names.append, name)


_empty: list[bytes] = []


def _lay(path: Path) -> bool:
    if path.exists():
        return False
    if _empty:
        path.write_bytes(_empty[0])
        path.chmod(0o600)
    return True


async def open_soon(place: Path | str, **how: Any) -> SqlStore:
    """Open the store of a file, or at a URL. A file need not be there: to copy an empty one saves the migrations."""
    url = str(place) if "://" in str(place) else f"sqlite:///{place}"
    path = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite") else None
    is_new = path is not None and _lay(path)
    store = await open_store(url, **how)
    if path is not None and is_new and not _empty:
        with closing(sqlite3.connect(path)) as database:
            _empty.append(database.serialize())
    return store


class InlineStore(SqlStore):
    """The store of a SQLite file that does its work at once: nothing that is done with it waits, or needs a loop."""

    exclusive = True

    def __init__(self, path: Path, *, clock: Clock) -> None:
        is_new = _lay(path) and not _empty
        path.touch()
        pragmas = ("PRAGMA synchronous=OFF", "PRAGMA foreign_keys=ON")
        self._connection = make_engine(path, busy_timeout_s=0.0, pragmas=pragmas, begin=BEGIN).connect()
        self.database = cast("Database", SimpleNamespace(read=self._do, write=self._do))
        self.clock, self.leases = clock, LocalLeases()
        self.outbox = Outbox(SourceNumbers(self._do))
        self.wakes = {}
        self.monitor = StoreMonitor(explain=explain_error, clock=clock)
        self._closed = False
        if is_new:
            with self._connection.begin():
                prepare_schema(self._connection, where="")
            with closing(sqlite3.connect(path)) as database:
                _empty.append(database.serialize())

    async def record(self, item: Item) -> Taken | None:  # type: ignore[override] # of a future only the result is used
        work = GroupWork([item])
        if not work.sources <= self.outbox.numbers.keys():
            await self.outbox.numbers.provide(work.sources)
        write = partial(write_group, work=work, outbox=self.outbox, leases=self.leases, now=self.clock.steady_us())
        names, taken = await self._do(write)
        self.wake(names)
        return taken.get(id(item))

    async def close(self) -> None:
        self._connection.close()

    async def _do(self, work: Callable[[Connection], T]) -> T:
        with self._connection.begin():
            return work(self._connection)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Let another program hold the store of a file meanwhile: it can be read, not written."""
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        yield


class HeardStore:
    """The real store, which hears what an account is to record before it does: to note it, hold it up or refuse it."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.heard: list[Item] = []
        self.takes: Callable[[Item], object] = lambda _item: True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def hear(self, item: Item) -> None:
        self.heard.append(item)
        if not self.takes(item):
            raise StoreError("refused by the test")

    async def record(self, item: Item) -> Taken | None:
        if not isinstance(item, Turn):
            await self.hear(item)
        return await self._store.record(item)


def execution_id(number: int) -> str:
    return str(UUID(int=(7 << 124) | number))


async def executions_of(store: SqlStore, account: Lease, *, count: int = 1000) -> list[ExecutionRecord]:
    """Return what is recorded of the first so many executions of an account, in the order of their numbers."""
    owned = AccountStore(store, account)
    return list((await owned.load_executions([execution_id(number) for number in range(count)])).values())


async def upkeep(store: SqlStore) -> MaintenanceStore:
    """Return the store under a lease of its upkeep that is claimed now."""
    return MaintenanceStore(store, await claim(store, *MAINTENANCE))


def operator_of(store: SqlStore) -> OperatorStore:
    """Return the store as people use it."""
    return OperatorStore(store, EventFactory(Router({})))


async def sink_of(store: SqlStore, name: str = "ops") -> SinkStore:
    """Return the store of a sink that is claimed now."""
    return SinkStore(store, await claim(store, "sink", name))


def stream_of(subject: str) -> bytes:
    return blake2b(subject.encode(), digest_size=16).digest()


def event(subject: str, *, sequence: int, type_: EventType = EventType.EXECUTION_RUNNING, **more: Any) -> Event:
    body = b'{"id":"%s-%d"}' % (subject.encode(), sequence)
    more = {"ordering_key": stream_of(subject)} | more
    return Event(uuid5(UUID(int=0), f"{subject}-{sequence}"), type_, stream_of(subject), sequence, body, **more)


def about(problems: tuple[ProblemChange, ...]) -> dict[str, Any]:
    """Return what an event says of the problem that it opens or closes, if it does."""
    return {"problem": problems[0].problem.id, "closes": problems[0].closed_at is not None} if problems else {}


def overdue(number: int) -> Problem:
    """Return the problem that an execution is overdue, opened by its first event."""
    subject = stream_of(execution_id(number))
    return Problem(UUID(int=number), EventType.EXECUTION_OVERDUE, from_us(START_US), EventKey(subject, 1))


def opened(problem: Problem) -> tuple[ProblemChange, ...]:
    return (ProblemChange(problem, is_new=True),)


def closed(problem: Problem, *, at: datetime = START) -> tuple[ProblemChange, ...]:
    return (ProblemChange(problem, closed_at=at),)


def change(
    lease: Lease,
    number: int = 1,
    *,
    sequence: int = 1,
    sinks: tuple[str, ...] = ("ops",),
    problems: tuple[ProblemChange, ...] = (),
    group: Group | None = None,
    **known: object,
) -> ExecutionChange:
    """Return the next change of an execution, which emits one event. Of a `group` it is at each sink."""
    name = execution_id(number)
    groups = {} if group is None else dict.fromkeys(sinks, group)
    values: dict[str, Any] = {"status": "running", "since_at": START_US, "polled_at": START_US} | known
    return ExecutionChange(
        lease=lease,
        before=sequence - 1 or None,
        known=ExecutionRecord(name, PIPELINE, sequence=sequence, **values),
        entries=(OutboxEntry(event(name, sequence=sequence, **about(problems)), sinks, groups),),
        problems=problems,
    )


@dataclass
class StoreRig:
    """A store with an account and a sink that are claimed, its clock, and who was woken."""

    store: SqlStore
    account: Lease
    ops: SinkStore
    clock: SetClock
    woken: Woken

    @property
    def owned(self) -> AccountStore:
        return AccountStore(self.store, self.account)

    async def record(self, *numbers: int, **more: Any) -> None:
        """Record the next `change` of each of these executions of the account; without any, of the first."""
        for number in numbers or (1,):
            await self.store.record(change(self.account, number, **more))


def source_change(
    lease: Lease,
    *,
    sequence: int = 1,
    state: str | None = "unreachable",
    sinks: tuple[str, ...] = ("ops",),
    problems: tuple[ProblemChange, ...] = (),
) -> SourceChange:
    """Return the next change of an account or sink, which emits one event."""
    subject = f"{lease.kind}s/{lease.name}"
    emitted = event(subject, sequence=sequence, type_=EventType.ACCOUNT_DEGRADED, **about(problems))
    return SourceChange(lease, sequence - 1, sequence, state, (OutboxEntry(emitted, sinks),), problems)


def pipeline_change(
    lease: Lease, *, pipeline: str = PIPELINE, before: int = 0, cursor: Cursor, sinks: tuple[str, ...] | None = None
) -> SourceChange:
    """Return how far a pipeline is read now, with one event for these sinks if there are any."""
    if sinks is None:
        return SourceChange(lease, before, before, pipeline=pipeline, cursor=cursor)
    emitted = event(f"{lease.name}/{pipeline}", sequence=before + 1, type_=EventType.ACCOUNT_DEGRADED)
    return SourceChange(
        lease, before, before + 1, None, (OutboxEntry(emitted, sinks),), pipeline=pipeline, cursor=cursor
    )


def of(number: int, *, sequence: int = 1) -> str:
    """Return what an event of an execution is named in its body."""
    return f"{execution_id(number)}-{sequence}"


def names(deliveries: Iterable[Delivery]) -> list[str]:
    """Return what the events of these deliveries are named."""
    return [each.content["id"] for each in deliveries]


async def backlog_of(store: SqlStore) -> dict[str, Backlog]:
    """Return what waits, by sink."""
    return await store.read(backlog)


async def problems_of(store: SqlStore, *, after: UUID | None = None) -> Sequence[OpenProblem]:
    """Return a page of the open problems."""
    return await store.read(partial(open_problems, after=after))


async def taken(
    sink: SinkStore, *, now: int = LATER, count: int = 1_000, skip: Iterable[bytes] = (), **how: Any
) -> Taken:
    """Return what a sink may be sent."""
    found = await sink.record(Turn(sink.lease, take=Take(Micros(now), count, frozenset(skip), **how)))
    assert found is not None
    return found


async def due(sink: SinkStore, **how: Any) -> list[Delivery]:
    """Return what a sink may be sent, whatever goes together."""
    return [each for batch in (await taken(sink, **how)).batches for each in batch]


def attempt_record(
    delivery: Delivery, *, state: DeliveryState = DeliveryState.DELIVERED, **changes: object
) -> AttemptRecord:
    """Return how an attempt at a delivery ended."""
    values: dict[str, Any] = {
        "attempts": delivery.attempts + 1,
        "rejections": 0,
        "tried_at": delivery.due_at,
        "first_due_at_s": 1.5,
    } | changes
    how = {"answer": values.pop("answer", "204"), "tried": values.pop("tried", True)}
    return AttemptRecord(replace(delivery, **values), state, **how)


async def settle(
    sink: SinkStore,
    *deliveries: Delivery,
    backoff: BackoffState | None = None,
    clock_s: float | None = None,
    messages: tuple[ProblemMessage, ...] = (),
    **attempt: Any,
) -> None:
    """Write down how an attempt at each of these ended, and how the sink is since."""
    attempts = tuple(attempt_record(each, **attempt) for each in deliveries)
    await sink.record(Turn(sink.lease, attempts, messages, backoff, clock_s))


async def settle_all(sink: SinkStore, *, now: int = LATER, **attempt: Any) -> None:
    """Settle all that waits, once it is due."""
    while found := await due(sink, now=now):
        await settle(sink, *found, **attempt)


async def silence(sink: SinkStore, *deliveries: Delivery, tried: bool = False) -> None:
    """Note that a silence keeps these back; with `tried` an earlier owner may have sent them."""
    await settle(sink, *deliveries, state=DeliveryState.SILENCED, attempts=0, tried_at=0, answer=None, tried=tried)
