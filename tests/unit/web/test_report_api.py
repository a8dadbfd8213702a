"""Reports as whoever asks the API for one gets them."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from console_rig import NAMED, Desk, a_desk
from sample_events import PIPELINE
from stores import START_US, change, claim

from watcher.domain.history import HOUR_US, EndedExecution, ErrorKind
from watcher.domain.report import report_of
from watcher.domain.timestamps import Micros
from watcher.web import report as web_report


async def end(desk: Desk, *failed: bool, hours_ago: float = 0.0, first: int = 100) -> None:
    """Count executions that ended so long ago."""
    account, at = await claim(desk.store, "account", "default"), Micros(START_US - round(hours_ago * HOUR_US))
    for number, has_failed in enumerate(failed, first):
        status, error = ("failed", ErrorKind(bytes(16), "Greeting", "timeout")) if has_failed else ("success", None)
        ended = EndedExecution(at, at, status, 10, None if has_failed else 4.0, error)
        ending = change(account, number, sinks=(), status=status, end_seen_at=at, ended_at=at)
        await desk.store.record(replace(ending, ended=ended))


async def test_a_report_has_each_pipeline_as_the_pages_name_it_the_worst_first(desk: Desk) -> None:
    await end(desk, True, True, False)
    report = await desk.found("/report")
    sales, triage = report["pipelines"]
    assert (sales["account"], sales["id"], sales["name"], sales["state"]) == (
        "default",
        PIPELINE,
        "Sales agent",
        "overdue",
    )
    assert (sales["needsLook"], sales["openProblems"], sales["ended"], sales["failed"]) == (True, 1, 3, 2)
    assert sales["error"] == {"node": "Greeting", "text": "timeout", "count": 2}
    assert (triage["id"], triage["name"], triage["ended"]) == (NAMED, "Support triage", 0)
    assert report["total"]["ended"] == 3
    assert report["errors"] == [{"pipeline": "Sales agent", "node": "Greeting", "text": "timeout", "count": 2}]
    assert (report["lookCount"] + report["wellCount"], report["moreCount"]) == (2, 0)


async def test_a_report_is_of_the_last_24_hours_or_as_many_as_are_asked_for(desk: Desk) -> None:
    await end(desk, False, hours_ago=2)
    await end(desk, False, hours_ago=30, first=200)
    assert (await desk.found("/report"))["total"]["ended"] == 1
    week = await desk.found("/report?last=7d")
    assert (week["total"]["ended"], week["from"]) == (2, "2026-11-17T00:00:00Z")
    hour = await desk.found("/report?last=1h")
    assert (hour["total"]["ended"], hour["from"]) == (0, "2026-11-23T23:00:00Z")


async def test_the_event_loop_goes_on_while_a_report_is_computed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def compute(*given: Any) -> Any:
        threads.append(threading.current_thread())
        return report_of(*given)

    monkeypatch.setattr(web_report, "report_of", compute)
    await desk.found("/report")
    (its,) = threads
    assert its is not threading.current_thread()


async def test_the_rate_before_is_shown_if_it_differs_by_more_than_chance(desk: Desk) -> None:
    await end(desk, *[True] * 10, *[False] * 10)
    await end(desk, *[False] * 20, hours_ago=30, first=200)
    total = (await desk.found("/report"))["total"]
    assert (total["successRate"], total["successRateBefore"]) == (0.5, 1.0)
    assert "successRateBefore" not in (await desk.found("/report?last=90d"))["total"]


async def test_reports_are_made_one_at_a_time(desk: Desk) -> None:
    async with desk.console.reporting:
        second = asyncio.create_task(desk.ask("/report"))
        assert (await desk.ask("/status"))[0] == 200  # only reports wait
        assert not second.done()
    assert (await second)[0] == 200


@pytest.mark.parametrize("last", ["59m", "91d", "x", ""])
async def test_a_time_that_is_too_short_or_too_long_is_refused(desk: Desk, last: str) -> None:
    status, body = await desk.ask(f"/report?last={last}")
    assert status == 422
    assert body["detail"].startswith("last: ")


async def test_a_report_leads_to_the_pages_where_people_reach_them(tmp_path: Path) -> None:
    async with a_desk(tmp_path, http={"public_url": "https://watcher.example.com"}) as desk:
        assert (await desk.found("/report"))["link"] == "https://watcher.example.com"
