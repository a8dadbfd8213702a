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

pytestmark = pytest.mark.untraced

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
        world = self.simulator.world
        world.add(lifecycle, pipeline=PIPELINE, begins_s=world.now_s())


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


async def test_what_is_lost_after_it_was_seen_is_1_and_only_after_the_grace(scene: Scene) -> None:
    life = await scene.play(OPEN, polling=PATIENT | {"lost_after": 3})
    await life.until(lambda: life.emitted, what="it was seen")
    forget(scene.simulator.world, OPEN.execution)
    code, stdout, _ = await ended(life)
    assert code == 1
    assert stdout.endswith(" lost - not_found\n")


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


@pytest.mark.parametrize("fault", [pytest.param(Fault.RESET, marks=pytest.mark.long), Fault.UNAUTHORIZED])
async def test_trouble_of_any_length_after_the_first_sight_ends_nothing(scene: Scene, fault: Fault) -> None:
    life = await scene.play(OPEN, "--json")
    await life.until(lambda: life.emitted, what="it was seen")
    scene.simulator.dice.faults = Faults(windows=(Window(fault),))
    await life.until(lambda: life.events("account.degraded"), what="the account was degraded")
    assert await life.stop() == 143


@pytest.mark.long
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
    ("signum", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long)]
)
async def test_interrupted_it_ends_at_once_and_says_nothing(scene: Scene, signum: signal.Signals, code: int) -> None:
    life = await scene.play(OPEN)
    await life.until(lambda: life.emitted, what="a line was printed")
    assert await life.stop(signum, within_s=2.0) == code
    assert life.stderr.lines.everything() == b""


async def test_a_reader_that_leaves_ends_it_quietly(scene: Scene) -> None:
    life = await scene.play(lifecycle_of(("running", 0.0), ("success", 2.0)))
    await life.until(lambda: life.emitted, what="a line was printed")
    life.stdout.leave()
    assert await life.end() == 1
    assert life.stderr.lines.everything() == b""


# On a terminal


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
