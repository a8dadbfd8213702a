"""Slack's Web API on a real socket, as far as a bot uses it: channels, messages, threads, its errors and its limits."""

import asyncio
import inspect
import json
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from receivers_rules import check_slack, check_slack_blocks, shown_texts
from slack_sdk.web.async_client import AsyncWebClient

TOKEN = "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcBrzbqgy"
CHANNEL, OTHER_CHANNEL = "C0123456789", "C9876543210"

_KNOWN = {
    "chat.postMessage": AsyncWebClient.chat_postMessage,
    "chat.update": AsyncWebClient.chat_update,
    "auth.test": AsyncWebClient.auth_test,
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

    While it `hangs` it answers nothing.
    """

    def __init__(self) -> None:
        self.messages: dict[tuple[str, str], Message] = {}
        self.calls: list[str] = []
        self.says: deque[str | None] = deque()
        self.down = self.hangs = False
        self.members = {CHANNEL, OTHER_CHANNEL}
        self.archived: set[str] = set()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/api/{method}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/api"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
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

    async def _answer(self, request: web.Request) -> web.Response:
        method, body = request.match_info["method"], await request.read()
        self.calls.append(method)
        if self.hangs:
            await asyncio.Event().wait()
        if (refusal := self._refusal(request)) is not None:
            return refusal
        arguments = json.loads(body or b"{}")
        assert set(arguments) <= set(inspect.signature(_KNOWN[method]).parameters), arguments
        if method == "auth.test":
            return _said({"ok": True, "user": "watcher", "team": "Acme", "url": "https://acme.slack.com/"})
        channel = str(arguments["channel"])
        assert request.headers["Content-Type"] == "application/json; charset=utf-8"
        if (refusal := self._refusal_in(channel)) is not None:
            return refusal
        act = self._post if method == "chat.postMessage" else self._update
        return _said(act(channel, body))

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self.down:
            return web.Response(status=503)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _said({"ok": False, "error": "invalid_auth"})
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
