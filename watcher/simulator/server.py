"""The HTTP server of the simulated Clerk Chat API, with keys, faults and a log of all requests."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from aiohttp import web

from watcher.simulator.faults import JSON, Dice, Fault, Faults, misbehave, refusal
from watcher.simulator.responses import PAGE_LIMIT, JsonObject, encode, full, listing
from watcher.simulator.world import World

SIM_KEY = "sim-key"
KEPT_COUNT = 100_000
"""Maximum number of requests in the log, so that a simulator can run for days. Older requests are only counted."""

_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(slots=True)
class LoggedRequest:
    """A request in the log."""

    at: float
    """Time of the request (monotonic)."""
    key: int | None
    """Index of the API key among the valid keys, `None` for an invalid key."""
    endpoint: str
    pipeline: str | None = None
    execution: str | None = None
    code: int | None = None
    """Status code of the answer, `None` without an answer."""
    fault: Fault | None = None
    answered: str | None = None
    """The execution's status in the answer, `None` if the answer shows no status."""
    rows: Mapping[str, str] | None = None
    """The statuses on the page, by execution, `None` if the answer is no page that can be read."""


class RequestLog:
    """The log of the latest requests, oldest first, with counts of all requests. It holds no API key."""

    def __init__(self, *, kept_count: int = KEPT_COUNT) -> None:
        self.entries: deque[LoggedRequest] = deque(maxlen=kept_count)
        self.served_count = 0
        self._troubles: Counter[str] = Counter()

    def open(self, entry: LoggedRequest) -> None:
        """Add a request to the log. The caller fills in the answer later."""
        self.entries.append(entry)
        self.served_count += 1

    def close(self, entry: LoggedRequest) -> None:
        """Count a request that had trouble: a status code of 300 or more, or else a fault."""
        code = entry.code or 0
        if code >= 300:
            self._troubles["5xx" if code >= 500 else str(code)] += 1
        elif entry.fault is not None:
            self._troubles[entry.fault.value] += 1

    def summary(self) -> str:
        """Return one line for people: the number of requests, and the number of each kind of trouble."""
        troubles = " ".join(f"{name}{_TIMES}{count}" for name, count in sorted(self._troubles.items()))
        return f"served {self.served_count} · {troubles}".rstrip(" ·")


class Simulator:
    """The HTTP server of a world, as a context manager. `dice.faults` may be changed at any time."""

    def __init__(
        self,
        world: World,
        *,
        faults: Faults | None = None,
        api_keys: Sequence[str] = (SIM_KEY,),
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.world = world
        self.request_log = RequestLog()
        self.base_url = ""
        self.dice = Dice(faults or Faults(), seed=0)
        self._keys = {key: place for place, key in enumerate(api_keys)}
        self._address = (host, port)

    async def __aenter__(self) -> Self:
        """Start to listen. Raises `OSError` if the port is in use."""
        server = web.Server(self._serve, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._address).start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the server. Requests in progress get no answer."""
        await self._runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        key = self._keys.get(request.headers.get("apiKey", ""))
        entry = LoggedRequest(self.world.clock.monotonic(), key, endpoint="other")
        match request.path.split("/"):
            case ["", "public", "pipelines", pipeline, "executions", execution]:
                entry.endpoint, entry.pipeline, entry.execution = "get", pipeline, execution
            case ["", "public", "pipelines", pipeline, "executions"]:
                entry.endpoint, entry.pipeline = "list", pipeline
        self.request_log.open(entry)
        try:
            response = await self._respond(request, entry=entry)
            entry.code = None if entry.fault in {Fault.RESET, Fault.HANG} else response.status
        finally:
            self.request_log.close(entry)
        return response

    async def _respond(self, request: web.BaseRequest, *, entry: LoggedRequest) -> web.StreamResponse:
        if entry.key is None or request.method != "GET":
            return refusal(401 if entry.key is None else 405)
        now_s = self.world.now_s()
        right = self._answer(request, entry=entry, now_s=now_s)
        entry.fault = self.dice.throw(now_s, execution=entry.execution)
        if entry.fault is None:
            return right
        if entry.fault is not Fault.SLOW:
            entry.answered = entry.rows = None
        return await misbehave(entry.fault, request, right, faults=self.dice.faults, now=self.world.clock.now())

    def _answer(self, request: web.BaseRequest, *, entry: LoggedRequest, now_s: float) -> web.Response:
        """Return the answer without a fault; write the statuses that it shows into `entry`."""
        if entry.endpoint == "list" and entry.pipeline and entry.pipeline in self.world.pipelines:
            query = request.query
            try:
                number, limit = int(query.get("page", "1")), int(query.get("limit", str(PAGE_LIMIT)))
            except ValueError:
                number = limit = 0
            if number < 1 or not 1 <= limit <= PAGE_LIMIT:
                return refusal(400)
            page, entry.rows = listing(
                entry.pipeline, number=number, limit=limit, world=self.world, base_url=self.base_url
            )
            return _success(page)
        execution = self.world.find(entry.execution or "", pipeline=entry.pipeline)
        if execution is None or not execution.is_visible(now_s):
            return refusal(404)
        entry.answered = execution.phase_at(now_s).status
        return _success(full(execution, world=self.world, now_s=now_s))


def _success(document: JsonObject) -> web.Response:
    return web.Response(body=encode(document), content_type=JSON)
