"""A webhook endpoint as strict as one can be: it checks signatures with the reference library and forgets nothing."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any, Self

from aiohttp import web
from standardwebhooks import Webhook

SECRET = "whsec_ZTJlIHRlc3RzIHNpZ24gd2l0aCB0aGlzIGtleSBvZiBvdXJz"
PATH = "/hooks/path-3c1f0b6e2d"
MEGABYTE = 1024 * 1024
SLOW_S = 1.0


class Answer(Enum):
    """What a receiver does with a delivery."""

    TAKE = "take"
    REFUSE = "refuse"
    REJECT = "reject"
    """It says that it will never take this body."""
    TAKE_AND_CUT = "take and cut"
    """It keeps the event, and the connection breaks before the answer."""
    SLOW = "slow"
    """It takes the event after `SLOW_S`."""
    HANG = "hang"
    DRIP = "drip"
    """It takes the event, and its answer has a body that comes byte by byte."""
    MEGABYTE = "megabyte"
    """It takes the event, and its answer has a body of a megabyte."""


_KEPT = frozenset({Answer.TAKE, Answer.TAKE_AND_CUT, Answer.SLOW, Answer.DRIP, Answer.MEGABYTE})
_CONFIRMED = _KEPT - {Answer.TAKE_AND_CUT}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that arrived: its raw body, its headers, what it was answered, and when (monotonic seconds).

    Of several `events` in one batch, `event` is the first.
    """

    at: float
    body: bytes
    headers: dict[str, str]
    answer: Answer
    events: list[dict[str, Any]] = field(repr=False)

    @property
    def event(self) -> dict[str, Any]:
        return self.events[0]

    @property
    def stream(self) -> tuple[str, str | None]:
        """What the event's sequence counts within."""
        return self.event["source"], self.event.get("subject")

    @property
    def sequence(self) -> int:
        return int(self.event["sequence"])

    @property
    def kept(self) -> bool:
        """Whether the receiver has the event."""
        return self.answer in _KEPT

    @property
    def confirmed(self) -> bool:
        """Whether the sender got that answer."""
        return self.answer in _CONFIRMED


def take(_: Attempt) -> Answer:
    """Take everything."""
    return Answer.TAKE


def refuse(_: Attempt) -> Answer:
    """Refuse everything."""
    return Answer.REFUSE


def refusing_some(dice: Random, *, taken: int = 8) -> Callable[[Attempt], Answer]:
    """Refuse two of so many and two: half of those before the event is kept, half after."""

    def choose(_: Attempt) -> Answer:
        return dice.choices((Answer.TAKE, Answer.REFUSE, Answer.TAKE_AND_CUT), weights=(taken, 1, 1))[0]

    return choose


class Receiver:
    """Serves while it is entered. `choose` decides on each attempt, and may be set at any time."""

    def __init__(self, notice: Callable[[], None], *, choose: Callable[[Attempt], Answer] = take) -> None:
        self.attempts: list[Attempt] = []
        self.subjects: defaultdict[str, set[str | None]] = defaultdict(set)  # of what it has, by the events' type
        self.forgeries: list[str] = []
        self.choose = choose
        self.port = 0
        self._notice = notice
        self._webhook = Webhook(SECRET)
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATH}"

    async def __aenter__(self) -> Self:
        """Listen, on the same port as before if it did."""
        self._runner = web.ServerRunner(web.Server(self._receive, handler_cancellation=True), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Refuse connections from now on."""
        if self._runner is not None:
            await self._runner.cleanup()

    def kept(self) -> list[bytes]:
        """Return the bodies of all events it has, repetitions included."""
        return [attempt.body for attempt in self.attempts if attempt.kept]

    def events(self, type_: str | None = None) -> list[dict[str, Any]]:
        """Return the events it has, each once, or those of one type."""
        once = {event["id"]: event for attempt in self.attempts if attempt.kept for event in attempt.events}
        return [event for event in once.values() if type_ in {None, event["type"]}]

    async def _receive(self, request: web.BaseRequest) -> web.StreamResponse:
        at, body = time.monotonic(), await request.read()
        headers = dict(request.headers)
        try:
            self._webhook.verify(body, headers, json_parse=False)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is not a good signature)
            self.forgeries.append(type(error).__name__)
        content = json.loads(body)
        events = content if isinstance(content, list) else [content]
        answer = self.choose(Attempt(at, body, headers, Answer.REFUSE, events))
        self.attempts.append(Attempt(at, body, headers, answer, events))
        if answer in _KEPT:
            for event in events:
                self.subjects[event["type"]].add(event.get("subject"))
        self._notice()
        return await _respond(request, answer=answer)


async def _respond(request: web.BaseRequest, *, answer: Answer) -> web.StreamResponse:
    match answer:
        case Answer.TAKE:
            return web.Response(status=204)
        case Answer.SLOW:
            await asyncio.sleep(SLOW_S)
            return web.Response(status=204)
        case Answer.REFUSE | Answer.REJECT:
            return web.Response(status=500 if answer is Answer.REFUSE else 422)
        case Answer.TAKE_AND_CUT:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        case Answer.HANG:
            await asyncio.get_running_loop().create_future()
            raise AssertionError("nobody answers this")
        case Answer.MEGABYTE:
            return web.Response(body=b"x" * MEGABYTE)
        case Answer.DRIP:
            return await _drip(request)


async def _drip(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b".")
        await asyncio.sleep(0.1)
