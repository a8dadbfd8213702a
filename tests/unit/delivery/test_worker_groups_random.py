"""Groups under whatever happens: failures, refusals, kills, and settings that change. Seeded, to be repeated."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from worker_rig import BUSY, DELIVERED, FAILED, REFUSED, RULES, Rig, name_of

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.routing import GroupRules
from watcher.sinks.protocol import SendResult, WorkerRules
from watcher.store.sql_store import SqlStore

pytestmark = pytest.mark.untraced  # three times as long with coverage, and others run the same lines

STREAMS = [f"s{number}-" for number in range(12)]
STEPS = 60


class Receiver:
    """Answers by chance, and checks with each request that nothing is out of order and no group has changed."""

    def __init__(self, rig: Rig, dice: Random) -> None:
        self.is_well = False
        self.complaints: list[str] = []  # an error would count as trouble of the sink
        self._rig = rig
        self._dice = dice
        self._delivered: dict[bytes, int] = {}
        self._groups: dict[object, list[str]] = {}

    def answer(self, delivery: Delivery) -> SendResult:
        names = self._rig.sink.batches[-1]
        batch = self._rig.sink.sent[-len(names) :]
        if delivery.group_id is not None:
            before = self._groups.setdefault(delivery.group_id, names)
            self.complaints += [f"{names} were {before}"] if names != before else []
        self._check_order(batch)
        poisoned = any(each.sequence == 3 and each.stream == b"s1-" for each in batch)
        result = REFUSED if poisoned else DELIVERED if self.is_well else self._dice.choice([DELIVERED, FAILED, BUSY])
        if result is DELIVERED:
            for each in batch:
                self._delivered[each.stream] = max(each.sequence, self._delivered.get(each.stream, 0))
        return replace(result, retry_after_s=1.0) if result is BUSY else result

    def forget_groups(self) -> None:
        """Let them come in parts: a sink without groups is sent each event alone."""
        self._groups.clear()

    def _check_order(self, batch: list[Delivery]) -> None:
        reached = dict(self._delivered)
        for each in batch:
            earlier = range(reached.get(each.stream, 0) + 1, each.sequence)
            ahead = [f"{each.stream.decode()}{number}" for number in earlier]
            self.complaints += [
                f"{name_of(each)} before {name}" for name in ahead if self._rig.row(name)["state"] != "dead"
            ]
            reached[each.stream] = max(each.sequence, reached.get(each.stream, 0))


def rules(dice: Random) -> WorkerRules:
    by = dice.choice([("pipeline",), ("type",), ("account", "labels.team")])
    group = GroupRules(by, wait_s=dice.choice([1.0, 10.0]), max_count=dice.choice([2, 5, 100]))
    return replace(RULES, group=dice.choice([group, group, group, None]))


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_is_lost_repeated_out_of_order_or_regrouped(tmp_path: Path, seed: int) -> None:
    dice, rig = Random(seed), Rig(tmp_path / "watcher.db")
    receiver = Receiver(rig, dice)
    rig.sink.answer = receiver.answer
    current = rules(dice)
    await rig.start(rules=current)
    for _ in range(STEPS):
        type_ = dice.choice([EventType.EXECUTION_RUNNING, EventType.EXECUTION_FAILED, EventType.ACCOUNT_DEGRADED])
        data = {"account": "default", "pipeline": {"id": dice.choice("pq")}, "labels": {"team": dice.choice("xy")}}
        chosen = [stream for stream in dice.choices(STREAMS, k=dice.randrange(6)) if rig._recorded[stream] < 9]
        await rig.record(*dict.fromkeys(chosen), type_=type_, data=data)
        await rig.go(dice.choice([0.0, 0.3, 2.0, 11.0]))
        if dice.random() < 0.15:
            await rig.kill()
            current = current if dice.random() < 0.7 else rules(dice)
            if current.group is None:
                receiver.forget_groups()
            await rig.start(rules=current)
    receiver.is_well = True
    for _ in range(40):
        await rig.go(60)
    await _check_all_is_settled(rig, rig.real_store)
    assert (receiver.complaints, rig.ends) == ([], [])
    await rig.stop()


async def _check_all_is_settled(rig: Rig, store: SqlStore) -> None:
    assert await store.backlog() == {}
    assert await store.replay_all("ops") <= 1  # the one that is refused
    expected = {f"{stream}{number}" for stream, count in rig._recorded.items() for number in range(1, count + 1)}
    assert {name_of(each) for each in rig.sink.sent} == expected
