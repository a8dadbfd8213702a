"""A storm of 5,000 ends in a minute, told to a grouped sink, an ungrouped one and Slack: are polls still in time?"""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from e2e.endpoint import Receiver
from e2e.programme import Life, page
from e2e.stage import ENDS, POLLING, Stage, all_have_ended, document_of, grouped, webhook, world_of
from prometheus_client.parser import text_string_to_metric_families

from bench.figures import Figure, at_least, at_most, shown

COUNT = 5_000
WITHIN_S = 60.0
RATE_PER_S = 2_000
IN_TIME_S = 0.25
_COUNTED = re.compile(r"✕ ([\d,]+) failed ")


@dataclass(frozen=True, slots=True)
class Storm:
    """What came of one: what each receiver has, how many of the polls were in time, and the memory it took (MB)."""

    grouped: Receiver
    alone: Receiver
    slack_counts: list[int]
    in_time_count: float
    polls_count: float
    memory_mb: float

    @property
    def in_time_share(self) -> float:
        return self.in_time_count / self.polls_count


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


async def storm(stage: Stage, *, count: int, within_s: float, wait_s: float, most: int, rate: int) -> Storm:
    """Let so many executions end within a time, and wait until each sink was told of all of them."""
    simulator = await stage.simulator(world_of(count, ends_after_s=2.0, ends_within_s=within_s))
    batches, alone = await stage.receiver(), await stage.receiver()
    slack = await stage.listener(body=b"ok")
    sinks = {
        "ops": grouped(batches, wait_s=wait_s, most=most, events=sorted(ENDS)),
        "each": webhook(alone, events=sorted(ENDS)),
        "slack": {
            "type": "webhook",
            "template": "slack",
            "url": slack.url,
            "events": ["execution.failed"],
            "group": {"by": ["account"], "wait": f"{round(wait_s * 1000)}ms"},
        },
    }
    document = document_of({"default": simulator}, sinks, rate_limit=f"{rate}/s")
    interval = f"{max(1, count / rate * 2):g}s"  # so that they take half the rate: who asks for more is always late
    document["polling"] = {**POLLING, "min_interval": interval, "max_interval": interval}
    life = await stage.start(document)

    def all_told() -> bool:
        if not all(all_have_ended(each.events(), simulator.world) for each in (batches, alone)):
            return False
        return sum(map(_slack_count, slack.requests)) == len(alone.events("execution.failed"))

    await life.until(lambda: simulator.request_log.served_count >= count, what="all were asked for once")
    before = await _polls(life)
    await life.until(all_told, within_s=within_s + 90, what="all ends were told")
    in_time, everything = (after - earlier for after, earlier in zip(await _polls(life), before, strict=True))
    memory_mb = psutil.Process(life.pid).memory_info().rss / 1e6
    assert await life.stop() == 0
    return Storm(batches, alone, list(map(_slack_count, slack.requests)), in_time, everything, memory_mb)


def _slack_count(request: Any) -> int:
    found = _COUNTED.match(json.loads(request.body)["text"])
    return 1 if found is None else int(found[1].replace(",", ""))


async def _polls(life: Life) -> tuple[float, float]:
    """Return how many polls were no later than `IN_TIME_S`, and how many there were."""
    _, text = await page(f"{await life.started()}/metrics")
    for family in text_string_to_metric_families(text):
        if family.name == "watcher_poll_lateness_seconds":
            buckets = {each.labels["le"]: each.value for each in family.samples if "le" in each.labels}
            return buckets[f"{IN_TIME_S}"], buckets["+Inf"]
    raise AssertionError("no polls were counted")
