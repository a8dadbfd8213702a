"""Each command that talks to a daemon, against a real one; `wait`, whose end is that of an execution; and the demo."""

import asyncio
import json
import re
import signal
import socket
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest
import yaml
from e2e import checks
from e2e.endpoint import Answer
from e2e.programme import Life, Outcome, outcome_of
from e2e.stage import API_KEY, POLLING, Document, Stage, document_of, webhook, world_of
from e2e.terminal import Terminal
from simulator_facts import forget, requests_of

from watcher.runtime.clock import Clock
from watcher.simulator.faults import Fault, Faults, Window
from watcher.simulator.responses import PRIVATE
from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.server import Simulator
from watcher.simulator.world import Lifecycle, StatusPhase, World


def lines(outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.code == 0, outcome
    return [json.loads(line) for line in outcome.stdout.splitlines()]


LASTING = str(UUID(int=99))
"""An execution that stays as it is, and so does its problem."""


@pytest.mark.ci
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

    followed = await stage.begin("events", "-f", "--json", "--type", "problem.*", environ=environ)
    await life.until(
        lambda: LASTING in [event["subject"] for event in life.events("execution.overdue")], what="it is overdue"
    )
    (first,) = [each for each in lines(await ask("problems", "--json")) if each.get("execution") == LASTING]
    assert first["kind"] == "execution.overdue"
    status = await ask("status", "--json", "--fail-on", "attention")
    assert (status.code, bool(json.loads(status.stdout)["needs"])) == (1, True)

    taken = await ask("ack", first["id"], "--for", "2h", "--comment", "on it")
    assert taken.stdout.startswith("✓ acknowledged until "), taken
    await followed.until(lambda: followed.events("problem.acknowledged"), what="it was followed")
    assert followed.events("problem.acknowledged")[0]["data"]["problem"]["id"] == first["id"]
    assert await followed.stop(signal.SIGINT) == 130
    (shown,) = [each for each in lines(await ask("problems", "--json")) if each["id"] == first["id"]]
    assert shown["acknowledged"]["comment"] == "on it"

    await life.until(
        lambda: [each for each in life.logged("delivery.dead") if each["type"].startswith("execution.")],
        what="a delivery of an execution has died",
    )
    dead = lines(await ask("deliveries", "--sink", "ops", "--state", "dead", "--json"))
    dead = [each for each in dead if each["type"].startswith("execution.")]
    assert dead[0]["state"] == "dead"
    is_refusing = False
    again = await ask("replay", "--sink", "ops", "--yes", dead[0]["id"])
    assert again.stdout == "✓ sent again to ops: 1\n", again
    await life.until(lambda: dead[0]["event"] in {event["id"] for event in receiver.events()}, what="it has arrived")

    quiet = await ask("silence", "--label", "team=sales", "--for", "2h")
    assert f"({len(pipelines)} of {len(pipelines)} pipelines). Undo: watcher silence --end 1" in quiet.stdout
    assert (await ask("silence", "--end", "1")).code == 0

    assert (await ask("test-sink", "ops")).stdout.startswith("✓ ops: ")
    assert receiver.events("watcher.test")
    assert (await ask("scan", pipelines[0][:8])).code == 0
    emitted = {event["id"] for event in life.events()}
    printed = [event["id"] for event in lines(await ask("events", "--json"))]
    assert emitted <= set(printed)
    assert len(printed) == len(set(printed))
    assert await life.stop() == 0


@pytest.mark.ci
async def test_the_demo_goes_on_if_asked_and_ends_by_itself_on_a_terminal_with_a_summary(stage: Stage) -> None:
    printed = await stage.begin("demo", "--json", "--forever")
    terminal = await stage.terminal("demo", columns=200)
    await printed.until(
        lambda: printed.events("execution.success") and printed.events("execution.failed"), what="both were reported"
    )
    assert await printed.stop(signal.SIGINT) == 0
    assert await terminal.end() == 0
    types = {event["type"] for event in printed.events()}
    assert printed.stdout.lines.tail == b""
    assert checks.of_sequences(printed.emitted) == []
    assert not [type_ for type_ in types if type_.endswith((".lost", ".degraded"))]
    assert terminal.plain.count("signature ok") > 100
    assert "0 with a wrong signature" in terminal.plain.splitlines()[-1]
    assert "Traceback" not in terminal.plain


@pytest.mark.ci
async def test_a_simulated_pipeline_that_fails_is_reported_after_three_failures_and_when_it_is_over(
    stage: Stage,
) -> None:
    words = ("--port", "0", "--pipelines", "1", "--fail", "Sales agent=25s", "--write-config", "simulated.yaml")
    simulator = await stage.begin("simulate", *words)
    await simulator.until(lambda: len(simulator.stderr.lines.lines) == 2, what="it served")
    document = yaml.safe_load((stage.folder / "simulated.yaml").read_text(encoding="utf-8"))
    life = await stage.start(document | {"polling": {"first_sight": "notify"}})
    await life.until(lambda: life.events("pipeline.recovered"), what="it had recovered")
    ends = ("execution.failed", "execution.success", "pipeline.failing", "pipeline.recovered")
    types = [event["type"] for event in life.events() if event["type"] in ends]
    assert types == [*3 * ["execution.failed"], "pipeline.failing", "execution.success", "pipeline.recovered"]
    assert await life.stop() == 0
    assert await simulator.stop(signal.SIGINT) == 130


PATIENT = POLLING | {"lost_after": 1000, "lost_grace": "500ms", "degraded_after": "500ms"}
"""It begins to ask before the execution exists, so that no test depends on how soon the program starts."""

PIPELINE = pipeline_named("Sales agent")
EVIL = "\x1b[31m[red]evil\nline"


@dataclass(frozen=True, slots=True)
class Scene:
    """A simulator, and waits for executions that begin once they are asked for."""

    stage: Stage
    simulator: Simulator

    def arguments(self, execution: str, *options: str, **blocks: Document) -> list[str]:
        """Write a configuration with these blocks changed, and return the words of the command."""
        document = document_of({"default": self.simulator}) | {"polling": PATIENT} | blocks
        document["sinks"] = {"ops": {"type": "webhook", "url": "${A_SECRET_THAT_IS_NOT_SET}"}}
        path = self.stage.write(document)
        return ["wait", PIPELINE.id, execution, "--config", str(path), "--interval", "1s", *options]

    async def wait_next(self, *options: str, **blocks: Document) -> Life:
        return await self.stage.begin(*self.arguments("--next", *options, **blocks))

    async def listed(self, times: int) -> None:
        """Return once a page of the list was answered so many times."""
        entries = self.simulator.request_log.entries
        answered = lambda: len([entry for entry in entries if entry.endpoint == "list" and entry.code]) >= times  # noqa: E731
        await self.stage.board.until(answered, what="the list was read")

    def begin(self, *lifecycles: Lifecycle) -> None:
        world = self.simulator.world
        for lifecycle in lifecycles:
            world.add(lifecycle, pipeline=PIPELINE, begins_s=world.now_s())

    async def wait(self, execution: str, *options: str, **blocks: Document) -> Life:
        return await self.stage.begin(*self.arguments(execution, *options, **blocks))

    async def play(self, lifecycle: Lifecycle, *options: str, **blocks: Document) -> Life:
        """Wait for a story, and let it begin."""
        life = await self.wait(lifecycle.execution, *options, **blocks)
        await self._begin(lifecycle)
        return life

    async def show(self, lifecycle: Lifecycle, *, term: str = "xterm-256color") -> Terminal:
        """Wait for a story on a terminal, and let it begin."""
        terminal = await self.stage.terminal(*self.arguments(lifecycle.execution), TERM=term)
        await self._begin(lifecycle)
        return terminal

    async def _begin(self, lifecycle: Lifecycle) -> None:
        asked = lambda: requests_of(self.simulator.request_log, lifecycle.execution)  # noqa: E731 (a condition)
        await self.stage.board.until(asked, what="it was asked for")
        self.begin(lifecycle)


def lifecycle_of(*path: tuple[str, float], nth: int = 1, ends: bool = False, error: str | None = None) -> Lifecycle:
    """Make a lifecycle of these phases; `ends` gives the last one a `finishedAt`."""
    phases = [StatusPhase(status, begins_s) for status, begins_s in path]
    phases[-1] = replace(phases[-1], ends=ends)
    return Lifecycle(str(UUID(int=nth, version=4)), tuple(phases), error=error)


OPEN = lifecycle_of(("running", 0.0))


async def ended(life: Life) -> tuple[int, str, str]:
    """Return the exit code and what was written on stdout and stderr."""
    code = await life.end()
    return code, life.stdout.lines.everything().decode(), life.stderr.lines.everything().decode()


@pytest.fixture
async def scene(stage: Stage) -> Scene:
    return Scene(stage, await stage.simulator(World(Clock())))


async def test_a_success_is_0_and_every_change_a_line_or_as_json_the_daemons_event(scene: Scene) -> None:
    # Each stays long enough in each status to be seen in it, by a machine that stalls for a moment.
    one, two, three = (lifecycle_of(("new", 0.0), ("running", 1.5), ("success", 3.0), nth=nth) for nth in range(1, 4))
    life, as_json, poor = await asyncio.gather(
        scene.play(one), scene.play(two, "--json"), scene.show(three, term="dumb")
    )
    code, stdout, stderr = await ended(life)
    assert (code, stderr) == (0, "")
    columns = [line.split(" ") for line in stdout.splitlines()]
    assert [(status, ran) for _, status, ran in columns] == [("new", "-"), ("running", "0.0"), ("success", "1.5")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", at) for at, *_ in columns)
    code, stdout, stderr = await ended(as_json)
    assert (code, as_json.stdout.lines.tail) == (0, b"")
    assert checks.of_sequences(as_json.emitted) == []
    assert checks.of_truth(as_json.emitted, scene.simulator) == []
    assert not [word for word in (PRIVATE, API_KEY) if word in stdout + stderr]
    assert await poor.end() == 0
    assert [line.split(" ")[1] for line in poor.written.splitlines()] == ["new", "running", "success"]


async def test_what_is_lost_is_1_nobody_reached_4_a_refused_key_4_an_unknown_execution_5_and_interrupted_130(
    scene: Scene,
) -> None:
    world, log = scene.simulator.world, scene.simulator.request_log
    missing = PATIENT | {"lost_after": 3, "lost_grace": "0s"}
    unknown = await scene.wait(str(UUID(int=7, version=4)), polling=missing)
    code, stdout, stderr = await ended(unknown)
    assert (code, stdout) == (5, "")
    assert stderr.startswith("error: Clerk Chat knows no such execution (404)\nhint: are both ids right")

    life = await scene.play(OPEN, polling=PATIENT | {"lost_after": 3})
    await life.until(lambda: life.emitted, what="it was seen")
    interrupted = await scene.wait(OPEN.execution)
    await interrupted.until(lambda: interrupted.emitted, what="a line was printed")
    assert await interrupted.stop(signal.SIGINT) == 130
    assert interrupted.stderr.lines.everything() == b""
    forget(world, OPEN.execution)
    code, stdout, _ = await ended(life)
    assert (code, stdout.splitlines()[-1].partition(" ")[2]) == (1, "lost - not_found")

    with socket.create_server(("127.0.0.1", 0)) as nobody:
        base_url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    account = {"api_key": API_KEY, "base_url": base_url}
    life = await scene.wait(OPEN.execution, accounts={"default": account}, polling=PATIENT | {"degraded_after": "1s"})
    code, stdout, stderr = await ended(life)
    assert (code, stdout) == (4, "")
    expected = f"error: Clerk Chat cannot be reached (no connection)\nhint: polled {base_url} for "
    assert stderr.startswith(expected), stderr

    scene.simulator.dice.faults, asked = Faults(windows=(Window(Fault.UNAUTHORIZED),)), log.served_count
    code, stdout, stderr = await ended(await scene.wait(OPEN.execution, "--json"))
    said = json.loads(stderr)["error"]
    assert (said["code"], said["message"], said["exit"]) == ("unreachable", "Clerk Chat refuses this key (401)", 4)
    assert said["hint"].startswith("the key came from accounts.default.api_key in ")
    assert [json.loads(line)["data"]["reason"] for line in stdout.splitlines()] == ["unauthorized"]
    assert API_KEY not in stdout + stderr
    assert (code, log.served_count) == (4, asked + 1)


# The next execution

HISTORY_COUNT = 120
"""The list has three pages: the new executions are either on the first page or on the last."""


async def with_history(stage: Stage, *, newest_first: bool) -> Scene:
    """Return a scene whose pipeline had many executions an hour ago, each of which failed."""
    world = World(Clock(), newest_first=newest_first)
    for nth in range(HISTORY_COUNT):
        old = lifecycle_of(("running", 0.0), ("failed", 1.0), nth=1000 + nth)
        world.add(old, pipeline=PIPELINE, begins_s=nth - 3600.0)
    return Scene(stage, await stage.simulator(world))


@pytest.mark.ci
async def test_of_two_triggers_at_once_it_follows_the_earlier_or_that_of_the_conversation(
    stage: Stage,
) -> None:
    scene = await with_history(stage, newest_first=False)
    conversations = [str(UUID(int=nth, version=4)) for nth in (501, 502)]
    earlier = lifecycle_of(("running", 0.0), ("success", 3.0), nth=2)
    later = lifecycle_of(("new", 0.0), ("running", 1.0), ("failed", 3.0), nth=1)
    earlier, later = (
        replace(lifecycle, conversation_id=conversation)
        for lifecycle, conversation in zip((earlier, later), conversations, strict=True)
    )
    anyone = await scene.wait_next()
    mine = await scene.wait_next("--json", "--conversation", conversations[1].upper())
    piped = await scene.wait_next("--conversation", conversations[1])
    await scene.listed(12)
    assert anyone.emitted == mine.emitted == piped.emitted == []
    scene.begin(earlier, later)
    code, stdout, stderr = await ended(anyone)
    first, *lines = stdout.splitlines()
    assert (code, first, stderr) == (0, earlier.execution, "")
    assert [line.split(" ")[1] for line in lines] == ["running", "success"]
    code, stdout_as_json, stderr_as_json = await ended(mine)
    assert (code, {event["subject"] for event in mine.events()}) == (1, {later.execution})
    assert checks.of_sequences(mine.emitted) == []
    assert checks.of_truth(mine.emitted, scene.simulator) == []
    code, stdout_piped, stderr_piped = await ended(piped)
    assert (code, stdout_piped.splitlines()[0]) == (1, later.execution)
    assert conversations[0] not in stdout_as_json + stderr_as_json
    assert not [id_ for id_ in conversations if id_ in stdout + stderr + stdout_piped + stderr_piped]


@pytest.mark.ci
async def test_on_a_terminal_it_redraws_in_place_below_the_id_of_the_next_and_the_end_stays(stage: Stage) -> None:
    scene = await with_history(stage, newest_first=True)
    terminal = await stage.terminal(*scene.arguments("--next"))
    await terminal.until("· no execution has started yet   pipeline ")
    scene.begin(lifecycle_of(("running", 0.0), ("failed", 2.0), error=EVIL))
    await terminal.until("▶ running")
    assert await terminal.end() == 1
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in terminal.plain.rstrip().split("\n")]
    assert lines.count(OPEN.execution) == 1
    assert lines[lines.index(OPEN.execution) + 1].startswith("· ")  # the picture goes on below it
    assert lines[-4] == f"✕ failed after 2 s   Sales agent · {OPEN.execution}"
    assert re.fullmatch(r"  running \d+ s → failed", lines[-3]), lines[-3]  # as long as it was seen so
    assert lines[-2].endswith(" · exit 1")
    assert lines[-1] == r"  \x1b[31m[red]evil line"
    assert "\x1b[2K\x1b[1A" in terminal.written
    assert terminal.written.endswith("\x1b[?25h")
