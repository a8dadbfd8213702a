"""Messages for Slack, in Block Kit: what an incoming webhook and an app post alike.

Names, errors and labels stand in `plain_text` alone, which Slack reads no markup in. `text`, which phones preview, has
markup switched off and `& < >` escaped. https://docs.slack.dev/reference/block-kit/blocks
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import zip_longest
from typing import NamedTuple

from watcher.delivery.sinks.alert import HEADLINE_LENGTH, Alert
from watcher.delivery.sinks.alert_text import Cutter, in_utc, length, shorten, to_json
from watcher.delivery.sinks.chat import (
    ID_LENGTH,
    ChatFormat,
    ChatMessage,
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

MESSAGE_LENGTH = 10_000
"""Slack refuses a message at about 13,200 characters over all blocks (slackapi/bolt-js#2509)."""

SECTION_LENGTH = 3000
PREVIEW_LENGTH = 300
ID_BLOCKS = 2

_DATE = re.compile(r"<!date\^\d+\^[^|]*\|([^>]*)>")


class _GroupLimits(NamedTuple):
    """Characters of the clusters and of a block of ids, and how many of the newest have a link."""

    clusters: int
    ids: int
    links: int


def shown_of(content: Json) -> list[str]:
    """Return the texts of the blocks in their order: fields side by side, buttons in brackets, times in UTC."""
    return [line for block in content["blocks"] for line in _shown(block)]


def _shown(block: Json) -> list[str]:
    match block:
        case {"type": "section", "fields": fields}:
            texts = [_DATE.sub(r"\1", field["text"]).replace("\n", ": ", 1) for field in fields]
            width = max(map(len, texts[::2]))
            pairs = zip_longest(texts[::2], texts[1::2], fillvalue="")
            return [f"{left:{width}}   {right}".rstrip() for left, right in pairs]
        case {"type": "context" | "actions", "elements": [element]}:
            text = element["text"]
            return [text] if isinstance(text, str) else [f"[{text['text']}]"]
    first, *rest = block["text"]["text"].split("\n")
    return [f"{first}   [{block['accessory']['text']['text']}]" if "accessory" in block else first, *rest]


def message_of_problem(alert: Alert) -> ChatMessage:
    """Return the message of a problem, which may be updated."""
    return replace(SLACK.message_of(alert), minimal=_minimal_blocks(alert, alert.headline))


def message_of_end(alert: Alert, opening: Alert | None) -> ChatMessage:
    """Return what the message of a problem becomes when that is over: for how long it lasted, and what it was."""
    headline = shorten(f"✓ {alert.ending}", HEADLINE_LENGTH)
    was = "" if opening is None else ": ".join(filter(None, (f"It was: {opening.title}", opening.error)))
    ending = replace(SLACK, single=partial(_single, headline=headline, was=was))
    return replace(ending.message_of(alert), minimal=_minimal_blocks(alert, headline))


def message_of_note(alert: Alert) -> ChatMessage:
    """Return the one line that says in a thread that its problem is over."""
    return ChatMessage(alert.id, _payload(f"✓ {alert.ending}", "", []), minimal=None, is_cut=False)


def _single(alert: Alert, limits: Limits, cut: Cutter, *, headline: str = "", was: str | None = None) -> Json:
    """Return the message of an event; `was` stands for its errors in that of a problem's end."""
    headline = headline or alert.headline
    error = cut(alert.error if was is None else was, limits.error)
    nodes = "\n".join(other_nodes(alert, cut, count=limits.nodes, length=PREVIEW_LENGTH)) if was is None else ""
    blocks = [
        {"type": "header", "text": _plain(headline)},
        _section(error),
        _section(nodes and f"Also failed:\n{nodes}"),
        {"type": "section", "fields": _fields(alert, limits, cut)},
        {"type": "context", "elements": [_plain(ids_of(alert))]},
        _buttons(alert),
    ]
    return _payload(headline, error, [block for block in blocks if block])


def _fields(alert: Alert, limits: Limits, cut: Cutter) -> list[Json]:
    texts = [_plain(f"{name}\n{value}") for name, value in facts_of(alert, cut, labels=limits.labels).items()]
    when, since = moment_of(alert)
    return [*texts, {"type": "mrkdwn", "text": f"{when}\n{_date(since)}"}]


def _grouped(group: Digest, limits: _GroupLimits, cut: Cutter) -> Json:
    newest = [_newest(alert, with_link=number < limits.links) for number, alert in enumerate(group.newest)]
    others = group.ids if group.count > len(newest) else []  # the newest name their own
    id_blocks, left_count = _id_blocks(others, limits.ids)
    rest = rest_of(group)
    where = f"{rest}; {left_count:,} ids are left out here." if left_count else f"{rest}."
    blocks = [
        {"type": "header", "text": _plain(group.headline)},
        _section("\n".join(cluster_lines(group, cut, length=limits.clusters))),
        _section(f"The newest {len(newest)}:"),
        *newest,
        *id_blocks,
        {"type": "context", "elements": [_plain(where)]},
    ]
    return _payload(group.headline, group.clusters[0].text, [block for block in blocks if block])


def _newest(alert: Alert, *, with_link: bool) -> Json:
    block: Json = {"type": "section", "text": _plain("\n".join([alert.headline, *details_of(alert)]))}
    return block | {"accessory": _button(alert.link)} if alert.link and with_link else block


def _id_blocks(ids: Sequence[str], limit: int) -> tuple[list[Json], int]:
    """Return blocks of so many characters with the first of the ids, and how many found no room."""
    blocks: list[Json] = []
    rest = [shorten(each, ID_LENGTH) for each in ids]
    while rest and len(blocks) < ID_BLOCKS:
        count, taken = 0, 0
        while count < len(rest) and taken + len(rest[count]) < limit:
            taken += len(rest[count]) + 1
            count += 1
        blocks.append(_section(" ".join(rest[:count])))
        rest = rest[count:]
    return blocks, len(rest)


def _minimal(news: Alert | Digest) -> Json:
    return _payload(news.headline, ids_of(news), [])


def _minimal_blocks(alert: Alert, headline: str) -> Json:
    """Return the same in a block, for where the text alone would be read as markup: `chat.update` has no `mrkdwn`."""
    return _payload(headline, ids_of(alert), [_section(f"{headline}\n{ids_of(alert)}")])


def _payload(headline: str, detail: str, blocks: Sequence[Json]) -> Json:
    preview = f"{headline}\n{shorten(detail, PREVIEW_LENGTH)}" if detail else headline
    payload: Json = {"text": _escape(preview), "mrkdwn": False, "unfurl_links": False, "unfurl_media": False}
    return payload | {"blocks": blocks} if blocks else payload


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _date(moment: datetime) -> str:
    """Return Slack's own form of a time, which each reader sees in their zone; there is nothing of others in it."""
    return f"<!date^{int(moment.timestamp())}^{{date_short_pretty}} {{time_secs}}|{in_utc(moment)}>"


def _plain(text: str) -> Json:
    return {"type": "plain_text", "text": text, "emoji": False}


def _section(text: str) -> Json:
    return {"type": "section", "text": _plain(text)} if text else {}


def _button(link: str) -> Json:
    return {"type": "button", "text": _plain("Open"), "url": link}


def _buttons(alert: Alert) -> Json:
    return {"type": "actions", "elements": [_button(alert.link)]} if alert.link else {}


def _size(message: Json) -> int:
    return length(to_json(message))


SLACK = ChatFormat(
    single=_single,
    grouped=_grouped,
    minimal=_minimal,
    limits=[Limits(600, 4, 1500), Limits(0, 4, 1500), Limits(0, 0, 1500), Limits(0, 0, 750), Limits(0, 0, 300)],
    group_limits=[_GroupLimits(1500, SECTION_LENGTH, 5), _GroupLimits(1500, 1500, 5), _GroupLimits(750, 750, 1)],
    most=MESSAGE_LENGTH,
    size=_size,
)
"""The messages of events and groups."""
