"""The buttons of a Slack app. Slack sends each press over a WebSocket that this process opens (Socket Mode).

A press is confirmed once it is recorded. Otherwise Slack sends the press again, or shows the presser a warning. Slack
closes a connection about once an hour, and announces that, so the next one is opened first.
https://docs.slack.dev/apis/events-api/using-socket-mode
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Annotated, Any, Literal
from uuid import UUID

import structlog
from aiohttp import ClientWebSocketResponse, WSMsgType
from pydantic import BaseModel, Field, ValidationError
from yarl import URL

from watcher.domain.envelope import Json
from watcher.domain.errors import StoreError, TransportFailedError
from watcher.domain.problems import Press
from watcher.runtime.tasks import start_task, stop_task, wait_at_most
from watcher.sinks.alert import cut, to_json
from watcher.sinks.http_post import Poster
from watcher.sinks.protocol import SendOutcome, SendResult, SinkContext
from watcher.sinks.slack import plain_text
from watcher.sinks.slack_api import ERROR_REMEDIES, call

DISCONNECTED_S = 60.0
"""The time without a connection after which messages have a link instead of a button."""

OPEN_EVERY_S, RETRY_AT_MOST_S = 1.0, 60.0
"""The wait before a connection is opened again that failed, or ended within `OPEN_EVERY_S`. It doubles each time."""

HELLO_S, CLOSING_S = 10.0, 30.0
"""The longest wait for Slack's first frame, and for the end of a connection once Slack has announced it."""

HEARTBEAT_S = 20.0
CLOSE_S = 2.0
"""The longest wait for presses that are being recorded when the sink is closed."""

NAME_LENGTH = 64
NEW_APP_TOKEN = "turn on Socket Mode, and set app_token to an app-level token, xapp-…, with the scope connections:write"  # noqa: S105 (no token)

log = structlog.get_logger()


def button_of(problem: UUID, event_count: int, *, is_acknowledged: bool) -> Json:
    """Return the button of a problem's message. `event_count` is as in `Press`."""
    action, text = ("give_back", "Give back") if is_acknowledged else ("acknowledge", "Acknowledge")
    return {"type": "button", "text": plain_text(text), "action_id": action, "value": f"{problem.hex}.{event_count}"}


class _Identified(BaseModel):
    id: str


class _User(BaseModel):
    id: Annotated[str, Field(pattern="^[UW][A-Z0-9]+$")]
    username: str = ""
    name: str = ""
    team_id: str | None = None
    is_bot: Literal[False] = False


class _Action(BaseModel):
    action_id: Literal["acknowledge", "give_back"]
    value: Annotated[str, Field(pattern=r"^[0-9a-f]{32}\.[0-9]{1,9}$")]


class _Payload(BaseModel):
    """A press as Slack describes it. Other fields, such as the message, are not read."""

    type: Literal["block_actions"]
    team: _Identified | None = None
    channel: _Identified
    user: _User
    actions: Annotated[list[_Action], Field(min_length=1, max_length=1)]
    bot_id: None = None
    response_url: str = ""

    def press(self, *, channel: str, sink: str) -> Press:
        """Return the press. `channel` is that of the sink whose connection got the press."""
        action, user = self.actions[0], self.user
        problem, _, event_count = action.value.partition(".")
        return Press(
            UUID(problem),
            int(event_count),
            action.action_id == "give_back",
            by=cut(user.username or user.name or user.id, NAME_LENGTH),
            channel=self.channel.id,
            sink=sink if self.channel.id == channel else None,
        )


class SlackButtons:
    """The connection over which Slack sends presses. The context's `press` records them. No error here is fatal."""

    def __init__(
        self,
        web: Poster,
        app: Poster,
        open_poster: Callable[[URL], Poster],
        *,
        url: URL,
        channel: str,
        context: SinkContext,
    ) -> None:
        """Keep a connection open from now on. Needs a running event loop.

        `web` calls the API at `url` with the bot's token, `app` with the app-level token. `app` is closed at the end.
        """
        self._web = web
        self._app = app
        self._open_poster = open_poster
        self._url = url
        self._channel = channel
        self._context = context
        self._team: str | None = None
        self._sockets: set[ClientWebSocketResponse] = set()
        self._presses: set[asyncio.Task[None]] = set()
        self._readers: set[asyncio.Task[None]] = set()
        self._disconnected_since, self._answer = context.clock.monotonic(), "none"
        self._listening = start_task(self._listen(), fatal=self._crashed)

    @property
    def trouble(self) -> str:
        """Return why there has been no connection for a minute; an empty text before that, and while there is one."""
        disconnected_s = self._context.clock.monotonic() - self._disconnected_since
        return f"no buttons: {self._answer}" if not self._sockets and disconnected_s >= DISCONNECTED_S else ""

    async def close(self) -> None:
        """Open no more connections, finish the presses that have arrived, and close all connections."""
        await stop_task(self._listening)
        if self._presses:
            await asyncio.wait(self._presses, timeout=CLOSE_S)
        for task in (*self._readers, *self._presses):
            await stop_task(task)
        await self._app.aclose()

    async def _listen(self) -> None:
        """Open a connection. Open the next one as soon as Slack announces that it will close this one, or closes it."""
        wait_s = OPEN_EVERY_S
        while True:
            remedy = ""
            try:
                socket = await self._connect()
            except Exception as error:  # noqa: BLE001 (without buttons messages still go out)
                self._answer = error.kind if isinstance(error, TransportFailedError) else type(error).__name__
                remedy = getattr(error, "remedy", "")
            else:
                begun_at, is_closing = self._context.clock.monotonic(), asyncio.Event()
                self._sockets.add(socket)
                self._start(self._readers, self._read(socket, is_closing))
                await is_closing.wait()
                self._answer = "closed"
                if self._has_lasted(begun_at):
                    wait_s = OPEN_EVERY_S
                    continue
            if wait_s == OPEN_EVERY_S:
                note = "after a minute messages have a link instead of a button"
                log.warning("buttons.failed", sink=self._context.name, answer=self._answer, remedy=remedy, note=note)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_AT_MOST_S)

    def _has_lasted(self, begun_at: float) -> bool:
        """Return whether a connection that began then counts. Slack may close a new one at once, again and again."""
        return self._context.clock.monotonic() - begun_at > OPEN_EVERY_S

    async def _connect(self) -> ClientWebSocketResponse:
        """Return a connection over which Slack has said hello. Raises `TransportFailedError`, `StoreError`."""
        if self._team is None:
            self._team = (await call_or_raise(self._web, "auth.test")).get("team_id")
        answer = await call_or_raise(self._app, "apps.connections.open", remedy=NEW_APP_TOKEN)
        socket = await self._app.open_socket(URL(str(answer.get("url"))), heartbeat_s=HEARTBEAT_S)
        hello = await wait_at_most(HELLO_S, socket.receive())
        if hello is None or hello.type is not WSMsgType.TEXT or _object(hello.data).get("type") != "hello":
            await socket.close()
            raise TransportFailedError("no hello")
        return socket

    async def _read(self, socket: ClientWebSocketResponse, is_closing: asyncio.Event) -> None:
        """Handle the frames of a connection until it ends. Set `is_closing` once its end is announced or reached."""
        begun_at = self._context.clock.monotonic()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(None) as limit:
                    async for message in socket:
                        frame = _object(message.data) if message.type is WSMsgType.TEXT else {}
                        if frame.get("type") == "disconnect" and not is_closing.is_set():
                            limit.reschedule(asyncio.get_running_loop().time() + CLOSING_S)
                            is_closing.set()
                        elif isinstance(id_ := frame.get("envelope_id"), str):
                            self._start(self._presses, self._handle_press(socket, id_, frame.get("payload")))
        finally:
            self._sockets.discard(socket)
            if self._has_lasted(begun_at):
                self._disconnected_since = self._context.clock.monotonic()
            is_closing.set()
            await socket.close()

    async def _handle_press(self, socket: ClientWebSocketResponse, envelope_id: str, content: object) -> None:
        """Record a press, confirm it, and answer it if it did nothing. Anything else is confirmed alone."""
        answer: str | None = ""
        payload = self._payload(content)
        if payload is not None and self._context.press is not None:
            try:
                answer = await self._context.press(payload.press(channel=self._channel, sink=self._context.name))
            except StoreError as error:
                answer = None
                log.warning("press.failed", sink=self._context.name, problem=str(error), note="press again")
        if answer is None:
            return
        with suppress(ConnectionError):  # the press is recorded; if it comes again, it does nothing
            await socket.send_str(to_json({"envelope_id": envelope_id}))
        if payload is not None and answer:
            await self._answer_to(payload, answer)

    def _payload(self, content: object) -> _Payload | None:
        """Return a press of one of our buttons by a person of our team; `None` for anything else."""
        try:
            payload = _Payload.model_validate(content)
        except ValidationError:  # its text is not logged
            return None
        team = payload.team.id if payload.team else payload.user.team_id
        return payload if self._team in {None, team} else None

    async def _answer_to(self, payload: _Payload, text: str) -> None:
        """Send a text that only the presser sees, by the URL of the press, if that is one of Slack's."""
        with suppress(ValueError):
            url, host = URL(payload.response_url), self._url.host or ""
            if url.scheme != self._url.scheme or not (url.host == host or (url.host or "").endswith(f".{host}")):
                return
            body = to_json({"response_type": "ephemeral", "replace_original": False, "text": text}).encode()
            async with aclosing(self._open_poster(url)) as poster:
                headers = {"Content-Type": "application/json"}
                await poster.request(body, judge=lambda *_: SendResult(SendOutcome.DELIVERED, ""), headers=headers)

    def _start(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = start_task(work, fatal=self._crashed)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _crashed(self, error: BaseException) -> None:
        log.error("buttons.crashed", sink=self._context.name, error=type(error).__name__)  # its text may have secrets


async def call_or_raise(poster: Poster, method: str, *, remedy: str = "") -> Json:
    """Call a method of the Web API, and return its answer. Raises `TransportFailedError`.

    `remedy` replaces Slack's remedies, which are about the bot's token.
    """
    result, content = await call(poster, method, b"{}")
    if result.outcome is not SendOutcome.DELIVERED:
        raise TransportFailedError(result.answer, remedy=(result.answer in ERROR_REMEDIES and remedy) or result.remedy)
    return content


def _object(text: str) -> Json:
    """Return the JSON object of a frame; an empty one for anything else."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
