"""The owners of one process over a real store and real sockets: for tests of the supervisor."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from console_rig import unserved
from lease_store import Alone
from receiver import Receiver, Reply, answer, says
from sample_metrics import families_of
from stores import claim, source_change
from virtual import PIPELINE, FakeClock

from watcher.config.models import Settings
from watcher.daemon.build import OwnerDependencies
from watcher.daemon.maintenance import Maintenance
from watcher.daemon.ownership import Ownership
from watcher.daemon.reports import Reports
from watcher.daemon.supervisor import Supervisor
from watcher.delivery.worker import DeliveryWorker
from watcher.domain.event_factory import EventFactory
from watcher.domain.routing import Router, Silences
from watcher.polling.account_poller import AccountPoller
from watcher.runtime.metrics import Metrics
from watcher.runtime.scheduler import Schedule, Tick
from watcher.sinks.output import StdoutOutput
from watcher.store.leases import PostgresLeases
from watcher.store.operator_store import OperatorStore
from watcher.store.sql_store import SqlStore

A, B = (f"9a1b0000-0000-4000-8000-00000000000{digit}" for digit in "ab")
LONG_S = 10.0
"""Nothing here takes as long unless it never ends."""

Block = dict[str, object]


class Endpoint:
    """An API or a webhook on a real socket, which says when it is asked."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.receiver = Receiver(self._reply)
        self._asked: asyncio.Queue[str] = asyncio.Queue()

    @property
    def quiet(self) -> bool:
        """Whether nobody asked since."""
        return self._asked.empty()

    async def asked(self) -> str:
        """Return the path of the next request, of one to a webhook the event's id."""
        async with asyncio.timeout(LONG_S):
            return await self._asked.get()

    async def _reply(self, writer: asyncio.StreamWriter) -> None:
        request = self.receiver.requests[-1]
        self._asked.put_nowait(request.headers.get("webhook-id") or request.line.split()[1])
        await self.reply(writer)


class NotedSchedule(Schedule):
    """Says which ticks are added. It is not started: nothing runs by itself."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._added: asyncio.Queue[str] = asyncio.Queue()

    def add(self, name: str, run: Tick, *, failed: Callable[[BaseException], None] | None = None) -> None:
        super().add(name, run, failed=failed)
        self._added.put_nowait(name)

    def job(self, name: str) -> Callable[[], Awaitable[None]]:
        """Return what runs that job once, as the schedule would."""
        job = self._jobs[name]

        async def run() -> None:
            try:
                await job.run()
            except Exception as error:  # noqa: BLE001 (as the schedule does)
                job.failed(error)

        return run

    async def added(self) -> str:
        """Return which tick was added next."""
        async with asyncio.timeout(LONG_S):
            return await self._added.get()


def dependencies_of(
    store: SqlStore,
    clock: FakeClock,
    *,
    metrics: Metrics | None = None,
    output: StdoutOutput | None = None,
    fatal: Callable[[BaseException], None] = print,
) -> OwnerDependencies:
    """Return what owners work with. Its schedule is not started."""
    events = EventFactory(Router({}))
    return OwnerDependencies(
        clock=clock,
        metrics=metrics or Metrics(),
        events=events,
        schedule=NotedSchedule(clock=clock, fatal=fatal, lag=lambda _lag_s: None),
        fatal=fatal,
        store=store,
        operator=OperatorStore(store, events),
        silences=Silences(),
        output=cast("StdoutOutput", output),
    )


class Owners:
    """Stands for the supervisor where a test has owners of its own, or none."""

    def __init__(self, settings: Settings, *parts: AccountPoller) -> None:
        self.applied: Settings | None = settings
        self.tidying = asyncio.Lock()
        self._parts = parts

    def parts(self) -> Sequence[AccountPoller]:
        return self._parts


def maintenance_of(
    store: SqlStore,
    clock: FakeClock,
    owners: Owners,
    *,
    metrics: Metrics | None = None,
    ownership: Ownership | None = None,
) -> Maintenance:
    shared = dependencies_of(store, clock, metrics=metrics)
    reports = reports_of(shared, lambda: owners.applied or Settings())
    return Maintenance(shared, cast("Supervisor", owners), ownership or Alone(store, clock=clock), reports)


def reports_of(shared: OwnerDependencies, settings: Callable[[], Settings]) -> Reports:
    operator = OperatorStore(shared.store, shared.events)
    return Reports(shared, unserved(shared.store, settings, clock=shared.clock, operator=operator))


class Setup:
    """The owners of one process and all they work with."""

    def __init__(
        self, store: SqlStore, clock: FakeClock, output: StdoutOutput, leases: PostgresLeases | None = None
    ) -> None:
        self.store = store
        self.clock = clock
        self.api = Endpoint(says(answer(404)))
        self.hook = Endpoint(says(answer(204)))
        self.fatal: list[BaseException] = []
        self.shared = dependencies_of(store, clock, output=output, fatal=self.fatal.append)
        self.metrics = self.shared.metrics
        self.schedule = cast("NotedSchedule", self.shared.schedule)
        self.ownership = Ownership(
            leases or store.leases, replica="one", clock=clock, metrics=self.metrics, fatal=self.shared.fatal
        )
        self.supervisor = Supervisor(self.shared, self.ownership, drain_s=LONG_S)

    def account(self, **more: object) -> Block:
        return {"api_key": "k", "base_url": self.api.receiver.url, "timeout": "60s", **more}

    def webhook(self, **more: object) -> Block:
        return {"type": "webhook", "url": f"{self.hook.receiver.url}/in", "timeout": "60s", **more}

    async def apply(
        self,
        accounts: dict[str, Block] | None = None,
        *,
        watched: str = A,
        rules: object = None,
        **more: dict[str, Any],
    ) -> None:
        """Apply a configuration of these accounts, the first of which watches an execution."""
        accounts = accounts or {"a": self.account()}
        watch = [{"account": next(iter(accounts)), "pipeline": PIPELINE, "executions": [watched], "rules": rules}]
        await self.supervisor.apply(Settings.model_validate({"accounts": accounts, "watch": watch, **more}))

    def ticks(self) -> set[str]:
        """Return what the daemon's clock would call."""
        return set(self.schedule.jobs_not_run_yet())

    def named(self, label: str) -> set[str]:
        """Return whom the metrics name under that label."""
        samples = [sample for family in families_of(self.metrics) for sample in family.samples]
        return {sample.labels[label] for sample in samples if label in sample.labels}

    def watcher(self) -> AccountPoller:
        (watcher,) = self.supervisor.accounts()
        return watcher

    def worker(self) -> DeliveryWorker:
        (worker,) = self.supervisor.workers()
        return worker

    def maintenance(self) -> Maintenance:
        reports = reports_of(self.shared, lambda: self.supervisor.applied or Settings())
        return Maintenance(self.shared, self.supervisor, self.ownership, reports)

    async def poll(self) -> str:
        """Let the watcher poll; return what it asked for."""
        self.clock.advance(1.0)
        await self.watcher().tick()
        return await self.api.asked()

    async def record(self) -> None:
        """Record an event for the sink `ops`."""
        await self.store.record(source_change(await claim(self.store, "account", "teller")))

    async def sends_nothing(self) -> bool:
        """Let the worker send what is due; return whether nothing was."""
        self.clock.advance(1.0)
        await self.worker().tick()
        await self.worker().drain()
        return self.hook.quiet

    async def send(self, reply: Reply | None = None, **more: object) -> str:
        """Own a sink `ops`, let it answer like that, and let it be sent an event; return the event's id."""
        self.hook.reply = reply or self.hook.reply
        await self.apply(sinks={"ops": self.webhook(**more)})
        await self.record()
        return await self.deliver()

    async def deliver(self) -> str:
        """Let the worker deliver what was reported; return the event's id."""
        self.clock.advance(1.0)
        await self.worker().tick()
        return await self.hook.asked()


S = TypeVar("S", bound=Setup)


@asynccontextmanager
async def set_up(
    store: SqlStore, clock: FakeClock, kind: Callable[[SqlStore, FakeClock, StdoutOutput], S]
) -> AsyncIterator[S]:
    """Give the owners of one process, which end at the end; nothing may have ended the program by then."""
    fd = os.open(os.devnull, os.O_WRONLY)
    output = StdoutOutput(fd)
    setup = kind(store, clock, output)
    async with setup.api.receiver, setup.hook.receiver:
        yield setup
        setup.supervisor._drain_s = 0.0
        await setup.supervisor.stop()
    output.close()
    os.close(fd)
    assert setup.fatal == []


class Slowly:
    """Answers once it is allowed to."""

    def __init__(self, reply: Reply | None = None) -> None:
        self.may_answer = asyncio.Event()
        self._reply = reply or says(answer(204))

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        await self.may_answer.wait()
        await self._reply(writer)
