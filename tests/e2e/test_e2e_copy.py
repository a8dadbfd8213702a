"""A store that is moved to PostgreSQL and back between the lives of the program: nothing is lost or told twice."""

import json
from collections import Counter

import pytest
from e2e import checks
from e2e.endpoint import refuse, take
from e2e.programme import Life, outcome_of
from e2e.stage import Stage, all_have_ended, document_of, webhook, world_of

pytestmark = pytest.mark.untraced

FIRST, LAST = "sqlite:///watcher.db", "sqlite:///moved.db"


async def moved(stage: Stage, source: str, target: str) -> None:
    outcome = await outcome_of("copy-store", source, target, folder=stage.folder)
    assert (outcome.code, outcome.stdout) == (0, ""), outcome.stderr
    assert f"Next: set store.url to {target} and start the daemon." in outcome.stderr


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
