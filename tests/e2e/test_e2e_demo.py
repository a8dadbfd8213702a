"""The demonstration, as whoever tries the program first sees it."""

import signal

from e2e import judge
from e2e.stage import Stage


async def test_it_ends_by_itself_and_prints_events_and_nothing_else(stage: Stage) -> None:
    life = await stage.begin("demo", "--json")
    assert await life.end(within_s=45) == 0
    assert life.stdout.lines.tail == b""
    assert judge.of_sequences(life.told) == []
    assert {"execution.success", "execution.failed"} <= {event["type"] for event in life.events()}
    assert not [event for event in life.events() if event["type"].endswith((".lost", ".degraded"))]


async def test_it_goes_on_for_ever_if_asked_and_ends_when_interrupted(stage: Stage) -> None:
    life = await stage.begin("demo", "--json", "--forever")
    await life.until(lambda: life.events("execution.running"), within_s=20, what="something was told")
    assert await life.stop(signal.SIGINT) == 0
