"""Lets the rules of a pipeline judge news, and makes their events."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from watcher.domain.envelope import Json, stream_of
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.event_factory import Reported, execution_block
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.rule import Judged, News, Rule, RuleEvent
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Watch
from watcher.polling.poll_item import Evaluation
from watcher.store.account_store import AccountStore


@dataclass(slots=True)
class Verdict:
    """The answer of all rules of a pipeline to news: the events, and what is known afterwards."""

    problems: dict[EventType, Problem]
    """The open problems, by kind."""
    entries: list[OutboxEntry] = field(default_factory=list)
    problem_changes: list[ProblemChange] = field(default_factory=list)
    states: dict[str, Any] = field(default_factory=dict)
    """The states of the rules, by key."""
    stored: dict[str, Any] = field(default_factory=dict)
    """The states to store. A state that equals the default of its rule is left out."""


@dataclass(frozen=True, slots=True)
class RecordedPast:
    """The recorded past of one pipeline, as its rules read it."""

    store: AccountStore
    watch: Watch

    async def durations(self, count: int) -> Sequence[int]:
        """Return the durations (microseconds) of the last `count` successes, oldest first."""
        return await self.store.load_durations(self.watch.pipeline, limit=count)

    async def spending(self, day_at: Micros) -> tuple[int, int]:
        """Return the tokens of the ends since `day_at`, and the percentage of that day that was reported last."""
        stream = stream_of(self.watch.source)
        return await self.store.load_spending(self.watch.pipeline, stream=stream, day_at=day_at)

    async def count_errors(self, fingerprints: Collection[bytes], since: Micros) -> int:
        """Return the number of failures with errors of these kinds, on days whose last such error was after `since`."""
        return await self.store.count_errors(self.watch.pipeline, fingerprints, since)

    async def last_event(self, execution: str) -> bytes | None:
        """Return the body of an execution's last event, unless retention has deleted it."""
        known = (await self.store.load_executions([execution])).get(execution)
        if known is None:
            return None
        key = EventKey(stream_of(self.watch.source, execution), known.sequence)
        return (await self.store.load_events([key])).get(key)


def judge(rule: Rule, state: Any, news: News, problems: Mapping[EventType, Problem]) -> Judged:
    """Let one rule judge news, given all open problems."""
    return rule.judge(state, news, problems.get(rule.opens) if rule.opens else None)


async def verdict_of(
    news: News,
    states: Mapping[str, Any],
    problems: Mapping[EventType, Problem],
    evaluations: Sequence[Evaluation],
    *,
    past: RecordedPast,
    event: Callable[..., Reported],
    after: int,
) -> Verdict:
    """Let every rule judge news, and make its events. Raises `StoreError`.

    `event` makes an event of the pipeline. `after` is the sequence of the pipeline's last event.
    """
    verdict, watch = Verdict(dict(problems)), past.watch
    for rule in watch.rules:
        loaded = await rule.load(news, past)
        given = news if loaded is None else replace(news, loaded=loaded)
        judged = judge(rule, states[rule.key], given, problems)
        problem, latest = problems.get(rule.opens) if rule.opens else None, judged.latest
        if problem and problem.latest and (latest is None or latest.execution == problem.latest.execution):
            latest = problem.latest
        for found in judged.events:
            closed = verdict.problems.pop(rule.opens) if rule.opens and found.type is not rule.opens else None
            closed = closed and replace(closed, failed_count=found.failed_count, latest=latest)
            more = {"execution": await _block(found, evaluations, past), **(found.data or {})}
            nth = after + len(verdict.entries)
            entry, change = event(watch, found.type, more, closed, count=found.failed_count, after=nth)
            verdict.entries.append(entry)
            if change is not None:
                verdict.problem_changes.append(change)
                if change.is_new:
                    verdict.problems[found.type] = change.problem
        if rule.opens and (problem := verdict.problems.get(rule.opens)) is not None:
            now = replace(problem, failed_count=judged.failed_count, latest=latest)
            if now != problem:
                verdict.problems[rule.opens] = now
                verdict.problem_changes.append(ProblemChange(now))
        verdict.states[rule.key] = judged.state
        if rule.state_type is not None and judged.state != rule.state_type():
            verdict.stored[rule.key] = judged.state
    return verdict


async def _block(found: RuleEvent, evaluations: Sequence[Evaluation], past: RecordedPast) -> Json | None:
    """Return the `execution` block of a rule's event: as in the last event of that execution.

    A success that counts as a failure has the reason as its error.
    """
    if found.execution is None:
        return None
    changes = (each.change for each in evaluations if each.known.execution == found.execution)
    entries = next((change.entries for change in changes if change is not None), ())
    body = entries[-1].event.body if entries else await past.last_event(found.execution)
    block = None if body is None else execution_block(body)
    return block if block is None or found.fault is None else {**block, "error": found.fault}
