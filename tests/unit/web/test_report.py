"""Reports as the API answers them, and one on a night of trouble: 46 pipelines, 25 with one outage."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from console_rig import NAMED, Desk, a_desk, count, ended, entry
from sample_events import PIPELINE
from sqlalchemy import insert
from stores import START_US, claim, due, from_us, settle

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import EventKey, EventType
from watcher.domain.history import HOUR_US
from watcher.domain.problems import CLOSED_BY, LatestFailure, Problem, ProblemChange
from watcher.domain.report import report_of, shorten_report
from watcher.domain.snapshots import AccountSnapshot, PipelineSnapshot, SinkSnapshot
from watcher.domain.timestamps import Micros, to_us
from watcher.sinks.alert import report_title
from watcher.sinks.report import report_lines
from watcher.store.changes import SourceChange
from watcher.store.sink_store import SinkStore
from watcher.store.sources import Source
from watcher.store.tables import snapshot
from watcher.web import report as web_report

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


Change = Callable[[EventKey], ProblemChange]
Sinks = tuple[str, ...]


class Night:
    """Records what happens, each event at its time."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.store = desk, desk.store
        self._sequences = Counter[str]()
        self._count = 0

    async def record(
        self, at: str, type_: EventType, name: str, change: Change | None = None, *, sinks: Sinks = (), **data: Any
    ) -> EventKey:
        """Record an event of a pipeline, account or sink, and what it does to a problem; return where it is."""
        self.desk.clock.us = moment(at)
        about = type_.partition(".")[0].replace("execution", "pipeline").replace("delivery", "sink")
        lease = await claim(self.store, *(("account", NAMES[name]) if about == "pipeline" else (about, name)))
        source = f"/accounts/{NAMES[name]}/pipelines/{IDS[name]}" if about == "pipeline" else f"/{about}s/{name}"
        self._sequences[source] = sequence = self._sequences[source] + 1
        its = {"account": NAMES[name], "pipeline": {"id": IDS[name], "name": name}} if name in IDS else {about: name}
        told = entry(type_, number=sequence, sequence=sequence, data=data | its, source=source, sinks=sinks)
        key = EventKey(told.event.stream, sequence)
        changes = () if change is None else (change(key),)
        id_ = IDS.get(name)
        await self.store.record(SourceChange(lease, sequence - 1, sequence, None, (told,), changes, pipeline=id_))
        return key

    async def trouble(
        self,
        name: str,
        since: str,
        until: str | None = None,
        *,
        error: str | None = None,
        count: int = 0,
        kind: EventType = EventType.PIPELINE_FAILING,
        **data: Any,
    ) -> None:
        """Record a problem that opens, and closes if it is over."""
        self._count += 1
        latest = None if error is None else LatestFailure(moment(since), "an execution", "Greeting", error)
        opened = partial(
            Problem, UUID(int=self._count), kind, from_us(moment(since)), failed_count=count, latest=latest
        )
        opening = await self.record(since, kind, name, lambda key: ProblemChange(opened(key), is_new=True), **data)
        if until is not None:
            closed = ProblemChange(opened(opening), from_us(moment(until)))
            await self.record(until, CLOSED_BY[kind], name, lambda _: closed, **data)

    async def end(self, name: str, at: str, success: int, failed: int, error: str = "") -> None:
        """Count executions that ended at one time."""
        ends = [ended(moment(at), duration_s=4.0, tokens=10)] * success
        ends += [ended(moment(at), "failed", tokens=10, error=error)] * failed
        await count(self.desk, *ends, name=f"{NAMES[name]}/{IDS[name]}")


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
    await night.trouble("eu", "03:12", kind=EventType.ACCOUNT_DEGRADED, reason="unauthorized", cause="401")
    await night.trouble("ops", "04:00", kind=EventType.SINK_FAILING, answer="503")
    await night.record("05:30", EventType.PIPELINE_OVERSPENDING, "Spender", percent=80)
    spent: dict[str, Any] = {"percent": 100, "tokensUsed": 2_104_310, "tokensPerDay": 2_000_000}
    await night.record("05:31", EventType.PIPELINE_OVERSPENDING, "Spender", **spent)
    error = {"node": "Booking", "text": "no such calendar", "fingerprint": "5e" * 16}
    await night.record("05:32", EventType.PIPELINE_NEW_ERROR, "Novelty", error=error, sinks=("ops",))
    for at in ("06:00", "06:01"):
        await night.record(at, EventType.DELIVERY_DEAD, "ops", count=20, answer="422")
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
    rows = []
    for source, body in snapshots.items():
        number, text = await night.store.number_of(source), json.dumps(asdict(body)).encode()
        rows.append({"source_id": number, "written_at": night.desk.clock.us, "body": text})
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


# on any day


async def end(desk: Desk, *, success: int = 0, failed: int = 0, hours_ago: float = 0.0) -> None:
    """Count executions that ended so long ago."""
    at = START_US - round(hours_ago * HOUR_US)
    ends = [ended(at, duration_s=4.0)] * success + [ended(at, "failed", error="timeout")] * failed
    await count(desk, *ends)


async def test_a_report_has_each_pipeline_as_the_pages_name_it_the_worst_first(desk: Desk) -> None:
    await end(desk, success=1, failed=2)
    report = await desk.found("/report")
    sales, triage = report["pipelines"]
    names = ("account", "id", "name", "state")
    assert [sales[name] for name in names] == ["default", PIPELINE, "Sales agent", "overdue"]
    assert (sales["needsLook"], sales["openProblems"], sales["ended"], sales["failed"]) == (True, 1, 3, 2)
    assert sales["error"] == {"node": "Greeting", "text": "timeout", "count": 2}
    assert (triage["id"], triage["name"], triage["ended"]) == (NAMED, "Support triage", 0)
    assert report["total"]["ended"] == 3
    assert report["errors"] == [{"pipeline": "Sales agent", "node": "Greeting", "text": "timeout", "count": 2}]
    assert (report["lookCount"] + report["wellCount"], report["moreCount"]) == (2, 0)


async def test_a_report_is_of_the_last_24_hours_or_as_many_as_are_asked_for(desk: Desk) -> None:
    await end(desk, success=1, hours_ago=2)
    await end(desk, success=1, hours_ago=30)
    assert (await desk.found("/report"))["total"]["ended"] == 1
    week = await desk.found("/report?last=7d")
    assert (week["total"]["ended"], week["from"]) == (2, "2026-11-17T00:00:00Z")
    hour = await desk.found("/report?last=1h")
    assert (hour["total"]["ended"], hour["from"]) == (0, "2026-11-23T23:00:00Z")


async def test_a_report_names_the_silences_of_its_span(desk: Desk) -> None:
    def silenced(report: Any) -> list[tuple[Any, ...]]:
        lines = [each for each in report["happened"] if each["kind"] == "silenced"]
        return [(each["names"], each["error"], each["from"], each["until"]) for each in lines]

    names, until = ["Sales agent"], "2026-11-25T00:00:00Z"
    report = await desk.found("/report")
    assert silenced(report) == [(names, "silenced: shop closed", "2026-11-23T00:00:00Z", until)]
    assert report["happened"][-1]["kind"] == "silenced"
    assert "‖ Sales agent: silenced: shop closed, Mon 00:00 to Wed 00:00" in report_lines(report, limit=LIMIT)
    later = await desk.found("/report?last=1h")
    assert silenced(later) == [(names, "silenced: shop closed", later["from"], until)]
    made = {"match": {"accounts": ["default"]}, "until": "2026-11-24T02:00:00Z"}
    assert (await desk.ask("/silences", "POST", json=made))[0] == 201
    desk.clock.us += HOUR_US
    both = ["Sales agent", "Support triage"]
    assert (both, "silenced") in [line[:2] for line in silenced(await desk.found("/report"))]


async def test_the_rate_before_is_shown_if_it_differs_by_more_than_chance(desk: Desk) -> None:
    await end(desk, success=10, failed=10)
    await end(desk, success=20, hours_ago=30)
    total = (await desk.found("/report"))["total"]
    assert (total["successRate"], total["successRateBefore"]) == (0.5, 1.0)
    assert "successRateBefore" not in (await desk.found("/report?last=90d"))["total"]


async def test_reports_are_made_one_at_a_time_and_in_a_thread(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk.console.reporting:
        second = asyncio.create_task(desk.ask("/report"))
        assert (await desk.ask("/status"))[0] == 200  # only reports wait
        assert not second.done()
    assert (await second)[0] == 200
    threads: list[threading.Thread] = []

    def compute(*given: Any) -> Any:
        threads.append(threading.current_thread())
        return report_of(*given)

    monkeypatch.setattr(web_report, "report_of", compute)
    await desk.found("/report")
    (its,) = threads
    assert its is not threading.current_thread()


async def test_a_report_leads_to_the_pages_where_people_reach_them(tmp_path: Path) -> None:
    async with a_desk(tmp_path, http={"public_url": "https://watcher.example.com"}) as desk:
        assert (await desk.found("/report"))["link"] == "https://watcher.example.com"
