import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

import pytest
from documents import DOCS
from documents.events_text import FIELDS
from receiver import Receiver

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.timestamps import Micros
from watcher.runtime.clock import Clock
from watcher.sinks.protocol import SendOutcome, SinkContext
from watcher.sinks.webhook import WebhookSettings

PAGE = (DOCS / "events.md").read_text(encoding="utf-8")
EXAMPLES = [
    json.loads(text) for text in re.findall(r"^### \S+\n\n.*?^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
]
"""What the watcher emits, for the page is as old as the code (test_docs_pages.py). To emit it all takes seconds."""

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
BODY = b'{"specversion":"1.0","id":"b0617419-fe65-55d1-a700-69c672b2e5ec","type":"execution.failed"}'
DELIVERY = Delivery(
    sink="ops",
    number=1,
    ordering_key=b"a",
    event_id=UUID("b0617419-fe65-55d1-a700-69c672b2e5ec"),
    type=EventType.EXECUTION_FAILED,
    body=BODY,
    recorded_at=Micros(0),
    due_at=Micros(0),
)


def names(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in data.items():
        if isinstance(value, Mapping) and key != "labels":
            yield from names(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_every_type_is_described_and_shown() -> None:
    assert [example["type"] for example in EXAMPLES] == list(EventType), "run `make docs`"


def test_every_field_of_an_example_is_explained() -> None:
    shown = {name for example in EXAMPLES for name in names(example["data"])}
    assert shown == set(FIELDS) - {"link", "runbook"}  # which only the configuration brings


@pytest.fixture
def receive() -> Callable[..., int]:
    """The receiver as the page has it."""
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code
    namespace: dict[str, Any] = {}
    exec(code[1], namespace)  # noqa: S102 (the page's own lines are what is tested)
    function: Callable[..., int] = namespace["receive"]
    return function


async def test_the_receiver_of_the_page_takes_a_real_request_once(receive: Callable[..., int]) -> None:
    async with Receiver() as receiver:
        settings = WebhookSettings.model_validate({"type": "webhook", "url": receiver.url, "secret": SECRET})
        sink = settings.open(SinkContext(Clock()))
        assert (await sink.send([DELIVERY])).outcome is SendOutcome.DELIVERED
        await sink.close()
        request = receiver.requests[0]
    seen: set[str] = set()
    queue: list[dict[str, Any]] = []
    answers = [receive(request.body, request.headers, secret=SECRET, seen=seen, queue=queue) for _ in range(2)]
    assert (answers, [event["id"] for event in queue]) == ([204, 204], [str(DELIVERY.event_id)])
    assert receive(request.body + b" ", request.headers, secret=SECRET, seen=set(), queue=queue) == 401
