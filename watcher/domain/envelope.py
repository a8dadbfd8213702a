"""Builds events: their ids, ordering keys and CloudEvents envelopes. The JSON line of an event has at most 16 KiB."""

import json
import re
import secrets
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from watcher.domain.event import Event, EventKey, EventType
from watcher.domain.problems import CLOSED_BY, Problem

NAMESPACE = uuid.UUID("5b9a7c1e-6f43-5d0b-9c57-0e1a4f5d2b86")
"""The namespace of all our UUIDv5. A change would give every event a second id."""


def new_problem(kind: EventType, source: str, *, subject: str = "", nth: int, sequence: int, at: datetime) -> Problem:
    """Return the problem that an event of this kind, source, subject and sequence opens at `at` (wall clock).

    The problem is the nth with its kind, source and subject. The id is made of these four values, so it never changes.
    """
    id_ = uuid.uuid5(NAMESPACE, f"problem/{kind}{source}#{subject}/{nth}")
    return Problem(id_, kind, at, EventKey(stream_of(source, subject), sequence))


def stream_of(source: str, subject: str = "") -> bytes:
    """Return the key of the stream of events with this source and subject."""
    return uuid.uuid5(NAMESPACE, f"{source}#{subject}").bytes


def ordering_key_of(type_: EventType, stream: bytes, *, id_: uuid.UUID) -> bytes:
    """Return the ordering key of an event. A sink gets the events with the same ordering key one after the other.

    All events of an execution share a key. The events of a pipeline, an account or a sink that open or close the same
    kind of problem share a key, too. Any other event has a key of its own.
    """
    if type_.startswith("execution."):
        return stream
    opening = _OPENED_BY.get(type_)
    return id_.bytes if opening is None else uuid.uuid5(NAMESPACE, f"lane/{stream.hex()}/{opening}").bytes


_OPENED_BY = dict[EventType, EventType]()
for _kind, _closing in CLOSED_BY.items():
    _OPENED_BY[_kind] = _OPENED_BY.setdefault(_closing, _kind)
"""The opening from which an ordering key is made, for each opening and each closing.

A sink has only one problem at a time, so all types about a sink's problem share one opening.
"""


def group_id(event_ids: Iterable[uuid.UUID]) -> uuid.UUID:
    """Return the id of a group of events that are sent together. The same events always get the same id."""
    return uuid.uuid5(NAMESPACE, f"group/{'/'.join(map(str, event_ids))}")


def sink_source(sink: str) -> str:
    """Return the source of the events about a sink."""
    return f"/sinks/{sink}"


def problem_source(problem: uuid.UUID) -> str:
    """Return the source of `problem.acknowledged` and `problem.closed`."""
    return f"/problems/{problem}"


TEXT_BYTES = 2048
LIST_LENGTH = 20
LINE_BYTES = 16 * 1024 - 1

Json = dict[str, Any]


def cut(text: str | None, *, limit: int = TEXT_BYTES) -> str | None:
    """Cut a text between characters to at most `limit` bytes of UTF-8. Return `None` for an empty text."""
    if not text:
        return None
    raw = text.encode("utf-8", "replace")
    return raw.decode() if len(raw) <= limit else raw[:limit].decode("utf-8", "ignore")


# JSON allows these unescaped, but a line reader or a terminal would obey them: DEL, the C1 controls, Unicode line ends.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029]")


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def encode(value: Mapping[str, Any]) -> bytes:
    """Return one line of JSON in UTF-8 without any character that a terminal or a line reader would obey."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", _ENCODER.encode(value)).encode()


def truncate(envelope: Json) -> bytes:
    """Encode an envelope whose line is too long: shorten its `data` until the line is short enough.

    First the texts of failed nodes and goals are cut, then all texts and the number of nodes and goals. If the line is
    still too long, the link, the runbook and at last the labels are left out. Statuses, times and numbers always stay.
    """
    data = envelope["data"]
    for limits in _LIMITS:
        data = data | {name: _cut(data[name], *limits) for name in ("execution", "pipeline", "latest") if name in data}
        if len(body := encode(envelope | {"data": data})) <= LINE_BYTES:
            return body
    for name in ("link", "runbook", "labels"):
        data = {key: item for key, item in data.items() if key != name}
        if len(body := encode(envelope | {"data": data})) <= LINE_BYTES:
            break
    return body


_LIMITS = ((TEXT_BYTES, 256, LIST_LENGTH), (128, 64, 3))
"""The limits, in the order in which they are tried: bytes of a text, bytes of a text in a list, entries of a list.

With the last limits, and without link, runbook and labels, every line is short enough.
"""

_NEVER_CUT = frozenset({"status", "previousStatus"})


def _cut(value: Any, text_bytes: int, item_bytes: int, items: int) -> Any:
    if isinstance(value, dict):
        return {
            name: item if name in _NEVER_CUT else _cut(item, text_bytes, item_bytes, items)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_cut(each, item_bytes, item_bytes, items) for each in value[:items]]
    return cut(value, limit=text_bytes) if isinstance(value, str) else value


def event_of(
    type_: EventType,
    source: str,
    time: datetime,
    *,
    sequence: int,
    data: Json,
    subject: str | None = None,
    id_: uuid.UUID | None = None,
    ordering_key: bytes | None = None,
) -> Event:
    """Build an event with its envelope. Without `id_` the event gets a UUIDv7 of `time` (wall clock).

    `subject` is the id of an execution. Without `ordering_key` the event gets the key of its type, source and subject.
    """
    id_ = id_ or uuid7(int(time.timestamp() * 1000))
    envelope = {
        "specversion": "1.0",
        "id": str(id_),
        "source": source,
        "type": type_,
        "subject": subject,
        "time": timestamp(time),
        "datacontenttype": "application/json",
        "sequence": f"{sequence:010d}",
        "data": data,
    }
    body = encode(present(envelope))
    if len(body) > LINE_BYTES:
        body = truncate(present(envelope))
    stream, problem = stream_of(source, subject or ""), data.get("problem")
    return Event(
        id_,
        type_,
        stream,
        sequence,
        body,
        ordering_key or ordering_key_of(type_, stream, id_=id_),
        problem=problem and uuid.UUID(problem["id"]),
        closes=bool(problem and problem.get("closedAt")),
        account=data.get("account"),
        pipeline=data.get("pipeline", {}).get("id"),
        labels=data.get("labels", {}),
    )


def present(value: Json) -> Json:
    """Return a JSON object without the members that are `None` or empty, also within its nested objects."""
    kept: Json = {}
    for key, item in value.items():
        kept_item = present(item) if isinstance(item, dict) else item
        if kept_item or not (kept_item is None or isinstance(kept_item, dict | list)):
            kept[key] = kept_item
    return kept


def timestamp(moment: datetime) -> str:
    """Return a moment as RFC 3339 text in UTC with milliseconds: `2026-11-24T10:00:01.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def uuid7(now_ms: int) -> uuid.UUID:
    """Return a UUIDv7 of this Unix time in milliseconds (RFC 9562, 5.7)."""
    value = (now_ms & (2**48 - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)
