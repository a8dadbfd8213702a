"""`watcher wait`: how an execution ends is how the program ends, whatever the API does meanwhile."""

import asyncio
import json
import re
import signal
import socket
from dataclasses import dataclass, replace
from uuid import UUID

import pytest
from e2e import checks
from e2e.programme import Life
from e2e.stage import API_KEY, POLLING, Document, Stage, document_of
from e2e.terminal import Terminal
from simulator_facts import forget, requests_of

from watcher.runtime.clock import Clock
from watcher.simulator.faults import Fault, Faults, Window
from watcher.simulator.responses import PRIVATE
from watcher.simulator.scenarios import HARSH, pipeline_named
from watcher.simulator.server import Simulator
from watcher.simulator.world import Lifecycle, StatusPhase, World

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


@pytest.mark.ci
async def test_what_is_lost_after_it_was_seen_is_1_and_only_after_the_grace(scene: Scene) -> None:
    life = await scene.play(OPEN, polling=PATIENT | {"lost_after": 3})
    await life.until(lambda: life.emitted, what="it was seen")
    forget(scene.simulator.world, OPEN.execution)
    code, stdout, _ = await ended(life)
    assert code == 1
    assert stdout.endswith(" lost - not_found\n")


@pytest.mark.ci
@pytest.mark.parametrize("grace", ["0s", "1h"])
async def test_what_is_not_known_so_many_times_is_5(scene: Scene, grace: str) -> None:
    life = await scene.wait(OPEN.execution, polling=PATIENT | {"lost_after": 3, "lost_grace": grace})
    code, stdout, stderr = await ended(life)
    assert (code, stdout) == (5, "")
    assert stderr.startswith("error: Clerk Chat knows no such execution (404)\nhint: are both ids right")
    assert len(requests_of(scene.simulator.request_log, OPEN.execution)) == 3


async def test_a_refused_key_is_4_at_once_and_never_shown(scene: Scene) -> None:
    scene.simulator.dice.faults = Faults(windows=(Window(Fault.UNAUTHORIZED),))
    code, stdout, stderr = await ended(await scene.wait(OPEN.execution, "--json"))
    assert code == 4
    said = json.loads(stderr)["error"]
    assert (said["code"], said["message"], said["exit"]) == ("unreachable", "Clerk Chat refuses this key (401)", 4)
    assert said["hint"].startswith("the key came from accounts.default.api_key in ")
    assert [json.loads(line)["data"]["reason"] for line in stdout.splitlines()] == ["unauthorized"]
    assert API_KEY not in stdout + stderr
    assert len(requests_of(scene.simulator.request_log, OPEN.execution)) == 1


@pytest.mark.ci
async def test_an_api_that_nobody_serves_is_4_after_its_time(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        base_url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    account = {"api_key": API_KEY, "base_url": base_url}
    life = await scene.wait(OPEN.execution, accounts={"default": account}, polling=PATIENT | {"degraded_after": "1s"})
    code, stdout, stderr = await ended(life)
    assert (code, stdout) == (4, "")
    expected = (
        rf"error: Clerk Chat cannot be reached \(no connection\)\nhint: polled {re.escape(base_url)} for [1-9]\d* s\n"
    )
    assert re.fullmatch(expected, stderr), stderr


@pytest.mark.parametrize("fault", [pytest.param(Fault.RESET, marks=pytest.mark.ci), Fault.UNAUTHORIZED])
async def test_trouble_of_any_length_after_the_first_sight_ends_nothing(scene: Scene, fault: Fault) -> None:
    life = await scene.play(OPEN, "--json")
    await life.until(lambda: life.emitted, what="it was seen")
    scene.simulator.dice.faults = Faults(windows=(Window(fault),))
    await life.until(lambda: life.events("account.degraded"), what="the account was degraded")
    assert await life.stop() == 143


@pytest.mark.ci
async def test_under_harsh_faults_everyone_ends_with_the_right_code(scene: Scene) -> None:
    scene.simulator.dice.faults = replace(HARSH, windows=(), retry_after_s=1, slow_s=0.2)
    ends = {"success": 0, "failed": 1}
    stories = [lifecycle_of(("new", 0.0), ("running", 0.5), (end, 3.0), nth=nth) for nth, end in enumerate(2 * [*ends])]
    blocks = {"polling": PATIENT | {"degraded_after": "30s"}}
    lives = await asyncio.gather(*(scene.play(lifecycle, "--json", **blocks) for lifecycle in stories))
    codes = [await life.end() for life in lives]
    assert codes == 2 * [*ends.values()]
    assert checks.of_sequences(line for life in lives for line in life.emitted) == []


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.ci)]
)
async def test_interrupted_it_ends_at_once_and_says_nothing(scene: Scene, signum: signal.Signals, code: int) -> None:
    life = await scene.play(OPEN)
    await life.until(lambda: life.emitted, what="a line was printed")
    assert await life.stop(signum) == code
    assert life.stderr.lines.everything() == b""


@pytest.mark.ci
async def test_a_reader_that_leaves_ends_it_quietly(scene: Scene) -> None:
    life = await scene.play(lifecycle_of(("running", 0.0), ("success", 2.0)))
    await life.until(lambda: life.emitted, what="a line was printed")
    life.stdout.leave()
    assert await life.end() == 1
    assert life.stderr.lines.everything() == b""


# The next execution

HISTORY_COUNT = 120
"""The list has three pages: the new executions are either on the first page or on the last."""

ORDERS = pytest.mark.parametrize("newest_first", [True, False])


async def with_history(stage: Stage, *, newest_first: bool) -> Scene:
    """Return a scene whose pipeline had many executions an hour ago, each of which failed."""
    world = World(Clock(), newest_first=newest_first)
    for nth in range(HISTORY_COUNT):
        old = lifecycle_of(("running", 0.0), ("failed", 1.0), nth=1000 + nth)
        world.add(old, pipeline=PIPELINE, begins_s=nth - 3600.0)
    return Scene(stage, await stage.simulator(world))


@ORDERS
async def test_of_two_triggers_at_once_it_follows_the_earlier_or_that_of_the_conversation(
    stage: Stage, *, newest_first: bool
) -> None:
    scene = await with_history(stage, newest_first=newest_first)
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


@ORDERS
@pytest.mark.parametrize("end", ["success", "failed"])
async def test_an_execution_that_ended_before_the_first_answer_is_found_and_gives_its_code(
    stage: Stage, end: str, *, newest_first: bool
) -> None:
    scene = await with_history(stage, newest_first=newest_first)
    world, done = scene.simulator.world, lifecycle_of(("running", 0.0), (end, 2.0))
    world.add(done, pipeline=PIPELINE, begins_s=world.now_s() - 5.0)
    code, stdout, stderr = await ended(await scene.wait_next())
    assert (code, stderr) == (0 if end == "success" else 1, "")
    first, line = stdout.splitlines()
    assert (first, line.split(" ")[1:]) == (done.execution, [end, "2.0"])
    # It counts in the second round: an execution that has not ended would have gone before it.
    assert [entry.endpoint for entry in scene.simulator.request_log.entries] == [*["list"] * 4, "get"]


@pytest.mark.ci
@pytest.mark.parametrize("fault", [Fault.NOT_FOUND, Fault.BAD_GATEWAY])
async def test_no_passing_error_ends_the_search_and_what_started_before_does_not_count(
    stage: Stage, fault: Fault
) -> None:
    scene = await with_history(stage, newest_first=True)
    world, log = scene.simulator.world, scene.simulator.request_log
    world.add(lifecycle_of(("running", 0.0), nth=3), pipeline=PIPELINE, begins_s=world.now_s() - 20.0)
    life = await scene.wait_next("--since", "5s", polling=PATIENT | {"lost_after": 2})
    await scene.listed(2)
    scene.simulator.dice.faults, before = Faults(windows=(Window(fault),)), log.served_count
    await life.until(lambda: log.served_count > before + 3, what="it asked on")
    scene.simulator.dice.faults = Faults()
    next_one = lifecycle_of(("running", 0.0), ("success", 1.0))
    scene.begin(next_one)
    code, stdout, _ = await ended(life)
    assert (code, stdout.splitlines()[0]) == (0, next_one.execution)


async def test_an_unknown_pipeline_is_5(scene: Scene) -> None:
    code, stdout, stderr = await ended(await scene.wait_next(polling=PATIENT | {"lost_after": 3}))
    assert (code, stdout) == (5, "")
    assert stderr.startswith("error: Clerk Chat knows no such pipeline (404)\nhint: is the id right, and ")
    assert len(scene.simulator.request_log.entries) == 3


# On a terminal


@pytest.mark.ci
async def test_on_a_terminal_it_redraws_in_place_and_the_end_stays(scene: Scene) -> None:
    terminal = await scene.show(lifecycle_of(("running", 0.0), ("failed", 2.0), error=EVIL))
    await terminal.until("▶ running")
    assert await terminal.end() == 1
    last = [line.rstrip("\r").rpartition("\r")[2] for line in terminal.plain.rstrip().split("\n")[-4:]]
    assert last[0] == f"✕ failed after 2 s   Sales agent · {OPEN.execution}"
    assert re.fullmatch(r"  running \d+ s → failed", last[1]), last[1]  # as long as it was seen so
    assert last[2].endswith(" · exit 1")
    assert last[3] == r"  \x1b[31m[red]evil line"
    assert "\x1b[2K\x1b[1A" in terminal.written
    assert terminal.written.endswith("\x1b[?25h")


@pytest.mark.ci
async def test_on_a_terminal_the_id_of_the_next_execution_stands_above_the_picture(stage: Stage) -> None:
    scene = await with_history(stage, newest_first=True)
    terminal = await stage.terminal(*scene.arguments("--next"))
    await terminal.until("· no execution has started yet   pipeline ")
    scene.begin(lifecycle_of(("running", 0.0), ("success", 2.0)))
    assert await terminal.end() == 0
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in terminal.plain.split("\n")]
    assert lines.count(OPEN.execution) == 1
    assert lines[lines.index(OPEN.execution) + 1].startswith("· ")  # the picture goes on below it
