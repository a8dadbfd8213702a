import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from simulator_facts import answered_statuses, busiest_second

from watcher.simulator.faults import Dice, Fault, Faults, Window
from watcher.simulator.responses import encode, full
from watcher.simulator.server import LoggedRequest, RequestLog, Simulator
from watcher.simulator.world import Lifecycle, SimPipeline, StatusPhase, World

PIPELINE = SimPipeline(id="0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f", name="Sales agent")
KEY = {"apiKey": "sim-key"}
Travel = Callable[[float], None]


def path(execution: str = "e", *, pipeline: str = PIPELINE.id) -> str:
    return f"/public/pipelines/{pipeline}/executions/{execution}"


def listing_path(**query: object) -> str:
    return f"/public/pipelines/{PIPELINE.id}/executions?" + "&".join(f"{key}={value}" for key, value in query.items())


def add(world: World, execution: str = "e", *, begins_s: float = 0.0) -> None:
    lifecycle = Lifecycle(
        execution, phases=(StatusPhase("running", 0), StatusPhase("paused", 10), StatusPhase("success", 20))
    )
    world.add(lifecycle, pipeline=PIPELINE, begins_s=begins_s)


@asynccontextmanager
async def client_of(simulator: Simulator) -> AsyncIterator[aiohttp.ClientSession]:
    async with simulator, aiohttp.ClientSession(simulator.base_url, headers=KEY) as client:
        yield client


def always(fault: Fault, *, slow_s: float = 0.05) -> Faults:
    return Faults(odds={fault: 1.0}, slow_s=slow_s)


def only(simulator: Simulator) -> LoggedRequest:
    (entry,) = simulator.request_log.entries
    return entry


async def test_an_execution_is_answered_as_the_world_has_it(world: World) -> None:
    add(world)
    async with client_of(Simulator(world)) as client, client.get(path()) as response:
        execution = world.find("e")
        assert execution
        assert response.status == 200
        assert response.content_type == "application/json"
        assert await response.read() == encode(full(execution, world=world, now_s=0))


@pytest.mark.parametrize(
    ("code", "asked"),
    [
        *((400, listing_path(**query)) for query in ({"limit": 51}, {"limit": 0}, {"page": 0}, {"page": "two"})),
        *((404, asked) for asked in (path("f"), path(pipeline="p"), "/public/pipelines/p/executions")),
        *((404, asked) for asked in ("/public/pipelines", "/", path() + "/x")),
    ],
)
async def test_what_cannot_be_or_is_unknown_is_refused(world: World, code: int, asked: str) -> None:
    add(world)
    async with client_of(Simulator(world)) as client, client.get(asked) as response:
        assert (response.status, (await response.json())["statusCode"]) == (code, code)


@pytest.mark.parametrize("headers", [{}, {"apiKey": ""}, {"apiKey": "guess"}, {"Authorization": "sim-key"}])
async def test_a_wrong_key_is_unauthorized(world: World, headers: dict[str, str]) -> None:
    add(world)
    async with (
        Simulator(world) as simulator,
        aiohttp.ClientSession(headers=headers) as client,
        client.get(simulator.base_url + path()) as response,
    ):
        assert response.status == 401
    assert only(simulator).key is None


@pytest.mark.parametrize(
    ("fault", "code", "content_type", "retry_after"),
    [
        (Fault.RATE_LIMITED, 429, "application/json", None),
        (Fault.RATE_LIMITED_SECONDS, 429, "application/json", "2"),
        (Fault.SERVER_ERROR, 500, "application/json", None),
        (Fault.BAD_GATEWAY, 502, "text/html", None),
        (Fault.UNAVAILABLE, 503, "application/octet-stream", "2"),
        (Fault.UNAUTHORIZED, 401, "application/json", None),
        (Fault.FORBIDDEN, 403, "application/json", None),
        (Fault.NOT_FOUND, 404, "application/json", None),
        (Fault.BAD_REQUEST, 400, "application/json", None),
        (Fault.HTML, 200, "text/html", None),
    ],
)
async def test_a_coded_fault_is_seen(
    world: World, fault: Fault, code: int, content_type: str, retry_after: str | None
) -> None:
    add(world)
    simulator = Simulator(world, faults=always(fault))
    async with client_of(simulator) as client, client.get(path()) as response:
        assert (response.status, response.content_type) == (code, content_type)
        assert response.headers.get("Retry-After") == retry_after
    entry = only(simulator)
    assert (entry.code, entry.fault, entry.answered) == (code, fault, None)


async def test_a_client_that_follows_a_redirect_is_seen(world: World) -> None:
    simulator = Simulator(world, faults=Faults(windows=(Window(Fault.REDIRECT, execution="e"),)))
    async with client_of(simulator) as client:
        async with client.get(path(), allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (302, "/elsewhere")
        async with client.get(path()) as response:
            assert response.status == 404
    assert [entry.endpoint for entry in simulator.request_log.entries] == ["get", "get", "other"]


async def test_what_cannot_be_read_is_a_whole_answer_or_a_readable_lie(world: World) -> None:
    add(world)
    simulator = Simulator(world, faults=always(Fault.TRUNCATED))
    async with client_of(simulator) as client:
        async with client.get(path()) as response:
            with pytest.raises(json.JSONDecodeError):
                await response.json()
        simulator.dice.faults = always(Fault.WRONG_EXECUTION)
        async with client.get(path()) as response:
            document = await response.json()
    assert (response.status, document["id"] != "e", document["status"]) == (200, True, "failed")
    assert answered_statuses(simulator.request_log, "e") == []


async def test_a_hanging_request_does_not_hold_up_the_end(world: World) -> None:
    simulator = Simulator(world, faults=always(Fault.HANG))
    async with aiohttp.ClientSession(headers=KEY) as client:
        async with simulator:
            request = asyncio.ensure_future(client.get(simulator.base_url + path()))
            while not simulator.request_log.entries:
                await asyncio.sleep(0.01)
        with pytest.raises(aiohttp.ClientConnectionError):
            await request


async def test_a_reset_is_a_tcp_reset(world: World) -> None:
    async with Simulator(world, faults=always(Fault.RESET)) as simulator:
        host, port = simulator.base_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET {path()} HTTP/1.1\r\nHost: sim\r\napiKey: sim-key\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
    assert (only(simulator).code, only(simulator).fault) == (None, Fault.RESET)


async def test_a_dropped_answer_begins_well_and_an_oversize_one_has_no_length(world: World) -> None:
    add(world)
    async with client_of(Simulator(world, faults=always(Fault.DROPPED))) as client:
        response = await client.get(path())
        assert response.status == 200
        assert response.content_length == 3000
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    async with client_of(Simulator(world, faults=always(Fault.OVERSIZE))) as client, client.get(path()) as response:
        assert response.content_length is None
        assert len(await response.read()) > 8 * 1024 * 1024


async def test_the_request_log_knows_what_a_page_answered_if_it_could_be_read(world: World, travel: Travel) -> None:
    add(world)
    simulator = Simulator(world)
    async with client_of(simulator) as client:
        for now_s, faults in ((0, Faults()), (12, always(Fault.HTML)), (21, always(Fault.SLOW, slow_s=0.08))):
            travel(now_s)
            simulator.dice.faults, began_at = faults, time.monotonic()
            async with client.get(listing_path()):
                pass
    assert time.monotonic() - began_at >= 0.07
    assert [entry.rows for entry in simulator.request_log.entries] == [{"e": "running"}, None, {"e": "success"}]
    assert answered_statuses(simulator.request_log, "e") == ["running", "success"]


def test_faults_come_as_often_as_their_odds_but_in_a_window() -> None:
    dice = Dice(Faults(odds={Fault.RESET: 0.25, Fault.HTML: 0.25}), seed=7)
    thrown = [dice.throw(0.0, execution="e") for _ in range(4000)]
    assert thrown.count(Fault.RESET) == pytest.approx(1000, abs=150)
    assert thrown.count(Fault.HTML) == pytest.approx(1000, abs=150)
    assert thrown.count(None) == pytest.approx(2000, abs=200)
    dice = Dice(Faults(odds={Fault.HTML: 1.0}, windows=(Window(Fault.RESET, 10, 20),)), seed=7)
    thrown = [dice.throw(now_s, execution=None) for now_s in (9.9, 10, 19.9, 20)]
    assert thrown == [Fault.HTML, Fault.RESET, Fault.RESET, Fault.HTML]


TIMES = "\N{MULTIPLICATION SIGN}"


def written(*entries: LoggedRequest, kept_count: int = 100) -> RequestLog:
    request_log = RequestLog(kept_count=kept_count)
    for entry in entries:
        request_log.open(entry)
        request_log.close(entry)
    return request_log


def at(*times: float, key: int | None = 0) -> list[LoggedRequest]:
    return [LoggedRequest(at=each, key=key, endpoint="get") for each in times]


def test_the_summary_counts_by_trouble() -> None:
    entries = [LoggedRequest(at=0, key=0, endpoint="get", code=code) for code in (200, 429, 429, 500, 503, 401, 404)]
    entries.append(LoggedRequest(at=0, key=0, endpoint="get", fault=Fault.RESET))
    entries.append(LoggedRequest(at=0, key=0, endpoint="get", code=200, fault=Fault.HTML))
    expected = f"served 9 · 401{TIMES}1 404{TIMES}1 429{TIMES}2 5xx{TIMES}2 html{TIMES}1 reset{TIMES}1"
    assert written(*entries).summary() == expected


def test_old_entries_stay_counted_and_the_busiest_second_is_of_one_key() -> None:
    assert busiest_second(written(*at(0.0, 0.6, 0.9, 1.2, 1.5, 3.0))) == 4
    assert busiest_second(written(*at(0.0, 0.2), *at(0.1, key=1))) == 2
    request_log = written(*at(1.0, 2.0, 3.0), kept_count=2)
    assert [entry.at for entry in request_log.entries] == [2.0, 3.0]
    assert request_log.served_count == 3
