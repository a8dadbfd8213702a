"""The fake Clerk Chat API on a real socket: routes, keys, the rate limit, faults, and the request log of it all."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import NamedTuple, Self

from aiohttp import web
from pydantic import TypeAdapter

from watcher.clerk.simulator.fault_responses import JSON, FaultContext, misbehave, refusal
from watcher.clerk.simulator.faults import Dice, Fault, Faults
from watcher.clerk.simulator.lifecycles import Lifecycle, StatusPhase
from watcher.clerk.simulator.request_log import LoggedRequest, RequestLog
from watcher.clerk.simulator.responses import PAGE_LIMIT, JsonObject, PageRequest, ResponseCache, encode, full, listing
from watcher.clerk.simulator.token_bucket import Bucket
from watcher.clerk.simulator.world import SimExecution, SimPipeline, World

SIM_KEY = "sim-key"
READABLE_BYTES = 8 * 1024 * 1024
"""A larger answer is not one (SPEC 4)."""

_CONTROL = "/_sim/"
"""What a test in another process may read and change. It is not behind the API key: a simulator listens on loopback
and holds nothing real."""
_FAULTS = TypeAdapter(Faults)
_SILENT = frozenset({Fault.RESET, Fault.HANG})
_HARMLESS = frozenset({None, Fault.SLOW, Fault.DRIP})
_STRANGER = SimExecution(
    pipeline=SimPipeline(id="ffffffff-0000-4000-8000-000000000000", name="A stranger"),
    lifecycle=Lifecycle(
        execution="ffffffff-0000-4000-8000-000000000001", phases=(StatusPhase("failed", 0.0),), error="not yours"
    ),
)


class Answer(NamedTuple):
    """What the API says when nothing goes wrong. `answered` is the status of the one asked for, `rows` a page's."""

    code: int
    body: bytes
    answered: str | None = None
    rows: Mapping[str, str] | None = None


class Simulator:
    """Serves a world while it is entered; `faults` may be set at any time."""

    def __init__(
        self,
        world: World,
        *,
        faults: Faults | None = None,
        rate_limit: float | None = None,
        api_keys: Sequence[str] = (SIM_KEY,),
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Prepare to listen; port 0 is any free one. `rate_limit` is per second and key."""
        self.world = world
        self.request_log = RequestLog()
        self.base_url = ""
        self._seed = seed
        self._dice = Dice(faults or Faults(), seed=seed)
        self._book = ResponseCache(world)
        self._keys = {key: place for place, key in enumerate(api_keys)}
        now = world.clock.monotonic()
        self._buckets = [Bucket(rate_limit, now=now) for _ in api_keys] if rate_limit else []
        self._address = (host, port)
        self._listening = AsyncExitStack()

    @property
    def faults(self) -> Faults:
        """Return how it misbehaves now."""
        return self._dice.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._dice = Dice(faults, seed=self._seed)

    async def __aenter__(self) -> Self:
        """Listen. Raises `OSError` if the port is taken."""
        server = web.Server(self._serve, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, *self._address).start()
            self._listening = stack.pop_all()
        host, port = runner.addresses[0][:2]
        self.base_url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; whoever waits for an answer gets none."""
        await self._listening.aclose()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith(_CONTROL):
            return await self._control(request)
        entry = self.request_log.open(self._entry(request))
        try:
            response = await self._respond(request, entry=entry)
            entry.code = None if entry.fault in _SILENT else response.status
        finally:
            self.request_log.close(entry)
        return response

    def _entry(self, request: web.BaseRequest) -> LoggedRequest:
        entry = LoggedRequest(
            at=self.world.clock.monotonic(),
            key=self._keys.get(request.headers.get("apiKey", "")),
            endpoint="other",
        )
        match request.path.split("/"):
            case ["", "public", "pipelines", pipeline, "executions", execution]:
                entry.endpoint, entry.pipeline, entry.execution = "get", pipeline, execution
            case ["", "public", "pipelines", pipeline, "executions"]:
                entry.endpoint, entry.pipeline = "list", pipeline
        return entry

    async def _respond(self, request: web.BaseRequest, *, entry: LoggedRequest) -> web.StreamResponse:
        if refused := self._refusal(request, entry=entry):
            return refused
        now_s = self.world.now_s()
        answer = self._answer(request, entry=entry, now_s=now_s)
        entry.fault = self._dice.throw(now_s, execution=entry.execution, endpoint=entry.endpoint)
        if entry.fault is Fault.DRIP:
            entry.code = answer.code  # it is sent at once: a client that needs no more leaves
        response = await self._say(request, answer=answer, fault=entry.fault, now_s=now_s)
        if entry.fault in _HARMLESS and len(answer.body) <= READABLE_BYTES:
            entry.answered = answer.answered
            if answer.rows is not None:
                self.request_log.note_page(entry, rows=answer.rows)
        return response

    def _refusal(self, request: web.BaseRequest, *, entry: LoggedRequest) -> web.Response | None:
        if entry.key is None:
            return refusal(401)
        if request.method != "GET":
            return refusal(405)
        wait_s = self._buckets[entry.key].take(entry.at) if self._buckets else 0.0
        return refusal(429, headers={"Retry-After": str(math.ceil(wait_s))}) if wait_s else None

    def _answer(self, request: web.BaseRequest, *, entry: LoggedRequest, now_s: float) -> Answer:
        if entry.endpoint == "get" and entry.execution:
            return self._one(entry, now_s=now_s)
        if entry.endpoint == "list" and entry.pipeline and self.world.knows_pipeline(entry.pipeline):
            return self._page(request, pipeline=entry.pipeline)
        return _error(404)

    def _one(self, entry: LoggedRequest, *, now_s: float) -> Answer:
        execution = self.world.find(entry.execution or "", pipeline=entry.pipeline)
        if execution is None or now_s < execution.begins_s:
            return _error(404)
        entry.truth = execution.phase_at(now_s).status
        if not execution.is_visible(now_s):
            return _error(404)
        rendered = self._book.answer(execution, now_s=now_s)
        return Answer(200, rendered.body, rendered.status)

    def _page(self, request: web.BaseRequest, *, pipeline: str) -> Answer:
        page = _page_of(request.query)
        if page is None:
            return _error(400)
        shown = listing(pipeline, page=page, world=self.world, base_url=self.base_url, lie=self.faults.total)
        return Answer(200, encode(shown.document), rows=shown.statuses)

    async def _say(
        self, request: web.BaseRequest, *, answer: Answer, fault: Fault | None, now_s: float
    ) -> web.StreamResponse:
        if fault is None:
            return web.Response(status=answer.code, body=answer.body, content_type=JSON)
        context = FaultContext(
            request=request,
            code=answer.code,
            body=answer.body,
            stranger=encode(full(_STRANGER, world=self.world, now_s=now_s)),
            faults=self.faults,
            now=self.world.clock.now(),
        )
        return await misbehave(fault, context=context)

    async def _control(self, request: web.BaseRequest) -> web.Response:
        match request.method, request.path.removeprefix(_CONTROL):
            case "GET", "journal":
                lines = b"".join(json.dumps(line).encode() + b"\n" for line in self.request_log.lines())
                return web.Response(body=lines, content_type="application/jsonl")
            case "GET", "truth":
                return web.Response(body=encode(_truth(self.world)), content_type=JSON)
            case "POST", "faults":
                try:
                    self.faults = _FAULTS.validate_json(await request.read())
                except ValueError:
                    return refusal(422)
                return web.Response(status=204)
            case _:
                return refusal(404)


def _truth(world: World) -> JsonObject:
    """Return every execution's statuses so far; `at` counts seconds from `epoch`, and so does `now`."""
    now_s = world.now_s()
    executions = [
        {
            "pipeline": execution.pipeline.id,
            "execution": execution.id,
            "visible": execution.is_visible(now_s),
            "path": [{"status": moment.status, "at": moment.at_s} for moment in execution.path(now_s)],
        }
        for execution in world.executions()
    ]
    return {"epoch": world.epoch.isoformat(), "now": now_s, "executions": executions}


def _error(code: int) -> Answer:
    return Answer(code, encode({"statusCode": code, "message": "refused"}))


def _page_of(query: Mapping[str, str]) -> PageRequest | None:
    """Read `limit` (at most 50) and `page` (from 1); `None` if they cannot be."""
    try:
        page = PageRequest(number=int(query.get("page", "1")), limit=int(query.get("limit", str(PAGE_LIMIT))))
    except ValueError:
        return None
    return page if page.number >= 1 and 1 <= page.limit <= PAGE_LIMIT else None
