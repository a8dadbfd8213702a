"""What holds for every sink: one attempt, all of it arrives, trouble as a result, cancellation let through."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from uuid import UUID

import pytest
from fake_slack import FakeSlack
from mail_server import MailServer
from receiver import Receiver, answer, hangs, says, sink_to
from sample_events import sample
from worker_rig import FakeClock

from watcher.domain.delivery import Delivery
from watcher.domain.errors import LeaseExpiredError
from watcher.domain.event import EventType
from watcher.domain.timestamps import Micros
from watcher.sinks.email import EmailSettings
from watcher.sinks.output import StdoutOutput
from watcher.sinks.protocol import SendOutcome, Sink, SinkContext
from watcher.sinks.stdout import StdoutSink

BODIES = [b"{}", '{"name": "Größe € 🦉"}'.encode(), b'{"x": "' + b"y" * 16_000 + b'"}', b'{"line": "a\\nb"}']


@dataclass(frozen=True, slots=True)
class Target:
    """A sink, and where it sends to, seen from the other side."""

    sink: Sink
    stop_answering: Callable[[], None]
    received: Callable[[], list[bytes]]


class SinkLease:
    """Ownership of a sink, until it has run out."""

    has_expired = False

    def check(self) -> None:
        if self.has_expired:
            raise LeaseExpiredError("by the test")


@asynccontextmanager
async def receiver(type_: str, url: str, lease: SinkLease) -> AsyncIterator[Target]:
    async with (
        Receiver(says(answer(200))) as receiver,
        sink_to(f"{url}:{receiver.port}", type=type_, before_request=lease.check) as sink,
    ):
        yield Target(
            sink, lambda: setattr(receiver, "reply", hangs), lambda: [request.body for request in receiver.requests]
        )


@asynccontextmanager
async def slack_bot(lease: SinkLease) -> AsyncIterator[Target]:
    async with FakeSlack() as slack, sink_to(**cast("Any", slack.block()), before_request=lease.check) as sink:
        yield Target(
            sink,
            lambda: setattr(slack, "hangs", True),
            lambda: [" ".join(each.lines).encode() for each in slack.posted()],
        )


@asynccontextmanager
async def email(lease: SinkLease) -> AsyncIterator[Target]:
    async with MailServer() as server:
        sink = EmailSettings.model_validate(server.block()).open(SinkContext(FakeClock(), before_request=lease.check))
        yield Target(
            sink, lambda: setattr(server, "hangs", True), lambda: [mail.body("plain").encode() for mail in server.mails]
        )


@asynccontextmanager
async def stdout(lease: SinkLease) -> AsyncIterator[Target]:
    reading, writing = os.pipe()
    others = set(threading.enumerate())
    output = StdoutOutput(writing)
    (thread,) = set(threading.enumerate()) - others

    def fill() -> None:
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)

    yield Target(StdoutSink(output), fill, lambda: os.read(reading, 1_000_000).splitlines())
    output.close()
    os.close(reading)
    await asyncio.to_thread(thread.join)  # else it may write on into what gets this descriptor next
    os.close(writing)


webhook = partial(receiver, "webhook", "http://127.0.0.1")
apprise = partial(receiver, "apprise", "json://127.0.0.1")
MESSAGES, EVENTS = [apprise, email, slack_bot], [webhook, stdout]
"""What makes a message of each event, and what sends it as it is."""


@pytest.fixture
def lease() -> SinkLease:
    return SinkLease()


@pytest.fixture(params=[*EVENTS, *MESSAGES])
async def target(request: pytest.FixtureRequest, lease: SinkLease) -> AsyncIterator[Target]:
    async with request.param(lease=lease) as target:
        yield target


def delivery(body: bytes) -> Delivery:
    return Delivery("ops", 1, b"s", UUID(int=1), "execution.failed", body, Micros(0), Micros(0))


@pytest.mark.parametrize("target", EVENTS, indirect=True)
@pytest.mark.parametrize("body", BODIES)
async def test_a_body_arrives_byte_for_byte(target: Target, body: bytes) -> None:
    result = await target.sink.send([delivery(body)])
    assert result.outcome is SendOutcome.DELIVERED
    assert target.received() == [body]


async def test_sixteen_at_once_all_arrive(target: Target) -> None:
    deliveries = [sample(EventType.EXECUTION_FAILED, number=number) for number in range(16)]
    receipts = await asyncio.gather(*(target.sink.send([each]) for each in deliveries))
    assert {result.outcome for result in receipts} == {SendOutcome.DELIVERED}
    received = target.received()
    ids = [str(each.event_id).encode() for each in deliveries]
    assert sorted(id_ for id_ in ids for body in received if id_ in body) == sorted(ids)


async def test_an_attempt_can_be_broken_off(target: Target) -> None:
    target.stop_answering()
    sending = asyncio.create_task(target.sink.send([sample(EventType.EXECUTION_FAILED)]))
    done, _ = await asyncio.wait([sending], timeout=0.05)
    assert not done
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


@pytest.mark.parametrize("target", [webhook, *MESSAGES], indirect=True)
async def test_nothing_goes_out_once_the_lease_has_run_out(target: Target, lease: SinkLease) -> None:
    lease.has_expired = True
    with pytest.raises(LeaseExpiredError):
        await target.sink.send([sample(EventType.EXECUTION_FAILED)])
    assert target.received() == []
