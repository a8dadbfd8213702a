"""Slack's Web API: one call, its errors and their remedies.

An answer with status 200 may hold `ok: false` and a word for an error. https://docs.slack.dev/apis/web-api
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from watcher.domain.envelope import Json
from watcher.sinks.http_post import Poster
from watcher.sinks.protocol import SendOutcome, SendResult
from watcher.sinks.template import Template

_NOT_SLACK = "is url that of Slack's Web API?"
_UNKNOWN = "see whether url is that of Slack's Web API, and whether the app may post in the channel"
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
"""The remedies for errors that concern the whole channel, by Slack's word for the error."""

ERROR_REMEDIES: Mapping[str, str] = {
    **CHANNEL_ERROR_REMEDIES,
    "invalid_auth": "Slack does not know this token, or not from this address: copy the Bot User OAuth Token again",
    "not_authed": "Slack got no token: copy the Bot User OAuth Token again",
    "account_inactive": f"the app or its workspace is gone: {_NEW_TOKEN}",
    "token_revoked": f"the token was revoked: {_NEW_TOKEN}",
    "token_expired": "the token expires: make an app without token rotation and set token to its Bot User OAuth Token",
    "not_allowed_token_type": "token must be a Bot User OAuth Token, xoxb-…",
    "missing_scope": "add the scope chat:write to the app (OAuth & Permissions), and install it again",
    "message_limit_exceeded": "the workspace is at Slack's limit of messages: remove some, or change its plan",
}
"""The remedies for all errors that have one, by Slack's word for the error."""

GONE_ERRORS = frozenset({"message_not_found", "thread_not_found", "cannot_reply_to_message"})
"""The errors for a message that no longer exists, or that cannot be answered."""

CANNOT_UPDATE_ERRORS = frozenset({"edit_window_closed", "cant_update_message"})
"""The errors for a message that cannot be updated: the workspace forbids it, or another app posted the message."""

_BUSY_ERRORS = frozenset({"ratelimited", "rate_limited"})
_REFUSAL_ERRORS = (
    *("msg_too_long", "msg_blocks_too_long", "no_text", "too_many_attachments"),
    *("invalid_blocks", "invalid_blocks_format", "block_mismatch"),
)
"""The errors for a message that Slack will never accept."""

_OTHER_ERRORS = (
    *("access_denied", "accesslimited", "as_user_not_supported", "deprecated_endpoint", "ekm_access_denied"),
    *("enterprise_is_restricted", "external_channel_migrating", "fatal_error", "internal_error", "is_inactive"),
    *("invalid_arg_name", "invalid_arguments", "invalid_json", "invalid_post_type", "json_not_object"),
    *("messages_tab_disabled", "method_deprecated", "missing_post_type", "no_permission", "org_login_required"),
    *("request_timeout", "service_unavailable", "team_added_to_org", "team_not_found", "update_failed"),
    *("two_factor_setup_required", "unknown_method"),
)
_CODES = {*ERROR_REMEDIES, *GONE_ERRORS, *CANNOT_UPDATE_ERRORS, *_BUSY_ERRORS, *_REFUSAL_ERRORS, *_OTHER_ERRORS}
"""The documented errors of `chat.postMessage`, `chat.update` and `auth.test`. Other words are not passed on."""


async def call(poster: Poster, method: str, arguments: bytes) -> tuple[SendResult, Json]:
    """Call a method of the Web API once, with arguments in JSON. Return the result and the content of the answer."""
    content: Json = {}

    def judge(status: int, body: bytes) -> SendResult:
        with suppress(ValueError, RecursionError):
            found = json.loads(body) if status == 200 else None
            content.update(found if isinstance(found, dict) else {})
        return _result(status, content)

    headers = {"Content-Type": "application/json; charset=utf-8"}
    return await poster.request(arguments, judge=judge, path=method, headers=headers, judged_by_body={200}), content


def _result(status: int, content: Mapping[str, Any]) -> SendResult:
    """Return the meaning of an answer. Its content decides for 200; another status is never a success."""
    result = Template().send_result(status, b"")
    if content.get("ok") is True:
        return result
    if status != 200:
        outcome = SendOutcome.RETRY if result.outcome.is_taken else result.outcome
        is_odd = outcome is not SendOutcome.BUSY and status // 100 in {2, 4}
        return replace(result, outcome=outcome, remedy=_NOT_SLACK if is_odd else result.remedy)
    code = content.get("error")
    if content.get("ok") is not False or not isinstance(code, str):
        return SendResult(SendOutcome.RETRY, "200 without ok", remedy=_NOT_SLACK)
    if code not in _CODES:
        return SendResult(SendOutcome.RETRY, "200 with an unknown error", remedy=_UNKNOWN)
    if code in _BUSY_ERRORS:
        return SendResult(SendOutcome.BUSY, code)
    outcome = SendOutcome.REFUSED if code in _REFUSAL_ERRORS else SendOutcome.RETRY
    return SendResult(outcome, code, remedy=ERROR_REMEDIES.get(code, ""))
