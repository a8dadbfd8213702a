"""Slack's Web API, as far as it is used: one request, what its answer means, and what helps against its errors.

An answer of 200 may say `ok: false` and a word for what is wrong. https://docs.slack.dev/apis/web-api
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from yarl import URL

from watcher.delivery.sinks.alert_text import shorten
from watcher.delivery.sinks.http_post import (
    Answer,
    ConnectionRules,
    Poster,
    result_without_answer,
    with_retry_after,
)
from watcher.delivery.sinks.protocol import NotConnectedError, SendOutcome, SendResult, SinkContext
from watcher.delivery.sinks.request_series import TAKEN
from watcher.delivery.sinks.template import result_of_status
from watcher.domain.errors import TransportFailedError

API_URL = "https://slack.com/api"

ANSWER_BYTES = 128 * 1024
"""More than any answer has: that to a message holds the message."""

SCOPE, SCOPE_EVERYWHERE = "chat:write", "chat:write.public"
"""What a bot must be allowed, to post where it is a member; and in any public channel."""

_NAME_LENGTH = 80
_WORD = re.compile(r"[a-z0-9_]{1,64}")
_NOT_SLACK = "is url that of Slack's Web API?"
_NEW_TOKEN = "install the app again and set token to its Bot User OAuth Token (OAuth & Permissions)"  # noqa: S105 (no token)
_MAY_NOT_POST = "the channel or the workspace lets the app not post there: allow it, or set channel to another one"

CHANNEL_ERROR_REMEDIES: Mapping[str, str] = {
    "channel_not_found": "correct channel, which is an id such as C0123456789; a private channel is known only to an "
    "app that was invited to it: /invite @its-name",
    "not_in_channel": "invite the app to the channel: /invite @its-name",
    "is_archived": "unarchive the channel, or set channel to another one",
    "restricted_action": _MAY_NOT_POST,
    "restricted_action_read_only_channel": _MAY_NOT_POST,
    "restricted_action_thread_only_channel": _MAY_NOT_POST,
    "restricted_action_non_threadable_channel": _MAY_NOT_POST,
    "team_access_not_granted": _MAY_NOT_POST,
}
"""What a person has to do about an error of a whole channel."""

ERROR_REMEDIES: Mapping[str, str] = {
    **CHANNEL_ERROR_REMEDIES,
    "invalid_auth": "Slack does not know this token, or not from this address: copy the Bot User OAuth Token again",
    "not_authed": "Slack got no token: copy the Bot User OAuth Token again",
    "account_inactive": f"the app or its workspace is gone: {_NEW_TOKEN}",
    "token_revoked": f"the token was revoked: {_NEW_TOKEN}",
    "token_expired": "the token expires: make an app without token rotation and set token to its Bot User OAuth Token",
    "not_allowed_token_type": "token must be a Bot User OAuth Token, xoxb-…",
    "missing_scope": f"add the scope {SCOPE} to the app (OAuth & Permissions), and install it again",
    "message_limit_exceeded": "the workspace is at Slack's limit of messages: remove some, or change its plan",
}
"""What a person has to do about an error."""

_BUSY_ERRORS = frozenset({"ratelimited", "rate_limited"})
_REFUSAL_ERRORS = frozenset(
    {
        *("msg_too_long", "msg_blocks_too_long", "no_text", "too_many_attachments"),
        *("invalid_blocks", "invalid_blocks_format", "block_mismatch"),
    }
)
"""What is said of a message that will never be taken."""


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """What an answer means, its content, how it began, and what the token is allowed, if that is said."""

    result: SendResult
    content: Mapping[str, Any]
    said: bytes = b""
    scopes: frozenset[str] | None = None

    @property
    def is_ok(self) -> bool:
        """Whether Slack did what was asked."""
        return self.result.outcome in TAKEN


class SlackApi:
    """Calls methods with one token, each once."""

    def __init__(self, url: str, token: str, *, timeout_s: float, context: SinkContext, rules: ConnectionRules) -> None:
        """Open no connection yet. Needs a running event loop."""
        headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        self._clock = context.clock
        self._poster = Poster(URL(url), headers=headers, timeout_s=timeout_s, context=context, rules=rules)

    async def call(self, method: str, arguments: bytes) -> ApiAnswer:
        """Call a method that takes JSON."""
        return await self._post(method, arguments, content_type="application/json; charset=utf-8")

    async def ask(self, method: str, **arguments: str) -> ApiAnswer:
        """Call a method that only reads, which takes a form."""
        return await self._post(method, urlencode(arguments).encode(), content_type="application/x-www-form-urlencoded")

    async def close(self) -> None:
        """Close all connections."""
        await self._poster.close()

    async def _post(self, method: str, body: bytes, *, content_type: str) -> ApiAnswer:
        try:
            answer = await self._poster.post(
                body,
                path=method,
                headers={"Content-Type": content_type},
                judged_by_body={200},
                said_bytes=ANSWER_BYTES,
            )
        except TransportFailedError as error:
            return ApiAnswer(result_without_answer(error), {})
        content = _object(answer.said) if answer.status == 200 else {}
        result = with_retry_after(_result(answer, content), answer, now=self._clock.now())
        return ApiAnswer(result, content, answer.said, _scopes(answer))


async def check_access(api: SlackApi, channel: str) -> str:
    """Say whose token it is and whether it may post in a channel, as far as that can be known without posting.

    Raises `NotConnectedError`.
    """
    known = await api.ask("auth.test")
    _require(known)
    if known.scopes is not None and SCOPE not in known.scopes:
        raise NotConnectedError("missing_scope", remedy=ERROR_REMEDIES["missing_scope"])
    bot, team = (_name(known, key) for key in ("user", "team"))
    whose = f"takes the token of {bot} in {team}"
    asked = await api.ask("conversations.info", channel=channel)
    if asked.result.answer == "missing_scope":
        scope = "groups:read" if channel.startswith("G") else "channels:read, or groups:read for a private one"
        return f"{whose}; whether it may post in {channel} is shown by --send, or with the scope {scope}; nothing sent"
    _require(asked)
    found = asked.content.get("channel")
    if not isinstance(found, dict):
        raise NotConnectedError("200 without channel", remedy=_NOT_SLACK)
    if found.get("is_archived") is True:
        raise NotConnectedError("is_archived", remedy=ERROR_REMEDIES["is_archived"])
    if found.get("is_member") is False and SCOPE_EVERYWHERE not in (known.scopes or ()):
        raise NotConnectedError("not_in_channel", remedy=f"invite the app to the channel: /invite @{bot}")
    return f"{whose}, which knows {channel}; nothing sent"


def _require(answer: ApiAnswer) -> None:
    if not answer.is_ok:
        raise NotConnectedError(answer.result.answer, remedy=answer.result.remedy)


def _name(answer: ApiAnswer, key: str) -> str:
    """Return a name in an answer as it may be shown."""
    name = answer.content.get(key)
    if not (isinstance(name, str) and name.strip()):
        raise NotConnectedError(f"200 without {key}", remedy=_NOT_SLACK)
    return shorten(name, _NAME_LENGTH)


def _result(answer: Answer, content: Mapping[str, Any]) -> SendResult:
    """Return what an answer means: 200 by its content, any other status as for webhooks, but never as a success."""
    result = result_of_status(answer.status)
    if content.get("ok") is True:
        return result
    if answer.status != 200:
        outcome = SendOutcome.RETRY if result.outcome in TAKEN else result.outcome
        is_odd = outcome is not SendOutcome.BUSY and answer.status // 100 in {2, 4}
        return replace(result, outcome=outcome, remedy=_NOT_SLACK if is_odd else result.remedy)
    word = content.get("error")
    if not (isinstance(word, str) and _WORD.fullmatch(word)):
        return SendResult(SendOutcome.RETRY, "200 without ok", remedy=_NOT_SLACK)
    if word in _BUSY_ERRORS:
        return SendResult(SendOutcome.BUSY, word)
    return SendResult(
        SendOutcome.REFUSED if word in _REFUSAL_ERRORS else SendOutcome.RETRY, word, remedy=ERROR_REMEDIES.get(word, "")
    )


def _object(said: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(said)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _scopes(answer: Answer) -> frozenset[str] | None:
    scopes = answer.headers.get("X-OAuth-Scopes")
    return None if scopes is None else frozenset(each.strip() for each in scopes.split(","))
