"""A worker with a real store, a clock the test moves and a sink that answers as the test says.

A rig without a loop is one whose store works at once, and whose requests are sent when the rig settles. Nothing that it
does waits, so a test calls it by `do`.
"""

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from uuid import UUID, uuid5

import fake_clock
from stores import InlineStore, claim, open_soon, operator_of

from watcher.delivery.retries import Request
from watcher.delivery.sink_state import WorkerDependencies
from watcher.delivery.worker import DeliveryWorker
from watcher.domain.delivery import Delivery
from watcher.domain.envelope import Json, ordering_key_of, timestamp
from watcher.domain.errors import StoreError
from watcher.domain.event import Event, EventType, OutboxEntry
from watcher.domain.event_factory import EventFactory, Reported
from watcher.domain.problems import Problem, ProblemChange, SentOpening
from watcher.domain.routing import Router, Silences
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.metrics import Metrics, SinkMetrics
from watcher.sinks.protocol import SendOutcome, SendResult, Sink, WorkerRules
from watcher.store.changes import SourceChange, Taken, Turn
from watcher.store.recording import Item
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import BUSY_TIMEOUT_S

EPOCH = fake_clock.EPOCH
NAMESPACE = UUID("5d9f6a0e-0000-4000-8000-000000000000")

DELIVERED = SendResult(SendOutcome.DELIVERED, "204")
FAILED = SendResult(SendOutcome.RETRY, "500")
BUSY = SendResult(SendOutcome.BUSY, "429", retry_after_s=60)
REFUSED = SendResult(SendOutcome.REFUSED, "422")
GONE = SendResult(SendOutcome.GONE, "410")

RULES = WorkerRules((1.0, 5.0, 30.0), give_up_after_s=86_400.0, rate_per_s=float("inf"))
HASTY = replace(RULES, give_up_after_s=100.0)

Answer = SendResult | Exception
T = TypeVar("T")

MOST_TICKS = 10_000
"""A worker that wants as many at one moment would keep a processor busy."""


class FakeClock(fake_clock.FakeClock):
    """The clock of a worker and its sink, which begins at 10:00."""

    def __init__(self, elapsed_s: float = 0.0) -> None:
        super().__init__(elapsed_s)

    def monotonic(self) -> Monotonic:
        return Monotonic(1000.0 + self.elapsed_s)


class ScriptedSink(Sink):
    """Answers by `answer`, at once or when its future is done; remembers what it was sent."""

    refresh_answer = DELIVERED

    def __init__(self) -> None:
        self.answer: Callable[[Delivery], Answer | Awaitable[Answer]] = lambda _: DELIVERED
        self.sent: list[Delivery] = []
        self.batches: list[list[str]] = []
        self.told: list[Sequence[SentOpening]] = []
        self.arrived: asyncio.Queue[str] = asyncio.Queue()  # it needs a loop only where somebody waits
        self.in_flight_count = 0

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        delivery = batch[0]
        assert len(batch) == 1 or delivery.group_key is not None
        self.sent.extend(batch)
        self.batches.append([name_of(each) for each in batch])
        self.arrived.put_nowait(name_of(delivery))
        self.in_flight_count += 1
        try:
            answer = self.answer(delivery)
            answer = await answer if isinstance(answer, Awaitable) else answer
        finally:
            self.in_flight_count -= 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def refresh(self, problems: Sequence[SentOpening]) -> SendResult:
        self.told.append(problems)
        return self.refresh_answer

    def take_sent(self) -> list[str]:
        """Return what was sent since the last call."""
        names = [name_of(each) for each in self.sent]
        self.sent.clear()
        return names

    def take_batches(self) -> list[list[str]]:
        """Return what went together since the last call."""
        batches, self.batches = self.batches, []
        return batches


class FlakyStore:
    """The store of a worker, of which some methods, or parts of a turn, fail while they are named in `broken`."""

    def __init__(self, inner: SinkStore) -> None:
        self.inner = inner
        self.lease = inner.lease
        self.exclusive = inner.exclusive
        self.broken: set[str] = set()
        self.error = StoreError("broken by the test")
        self.asked: Counter[str] = Counter()
        self.monitor = SimpleNamespace(failing_since=None, last_failing_since=EARLIEST)

    async def record(self, item: Item) -> Taken | None:
        if not isinstance(item, Turn):
            self._ask("record")
        elif item.attempts:
            self._ask("settle")
        if isinstance(item, Turn) and item.take is not None:
            self._ask("take" if item.take.trial is None else "trial")
        elif isinstance(item, Turn) and not item.attempts:
            self._ask("save")
        return await self.inner.record(item)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def ask(*args: Any, **kwargs: Any) -> Any:
            self._ask(name)
            return await getattr(self.inner, name)(*args, **kwargs)

        return ask

    def _ask(self, name: str) -> None:
        self.asked[name] += 1
        if name in self.broken:
            raise self.error


def name_of(delivery: Delivery) -> str:
    """Return `a2` for the second event of stream `a`, and its type for what no test has recorded."""
    content = delivery.content
    return f"{content['of']}{content['sequence']}" if "of" in content else delivery.type


class NotedEvents(EventFactory):
    """Notes what is reported of the sink, to nobody."""

    def __init__(self, rig: "Rig") -> None:
        super().__init__(Router({}))
        self._rig = rig

    def of_source(self, type_: EventType, source: str, data: Json, *args: Any, **more: Any) -> Reported:
        reported = super().of_source(type_, source, data, *args, **more)
        self._rig.emitted.append((type_, reported.entry.event.sequence))
        self._rig.answers.append(data["answer"])
        return reported


def do(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of what never waits, without a loop."""
    try:
        work.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    raise AssertionError("it waits")


class HeldWorker(DeliveryWorker):
    """A worker without a loop: what it starts is `held` until it is to be sent."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.held: list[Request] = []

    def start(self, request: Request) -> None:
        self.held.append(request)

    async def send_held(self) -> None:
        """Send what is held, and what is started by that."""
        while self.held:
            requests, self.held = self.held, []
            for request in requests:
                await self.send(request)
            for _ in requests:
                self.go_on()


class Rig:
    """One sink from its outbox to its answers."""

    def __init__(self, path: Path, *, name: str = "ops", loop: bool = True) -> None:
        self.path = path
        self.has_loop = loop
        self.name = name
        self.sinks: tuple[str, ...] = (name,)  # which get what is recorded
        self.clock = FakeClock()
        self.sink = ScriptedSink()
        self.metrics = Metrics()
        self.emitted: list[tuple[str, int]] = []
        self.answers: list[str] = []
        self.ends: list[BaseException] = []
        self.silences = Silences()
        self.woken = False
        self.is_trusted = True
        self.recorded: Counter[str] = Counter()
        self._change_counts: Counter[str | None] = Counter()

    async def start(
        self, *, rules: WorkerRules = RULES, fingerprint: str = "as written", busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> None:
        if self.has_loop:
            self.real_store = await open_soon(self.path, clock=self.clock, busy_timeout_s=busy_timeout_s)
        else:
            self.real_store = InlineStore(self.path, clock=self.clock)
        self._account = await claim(self.real_store, "account", "default")
        await self._work(rules=rules, fingerprint=fingerprint)

    async def _work(self, *, rules: WorkerRules, fingerprint: str) -> None:
        self.rules = rules
        store = SinkStore(self.real_store, await claim(self.real_store, "sink", self.name))
        self.store = FlakyStore(store)
        self.worker = (DeliveryWorker if self.has_loop else HeldWorker)(
            self.sink,
            await store.load(fingerprint=fingerprint),
            WorkerDependencies(
                store=cast("SinkStore", self.store),
                rules=rules,
                is_trusted=lambda: self.is_trusted,
                clock=self.clock,
                jitter=lambda: 0.5,
                wake=self._wake,
                events=NotedEvents(self),
                silences=self.silences,
                fatal=self.ends.append,
                metrics=SinkMetrics(self.metrics, self.name),
            ),
        )
        self.real_store.wakes[self.name] = self.worker.wake

    async def stop(self) -> None:
        """End in order, as a daemon that is asked to."""
        await self.worker.cancel()
        await self.worker.flush()
        await self.real_store.close()

    async def kill(self) -> None:
        """End without a last write."""
        await self.worker.cancel()
        await self.real_store.close()

    async def restart(self, *, rules: WorkerRules = RULES, fingerprint: str = "as written") -> None:
        await self.stop()
        await self.start(rules=rules, fingerprint=fingerprint)

    async def record(
        self,
        *streams: str,
        type_: EventType = EventType.EXECUTION_FAILED,
        data: Mapping[str, Any] | None = None,
        problem: Problem | None = None,
        closed: bool = False,
        is_new: bool = True,
    ) -> None:
        """Record the next event of each stream, in this order, with that data.

        It may open a problem, or close it, or (neither `is_new` nor `closed`) remind of it.
        """
        entries: list[OutboxEntry] = []
        problems: list[ProblemChange] = []
        ordering_key = b""
        for stream in streams:
            self.clock.elapsed_s += 0.001
            self.recorded[stream] += 1
            closed_at = self.clock.now() if closed else None
            if problem is not None:
                block = {"id": str(problem.id)} | ({} if closed_at is None else {"closedAt": timestamp(closed_at)})
                data = {**(data or {}), "problem": block}
                problems.append(ProblemChange(problem, closed_at, is_new=is_new and not closed))
                ordering_key = ordering_key_of(problem.kind, problem.opening.stream, id_=problem.id)
            event = _event(stream, self.recorded[stream], type_=type_, data=data, ordering_key=ordering_key)
            group = None if self.rules.group is None else self.rules.group.group_of(event)
            entries.append(OutboxEntry(event, self.sinks, groups={} if group is None else {self.name: group}))
        await self.write(*entries, problems=problems)

    async def send(self, *streams: str, answer: Answer | None = None, **how: Any) -> None:
        """Record the next event of each stream, and let it go; an `answer` is the sink's from now on."""
        if answer is not None:
            self.sink.answer = lambda _: answer
        await self.record(*streams, **how)
        await self.go()

    async def begin(self, *streams: str, **how: Any) -> None:
        """Record the next event of each stream, and let the worker begin to send it."""
        await self.record(*streams, **how)
        await self.worker.tick()

    def hold(self) -> asyncio.Future[Answer]:
        """Have the sink answer from now on once this is done."""
        held: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.sink.answer = lambda _: held
        return held

    async def write(
        self, *entries: OutboxEntry, problems: Sequence[ProblemChange] = (), pipeline: str | None = None
    ) -> None:
        """Record events of the account, or of a pipeline of it, with the problems that they open or close."""
        before = self._change_counts[pipeline]
        self._change_counts[pipeline] += 1
        change = SourceChange(self._account, before, before + 1, None, entries, tuple(problems), pipeline=pipeline)
        await self.real_store.record(change)

    async def go(self, after_s: float = 0.0, *, flushes: bool = False) -> float:
        """Let time pass, then do as the daemon's clock would until nothing moves. Return when it is to go on.

        With `flushes` the worker also writes what it would write within its next seconds.
        """
        self.clock.elapsed_s += after_s
        for _ in range(MOST_TICKS):
            self.woken = False
            rest_s = await self.worker.tick()
            await self.settle()
            if rest_s > 0 and not self.woken:
                if flushes:
                    await self.worker.flush()
                return rest_s
        raise AssertionError("the worker never rests")

    async def settle(self) -> None:
        """Wait until all that was sent is answered."""
        if isinstance(self.worker, HeldWorker):
            await self.worker.send_held()
        while under_way := in_flight(self.worker):
            await asyncio.wait(under_way)

    def held(self) -> list[Request]:
        """Return the requests of a rig without a loop that are under way."""
        assert isinstance(self.worker, HeldWorker)
        return self.worker.held

    async def lose(self) -> None:
        """Let the sink take what is under way, and be killed before anybody hears of it."""
        for request in self.held():
            await self.sink.send(request.batch)
        await self.kill()

    async def later(self, seconds: float = 0.0) -> None:
        """Let so much time pass, and call the worker whenever it asks for it meanwhile."""
        end = self.clock.elapsed_s + seconds
        rest_s = await self.go()
        while self.clock.elapsed_s + rest_s < end:
            rest_s = await self.go(rest_s)
        await self.go(max(0.0, end - self.clock.elapsed_s))

    async def go_for(self, seconds: float) -> list[str]:
        """Return what goes out while so much time passes."""
        self.sink.take_sent()
        await self.later(seconds)
        return self.sink.take_sent()

    async def sent_after(self, after_s: float = 0.0) -> list[str]:
        """Return what goes out if so much time passes."""
        self.sink.take_sent()
        await self.go(after_s)
        return self.sink.take_sent()

    async def replay(self, *names: str) -> None:
        """Have dead letters sent again."""
        numbers = [self.row(name)["number"] for name in names]
        assert await operator_of(self.real_store).replay(self.name, numbers) == len(names)

    def row(self, name: str) -> dict[str, Any]:
        """Return what is stored of a delivery."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.row_factory = sqlite3.Row
            query = "SELECT * FROM delivery JOIN event ON event.id = number WHERE stream = ? AND sequence = ?"
            return dict(connection.execute(query, (name[:-1].encode(), int(name[-1]))).fetchone())

    def sink_state(self) -> str | None:
        with closing(sqlite3.connect(self.path)) as connection:
            query = "SELECT state FROM source WHERE kind = 'sink' AND name = ?"
            (state,) = connection.execute(query, (self.name,)).fetchone()
            return cast("str | None", state)

    def counted(self, outcome: str) -> float | None:
        labels = {"sink": self.name, "outcome": outcome}
        return self.metrics.registry.get_sample_value("watcher_deliveries_total", labels)

    def is_up(self) -> bool:
        return self.metrics.registry.get_sample_value("watcher_sink_up", {"sink": self.name}) == 1

    def _wake(self, in_s: float = 0.0) -> None:
        self.woken = in_s < 1.0


def streams(count: int) -> list[str]:
    """Return the names of so many streams, whose first events are `s000-1`, `s001-1` and so on."""
    return [f"s{index:03}-" for index in range(count)]


def in_flight(worker: DeliveryWorker) -> list[asyncio.Task[None]]:
    """Return the requests of a worker that are under way."""
    return list(worker.tasks)


def _event(
    stream: str, sequence: int, *, type_: EventType, data: Mapping[str, Any] | None, ordering_key: bytes = b""
) -> Event:
    data = data or {}
    body = {"of": stream, "sequence": sequence, "data": data}
    problem = data.get("problem", {})
    return Event(
        uuid5(NAMESPACE, f"{stream}{sequence}"),
        type_,
        stream.encode(),
        sequence,
        json.dumps(body).encode(),
        ordering_key or stream.encode(),
        problem=UUID(problem["id"]) if problem else None,
        closes="closedAt" in problem,
        account=data.get("account"),
        pipeline=data.get("pipeline", {}).get("id"),
        labels=data.get("labels", {}),
    )
