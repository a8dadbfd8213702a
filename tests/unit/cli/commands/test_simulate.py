"""What the simulator as a program says, and what it refuses."""

import asyncio
import math
from pathlib import Path

import pytest
from e2e.programme import COMMAND, environment
from unit.conftest import Command

from watcher.cli.commands.simulate import parse_fails, report
from watcher.domain.errors import UsageError
from watcher.runtime.clock import Clock
from watcher.simulator.scenarios import NAMES, pipeline_named
from watcher.simulator.server import Simulator
from watcher.simulator.world import World


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scenario", "rough"), 'error: no scenario is called "rough"; use one of calm, flaky'),
        (("--port", "99999"), "Invalid value for '--port'"),
        (("--pipelines", "0"), "Invalid value for '--pipelines'"),
        (("--write-config", "w.yaml"), "error: w.yaml exists already; name another file, or remove it\n"),
        (("--write-config", "nowhere/w.yaml"), "cannot write nowhere/w.yaml (no such file or directory)"),
        (("--host", "a..b"), "cannot listen on a..b:0"),
    ],
)
def test_what_it_cannot_do_is_a_mistake_of_usage(words: tuple[str, str], said: str, command: Command) -> None:
    Path("w.yaml").touch()
    code, out, err = command("simulate", "--port", "0", *words)
    assert (code, out, said in err) == (2, "", True)


@pytest.mark.parametrize(
    ("words", "fails"),
    [
        ([], {}),
        (["Sales agent"], {"Sales agent": math.inf}),
        (["sales agent=5m", "Onboarding=90s"], {"Sales agent": 300, "Onboarding": 90}),
        ([pipeline_named("Onboarding", seed=7).id], {"Onboarding": math.inf}),
    ],
)
def test_pipelines_that_are_to_fail_are_named_by_name_or_id(words: list[str], fails: dict[str, float]) -> None:
    assert parse_fails(words, names=list(NAMES)) == fails


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("Sails", '--fail: no pipeline is called "Sails"; use one of Sales agent, Onboarding, '),
        ("Onboarding=5", '--fail: "5" is not a duration; write 500ms'),
    ],
)
def test_a_pipeline_that_is_none_and_a_time_that_is_none_are_mistakes(word: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_fails([word], names=list(NAMES))
    assert str(caught.value).startswith(said)


async def test_a_taken_port_is_a_failure_and_no_mistake_of_usage(tmp_path: Path) -> None:
    async with Simulator(World(Clock())) as simulator:
        port = simulator.base_url.rsplit(":", 1)[1]
        words = (*COMMAND, "simulate", "--port", port)
        process = await asyncio.create_subprocess_exec(
            *words, cwd=tmp_path, env=environment(), stderr=asyncio.subprocess.PIPE
        )
        _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().startswith(f"error: cannot listen on 127.0.0.1:{port}; is it in use?")


async def test_it_reports_while_it_runs_and_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    stop = asyncio.Event()
    async with Simulator(World(Clock())) as simulator:
        reporting = asyncio.create_task(report(simulator, stop=stop, every_s=0.01))
        await asyncio.sleep(0.2)
        stop.set()
        await reporting
    lines = capsys.readouterr().err.splitlines()
    assert set(lines) == {"served 0"}
    assert len(lines) > 2


@pytest.mark.ci
async def test_it_says_where_it_listens_and_what_fails_and_writes_what_watches_it(tmp_path: Path) -> None:
    words = ("--port", "0", "--fail", "Sales agent=5m", "--fail", "Onboarding", "--write-config", "w.yaml")
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "simulate", *words, cwd=tmp_path, env=environment(), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    lines = [(await process.stderr.readline()).decode().strip() for _ in range(3)]
    process.terminate()
    rest = await process.stderr.read()
    assert await process.wait() == 143
    base_url = lines[0].split()[2]
    assert lines == [
        f"listening on {base_url} key=sim-key scenario=calm",
        "Sales agent fails for 5 m",
        "Onboarding fails",
    ]
    assert rest == b"served 0\n"
    written = (tmp_path / "w.yaml").read_text()
    assert base_url in written
    assert written.count("consecutive: 3") == 2
