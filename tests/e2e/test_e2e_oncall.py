"""What the person on call has: a message that leads to the runbook and to our own page, and a heartbeat."""

import asyncio
import json
from collections.abc import Callable

import pytest
from e2e.programme import PATIENCE_S
from e2e.stage import Stage, document_of, world_of
from receiver import Receiver, answer, says
from receivers_rules import check_slack, texts_of

pytestmark = pytest.mark.untraced

RUNBOOK, PUBLIC = "https://wiki.example.com/sales", "https://watcher.example.com"


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.02)


async def test_messages_lead_to_the_runbook_and_to_the_page_that_a_reload_names_while_the_heartbeat_says_all_is_well(
    stage: Stage,
) -> None:
    slack, health = await stage.enter(Receiver(says(answer(200, body=b"ok")))), await stage.enter(Receiver())
    simulator = await stage.simulator(world_of(60, ends_within_s=60.0))
    sink = {"type": "webhook", "template": "slack", "url": slack.url, "events": ["execution.*"], "rate_limit": "50/s"}
    document = document_of({"default": simulator}, {"chat": sink})
    document["watch"] = [watch | {"runbook": RUNBOOK} for watch in document["watch"]]
    life = await stage.start(document | {"heartbeat": {"url": f"{health.url}/s3cret", "every": "50ms"}})
    await life.started()
    await until(lambda: slack.requests and len(health.requests) > 1)
    links = [text for text in texts_of(check_slack(slack.requests[0].body)["blocks"]) if text.startswith("http")]
    assert links == [RUNBOOK]
    assert {event["data"]["runbook"] for event in life.events()} == {RUNBOOK}

    stage.write(document | {"http": {"listen": "127.0.0.1:0", "public_url": PUBLIC}})
    await life.until(lambda: life.logged("config.reloaded"), what="it was reloaded")
    page = f"{PUBLIC}/executions/default/"
    await until(lambda: any(page in json.dumps(json.loads(request.body)) for request in slack.requests))
    pings, messages = len(health.requests), len(slack.requests)
    await until(lambda: len(slack.requests) > messages + 9)
    assert len(health.requests) == pings
    assert await life.stop() == 0
    assert b"s3cret" not in life.stderr.lines.everything()
