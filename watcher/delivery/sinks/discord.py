"""Messages for Discord's webhooks, as embeds. Also what Discord's answers and rate headers mean.

Discord reads Markdown everywhere but in an embed's footer: names stand escaped, all else of others in code. Nothing
pings anybody. https://docs.discord.com/developers/resources/webhook#execute-webhook
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar, NamedTuple

from yarl import URL

from watcher.delivery.sinks.alert import Alert
from watcher.delivery.sinks.alert_text import Cutter, in_utc, length, shorten
from watcher.delivery.sinks.chat import (
    UNTRUSTED_FACTS,
    ChatFormat,
    Json,
    Limits,
    cluster_lines,
    details_of,
    facts_of,
    ids_of,
    moment_of,
    other_nodes,
    rest_of,
)
from watcher.delivery.sinks.digest import Digest
from watcher.delivery.sinks.http_post import Answer
from watcher.delivery.sinks.protocol import SendOutcome, SendResult
from watcher.delivery.sinks.template import Message, Template, result_of_status
from watcher.domain.delivery import Delivery
from watcher.domain.envelope import timestamp
from watcher.domain.problems import Severity

MESSAGE_LENGTH = 5500
"""Discord takes 6,000 characters over all embeds."""

VALUE_LENGTH = 1024
LINK_LENGTH = 2048
NODE_LENGTH = 120
IDS_LENGTH = 800
"""Characters of all ids in a minimal message."""

_COLOURS: Mapping[Severity, int] = {
    Severity.CRITICAL: 0x960A20,
    Severity.ERROR: 0x960A20,
    Severity.WARNING: 0x9F5F02,
    Severity.INFO: 0x067D51,
}
_MARKUP = re.compile(r"[\\*_~|`<>@#\[\]()]|:(?=\S)")
_ESCAPED = re.compile(r"\\([^0-9A-Za-z\s])")
_OWN_MARKUP = re.compile(r"```\n([^`]*)\n```|`([^`]*)`|<t:(\d+):R>|\[Open\]\(<[^>]*>\)")
"""What is read as something else than it says: code, a time, a link. Nothing in code is a time or a link."""

_SECONDS = re.compile(r"\d{1,6}(?:\.\d{1,9})?")
_NEW_WEBHOOK = "Discord no longer knows this webhook: it was deleted, or url is not whole; make a new one and set url"


class _GroupLimits(NamedTuple):
    """Characters of the clusters and of the error of each of the newest, and how many of these have a link."""

    clusters: int
    error: int
    links: int


class DiscordTemplate(Template):
    """One message per event or per group; good news and bad never share one."""

    judged_by_body = frozenset({200})
    defaults: ClassVar = {"rate_limit": "30/m"}

    def post_url(self, url: URL) -> URL:
        """Return the URL with the wish for a true answer: without it a message that is not saved is no error."""
        return url.update_query(wait="true")

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one message, or two: first that of which the oldest event is."""
        return _FORMAT.requests_of(batch)

    def send_result(self, answer: Answer) -> SendResult:
        """Return what an answer means: of the 2xx only 200 with a message is a success, and 202 as ever.

        With any answer Discord may say that it takes no more for a time.
        """
        result = replace(result_of_status(answer.status), pause_s=_pause_s(answer.headers))
        if result.outcome is SendOutcome.DELIVERED and not _is_message(answer):
            remedy = "is url that of a Discord webhook?"
            return replace(
                result, outcome=SendOutcome.RETRY, answer=f"{answer.status} without a message", remedy=remedy
            )
        return replace(result, remedy=_NEW_WEBHOOK) if answer.status in {401, 403, 404} else result

    def preview(self, body: bytes) -> list[str]:
        """Return the texts of the embed in their order, times in UTC."""
        (embed,) = json.loads(body)["embeds"]
        fields = (f"{_unescaped(each['name'])}: {_as_read(each['value'])}" for each in embed["fields"])
        texts = (_unescaped(embed["title"]), _as_read(embed.get("description", "")), *fields, embed["footer"]["text"])
        return [line for text in texts for line in text.split("\n") if line]


def _is_message(answer: Answer) -> bool:
    """Whether it looks like a message: of a long one only the beginning was read."""
    return answer.status == 200 and answer.said.lstrip().startswith(b"{") and b'"embeds"' in answer.said


def _pause_s(headers: Mapping[str, str]) -> float:
    """Return for how long nothing more may be sent, by the headers that come with every answer."""
    reset_after = headers.get("X-RateLimit-Reset-After", "")
    is_spent = headers.get("X-RateLimit-Remaining") == "0" and _SECONDS.fullmatch(reset_after)
    return float(reset_after) if is_spent else 0.0


def _unescaped(headline: str) -> str:
    return _ESCAPED.sub(r"\1", headline)


def _as_read(text: str) -> str:
    return _OWN_MARKUP.sub(_read, text)


def _read(match: re.Match[str]) -> str:
    block, code, time = match.groups()
    if time is not None:
        return in_utc(datetime.fromtimestamp(int(time), UTC))
    return block or code or "[Open]"


def _single(alert: Alert, limits: Limits, cut: Cutter) -> Json:
    error = _block([cut(alert.error, limits.error)])
    nodes = _block(other_nodes(alert, cut, count=limits.nodes, length=NODE_LENGTH))
    facts = {
        name: _code(value) if name in UNTRUSTED_FACTS else value
        for name, value in facts_of(alert, cut, labels=limits.labels).items()
    }
    when, since = moment_of(alert)
    facts[when] = f"<t:{int(since.timestamp())}:R>"
    return _payload(
        title=_escape(alert.headline),
        url=alert.link if alert.link and len(alert.link) <= LINK_LENGTH else "",
        color=_COLOURS[alert.severity],
        description="\n".join(filter(None, (error, nodes and f"Also failed:\n{nodes}"))),
        fields=[{"name": name, "value": value, "inline": True} for name, value in facts.items()],
        footer={"text": ids_of(alert)},
        timestamp=timestamp(alert.time),
    )


def _grouped(group: Digest, limits: _GroupLimits, cut: Cutter) -> Json:
    newest = group.newest
    return _payload(
        title=_escape(group.headline),
        color=_COLOURS[group.severity],
        description=f"{_block(cluster_lines(group, cut, length=limits.clusters))}\nThe newest {len(newest)}:",
        fields=[_newest(each, limits, with_link=number < limits.links) for number, each in enumerate(newest)],
        footer={"text": f"{rest_of(group)}."},
    )


def _newest(alert: Alert, limits: _GroupLimits, *, with_link: bool) -> Json:
    value = "\n".join(map(_code, details_of(alert, error=limits.error)))
    linked = f"{value}\n[Open](<{alert.link}>)"
    has_link = alert.link and with_link and length(linked) <= VALUE_LENGTH
    return {"name": _escape(alert.headline), "value": linked if has_link else value}


def _payload(**embed: object) -> Json:
    given = {name: value for name, value in embed.items() if value != ""}
    return {"embeds": [given], "allowed_mentions": {"parse": []}}


def _minimal(news: Alert | Digest) -> Json:
    content = f"{_escape(news.headline)}\n{_code(shorten(ids_of(news), IDS_LENGTH))}"
    return {"content": content, "allowed_mentions": {"parse": []}}


def _escape(headline: str) -> str:
    """Return a headline that no Markdown is read in. The names in it are so short that it always has room."""
    return _MARKUP.sub(r"\\\g<0>", headline)


def _code(text: str) -> str:
    return f"`{_without_backticks(text)}`"


def _block(lines: Sequence[str]) -> str:
    text = "\n".join(filter(None, lines))
    return f"```\n{_without_backticks(text)}\n```" if text else ""


def _without_backticks(text: str) -> str:
    """Return a text that no code ends in: the sign that looks alike is none to Discord."""
    return text.replace("`", "\N{MODIFIER LETTER GRAVE ACCENT}")


def _size(message: Json) -> int:
    """Return the characters that count for Discord: those of the embed's texts."""
    (embed,) = message["embeds"]
    texts = [embed["title"], embed.get("description", ""), embed["footer"]["text"]]
    return sum(map(length, [*texts, *(text for each in embed["fields"] for text in (each["name"], each["value"]))]))


_FORMAT = ChatFormat(
    single=_single,
    grouped=_grouped,
    minimal=_minimal,
    limits=[Limits(500, 4, 1500)],  # leaves room for the largest event
    group_limits=[
        _GroupLimits(1500, 200, 5),
        _GroupLimits(750, 100, 5),
        _GroupLimits(750, 100, 1),
        _GroupLimits(300, 0, 0),
    ],
    most=MESSAGE_LENGTH,
    size=_size,
)
