"""CSV has what the API has: its columns, its filters, its figures, and nothing that a spreadsheet would evaluate."""

import csv
import io
import json
from typing import Any

import pytest
from aiohttp import ClientError
from console_rig import PATH, Desk, a_night, with_history
from sample_events import PIPELINE, execution_id
from stores import START_US

from watcher.domain.errors import StoreError
from watcher.web import csv_answers
from watcher.web.models import ExecutionView

EXECUTIONS_HEAD = (
    "account,pipeline.id,pipeline.name,id,status,since,endedAt,endSeenAt,lost,overdue,unknown,unknownSince,startedAt,"
    "finishedAt,durationSeconds,error,node,labels,link"
)


async def get(desk: Desk, path: str) -> list[dict[str, str]]:
    """Return the rows of an answer in CSV, by the names of their columns."""
    async with desk.session.get(f"/api/v1{path}") as response:
        content = await response.read()
        assert (response.status, response.headers["Content-Type"]) == (200, "text/csv; charset=utf-8"), content
        return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")))


@pytest.mark.parametrize("query", ["", "&status=failed", "&since=2h", "&q=Sales", "&q=77aa", "&label=team:ops"])
@pytest.mark.parametrize("rows_count", [1, 200])
async def test_executions_are_those_of_the_filter_over_all_pages(
    desk: Desk, query: str, rows_count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_answers, "_ROWS_COUNT", rows_count)
    rows = await get(desk, f"/executions?format=csv{query}")
    items = (await desk.found(f"/executions?limit=200{query}"))["items"]
    assert [row["id"] for row in rows] == [item["id"] for item in items]
    for row, item in zip(rows, items, strict=True):
        assert ",".join(row) == EXECUTIONS_HEAD
        assert (row["account"], row["pipeline.name"]) == (item["account"], item["pipeline"].get("name", ""))
        assert (row["status"], row["endedAt"]) == (item["status"], item.get("endedAt", ""))
        assert (row["overdue"], row["labels"]) == (str(item["overdue"]).lower(), "team:sales")


async def test_a_limit_and_a_position_hold(desk: Desk) -> None:
    first = await desk.found("/executions?limit=2")
    rows = await get(desk, "/executions?format=csv&limit=2")
    assert [row["id"] for row in rows] == [item["id"] for item in first["items"]]
    rest = await get(desk, f"/executions?format=csv&after={first['next']}")
    assert len(rest) == 3


@pytest.mark.parametrize("begins", ["=1+1", "+49", "-2", "@SUM(A1)", "\tx", "\rx"])
def test_a_text_is_never_a_formula(begins: str) -> None:
    view = ExecutionView.model_validate(
        {
            "account": "default",
            "pipeline": {"id": PIPELINE, "name": begins},
            "id": execution_id(1),
            "since": START_US,
            "error": f'{begins}, "quoted"\nand more ä',
            "labels": {begins: "x", "team": "sales"},
            "durationSeconds": 1.5,
        }
    )
    content = csv_answers._text(ExecutionView, [view], with_head=True).decode("utf-8")
    (row,) = csv.DictReader(io.StringIO(content, newline=""))
    assert row["pipeline.name"] == f"'{begins}"
    assert row["error"] == f'\'{begins}, "quoted"\nand more ä'
    assert row["labels"] == f"'{begins}:x,team:sales"
    assert (row["durationSeconds"], row["status"], row["overdue"]) == ("1.5", "", "false")


async def test_the_sums_of_a_history_agree_with_those_of_the_api(desk: Desk) -> None:
    await a_night(await with_history(desk), days=3)
    for span in ("24h", "7d", "30d"):
        rows = await get(desk, f"{PATH}/history?format=csv&span={span}")
        found = await desk.found(f"{PATH}/history?span={span}")
        assert [row["from"] for row in rows] == [period["from"] for period in found["periods"]]
        total: dict[str, Any] = found["total"]
        for name in ("success", "failed", "unrecognized"):
            assert sum(int(row[f"ended.{name}"]) for row in rows) == total["ended"][name]
        for name in ("started", "tokens"):
            assert sum(int(row[name]) for row in rows) == total[name]
        assert [row["p95Seconds"] for row in rows] == [str(each.get("p95Seconds", "")) for each in found["periods"]]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/executions?format=xml", 422),
        ("/executions?format=csv&after=nonsense", 422),
        ("/events?format=csv", 422),
        (f"/pipelines/default/{execution_id(9)}/history?format=csv", 404),
    ],
)
async def test_a_refusal_is_the_same_as_without_csv(desk: Desk, path: str, status: int) -> None:
    async with desk.session.get(f"/api/v1{path}") as response:
        assert (response.status, response.content_type) == (status, "application/problem+json")
        assert "title" in json.loads(await response.read())


async def test_a_store_that_fails_after_the_first_piece_breaks_the_answer_off(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_answers, "_ROWS_COUNT", 1)
    await desk.console.status.get()
    real, count = desk.store.read, 0

    async def fail_later(work: Any) -> Any:
        nonlocal count
        count += 1
        if count > 2:
            raise StoreError("it went away")
        return await real(work)

    monkeypatch.setattr(desk.store, "read", fail_later)
    async with desk.session.get("/api/v1/executions?format=csv") as response:
        assert response.status == 200
        with pytest.raises(ClientError):
            await response.read()
