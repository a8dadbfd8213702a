"""The history of a pipeline, as the API answers it."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from console_rig import NAMED, Desk, a_desk
from history_rig import MINUTE_US, NOW, PATH, be_well, count, ended, know_from, open_problem, with_history
from sample_events import PIPELINE
from stores import DAY_US, START_US

from watcher.domain.history import HOUR_US


@pytest.fixture
async def desk(desk: Desk) -> Desk:
    return await with_history(desk)


async def history(desk: Desk, span: str = "") -> Any:
    return await desk.found(f"{PATH}/history{span and '?span='}{span}")


async def test_ends_are_counted_by_the_hour_the_running_one_last(desk: Desk) -> None:
    at = NOW - NOW % HOUR_US
    await count(
        desk,
        ended(at + MINUTE_US, duration_s=8.0, tokens=500),
        ended(at + MINUTE_US, "failed"),
        ended(at - HOUR_US + MINUTE_US, "unrecognized"),
        ended(at - 24 * HOUR_US),  # longer ago
    )
    found = await history(desk)
    assert (found["account"], found["pipeline"]) == ("default", {"id": PIPELINE, "name": "Sales agent"})
    assert (found["from"], found["until"]) == ("2026-11-23T10:00:00Z", "2026-11-24T10:00:00Z")
    assert len(found["periods"]) == 24
    *_, last, running = found["periods"]
    assert (running["from"], running["until"]) == ("2026-11-24T09:00:00Z", "2026-11-24T10:00:00Z")
    assert (running["known"], running["started"], running["tokens"]) == (True, 2, 500)
    assert running["ended"] == {"success": 1, "failed": 1, "unrecognized": 0}
    assert running["medianSeconds"] == running["p95Seconds"] == pytest.approx(8.0, rel=0.05)
    assert (last["ended"]["unrecognized"], "medianSeconds" in last) == (1, False)
    assert found["total"]["ended"] == {"success": 1, "failed": 1, "unrecognized": 1}
    assert (found["total"]["from"], found["total"]["until"]) == (found["from"], found["until"])


@pytest.mark.parametrize(
    ("span", "number", "first"),
    [
        ("1h", 1, "2026-11-24T09:00:00Z"),
        ("90m", 2, "2026-11-24T08:00:00Z"),
        ("7d", 168, "2026-11-17T10:00:00Z"),
        ("8d", 8, "2026-11-17T00:00:00Z"),
        ("90d", 90, "2026-08-27T00:00:00Z"),
    ],
)
async def test_a_span_over_a_week_is_by_the_day(desk: Desk, span: str, number: int, first: str) -> None:
    found = await history(desk, span)
    assert (len(found["periods"]), found["from"]) == (number, first)


@pytest.mark.parametrize("span", ["59m", "91d", "yesterday", "0s"])
async def test_a_span_that_cannot_be_used_is_refused_in_words(desk: Desk, span: str) -> None:
    status, body = await desk.ask(f"{PATH}/history?span={span}")
    assert (status, body["detail"].startswith("span: ")) == (422, True)


@pytest.mark.parametrize("name", ["default/9a1b0000-0000-4000-8000-000000000001", "other/" + PIPELINE, "default/x"])
async def test_an_unknown_pipeline_is_not_found(desk: Desk, name: str) -> None:
    assert (await desk.ask(f"/pipelines/{name}/history"))[0] == 404


async def test_the_span_before_is_there_only_where_all_of_it_is_known(desk: Desk) -> None:
    await count(desk, ended(NOW - 30 * HOUR_US), ended(NOW - 30 * HOUR_US, "failed"), ended(NOW - HOUR_US))
    found = await history(desk)
    before = found["before"]
    assert not found["rateHasChanged"]  # chance explains one failure in two
    assert (before["from"], before["until"]) == ("2026-11-22T10:00:00Z", "2026-11-23T10:00:00Z")
    assert before["ended"] == {"success": 1, "failed": 1, "unrecognized": 0}
    await know_from(desk, START_US - 38 * HOUR_US)  # 2026-11-22T10:00:00Z
    assert "before" in await history(desk)
    await know_from(desk, START_US - 38 * HOUR_US + 1)
    assert "before" not in await history(desk)


async def test_what_was_before_the_watch_is_not_known_unless_something_was_counted(desk: Desk) -> None:
    await know_from(desk, NOW - 2 * HOUR_US)
    await count(desk, ended(NOW - 3 * HOUR_US), ended(NOW - 2 * HOUR_US))
    found = await history(desk)
    assert [each["known"] for each in found["periods"]] == [False] * 20 + [True] * 4  # what was counted before is shown
    assert (found["knownFrom"], found["total"]["ended"]["success"]) == ("2026-11-24T07:25:00Z", 2)
    await know_from(desk, None)  # the first scan is under way
    found = await history(desk)
    assert [each["known"] for each in found["periods"]] == [False] * 20 + [True] * 2 + [False] * 2
    assert ("knownFrom" in found, "before" in found) == (False, False)


async def test_what_retention_has_taken_is_not_known(tmp_path: Path) -> None:
    async with a_desk(tmp_path, store={"retention": "2d"}) as desk:
        desk.clock.us = NOW
        await be_well(desk)
        await know_from(desk, NOW - 29 * DAY_US)
        found = await history(desk, "30d")
        assert [each["known"] for each in found["periods"]] == [False] * 27 + [True] * 3
        assert ("before" in found, found["knownFrom"]) == (False, "2026-11-22T09:00:00Z")


async def test_since_a_pipeline_is_unknown_its_history_is_too(desk: Desk) -> None:
    desk.clock.us += 2 * HOUR_US  # its owner has written nothing since
    found = await history(desk)
    assert [each["known"] for each in found["periods"]] == [True] * 22 + [False] * 2


async def test_a_kind_of_error_is_new_for_a_day_where_the_history_was_known_before(desk: Desk) -> None:
    await count(desk, ended(NOW - 25 * HOUR_US, "failed"), ended(NOW - HOUR_US, "failed"))
    await count(desk, ended(NOW - 2 * HOUR_US, "failed", error="boom"))
    await count(desk, ended(NOW - HOUR_US, "failed"))
    known, new = (await history(desk))["errors"]
    assert (known["node"], known["text"], known["isNew"]) == ("Greeting", "timeout after 30 s", False)
    assert (new["text"], new["count"], new["lastAt"], new["isNew"]) == ("boom", 1, "2026-11-24T07:25:00Z", True)
    assert len(bytes.fromhex(new["fingerprint"])) == 16
    await know_from(desk, NOW - 23 * HOUR_US)
    assert [each["isNew"] for each in (await history(desk))["errors"]] == [False, False]


async def test_the_problems_of_the_span_are_there(desk: Desk) -> None:
    await open_problem(desk, 5, opened_at=NOW - 30 * HOUR_US, closed_at=NOW - 20 * HOUR_US)
    await open_problem(desk, 6, opened_at=NOW - 30 * HOUR_US, closed_at=NOW - 29 * HOUR_US)
    assert (await history(desk))["problems"] == [
        {
            "id": str(UUID(bytes=bytes([5] * 16))),
            "kind": "pipeline.failing",
            "openedAt": "2026-11-23T03:25:00Z",
            "closedAt": "2026-11-23T13:25:00Z",
        }
    ]


async def test_of_a_pipeline_of_which_only_some_executions_are_watched_it_is_known_from_their_first(desk: Desk) -> None:
    assert (await desk.found(f"/pipelines/default/{NAMED}/history"))["total"]["known"] is False
    await count(desk, ended(NOW - 2 * HOUR_US), name=f"default/{NAMED}")
    found = await desk.found(f"/pipelines/default/{NAMED}/history")
    assert [each["known"] for each in found["periods"]] == [False] * 21 + [True] * 3
    assert found["total"]["ended"]["success"] == 1
    await count(desk, ended(NOW - 30 * HOUR_US), name=f"default/{NAMED}")
    found = await desk.found(f"/pipelines/default/{NAMED}/history")
    assert all(each["known"] for each in found["periods"])
    assert found["knownFrom"] == "2026-11-23T03:00:00Z"
