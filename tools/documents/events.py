"""The page of events: one real example of every type, emitted by the watcher itself in virtual time."""

import ast
import asyncio
import inspect
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from virtual import EPOCH, PIPELINE, Account, FakeClock, account_of, said

from documents.events_text import FIELDS, HEAD, OWN
from watcher.domain.envelope import stream_of, timestamp
from watcher.domain.event import ClosedReason, EventKey, EventType, GapReason
from watcher.domain.event_factory import EventFactory, trial_event
from watcher.domain.execution import ExecutionSnapshot, FailedNode, Outcome
from watcher.domain.history import Totals
from watcher.domain.problems import LatestFailure, Problem, SentOpening
from watcher.domain.report import Happening, PipelineResult, error_of, report_of
from watcher.domain.routing import Router
from watcher.domain.rule import Rule
from watcher.domain.timestamps import to_us
from watcher.domain.watch import Watch
from watcher.rules import RulesSettings, rules_of
from watcher.store.sql_store import open_store

WIDTH = 110
Event = Mapping[str, Any]

SALE, TRIAGE, ODD, SLOW, GONE = (f"9a1b0000-0000-4000-8000-00000000000{number}" for number in range(1, 6))
BEGAN = EPOCH + timedelta(seconds=998.5)
FACTS: dict[str, Any] = {
    "version_id": "1c2d0000-0000-4000-8000-000000000002",
    "version_number": 7,
    "triggered_by": "message_received",
    "triggered_by_entity_id": "5e6f0000-0000-4000-8000-000000000003",
    "conversation_id": "7a8b0000-0000-4000-8000-000000000004",
}
WATCH = Watch("default", PIPELINE, (), name="Sales agent", labels={"team": "sales"})
SHOWN_WHOLE = {
    EventType.EXECUTION_FAILED,
    EventType.EXECUTION_OVERDUE,
    EventType.PIPELINE_FAILING,
    EventType.ACCOUNT_DEGRADED,
    EventType.PROBLEM_ACKNOWLEDGED,
    EventType.WATCHER_REPORT,
}
COMMON = {"account", "labels", "pipeline", "execution", "problem", "observed", "sink"}
"""Keys of `data` that say nothing of the type."""
SINK_EVENTS = (EventType.SINK_FAILING, EventType.SINK_RECOVERED, EventType.SINK_DISABLED)


def events() -> str:
    """Return the whole page."""
    examples = asyncio.run(emitted())
    untold = [str(type_) for type_ in EventType if type_ not in examples]
    assert not untold, f"tell a story in tools/documents/events.py of {', '.join(untold)}"
    types = [f"### {type_}\n\n{text}\n{_example(examples[type_])}" for type_, text in descriptions().items()]
    own = {name for names in OWN.values() for name in names}
    groups = {"": [name for name in FIELDS if name not in own], **OWN}
    fields = "\n\n".join((f"{of} only:\n\n" if of else "") + _listed(names) for of, names in groups.items())
    return "\n".join([HEAD.format(fields=fields), *types])


def _listed(names: Sequence[str]) -> str:
    """Return a line for each meaning, with all of the names that have it."""
    by_meaning: dict[str, list[str]] = {}
    for name in names:
        by_meaning.setdefault(FIELDS[name], []).append(f"`{name}`")
    return "\n".join(f"- {', '.join(fields)}: {meaning}" for meaning, fields in by_meaning.items())


def _example(event: Event) -> str:
    """Return a whole event, or only what `data` has of its own, as a block of the page."""
    own = {key: value for key, value in event["data"].items() if key not in COMMON}
    shown = event if event["type"] in SHOWN_WHOLE else {"type": event["type"], "data": own}
    return f"\n```json\n{fold(shown)}\n```\n" if shown is event or own else ""


def descriptions() -> Mapping[EventType, str]:
    """Return when each type is emitted: the text below it in its enumeration, as one line."""
    (enumeration,) = ast.parse(inspect.getsource(EventType)).body
    assert isinstance(enumeration, ast.ClassDef)
    texts = [ast.literal_eval(node.value) for node in enumeration.body if isinstance(node, ast.Expr)][1:]
    return {type_: " ".join(text.split()) for type_, text in zip(EventType, texts, strict=True)}


def fold(value: Any, *, indent: int = 0) -> str:
    """Return JSON on as few lines as fit."""
    flat = json.dumps(value, ensure_ascii=False)
    if indent + len(flat) <= WIDTH or not value or not isinstance(value, dict | list):
        return flat
    if isinstance(value, list):
        return f"[{', '.join(fold(item, indent=indent) for item in value)}]"
    pad = " " * (indent + 2)
    lines = [""]
    for key, item in value.items():
        text = f"{json.dumps(key)}: {fold(item, indent=indent + 2)},"
        if lines[-1] and ("\n" in text or len(pad) + len(lines[-1]) + len(text) > WIDTH):
            lines.append("")
        lines[-1] = f"{lines[-1]} {text}".strip()
    body = f"\n{pad}".join(lines).removesuffix(",")
    return f"{{\n{pad}{body}\n{' ' * indent}}}"


@asynccontextmanager
async def _watched(*executions: str, **how: Any) -> AsyncIterator[Account]:
    """Watch an account until the end of the block."""
    with tempfile.TemporaryDirectory() as folder:
        clock = FakeClock()
        store = await open_store(f"sqlite:///{Path(folder)}/docs.db", clock=clock)
        yield await account_of(store, clock, *executions, **how)
        await store.close()


async def emitted() -> dict[str, Event]:
    """Return the first event of each type that these stories lead to."""
    async with _watched(SALE, TRIAGE, ODD, SLOW, GONE, overdue_after_s={"running": 900.0}) as account:
        await _live(account)
        events: list[Event] = list(await account.events())
    events += [*await _ruled(), *await _compared()]
    at = EPOCH + timedelta(hours=7)
    missing = {"reason": GapReason.DELETED, "atMost": 12}
    gap = EventFactory(Router({})).pipeline(EventType.PIPELINE_GAP, WATCH, missing, None, after=0, at=at).entry.event
    events += [*_sink_events(), *(json.loads(each.body) for each in (gap, trial_event(sink="ops", at=EPOCH)))]
    events += [*_of_problem(events), _report()]
    return {event["type"]: _steady(event) for event in reversed(events)}


async def _live(account: Account) -> None:
    """Let the executions live, and the account fall ill and recover."""
    for script in (_begin, _middle, _end):
        account.api.script |= script(account.clock.now())
        await account.run_for(30.0)
    account.api.script[GONE] = Outcome.NOT_FOUND
    await account.run_for(1000.0)
    account.api.default, account.api.status_codes = Outcome.UNAUTHORIZED, {Outcome.UNAUTHORIZED: 401}
    await account.run_for(90.0)
    account.api.default = None
    await account.run_for(90.0)


def _rules(**settings: object) -> tuple[Rule, ...]:
    return rules_of(RulesSettings.model_validate(settings))


async def _ruled() -> list[Event]:
    """Return what the rules of a pipeline lead to: it fails, recovers, is silent and active again."""
    rules = _rules(failing={"consecutive": 3}, silent="30m")
    async with _watched(watches=[replace(WATCH, rules=rules)]) as account:
        await account.run_for(10.0)
        for number, status in enumerate(("failed",) * 3 + ("success",) * 3 + ("running",), 6):
            _show(account, number, status)
            await account.run_for(2_400.0 if number == 11 else 120.0)
        return [event for event in await account.events() if event["type"].startswith("pipeline.")]


async def _compared() -> list[Event]:
    """Return what the rules lead to that compare with the past: an execution is slow, expensive, and fails anew."""
    rules = _rules(slow={}, tokens={"per_day": 50_000}, new_error=True)
    async with _watched(watches=[replace(WATCH, rules=rules, max_tokens=20_000)]) as account:
        await account.run_for(10.0)
        for number in range(0x20, 0x34):
            _show(account, number, "success", began_s=30.0, ai_tokens_used=1_000)
            await account.run_for(5.0)
        began_at = account.clock.now()
        for status, tokens, for_s in (("running", None, 120.0), ("running", 23_456, 10.0), ("failed", 23_456, 10.0)):
            began_s = (account.clock.now() - began_at).total_seconds()
            _show(account, 0x34, status, began_s=began_s, ai_tokens_used=tokens)
            await account.run_for(for_s)
        _show(account, 0x35, "success", began_s=5.0, ai_tokens_used=7_000)
        await account.run_for(10.0)
        new = {EventType.EXECUTION_EXPENSIVE, EventType.PIPELINE_SLOW, EventType.PIPELINE_ON_TIME}
        new |= {EventType.PIPELINE_OVERSPENDING, EventType.PIPELINE_NEW_ERROR}
        return [event for event in await account.events() if event["type"] in new]


def _show(
    account: Account, number: int, status: str, *, began_s: float = 5.0, ai_tokens_used: int | None = None
) -> None:
    """Have the list begin with another execution, or with what the first one is now."""
    now, name = account.clock.now(), f"9a1b0000-0000-4000-8000-{number:012x}"
    node = FailedNode("2d3e0000-0000-4000-8000-000000000005", "Greeting", "upstream timeout after 30 s")
    failed_nodes, error = ((node,), "Greeting failed") if status == "failed" else ((), None)
    finished_at = None if status == "running" else now
    row = said(
        name,
        status,
        started_at=now - timedelta(seconds=began_s),
        finished_at=finished_at,
        ai_tokens_used=ai_tokens_used,
        failed_nodes=failed_nodes,
        error=error,
        **FACTS,
    )
    account.api.script[name] = row
    rows = account.api.pages.get(1, ())
    others = [each for each in rows if each.id != name] if isinstance(rows, tuple) else []
    account.api.pages = {1: (row, *others)}


def _of_problem(events: Sequence[Event]) -> list[Event]:
    """Return what a sink is told of a problem that goes on, that somebody takes, and whose rule is removed then."""
    opening = next(event for event in events if event["type"] == EventType.PIPELINE_FAILING)
    at, of = datetime.fromisoformat(opening["time"]), opening["data"]["problem"]
    key = EventKey(stream_of(opening["source"]), int(opening["sequence"]))
    newest = LatestFailure(to_us(at + timedelta(hours=3)), TRIAGE, "Lookup", "upstream returned 404")
    problem = Problem(UUID(of["id"]), EventType(of["kind"]), at, key, failed_count=28, latest=newest)
    events_of = EventFactory(Router({}))
    at += timedelta(hours=4)
    body, comment, until = json.dumps(opening).encode(), "looking into it", at + timedelta(hours=2)
    reminder = events_of.reminder(SentOpening(problem, body, last_ended_at=newest.at), sink="ops", after=3, at=at)
    taken = events_of.acknowledgement(problem, body, by="dana", comment=comment, until=until, after=0, at=at)
    closed = events_of.closing(problem, body, reason=ClosedReason.REMOVED, after=1, at=at)
    return [json.loads(entry.event.body) for entry in (reminder, taken, closed.entry)]


def _report() -> Event:
    """Return the report of a day in which one of two pipelines got worse."""
    at, name = EPOCH.replace(hour=7), "Sales agent"
    error = error_of("Greeting", "upstream timeout after 30 s", 12)
    now, before = (
        Totals(Counter(started=342, success=312, failed=30, tokens=51_200), Counter({26: 292, 39: 20})),
        Totals(Counter(started=500, success=492, failed=8)),
    )
    sales = PipelineResult("default", PIPELINE, name, "failing", 1, now, before, error)
    id_, as_ever = "77aa0000-0000-4000-8000-000000000000", Totals(Counter(started=500, success=495, failed=5))
    other = PipelineResult("default", id_, "Onboarding", "well", 0, as_ever, as_ever, None)
    link = "https://watcher.example.com"
    times = {"from": timestamp(at - timedelta(days=1)), "until": timestamp(at)}
    about = {"name": "morning", **times, "timezone": "Europe/Berlin", "link": link}
    since, until = (to_us(at - timedelta(hours=hours)) for hours in (9, 8))
    kind, title = EventType.PIPELINE_FAILING, "{} keeps failing, last at Greeting"
    failing = Happening(kind, "pipeline", {name: name}, since, None, title.format(name), error["text"])
    over = replace(failing, names={"Onboarding": "Onboarding"}, title=title.format("Onboarding"), until=until)
    made = report_of([sales, other], [{"pipeline": name, **error}], about, [failing, over])
    entry = EventFactory(Router({})).report("morning", made, sinks=["ops"], moment=at, after=0, at=at)
    event: Event = json.loads(entry.event.body)
    return event


def _begin(now: datetime) -> dict[str, Outcome | ExecutionSnapshot]:
    new = {name: said(name, "new", **FACTS) for name in (SALE, TRIAGE)}
    running = {name: said(name, "running", started_at=now, **FACTS) for name in (ODD, SLOW, GONE)}
    return {**new, **running}


def _middle(_now: datetime) -> dict[str, Outcome | ExecutionSnapshot]:
    running = said(TRIAGE, "running", started_at=BEGAN, **FACTS, nodes_started=1)
    return {SALE: said(SALE, "paused", started_at=BEGAN, **FACTS, nodes_started=2), TRIAGE: running}


def _end(now: datetime) -> dict[str, Outcome | ExecutionSnapshot]:
    ended = {"started_at": BEGAN, "finished_at": now + timedelta(seconds=0.75), "nodes_started": 3, **FACTS}
    node = FailedNode("2d3e0000-0000-4000-8000-000000000005", "Greeting", "upstream timeout after 30 s")
    success = said(SALE, "success", ai_tokens_used=512, goals=("Booked appointment",), **ended)
    failed = said(TRIAGE, "failed", ai_tokens_used=340, failed_nodes=(node,), error="Greeting failed", **ended)
    return {SALE: success, TRIAGE: failed, ODD: said(ODD, "escalated", started_at=BEGAN, **FACTS)}


def _sink_events() -> list[Event]:
    """Return what the others are told of a sink, with the problems that are opened and closed, and of dead letters."""
    events: list[Event] = []
    problem: Problem | None = None
    for after, type_ in enumerate(SINK_EVENTS):
        at = EPOCH + timedelta(minutes=5 * (after + 1))
        answer = {EventType.SINK_FAILING: "503", EventType.SINK_DISABLED: "410"}.get(type_, "204")
        data = {"sink": "ops", "answer": answer}
        told = EventFactory(Router({})).of_source(type_, "/sinks/ops", data, problem, after=after, at=at)
        events.append(json.loads(told.entry.event.body))
        problem = told.problem.problem if told.problem and told.problem.closed_at is None else None
    newest = {"type": EventType.EXECUTION_FAILED, "id": "c9dd6eb5-4b0a-5bd4-b6a4-1f8d8e2d6a01", "answer": "422"}
    remedy = "it does not take what is sent to it: correct url, or template"
    letters = {"sink": "ops", "count": 3, "newest": newest, "answer": "422", "remedy": remedy}
    at = EPOCH + timedelta(minutes=20)
    dead = EventFactory(Router({})).of_source(EventType.DELIVERY_DEAD, "/sinks/ops", letters, None, after=3, at=at)
    return [*events, json.loads(dead.entry.event.body)]


def _steady(event: Event) -> Event:
    """Write zeros for the random part of a UUIDv7, or the page would never be made the same twice."""
    id_ = UUID(event["id"])
    version_7 = 7
    zeroed = f"{str(id_)[:15]}000-8000-000000000000" if id_.version == version_7 else str(id_)
    return {**event, "id": zeroed}
