"""Groups under whatever happens: failures, refusals, kills, and settings that change. Seeded, to be repeated."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from parameters import seeds
from stores import backlog_of
from worker_rig import BUSY, DELIVERED, FAILED, REFUSED, RULES, Rig, name_of

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.routing import GroupRules
from watcher.sinks.protocol import SendResult, WorkerRules

STREAMS = [f"s{number}-" for number in range(12)]
STEPS = 60


class Receiver:
    """Answers by chance, and never takes one event; checks with each request that nothing is out of order."""

    def __init__(self, rig: Rig, dice: Random, *, poison: SendResult) -> None:
        self.is_well = self.hangs = False
        self.complaints: list[str] = []  # an error would count as trouble of the sink
        self.received: set[str] = set()
        self._rig = rig
        self._dice = dice
        self._poison = poison

    def answer(self, _: Delivery) -> SendResult | Awaitable[SendResult]:
        names = self._rig.sink.batches[-1]
        self._check_order(self._rig.sink.sent[-len(names) :])
        result = self._poison if "s1-3" in names else DELIVERED
        if not self.is_well and result is DELIVERED:
            result = self._dice.choice([DELIVERED, FAILED, replace(BUSY, retry_after_s=1.0)])
        if result is DELIVERED:
            self.received.update(names)
        return asyncio.get_running_loop().create_future() if self.hangs else result

    def _check_order(self, batch: list[Delivery]) -> None:
        ahead: set[str] = set()
        for each in batch:
            for number in range(1, each.content["sequence"]):
                name = f"{each.content['of']}{number}"
                if name not in self.received | ahead and self._rig.row(name)["state"] != "dead":
                    self.complaints.append(f"{name_of(each)} before {name}")
            ahead.add(name_of(each))


def rules(dice: Random) -> WorkerRules:
    by = dice.choice([("pipeline",), ("type",), ("account", "labels.team")])
    group = GroupRules(by, wait_s=dice.choice([1.0, 10.0]), max_count=dice.choice([2, 5, 100]))
    return replace(RULES, group=dice.choice([group, group, group, None]))


@pytest.mark.parametrize("poison", [REFUSED, FAILED], ids=["refused", "failing"])
@pytest.mark.parametrize("seed", seeds(ci=3, soak=60))
async def test_nothing_is_lost_or_out_of_order(tmp_path: Path, seed: int, poison: SendResult) -> None:
    dice, rig = Random(seed), Rig(tmp_path / "watcher.db")
    receiver = Receiver(rig, dice, poison=poison)
    rig.sink.answer = receiver.answer
    current = rules(dice)
    await rig.start(rules=current)
    for _ in range(STEPS):
        type_ = dice.choice([EventType.EXECUTION_RUNNING, EventType.EXECUTION_FAILED, EventType.ACCOUNT_DEGRADED])
        data = {"account": "default", "pipeline": {"id": dice.choice("pq")}, "labels": {"team": dice.choice("xy")}}
        chosen = [stream for stream in dice.choices(STREAMS, k=dice.randrange(6)) if rig.recorded[stream] < 9]
        await rig.record(*dict.fromkeys(chosen), type_=type_, data=data)
        await rig.go(dice.choice([0.0, 0.3, 2.0, 11.0]))
        if dice.random() < 0.15:
            receiver.hangs = True
            await rig.worker.tick()
            await asyncio.sleep(0)
            await rig.kill()
            receiver.hangs = False
            current = current if dice.random() < 0.7 else rules(dice)
            await rig.start(rules=current)
    receiver.is_well = True
    for number in range(40):
        await rig.record("other", type_=EventType.ACCOUNT_DEGRADED)
        await rig.go_for(30 + number)
    expected = {f"{stream}{nth}" for stream, count in rig.recorded.items() for nth in range(1, count + 1)}
    late = {f"s1-{nth}" for nth in range(3, 10)} if poison is FAILED else {"s1-3"}
    assert (receiver.complaints, rig.ends) == ([], [])
    assert expected - receiver.received <= late
    waiting = await backlog_of(rig.real_store)
    assert waiting == {} or {"s1-3"} & expected, waiting
    await rig.stop()
