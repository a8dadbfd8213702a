"""A store that moves to another database and back, and one that version 1.0.0 left."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from copies import KINDS, first_store, run
from e2e import checks
from e2e.endpoint import Receiver, refuse, take
from e2e.programme import Life, outcome_of, page
from e2e.stage import API_KEY, POLLING, Document, Stage, all_have_ended, document_of, webhook, world_of
from fake_slack import FakeSlack, Message
from postgres import EMPTY
from receiver import Receiver as Listener

from watcher.runtime.clock import Clock
from watcher.simulator.world import Lifecycle, SimPipeline, StatusPhase, World

SALES = SimPipeline("5a1e5000-0000-4000-8000-000000000001", "Sales agent")
ONBOARDING = SimPipeline("0b0a4d00-0000-4000-8000-000000000002", "Onboarding")
FAILED, HANGING, ENDS_MEANWHILE = (1, 2, 3), 4, 5
RAN_FOR_S, STOPPED_FOR_S = 330, 60


def execution(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def lifecycle(number: int, *phases: tuple[str, float]) -> Lifecycle:
    error = f"Greeting: error {number}" if phases[-1][0] == "failed" else None
    return Lifecycle(execution(number), tuple(StatusPhase(*phase) for phase in phases), error=error)


def world_as_it_was(*, started_s: float = 0.0) -> World:
    """Return the world that version 1.0.0 watched, from that second on."""
    world = World(Clock())
    for number in FAILED:
        world.add(lifecycle(number, ("running", 0), ("failed", 0.5)), pipeline=SALES, begins_s=started_s + 2 * number)
    world.add(lifecycle(HANGING, ("running", 0)), pipeline=ONBOARDING, begins_s=started_s)
    end = ("success", RAN_FOR_S + STOPPED_FOR_S / 2)
    world.add(lifecycle(ENDS_MEANWHILE, ("running", 0), end), pipeline=ONBOARDING, begins_s=started_s)
    return world


def document(
    base_url: str, *, hooks: dict[str, Receiver], pagers: dict[str, str], slack: dict[str, object]
) -> Document:
    """Return a configuration of version 1.0.0. `hooks` are receivers, `pagers` URLs, by the names of their sinks."""
    pager = {"type": "webhook", "template": "pagerduty", "routing_key": "k" * 32, "retry": {"schedule": ["1s"]}}
    sinks: Document = {name: webhook(hook, retry={"schedule": ["1s"]}) for name, hook in hooks.items()}
    sinks |= {name: pager | {"url": url, "rate_limit": "50/s"} for name, url in pagers.items()}
    sinks["archive"]["events"] = ["execution.failed"]
    sinks["audit"]["remind_every"] = "4h"
    return {
        "accounts": {"default": {"api_key": API_KEY, "base_url": base_url, "rate_limit": "50/s"}},
        "watch": [
            {"pipeline": SALES.id, "name": SALES.name, "rules": {"failing": {"consecutive": 3}}},
            {"pipeline": ONBOARDING.id, "name": ONBOARDING.name, "overdue_after": {"running": "5s"}},
        ],
        "polling": POLLING,
        "sinks": {**sinks, "chat": slack},
    }


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the URL of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/watcher.db"
        return
    with request.getfixturevalue("postgres").database(EMPTY) as url:
        yield url


@dataclass
class Before:
    """What version 1.0.0 left: deliveries as (sink, state, event), openings as (sink, problem), messages in Slack."""

    deliveries: list[tuple[str, str, str]]
    openings: set[tuple[str, str]]
    messages: list[tuple[str, str]]
    kinds: dict[str, str]
    """The kinds of the open problems."""
    failed: set[str]
    """The ids of the events `execution.failed`."""

    def ids(self, sink: str, state: str) -> list[str]:
        return [id_ for *of, id_ in self.deliveries if of == [sink, state]]

    def problems(self, sink: str) -> set[str]:
        return {id_ for name, id_ in self.openings if name == sink}


def as_it_was(url: str) -> Before:
    """Read what is in a store."""
    of_sink = "JOIN delivery ON delivery.number = event.id JOIN source ON source.id = delivery.sink_id"
    deliveries = run(url, f"SELECT source.name, delivery.state, event_id FROM event {of_sink}")
    opened = "event.stream = problem.stream AND event.sequence = problem.sequence"
    openings = run(url, f"SELECT source.name, problem.id FROM problem JOIN event ON {opened} {of_sink}")
    kinds = run(url, "SELECT id, kind FROM problem WHERE closed_at IS NULL")
    failed = run(url, "SELECT event_id FROM event WHERE type = 'execution.failed'")
    return Before(
        [(sink, state, str(UUID(bytes=id_))) for sink, state, id_ in deliveries],
        {(sink, str(UUID(bytes=id_))) for sink, id_ in openings},
        [(channel, number) for channel, number in run(url, "SELECT channel, number FROM problem_message")],
        {str(UUID(bytes=id_)): kind for id_, kind in kinds},
        {str(UUID(bytes=id_)) for (id_,) in failed},
    )


def incidents(pager: Listener) -> dict[str, str]:
    """Return what was last asked of each incident, by its key."""
    events = [json.loads(request.body) for request in pager.requests]
    return {event["dedup_key"]: event["event_action"] for event in events}


async def asked(pages: str, path: str) -> list[dict[str, Any]]:
    status, body = await page(f"{pages}/api/v1/{path}")
    assert status == 200, body
    items: list[dict[str, Any]] = json.loads(body)["items"]
    return items


@pytest.mark.ci
async def test_what_version_1_0_0_left_open_and_waiting_is_taken_over(sqlite_stage: Stage, url: str) -> None:
    stage = sqlite_stage
    stage.store_url = first_store(url, stopped_s_ago=STOPPED_FOR_S)
    before = as_it_was(url)
    assert Counter(before.kinds.values()) == {"pipeline.failing": 1, "execution.overdue": 2, "sink.failing": 2}
    simulator = await stage.simulator(world_as_it_was(started_s=-RAN_FOR_S - STOPPED_FOR_S))
    world, hooks = simulator.world, {name: await stage.receiver() for name in ("ops", "audit", "archive")}
    pagers = {name: await stage.listener(code=202) for name in ("phone", "night")}
    slack = await stage.enter(FakeSlack())
    slack.messages |= {place: Message({"text": "by version 1.0.0"}) for place in before.messages}
    slack.calls += ["chat.postMessage"] * 100  # so that new messages have other numbers

    urls = {name: pager.url for name, pager in pagers.items()}
    configuration = document(simulator.base_url, hooks=hooks, pagers=urls, slack=slack.block())
    configuration["watch"][0]["rules"]["failing"]["quiet_for"] = "1s"  # else its 5 minutes begin with the upgrade
    life = await stage.start(configuration)
    pages = await life.started()
    problems = {each["id"]: each for each in await asked(pages, "problems?state=open")}
    (failing,) = (id_ for id_, kind in before.kinds.items() if kind == "pipeline.failing")
    (acknowledged,) = (id_ for id_, each in problems.items() if "acknowledged" in each)
    assert problems[acknowledged]["execution"] == execution(HANGING)
    assert {failing, acknowledged} <= problems.keys() <= before.kinds.keys()
    assert [each["match"]["events"] for each in await asked(pages, "silences")] == [["execution.paused"]]

    waiting = before.ids("ops", "waiting")
    await life.until(lambda: len(hooks["ops"].events()) >= len(waiting), what="what waited has arrived")
    assert not hooks["archive"].events()
    (dead,) = before.ids("archive", "dead")
    replayed = await outcome_of(
        "replay", "--sink", "archive", "--state", "dead", "--yes", folder=stage.folder, environ={"WATCHER_URL": pages}
    )
    assert replayed.code == 0, replayed
    await life.until(hooks["archive"].events, what="the dead letter was sent again")

    hanging = world.find(execution(HANGING))
    assert hanging is not None
    ends = StatusPhase("success", world.now_s() - hanging.begins_s)  # from now on: its past stays as it was shown
    phases = (*hanging.lifecycle.phases, ends)
    world.replace(replace(hanging, lifecycle=replace(hanging.lifecycle, phases=phases)))
    for number in (6, 7, 8):
        begins_s = world.now_s() + 2 * (number - 6)
        world.add(lifecycle(number, ("running", 0), ("success", 0.5)), pipeline=SALES, begins_s=begins_s)

    def closed(name: str) -> set[str]:
        """Return the problems of which a receiver knows that they are over."""
        told = [event["data"].get("problem", {}) for event in hooks[name].events()]
        return {each["id"] for each in told if "closedAt" in each}

    def unresolved(name: str) -> set[str]:
        return {key for key, action in incidents(pagers[name]).items() if action != "resolve"}

    await life.until(
        lambda: (
            all(closed(name) >= before.problems(name) for name in hooks)
            and incidents(pagers["phone"]).keys() >= before.problems("phone")
            and unresolved("night") <= before.failed  # nothing resolves these, as with version 1.0.0
            and all(slack.messages[place].earlier for place in before.messages)
        ),
        what="all problems have closed everywhere",
    )
    assert await asked(pages, "problems?state=open") == []
    assert await life.stop() == 0

    for name, hook in hooks.items():
        ids = [event["id"] for attempt in hook.attempts for event in attempt.events]
        assert len(set(ids)) == len(ids), f"{name} was sent something twice"
        assert not set(ids) & {*before.ids(name, "delivered")}
        assert closed(name) == before.problems(name), "a closing goes exactly where its opening went"
    assert [event["id"] for event in hooks["archive"].events()] == [dead]
    assert {*waiting} <= {event["id"] for event in hooks["ops"].events()}
    assert (checks.of_sequences(hooks["ops"].kept()), checks.of_order(hooks["ops"].attempts)) == ([], [])
    assert incidents(pagers["phone"]) == dict.fromkeys(before.problems("phone"), "resolve")
    assert len(pagers["phone"].requests) == len(before.problems("phone")), "nothing paged again"
    assert incidents(pagers["night"]).keys() == before.problems("night") | before.failed
    assert [each.lines[0] for each in slack.posted()[len(before.messages) :]] == ["✕ Sink archive: 1 dead letter (422)"]


# A store that is moved there and back between the lives of the program

FIRST, LAST = "sqlite:///watcher.db", "sqlite:///moved.db"


async def moved(stage: Stage, source: str, target: str) -> None:
    outcome = await outcome_of("copy-store", source, target, folder=stage.folder)
    assert (outcome.code, outcome.stdout) == (0, ""), outcome.stderr
    assert f"Next: set store.url to {target} and start the daemon." in outcome.stderr


@pytest.mark.ci
async def test_events_that_wait_and_problems_that_are_open_move_along_and_nothing_is_told_twice(
    postgres_stage: Stage,
) -> None:
    stage, database = postgres_stage, postgres_stage.store_url
    simulator = await stage.simulator(world_of(30, ends_after_s=5.0, ends_within_s=9.0))
    receiver = await stage.receiver(refuse)
    document = document_of({"default": simulator}, {"ops": webhook(receiver)})
    for watch in document["watch"]:
        watch["overdue_after"] = {"running": "500ms"}

    async def begin(url: str) -> Life:
        life = await stage.start(document | {"store": {"url": url}})
        await life.started()
        return life

    first = await begin(FIRST)
    await first.until(lambda: len(first.events("execution.overdue")) >= 5, what="some were overdue")
    assert await first.stop() == 0
    assert receiver.events() == []

    await moved(stage, FIRST, database)
    receiver.choose = take
    second = await begin(database)
    waited = {event["id"] for event in first.events()}
    await second.until(lambda: waited <= {event["id"] for event in receiver.events()}, what="what waited had arrived")
    receiver.choose = refuse
    assert await second.stop() == 0

    await moved(stage, database, LAST)
    receiver.choose = take
    third = await begin(LAST)
    lives = (first, second, third)
    await third.until(
        lambda: (
            all_have_ended(receiver.events(), simulator.world)
            and all_have_ended([event for life in lives for event in life.events()], simulator.world)
        ),
        what="all had ended, there and on stdout",
    )
    assert await third.stop() == 0

    assert not [life.logged("store.created") for life in (second, third) if life.logged("store.created")]
    printed = [line for life in stage.lives for line in life.emitted]
    for bodies in (receiver.kept(), printed):
        statuses = [body for body in bodies if json.loads(body)["type"] != "execution.overdue"]
        assert checks.of_truth(statuses, simulator) == []
        assert checks.of_completeness(bodies, simulator) == []
        assert [body for body, count in Counter(bodies).items() if count > 1] == []
    assert checks.of_sequences([*receiver.kept(), *printed]) == []
    assert checks.of_order(receiver.attempts) == []
    problems = [event["data"]["problem"] for event in receiver.events() if "problem" in event["data"]]
    assert {Counter(each["id"] for each in problems)[each["id"]] for each in problems} == {2}, "opened, and closed"
    assert len([each for each in problems if "closedAt" in each]) * 2 == len(problems)
