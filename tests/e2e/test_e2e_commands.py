"""Each command that talks to a running daemon, against a real one."""

import json
import signal
from typing import Any
from uuid import UUID

import pytest
from e2e.endpoint import Answer
from e2e.programme import Outcome, outcome_of
from e2e.stage import Stage, document_of, webhook, world_of

from watcher.simulator.world import Lifecycle, StatusPhase

pytestmark = pytest.mark.ci


def lines(outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.code == 0, outcome
    return [json.loads(line) for line in outcome.stdout.splitlines()]


LASTING = str(UUID(int=99))
"""An execution that stays as it is, and so does its problem."""


async def test_who_is_paged_sees_what_is_wrong_takes_it_is_quiet_and_sends_again_what_died(stage: Stage) -> None:
    world = world_of(6, ends_within_s=90.0, ends_after_s=60.0)
    phases = (StatusPhase("running", 0.0), StatusPhase("success", 3600.0))
    world.add(Lifecycle(LASTING, phases), pipeline=next(iter(world.executions())).pipeline)
    simulator = await stage.simulator(world)
    is_refusing = True
    receiver = await stage.receiver(lambda _: Answer.REJECT if is_refusing else Answer.TAKE)
    document = document_of({"default": simulator}, {"ops": webhook(receiver)})
    pipelines = [watch["pipeline"] for watch in document["watch"]]
    limits = {"new": "1s", "running": "1s", "paused": "1s"}
    document["watch"] = [{"pipeline": id_, "labels": {"team": "sales"}, "overdue_after": limits} for id_ in pipelines]
    document["http"] = {"listen": "127.0.0.1:0", "token": "t0ken"}
    life = await stage.start(document)
    environ = {"WATCHER_URL": await life.started()}

    async def ask(*words: str) -> Outcome:
        return await outcome_of(*words, folder=stage.folder, environ=environ)

    elsewhere = await outcome_of("status", folder=stage.folder, environ=environ | {"WATCHER_TOKEN": "another"})
    assert (elsewhere.code, "set WATCHER_TOKEN to the http.token of its file" in elsewhere.stderr) == (4, True)
    followed = await stage.begin("events", "-f", "--json", "--type", "problem.*", environ=environ)
    await life.until(
        lambda: LASTING in [event["subject"] for event in life.events("execution.overdue")], what="it is overdue"
    )
    (first,) = [each for each in lines(await ask("problems", "--json")) if each.get("execution") == LASTING]
    assert first["kind"] == "execution.overdue"
    assert (await ask("status", "--fail-on", "attention")).code == 1
    assert json.loads((await ask("status", "--json")).stdout)["needs"]

    taken = await ask("ack", first["id"], "--for", "2h", "--comment", "on it")
    assert taken.stdout.startswith("✓ acknowledged until "), taken
    await followed.until(lambda: followed.events("problem.acknowledged"), what="it was followed")
    assert followed.events("problem.acknowledged")[0]["data"]["problem"]["id"] == first["id"]
    assert await followed.stop(signal.SIGINT) == 130
    (shown,) = [each for each in lines(await ask("problems", "--json")) if each["id"] == first["id"]]
    assert shown["acknowledged"]["comment"] == "on it"
    assert (await ask("ack", first["id"], "--undo")).code == 0

    await life.until(
        lambda: [each for each in life.logged("delivery.dead") if each["type"].startswith("execution.")],
        what="a delivery of an execution has died",
    )
    dead = lines(await ask("deliveries", "--sink", "ops", "--state", "dead", "--json"))
    # An acknowledgement that was taken back is never sent again.
    dead = [each for each in dead if each["type"].startswith("execution.")]
    assert dead[0]["state"] == "dead"
    is_refusing = False
    again = await ask("replay", "--sink", "ops", "--yes", dead[0]["id"])
    assert again.stdout == "✓ sent again to ops: 1\n", again
    await life.until(lambda: dead[0]["event"] in {event["id"] for event in receiver.events()}, what="it has arrived")
    assert (await ask("replay", "--sink", "ops", "--yes", dead[0]["id"])).code == 2  # it is dead no more

    quiet = await ask("silence", "--label", "team=sales", "--for", "2h")
    assert f"({len(pipelines)} of {len(pipelines)} pipelines). Undo: watcher silence --end 1" in quiet.stdout
    assert [each["id"] for each in lines(await ask("silence", "--list", "--json"))] == ["1"]
    assert (await ask("silence", "--end", "1")).code == 0
    assert (await ask("silence", "--end", "1")).code == 5

    assert (await ask("test-sink", "ops")).stdout.startswith("✓ ops: ")
    assert receiver.events("watcher.test")
    assert (await ask("enable-sink", "ops")).stderr.startswith("error: ")  # no 410 has disabled it
    assert (await ask("scan", pipelines[0][:8])).code == 0
    emitted = {event["id"] for event in life.events()}
    printed = [event["id"] for event in lines(await ask("events", "--json"))]
    assert emitted <= set(printed)
    assert len(printed) == len(set(printed))
    assert await life.stop() == 0
    assert (await ask("status")).code == 4
