"""The demonstration, as whoever tries the program first sees it."""

import json
import signal

import pytest
from e2e import checks
from e2e.demonstration import Demonstration
from e2e.stage import Stage

pytestmark = pytest.mark.untraced


@pytest.mark.long
def test_as_json_it_prints_events_and_nothing_else_and_ends_by_itself(
    demonstrations: dict[str, Demonstration],
) -> None:
    demonstration = demonstrations["as JSON"]
    assert demonstration.end() == 0
    *lines, tail = demonstration.printed().split("\n")
    types = [json.loads(line)["type"] for line in lines]
    assert tail == ""
    assert checks.of_sequences(line.encode() for line in lines) == []
    assert {"execution.success", "execution.failed"} <= set(types)
    assert not [type_ for type_ in types if type_.endswith((".lost", ".degraded"))]


@pytest.mark.long
def test_on_a_terminal_it_prints_a_line_per_change_and_a_summary(demonstrations: dict[str, Demonstration]) -> None:
    demonstration = demonstrations["on a terminal"]
    assert demonstration.end() == 0
    printed = demonstration.printed()
    assert printed.count("signature ok") > 100
    assert "0 with a wrong signature" in printed.splitlines()[-1]
    assert "Traceback" not in printed + demonstration.said()


async def test_it_goes_on_for_ever_if_asked_and_ends_when_interrupted(stage: Stage) -> None:
    life = await stage.begin("demo", "--json", "--forever")
    await life.until(lambda: life.events("execution.running"), within_s=20, what="something was reported")
    assert await life.stop(signal.SIGINT) == 0
    assert checks.of_sequences(life.emitted) == []
    assert life.stdout.lines.tail == b""
