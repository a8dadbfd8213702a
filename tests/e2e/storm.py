"""A storm: thousands of executions end within a minute, and three sinks are told, each in its own way."""

import json
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psutil
from e2e.endpoint import Attempt, Receiver
from e2e.programme import Life, page
from e2e.stage import ENDS, POLLING, Document, Stage, all_have_ended, document_of, webhook, world_of
from prometheus_client.parser import text_string_to_metric_families

IN_TIME_S = 0.25
_COUNTED = re.compile(r"✕ ([\d,]+) failed ")


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of one request by id, when the oldest and the newest were observed, and when they arrived (Unix s)."""

    ids: list[str]
    oldest_at: float
    newest_at: float
    arrived_at: float


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

    def batches(self) -> list[Batch]:
        """Return what was sent in groups, by the oldest event of each."""
        began_at = time.time() - time.monotonic()
        batches = [_batch(attempt, began_at) for attempt in self.grouped.attempts]
        return sorted(batches, key=lambda batch: batch.oldest_at)


def _batch(attempt: Attempt, began_at: float) -> Batch:
    observed = [datetime.fromisoformat(event["data"]["observed"]["at"]).timestamp() for event in attempt.events]
    ids = [event["id"] for event in attempt.events]
    return Batch(ids, min(observed), max(observed), began_at + attempt.at)


def grouped(receiver: Receiver, *, wait_s: float, most: int, **settings: object) -> Document:
    """Return a sink that is sent all that an account has in common."""
    return webhook(receiver, group={"by": ["account"], "wait": f"{round(wait_s * 1000)}ms", "max": most}, **settings)


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
