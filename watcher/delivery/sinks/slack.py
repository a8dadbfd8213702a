"""What goes to Slack's incoming webhooks, and what their answers mean."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from watcher.delivery.sinks.http_post import Answer
from watcher.delivery.sinks.protocol import SendOutcome, SendResult
from watcher.delivery.sinks.slack_blocks import SLACK, shown_of
from watcher.delivery.sinks.template import Message, Template, result_of_status
from watcher.domain.delivery import Delivery

_NEW_WEBHOOK = "Slack no longer knows this webhook or may not post there: make a new one and set url"
_REMEDIES = {
    403: _NEW_WEBHOOK,
    404: _NEW_WEBHOOK,
    410: "the channel is archived: make a webhook for another one and set url",
}


class SlackTemplate(Template):
    """One message per event or per group; good news and bad never share one."""

    judged_by_body = frozenset({200})
    defaults: ClassVar = {"rate_limit": "1/s"}

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one message, or two: first that of which the oldest event is."""
        return SLACK.requests_of(batch)

    def send_result(self, answer: Answer) -> SendResult:
        """Return what an answer means: of the 2xx only 200 with `ok` is a success, and 202 as ever."""
        status, result = answer.status, result_of_status(answer.status)
        if result.outcome is SendOutcome.DELIVERED and (status != 200 or answer.said.strip() != b"ok"):
            return SendResult(SendOutcome.RETRY, f"{status} without ok", remedy="is url that of a Slack webhook?")
        return replace(result, remedy=_REMEDIES.get(status, result.remedy))

    def preview(self, body: bytes) -> list[str]:
        """Return the texts of the blocks in their order."""
        return shown_of(json.loads(body))
