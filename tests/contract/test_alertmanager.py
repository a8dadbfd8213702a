"""The real Alertmanager takes our alerts, keeps them while they last, and resolves them."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alertmanager import Alertmanager, Notifications, installed
from e2e.programme import Board
from receiver import Receiver, answer, says
from sample_events import PROBLEM, data_of, hostile_failures, sample

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import timestamp
from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import Problem, SentOpening
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import REMEDIES
from watcher.sinks.protocol import SendOutcome, SendResult, Sink, SinkContext
from watcher.sinks.webhook import WebhookSettings

pytestmark = installed

DELIVERED = SendResult(SendOutcome.DELIVERED, "200")
AMTOOL = shutil.which("amtool")
FAILING = "ClerkPipelineFailing"


@pytest.fixture
def notifications() -> Notifications:
    return Notifications()


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
async def hook(notifications: Notifications, board: Board) -> AsyncIterator[Receiver]:
    async def reply(writer: asyncio.StreamWriter) -> None:
        notifications.take(receiver.requests[-1].body)
        board.notice()
        await says(answer(200))(writer)

    async with Receiver(reply) as receiver:
        yield receiver


@pytest.fixture
async def alertmanager(hook: Receiver, tmp_path: Path) -> AsyncIterator[Alertmanager]:
    async with Alertmanager(tmp_path, hook=hook.url) as alertmanager:
        yield alertmanager


@pytest.fixture
async def sink(alertmanager: Alertmanager) -> AsyncIterator[Sink]:
    settings = WebhookSettings.model_validate({"type": "webhook", "template": "alertmanager", "url": alertmanager.url})
    sink = settings.open(SinkContext(Clock()))
    yield sink
    await sink.close()


def now(type_: EventType, *, number: int = 1, **problem: Any) -> Delivery:
    """Return an event that was seen just now, perhaps of a problem that began a minute ago."""
    at = datetime.now(UTC)
    data = data_of(type_, number)
    data["observed"]["at"] = timestamp(at)
    if "problem" in data:
        data["problem"] |= {"openedAt": timestamp(at - timedelta(minutes=1))} | problem
        data["problem"] |= {"closedAt": timestamp(at)} if "closedAt" in data["problem"] else {}
    return sample(type_, number=number, data=data)


def opened() -> SentOpening:
    """Return the problem that began a minute ago, as it is refreshed."""
    began_at = datetime.now(UTC) - timedelta(minutes=1)
    problem = Problem(UUID(PROBLEM), EventType.PIPELINE_FAILING, began_at, EventKey(b"s", 1))
    return SentOpening(problem, now(EventType.PIPELINE_FAILING).body)


@pytest.mark.parametrize("type_", EventType)
async def test_it_takes_every_event(alertmanager: Alertmanager, sink: Sink, type_: EventType) -> None:
    assert await sink.send([now(type_)]) == DELIVERED
    is_shown = "closedAt" not in data_of(type_).get("problem", {}) and type_ is not EventType.PROBLEM_ACKNOWLEDGED
    assert bool(await alertmanager.alerts()) is is_shown


async def test_it_takes_hostile_texts_as_texts(alertmanager: Alertmanager, sink: Sink) -> None:
    batch = hostile_failures(1, count=256)
    assert await sink.send(batch) == DELIVERED
    alerts = (await alertmanager.alerts()).values()
    assert len(alerts) == 256
    texts = [text for alert in alerts for part in ("labels", "annotations") for text in alert[part].values()]
    assert all(text.replace("\n", "").isprintable() for text in texts)
    assert any("<!channel>" in text for text in texts)


async def test_a_problem_fires_once_and_is_resolved_once_however_often_it_is_refreshed(
    alertmanager: Alertmanager, sink: Sink, notifications: Notifications, board: Board
) -> None:
    assert await sink.send([now(EventType.PIPELINE_FAILING)]) == DELIVERED
    await board.until(lambda: notifications.lines, within_s=10, what="it was notified")
    for _ in range(3):
        assert await sink.refresh([opened()]) == DELIVERED
    assert set(await alertmanager.alerts()) == {FAILING}
    assert await sink.send([now(EventType.PIPELINE_RECOVERED)]) == DELIVERED
    assert await alertmanager.alerts() == {}
    await board.until(lambda: len(notifications.lines) > 1, within_s=10, what="its end was notified")
    assert notifications.lines == [f"firing {FAILING}", f"resolved {FAILING}"]


async def test_killed_it_has_every_open_problem_again_within_a_refresh(
    alertmanager: Alertmanager, sink: Sink, notifications: Notifications, board: Board
) -> None:
    assert await sink.send([now(EventType.PIPELINE_FAILING)]) == DELIVERED
    await alertmanager.kill()
    refused = SendResult(SendOutcome.RETRY, "refused", remedy=REMEDIES["refused"])
    assert await sink.refresh([opened()]) == refused
    assert await sink.send([now(EventType.EXECUTION_FAILED)]) == refused
    await alertmanager.start()
    assert await alertmanager.alerts() == {}
    assert await sink.refresh([opened()]) == DELIVERED
    alerts = await alertmanager.alerts()
    assert set(alerts) == {FAILING}
    lasts = datetime.fromisoformat(alerts[FAILING]["endsAt"]) - datetime.now(UTC)
    assert timedelta(minutes=2.8) < lasts <= timedelta(minutes=3)
    fires, ends = f"firing {FAILING}", f"resolved {FAILING}"  # what it had notified of is lost with its memory
    await board.until(lambda: notifications.lines[-1:] == [fires], within_s=10, what="it was notified")
    assert await sink.send([now(EventType.PIPELINE_RECOVERED)]) == DELIVERED
    await board.until(lambda: notifications.lines[-1:] == [ends], within_s=10, what="its end was notified")


async def test_a_refresh_read_before_the_end_opens_nothing_again(alertmanager: Alertmanager, sink: Sink) -> None:
    assert await sink.send([now(EventType.PIPELINE_FAILING)]) == DELIVERED
    read = [opened()]
    assert await sink.send([now(EventType.PIPELINE_RECOVERED)]) == DELIVERED
    assert await sink.refresh(read) == DELIVERED
    assert await alertmanager.alerts() == {}


@pytest.mark.skipif(AMTOOL is None, reason="amtool is not installed: apt-get install prometheus-alertmanager")
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=ClerkPipelineFailing", "severity=critical"], "pager"),
        (["alertname=ClerkExecutionFailed", "severity=error"], "chat"),
    ],
)
def test_it_takes_the_routes_of_the_documentation(labels: list[str], receiver: str, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "receivers" / "alertmanager.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n# /etc/prometheus/alertmanager.yml\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "alertmanager.yml"
    path.write_text(block, encoding="utf-8")
    assert AMTOOL is not None
    subprocess.run([AMTOOL, "check-config", path], check=True, capture_output=True)
    routes = [AMTOOL, "config", "routes", "test", f"--config.file={path}", *labels]
    assert subprocess.run(routes, check=True, capture_output=True, text=True).stdout.strip() == receiver
