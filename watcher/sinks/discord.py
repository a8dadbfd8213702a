"""Messages for Discord's webhooks, as embeds, and the meaning of Discord's answers.

Discord reads Markdown everywhere but in an embed's footer: headlines are escaped, other texts from the API are shown as
code. No message mentions anybody. https://docs.discord.com/developers/resources/webhook#execute-webhook
"""

import re
from dataclasses import replace
from typing import ClassVar

from yarl import URL

from watcher.domain.envelope import Json, timestamp
from watcher.domain.event import Severity
from watcher.sinks.chat import ChatTemplate, Newest, Notice
from watcher.sinks.protocol import SendOutcome, SendResult

_RED = 0x960A20
_COLOURS = {Severity.WARNING: 0x9F5F02, Severity.INFO: 0x067D51}
_MARKUP = re.compile(r"[\\*_~|`<>@#\[\]()]|:(?=\S)")
_NEW_WEBHOOK = "Discord no longer knows this webhook: it was deleted, or url is not whole; make a new one and set url"


class DiscordTemplate(ChatTemplate):
    """One message per event or per group."""

    judged_by_body = frozenset({200})
    defaults: ClassVar = {"rate_limit": "30/m"}
    remedies: ClassVar = dict.fromkeys((401, 403, 404), _NEW_WEBHOOK)

    def post_url(self, url: URL) -> URL:
        """Return the URL with `wait=true`: without it Discord answers with success before it has saved the message."""
        return url.update_query(wait="true")

    def payload(self, notice: Notice) -> Json:
        """Return the message with its embed."""
        facts, dated = {name: _code(value) for name, value in notice.facts.items()}, {}
        if notice.moment is not None:
            when, since = notice.moment
            facts[when], dated = f"<t:{int(since.timestamp())}:R>", {"timestamp": timestamp(since)}
        nodes, first_link = _block("\n".join(notice.nodes)), next(iter(notice.links.values()), "")
        description = (
            _block(notice.error),
            nodes and f"Also failed:\n{nodes}",
            f"The newest {len(notice.newest)}:" if notice.newest else "",
            " · ".join(
                f"[{name}](<{link}>)"
                for name, link in notice.links.items()
                if link != first_link or name == "Acknowledge"  # the title leads to the first link, without its name
            ),
        )
        embed = {
            "title": _escape(notice.headline),
            "url": first_link,
            "color": _COLOURS.get(notice.severity, _RED),
            "description": "\n".join(filter(None, description)),
            "fields": [
                *({"name": name, "value": value, "inline": True} for name, value in facts.items()),
                *map(_newest, notice.newest),
            ],
            "footer": {"text": notice.footer},
            **dated,
        }
        embed = {name: value for name, value in embed.items() if value != ""}
        return {"embeds": [embed], "allowed_mentions": {"parse": []}}

    def send_result(self, status: int, body: bytes) -> SendResult:
        """Return the meaning of an answer. Only 202, and 200 with a message in its body, are a success."""
        result = super().send_result(status, body)
        is_message = status == 200 and body.lstrip().startswith(b"{") and b'"embeds"' in body  # the body may be cut
        if result.outcome is SendOutcome.DELIVERED and not is_message:
            remedy = "is url that of a Discord webhook?"
            return replace(result, outcome=SendOutcome.RETRY, answer=f"{status} without a message", remedy=remedy)
        return result


def _newest(event: Newest) -> Json:
    value = "\n".join(map(_code, event.details))
    return {"name": _escape(event.headline), "value": f"{value}\n[Open](<{event.link}>)" if event.link else value}


def _escape(headline: str) -> str:
    """Return a headline in which Discord reads no Markdown. It stays below Discord's limit: its names are cut."""
    return _MARKUP.sub(r"\\\g<0>", headline)


def _code(text: str) -> str:
    return f"`{_without_backticks(text)}`"


def _block(text: str) -> str:
    return f"```\n{_without_backticks(text)}\n```" if text else ""


def _without_backticks(text: str) -> str:
    """Return a text that cannot end a block of code: each backtick becomes a character that looks like it."""
    return text.replace("`", "\N{MODIFIER LETTER GRAVE ACCENT}")
