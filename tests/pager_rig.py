"""A pager: problems that open and close, a worker, and a fake PagerDuty that keeps incidents."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from receivers_rules import check_pagerduty
from worker_rig import DELIVERED, FakeClock, Rig, ScriptedSink

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import new_problem, stream_of
from watcher.domain.event import EventType, OutboxEntry
from watcher.domain.event_factory import EventFactory
from watcher.domain.execution import ExecutionRecord
from watcher.domain.problems import CLOSED_BY, PROBLEM_KINDS, Problem, ProblemChange
from watcher.domain.routing import Route, Router
from watcher.domain.transitions import StatusChange
from watcher.domain.watch import Watch
from watcher.sinks.pagerduty import PagerDutyTemplate
from watcher.sinks.protocol import SendResult, Sink, WorkerRules
from watcher.store.operator_store import OperatorStore

PagerEvent = Mapping[str, Any]


class FakePagerDuty(Sink):
    """Keeps incidents as PagerDuty does: a trigger opens one unless its key has one that is not resolved.

    `pages` are the triggers that opened one. `complaints` are of what our side must never do.
    """

    keeps_state = True

    def __init__(self, clock: FakeClock) -> None:
        self.answer: Callable[[PagerEvent], SendResult] = lambda _: DELIVERED
        self.state: dict[str, str] = {}
        self.pages: list[PagerEvent] = []
        self.taken: list[PagerEvent] = []
        self.refused: list[PagerEvent] = []
        self.paged_at: list[datetime] = []
        self.complaints: list[str] = []
        self._clock = clock
        self._template = PagerDutyTemplate(clock=clock, routing_key="k" * 32, public_url="https://watcher.example.com")

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        result = DELIVERED
        for message in self._template.messages(batch):
            event = check_pagerduty(message.body)
            result = self.answer(event)
            if not result.outcome.is_taken:
                self.refused.append(event)
                return result
            self.take(event)
        return result

    def take(self, event: PagerEvent) -> None:
        """Do as PagerDuty does with an event."""
        self.taken.append(event)
        key, action = event["dedup_key"], event["event_action"]
        before = self.state.get(key)
        if action == "trigger" and before == "resolved":
            self.complaints.append(f"{key} triggers after its resolve")
        if action == "trigger" and before in {None, "resolved"}:
            self.pages.append(event)
            self.paged_at.append(self._clock.now())
            self.state[key] = "triggered"
        elif action == "acknowledge" and before == "triggered":
            self.state[key] = "acknowledged"
        elif action == "resolve" and before is not None:
            self.state[key] = "resolved"

    def actions(self) -> list[str]:
        """Return what each event was to do."""
        return [event["event_action"] for event in self.taken]

    def summaries(self) -> list[str]:
        """Return what each page said."""
        return [event["payload"]["summary"] for event in self.pages]

    def open(self) -> list[str]:
        """Return the keys of incidents that are not resolved."""
        return [key for key, state in self.state.items() if state != "resolved"]


class PagerRig(Rig):
    """A rig whose sink is a pager: what happens to pipelines, executions and accounts, as their owners record it.

    A method that makes something happen then lets `then_s` pass, if it is given.
    """

    def __init__(self, path: Path, *, loop: bool = True) -> None:
        super().__init__(path, loop=loop)
        self.pager = FakePagerDuty(self.clock)
        self.types = PROBLEM_KINDS

    async def start(self, *, rules: WorkerRules, **how: Any) -> None:  # type: ignore[override] # the rules matter here
        self.sink = cast("ScriptedSink", self.pager)
        self.events = EventFactory(Router({self.name: self.route(rules)}))
        await super().start(rules=rules, **how)

    def route(self, rules: WorkerRules) -> Route:
        return Route(self.types, {}, frozenset(), rules.group, rules.problem_group, rules.opening_wait_s)

    async def restart_with(self, rules: WorkerRules) -> None:
        await self.kill()
        await self.start(rules=rules)

    async def opens(self, pipeline: str, *, team: str | None = None, then_s: float | None = None) -> Problem:
        """Let a problem of a pipeline open."""
        self.clock.elapsed_s += 0.001
        watch = Watch("default", pipeline, (), name=pipeline, labels={"team": team} if team else {})
        self.recorded[pipeline] += 1
        execution = {"id": f"run of {pipeline}", "failedNodes": [{"name": "Greeting", "error": f"error of {pipeline}"}]}
        reported = self.events.pipeline(
            EventType.PIPELINE_FAILING,
            watch,
            {"execution": execution},
            None,
            after=self.recorded[pipeline] - 1,
            at=self.clock.now(),
        )
        return await self._write(reported.entry, reported.problem, then_s)

    async def closes(self, pipeline: str, problem: Problem, *, then_s: float | None = None) -> None:
        """Let that problem close."""
        self.clock.elapsed_s += 0.001
        watch = Watch("default", pipeline, (), name=pipeline)
        self.recorded[pipeline] += 1
        reported = self.events.pipeline(
            CLOSED_BY[problem.kind], watch, {}, problem, after=self.recorded[pipeline] - 1, at=self.clock.now()
        )
        await self._write(reported.entry, reported.problem, then_s)

    async def starts(self, execution: str, pipeline: str = "Agent") -> None:
        """Let an execution run, which the sink is told of."""
        self.recorded[execution] += 1
        entry = self.events.execution(
            StatusChange(EventType.EXECUTION_RUNNING, "running", "running", None, 1, self.recorded[execution]),
            ExecutionRecord(execution, pipeline, "running"),
            watch=Watch("default", pipeline, (), name=pipeline),
            observed_at=self.clock.now(),
            seen_at=self.clock.steady_us(),
        )
        await self.write(OutboxEntry(entry.event, (self.name,)))

    async def fails(self, execution: str, pipeline: str = "Agent", *, then_s: float | None = None) -> None:
        """Let an execution fail."""
        await self._moment(EventType.EXECUTION_FAILED, execution, pipeline, then_s)

    async def is_expensive(self, execution: str, pipeline: str = "Agent", *, then_s: float | None = None) -> None:
        """Let an execution use too many tokens."""
        await self._moment(EventType.EXECUTION_EXPENSIVE, execution, pipeline, then_s)

    async def _moment(self, type_: EventType, execution: str, pipeline: str, then_s: float | None) -> None:
        self.clock.elapsed_s += 0.001
        self.recorded[execution] += 1
        entry = self.events.execution(
            StatusChange(type_, "failed", "failed", "running", 1, self.recorded[execution]),
            ExecutionRecord(execution, pipeline, "failed"),
            watch=Watch("default", pipeline, (), name=pipeline),
            observed_at=self.clock.now(),
            seen_at=self.clock.steady_us(),
        )
        await self.write(entry, pipeline=pipeline)
        if then_s is not None:
            await self.later(then_s)

    async def hangs(self, execution: str, pipeline: str = "Agent", *, then_s: float | None = None) -> Problem:
        """Let an execution be overdue."""
        return await self._execution(execution, pipeline, EventType.EXECUTION_OVERDUE, None, then_s)

    async def ends_overdue(
        self,
        execution: str,
        problem: Problem,
        pipeline: str = "Agent",
        *,
        type_: EventType = EventType.EXECUTION_FAILED,
        then_s: float | None = None,
    ) -> None:
        """Let an overdue execution end."""
        await self._execution(execution, pipeline, type_, problem, then_s)

    async def _execution(
        self, execution: str, pipeline: str, type_: EventType, problem: Problem | None, then_s: float | None
    ) -> Problem:
        self.clock.elapsed_s += 0.001
        self.recorded[execution] += 1
        at, sequence = self.clock.now(), self.recorded[execution]
        watch = Watch("default", pipeline, (), name=pipeline)
        change = ProblemChange(problem, at) if problem else None
        if change is None:
            source = watch.source
            opened = new_problem(type_, source, subject=execution, nth=sequence, sequence=sequence, at=at)
            change = ProblemChange(opened, is_new=True)
        entry = self.events.execution(
            StatusChange(type_, type_.partition(".")[2], "running", None, 1, sequence),
            ExecutionRecord(execution, pipeline, "running"),
            watch=watch,
            observed_at=at,
            seen_at=self.clock.steady_us(),
            overdue_s=None if problem else 0.3,
            problem=change,
        )
        return await self._write(entry, change, then_s)

    async def _write(self, entry: OutboxEntry, change: ProblemChange | None, then_s: float | None) -> Problem:
        assert change is not None
        await self.write(entry, problems=[change], pipeline=entry.event.pipeline)
        if then_s is not None:
            await self.later(then_s)
        return change.problem

    def answers_of(self, subject: str) -> list[tuple[str, str | None]]:
        """Return how the deliveries about an execution of the usual pipeline were settled, in their order."""
        stream = stream_of(Watch("default", "Agent", ()).source, subject)
        with closing(sqlite3.connect(self.path)) as connection:
            query = (
                "SELECT state, answer FROM delivery JOIN event ON event.id = number WHERE stream = ? ORDER BY number"
            )
            return list(connection.execute(query, (stream,)))

    async def acknowledge(
        self, problem: Problem, *, until: datetime | None = None, then_s: float | None = None
    ) -> None:
        """Let somebody take a problem."""
        operator = OperatorStore(self.real_store, self.events)
        await operator.acknowledge(problem.id, by="ann", comment=None, until=until)
        if then_s is not None:
            await self.later(then_s)
