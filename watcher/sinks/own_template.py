"""The operator's own template: a Jinja2 file that makes JSON from an event or a group.

The template is tried with examples when the configuration is read. An event that cannot be rendered is sent as stored.
"""

import json
import traceback
from collections.abc import Sequence
from pathlib import Path

import structlog
from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import Json
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.clock import Clock
from watcher.sinks.alert import Alert, to_json
from watcher.sinks.chat import notice_of_alerts
from watcher.sinks.template import BatchTemplate, EventTemplate, Message, Template, TemplateFailure

log = structlog.get_logger()

MESSAGE_BYTES = 256 * 1024
LOGGED_EVERY_S = 3600.0

_USE_TOJSON = 'put every value in by tojson, such as {"text": {{ headline | tojson }}}'
_HANDLE_ABSENT = 'write default(""), or ask by "is defined"; what a template sees is in docs/receivers/template.md'

_EXAMPLES: Sequence[Json] = json.loads(Path(__file__).with_name("example_events.json").read_bytes())
"""The events that a template is tried with: one has an execution, one has none. Their texts hold quotes."""


class BadMessageError(Exception):
    """A rendered text that cannot be sent. The error's own text holds nothing of an event."""


class OwnTemplate(Template):
    """One message per event or group: the rendered file, or the events as they are stored if rendering fails."""

    def __init__(self, source: str, *, clock: Clock | None = None, public_url: str = "") -> None:
        """Compile the template. Raises an error of the `jinja2` package if `source` is not a valid template."""
        super().__init__(clock=clock, public_url=public_url)
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
        environment.filters["tojson"] = _tojson
        self._template = environment.from_string(source)
        self._failed_count = 0  # failures since the last line in the log
        self._quiet_until = EARLIEST

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one message for an event or a group."""
        events = [each.content for each in batch]
        try:
            return [self.message([Alert.of_delivery(each, self.public_url) for each in batch], events)]
        except Exception as error:  # noqa: BLE001 (a template may raise anything)
            return self._plain(batch, _failure_of(error, f"cannot be rendered ({type(error).__name__})"))

    def message(self, alerts: Sequence[Alert], events: Sequence[Json]) -> Message:
        """Render the message for an event or a group. Raises `BadMessageError` and errors of Jinja's."""
        notice, newest = notice_of_alerts(alerts, error_length=MESSAGE_BYTES), alerts[-1]
        values = {  # docs/receivers/template.md lists them
            "event": events[-1],
            "events": events,
            "id": notice.id,
            "headline": notice.headline,
            "error": notice.error,
            "severity": str(notice.severity),
            "is_trouble": notice.is_trouble,
            "link": newest.link or "",
            "page": notice.links.get("Details") or newest.page or "",
            "runbook": newest.links.get("Runbook", ""),
        }
        body = self._template.render(values).strip().encode()
        if len(body) > MESSAGE_BYTES:
            raise BadMessageError(f"renders more than {MESSAGE_BYTES // 1024} KiB")
        try:
            json.loads(body)
        except json.JSONDecodeError as error:
            raise BadMessageError(f"renders no JSON: {error}") from None
        if body[:1] not in {b"{", b"["}:
            raise BadMessageError("renders no JSON object or list")
        return Message(notice.id, body)

    def _plain(self, batch: Sequence[Delivery], failure: TemplateFailure) -> list[Message]:
        """Return the events as they are stored, a group as one batch. Log the failure, at most once an hour."""
        self._failed_count += 1
        now = self.clock.monotonic()
        if now >= self._quiet_until:
            log.error(
                "template.failed",
                sink=batch[0].sink,
                event_id=str(batch[0].event_id),
                type=batch[0].type,
                count=self._failed_count,
                reason=failure.reason,
                line=failure.line or None,
                remedy=f"the plain event was sent instead; {failure.remedy}",
            )
            self._failed_count, self._quiet_until = 0, Monotonic(now + LOGGED_EVERY_S)
        return (EventTemplate() if len(batch) == 1 else BatchTemplate()).messages(batch)


def check(source: str, *, with_group: bool) -> TemplateFailure | None:
    """Return the mistake in a template, or in the messages that it makes from the examples, or `None`."""
    about = ""
    try:
        template = OwnTemplate(source)
        for events in [*([each] for each in _EXAMPLES), *([_EXAMPLES] if with_group else [])]:
            about = f"for {events[0]['type'] if len(events) == 1 else 'a group'}: "
            template.message(list(map(Alert.of, events)), events)
    except Exception as error:  # noqa: BLE001 (a template may raise anything)
        return _failure_of(error, f"{type(error).__name__}: {error}", about=about)
    return None


def _tojson(value: object) -> str:
    """Return a value as JSON. Jinja's own filter would also escape some characters for HTML."""
    if isinstance(value, Undefined):
        str(value)  # raises the error for an absent value
    return to_json(value)


def _failure_of(error: Exception, reason: str, *, about: str = "") -> TemplateFailure:
    """Return an error as a failure with its line. `reason` replaces the text of an error that may quote an event."""
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == "<template>"), 0)
    match error:
        case TemplateSyntaxError():
            return TemplateFailure(error.lineno, about + (error.message or reason))
        case BadMessageError():
            return TemplateFailure(0, f"{about}{error}", _USE_TOJSON)
        case UndefinedError():
            return TemplateFailure(line, about + reason, _HANDLE_ABSENT)
    return TemplateFailure(line, about + reason)
