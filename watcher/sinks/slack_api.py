"""Slack's Web API, as far as it is used: one request, what its answer means, and what helps against its errors.

An answer of 200 may say `ok: false` and a word for what is wrong. https://docs.slack.dev/apis/web-api
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from watcher.domain.errors import TransportFailedError
from watcher.runtime.clock import Clock
from watcher.sinks.http_post import Answer, Poster, result_without_answer, with_retry_after
from watcher.sinks.protocol import SendOutcome, SendResult
from watcher.sinks.request_series import TAKEN
from watcher.sinks.template import json_object, result_of_status

API_URL = "https://slack.com/api"

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
"""What a person has to do about an error of a whole channel."""

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
"""What a person has to do about an error."""

GONE_ERRORS = frozenset({"message_not_found", "thread_not_found", "cannot_reply_to_message"})
"""What is said of a message that is not there any more, or was never one to answer."""

CANNOT_UPDATE_ERRORS = frozenset({"edit_window_closed", "cant_update_message"})
"""What is said of a message that stays as it is: the workspace forbids it, or another app posted it."""

_BUSY_ERRORS = frozenset({"ratelimited", "rate_limited"})
_REFUSAL_ERRORS = frozenset(
    {
        *("msg_too_long", "msg_blocks_too_long", "no_text", "too_many_attachments"),
        *("invalid_blocks", "invalid_blocks_format", "block_mismatch"),
    }
)
"""What is said of a message that will never be taken."""

_OTHER_ERRORS = frozenset(
    {
        *("access_denied", "accesslimited", "as_user_not_supported", "deprecated_endpoint", "ekm_access_denied"),
        *("enterprise_is_restricted", "external_channel_migrating", "fatal_error", "internal_error", "is_inactive"),
        *("invalid_arg_name", "invalid_arguments", "invalid_json", "invalid_post_type", "json_not_object"),
        *("messages_tab_disabled", "method_deprecated", "missing_post_type", "no_permission", "org_login_required"),
        *("request_timeout", "service_unavailable", "team_added_to_org", "team_not_found", "update_failed"),
        *("two_factor_setup_required", "unknown_method"),
    }
)
_CODES = ERROR_REMEDIES.keys() | GONE_ERRORS | CANNOT_UPDATE_ERRORS | _BUSY_ERRORS | _REFUSAL_ERRORS | _OTHER_ERRORS
"""What may be wrong with `chat.postMessage`, `chat.update` and `auth.test`. No other word is passed on."""


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """What an answer means, and its content."""

    result: SendResult
    content: Mapping[str, Any]

    @property
    def is_ok(self) -> bool:
        """Whether Slack did what was asked."""
        return self.result.outcome in TAKEN


async def call(poster: Poster, method: str, arguments: bytes, *, clock: Clock) -> ApiAnswer:
    """Call a method once with these arguments, in JSON."""
    headers = {"Content-Type": "application/json; charset=utf-8"}
    try:
        answer = await poster.post(arguments, path=method, headers=headers, judged_by_body={200})
    except TransportFailedError as error:
        return ApiAnswer(result_without_answer(error), {})
    content = json_object(answer.said) if answer.status == 200 else {}
    return ApiAnswer(with_retry_after(_result(answer, content), answer, now=clock.now()), content)


def _result(answer: Answer, content: Mapping[str, Any]) -> SendResult:
    """Return what an answer means: 200 by its content, any other status as for webhooks, but never as a success."""
    result = result_of_status(answer.status)
    if content.get("ok") is True:
        return result
    if answer.status != 200:
        outcome = SendOutcome.RETRY if result.outcome in TAKEN else result.outcome
        is_odd = outcome is not SendOutcome.BUSY and answer.status // 100 in {2, 4}
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
