"""Reports, made by the upkeep over the real store in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from lease_store import Alone
from postgres import PostgresServer
from stores import PIPELINE, change, claim, due, open_soon, sink_of
from structlog.testing import capture_logs
from supervision import Owners, maintenance_of
from virtual import EPOCH, FakeClock

from watcher.config.models import Settings
from watcher.daemon.maintenance import Maintenance
from watcher.domain.history import EndedExecution, ErrorKind
from watcher.domain.timestamps import Micros
from watcher.runtime.metrics import Metrics
from watcher.store.sql_store import SqlStore

HOUR_S, DAY_S = 3_600.0, 86_400.0
HOUR_US = 3_600_000_000
OTHER = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d30"


def settings(**reports: dict[str, Any]) -> Settings:
    return Settings.model_validate(
        {
            "accounts": {"default": {"api_key": "k"}},
            "watch": [
                {"pipeline": PIPELINE, "account": "default", "name": "Sales agent"},
                {"pipeline": OTHER, "account": "default"},
            ],
            "sinks": {"ops": {"type": "webhook", "url": "https://h", "events": ["account.*"]}},
            "reports": {name: {"sinks": ["ops"], **report} for name, report in reports.items()},
            "http": {"public_url": "https://watcher.example.com"},
        }
    )


DAILY = settings(daily={"at": "08:00"})
"""The clock of the tests begins on a Tuesday at 10:16:40 UTC."""


async def reports_of(store: SqlStore, clock: FakeClock) -> list[dict[str, Any]]:
    """Return the reports that the sink `ops` may be sent."""
    found = await due(await sink_of(store), now=clock.steady_us() + HOUR_US)
    return [each.content for each in found]


def set_clock(clock: FakeClock, moment: str) -> None:
    clock.elapsed_s = (datetime.fromisoformat(moment) - EPOCH).total_seconds()


async def test_a_new_report_says_nothing_of_before_and_is_sent_next(store: SqlStore, clock: FakeClock) -> None:
    metrics = Metrics()
    maintenance = maintenance_of(store, clock, Owners(DAILY), metrics=metrics)
    await maintenance.tick()
    set_clock(clock, "2026-11-25T07:59:59Z")
    await maintenance.tick()
    assert await reports_of(store, clock) == []
    clock.advance(1.0)
    with capture_logs() as logs:
        for _ in range(3):
            await maintenance.tick()
            clock.advance(5.0)
    (event,) = await reports_of(store, clock)
    head = (event["source"], event["time"], event["sequence"])
    assert head == ("/reports/daily", "2026-11-25T08:00:00.000Z", "0000000001")
    assert "subject" not in event
    assert [entry for entry in logs if entry["event"] == "report.recorded"] == [
        {"event": "report.recorded", "log_level": "info", "report": "daily", "sinks": 1}
    ]
    assert metrics.registry.get_sample_value("watcher_events_total", {"type": "watcher.report"}) == 1


async def test_a_report_is_made_up_for_within_12_hours_and_then_left_out(store: SqlStore, clock: FakeClock) -> None:
    maintenance = maintenance_of(store, clock, Owners(DAILY))
    await maintenance.tick()
    set_clock(clock, "2026-11-25T20:00:01Z")
    await maintenance.tick()
    assert await reports_of(store, clock) == []
    set_clock(clock, "2026-11-26T20:00:00Z")
    await maintenance.tick()
    assert [each["time"] for each in await reports_of(store, clock)] == ["2026-11-26T08:00:00.000Z"]


async def test_a_moment_before_that_of_the_last_report_is_not_due_again(store: SqlStore, clock: FakeClock) -> None:
    owners = Owners(DAILY)
    maintenance = maintenance_of(store, clock, owners)
    await maintenance.tick()
    set_clock(clock, "2026-11-25T09:00:00Z")
    await maintenance.tick()
    owners.applied = settings(daily={"at": "07:00"})
    await maintenance.tick()
    owners.applied = DAILY
    clock.wall_offset_s = -2 * HOUR_S  # somebody sets the clock back
    await maintenance.tick()
    clock.wall_offset_s = 0.0
    await maintenance.tick()
    assert len(await reports_of(store, clock)) == 1


async def test_a_clock_that_was_years_ahead_holds_no_report_back(store: SqlStore, clock: FakeClock) -> None:
    clock.wall_offset_s = 1_000 * DAY_S
    maintenance = maintenance_of(store, clock, Owners(DAILY))
    await maintenance.tick()
    clock.wall_offset_s = 0.0
    set_clock(clock, "2026-11-25T09:00:00Z")
    for _ in range(2):
        await maintenance.tick()
    assert [each["time"] for each in await reports_of(store, clock)] == ["2026-11-25T08:00:00.000Z"]


async def test_a_report_that_was_removed_and_returns_is_new(store: SqlStore, clock: FakeClock) -> None:
    owners = Owners(DAILY)
    maintenance = maintenance_of(store, clock, owners)
    await maintenance.tick()
    owners.applied = settings()
    await maintenance.tick()
    set_clock(clock, "2026-11-25T09:00:00Z")
    owners.applied = DAILY
    await maintenance.tick()
    assert await reports_of(store, clock) == []
    set_clock(clock, "2026-11-26T09:00:00Z")
    await maintenance.tick()
    assert len(await reports_of(store, clock)) == 1


async def test_who_does_not_own_the_upkeep_makes_no_report(store: SqlStore, clock: FakeClock) -> None:
    class Elsewhere(Alone):
        def may_own(self, _key: object) -> bool:
            return False

    await maintenance_of(store, clock, Owners(DAILY)).tick()
    set_clock(clock, "2026-11-25T09:00:00Z")
    await maintenance_of(store, clock, Owners(DAILY), ownership=Elsewhere(store, clock=clock)).tick()
    assert await reports_of(store, clock) == []


# Two replicas on PostgreSQL


Replicas = list[tuple[SqlStore, Maintenance]]


@pytest.fixture
async def replicas(postgres: PostgresServer, clock: FakeClock) -> AsyncIterator[Replicas]:
    with postgres.database() as url:
        stores = [await open_soon(url, clock=clock) for _ in range(2)]
        yield [(each, maintenance_of(each, clock, Owners(DAILY))) for each in stores]
        for each in stores:
            await each.close()


async def test_two_replicas_of_which_each_takes_the_upkeep_report_once(replicas: Replicas, clock: FakeClock) -> None:
    (store, one), (_, other) = replicas
    await one.tick()
    for day in (25, 26):
        set_clock(clock, f"2026-11-{day}T07:59:55Z")
        for _ in range(4):
            await asyncio.gather(one.tick(), other.tick())  # each takes the lease from the other, whenever that may be
            clock.advance(5.0)
    assert [each["sequence"] for each in await reports_of(store, clock)] == ["0000000001", "0000000002"]


@pytest.mark.parametrize("is_committed", [False, True])
async def test_a_kill_at_the_minute_leaves_the_report_to_another_replica_or_sent(
    replicas: Replicas, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, *, is_committed: bool
) -> None:
    class KilledError(BaseException):
        pass

    (store, one), (_, other) = replicas
    await one.tick()
    set_clock(clock, "2026-11-25T08:00:00Z")
    write: Callable[..., Any] = store.write

    async def die(work: Any, **how: Any) -> Any:
        if "record_report" in work.__qualname__:
            if is_committed:
                await write(work, **how)
            raise KilledError
        return await write(work, **how)

    monkeypatch.setattr(store, "write", die)
    with pytest.raises(KilledError):
        await one.tick()
    for _ in range(2):
        await other.tick()
    assert len(await reports_of(store, clock)) == 1


# What it says


async def fill(store: SqlStore, clock: FakeClock) -> None:
    """Count 40 executions that ended within the last day, of which ten failed, and 50 the day before."""
    account, now = await claim(store, "account", "default"), clock.steady_us()
    for number in range(90):
        failed, ended_at = number < 10, Micros(now - (30 if number >= 40 else 2) * HOUR_US)
        error = ErrorKind(bytes(16), "Greeting", "upstream timeout") if failed else None
        duration_s = None if failed else 4.0
        status = "failed" if failed else "success"
        ended = EndedExecution(ended_at, ended_at, status, 100, duration_s, error)
        ending = change(account, number, sinks=(), status=status, end_seen_at=ended_at, ended_at=ended_at)
        await store.record(replace(ending, ended=ended))


async def test_a_report_covers_whole_hours_and_is_compared_with_before(store: SqlStore, clock: FakeClock) -> None:
    maintenance = maintenance_of(store, clock, Owners(settings(morning={"at": "11:00", "timezone": "Asia/Kolkata"})))
    set_clock(clock, "2026-11-26T03:00:00Z")
    await fill(store, clock)
    await maintenance.tick()
    set_clock(clock, "2026-11-26T05:30:00Z")
    await maintenance.tick()
    (event,) = await reports_of(store, clock)
    report = event["data"]["report"]
    head = ("morning", "Asia/Kolkata", "https://watcher.example.com")
    assert (report["name"], report["timezone"], report["link"]) == head
    assert (report["from"], report["until"]) == ("2026-11-25T05:00:00.000Z", "2026-11-26T05:00:00.000Z")
    assert (report["lookCount"], report["wellCount"]) == (2, 0)  # nobody knows how the second one is
    worst = report["pipelines"][0]
    assert (worst["name"], worst["ended"], worst["failed"], worst["tokens"]) == ("Sales agent", 40, 10, 4_000)
    assert (worst["successRate"], worst["successRateBefore"], worst["medianSeconds"]) == (0.75, 1.0, 3.98)
    assert worst["error"] == {"node": "Greeting", "text": "upstream timeout", "count": 10}
    assert report["total"]["ended"] == 40
    assert report["errors"] == [{"pipeline": "Sales agent", **worst["error"]}]


async def test_a_report_with_a_match_is_of_its_pipelines_alone(store: SqlStore, clock: FakeClock) -> None:
    match = {"pipelines": [OTHER]}
    both = settings(all={"at": "05:00"}, other={"at": "05:00", "match": match})
    maintenance = maintenance_of(store, clock, Owners(both))
    set_clock(clock, "2026-11-26T03:00:00Z")
    await fill(store, clock)
    await maintenance.tick()
    set_clock(clock, "2026-11-26T05:30:00Z")
    await maintenance.tick()
    made = {event["source"]: event["data"]["report"] for event in await reports_of(store, clock)}
    assert len(made["/reports/all"]["pipelines"]) == 2
    (only,) = made["/reports/other"]["pipelines"]
    assert (only["id"], made["/reports/other"]["total"]["ended"]) == (OTHER, 0)
    assert made["/reports/other"]["link"] == f"https://watcher.example.com/executions?pipeline={OTHER}"
