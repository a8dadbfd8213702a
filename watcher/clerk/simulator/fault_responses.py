"""How each fault looks on the wire. Decides nothing: it is given the fault and what the right answer was."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime

from aiohttp import web

from watcher.clerk.simulator.faults import Fault, Faults

JSON = "application/json"
STRANGER_PATH = "/elsewhere"
"""Where redirects lead; a client that follows shows in the request log."""

_OVERSIZE_BYTES = 9 * 1024 * 1024
_DRIPS = 16
_PAGE = b"<!doctype html><html><head><title>Error</title></head><body><h1>Something went wrong</h1></body></html>"
_LINGER_OFF = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class FaultContext:
    """A request, the right answer to it, and what a liar would say instead (`stranger`)."""

    request: web.BaseRequest
    code: int
    body: bytes
    stranger: bytes
    faults: Faults
    now: datetime


_CODES: Mapping[Fault, int] = {
    Fault.RATE_LIMITED: 429,
    Fault.RATE_LIMITED_SECONDS: 429,
    Fault.RATE_LIMITED_DATE: 429,
    Fault.SERVER_ERROR: 500,
    Fault.BAD_GATEWAY: 502,
    Fault.UNAVAILABLE: 503,
    Fault.GATEWAY_TIMEOUT: 504,
    Fault.UNAUTHORIZED: 401,
    Fault.FORBIDDEN: 403,
    Fault.NOT_FOUND: 404,
    Fault.BAD_REQUEST: 400,
    Fault.REDIRECT: 302,
    Fault.HTML: 200,
}
_PAGES = frozenset({Fault.BAD_GATEWAY, Fault.GATEWAY_TIMEOUT, Fault.HTML})
_EMPTY = frozenset({Fault.UNAVAILABLE, Fault.REDIRECT})


async def misbehave(fault: Fault, *, context: FaultContext) -> web.StreamResponse:
    """Answer with a fault. What was sent by the time this returns is all there will be of a broken answer."""
    if fault in _CODES:
        return _coded(fault, context=context)
    return await _BROKEN[fault](context)


def refusal(code: int, *, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an error as a JSON API would put it."""
    return web.json_response({"statusCode": code, "message": "refused"}, status=code, headers=headers)


def _coded(fault: Fault, *, context: FaultContext) -> web.Response:
    code, headers = _CODES[fault], _headers(fault, context=context)
    if fault in _PAGES:
        return web.Response(status=code, headers=headers, body=_PAGE, content_type="text/html")
    if fault in _EMPTY:
        return web.Response(status=code, headers=headers)
    return refusal(code, headers=headers)


def _headers(fault: Fault, *, context: FaultContext) -> dict[str, str]:
    wait_s = context.faults.retry_after_s
    match fault:
        case Fault.RATE_LIMITED_SECONDS | Fault.UNAVAILABLE:
            return {"Retry-After": str(wait_s)}
        case Fault.RATE_LIMITED_DATE:
            return {"Retry-After": format_datetime(context.now + timedelta(seconds=wait_s), usegmt=True)}
        case Fault.REDIRECT:
            return {"Location": STRANGER_PATH}
        case _:
            return {}


async def _truncated(context: FaultContext) -> web.StreamResponse:
    return web.Response(status=context.code, body=context.body[: len(context.body) // 2], content_type=JSON)


async def _wrong_execution(context: FaultContext) -> web.StreamResponse:
    return web.Response(body=context.stranger, content_type=JSON)


async def _slow(context: FaultContext) -> web.StreamResponse:
    await asyncio.sleep(context.faults.slow_s)
    return web.Response(status=context.code, body=context.body, content_type=JSON)


async def _drip(context: FaultContext) -> web.StreamResponse:
    response = await _begun(context)
    size = -(-len(context.body) // _DRIPS)
    for first in range(0, len(context.body), size):
        await asyncio.sleep(context.faults.slow_s / _DRIPS)
        await response.write(context.body[first : first + size])
    await response.write_eof()
    return response


async def _hang(_: FaultContext) -> web.StreamResponse:
    answer: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
    return await answer


async def _reset(context: FaultContext) -> web.StreamResponse:
    context.request.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
    context.request.protocol.force_close()
    return web.Response()


async def _dropped(context: FaultContext) -> web.StreamResponse:
    response = await _begun(context)
    await response.write(context.body[: len(context.body) // 2])
    context.request.protocol.force_close()
    return response


async def _oversize(context: FaultContext) -> web.StreamResponse:
    response = web.Response(status=context.code, body=_bloated(context.body), content_type=JSON)
    response.enable_chunked_encoding()
    return response


async def _bomb(context: FaultContext) -> web.StreamResponse:
    response = web.Response(status=context.code, body=_bloated(context.body), content_type=JSON)
    response.enable_compression(web.ContentCoding.deflate)
    return response


async def _begun(context: FaultContext) -> web.StreamResponse:
    response = web.StreamResponse(status=context.code)
    response.content_type = JSON
    response.content_length = len(context.body)
    await response.prepare(context.request)
    return response


def _bloated(body: bytes) -> bytes:
    return body + b" " * _OVERSIZE_BYTES


_BROKEN: Mapping[Fault, Callable[[FaultContext], Awaitable[web.StreamResponse]]] = {
    Fault.TRUNCATED: _truncated,
    Fault.WRONG_EXECUTION: _wrong_execution,
    Fault.SLOW: _slow,
    Fault.DRIP: _drip,
    Fault.HANG: _hang,
    Fault.RESET: _reset,
    Fault.DROPPED: _dropped,
    Fault.OVERSIZE: _oversize,
    Fault.BOMB: _bomb,
}
