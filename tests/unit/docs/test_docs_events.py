"""The pages about events explain every type and field; their receiver and their ways to verify work as they stand."""

import asyncio
import base64
import json
import re
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from documents import DOCS
from documents.events import emitted
from documents.events_text import FIELDS
from receiver import Receiver
from standardwebhooks import WebhookVerificationError

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.timestamps import Micros
from watcher.runtime.clock import Clock
from watcher.sinks.protocol import SendOutcome, SinkContext
from watcher.sinks.webhook import WebhookSettings, sign, signing_key

PAGE = (DOCS / "receive.md").read_text(encoding="utf-8")
SIGNING = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
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


@pytest.mark.ci
async def test_every_type_has_a_section_and_every_field_is_explained() -> None:
    page = (DOCS / "reference" / "events.md").read_text(encoding="utf-8")
    assert re.findall(r"^### (\S+)$", page, re.MULTILINE) == list(EventType), "run `make docs`"
    shown = {name for example in (await emitted()).values() for name in names(example["data"])}
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
        settings = WebhookSettings.model_validate({"type": "webhook", "url": receiver.url, "secret": SIGNING})
        sink = settings.open(SinkContext(Clock()))
        assert (await sink.send([DELIVERY])).outcome is SendOutcome.DELIVERED
        await sink.close()
        request = receiver.requests[0]
    seen: set[str] = set()
    queue: list[dict[str, Any]] = []
    answers = [receive(request.body, request.headers, secret=SIGNING, seen=seen, queue=queue) for _ in range(2)]
    assert (answers, [event["id"] for event in queue]) == ([204, 204], [str(DELIVERY.event_id)])
    assert receive(request.body + b" ", request.headers, secret=SIGNING, seen=set(), queue=queue) == 401


OTHER = "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNk"
SIGNED = '[{"type": "execution.failed", "data": {"name": "Größe € \'quoted\' $HOME\\n"}}]\n'.encode()

Verify = Callable[[bytes, Mapping[str, str]], Awaitable[bool]]


def request(*, secrets: tuple[str, ...] = (SIGNING,), age_s: int = 0) -> dict[str, str]:
    timestamp = str(int(time.time()) - age_s)
    keys = [signing_key(secret) for secret in secrets]
    signature = sign(SIGNED, message_id="b0617419-fe65", timestamp=timestamp, keys=keys)
    return {"webhook-id": "b0617419-fe65", "webhook-timestamp": timestamp, "webhook-signature": signature}


def code(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.partition("## Verify a signature")[2], re.DOTALL)
    return str(found)


async def ends_well(*command: str, body: bytes = b"") -> bool:
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    await process.communicate(body)
    return process.returncode == 0


def in_python(_: Path) -> Verify:
    namespace: dict[str, Any] = {}
    exec(code("python"), namespace)  # noqa: S102 (the page's own lines are what is tested)

    async def verify(body: bytes, headers: Mapping[str, str]) -> bool:
        try:
            return bool(namespace["events_of"](body, headers, SIGNING) == json.loads(body))
        except WebhookVerificationError:
            return False

    return verify


def in_node(folder: Path) -> Verify:
    (folder / "verify.mjs").write_text(code("js"), encoding="utf-8")
    asks = "const [body, headers, secret] = process.argv.slice(1);"
    answers = 'process.exit(verify(Buffer.from(body, "base64"), JSON.parse(headers), secret) ? 0 : 1);'
    script = f'import {{ verify }} from "{folder}/verify.mjs"; {asks} {answers}'

    async def verify(body: bytes, headers: Mapping[str, str]) -> bool:
        given = (base64.b64encode(body).decode(), json.dumps(headers), SIGNING)
        return await ends_well("node", "--input-type=module", "-e", script, *given)

    return verify


def in_shell(_: Path) -> Verify:
    script = f'{code("sh")}verify "$@"'

    async def verify(body: bytes, headers: Mapping[str, str]) -> bool:
        return await ends_well("sh", "-c", script, "sh", SIGNING, *headers.values(), body=body)

    return verify


@pytest.fixture(params=["python", "node", "openssl"])
def verify(request: pytest.FixtureRequest, tmp_path: Path) -> Verify:
    """Each of the three ways; those that need a program which is not there are skipped by its name."""
    if request.param != "python" and shutil.which(request.param) is None:
        pytest.skip(f"needs {request.param}")
    way: Callable[[Path], Verify] = {"python": in_python, "node": in_node, "openssl": in_shell}[request.param]
    return way(tmp_path)


@pytest.mark.ci
async def test_a_request_is_taken_as_it_was_signed_and_in_no_other_form(verify: Verify) -> None:
    good = request()
    rotating = request(secrets=(OTHER, SIGNING))
    assert [await verify(SIGNED, each) for each in (good, rotating)] == [True, True]
    tampered = {**good, "webhook-id": "b0617419-fe66"}
    unsigned = {**good, "webhook-signature": "v1,"}
    foreign = request(secrets=(OTHER,))
    refused = [await verify(SIGNED, each) for each in (tampered, unsigned, foreign)]
    refused += [await verify(SIGNED, request(age_s=age_s)) for age_s in (310, -310)]
    assert [*refused, await verify(SIGNED + b" ", good)] == [False] * 6
