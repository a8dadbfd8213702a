"""What holds for every sink: one attempt, all of it arrives, trouble as a result, cancellation let through."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Protocol
from uuid import UUID

import pytest
from fake_slack import FakeSlack
from receiver import Receiver, answer, hangs, says
from sample_events import sample
from worker_rig import FakeClock

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.timestamps import Micros
from watcher.sinks.apprise import AppriseSettings
from watcher.sinks.output import StdoutOutput
from watcher.sinks.protocol import SendOutcome, Sink, SinkContext
from watcher.sinks.slack_bot import SlackBotSettings
from watcher.sinks.stdout import StdoutSink
from watcher.sinks.webhook import WebhookSettings

BODIES = [b"{}", '{"name": "Größe € 🦉"}'.encode(), b'{"x": "' + b"y" * 16_000 + b'"}', b'{"line": "a\\nb"}']


class Target(Protocol):
    """Where a sink sends to, seen from the other side."""

    sink: Sink

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    def stop_answering(self) -> None: ...
    async def received(self) -> list[bytes]: ...


class WebhookTarget:
    async def open(self) -> None:
        self.receiver = await Receiver().__aenter__()
        settings = WebhookSettings.model_validate({"type": "webhook", "url": self.receiver.url})
        self.sink: Sink = settings.open(SinkContext(FakeClock()))

    async def close(self) -> None:
        await self.sink.close()
        await self.receiver.__aexit__(None, None, None)

    def stop_answering(self) -> None:
        self.receiver.reply = hangs

    async def received(self) -> list[bytes]:
        return [request.body for request in self.receiver.requests]


class AppriseTarget:
    async def open(self) -> None:
        self.receiver = await Receiver(says(answer(200))).__aenter__()
        settings = AppriseSettings.model_validate({"type": "apprise", "url": f"json://127.0.0.1:{self.receiver.port}"})
        self.sink: Sink = settings.open(SinkContext(FakeClock()))

    async def close(self) -> None:
        await self.sink.close()
        await self.receiver.__aexit__(None, None, None)

    def stop_answering(self) -> None:
        self.receiver.reply = hangs

    async def received(self) -> list[bytes]:
        return [request.body for request in self.receiver.requests]


class StdoutTarget:
    async def open(self) -> None:
        self.reading, self.writing = os.pipe()
        others = set(threading.enumerate())
        self.output = StdoutOutput(self.writing)
        self.sink: Sink = StdoutSink(self.output)
        (self.thread,) = set(threading.enumerate()) - others

    async def close(self) -> None:
        await self.sink.close()
        self.output.close()
        os.close(self.reading)
        await asyncio.to_thread(self.thread.join)  # else it may write on into what gets this descriptor next
        os.close(self.writing)

    def stop_answering(self) -> None:
        os.set_blocking(self.writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self.writing, b"x" * 4096)

    async def received(self) -> list[bytes]:
        return os.read(self.reading, 1_000_000).splitlines()


class SlackBotTarget:
    async def open(self) -> None:
        self.slack = await FakeSlack().__aenter__()
        self.sink: Sink = SlackBotSettings.model_validate(self.slack.block()).open(SinkContext(FakeClock()))

    async def close(self) -> None:
        await self.sink.close()
        await self.slack.__aexit__(None, None, None)

    def stop_answering(self) -> None:
        self.slack.hangs = True

    async def received(self) -> list[bytes]:
        return [" ".join(each.lines).encode() for each in self.slack.posted()]


MESSAGES, EVENTS = [AppriseTarget, SlackBotTarget], [WebhookTarget, StdoutTarget]
"""What makes a message of each event, and what sends it as it is."""


@pytest.fixture(params=[*EVENTS, *MESSAGES])
async def target(request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    target: Target = request.param()
    await target.open()
    yield target
    await target.close()


def delivery(body: bytes) -> Delivery:
    return Delivery("ops", 1, b"s", UUID(int=1), "execution.failed", body, Micros(0), Micros(0))


@pytest.mark.parametrize("target", EVENTS, indirect=True)
@pytest.mark.parametrize("body", BODIES)
async def test_a_body_arrives_byte_for_byte(target: Target, body: bytes) -> None:
    result = await target.sink.send([delivery(body)])
    assert result.outcome is SendOutcome.DELIVERED
    assert await target.received() == [body]


async def test_sixteen_at_once_all_arrive(target: Target) -> None:
    deliveries = [sample(EventType.EXECUTION_FAILED, number=number) for number in range(16)]
    receipts = await asyncio.gather(*(target.sink.send([each]) for each in deliveries))
    assert {result.outcome for result in receipts} == {SendOutcome.DELIVERED}
    received = await target.received()
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
