"""An account and its store in virtual time: a clock that is moved by hand, an API that answers by script."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import fake_clock
from stores import claim, due, settle, sink_of

from watcher.clerk.api import PAGE_ROWS, ClerkApi, Reply
from watcher.clerk.schemas import ApiDates
from watcher.domain.event import EventType
from watcher.domain.event_factory import EventFactory
from watcher.domain.execution import ExecutionSnapshot, Outcome
from watcher.domain.routing import Route, Router
from watcher.domain.timestamps import Micros, Monotonic
from watcher.domain.watch import Details, FirstSight, Watch
from watcher.polling.account_poller import AccountPoller
from watcher.polling.circuit_breaker import AccountCircuitBreaker
from watcher.polling.dependencies import AccountDependencies
from watcher.polling.evaluator import ReplyEvaluator, backoff_cadence
from watcher.polling.poll_item import PollRules
from watcher.runtime.metrics import AccountMetrics, Metrics
from watcher.runtime.pacing import Jitter, Pacer
from watcher.store.account_store import AccountStore
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import SqlStore

EPOCH = fake_clock.EPOCH
PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"

DATES = ApiDates(0, Micros(2**62))
"""The dates of an API whose clock is ours, and which is never wrong."""


class FakeClock(fake_clock.FakeClock):
    """The clock of an account, which begins 1000 s after 10:00."""

    def __init__(self, elapsed_s: float = 1000.0) -> None:
        super().__init__(elapsed_s)


@dataclass
class ScriptedApi:
    """Answers with what `script` says now; notes who was asked when, how many at once, and how many were not read.

    Its own clock, of which the `Date` of its answers tells, is off by `offset_s`.
    """

    clock: FakeClock
    script: dict[str, Outcome | ExecutionSnapshot] = field(default_factory=dict)
    pages: dict[int, Outcome | tuple[ExecutionSnapshot, ...]] = field(default_factory=dict)
    total: int | None = None
    states_total: bool = True
    default: Outcome | None = None
    status_codes: dict[Outcome, int] = field(default_factory=dict)
    retry_after_s: float | None = None
    reason: str | None = None
    pipelines: set[str] = field(default_factory=lambda: {PIPELINE})
    asked: list[tuple[float, str]] = field(default_factory=list)
    unread: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    at_once: Counter[str] = field(default_factory=Counter)
    most_at_once: Counter[str] = field(default_factory=Counter)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    offset_s: float = 0.0

    def __post_init__(self) -> None:
        self.gate.set()

    async def get(self, *, pipeline: str, execution: str, known_hash: int | None = None) -> Reply:
        assert pipeline in self.pipelines
        sent_at = self.clock.monotonic()
        self.asked.append((sent_at, execution))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.at_once[execution] += 1
        self.most_at_once[execution] = max(self.most_at_once[execution], self.at_once[execution])
        await self.gate.wait()
        self.in_flight -= 1
        self.at_once[execution] -= 1
        answer = self.default or self.script[execution]
        if isinstance(answer, ExecutionSnapshot):
            body_hash = hash(repr(answer))
            self.unread += body_hash == known_hash
            found = None if body_hash == known_hash else self._dated(answer)
            return Reply(Outcome.OK, sent_at, found, 200, body_hash=body_hash, ahead_us=self.ahead_us or 0)
        return Reply(answer, sent_at, None, self.status_codes.get(answer), self.retry_after_s, self.reason)

    def times(self, execution: str) -> list[float]:
        return [at - 1000.0 for at, name in self.asked if name == execution]

    def _total(self) -> int | None:
        """Return `total`, or else how many rows there are, if it says so at all."""
        length = sum(len(rows) for rows in self.pages.values() if isinstance(rows, tuple))
        return self.total or length if self.states_total else None

    @property
    def ahead_us(self) -> int:
        return round((self.offset_s - self.clock.off_s) * 1_000_000)

    def _dated(self, answer: ExecutionSnapshot) -> ExecutionSnapshot:
        """Return an answer with its dates on our clock, as the client reads it."""
        return on_our_clock(answer, ApiDates(self.ahead_us, self.clock.steady_us()))

    async def list(self, *, pipeline: str, page: int, known: Reply | None = None) -> Reply:
        assert pipeline in self.pipelines
        sent_at = self.clock.monotonic()
        self.asked.append((sent_at, f"page {page}"))
        answer = self.default or self.pages.get(page, ())
        if isinstance(answer, tuple):
            body_hash = hash((repr(answer), self._total()))
            if known is not None and known.body_hash == body_hash:
                self.unread += 1
                return known._replace(sent_at=sent_at)
            rows = tuple(map(self._dated, answer))
            reply = Reply(Outcome.OK, sent_at, None, 200, body_hash=body_hash, rows=rows, total=self._total())
            return reply._replace(ahead_us=self.ahead_us or 0)
        return Reply(answer, sent_at, None, self.status_codes.get(answer), self.retry_after_s)


def on_our_clock(answer: ExecutionSnapshot, dates: ApiDates = DATES) -> ExecutionSnapshot:
    return replace(answer, began_at=dates.ours(answer.started_at), ended_at=dates.ours(answer.finished_at))


def said(execution: str, status: str, **facts: Any) -> ExecutionSnapshot:
    return ExecutionSnapshot(id=execution, status=status, pipeline_id=PIPELINE, pipeline_name="Sales agent", **facts)


@dataclass
class Account:
    """A watcher with everything around it."""

    watcher: AccountPoller
    api: ScriptedApi
    clock: FakeClock
    store: SqlStore
    metrics: Metrics
    sink: SinkStore
    fatal: list[BaseException]
    wakes: list[float]

    async def run_for(self, seconds: float) -> None:
        """Run ticks as a clock would: when asked for, and when woken."""
        end = self.clock.monotonic() + seconds
        while True:
            delay_s = await self.watcher.tick()
            await self.settle()
            delay_s = min([delay_s, *self.wakes])
            self.wakes.clear()
            if self.clock.monotonic() + delay_s > end:
                self.clock.elapsed_s = end
                return
            self.clock.advance(delay_s)

    async def begin_request(self) -> None:
        """Close the gate, and return once a request is in flight that waits for it."""
        self.api.gate.clear()
        while not self.api.in_flight:
            await self.watcher.tick()
            await asyncio.sleep(0)
            self.clock.advance(0.1)

    async def settle(self) -> None:
        """Let everything that is in flight come back."""
        await asyncio.sleep(0)
        while self.watcher._tasks and self.api.gate.is_set():
            await asyncio.wait(set(self.watcher._tasks))

    async def events(self, *, after_s: float | None = None) -> list[dict[str, Any]]:
        """Return all that was emitted so far, settling it; run for `after_s` before."""
        if after_s is not None:
            await self.run_for(after_s)
        from_store: list[dict[str, Any]] = []
        while True:
            found = await due(self.sink, now=self.clock.steady_us() + 10**15, count=500)
            if not found:
                return from_store
            from_store += [json.loads(delivery.body) for delivery in found]
            await settle(self.sink, *found)

    async def emitted(self, *, after_s: float | None = None) -> list[tuple[str, str | None, str | None]]:
        """Return type, status (or reason of the account's) and previous status of all reported since the last call."""
        return [
            (
                event["type"],
                event["data"].get("execution", {}).get("status") or event["data"].get("reason"),
                event["data"].get("execution", {}).get("previousStatus"),
            )
            for event in await self.events(after_s=after_s)
        ]


def name_of(number: int) -> str:
    """Return the id of an execution."""
    return f"9a1b0000-0000-4000-8000-{number:012x}"


WHOLE = Watch("default", PIPELINE, (), name="Sales agent")
"""A pipeline that is watched whole."""


def watch_of(*executions: str, overdue_after_s: Mapping[str, float] | None = None) -> Watch:
    return Watch("default", PIPELINE, executions, labels={"team": "sales"}, overdue_after_s=overdue_after_s or {})


DAY_US = 24 * 3600 * 1_000_000

RULES = PollRules(
    details=Details.FAILED,
    first_sight=FirstSight.BASELINE,
    lookback_us=7 * DAY_US,
    history_us=30 * DAY_US,
    pages_at_most=1000,
    confirmed_at_most=1000,
    min_interval_s=1.0,
    max_interval_s=60.0,
    lost_after=3,
    lost_grace_s=60.0,
    degraded_after_s=60.0,
)


def pages_of(
    *rows: ExecutionSnapshot, page_rows: int = PAGE_ROWS
) -> dict[int, Outcome | tuple[ExecutionSnapshot, ...]]:
    """Return a list as the API would give it, page by page."""
    return {first // page_rows + 1: rows[first : first + page_rows] for first in range(0, len(rows), page_rows)}


EVERYTHING = Route(frozenset(EventType), {}, frozenset())
"""The route of a sink that gets all events."""

Start = Callable[..., Awaitable[Account]]
"""`account_of` over the store and the clock of a test: called again, it is a restart."""


async def account_of(
    store: SqlStore,
    clock: FakeClock,
    *executions: str,
    rate_per_s: float = 1000.0,
    concurrency: int = 64,
    max_interval_s: float = 60.0,
    overdue_after_s: Mapping[str, float] | None = None,
    watches: Sequence[Watch] | None = None,
    rules: PollRules = RULES,
    api: ScriptedApi | None = None,
    jitter: Jitter = lambda: 0.5,
    is_trusted: Callable[[], bool] = lambda: True,
    route: Route = EVERYTHING,
) -> Account:
    """Build an account over that store, as a start of the daemon would. It asks `api`, else one that is scripted."""
    events = EventFactory(Router({"ops": route}))
    metrics, fatal, wakes = Metrics(), list[BaseException](), list[float]()
    lease, sink = await claim(store, "account", "default"), await sink_of(store)
    owned = AccountStore(store, lease)
    record = await owned.load_account()
    await sink.load(fingerprint="")
    children = AccountMetrics(metrics, "default")
    rules = replace(rules, max_interval_s=max_interval_s)
    breaker = AccountCircuitBreaker(rules, record, clock=clock, jitter=jitter)
    api = api or ScriptedApi(clock, {name: said(name, "running") for name in executions})
    clerk_api = cast("ClerkApi", api)
    evaluator = ReplyEvaluator(
        lease=lease,
        events=events,
        clock=clock,
        cadence=backoff_cadence(min_interval_s=rules.min_interval_s, max_interval_s=max_interval_s, jitter=jitter),
        link=None,
    )
    deps = AccountDependencies(
        lease=lease,
        is_trusted=is_trusted,
        api=clerk_api,
        store=owned,
        clock=clock,
        pacer=Pacer(rate_per_s, now=Monotonic(clock.monotonic() - 60.0)),  # the gap after the start is over
        breaker=breaker,
        record=record,
        rules=rules,
        evaluator=evaluator,
        metrics=children,
        concurrency=concurrency,
        wake=lambda in_s=0.0: wakes.append(in_s),
        fatal=fatal.append,
    )
    watcher = AccountPoller(deps)
    await watcher.watch(watches if watches is not None else [watch_of(*executions, overdue_after_s=overdue_after_s)])
    return Account(watcher, api, clock, store, metrics, sink, fatal, wakes)
