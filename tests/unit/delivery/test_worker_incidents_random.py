"""Problems that open and close at a pager that fails, over kills, silences, reloads, acknowledgements and replays.

Seeded, to be repeated.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from pager_rig import FakePagerDuty, PagerEvent, PagerRig
from parameters import seeds
from stores import backlog_of, operator_of
from worker_rig import BUSY, DELIVERED, FAILED, REFUSED, RULES

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.problems import Problem
from watcher.domain.routing import IncidentRules, Silence
from watcher.sinks.protocol import SendResult, WorkerRules

STEPS = 40
BYS = (("pipeline",), ("account",), ("labels.team",))
NAMES = [f"p{number}" for number in range(9)]
TEAMS = {name: "sales" if number % 3 else None for number, name in enumerate(NAMES)}


class Moody(FakePagerDuty):
    """Answers by chance, and hangs once it took something, if it is to."""

    def __init__(self, rig: PagerRig, dice: Random) -> None:
        super().__init__(rig.clock)
        self.hangs = self.is_well = False
        self._dice = dice
        self.answer = self._choose

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        result = await super().send(batch)
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        return result

    def _choose(self, event: PagerEvent) -> SendResult:
        if self.is_well:
            return DELIVERED
        if "p3" in str(event):  # one whose text it never takes
            return REFUSED
        return self._dice.choice([DELIVERED, DELIVERED, FAILED, replace(BUSY, retry_after_s=1.0)])


def rules_by(by: tuple[str, ...], *, after_s: float) -> WorkerRules:
    return replace(RULES, incidents=IncidentRules(by, wait_s=10.0), after_s=after_s, remind_every_s=900.0)


def members(path: Path) -> dict[bytes, tuple[str, int]]:
    """Return of each problem in an incident its key and when it opened."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT problem_id, hex(key), opened_at FROM incident JOIN problem ON problem.id = problem_id"
        return {id_: (key.lower(), opened_at) for id_, key, opened_at in connection.execute(query)}


def overfull(path: Path) -> list[str]:
    """Return the incidents that accepted too many pipelines, or a problem worse than those they began with."""
    query = (
        "SELECT hex(key), count(DISTINCT problem.pipeline_id),"
        " count(DISTINCT CASE WHEN at_trigger THEN problem.pipeline_id END), max(outside_count),"
        " max(problem.kind = 'pipeline.failing'), max(at_trigger AND problem.kind = 'pipeline.failing'),"
        " sum(at_trigger)"
        " FROM incident JOIN problem ON problem.id = problem_id WHERE group_key IS NOT NULL GROUP BY key"
    )
    with closing(sqlite3.connect(path)) as connection:
        return [
            key
            for key, count, first_count, outside_count, is_critical, began_critical, began in connection.execute(query)
            if began and (count - first_count > max(3, first_count + outside_count) or is_critical > began_critical)
        ]


@pytest.mark.parametrize("after_s", [0.0, 60.0])
@pytest.mark.parametrize("seed", seeds(ci=5, soak=180))
async def test_each_incident_opens_and_ends_and_what_stays_open_is_at_the_pager(
    tmp_path: Path, seed: int, after_s: float
) -> None:
    dice, rig = Random(seed), PagerRig(tmp_path / "watcher.db")
    rig.pager = pager = Moody(rig, dice)
    rules = rules_by(("account",), after_s=after_s)
    await rig.start(rules=rules)
    open_now: dict[str, Problem] = {}
    acknowledged: set[str] = set()
    joined: dict[bytes, tuple[str, int]] = {}
    for _ in range(STEPS):
        for name in NAMES:
            if dice.random() > 0.1:
                continue
            is_execution = name in {"p4", "p5"}
            if name not in open_now:
                open_now[name] = await (rig.hangs(name) if is_execution else rig.opens(name, team=TEAMS[name]))
            elif is_execution:
                type_ = dice.choice([EventType.EXECUTION_FAILED, EventType.EXECUTION_SUCCESS])
                await rig.ends_overdue(name, open_now.pop(name), type_=type_)
            else:
                await rig.closes(name, open_now.pop(name))
            acknowledged.discard(name)
        now = rig.clock.now()
        if open_now and dice.random() < 0.1:
            name = dice.choice(list(open_now))
            await rig.acknowledge(open_now[name], until=dice.choice([None, now + timedelta(minutes=5)]))
            acknowledged.add(name)
        if dice.random() < 0.15:
            begins, ends = (
                now + timedelta(seconds=dice.choice([-5, 0, 3])),
                now + timedelta(seconds=dice.choice([4, 200])),
            )
            types = dice.choice([None, (EventType.PIPELINE_FAILING,), (EventType.EXECUTION_OVERDUE,)])
            rig.silences.all = dice.choice([[], [Silence(begins, ends, sinks=("ops",), types=types)]])
        if dice.random() < 0.1:
            await operator_of(rig.real_store).replay("ops", None)
            rig.worker.wake()
        await rig.later(dice.choice([0.0, 0.3, 2.0, 7.0, 30.0, 200.0]))
        if dice.random() < 0.15:
            pager.hangs = True
            rig.clock.passed_s += dice.choice([0.0, 11.0])
            await rig.worker.tick()
            await asyncio.sleep(0)
            await rig.kill()
            pager.hangs = False
            rules = rules_by(dice.choice(BYS), after_s=after_s)
            await rig.start(rules=rules)
        joined |= members(rig.path)
        assert overfull(rig.path) == []
    pager.is_well, rig.silences.all = True, []
    await operator_of(rig.real_store).replay("ops", None)
    rig.worker.wake()
    await rig.later(7200)
    joined |= members(rig.path)
    waiting = await backlog_of(rig.real_store)
    assert (pager.complaints, rig.ends) == ([], [])
    keys = {id_: f"{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:]}" for id_, (key, _) in joined.items()}
    still_open = {keys[each.id.bytes] for each in open_now.values() if each.id.bytes in keys}
    assert set(pager.open()) <= still_open, "an incident is open of which no problem is"
    for name, problem in open_now.items():
        is_shown = pager.state.get(keys.get(problem.id.bytes, "")) in {"triggered", "acknowledged"}
        assert is_shown or name in acknowledged, f"nobody knows of {name}"
    if not acknowledged & open_now.keys():
        assert waiting == {}
    for id_, (_, opened_at) in joined.items():
        paged = [at for page, at in zip(pager.pages, pager.paged_at, strict=True) if page["dedup_key"] == keys[id_]]
        joined_late_s = opened_at / 1e6 - paged[0].timestamp() if paged else 0.0
        assert joined_late_s < 600, "it joined an incident that pages nobody any more"
    await rig.stop()
