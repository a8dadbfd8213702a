"""Problems open and close once and say so, and people acknowledge and silence them, over kills and on any replica."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest
from e2e import checks
from e2e.endpoint import Answer, Receiver
from e2e.programme import PATIENCE_S, Outcome, outcome_of, page, ready
from e2e.replicas import AN_HOUR_AHEAD, needs_faketime
from e2e.stage import API_KEY, FAILING, POLLING, Document, Stage, document_of, failing_world, webhook, world_of
from receivers_rules import check_slack, texts_of
from stores import operator_of

from watcher.runtime.clock import Clock
from watcher.simulator.faults import Fault, Faults
from watcher.simulator.scenarios import CALM
from watcher.simulator.server import Simulator
from watcher.store.operator_store import OperatorStore
from watcher.store.sql_store import open_store


def refused(simulator: Simulator, sink: Document, **more: object) -> Document:
    """Return a configuration whose key the API refuses: the account is degraded at once."""
    document = document_of({"default": simulator}, {"ops": sink})
    document["accounts"]["default"]["api_key"] = "a-key-that-is-refused"
    return document | more


@pytest.mark.ci
@needs_faketime
async def test_what_waits_is_sent_in_time_though_the_clock_is_set_back_an_hour_before_the_next_start(
    stage: Stage,
) -> None:
    simulator = await stage.simulator(world_of(3, ends_after_s=60, ends_within_s=90))
    receiver = await stage.receiver()
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


@pytest.mark.ci
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


def watching(simulator: Simulator, receiver: Receiver, *events: str, every: str = "300ms") -> Document:
    document = document_of({"default": simulator}, {"ops": webhook(receiver, events=list(events))})
    document["watch"] = [{"pipeline": FAILING.id, "account": "default", "rules": {"failing": {"consecutive": 3}}}]
    document["polling"] = {"min_interval": every, "max_interval": every, "first_sight": "notify", "cadence": "fixed"}
    return document


@asynccontextmanager
async def another_replica(stage: Stage) -> AsyncIterator[OperatorStore]:
    """Give what a replica of this process does for people, which owns nothing."""
    store = await open_store(stage.store_url, clock=Clock())
    yield operator_of(store)
    await store.close()


@pytest.mark.ci
async def test_a_problem_that_was_acknowledged_stays_so_through_a_kill_and_is_reminded_of_until_it_is_closed(
    postgres_stage: Stage,
) -> None:
    stage = postgres_stage
    simulator = await stage.simulator(world_of(3, ends_after_s=60, ends_within_s=90))
    receiver = await stage.receiver()
    document = refused(simulator, webhook(receiver, events=["account.*", "problem.*"], remind_every="1s"))
    document["sinks"]["other"] = webhook(await stage.receiver(), events=["execution.lost"])
    life = await stage.start(document)
    await life.until(lambda: len(receiver.events("problem.reminder")) >= 2, what="it was reminded twice")
    problem = UUID(receiver.events("account.degraded")[0]["data"]["problem"]["id"])
    async with another_replica(stage) as operator:
        assert await operator.acknowledge(problem, by="dana", comment="on it", until=None)
        await life.kill()
        life = await stage.start(document)
        await life.until(lambda: receiver.events("problem.acknowledged"), what="it was said that somebody took it")
        count = len(receiver.events("problem.reminder"))
        assert await operator.unacknowledge(problem)
        await life.until(lambda: len(receiver.events("problem.reminder")) > count, what="it was reminded of again")
    document["accounts"]["default"]["api_key"] = API_KEY
    stage.write(document)
    await life.until(lambda: receiver.events("account.recovered"), what="it was closed")
    assert life.events("problem.reminder") == []
    assert await life.stop() == 0

    opening, *rest = receiver.events()
    assert opening["type"] == "account.degraded"
    assert {event["data"]["problem"]["id"] for event in receiver.events()} == {str(problem)}
    (taken,) = receiver.events("problem.acknowledged")
    assert taken["data"]["acknowledgement"] == {"by": "dana", "comment": "on it"}
    reminders = receiver.events("problem.reminder")
    assert [event["sequence"] for event in reminders] == [f"{number:010d}" for number in range(1, len(reminders) + 1)]
    assert {event["source"] for event in reminders} == {"/sinks/ops"}
    assert {event["type"] for event in rest} == {"problem.reminder", "problem.acknowledged", "account.recovered"}


@pytest.mark.ci
async def test_a_silence_of_another_replica_holds_through_a_kill_and_owners_do_what_was_asked_elsewhere(
    postgres_stage: Stage,
) -> None:
    stage = postgres_stage
    simulator, receiver = await stage.simulator(failing_world(30, last_at_s=30.0)), await stage.receiver()
    receiver.choose = lambda _: Answer.REJECT
    document = watching(simulator, receiver, "execution.failed", "pipeline.failing")
    life = await stage.start(document)
    async with another_replica(stage) as operator:
        await operator.request_action("scan", f"default/{FAILING.id}")
        await life.until(lambda: life.logged("delivery.dead"), what="it was refused for good")
        receiver.choose = lambda _: Answer.TAKE
        assert await operator.replay("ops", None) >= 1
        await operator.request_action("enable", "ops")
        await life.until(lambda: receiver.events() and life.logged("sink.enabled"), what="it was sent again, to ops")
        async with asyncio.timeout(PATIENCE_S):
            while await operator.load_actions():
                await asyncio.sleep(0.05)

        now, match = Clock().now(), '{"events": ["execution.*"]}'
        made = await operator.add_silence(match, starts_at=now, ends_at=now + timedelta(hours=1), by=None, comment="x")
        await life.until(lambda: life.logged("silence.began"), what="the silence began")
        before = len(receiver.events("execution.failed"))
        await life.kill()
        life = await stage.start(document)
        await life.until(lambda: len(life.events("execution.failed")) >= 2, what="more failed, and stdout heard of it")
        assert len(receiver.events("execution.failed")) - before <= 1  # that was on its way
        assert await operator.end_silence(made.id)
        await life.until(lambda: life.logged("silence.ended"), what="the silence ended")
        before = len(receiver.events("execution.failed"))
        await life.until(lambda: len(receiver.events("execution.failed")) > before, what="something was sent again")
    assert await life.stop() == 0


async def test_what_a_silence_kept_back_is_sent_once_a_reload_ends_it(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(3, ends_after_s=60, ends_within_s=90))
    receiver = await stage.receiver()
    silence = {"from": "2001-01-01T00:00:00Z", "until": "2999-01-01T00:00:00Z"}
    of_accounts, of_executions = ([silence | {"match": {"events": [f"{each}.*"]}}] for each in ("account", "execution"))
    document = refused(simulator, webhook(receiver), silences=of_accounts)
    life = await stage.start(document)
    pages = await life.started()
    await life.until(lambda: life.events("account.degraded"), what="the key was refused")
    async with asyncio.timeout(PATIENCE_S):
        while (await _metrics(pages))['watcher_deliveries_total{outcome="silenced",sink="ops"}'] < 1:
            await asyncio.sleep(0.05)
    assert receiver.attempts == []

    stage.write(document | {"silences": of_executions})
    await life.until(receiver.events, what="the opening was sent")
    (opening,) = receiver.events()
    assert [opening["id"]] == [event["id"] for event in life.events("account.degraded")]
    assert UUID(opening["id"]).version == 7  # it is of no execution
    assert await life.stop() == 0


HANGING = Faults(odds={Fault.HANG: 1.0})


@pytest.mark.ci
async def test_a_trouble_is_reported_once_and_the_pages_are_served_throughout(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(20, ends_within_s=90.0, ends_after_s=60.0))
    receiver = await stage.receiver()
    document = document_of({"default": simulator}, {"ops": webhook(receiver)})
    document["polling"] = POLLING | {"degraded_after": "1s"}

    life = await stage.start(document)
    pages = await life.started()
    await life.until(lambda: len(receiver.events()) >= 20, what="every execution was reported")
    await life.until(lambda: life.logged("account.ready"), what="all of the account was seen")
    assert life.logged("account.ready")[0]["open"] == 20
    assert await page(f"{pages}/livez") == (200, "ok\n")
    await ready(pages)  # maintenance may still be at its first tick
    asked = {"WATCHER_HTTP_LISTEN": pages.removeprefix("http://"), "WATCHER_CONFIG": "/nowhere"}
    assert await outcome_of("health", folder=stage.folder, environ=asked) == Outcome(0, "ready\n", "")
    metrics = await _metrics(pages)
    assert metrics['watcher_account_up{account="default"}'] == 1
    assert metrics['watcher_api_requests_total{account="default",endpoint="get",outcome="ok"}'] >= 20
    assert metrics['watcher_api_requests_total{account="default",endpoint="get",outcome="timeout"}'] == 0
    assert metrics['watcher_events_total{type="execution.lost"}'] == 0

    simulator.dice.faults = HANGING
    await life.until(lambda: receiver.events("account.degraded"), what="the trouble was reported")
    assert await page(f"{pages}/livez") == (200, "ok\n")
    assert await page(f"{pages}/readyz") == (200, "ok\n")
    metrics = await _metrics(pages)
    assert metrics['watcher_account_up{account="default"}'] == 0
    assert metrics['watcher_api_requests_total{account="default",endpoint="get",outcome="timeout"}'] > 0
    await life.kill()

    life, asked_count = await stage.start(document), len(simulator.request_log.entries)
    pages = await life.started()
    await life.until(lambda: len(simulator.request_log.entries) > asked_count, what="the API was asked")
    await ready(pages)
    assert (await _metrics(pages))['watcher_account_up{account="default"}'] == 0
    await life.kill()

    simulator.dice.faults = CALM
    life = await stage.start(document)
    pages = await life.started()
    await life.until(lambda: receiver.events("account.recovered"), what="the recovery was reported")
    assert (await _metrics(pages))['watcher_account_up{account="default"}'] == 1
    assert await life.stop() == 0

    assert checks.of_alternation(receiver.kept(), troubles_count=1) == []
    assert {event["data"]["reason"] for event in receiver.events("account.degraded")} == {"unreachable"}
    assert checks.of_truth(receiver.kept(), simulator) == []


async def _metrics(pages: str) -> dict[str, float]:
    """Return each sample by its name and labels."""
    _, text = await page(f"{pages}/metrics")
    return {match[1]: float(match[2]) for match in re.finditer(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)}
