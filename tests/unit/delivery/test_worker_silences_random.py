"""Problems that open and close while silences come and go, with a faulty receiver and kills. Seeded, to be repeated."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from uuid import UUID

import pytest
from parameters import seeds
from stores import backlog_of
from worker_rig import BUSY, DELIVERED, FAILED, RULES, Rig, name_of

from watcher.domain.delivery import Delivery, Part
from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import Problem
from watcher.domain.routing import GroupRules, Silence
from watcher.sinks.protocol import SendResult

KINDS = {
    "account-": (EventType.ACCOUNT_DEGRADED, EventType.ACCOUNT_RECOVERED),
    "pipeline-": (EventType.PIPELINE_FAILING, EventType.PIPELINE_RECOVERED),
    "execution-": (EventType.EXECUTION_OVERDUE, EventType.EXECUTION_FAILED),
}
GROUPED = replace(RULES, group=GroupRules(("pipeline",), wait_s=5.0, max_count=10))
STEPS = 80


class Receiver:
    """Answers by chance; what it takes it has, even if nobody hears of that."""

    def __init__(self, rig: Rig, dice: Random) -> None:
        self.is_well = self.hangs = False
        self.received: list[str] = []
        self.offered: set[UUID] = set()  # problems whose opening was sent to it, or may have been
        self.opened: dict[UUID, list[str]] = {}
        self.closed: dict[UUID, list[str]] = {}
        self.complaints: list[str] = []
        self._rig = rig
        self._dice = dice

    def answer(self, _: Delivery) -> SendResult | Awaitable[SendResult]:
        batch = self._rig.sink.sent[-len(self._rig.sink.batches[-1]) :]
        result = DELIVERED if self.is_well else self._dice.choice([DELIVERED, FAILED, replace(BUSY, retry_after_s=1.0)])
        for each in batch:
            self._take(each, is_taken=result is DELIVERED)
        return asyncio.get_running_loop().create_future() if self.hangs else result

    def _take(self, each: Delivery, *, is_taken: bool) -> None:
        assert each.problem is not None
        if not each.closes:
            self.offered.add(each.problem)
        elif each.part is not Part.NEWS and each.problem not in self.offered:
            self.complaints.append(f"{name_of(each)} closes what was not opened")
        if is_taken:
            self.received.append(name_of(each))
            which = self.closed if each.closes else self.opened
            if each.part is not Part.NEWS:
                which.setdefault(each.problem, []).append(name_of(each))


def silences(rig: Rig, dice: Random) -> list[Silence]:
    """Return up to two that begin about now, and last for a while."""
    wanted = [
        {"sinks": ("ops",)},
        {"accounts": ("default",)},
        {"types": (EventType.ACCOUNT_DEGRADED, EventType.EXECUTION_OVERDUE)},
        {"types": (EventType.EXECUTION_FAILED,)},
    ]
    now = rig.clock.now()
    return [
        Silence(now + timedelta(seconds=dice.choice([-5, 0, 3])), now + timedelta(seconds=dice.choice([4, 20])), **each)  # type: ignore[arg-type] # each a field of it
        for each in dice.sample(wanted, k=dice.randrange(3))
    ]


def _waits(rig: Rig, problem: Problem) -> bool:
    return bool(rig.row(f"{problem.opening.stream.decode()}{problem.opening.sequence}")["state"] == "waiting")


@pytest.mark.parametrize("is_grouped", [False, True])
@pytest.mark.parametrize("seed", seeds(ci=3, soak=60))
async def test_each_problem_is_opened_once_and_closed_once_if_it_was_opened(
    tmp_path: Path, seed: int, is_grouped: bool
) -> None:
    dice, rig, rules = Random(seed), Rig(tmp_path / "watcher.db"), GROUPED if is_grouped else RULES
    receiver = Receiver(rig, dice)
    rig.sink.answer = receiver.answer
    await rig.start(rules=rules)
    open_now: dict[str, Problem] = {}
    closed: set[UUID] = set()
    all_problems: list[Problem] = []
    for step in range(STEPS):
        for stream, (opening, closing) in KINDS.items():
            data = {"account": "default"} | ({} if stream == "account-" else {"pipeline": {"id": "p"}})
            if dice.random() > 0.3 or rig.recorded[stream] > 7:
                continue
            if stream in open_now:
                problem = open_now.pop(stream)
                closed.add(problem.id)
                await rig.record(stream, type_=closing, data=data, problem=problem, closed=True)
            else:
                key = EventKey(stream.encode(), rig.recorded[stream] + 1)
                problem = Problem(UUID(int=step * 10 + len(stream)), opening, rig.clock.now(), key)
                open_now[stream] = problem
                all_problems.append(problem)
                await rig.record(stream, type_=opening, data=data, problem=problem)
        if dice.random() < 0.4:
            rig.silences.all = silences(rig, dice)
        await rig.go(dice.choice([0.0, 0.3, 2.0, 7.0]))
        if dice.random() < 0.15:
            receiver.hangs = True
            await rig.worker.tick()
            await asyncio.sleep(0)
            receiver.offered |= {each.id for each in all_problems if _waits(rig, each)}  # nobody knows any more
            await rig.kill()
            receiver.hangs = False
            await rig.start(rules=rules)
    receiver.is_well = True
    rig.silences.all = []
    await rig.go_for(300)
    assert (receiver.complaints, rig.ends, await backlog_of(rig.real_store)) == ([], [], {})
    for names in (*receiver.opened.values(), *receiver.closed.values()):
        assert len(set(names)) == 1
    assert {problem.id for problem in open_now.values()} <= receiver.opened.keys()
    assert receiver.opened.keys() & closed <= receiver.closed.keys()
    first_seen = list(dict.fromkeys(receiver.received))
    for stream in KINDS:
        of_stream = [name for name in first_seen if name.startswith(stream)]
        assert of_stream == sorted(of_stream)
    await rig.stop()
