"""One event as one line: how it is encoded, how long its texts are, what is given up when it is too long (SPEC 5)."""

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    """Encode an event's envelope, giving up as little of its `data` as makes it short enough.

    The first few steps that suffice are taken; then each is taken back as far as there is room, the last made
    first. Ids, statuses and times are never given up.
    """
    limits = [step.most for step in _TRUNCATION_STEPS]
    body = encode(envelope)
    made = 0
    while len(body) > LINE_BYTES and made < len(_TRUNCATION_STEPS):
        limits[made] = _TRUNCATION_STEPS[made].least
        body = _encode_within(envelope, limits)
        made += 1
    for index in reversed(range(made)):
        limits[index] = _most_that_fits(envelope, limits, index=index)
        body = _encode_within(envelope, limits)
    return body


def _encode_within(envelope: Json, limits: Sequence[int]) -> bytes:
    data = envelope["data"]
    for step, limit in zip(_TRUNCATION_STEPS, limits, strict=True):
        if limit < step.most:
            data = step.give_up(data, limit)
    return encode(envelope | {"data": data})


def _most_that_fits(envelope: Json, limits: Sequence[int], *, index: int) -> int:
    """Return the highest of one step's limits, the others being as they are: the line grows with each."""

    def too_long(limit: int) -> bool:
        return len(_encode_within(envelope, [*limits[:index], limit, *limits[index + 1 :]])) > LINE_BYTES

    least, most = _TRUNCATION_STEPS[index].least, _TRUNCATION_STEPS[index].most
    return least + bisect_left(range(least + 1, most + 1), x=True, key=too_long)


@dataclass(frozen=True, slots=True)
class _TruncationStep:
    """What can be given up: `give_up` returns an event's data with no more of it left than a limit says."""

    least: int
    most: int
    give_up: Callable[[Json, int], Json]


def _with(data: Json, key: str, changes: Json) -> Json:
    """Return the data with a block's values changed: those that are there."""
    if key not in data:
        return data
    return data | {key: data[key] | {name: value for name, value in changes.items() if name in data[key]}}


def _cut_texts(block: Json, limit: int) -> Json:
    return {name: cut(value, limit=limit) if isinstance(value, str) else value for name, value in block.items()}


def _cut_texts_of_lists(data: Json, limit: int) -> Json:
    execution = data.get("execution", {})
    nodes = [_cut_texts(node, limit) for node in execution.get("failedNodes", ())]
    goals = [cut(goal, limit=limit) for goal in execution.get("goals", ())]
    return _with(data, "execution", {"failedNodes": nodes, "goals": goals})


def _shorten_lists(data: Json, limit: int) -> Json:
    execution = data.get("execution", {})
    return _with(data, "execution", {name: execution.get(name, [])[:limit] for name in ("failedNodes", "goals")})


_KEPT = frozenset({"status", "previousStatus", "error"})


def _cut_other_texts(data: Json, limit: int) -> Json:
    """Cut even what the API calls an id: one that is this long is none."""
    execution = {name: value for name, value in data.get("execution", {}).items() if name not in _KEPT}
    shorter = _with(data, "execution", _cut_texts(execution, limit))
    return _with(shorter, "pipeline", _cut_texts(data.get("pipeline", {}), limit))


def _cut_error(data: Json, limit: int) -> Json:
    return _with(data, "execution", {"error": cut(data.get("execution", {}).get("error", ""), limit=limit)})


def _drop_link(data: Json, _limit: int) -> Json:
    return {key: item for key, item in data.items() if key != "link"}


def _drop_labels(data: Json, limit: int) -> Json:
    """Drop the longest, so as to drop few; those that stay keep their order."""
    labels = data.get("labels", {})
    shortest = sorted(labels, key=lambda key: (len(encode({key: labels[key]})), key))[:limit]
    kept = {key: label for key, label in labels.items() if key in shortest}
    return {key: kept if key == "labels" else item for key, item in data.items() if kept or key != "labels"}


# In the order in which they are made. With all of them made, any line is short enough.
_TRUNCATION_STEPS = (
    _TruncationStep(64, TEXT_BYTES, _cut_texts_of_lists),
    _TruncationStep(1, LIST_LENGTH, _shorten_lists),
    _TruncationStep(128, TEXT_BYTES, _cut_other_texts),
    _TruncationStep(256, TEXT_BYTES, _cut_error),
    _TruncationStep(0, 1, _drop_link),
    _TruncationStep(0, 32, _drop_labels),
)
