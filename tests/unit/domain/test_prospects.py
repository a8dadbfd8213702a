"""What is said that a sink would be sent, against what the worker of that sink then sends."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import NamedTuple
from uuid import UUID

import pytest
from worker_rig import RULES, Rig, do

from watcher.domain.event import Event, EventKey, EventType
from watcher.domain.problems import CLOSED_BY, PROBLEM_KINDS, Problem, ProblemChange
from watcher.domain.prospects import prospects_of
from watcher.domain.routing import Grouped, GroupRules, IncidentRules, Route, Router, Silence, Silences
from watcher.domain.watch import Watch
from watcher.sinks.protocol import WorkerRules

HAPPENINGS = (
    EventType.EXECUTION_FAILED,
    EventType.EXECUTION_OVERDUE,
    *CLOSED_BY.keys(),
    *CLOSED_BY.values(),
)
OPENING_OF = {closing: opening for opening, closing in CLOSED_BY.items()}
MOST_S = 1800.0
"""Longer than any wait, shorter than half the silences."""


class Wish(NamedTuple):
    """A configuration of one sink and one watch."""

    route: Route
    rules: WorkerRules
    watch: Watch
    silences: Silences


def make(random: Random, at: Rig) -> Wish:
    """Return a configuration by chance."""
    after_s = random.choice([0.0, 0.0, 60.0, 300.0])
    by = tuple(random.sample(["pipeline", "account", "labels.team"], k=random.randint(1, 2)))
    group = GroupRules(
        by, random.choice([5.0, 30.0]), 100, random.choice([Grouped.EXECUTIONS, Grouped.WITHOUT_PROBLEMS])
    )
    problem_group = GroupRules(("account",), 10.0, 100, Grouped.PROBLEMS)
    incidents = IncidentRules(("account",), 15.0) if random.random() < 0.2 else None
    rules = replace(
        RULES,
        group=group if random.random() < 0.5 else None,
        problem_group=problem_group if incidents is None and random.random() < 0.5 else None,
        incidents=incidents,
        after_s=after_s,
    )
    types = frozenset(each for each in EventType if random.random() < 0.7)
    labels = random.choice([{}, {"team": "a"}, {"team": "b"}])
    pipelines = random.choice([frozenset[str](), frozenset({"p"}), frozenset({"q"})])
    route = Route(
        types,
        labels if random.random() < 0.3 else {},
        pipelines if random.random() < 0.3 else frozenset(),
        rules.group,
        rules.problem_group,
        rules.opening_wait_s,
    )
    watch = Watch("default", "p", (), labels=random.choice([{}, {"team": "a"}]))
    silences = [
        Silence(
            at.clock.now() - timedelta(hours=1),
            at.clock.now() + timedelta(days=2),
            types=frozenset(random.sample(list(EventType), k=12)) if random.random() < 0.8 else None,
            sinks=random.choice([None, {"ops"}, {"chat"}]),
            labels=random.choice([{}, {}, {"team": "a"}]),
        )
        for _ in range(random.choice([0, 0, 1, 2]))
    ]
    return Wish(route, rules, watch, Silences(silences))


async def seen(rig: Rig, router: Router, wish: Wish, type_: EventType, number: int) -> float | None:
    """Record an event, its opening before it, and return after how many seconds it was sent; end its problem."""
    watch = None if type_.startswith(("account.", "sink.")) else wish.watch
    pipeline, labels = (watch.pipeline, watch.labels) if watch else (None, {})
    id_ = UUID(int=number + 1)

    def event_of(kind: EventType, *, closes: bool, sequence: int) -> Event:
        problem = id_ if closes or kind in PROBLEM_KINDS else None
        stream = f"s{number}-"
        body = json.dumps(
            {"of": stream, "sequence": sequence, "data": {"problem": {"id": str(id_)}} if problem else {}}
        )
        key, event_id = stream.encode(), UUID(int=number * 10 + sequence + 1)
        about = (problem, closes, "default", pipeline, labels)
        return Event(event_id, kind, key, sequence, body.encode(), key, *about)

    async def record(kind: EventType, *, closes: bool, sequence: int, of: EventType | None = None) -> None:
        problem = Problem(id_, of or OPENING_OF.get(kind, kind), rig.clock.now(), EventKey(f"s{number}-".encode(), 1))
        is_about = closes or kind in PROBLEM_KINDS
        change = ProblemChange(problem, rig.clock.now() if closes else None, is_new=not closes)
        entry = router.entry_of(event_of(kind, closes=closes, sequence=sequence), watch=watch)
        await rig.write(entry, problems=[change] if is_about else [])

    opening = OPENING_OF.get(type_)
    if opening:
        await record(opening, closes=False, sequence=1)
        await rig.later(MOST_S)
    await record(type_, closes=opening is not None, sequence=2)
    begun, name, after_s = rig.clock.elapsed_s, f"s{number}-2", None
    for step in (0.0, *[1.0] * 620):
        if name in await rig.sent_after(step):
            after_s = rig.clock.elapsed_s - begun
            break
    if type_ in PROBLEM_KINDS:  # else later openings would join its incident
        await record(EventType.PROBLEM_CLOSED, closes=True, sequence=3, of=type_)
        await rig.later(MOST_S)
    return after_s


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.ci) for seed in range(1, 20))])
def test_no_sink_gets_anything_else_than_is_said(seed: int, tmp_path: Path) -> None:
    random, counted = Random(seed), 0
    for case in range(10):
        rig = Rig(tmp_path / f"{case}.db", loop=False)
        wish = make(random, rig)
        rig.silences = wish.silences
        do(rig.start(rules=wish.rules))
        router = Router({"ops": wish.route})
        for number, type_ in enumerate(HAPPENINGS):
            watch = None if type_.startswith(("account.", "sink.")) else wish.watch
            said = prospects_of(
                type_,
                account="default",
                watch=watch,
                router=router,
                after_s={"ops": wish.rules.after_s},
                silences=wish.silences,
                at=rig.clock.now(),
            )["ops"]
            after_s = do(seen(rig, router, wish, type_, number))
            assert (after_s is not None) == said.is_sent, (case, type_, said, after_s, wish)
            assert after_s is None or abs(after_s - said.wait_s) <= 1.0, (case, type_, said, after_s, wish)
            counted += said.is_sent
        do(rig.stop())
    assert counted > 10
