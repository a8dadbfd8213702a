"""A storm arrives in few requests, whole and in order, whatever is killed meanwhile."""

import asyncio
from itertools import pairwise

import pytest
from e2e.endpoint import Answer, Attempt, take
from e2e.stage import Stage, all_have_ended, document_of, world_of
from e2e.storm import Batch, grouped, storm

BATCH_TYPE = "application/cloudevents-batch+json; charset=utf-8"
LATE_S = 5.0
MEMORY_MB = 200


@pytest.mark.parametrize(
    ("count", "within_s", "wait_s", "most", "rate"),
    [(300, 6.0, 2.0, 50, 300), pytest.param(5_000, 60.0, 10.0, 500, 600, marks=pytest.mark.ci)],
)
async def test_a_storm_of_ends_arrives_in_few_batches_with_all_of_them(
    stage: Stage, count: int, within_s: float, wait_s: float, most: int, rate: int
) -> None:
    told = await storm(stage, count=count, within_s=within_s, wait_s=wait_s, most=most, rate=rate)
    batches = told.batches()
    sent = [event_id for batch in batches for event_id in batch.ids]
    lasted_s = max(batch.newest_at for batch in batches) - batches[0].oldest_at
    assert (len(sent), len(set(sent))) == (count, count)
    assert {attempt.headers["Content-Type"] for attempt in told.grouped.attempts} == {BATCH_TYPE}
    _check_rhythm(batches, wait_s=wait_s, most=most)
    assert len(told.alone.attempts) == count
    assert len(told.slack_counts) <= 1 + lasted_s / wait_s + 1
    assert sum(told.slack_counts) == len(told.alone.events("execution.failed"))
    assert told.memory_mb < MEMORY_MB
    assert told.grouped.forgeries == told.alone.forgeries == []


def _check_rhythm(batches: list[Batch], *, wait_s: float, most: int) -> None:
    """Check that each batch went `wait_s` after its oldest event, and is full or took all that waited then.

    An event is recorded a moment after it was observed, and a batch arrives a moment after it was sent.
    """
    slack_s = wait_s / 2
    for batch in batches:
        assert len(batch.ids) <= most
        assert batch.arrived_at - batch.oldest_at >= wait_s
        assert batch.arrived_at - batch.oldest_at <= wait_s + LATE_S
    for batch, following in pairwise(batches):
        assert len(batch.ids) == most or following.oldest_at > batch.arrived_at - slack_s


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.soak)])
async def test_a_kill_at_any_moment_loses_nothing_of_a_group(stage: Stage, rounds: int) -> None:
    simulator = await stage.simulator(world_of(60, ends_after_s=1.0, ends_within_s=3.0 * rounds))
    receiver = await stage.receiver(lambda _: Answer.REFUSE if stage.dice.random() < 0.5 else Answer.TAKE)
    document = document_of({"default": simulator}, {"ops": grouped(receiver, wait_s=0.3, most=20)})
    for _ in range(rounds):
        life = await stage.start(document)
        await asyncio.sleep(stage.dice.uniform(0.5, 3.0))
        await life.kill()
    receiver.choose = take
    last = await stage.start(document)
    await last.until(
        lambda: all_have_ended(receiver.events(), simulator.world), within_s=rounds * 3 + 60, what="all ends were told"
    )
    assert await last.stop() == 0
    _check_groups(receiver.attempts)
    printed = {event["id"] for each in stage.lives for event in each.events() if event["type"].startswith("execution.")}
    assert printed <= {event["id"] for event in receiver.events()}
    assert receiver.forgeries == []


def _check_groups(attempts: list[Attempt]) -> None:
    bodies: dict[str, bytes] = {}
    for attempt in attempts:
        assert bodies.setdefault(attempt.headers["webhook-id"], attempt.body) == attempt.body
    first: dict[tuple[str, str | None], list[int]] = {}
    for attempt in attempts:
        for event in attempt.events if attempt.kept else ():
            numbers = first.setdefault((event["source"], event.get("subject")), [])
            if int(event["sequence"]) not in numbers:
                numbers.append(int(event["sequence"]))
    assert all(before < after for numbers in first.values() for before, after in pairwise(numbers))
