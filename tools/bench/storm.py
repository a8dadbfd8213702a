"""A storm of 5,000 ends in a minute, told to a grouped sink, an ungrouped one and Slack: are polls still in time?"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from e2e.stage import Stage
from e2e.storm import Storm, storm

from bench.figures import Figure, at_least, at_most, shown

COUNT = 5_000
WITHIN_S = 60.0
RATE_PER_S = 2_000


def measure_storm(repetitions: Sequence[int]) -> Iterator[Figure]:
    """Measure the share of polls that are no later than 250 ms while it lasts, and the memory it takes."""
    storms = [asyncio.run(_storm()) for _ in repetitions]
    yield at_least(99, "polls no later than 250 ms in a storm, %", [100 * each.in_time_share for each in storms])
    yield at_most(200, "memory after it, MB", [each.memory_mb for each in storms])
    yield shown("  batches to a plain sink", [len(each.grouped.attempts) for each in storms])
    yield shown("  messages to Slack", [len(each.slack_counts) for each in storms])


async def _storm() -> Storm:
    with TemporaryDirectory(prefix="storm-") as folder:
        async with AsyncExitStack() as stack:
            stage = Stage(Path(folder), stack, dice=Random())
            return await storm(stage, count=COUNT, within_s=WITHIN_S, wait_s=10.0, most=500, rate=RATE_PER_S)
