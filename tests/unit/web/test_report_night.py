"""The report on a night of trouble: 46 pipelines, of which 25 had one outage that is over."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from console_rig import Desk, a_desk, entry
from sqlalchemy import insert
from stores import change, claim, due, from_us, settle

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import EventKey, EventType
from watcher.domain.history import EndedExecution, error_kind_of
from watcher.domain.problems import LatestFailure, Problem, ProblemChange
from watcher.domain.report import shorten_report
from watcher.domain.snapshots import AccountSnapshot, PipelineSnapshot, SinkSnapshot
from watcher.domain.timestamps import Micros, to_us
from watcher.sinks.alert import report_title
from watcher.sinks.report import report_lines
from watcher.store.changes import SourceChange
from watcher.store.sink_store import SinkStore
from watcher.store.sources import Source
from watcher.store.tables import snapshot

NAMES = {
    **{f"Agent {number:02}": "default" for number in range(1, 26)},
    **dict.fromkeys(("Flapper", "Spender", "Novelty", "Order triage", "Weak", "Old outage"), "default"),
    **{f"Well {number:02}": "default" for number in range(10)},
    **{f"Agent EU {number}": "eu" for number in range(5)},
}
IDS = {name: str(UUID(int=number + 1)) for number, name in enumerate(NAMES)}
SETTINGS = {
    "accounts": {name: {"api_key": f"secret-{name}"} for name in ("default", "eu")},
    "watch": [{"pipeline": IDS[name], "account": account, "name": name} for name, account in NAMES.items()],
    "sinks": {name: {"type": "webhook", "url": f"https://{name}.example.com"} for name in ("ops", "chat")},
    "silences": [],
}
LIMIT = 10**6


class Night:
    """Records what happens, each event at its time."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.store = desk, desk.store
        self._sequences = Counter[str]()
        self._count = 0

    async def record(
        self,
        at: str,
        type_: EventType,
        name: str,
        *,
        problem: Problem | None = None,
        closed_at: str | None = None,
        about: str = "pipeline",
        sinks: tuple[str, ...] = (),
        **data: Any,
    ) -> None:
        """Record an event, and what it does to a problem."""
        self.desk.clock.us = moment(at)
        lease = await claim(self.store, *(("account", NAMES[name]) if about == "pipeline" else (about, name)))
        source = _source(about, name)
        self._sequences[source] = sequence = self._sequences[source] + 1
        if about == "pipeline":
            data |= {"account": NAMES[name], "pipeline": {"id": IDS[name], "name": name}}
        told = entry(
            type_,
            number=sequence,
            sequence=sequence,
            data=data | {about: data.get(about, name)},
            source=source,
            sinks=sinks,
        )
        changes: tuple[ProblemChange, ...] = ()
        if problem is not None:
            problem = replace(problem, opening=EventKey(told.event.stream, problem.opening.sequence or sequence))
            closed = None if closed_at is None else from_us(moment(closed_at))
            changes = (ProblemChange(problem, closed, is_new=closed_at is None),)
        id_ = IDS[name] if about == "pipeline" else None
        await self.store.record(SourceChange(lease, sequence - 1, sequence, None, (told,), changes, pipeline=id_))

    async def trouble(
        self,
        name: str,
        since: str,
        until: str | None = None,
        *,
        error: str | None = None,
        count: int = 0,
        kind: EventType = EventType.PIPELINE_FAILING,
        ends: EventType = EventType.PIPELINE_RECOVERED,
        **how: Any,
    ) -> None:
        """Record a problem that opens, and closes if it is over."""
        self._count += 1
        latest = None if error is None else LatestFailure(moment(since), "an execution", "Greeting", error)
        opened = Problem(UUID(int=self._count), kind, from_us(moment(since)), EventKey(b"", 0), count, latest)
        await self.record(since, kind, name, problem=opened, **how)
        if until is not None:
            opening = EventKey(b"", self._sequences[_source(how.get("about", "pipeline"), name)])
            await self.record(until, ends, name, problem=replace(opened, opening=opening), closed_at=until, **how)

    async def end(self, name: str, at: str, success: int, failed: int, error: str = "") -> None:
        """Count executions that ended at one time."""
        lease, when = await claim(self.store, "account", NAMES[name]), moment(at)
        kind = error_kind_of("Greeting", error)
        for status, count in (("success", success), ("failed", failed)):
            for _ in range(count):
                self._count += 1
                ended = EndedExecution(
                    when, when, status, 10, None if status == "failed" else 4.0, kind if status == "failed" else None
                )
                known = change(lease, 1_000 + self._count, sinks=(), status=status, end_seen_at=when, ended_at=when)
                await self.store.record(replace(known, known=replace(known.known, pipeline=IDS[name]), ended=ended))


def _source(about: str, name: str) -> str:
    return f"/accounts/{NAMES[name]}/pipelines/{IDS[name]}" if about == "pipeline" else f"/{about}s/{name}"


def moment(text: str) -> Micros:
    """Return a time of the night: from noon on it is of the day before."""
    return to_us(datetime.fromisoformat(f"2026-11-{'24' if text < '12' else '23'}T{text}:00Z"))


@pytest.fixture
async def night(tmp_path: Path) -> AsyncIterator[Night]:
    async with a_desk(tmp_path, is_filled=False, **SETTINGS) as desk:
        yield Night(desk)


async def fill(night: Night) -> None:
    """Record the night."""
    outage = "LLM provider: 503"
    for number in range(1, 26):
        await night.trouble(f"Agent {number:02}", "14:48", "14:49", error=outage, count=4)
        await night.end(f"Agent {number:02}", "14:48", 6, 4, outage)
    for hour in ("22", "23", "01", "02", "05"):
        await night.trouble("Flapper", f"{hour}:10", f"{hour}:20", error=f"{hour} tools missing", count=3)
    await night.end("Flapper", "06:30", 3, 7, "no such tool")
    await night.end("Weak", "06:30", 6, 4, "no such calendar")
    await night.end("Old outage", "14:48", 6, 4, outage)
    await night.end("Well 01", "05:00", 20, 0)
    account: dict[str, Any] = {
        "about": "account",
        "reason": "unauthorized",
        "cause": "401",
        "ends": EventType.ACCOUNT_RECOVERED,
    }
    await night.trouble("eu", "03:12", kind=EventType.ACCOUNT_DEGRADED, **account)
    sink: dict[str, Any] = {"about": "sink", "answer": "503", "ends": EventType.SINK_RECOVERED}
    await night.trouble("ops", "04:00", kind=EventType.SINK_FAILING, **sink)
    await night.record("05:30", EventType.PIPELINE_OVERSPENDING, "Spender", percent=80)
    spent: dict[str, Any] = {"percent": 100, "tokensUsed": 2_104_310, "tokensPerDay": 2_000_000}
    await night.record("05:31", EventType.PIPELINE_OVERSPENDING, "Spender", **spent)
    error = {"node": "Booking", "text": "no such calendar", "fingerprint": "5e" * 16}
    await night.record("05:32", EventType.PIPELINE_NEW_ERROR, "Novelty", error=error, sinks=("ops",))
    for at in ("06:00", "06:01"):
        await night.record(at, EventType.DELIVERY_DEAD, "ops", about="sink", count=20, answer="422")
    for _ in range(12):
        await night.trouble("Order triage", "06:10", kind=EventType.EXECUTION_OVERDUE)
    await night.trouble("Flapper", "06:40", error="no such tool", count=41)
    ops = SinkStore(night.store, await claim(night.store, "sink", "ops"))
    for each in await due(ops, now=night.desk.clock.us):
        await settle(ops, each, state=DeliveryState.DEAD, answer="422")
    await claim(night.store, "sink", "chat")
    night.desk.clock.us = moment("08:00")
    ends = {name: "sf" * 5 if name in {"Weak", "Flapper"} else "f" * 10 + "s" * 20 for name in NAMES}
    eu = {IDS[name]: PipelineSnapshot() for name, account in NAMES.items() if account == "eu"}
    default = {IDS[name]: PipelineSnapshot(ends=ends[name]) for name, account in NAMES.items() if account == "default"}
    snapshots: dict[Source, AccountSnapshot | SinkSnapshot] = {
        Source("account", "default"): AccountSnapshot(1.0, 1.0, 1.0, default),
        Source("account", "eu"): AccountSnapshot(1.0, 1.0, 1.0, eu, known_at=moment("03:12")),
        Source("sink", "ops"): SinkSnapshot("503", None, None),
    }
    rows = [
        {
            "source_id": await night.store.number_of(source),
            "written_at": night.desk.clock.us,
            "body": json.dumps(asdict(body)).encode(),
        }
        for source, body in snapshots.items()
    ]
    await night.store.write(lambda connection: connection.execute(insert(snapshot), rows))


LINES = [
    "✕ Account eu: the API cannot be used: it refuses the key (401), since 03:12",
    "✕ Sink ops is failing (503): what is sent to it waits; watcher test-sink ops says what to do, since 04:00",
    "✕ Sink ops: 40 dead letters (422): correct url, or template, since 06:00",
    "✕ Flapper keeps failing, last at Greeting: no such tool, since 06:40",
    "! Order triage has been running for 4 m 5 s, limit 2 m (12 times), since 06:10",
    "? 5 pipelines: unknown, since 03:12",
    "✕ Weak: 60.0 % of 10 succeeded: no such calendar, since Mon 08:00",
    "✓ 25 pipelines: LLM provider: 503, Mon 14:48 to 14:49, over",
    "✓ Flapper keeps failing, last at Greeting (5 times): 05 tools missing, Mon 22:10 to 05:20, over",
    "! Spender used 100 % of its tokens for today (2,104,310 of 2,000,000), 05:31",
    "! Novelty failed with a new error at Greeting: upstream timeout after 30 s, 05:32",
    "✓ 38 are well",
    "All 46: 61.7 % of 300 succeeded; median 4.0 s, p95 4.0 s; 13 open problems; 3,000 tokens",
]
TITLE = "Clerk agents, Tue 24 Nov: 8 of 46, 1 account, 1 sink need a look"


async def test_a_report_says_what_is_not_over_then_what_happened_then_the_numbers(night: Night) -> None:
    await fill(night)
    report = await night.desk.found("/report") | {"timezone": "UTC"}
    assert report_title(report) == TITLE
    assert report_lines(report, limit=LIMIT) == LINES
    # An event has fewer pipelines, and says the same.
    short = shorten_report(report)
    assert report_lines(short, limit=LIMIT) == report_lines(report, limit=LIMIT)
    assert len(json.dumps(short)) < 15 * 1024


async def test_what_was_over_before_the_span_or_is_no_longer_watched_is_not_told(night: Night) -> None:
    await fill(night)
    night.desk.settings = night.desk.settings.model_copy(update={"watch": night.desk.settings.watch[25:]})
    night.desk.clock.us += 1_000_000
    report = await night.desk.found("/report?last=1h") | {"timezone": "UTC"}
    told = report_lines(report, limit=LIMIT)
    lasting = [line for line in LINES[:6] if "dead letters" not in line]
    assert told == [*lasting, "✓ 14 are well", "All 21: none ended; 13 open problems; 0 tokens"]
