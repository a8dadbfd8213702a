"""A template of the operator's own: a Jinja2 file that makes JSON of an event or a group. Imports jinja2.

It is tried when the configuration is read. What it cannot render all the same goes out as the plain event.
"""

import asyncio
import json
import traceback
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import Json
from watcher.domain.event import AccountTrouble, EventType
from watcher.domain.event_factory import EventFactory
from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot, FailedNode
from watcher.domain.routing import Router
from watcher.domain.timestamps import to_us
from watcher.domain.transitions import StatusChange
from watcher.domain.watch import Watch
from watcher.runtime.clock import Clock
from watcher.runtime.threads import run_detached
from watcher.sinks.alert import Alert, to_json
from watcher.sinks.chat import read
from watcher.sinks.template import BatchTemplate, EventTemplate, Message, Template, TemplateFailure

MESSAGE_BYTES = 256 * 1024

_USE_TOJSON = 'put every value in by tojson, such as {"text": {{ headline | tojson }}}'
_HANDLE_ABSENT = 'write default(""), or ask by "is defined"; what a template sees is in docs/sinks.md'

_EXECUTION = "9a1b0000-0000-4000-8000-000000000001"
_PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
_WATCH = Watch("default", _PIPELINE, (), name='Sales "agent"', labels={"team": 'the "A" team'})
_FACTS = ExecutionSnapshot(
    _EXECUTION,
    "failed",
    version_id="1c2d0000-0000-4000-8000-000000000002",
    version_number=7,
    started_at=datetime(2026, 11, 24, 11, 58, tzinfo=UTC),
    finished_at=datetime(2026, 11, 24, 12, 0, 31, tzinfo=UTC),
    error='upstream "timeout" after 30 s\nat C:\\new <b>Größe</b>',
    ai_tokens_used=512,
    nodes_started=3,
    triggered_by="message_received",
    triggered_by_entity_id="5e6f0000-0000-4000-8000-000000000003",
    conversation_id="7a8b0000-0000-4000-8000-000000000004",
    failed_nodes=(FailedNode("2d3e0000-0000-4000-8000-000000000005", 'Say "hello"', 'upstream "timeout"'),),
    goals=('Booked "it"',),
)


def _examples() -> list[Json]:
    """Return what a template is tried with: an event of an execution, and one of a problem that has none.

    The texts hold what breaks JSON between quotes.
    """
    events, at = EventFactory(Router({})), datetime(2026, 11, 24, 12, 0, 31, 800_000, tzinfo=UTC)
    failed = events.execution(
        StatusChange(EventType.EXECUTION_FAILED, "failed", "failed", "running", nth=1, sequence=3),
        ExecutionRecord(_EXECUTION, _PIPELINE),
        watch=_WATCH,
        observed_at=at,
        api_at=to_us(at),
        not_before=at - timedelta(seconds=2),
        facts=_FACTS,
        link="https://example.com/runs/1",
    )
    degraded = events.account(
        EventType.ACCOUNT_DEGRADED,
        account="default",
        reason=AccountTrouble.UNREACHABLE,
        cause="timeout",
        problem=None,
        after=0,
        at=at,
    )
    return [json.loads(entry.event.body) for entry in (failed, degraded.entry)]


class BadMessageError(Exception):
    """What was rendered cannot be sent; the text holds nothing of an event."""


class OwnTemplate(Template):
    """One message per event or per group: what the file makes of it, else the event as it is."""

    def __init__(self, source: str, *, timeout_s: float, clock: Clock | None = None, public_url: str = "") -> None:
        """Compile the file. Raises what Jinja does for a file that is no template."""
        super().__init__(clock=clock, public_url=public_url)
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
        environment.filters["tojson"] = _tojson
        self._template = environment.from_string(source)
        self._timeout_s = timeout_s

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one message, also for a group."""
        events = [each.content for each in batch]
        try:
            return [self.message([Alert.of_delivery(each, self.public_url) for each in batch], events)]
        except Exception as error:  # noqa: BLE001 (a template may raise anything)
            return self._plain(batch, _failure_of(error, f"cannot be rendered ({type(error).__name__})"))

    async def prepare(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return the same, made in a thread within the sink's timeout."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await run_detached(partial(self.messages, batch), name="template")
        except TimeoutError:
            return self._plain(batch, TemplateFailure(0, "takes longer than the sink's timeout"))

    def message(self, alerts: Sequence[Alert], events: Sequence[Json]) -> Message:
        """Return the message for one event or a group. Raises what Jinja does, and `BadMessageError`."""
        notice, newest = read(alerts, error_length=MESSAGE_BYTES), alerts[-1]
        values = {  # what a template sees is in docs/sinks.md
            "event": events[-1],
            "events": events,
            "id": notice.id,
            "headline": notice.headline,
            "error": notice.error,
            "severity": str(notice.severity),
            "is_trouble": notice.is_trouble,
            "link": newest.link or "",
            "page": notice.links.get("Details", ""),
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
        """Say why, and return the events as they are stored: one, or all of a group in a batch."""
        self.log.failed(batch[0], failure)
        plain = EventTemplate() if len(batch) == 1 else BatchTemplate()
        return [replace(each, content_type=plain.content_type) for each in plain.messages(batch)]


def check(source: str, *, with_group: bool) -> TemplateFailure | None:
    """Return what is wrong with a template, or with what it makes of the examples."""
    about = ""
    try:
        template = OwnTemplate(source, timeout_s=0.0)
        examples = _examples()
        for events in [*([each] for each in examples), *([examples] if with_group else [])]:
            about = f"for {events[0]['type'] if len(events) == 1 else 'a group'}: "
            template.message(list(map(Alert.of, events)), events)
    except Exception as error:  # noqa: BLE001 (a template may raise anything)
        return _failure_of(error, f"{type(error).__name__}: {error}", about=about)
    return None


def _tojson(value: object) -> str:
    """Return JSON with every character as it is: Jinja's own escapes some for HTML."""
    if isinstance(value, Undefined):
        str(value)  # says that it is absent
    return to_json(value)


def _failure_of(error: Exception, reason: str, *, about: str = "") -> TemplateFailure:
    """Return what went wrong and in which line; `reason` is for errors whose text may hold an event's."""
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
