"""What is silenced is not sent, and not lost; what stays open is said again until it is closed, also after a kill.

Messages lead to the runbook and to our own page, and a heartbeat says that all is well.
"""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from e2e.chaos import AN_HOUR_AHEAD, needs_faketime
from e2e.endpoint import Receiver
from e2e.programme import PATIENCE_S, Life, page
from e2e.stage import Document, Stage, document_of, webhook, world_of
from receivers_rules import check_slack, texts_of

from watcher.simulator.server import Simulator


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


@pytest.mark.ci
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


@pytest.mark.ci
@needs_faketime
async def test_what_waits_is_sent_in_time_though_the_clock_is_set_back_an_hour_before_the_next_start(
    stage: Stage, simulator: Simulator, receiver: Receiver
) -> None:
    document = refused(simulator, webhook(receiver, events=["account.*"], after="3s", remind_every="2s"))
    life = await stage.start(document, environ=AN_HOUR_AHEAD)
    await life.until(lambda: life.events("account.degraded"), what="the key was refused")
    await life.kill()
    assert receiver.attempts == []
    again = await stage.start(document)
    await again.until(lambda: receiver.events("problem.reminder"), what="the opening was sent, and a reminder")
    assert [event["type"] for event in receiver.events()][:2] == ["account.degraded", "problem.reminder"]
    await again.kill()


RUNBOOK, PUBLIC = "https://wiki.example.com/sales", "https://watcher.example.com"


async def test_messages_lead_to_the_runbook_and_to_the_page_that_a_reload_names_while_the_heartbeat_says_all_is_well(
    stage: Stage,
) -> None:
    slack, health = await stage.listener(body=b"ok"), await stage.listener()
    simulator = await stage.simulator(world_of(60, ends_within_s=60.0))
    sink = {"type": "webhook", "template": "slack", "url": slack.url, "events": ["execution.*"], "rate_limit": "50/s"}
    document = document_of({"default": simulator}, {"chat": sink})
    document["watch"] = [watch | {"runbook": RUNBOOK} for watch in document["watch"]]
    life = await stage.start(document | {"heartbeat": {"url": f"{health.url}/s3cret", "every": "50ms"}})
    await life.started()
    await life.until(lambda: slack.requests and len(health.requests) > 1 and life.events(), what="they came")
    links = [text for text in texts_of(check_slack(slack.requests[0].body)["blocks"]) if text.startswith("http")]
    assert links == [RUNBOOK]
    assert {event["data"]["runbook"] for event in life.events()} == {RUNBOOK}

    stage.write(document | {"http": {"listen": "127.0.0.1:0", "public_url": PUBLIC}})
    await life.until(lambda: life.logged("config.reloaded"), what="it was reloaded")
    page = f"{PUBLIC}/executions/default/"
    await life.until(
        lambda: any(page in json.dumps(json.loads(request.body)) for request in slack.requests), what="they came"
    )
    pings, messages = len(health.requests), len(slack.requests)
    await life.until(lambda: len(slack.requests) > messages + 9, what="they came")
    assert len(health.requests) == pings
    assert await life.stop() == 0
    assert b"s3cret" not in life.stderr.lines.everything()
