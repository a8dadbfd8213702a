"""The program with its state in PostgreSQL: a server that goes away and comes back, and a login that is refused."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest
from e2e import checks
from e2e.endpoint import refuse, take
from e2e.programme import Life, outcome_of
from e2e.stage import Stage, all_have_ended, document_of, webhook, world_of
from postgres import WITH_PASSWORD, PostgresServer

OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"


@pytest.mark.ci
async def test_a_server_that_restarts_and_ends_connections_loses_nothing(
    postgres_stage: Stage, postgres: PostgresServer
) -> None:
    stage = postgres_stage
    simulator = await stage.simulator(world_of(60, ends_within_s=8.0))
    receiver = await stage.receiver()
    life = await stage.start(document_of({"default": simulator}, {"ops": webhook(receiver)}))
    await life.started()
    database = stage.store_url.partition("@/")[2].partition("?")[0]
    for count in (20, 60):
        await life.until(lambda count=count: len(receiver.events()) >= count, what=f"{count} arrived")  # type: ignore[misc]
        await asyncio.to_thread(postgres.run, OTHERS.format(database))
        await asyncio.to_thread(postgres.stop)
        await life.until(lambda: life.logged("store.failed"), what="it missed the server")
        await asyncio.to_thread(postgres.start)
    await life.until(
        lambda: all(all_have_ended(events, simulator.world) for events in (receiver.events(), life.events())),
        what="all was reported",
    )
    assert await life.stop() == 0
    assert checks.of_all(simulator, life.emitted, receiver) == []


async def test_a_refused_login_ends_it_and_shows_no_password(postgres_stage: Stage) -> None:
    stage = postgres_stage
    simulator = await stage.simulator(world_of(1, ends_within_s=1.0))
    await asyncio.to_thread((stage.folder / "db").write_text, "hunter2\n")
    url = stage.store_url.replace("postgres@", f"{WITH_PASSWORD}@")
    document = document_of({"default": simulator}) | {"store": {"url": url, "password_file": "db"}}
    life = await stage.start(document)
    assert await life.end(within_s=10) == 2
    said = life.stderr.lines.everything().decode()
    assert "password authentication failed" in said
    path: Path = stage.folder / "watcher.yaml"
    checked = await outcome_of("check", "--config", str(path), folder=stage.folder)
    assert checked.code == 0
    assert "hunter2" not in said + checked.stdout + checked.stderr


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
        within_s=40,
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
