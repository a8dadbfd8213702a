"""Messages for Slack in Block Kit, for incoming webhooks and apps, and the meaning of a webhook's answers.

Names, errors and labels go only into `plain_text`, in which Slack reads no markup. Phones show the field `text` as a
preview: its markup is switched off, and `& < >` are escaped. https://docs.slack.dev/reference/block-kit/blocks
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import ClassVar

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import Json
from watcher.sinks.alert import in_utc, shorten, to_json
from watcher.sinks.chat import ChatTemplate, Newest, Notice, notice_of_batch
from watcher.sinks.protocol import SendOutcome, SendResult
from watcher.sinks.template import Message

PREVIEW_LENGTH = 300

_NEW_WEBHOOK = "Slack no longer knows this webhook or may not post there: make a new one and set url"
_NEW_CHANNEL = "the channel is archived: make a webhook for another one and set url"

_CODES = (
    *("invalid_payload", "invalid_blocks", "invalid_token", "no_text", "too_many_attachments", "user_not_found"),
    *("channel_not_found", "channel_is_archived", "action_prohibited", "posting_to_general_channel_denied"),
    *("no_service", "no_service_id", "no_team", "team_disabled", "no_active_hooks"),
)
"""The words for errors that Slack documents for webhooks. Other words of an answer are not passed on.

https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling_errors
"""


class SlackTemplate(ChatTemplate):
    """One message per event or per group, for an incoming webhook."""

    judged_by_body = frozenset({200})
    has_minimal = True
    defaults: ClassVar = {"rate_limit": "1/s"}
    remedies: ClassVar = {403: _NEW_WEBHOOK, 404: _NEW_WEBHOOK, 410: _NEW_CHANNEL}

    def payload(self, notice: Notice) -> Json:
        """Return the message as blocks."""
        return message_of(notice)

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one message. After a refusal a single event has the minimal form: Slack refuses some long blocks."""
        if len(batch) > 1 or not batch[0].rejections:
            return super().messages(batch)
        notice = notice_of_batch(batch)
        return [Message(notice.id, to_json(minimal(notice)).encode())]

    def send_result(self, status: int, body: bytes) -> SendResult:
        """Return the meaning of an answer. Only 202, and 200 with the body `ok`, are a success."""
        result = super().send_result(status, body)
        if result.outcome is SendOutcome.DELIVERED and (status != 200 or body.strip() != b"ok"):
            return SendResult(SendOutcome.RETRY, f"{status} without ok", remedy="is url that of a Slack webhook?")
        code = body.decode("ascii", "replace").strip()
        return replace(result, answer=f"{result.answer} {code}") if code in _CODES else result


def message_of(notice: Notice) -> Json:
    """Return the message about an event or a group."""
    fields = [plain_text(f"{name}\n{value}") for name, value in notice.facts.items()]
    if notice.moment is not None:
        when, since = notice.moment
        fields.append({"type": "mrkdwn", "text": f"{when}\n{_date(since)}"})
    buttons = [_button(*each) for each in notice.links.items()]
    newest = [_section(f"The newest {len(notice.newest)}:"), *map(_newest, notice.newest)]
    blocks = [
        {"type": "header", "text": plain_text(notice.headline)},
        *([_section(notice.error)] if notice.error else []),
        *([_section("\n".join(["Also failed:", *notice.nodes]))] if notice.nodes else []),
        *([{"type": "section", "fields": fields}] if fields else []),
        *(newest if notice.newest else []),
        {"type": "context", "elements": [plain_text(notice.footer)]},
        *([{"type": "actions", "elements": buttons}] if buttons else []),
    ]
    return _payload(notice.headline, notice.error.partition("\n")[0], blocks)


def with_button(message: Json, button: Json) -> Json:
    """Return a message with one more button, which comes first. A link *Acknowledge* is then named *Details*."""
    blocks = [each for each in message["blocks"] if each["type"] != "actions"]
    links = [each for each in message["blocks"] if each["type"] == "actions"]
    elements = [button, *(_renamed(link) for each in links for link in each["elements"])]
    return message | {"blocks": [*blocks, {"type": "actions", "elements": elements}]}


def _renamed(link: Json) -> Json:
    is_same = link["text"]["text"] == "Acknowledge"  # it leads to a page, and acknowledges nothing by itself
    return _button("Details", link["url"]) if is_same else link


def minimal(notice: Notice) -> Json:
    """Return a message of headline and footer in one block: without a block `chat.update` reads text as markup."""
    return _payload(notice.headline, notice.footer, [_section(f"{notice.headline}\n{notice.footer}")])


def one_line(headline: str) -> Json:
    """Return a message of one line."""
    return _payload(headline, "", [])


def _newest(event: Newest) -> Json:
    block = _section("\n".join([event.headline, *event.details]))
    return block | {"accessory": _button("Open", event.link)} if event.link else block


def _payload(headline: str, detail: str, blocks: Sequence[Json]) -> Json:
    preview = f"{headline}\n{shorten(detail, PREVIEW_LENGTH)}" if detail else headline
    payload: Json = {"text": _escape(preview), "mrkdwn": False, "unfurl_links": False, "unfurl_media": False}
    return payload | {"blocks": blocks} if blocks else payload


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _date(moment: datetime) -> str:
    """Return a time in Slack's own form: each reader sees it in their time zone."""
    return f"<!date^{int(moment.timestamp())}^{{date_short_pretty}} {{time_secs}}|{in_utc(moment)}>"


def plain_text(text: str) -> Json:
    """Return a text object that Slack shows as it is."""
    return {"type": "plain_text", "text": text, "emoji": False}


def _section(text: str) -> Json:
    return {"type": "section", "text": plain_text(text)}


def _button(text: str, link: str) -> Json:
    return {"type": "button", "text": plain_text(text), "url": link}
