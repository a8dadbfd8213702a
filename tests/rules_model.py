"""A pipeline's rules over a history of ends, downtimes, kills and reloads, and a reference that reads stdout."""

import asyncio
import json
from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import takewhile
from math import inf
from operator import attrgetter, itemgetter
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

from list_model import Life, ModelApi
from sqlalchemy import select
from virtual import PIPELINE, RULES, Account, FakeClock, account_of

from watcher.domain.timestamps import to_us
from watcher.domain.watch import Details, Watch
from watcher.rules.failing import Failing, FailingSettings
from watcher.rules.silent import Silent
from watcher.store.changes import Change
from watcher.store.sql_store import SqlStore
from watcher.store.tables import event

_EVENTS = select(event.c.type, event.c.body, event.c.recorded_at).order_by(event.c.id)

STEP_S = 0.2
SILENT_S = 40.0
SECOND_US = 1_000_000


class MortalStore:
    """The store of a process that dies at one of its writes: just before it is written, or just after."""

    def __init__(self, store: SqlStore) -> None:
        self.dies_in: int | None = None
        self.writes_last = False
        self.is_dead = False
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def record(self, change: Change) -> None:
        if not self.is_dead and self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.is_dead = True
                if self.writes_last:
                    await self._store.record(change)
        if self.is_dead:
            raise asyncio.CancelledError
        await self._store.record(change)


class Line(NamedTuple):
    """What stdout got: an event, and when it was recorded."""

    type: str
    data: dict[str, Any]
    recorded_at: int

    ended_at: int = 0
    """By our clock, as the API's was when the event was recorded."""


class Step(NamedTuple):
    """How it was after a step: whether all ends were held back, and whose end was still to be confirmed."""

    at: int
    is_held: bool
    pending: frozenset[str]


@dataclass
class History:
    """What happened beside: which ends waited to be judged, which rule held from when on, the complete scans."""

    steps: list[Step] = field(default_factory=list)
    rules: list[tuple[int, Failing]] = field(default_factory=list)
    scans: list[int] = field(default_factory=list)
    kills: int = 0


@dataclass
class Pipeline:
    """A pipeline that lives, and the process that watches it, which may end at any moment and start again."""

    store: SqlStore
    clock: FakeClock
    draw: Random
    api: ModelApi
    rule: Failing
    history: History = field(default_factory=History)

    async def start(self) -> None:
        self.mortal = MortalStore(self.store)
        self.history.rules.append((self.clock.steady_us(), self.rule))
        self.began_at = self.clock.steady_us()
        self.history.steps.append(Step(self.began_at, True, frozenset()))
        self.awaited: frozenset[str] | None = None
        mortal: Any = self.mortal
        rules = replace(RULES, details=Details.FAILED)
        self.account: Account = await account_of(
            mortal, self.clock, watches=[self.watch()], rate_per_s=5.0, rules=rules, api=self.api
        )

    def watch(self) -> Watch:
        rules = (self.rule, Silent(SILENT_S))
        return Watch("default", PIPELINE, (), labels={"n": str(self.draw.random())}, rules=rules)

    async def run_for(self, seconds: float) -> None:
        """Run in steps in each of which at most one request goes out."""
        until = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until and not self.mortal.is_dead:
            await self.account.run_for(STEP_S)
            self._note()
        assert self.account.fatal == []
        if self.mortal.is_dead:
            self.history.kills += 1
            await self.stop()
            await self.start()

    def _note(self) -> None:
        """Note complete scans, and when what waits for one is judged: once all is confirmed that it brought."""
        (listing,) = self.account.watcher._list_poller._lists.values()
        complete_at = listing.cursor.complete_at
        if complete_at not in self.history.scans[-1:]:
            self.history.scans.append(complete_at)
        pending = frozenset(
            id_ for id_, entry in self.account.watcher._registry.entries.items() if entry.unconfirmed_end
        )
        if complete_at >= self.began_at:
            self.awaited = pending if self.awaited is None else self.awaited & pending
        self.history.steps.append(Step(self.clock.steady_us(), self.awaited != frozenset(), pending))

    async def stop(self) -> None:
        await self.account.watcher.cancel()
        self.clock.advance(0.01)  # what was recorded by now is none of the next one's

    async def reload(self) -> None:
        """Change what a reload may: the labels, and sometimes the threshold."""
        if self.draw.random() < 0.5 and not self.history.steps[-1].is_held:
            self.rule = rule_of(self.draw)
            self.history.rules.append((self.clock.steady_us() + 1, self.rule))
        with suppress(asyncio.CancelledError):  # it may die then, too
            await self.account.watcher.watch([self.watch()])


def rule_of(draw: Random) -> Failing:
    if draw.random() < 0.6:
        quiet_for = draw.choice(["1ms", "20s", "60s"])
        given = {"consecutive": draw.randint(2, 4), "recover_after": draw.randint(1, 4), "quiet_for": quiet_for}
    else:
        given = {"rate": draw.choice(["30%", "50%", "70%"]), "of_last": draw.choice([6, 20]), "within": "200s"}
    return Failing(FailingSettings.model_validate(given))


def lives_of(draw: Random, *, until_s: float) -> list[Life]:
    """Return executions in spells: of failures, of successes, of nothing."""
    found: list[Life] = []
    at = 700.0
    while at < until_s:
        spell_until, fails, every_s = at + draw.uniform(10, 80), draw.choice([0.05, 0.5, 0.95]), draw.choice([2, 5, 90])
        while at < spell_until:
            at += draw.uniform(0.5, 1.5) * every_s
            ends_s = at + draw.choice([0.3, 3.0, 20.0])
            found.append(Life(str(UUID(int=draw.getrandbits(128))), at, ends_s, fails=draw.random() < fails))
    return found


def jumps_of(draw: Random) -> Callable[[float], float]:
    """Return by how much the API's clock is set by then, for it is set a few times, forward and back."""
    jumps = [(draw.uniform(1050, 1550), draw.choice([-1200.0, -30.0, 30.0, 1200.0])) for _ in range(draw.randrange(4))]
    return lambda at: sum(by for since, by in jumps if since <= at)


async def read(store: SqlStore, api: ModelApi) -> list[Line]:
    """Return all events in the order in which they were recorded, which is that of stdout."""
    rows = await store.database.read(lambda connection: connection.execute(_EVENTS).all())
    lines = [Line(type_, json.loads(body)["data"], at) for type_, body, at in rows]
    return [line._replace(ended_at=on_our_clock(line, api, "finishedAt")) for line in lines]


def on_our_clock(line: Line, api: ModelApi, date: str) -> int:
    """Return when something happened, turned by what the API's clock showed when the event was recorded."""
    dated = line.data.get("execution", {}).get(date)
    if dated is None:
        return line.recorded_at
    now_s = line.recorded_at / SECOND_US - EPOCH_S
    return min(line.recorded_at, to_us(datetime.fromisoformat(dated)) - api.ahead_us_at(now_s))


def in_order_of_judging(lines: Sequence[Line], history: History) -> Iterator[tuple[Line, int, bool]]:
    """Yield ends as rules take them in, when, and whether they judge then.

    That is by their ends, after all older ones that are to be confirmed. Those that were held back are taken in once
    that was over, and judged with the last of them.
    """
    ends = {
        line.data["execution"]["id"]: line for line in lines if line.type in {"execution.success", "execution.failed"}
    }
    left, was_held = sorted(ends.values(), key=attrgetter("ended_at")), False
    for at, is_held, pending in history.steps:
        if not is_held:
            wanted = [end.ended_at for id_ in pending if (end := ends.get(id_)) is not None and end.recorded_at > at]
            until = inf if was_held else min(wanted, default=inf)
            judged = [line for line in left if line.recorded_at <= at and line.ended_at <= until]
            yield from ((line, at, not was_held or line is judged[-1]) for line in judged)
            left = [line for line in left if line not in judged]
        was_held = is_held


def expected(lines: Sequence[Line], history: History) -> list[tuple[str, str, int]]:
    """Fold over stdout: which ends open and close a problem, and how many failed meanwhile.

    All ends are kept, where the program keeps few, and those of the quiet time in tallies.
    """
    edges: list[tuple[str, str, int]] = []
    ends: list[tuple[int, bool]] = []
    opened_at: int | None = None
    is_open, count = False, 0
    for line, judged_at, judges in in_order_of_judging(lines, history):
        rule = [rule.settings for at, rule in history.rules if at <= judged_at][-1]
        failed = line.type == "execution.failed"
        insort(ends, (line.ended_at, failed), key=itemgetter(0))
        newest_at = ends[-1][0]
        in_row = sum(1 for _ in takewhile(itemgetter(1), reversed(ends)))
        last = [fails for at, fails in ends[-rule.of_last :] if at >= newest_at - rule.within_s * SECOND_US]
        count = count + failed if is_open else in_row if rule.consecutive else sum(last)
        if is_open and rule.consecutive and opened_at is None:  # one that a rate opened is taken to open with this rule
            by_rate = [at <= judged_at and not rule.settings.consecutive for at, rule in history.rules]
            before = [nth for nth, is_before in enumerate(by_rate) if is_before]
            opened_at = history.rules[before[-1] + 1][0]
        opened_at = opened_at if rule.consecutive else None
        if not judges or line.ended_at < newest_at:
            continue
        quiet = [fails for at, fails in ends if at >= max(opened_at or 0, newest_at - rule.quiet_for_s * SECOND_US)]
        if rule.consecutive and is_open:
            has_recovered = len(ends) >= rule.recover_after and not any(
                fails for _, fails in ends[-rule.recover_after :]
            )
            is_over = newest_at - (opened_at or 0) >= rule.quiet_for_s * SECOND_US and 10 * sum(quiet) <= len(quiet)
            holds = not (has_recovered and is_over)
        elif rule.consecutive:
            holds = in_row >= rule.consecutive
        else:
            share, rate = sum(last) / len(last), rule.rate or 0.0
            holds = share >= rate / 2 if is_open else len(last) >= rule.at_least and share >= rate
        if holds != is_open:
            edges.append(("pipeline.failing" if holds else "pipeline.recovered", line.data["execution"]["id"], count))
            opened_at = line.recorded_at if holds and rule.consecutive else None
        is_open = holds
    return edges


def expected_silence(lines: Sequence[Line], history: History, lives: Sequence[Life], api: ModelApi) -> list[str]:
    """Return how often nothing had started for too long when a scan was complete, and something had by a later one.

    Starts are dated as what first told of them was read; those of the history, before the API's clock was set, rightly.
    """
    edges: list[str] = []
    first = {line.data["execution"]["id"]: line for line in reversed(lines) if line.type.startswith("execution.")}
    starts = {life: EPOCH_S + life.begins_s for life in lives}
    dated = {life: on_our_clock(first[life.id], api, "startedAt") / SECOND_US for life in lives if life.id in first}
    for began_at in filter(None, history.scans):
        now_s = began_at / SECOND_US
        last_s = max(dated.get(life, at_s) for life, at_s in starts.items() if at_s <= now_s)
        kind = "pipeline.silent" if now_s - last_s > SILENT_S else "pipeline.active"
        if kind != (edges[-1] if edges else "pipeline.active"):
            edges.append(kind)
    return edges


EPOCH_S = FakeClock().steady_us() / SECOND_US - 1000.0
