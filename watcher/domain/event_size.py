"""One event as one line: how it is encoded, how long its texts are, and what is left out of a line that is too long."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

TEXT_BYTES = 2048
LIST_LENGTH = 20
LINE_BYTES = 16 * 1024 - 1

Json = dict[str, Any]


def cut(text: str, *, limit: int = TEXT_BYTES) -> str:
    """Cut a text to so many bytes of UTF-8, between characters."""
    raw = text.encode("utf-8", "replace")
    return raw.decode() if len(raw) <= limit else raw[:limit].decode("utf-8", "ignore")


# What JSON allows raw but a line reader or a terminal would obey: DEL, the C1 controls, the Unicode line ends.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029]")


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def encode(value: Mapping[str, Any]) -> bytes:
    """Return one line of JSON in UTF-8 without any character that a terminal or a line reader would obey."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", _ENCODER.encode(value)).encode()


def truncate(envelope: Json) -> bytes:
    """Encode an event's envelope; of a line that is too long, its `data` loses what is needed to make it short enough.

    First go the ends of what failed nodes and goals say, then most of these, then the ends of other texts; then the
    link, and at last the labels. Statuses, times and numbers are never left out, nor are ids that look like ids.
    """
    data, body = envelope["data"], encode(envelope)
    for limits in _LIMITS:
        if len(body) <= LINE_BYTES:
            return body
        data = _cut_execution(envelope["data"], limits)
        body = encode(envelope | {"data": data})
    for name in ("link", "labels"):
        if len(body) > LINE_BYTES:
            data = {key: item for key, item in data.items() if key != name}
            body = encode(envelope | {"data": data})
    return body


class _Limits(NamedTuple):
    """Bytes of each text of a node or goal, how many of these there are, and bytes of other texts."""

    item_bytes: int
    items: int
    text_bytes: int


_LIMITS = (
    *(_Limits(512, 20, TEXT_BYTES), _Limits(256, 20, TEXT_BYTES), _Limits(128, 20, TEXT_BYTES)),
    *(_Limits(64, 10, TEXT_BYTES), _Limits(64, 3, TEXT_BYTES), _Limits(64, 3, 512), _Limits(64, 3, 128)),
)
"""In the order in which they are tried. With the last, and without link and labels, any line is short enough."""

_WHOLE = frozenset({"status", "previousStatus"})


def _cut_execution(data: Json, limits: _Limits) -> Json:
    """Return the data with what the API said of execution and pipeline cut."""
    blocks = {name: _cut_texts(data[name], limits.text_bytes) for name in ("execution", "pipeline") if name in data}
    execution = blocks.get("execution", {})
    if "failedNodes" in execution:
        nodes = execution["failedNodes"][: limits.items]
        execution["failedNodes"] = [_cut_texts(node, limits.item_bytes) for node in nodes]
    if "goals" in execution:
        execution["goals"] = [cut(goal, limit=limits.item_bytes) for goal in execution["goals"][: limits.items]]
    return data | blocks


def _cut_texts(block: Json, limit: int) -> Json:
    return {
        name: cut(value, limit=limit) if isinstance(value, str) and name not in _WHOLE else value
        for name, value in block.items()
    }
