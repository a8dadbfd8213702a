"""What is silenced is not sent, and not lost; what stays open is said again, outlasts a kill and ends with its rule."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from e2e.endpoint import Receiver
from e2e.programme import PATIENCE_S, Life, page
from e2e.stage import FAILING, Document, Stage, document_of, failing_world, webhook, world_of

from watcher.simulator.server import Simulator

pytestmark = pytest.mark.untraced


@pytest.fixture
async def simulator(stage: Stage) -> Simulator:
    return await stage.simulator(world_of(3, ends_after_s=60, ends_within_s=90))


@pytest.fixture
async def receiver(stage: Stage) -> Receiver:
    return await stage.receiver()


def refused(simulator: Simulator, sink: Document, **more: object) -> Document:
    """Return a configuration whose key the API refuses: the account is degraded at once."""
    document = document_of({"default": simulator}, {"ops": sink})
    document["accounts"]["default"]["api_key"] = "a-key-that-is-refused"
    return document | more


def silences(**match: object) -> list[Document]:
    now = datetime.now(UTC)
    times = {"from": (now - timedelta(hours=1)).isoformat("T", "seconds"), "until": "2999-01-01T00:00:00Z"}
    return [{"match": match, **times}]


async def is_silenced(life: Life, pages: str, count: int) -> None:
    """Wait until so many deliveries were kept back."""
    line = f'watcher_deliveries_total{{outcome="silenced",sink="ops"}} {count}.0'
    async with asyncio.timeout(PATIENCE_S):
        while line not in (await page(f"{pages}/metrics"))[1]:
            assert not life.is_over
            await asyncio.sleep(0.05)


async def test_what_a_silence_kept_back_is_sent_once_a_reload_ends_it(
    stage: Stage, simulator: Simulator, receiver: Receiver
) -> None:
    document = refused(simulator, webhook(receiver), silences=silences(accounts=["default"]))
    life = await stage.start(document)
    pages = await life.started()
    await life.until(lambda: life.events("account.degraded"), what="the key was refused")
    await is_silenced(life, pages, 1)
    assert receiver.attempts == []

    stage.write(document | {"silences": silences(events=["execution.*"])})
    await life.until(receiver.events, what="the opening was sent")
    assert [event["id"] for event in receiver.events()] == [event["id"] for event in life.events("account.degraded")]
    assert await life.stop() == 0


async def test_a_sink_is_reminded_of_what_is_open_until_it_is_closed(
    stage: Stage, simulator: Simulator, receiver: Receiver
) -> None:
    document = refused(simulator, webhook(receiver, events=["account.*", "problem.*"], remind_every="1s"))
    life = await stage.start(document)
    await life.until(lambda: len(receiver.events("problem.reminder")) >= 2, what="it was reminded twice")
    await life.kill()
    again = await stage.start(document)
    await again.until(lambda: len(receiver.events("problem.reminder")) >= 3, what="and after a kill")
    opening, *reminders = receiver.events()
    assert (opening["type"], {event["type"] for event in reminders}) == ("account.degraded", {"problem.reminder"})
    assert {event["data"]["problem"]["id"] for event in receiver.events()} == {opening["data"]["problem"]["id"]}
    assert [event["sequence"] for event in reminders] == [f"{number:010d}" for number in range(1, len(reminders) + 1)]
    assert {event["source"] for event in reminders} == {"/sinks/ops"}

    document["accounts"]["default"]["api_key"] = document_of({"default": simulator})["accounts"]["default"]["api_key"]
    stage.write(document)
    await again.until(lambda: receiver.events("account.recovered"), what="it was closed")
    assert again.events("problem.reminder") == []
    assert await again.stop() == 0


async def test_a_problem_outlasts_a_kill_and_ends_where_it_began_once_its_rule_is_removed(stage: Stage) -> None:
    simulator, receiver = await stage.simulator(failing_world()), await stage.receiver()
    rules = {"failing": {"consecutive": 3}}
    document = document_of({"default": simulator}, {"ops": webhook(receiver) | {"events": ["pipeline.failing"]}})
    document["watch"] = [{"pipeline": FAILING.id, "account": "default", "rules": rules}]
    document["polling"] = {"min_interval": "300ms", "max_interval": "1s", "first_sight": "notify"}
    life = await stage.start(document)
    await life.until(receiver.events, what="the problem was opened")
    await life.kill()
    life = await stage.start(document)
    await life.started()
    stage.write(document | {"watch": [{"pipeline": FAILING.id, "account": "default"}]})
    await life.until(lambda: len(receiver.events()) > 1, what="the problem was closed")
    assert await life.stop() == 0
    opening, closing = receiver.events()
    assert (opening["type"], closing["type"]) == ("pipeline.failing", "problem.closed")
    assert closing["data"]["reason"] == "removed"
    assert closing["data"]["problem"]["id"] == opening["data"]["problem"]["id"]
    assert opening["data"]["execution"]["failedNodes"]
