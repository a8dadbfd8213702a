"""A pipeline with slow, expensive and failing executions over kills, takeovers and faults, and what holds of it."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

from list_model import Life, ModelApi
from rules_model import EPOCH_S, SECOND_US, Line, MortalStore, read
from virtual import PIPELINE, RULES, Account, FakeClock, account_of

from watcher.clerk.api import Reply
from watcher.domain.errors import StoreError
from watcher.domain.event import EventType
from watcher.domain.execution import ExecutionSnapshot, FailedNode
from watcher.domain.history import DAY_US, error_kind_of, kind_without_node, period_start
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Details, Watch
from watcher.rules.failing import Failing, FailingSettings
from watcher.rules.new_error import NewError
from watcher.rules.slow import Slow, SlowSettings, usual_duration
from watcher.rules.tokens import Tokens, TokensSettings
from watcher.store.changes import Change
from watcher.store.sql_store import SqlStore

MIDNIGHT_S = 14 * 3600.0
"""The next midnight (UTC) on the clock of the tests."""

BEGUN_S = MIDNIGHT_S - 100.0
"""The time at which the watch begins."""

TOKENS = 1000
"""The most tokens of one execution."""

SLOW = Slow(SlowSettings.model_validate({"at_least": "20s"}))
STEP_S = 0.5
FOR_EVER_S = 1e7

NODES = ("Greeting", "Closing", "Lookup")
TEXTS = ("no answer", "timeout after {} s", "boom\n\nat line {}", '{{"error": "rate_limit", "id": "{}"}}', "quota {}")


class FaultyStore(MortalStore):
    """A store that also fails without a death, sometimes only after it has written."""

    def __init__(self, store: SqlStore, draw: Random) -> None:
        super().__init__(store)
        self.fails = 0.0
        self._draw = draw

    async def record(self, change: Change) -> None:
        if self._draw.random() < self.fails:
            if self._draw.random() < 0.3:  # as when the connection breaks at the commit
                await super().record(change)
            raise StoreError("by the test")
        await super().record(change)

    async def read(self, work: Any) -> Any:
        if self._draw.random() < self.fails:
            raise StoreError("by the test")
        return await self._store.read(work)


@dataclass
class InsightApi(ModelApi):
    """A list of executions that use tokens and fail with errors. Only a GET names the node that failed."""

    tokens: Mapping[str, int | None] = field(default_factory=dict)
    errors: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    by_id: Mapping[str, Life] = field(default_factory=dict)
    names_nodes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.by_id = {life.id: life for life in self.lives}
        self.amend = self._with_facts

    def _with_facts(self, row: ExecutionSnapshot) -> ExecutionSnapshot:
        life, used = self.by_id[row.id], self.tokens[row.id]
        if used is not None and row.status == "running":  # more and more, the whole at the end
            used = round(used * min(1.0, (self.clock.monotonic() - life.begins_s) / 60))
        row = replace(row, ai_tokens_used=used)
        if row.status != "failed":
            return row
        node, text = self.errors[row.id]
        nodes = (FailedNode("n1", node, text),) if self.names_nodes else ()
        return replace(row, error=text, failed_nodes=nodes)

    async def get(self, *, pipeline: str, execution: str, known_hash: int | None = None) -> Reply:
        self.names_nodes = True
        try:
            return await super().get(pipeline=pipeline, execution=execution, known_hash=known_hash)
        finally:
            self.names_nodes = False


def api_of(draw: Random, clock: FakeClock, *, offset_s: float) -> InsightApi:
    """Return an API with executions around midnight: most are short, some take long, and a few never end."""
    lives: list[Life] = []
    at = BEGUN_S - 200.0
    while at < MIDNIGHT_S + 400.0:
        at += draw.choice([0.2, 2.0, 5.0, 9.0])
        length_s = draw.choice([1.0, 3.0, 5.0, 8.0, 8.0]) if draw.random() < 0.93 else draw.choice([60.0, 120.0])
        lives.append(Life(str(UUID(int=draw.getrandbits(128))), at, at + length_s, fails=draw.random() < 0.2))
    for _ in range(draw.choice([0, 0, 1, 2])):
        at = draw.uniform(BEGUN_S, MIDNIGHT_S + 380.0)
        lives.append(Life(str(UUID(int=draw.getrandbits(128))), at, FOR_EVER_S, fails=False))
    tokens = {life.id: draw.choice([None, 0, 10, 300, 990, 1000, 1001, 2500]) for life in lives}
    errors = {life.id: (draw.choice(NODES), draw.choice(TEXTS).format(draw.randrange(100))) for life in lives}
    return InsightApi(clock, lives=lives, offset_s=offset_s, tokens=tokens, errors=errors)


@dataclass
class Watched:
    """The process that watches the pipeline. It may end at any moment and start again."""

    store: SqlStore
    clock: FakeClock
    draw: Random
    api: InsightApi
    per_day: int
    failing: Sequence[Failing] = ()
    starts: int = 0

    async def start(self) -> None:
        self.faulty = FaultyStore(self.store, Random(self.draw.random()))
        faulty: Any = self.faulty
        self.starts += 1
        self.account: Account = await account_of(
            faulty,
            self.clock,
            watches=[self.watch()],
            rate_per_s=5.0,
            rules=replace(RULES, details=Details.FAILED),
            api=self.api,
        )

    def watch(self) -> Watch:
        tokens = TokensSettings(execution=TOKENS, per_day=self.per_day)
        rules = (*self.failing, SLOW, NewError(), Tokens(tokens))
        labels = {"n": str(self.draw.random())}
        return Watch("default", PIPELINE, (), labels=labels, rules=rules, max_tokens=TOKENS)

    async def run_for(self, seconds: float) -> None:
        """Run; after a death, or if the store has what memory has not, the next process goes on."""
        until = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until:
            await self.account.run_for(STEP_S)
            if self.faulty.is_dead or self.account.fatal:
                await self.stop()
                await self.start()

    async def stop(self) -> None:
        await self.account.watcher.cancel()
        self.clock.advance(0.01)

    async def be_overtaken(self) -> None:
        """Let another process become the owner, while this one does not know it yet."""
        before = self.account
        await self.start()
        for _ in range(3):
            await before.run_for(STEP_S)
            await self.account.run_for(STEP_S)
        await before.watcher.cancel()

    async def reload(self) -> None:
        self.failing = self.draw.choice([(), *([Failing(FailingSettings(consecutive=count))] for count in (3, 5))])
        with suppress(asyncio.CancelledError, StoreError):
            await self.account.watcher.watch([self.watch()])


class Kind(NamedTuple):
    """The fingerprint of a kind of error, and that of its text alone."""

    fingerprint: str
    alone: str


def kind_of(node: str | None, text: str) -> Kind:
    kind = error_kind_of(node, text)
    return Kind(kind.fingerprint.hex(), kind_without_node(kind.text).fingerprint.hex())


def kind_in(line: Line) -> Kind:
    block = line.data["execution"]
    node: dict[str, str] = next(iter(block.get("failedNodes", ())), {})
    return kind_of(node.get("name"), node.get("error") or block["error"])


def of_type(lines: Sequence[Line], *types: EventType) -> list[Line]:
    return [line for line in lines if line.type in types]


def id_of(line: Line) -> str:
    name: str = line.data["execution"]["id"]
    return name


def us_of(at_s: float) -> int:
    return round((EPOCH_S + at_s) * SECOND_US)


async def check(watched: Watched) -> None:
    """Assert that what was reported is right, given all that the API knows."""
    api, now_s = watched.api, watched.clock.monotonic()
    lines = await read(watched.store, api)
    ends = of_type(lines, EventType.EXECUTION_SUCCESS, EventType.EXECUTION_FAILED)
    reported = {id_of(line): number for number, line in enumerate(lines) if line in ends}
    assert len(reported) == len(ends)
    ended = [life for life in api.lives if life.ends_s <= now_s - 5]
    history = [life for life in ended if life.id not in reported]
    assert all(life.ends_s <= BEGUN_S + 1 for life in history)
    _check_expensive(api, lines, reported)
    await _check_spending(watched, lines, ended)
    _check_errors(api, lines, ends, history)
    await _check_slow(watched, lines, ends)


def _check_expensive(api: InsightApi, lines: Sequence[Line], reported: Mapping[str, int]) -> None:
    numbers = {id_of(line): number for number, line in enumerate(lines) if line.type == EventType.EXECUTION_EXPENSIVE}
    count = len(of_type(lines, EventType.EXECUTION_EXPENSIVE))
    assert count == len(numbers)  # once for each
    for id_, number in reported.items():
        assert (id_ in numbers) == ((api.tokens[id_] or 0) > TOKENS)
        assert numbers.get(id_, -1) < number  # the end comes last


async def _check_spending(watched: Watched, lines: Sequence[Line], ended: Sequence[Life]) -> None:
    tokens, now_s = Counter[int](), watched.clock.monotonic()
    for life in ended:
        tokens[period_start(Micros(us_of(life.ends_s)), DAY_US)] += watched.api.tokens[life.id] or 0
    today = period_start(watched.clock.steady_us(), DAY_US)
    (recorder,) = watched.account.watcher._alert_rules.recorders.values()
    day_at, used_today, _ = recorder._states["tokens"]
    late = [life for life in watched.api.lives if now_s - 5 < life.ends_s <= now_s]
    assert day_at == today
    assert 0 <= used_today - tokens[today] <= sum(watched.api.tokens[life.id] or 0 for life in late)
    shares = Counter[tuple[str, int]]()
    for line in of_type(lines, EventType.PIPELINE_OVERSPENDING):
        data = line.data
        shares[data["day"], data["percent"]] += 1
        assert data["tokensUsed"] * 100 >= data["tokensPerDay"] * data["percent"]
    assert set(shares.values()) <= {1}
    days = {"2026-11-24": tokens[today - DAY_US], "2026-11-25": used_today}
    for day, used in days.items():
        highest = max((percent for of_day, percent in shares if of_day == day), default=0)
        reached = next((percent for percent in (100, 80) if used * 100 >= watched.per_day * percent), 0)
        assert highest <= reached
        assert highest == reached or day == "2026-11-24"  # an end may be seen on the day after it


def _check_errors(api: InsightApi, lines: Sequence[Line], ends: Sequence[Line], history: Sequence[Life]) -> None:
    failures = {id_of(line): kind_in(line) for line in ends if line.type == EventType.EXECUTION_FAILED}
    known = {kind_of(None, api.errors[life.id][1]).fingerprint for life in history if life.fails}
    new = of_type(lines, EventType.PIPELINE_NEW_ERROR)
    prints = [line.data["error"]["fingerprint"] for line in new]
    assert len(prints) == len(set(prints))
    for line in new:
        kind = failures[id_of(line)]
        assert line.data["error"]["fingerprint"] == kind.fingerprint
        assert kind.alone not in known
    alone = known | {kind.fingerprint for kind in failures.values() if kind.fingerprint == kind.alone}
    assert {kind.fingerprint for kind in failures.values() if kind.alone not in alone} <= set(prints)


async def _check_slow(watched: Watched, lines: Sequence[Line], ends: Sequence[Line]) -> None:
    api, now_s = watched.api, watched.clock.monotonic()
    edges = of_type(lines, EventType.PIPELINE_SLOW, EventType.PIPELINE_ON_TIME)
    assert all(each.type == EventType.PIPELINE_SLOW for each in edges[::2])
    assert all(each.type == EventType.PIPELINE_ON_TIME for each in edges[1::2])
    ids = [each.data["problem"]["id"] for each in edges]
    assert ids[1::2] == ids[::2][: len(ids[1::2])]
    assert len(set(ids)) == len(edges[::2])
    for opening in edges[::2]:
        data, life = opening.data, api.by_id[id_of(opening)]
        at_s = opening.recorded_at / SECOND_US - EPOCH_S
        assert data["limitSeconds"] <= data["runningSeconds"] <= at_s - life.begins_s + 0.1, (
            data,
            at_s - life.begins_s,
        )
        assert life.ends_s > at_s - 5
    durations = [
        us_of(api.by_id[id_of(line)].ends_s) - us_of(api.by_id[id_of(line)].begins_s)
        for line in sorted(ends, key=lambda line: line.ended_at)
        if line.type == EventType.EXECUTION_SUCCESS
    ]
    usual_us = usual_duration(durations[-200:])
    limit_s = None if usual_us is None else SLOW.limit_us(usual_us) / SECOND_US
    open_s = [now_s - life.begins_s for life in api.lives if life.begins_s < now_s < life.ends_s]
    is_slow = limit_s is not None and any(each > limit_s for each in open_s)
    assert (len(edges) % 2 == 1) == is_slow, (limit_s, open_s, edges[-1:])
