"""What Alertmanager is told again and again, and what it is told once: neither undoes the other."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

import pytest
from receiver import Receiver, answer, hangs, says
from receivers_rules import check_alertmanager
from sample_events import AT, OPENED_AT, PROBLEM, failed, sample
from worker_rig import EPOCH, FakeClock

from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import Problem, SentOpening
from watcher.runtime.http_client import REMEDIES
from watcher.sinks.protocol import SendOutcome, SendResult, Sink, SinkContext
from watcher.sinks.webhook import WebhookSettings

DELIVERED = SendResult(SendOutcome.DELIVERED, "200")
OPEN, OVER = True, False
SILENT, FAILING = "ClerkPipelineSilent", "ClerkPipelineFailing"


class Held:
    """Answers the first request once it is let go, and all others at once."""

    def __init__(self) -> None:
        self.arrived, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        if not self.arrived.is_set():
            self.arrived.set()
            await self.go_on.wait()
        await says(answer(200))(writer)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver(says(answer(200))) as receiver:
        yield receiver


@pytest.fixture
async def sink(receiver: Receiver) -> AsyncIterator[Sink]:
    block = {"type": "webhook", "template": "alertmanager", "url": receiver.url, "timeout": "200ms"}
    clock = FakeClock((AT - EPOCH).total_seconds())
    sink = WebhookSettings.model_validate(block).open(SinkContext(clock))
    yield sink
    await sink.close()


def sent(
    kind: EventType = EventType.PIPELINE_FAILING, id_: str = PROBLEM, *, closed_at: datetime | None = None
) -> SentOpening:
    return SentOpening(Problem(UUID(id_), kind, OPENED_AT, EventKey(b"s", 1)), sample(kind).body, closed_at=closed_at)


def said(receiver: Receiver) -> list[list[tuple[str, bool]]]:
    """Return of each request the names of its alerts, and whether each still holds."""
    return [
        [
            (alert["labels"]["alertname"], datetime.fromisoformat(alert["endsAt"]) > AT)
            for alert in check_alertmanager(request.body)
        ]
        for request in receiver.requests
    ]


async def test_an_end_goes_behind_the_refresh_that_is_under_way_and_nothing_else_does(
    receiver: Receiver, sink: Sink
) -> None:
    receiver.reply = held = Held()
    refreshing = asyncio.create_task(sink.refresh([sent()]))
    await held.arrived.wait()
    ending = [asyncio.create_task(sink.send([sample(EventType.PIPELINE_RECOVERED, number=each)])) for each in (1, 2)]
    for number in range(3):
        assert await sink.send([failed(number)]) == DELIVERED
    held.go_on.set()
    assert await asyncio.gather(refreshing, *ending) == [DELIVERED] * 3
    failures, over = [[("ClerkExecutionFailed", OPEN)]] * 3, [[(FAILING, OVER)]] * 2
    assert said(receiver) == [[(FAILING, OPEN)], *failures, *over]


async def test_an_end_waits_for_a_refresh_that_hangs_no_longer_than_its_timeout(receiver: Receiver, sink: Sink) -> None:
    held = Held()

    async def reply(writer: asyncio.StreamWriter) -> None:
        is_first = not held.arrived.is_set()
        held.arrived.set()
        await (hangs if is_first else says(answer(200)))(writer)

    receiver.reply = reply
    refreshing = asyncio.create_task(sink.refresh([sent()]))
    await held.arrived.wait()
    assert await sink.send([sample(EventType.PIPELINE_RECOVERED)]) == DELIVERED
    assert await refreshing == SendResult(SendOutcome.RETRY, "timeout", remedy=REMEDIES["timeout"])


async def test_an_end_goes_on_when_a_refresh_is_broken_off(receiver: Receiver, sink: Sink) -> None:
    receiver.reply = held = Held()
    refreshing = asyncio.create_task(sink.refresh([sent()]))
    await held.arrived.wait()
    ending = asyncio.create_task(sink.send([sample(EventType.PIPELINE_RECOVERED)]))
    refreshing.cancel()
    assert await ending == DELIVERED
    assert refreshing.cancelled()
