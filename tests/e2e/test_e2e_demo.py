"""The demonstration, as whoever tries the program first sees it."""

import signal

import pytest
import yaml
from e2e import checks
from e2e.stage import Stage


@pytest.mark.ci
async def test_it_ends_by_itself_after_events_alone_as_json_or_on_a_terminal_a_line_per_change_and_a_summary(
    stage: Stage,
) -> None:
    printed = await stage.begin("demo", "--json")
    terminal = await stage.terminal("demo", columns=200)
    assert (await printed.end(), await terminal.end()) == (0, 0)
    types = {event["type"] for event in printed.events()}
    assert printed.stdout.lines.tail == b""
    assert checks.of_sequences(printed.emitted) == []
    assert {"execution.success", "execution.failed"} <= types
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


async def test_it_goes_on_for_ever_if_asked_and_ends_when_interrupted(stage: Stage) -> None:
    life = await stage.begin("demo", "--json", "--forever")
    await life.until(lambda: life.events("execution.running"), what="something was reported")
    assert await life.stop(signal.SIGINT) == 0
    assert checks.of_sequences(life.emitted) == []
    assert life.stdout.lines.tail == b""
