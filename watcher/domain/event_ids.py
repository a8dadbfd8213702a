"""Sources, and the ids that are made of them: of streams, problems and groups."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime

from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import CLOSED_BY, Problem
from watcher.domain.watch import Watch

NAMESPACE = uuid.UUID("5b9a7c1e-6f43-5d0b-9c57-0e1a4f5d2b86")
"""The namespace of all our UUIDv5. Changing it would give every event a second id."""


def new_problem(kind: EventType, source: str, *, subject: str = "", nth: int, sequence: int, at: datetime) -> Problem:
    """Return the problem that an event of this kind, source, subject and sequence opens, which is seen at `at`.

    Its id is the same for ever: it is made of what it is about and the how-manieth of its kind that is.
    """
    id_ = uuid.uuid5(NAMESPACE, f"problem/{kind}{source}#{subject}/{nth}")
    return Problem(id_, kind, at, EventKey(stream_of(source, subject), sequence))


def stream_of(source: str, subject: str = "") -> bytes:
    """Return the key of the stream of events with this source and subject."""
    return uuid.uuid5(NAMESPACE, f"{source}#{subject}").bytes


def lane_of(type_: EventType, stream: bytes, *, id_: uuid.UUID) -> bytes:
    """Return the key of the lane of an event: what a sink gets one after the other.

    What happens to an execution is one lane, and so is what opens and closes each kind of problem of a pipeline, an
    account or a sink. What opens and closes nothing waits for nothing.
    """
    if type_.startswith("execution."):
        return stream
    opening = _OPENED_BY.get(type_)
    return id_.bytes if opening is None else uuid.uuid5(NAMESPACE, f"lane/{stream.hex()}/{opening}").bytes


_OPENED_BY: Mapping[EventType, EventType] = {
    **{kind: kind for kind in CLOSED_BY},
    **{closing: kind for kind, closing in CLOSED_BY.items()},
    **dict.fromkeys(
        (EventType.SINK_FAILING, EventType.SINK_DISABLED, EventType.SINK_RECOVERED), EventType.SINK_FAILING
    ),
}
"""What the lane of an event is named by; a sink has one problem at a time."""


def group_id(event_ids: Iterable[uuid.UUID]) -> uuid.UUID:
    """Return the id of a group of events that are sent together, the same on every attempt."""
    return uuid.uuid5(NAMESPACE, f"group/{'/'.join(map(str, event_ids))}")


def account_source(account: str) -> str:
    """Return the source of an account's own events."""
    return f"/accounts/{account}"


def pipeline_source(watch: Watch) -> str:
    """Return the source of a pipeline's events, and those of its executions."""
    return f"/accounts/{watch.account}/pipelines/{watch.pipeline}"


def sink_source(sink: str) -> str:
    """Return the source of a sink's own events."""
    return f"/sinks/{sink}"
