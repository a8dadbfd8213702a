"""Slack on a real socket, as far as a bot uses it: channels, messages, threads, buttons, its errors and its limits."""

import asyncio
import inspect
import json
import random
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from receivers_rules import check_slack, check_slack_blocks, shown_texts
from slack_sdk.web.async_client import AsyncWebClient

TOKEN = "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcBrzbqgy"
APP_TOKEN = "xapp-1-A012ABCDEF-1234567890123-0123456789abcdef"
TEAM = "T0123456789"
CHANNEL, OTHER_CHANNEL = "C0123456789", "C9876543210"

_KNOWN: dict[str, Callable[..., Any]] = {
    "chat.postMessage": AsyncWebClient.chat_postMessage,
    "chat.update": AsyncWebClient.chat_update,
    "auth.test": AsyncWebClient.auth_test,
    "apps.connections.open": AsyncWebClient.apps_connections_open,
}


@dataclass
class Message:
    """A message that is there, with how it looked before each update."""

    content: dict[str, Any]
    thread: str | None = None
    earlier: list[dict[str, Any]] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """Return what people read."""
        return list(shown_texts(self.content["blocks"])) if "blocks" in self.content else [self.content["text"]]


class FakeSlack:
    """One workspace. `says` are errors for the next calls, `down` is whether it answers 503.

    While it `hangs` it answers nothing. With `no_buttons` it refuses to open connections with that error or status.
    With `closes_at_once` it closes each right after hello.

    A press goes over one of the connections, and again over any of them if it is not confirmed within `again_s`.
    `answers` are texts that only one person saw.
    """

    def __init__(self) -> None:
        self.messages: dict[tuple[str, str], Message] = {}
        self.calls: list[str] = []
        self.says: deque[str | None] = deque()
        self.down = self.hangs = False
        self.members = {CHANNEL, OTHER_CHANNEL}
        self.archived: set[str] = set()
        self.no_buttons: str | int | None = None
        self.again_s = 3.0
        self.hello = "hello"
        self.closes_at_once = False
        self.answers: list[tuple[str, str]] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.opened_count = 0
        self.unconfirmed: dict[str, dict[str, Any]] = {}
        self.confirmed: list[str] = []
        self.sent_counts: Counter[str] = Counter()
        self._came = asyncio.Condition()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/api/{method}", self._answer)
        app.router.add_post("/actions/{user}", self._answer_person)
        app.router.add_get("/link", self._connect)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/api"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        for socket in self.sockets.copy():
            await socket.close()
        await self._runner.cleanup()

    def block(self, **more: object) -> dict[str, Any]:
        """Return a sink's block for this workspace."""
        return self.block_at(self.url) | more

    @staticmethod
    def block_at(url: str) -> dict[str, Any]:
        """Return a sink's block for another server."""
        return {"type": "slack_bot", "token": TOKEN, "channel": CHANNEL, "url": url}

    def posted(self) -> list[Message]:
        """Return what stands in channels, outside of threads."""
        return [message for message in self.messages.values() if message.thread is None]

    def heads(self) -> list[str]:
        """Return the first line of each message, what is in a thread indented below its first message."""
        lines = []
        for (_, number), message in self.messages.items():
            if message.thread is None:
                replies = [each for each in self.messages.values() if each.thread == number]
                lines += [message.lines[0], *(f"  {each.lines[0]}" for each in replies)]
        return lines

    # Buttons

    def button(self, *, nth: int = 0) -> tuple[str, dict[str, Any]]:
        """Return the first button of a problem's message that does something, with the number of the message."""
        found = []
        for (_, number), message in self.messages.items():
            for block in message.content.get("blocks", ()):
                found += [(number, each) for each in block.get("elements", ()) if "action_id" in each]
        return found[nth]

    def buttons(self) -> list[str]:
        """Return the texts of all such buttons."""
        blocks = [block for message in self.messages.values() for block in message.content.get("blocks", ())]
        elements = [each for block in blocks for each in block.get("elements", ())]
        return [each["text"]["text"] for each in elements if "action_id" in each]

    def payload(self, *, user: str = "ann", nth: int = 0, **more: object) -> dict[str, Any]:
        """Return what Slack sends of a press of a button."""
        number, button = self.button(nth=nth)
        return {
            "type": "block_actions",
            "team": {"id": TEAM, "domain": "acme"},
            "user": {"id": f"U{user.upper()}", "username": user, "name": user, "team_id": TEAM},
            "channel": {"id": CHANNEL, "name": "alerts"},
            "message": {"ts": number, "text": "SECRET"},
            "actions": [{"action_id": button["action_id"], "value": button["value"], "type": "button"}],
            "response_url": self.url.replace("/api", f"/actions/{user}"),
        } | more

    async def press(self, payload: object = None, **how: Any) -> str:
        """Press a button; return the id of the envelope. It is not confirmed yet."""
        id_ = f"{len(self.confirmed)}-{len(self.unconfirmed)}-{random.getrandbits(64):x}"
        self.unconfirmed[id_] = {
            "envelope_id": id_,
            "type": "interactive",
            "accepts_response_payload": False,
            "payload": self.payload(**how) if payload is None else payload,
        }
        await self._send(id_)
        return id_

    async def pressed(self, payload: object = None, **how: Any) -> None:
        """Press a button, and wait until that is confirmed."""
        id_ = await self.press(payload, **how)
        await self.until(lambda: id_ in self.confirmed)

    async def until(self, is_so: Callable[[], bool], *, within_s: float = 20.0) -> None:
        """Wait for something that comes with a request, a connection or a frame."""
        async with asyncio.timeout(within_s), self._came:
            await self._came.wait_for(is_so)

    async def disconnect(self, reason: str, *, closes: bool = False) -> None:
        """Announce the end of the oldest connection; with `closes` end it, too."""
        socket = self.sockets[0]
        await socket.send_json({"type": "disconnect", "reason": reason})
        if closes:
            await socket.close()

    async def _send(self, id_: str) -> None:
        if id_ not in self.unconfirmed:
            return
        asyncio.get_running_loop().call_later(self.again_s, lambda: asyncio.ensure_future(self._send(id_)))
        if self.sockets:
            with suppress(ConnectionError):
                await random.choice(self.sockets).send_json(self.unconfirmed[id_])
        self.sent_counts[id_] += 1
        await self._note()

    async def _connect(self, request: web.Request) -> web.WebSocketResponse:
        assert "Authorization" not in request.headers
        assert request.query["ticket"] == str(self.opened_count)  # one connection for each URL
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": self.hello, "num_connections": len(self.sockets) + 1})
        self.sockets.append(socket)
        try:
            await self._note()
            if self.closes_at_once:
                await socket.close()
            async for message in socket:
                id_ = json.loads(message.data)["envelope_id"]
                if self.unconfirmed.pop(id_, None) is not None:
                    self.confirmed.append(id_)
                await self._note()
        finally:
            self.sockets.remove(socket)
            await self._note()
        return socket

    async def _answer_person(self, request: web.Request) -> web.Response:
        answer = await request.json()
        assert "Authorization" not in request.headers
        assert (answer["response_type"], answer["replace_original"]) == ("ephemeral", False)
        self.answers.append((request.match_info["user"], answer["text"]))
        await self._note()
        return web.Response(text="ok")

    async def _note(self) -> None:
        async with self._came:
            self._came.notify_all()

    # The Web API

    async def _answer(self, request: web.Request) -> web.Response:
        answer = await self._answer_to(request)
        await self._note()
        return answer

    async def _answer_to(self, request: web.Request) -> web.Response:
        method, body = request.match_info["method"], await request.read()
        self.calls.append(method)
        if self.hangs:
            await asyncio.Event().wait()
        if (refusal := self._refusal(request)) is not None:
            return refusal
        arguments = json.loads(body or b"{}")
        assert set(arguments) <= set(inspect.signature(_KNOWN[method]).parameters), arguments
        if method == "auth.test":
            named = {"user": "watcher", "team": "Acme", "team_id": TEAM, "url": "https://acme.slack.com/"}
            return _said({"ok": True, **named})
        if method == "apps.connections.open":
            self.opened_count += 1
            url = self.url.replace("http:", "ws:").replace("/api", f"/link?ticket={self.opened_count}")
            return _said({"ok": True, "url": url})
        channel = str(arguments["channel"])
        assert request.headers["Content-Type"] == "application/json; charset=utf-8"
        if (refusal := self._refusal_in(channel)) is not None:
            return refusal
        act = self._post if method == "chat.postMessage" else self._update
        return _said(act(channel, body))

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self.down:
            return web.Response(status=503)
        is_opening = request.match_info["method"] == "apps.connections.open"
        if request.headers.get("Authorization") != f"Bearer {APP_TOKEN if is_opening else TOKEN}":
            return _said({"ok": False, "error": "invalid_auth"})
        if is_opening:
            if isinstance(self.no_buttons, int):
                return web.Response(status=self.no_buttons)
            return None if self.no_buttons is None else _said({"ok": False, "error": self.no_buttons})
        error = self.says.popleft() if self.says else None
        headers = {"Retry-After": "30"} if error and "rate" in error else None
        return None if error is None else _said({"ok": False, "error": error}, headers=headers)

    def _refusal_in(self, channel: str) -> web.Response | None:
        if channel not in {CHANNEL, OTHER_CHANNEL}:
            return _said({"ok": False, "error": "channel_not_found"})
        if channel not in self.members:
            return _said({"ok": False, "error": "not_in_channel"})
        if channel in self.archived:
            return _said({"ok": False, "error": "is_archived"})
        return None

    def _post(self, channel: str, body: bytes) -> dict[str, Any]:
        content = check_slack(body)
        number, thread = f"{1764000000 + len(self.calls)}.000100", content.pop("thread_ts", None)
        if (channel, thread) not in self.messages:
            thread = None  # as Slack does, without a word
        self.messages[channel, number] = Message(content, thread)
        message = {"type": "message", "ts": number, **content, **({"thread_ts": thread} if thread else {})}
        return {"ok": True, "channel": channel, "ts": number, "message": message}

    def _update(self, channel: str, body: bytes) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(body)
        check_slack_blocks(content)
        assert content["blocks"]  # the text alone would be read as markup
        message = self.messages.get((channel, content.pop("ts")))
        if message is None:
            return {"ok": False, "error": "message_not_found"}
        message.earlier.append(message.content)
        message.content = content
        return {"ok": True, "channel": channel, "text": content["text"]}


def _said(answer: dict[str, Any], *, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(answer, headers=headers)
