"""A status that the API adds: two files of the program say it, and it is recorded and shown like the others."""

import asyncio
import json
import shutil
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from e2e.programme import Board, begin, outcome_of, page
from virtual import PIPELINE

import watcher
from watcher.domain.envelope import timestamp

TYPES = '    EXECUTION_WAITING = "execution.waiting"\n    EXECUTION_CANCELLED = "execution.cancelled"\n'
ROWS = """    _T.EXECUTION_WAITING: EventKind("{who} waits", is_status=True, to_chats=False, sign=("w", "")),
    _T.EXECUTION_CANCELLED: EventKind("{who} was cancelled", is_status=True),
"""
MORE = {
    "execution.py": (
        ('    FAILED = "failed"\n', '    FAILED = "failed"\n    WAITING = "waiting"\n    CANCELLED = "cancelled"\n'),
        ("    UNRECOGNIZED: EndLabel", '    Status.CANCELLED: EndLabel("x", "cancelled"),\n    UNRECOGNIZED: EndLabel'),
    ),
    "event.py": (
        (
            '    EXECUTION_FAILED = "execution.failed"\n',
            TYPES + '    EXECUTION_FAILED = "execution.failed"\n',
        ),
        (
            "    _T.EXECUTION_FAILED: EventKind",
            ROWS + "    _T.EXECUTION_FAILED: EventKind",
        ),
    ),
}
"""What is replaced in two files of the program, by what."""

CANCELLED, WAITING = (f"9a1b0000-0000-4000-8000-{number:012d}" for number in (1, 2))
STATUSES = {CANCELLED: ("running", "waiting", "cancelled"), WAITING: ("running", "waiting", "waiting")}


class Api:
    """An API with two executions, each in the status of a `step`."""

    def __init__(self) -> None:
        self.step = 0
        self.began_at = timestamp(datetime.now(UTC))

    def execution(self, id_: str) -> dict[str, Any]:
        status = STATUSES[id_][self.step]
        finished_at = self.began_at if status == "cancelled" else None
        return {"id": id_, "status": status, "startedAt": self.began_at, "finishedAt": finished_at}

    async def answer(self, request: web.BaseRequest) -> web.Response:
        if (id_ := request.path.rpartition("/")[2]) in STATUSES:
            return web.json_response(self.execution(id_))
        return web.json_response({"data": [*map(self.execution, STATUSES)], "total": len(STATUSES)})


def add_statuses(folder: Path) -> None:
    shutil.copytree(Path(watcher.__file__).parent, folder / "watcher", ignore=shutil.ignore_patterns("__pycache__"))
    for name, changes in MORE.items():
        file = folder / "watcher" / "domain" / name
        for old, new in changes:
            source = file.read_text()
            assert old in source
            file.write_text(source.replace(old, new, 1))


@pytest.mark.ci
async def test_a_status_that_two_files_name_is_watched_recorded_and_shown(tmp_path: Path) -> None:
    api, board = Api(), Board()
    runner = web.ServerRunner(web.Server(api.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    document = {
        "accounts": {"default": {"api_key": "k", "base_url": f"http://127.0.0.1:{runner.addresses[0][1]}"}},
        "watch": [{"pipeline": PIPELINE, "name": "Sales agent", "overdue_after": {"waiting": "1h"}}],
        "sinks": {"console": {"type": "stdout"}},
        "http": {"listen": "127.0.0.1:0"},
    }
    config = tmp_path / "watcher.yaml"
    config.write_text(json.dumps(document))
    refused = await outcome_of("check", folder=tmp_path)
    assert (refused.code, "waiting" in refused.stderr) == (2, True), refused

    config.write_text(json.dumps({**document, "watch": [{"pipeline": PIPELINE}]}))
    life = await begin("run", folder=tmp_path, board=board)  # its store has no column for the new status
    await life.started()
    await life.stop()
    await life.clear_away()

    add_statuses(tmp_path)
    config.write_text(json.dumps(document))
    life = await begin("run", folder=tmp_path, board=board)
    try:
        url = await life.started()
        for api.step, type_ in enumerate(("running", "waiting", "cancelled")):
            await life.until(partial(life.events, f"execution.{type_}"), what=f"one was {type_}")
        environ = {"WATCHER_URL": url}

        async def ask(*words: str) -> str:
            return (await outcome_of(*words, folder=tmp_path, environ=environ)).stdout

        async with asyncio.timeout(60):
            while not (status := json.loads(await ask("status", "--json")))["pipelines"][0].get("ends"):
                await asyncio.sleep(0.5)  # snapshots are written every few seconds
        history, table = json.loads(await ask("history", "Sales agent", "--json")), await ask("history", "Sales agent")
        pages = [(await page(url + path))[1] for path in ("/", f"/pipelines/default/{PIPELINE}", "/metrics")]
    finally:
        await life.clear_away()
        await runner.cleanup()
    assert (status["open"]["waiting"], status["pipelines"][0]["ends"]) == (1, ["cancelled"])
    assert history["total"]["ended"] == {"success": 0, "failed": 0, "cancelled": 1, "unrecognized": 0}
    assert "ended.cancelled" in table.splitlines()[0]
    assert "w</i> waiting" in pages[0]
    assert "1 cancelled" in pages[1]
    assert (
        'watcher_executions_ended_total{account="default",pipeline="' + PIPELINE + '",status="cancelled"} 1' in pages[2]
    )
