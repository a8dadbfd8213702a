"""The faults of simulated answers: their kinds, when they happen (by chance or in a time window), and their bytes."""

import asyncio
import math
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from random import Random

from aiohttp import web

JSON = "application/json"
_OVERSIZE_BYTES = 9 * 1024 * 1024
_PAGE = b"<!doctype html><html><head><title>Error</title></head><body><h1>Something went wrong</h1></body></html>"
_STRANGER = (
    b'{"id":"ffffffff-0000-4000-8000-000000000001","pipelineId":"ffffffff-0000-4000-8000-000000000000",'
    b'"pipelineVersionId":"00000000-0000-4000-8000-000000000001","status":"failed","error":"not yours"}'
)


class Fault(StrEnum):
    """A kind of fault; `misbehave` makes the faulty answer."""

    RATE_LIMITED = "rate_limited"
    RATE_LIMITED_SECONDS = "rate_limited_seconds"
    RATE_LIMITED_DATE = "rate_limited_date"
    SERVER_ERROR = "server_error"
    BAD_GATEWAY = "bad_gateway"
    UNAVAILABLE = "unavailable"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    BAD_REQUEST = "bad_request"
    REDIRECT = "redirect"
    HTML = "html"
    TRUNCATED = "truncated"
    WRONG_EXECUTION = "wrong_execution"
    SLOW = "slow"
    HANG = "hang"
    RESET = "reset"
    DROPPED = "dropped"
    OVERSIZE = "oversize"


_REFUSALS = {
    Fault.RATE_LIMITED: 429,
    Fault.SERVER_ERROR: 500,
    Fault.UNAUTHORIZED: 401,
    Fault.FORBIDDEN: 403,
    Fault.NOT_FOUND: 404,
    Fault.BAD_REQUEST: 400,
}


@dataclass(frozen=True, slots=True)
class Window:
    """A time window in which all answers have one fault, with `execution` only the answers about that execution.

    Times are seconds since the world began.
    """

    fault: Fault
    from_s: float = 0.0
    until_s: float = math.inf
    execution: str | None = None


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of a simulator. `odds` are probabilities per answer (sum at most 1) while no window applies."""

    odds: Mapping[Fault, float] = field(default_factory=dict)
    windows: tuple[Window, ...] = ()
    retry_after_s: int = 2
    slow_s: float = 3.0


class Dice:
    """The choice of a fault for each answer. Equal seeds choose equal faults."""

    def __init__(self, faults: Faults, *, seed: int) -> None:
        self.faults = faults
        self._random = Random(f"{seed}/dice")

    def throw(self, now_s: float, *, execution: str | None) -> Fault | None:
        """Return the fault of an answer at `now_s`, `None` for an answer without a fault."""
        for window in self.faults.windows:
            if window.execution in {None, execution} and window.from_s <= now_s < window.until_s:
                return window.fault
        left = self._random.random() if self.faults.odds else 0.0
        for fault, odds in self.faults.odds.items():
            left -= odds
            if left < 0:
                return fault
        return None


def refusal(code: int, *, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an error answer with a JSON body."""
    return web.json_response({"statusCode": code, "message": "refused"}, status=code, headers=headers)


async def misbehave(
    fault: Fault, request: web.BaseRequest, right: web.Response, *, faults: Faults, now: datetime
) -> web.StreamResponse:
    """Return an answer with a fault, made from the `right` answer.

    With `DROPPED` the first half of the answer has already been sent, and with `RESET` the connection is closed.
    """
    if fault in _REFUSALS:
        return refusal(_REFUSALS[fault])
    body = right.body
    assert isinstance(body, bytes)
    match fault:
        case Fault.RATE_LIMITED_SECONDS:
            return refusal(429, headers={"Retry-After": str(faults.retry_after_s)})
        case Fault.RATE_LIMITED_DATE:
            again_at = now + timedelta(seconds=faults.retry_after_s)
            return refusal(429, headers={"Retry-After": format_datetime(again_at, usegmt=True)})
        case Fault.UNAVAILABLE:
            return web.Response(status=503, headers={"Retry-After": str(faults.retry_after_s)})
        case Fault.REDIRECT:
            return web.Response(status=302, headers={"Location": "/elsewhere"})
        case Fault.BAD_GATEWAY | Fault.HTML:
            return web.Response(status=200 if fault is Fault.HTML else 502, body=_PAGE, content_type="text/html")
        case Fault.WRONG_EXECUTION:
            return web.Response(body=_STRANGER, content_type=JSON)
        case Fault.TRUNCATED:
            right.body = body[: len(body) // 2]
        case Fault.OVERSIZE:
            right.body = body + b" " * _OVERSIZE_BYTES
            right.enable_chunked_encoding()
        case Fault.HANG:
            await asyncio.Event().wait()
        case Fault.RESET:
            request.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.protocol.force_close()
        case Fault.DROPPED:
            dropped = web.StreamResponse(status=right.status)
            dropped.content_type = JSON
            dropped.content_length = len(body)
            await dropped.prepare(request)
            await dropped.write(body[: len(body) // 2])
            request.protocol.force_close()
            return dropped
        case _:
            await asyncio.sleep(faults.slow_s)
    return right
