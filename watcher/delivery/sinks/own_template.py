"""A template of one's own: what a Jinja2 file sees of events, that it must make JSON of them, and what if it does not.

What fails is sent all the same, as the plain event. Imports jinja2, by way of the sandbox.
"""

import json
from collections.abc import Sequence
from typing import Any, NoReturn
from uuid import UUID

from watcher.delivery.sinks.alert import Alert
from watcher.delivery.sinks.alert_text import clean, shorten
from watcher.delivery.sinks.digest import Digest
from watcher.delivery.sinks.example_events import example_events, example_groups
from watcher.delivery.sinks.http_post import Answer
from watcher.delivery.sinks.jinja_sandbox import BadTemplateError, SandboxedTemplate
from watcher.delivery.sinks.protocol import SendResult
from watcher.delivery.sinks.template import (
    SHOWN_LENGTH,
    BatchTemplate,
    EventTemplate,
    Message,
    Template,
    TemplateFailure,
    result_of_status,
)
from watcher.domain.delivery import Delivery
from watcher.domain.event_ids import group_id

NAMES = ("event", "events", "id", "headline", "error", "severity", "is_trouble", "link")
"""What a template sees (docs/sinks.md)."""

MESSAGE_BYTES = 256 * 1024
STEPS = 10_000
STEPS_PER_EVENT = 100
"""What one message may cost, and how much more for each further event in it: for one event some 50 ms at worst."""

_USE_TOJSON = 'put every value in by tojson, such as {"text": {{ headline | tojson }}}'


class OwnTemplate(Template):
    """One message per event or per group: what the file makes of it, else the event as it is."""

    def __init__(self, source: str) -> None:
        """Compile the file. Raises `BadTemplateError`."""
        self._template = SandboxedTemplate(source, names=NAMES)

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one message, also for a group."""
        ids = [delivery.event_id for delivery in batch]
        try:
            body = self.render([delivery.body for delivery in batch], ids=ids)
        except BadTemplateError as error:
            return _plain(batch, error.failure)
        return [Message(_id_of(ids), body)]

    def send_result(self, answer: Answer) -> SendResult:
        """Return what its status code means."""
        return result_of_status(answer.status)

    def preview(self, body: bytes) -> list[str]:
        """Return the beginning of the JSON."""
        return [shorten(body.decode(), SHOWN_LENGTH)]

    def render(self, bodies: Sequence[bytes], *, ids: Sequence[UUID]) -> bytes:
        """Return the body for one event or a group. Raises `BadTemplateError`."""
        values = _values_of(bodies, ids)
        text = self._template.render(values, steps_count=STEPS + STEPS_PER_EVENT * (len(bodies) - 1)).strip()
        try:
            made = json.loads(text, parse_constant=_refuse)
            body = text.encode()
        except json.JSONDecodeError as error:
            reason = f"renders no JSON: {error.msg} in line {error.lineno}, column {error.colno} of the message"
            raise _no_json(reason) from None
        except (ValueError, RecursionError):
            raise _no_json("renders no JSON") from None
        if not isinstance(made, dict | list):
            raise _no_json("renders no JSON object or list")
        if len(body) > MESSAGE_BYTES:
            raise BadTemplateError(TemplateFailure(0, f"renders more than {MESSAGE_BYTES // 1024} KiB"))
        return body


def check(source: str) -> TemplateFailure | None:
    """Return what is wrong with a template, or with what it makes of two examples of every type and two groups."""
    try:
        template = OwnTemplate(source)
    except BadTemplateError as error:
        return error.failure
    trials = [(f"for {event.type}", [event]) for event in example_events()]
    for what, events in [*trials, *(("for a group", group) for group in example_groups())]:
        try:
            template.render([event.body for event in events], ids=[event.id for event in events])
        except BadTemplateError as error:
            return error.failure._replace(reason=f"{what}: {error.failure.reason}")
    return None


def _values_of(bodies: Sequence[bytes], ids: Sequence[UUID]) -> dict[str, Any]:
    """Return what the template sees: of a group what a digest says, and its newest event."""
    events = [json.loads(body) for body in bodies]
    newest = Alert.read(bodies[-1])
    seen: Alert | Digest = newest
    error = clean(newest.error)
    if len(bodies) > 1:
        seen = Digest()
        for body, id_ in zip(bodies, ids, strict=True):
            seen.add(Alert.read(body), event_id=id_)
        error = "\n".join(cluster.line for cluster in seen.clusters)
    return {
        "event": events[-1],
        "events": events,
        "id": _id_of(ids),
        "headline": seen.headline,
        "error": error,
        "severity": str(seen.severity),
        "is_trouble": seen.is_trouble,
        "link": newest.link or "",
    }


def _id_of(ids: Sequence[UUID]) -> str:
    return str(ids[0] if len(ids) == 1 else group_id(ids))


def _plain(batch: Sequence[Delivery], failure: TemplateFailure) -> list[Message]:
    """Return the events as they are stored: one, or all of a group in a batch."""
    template: Template = EventTemplate() if len(batch) == 1 else BatchTemplate()
    return [
        Message(message.id, message.body, content_type=template.content_type, failure=failure)
        for message in template.messages(batch)
    ]


def _no_json(reason: str) -> BadTemplateError:
    return BadTemplateError(TemplateFailure(0, reason, _USE_TOJSON))


def _refuse(_: str) -> NoReturn:
    """Refuse `NaN` and `Infinity`, which are no JSON."""
    raise ValueError
