"""The CloudEvents envelope around the data of an event."""

import secrets
import uuid
from datetime import UTC, datetime

from watcher.domain.event import Event, EventType
from watcher.domain.event_ids import lane_of, stream_of
from watcher.domain.event_size import Json, truncate


def event_of(
    type_: EventType,
    source: str,
    time: datetime,
    *,
    sequence: int,
    data: Json,
    subject: str | None = None,
    id_: uuid.UUID | None = None,
    lane: bytes | None = None,
) -> Event:
    """Build the envelope. What has no id that stays the same for ever gets one of its time.

    `lane` is given where it is not that of the event's own source and type.
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
    stream, problem = stream_of(source, subject or ""), data.get("problem")
    return Event(
        id_,
        type_,
        stream,
        sequence,
        truncate(present(envelope)),
        lane=lane or lane_of(type_, stream, id_=id_),
        problem=problem and uuid.UUID(problem["id"]),
        closes=bool(problem and problem.get("closedAt")),
        account=data.get("account"),
        pipeline=data.get("pipeline", {}).get("id"),
        labels=data.get("labels", {}),
    )


def present(value: Json) -> Json:
    """Leave out what is absent: `None` and empty containers, at every depth."""
    kept: Json = {}
    for key, item in value.items():
        kept_item = present(item) if isinstance(item, dict) else item
        if kept_item or not (kept_item is None or isinstance(kept_item, dict | list)):
            kept[key] = kept_item
    return kept


def timestamp(moment: datetime) -> str:
    """Return RFC 3339 in UTC with milliseconds: `2026-11-24T10:00:01.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def uuid7(now_ms: int) -> uuid.UUID:
    """Return a UUIDv7 of that Unix time in milliseconds (RFC 9562, 5.7)."""
    value = (now_ms & (2**48 - 1)) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)
