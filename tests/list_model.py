"""A list of lives in virtual time, and what a watcher reports of it: as odd as no documentation forbids it to be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum
from random import Random
from typing import Any
from uuid import UUID

from virtual import EPOCH, PIPELINE, RULES, WHOLE, Account, FakeClock, ScriptedApi, account_of

from watcher.clerk.api import PAGE_ROWS, Reply
from watcher.domain.execution import ExecutionSnapshot, Outcome
from watcher.store.sql_store import SqlStore

HOUR_S = 3600.0
STALE_S = 20.0


class Fault(Enum):
    """What is wrong with an answer for once."""

    NONE = "nothing"
    EMPTY = "no row, and a total of 0"
    CUT = "half of the rows"
    STALE = "the list as it was a while ago"
    REPEATED = "the rows of the page before"


@dataclass(frozen=True, slots=True)
class Life:
    """One execution: when it begins and ends, in seconds of the clock."""

    id: str
    begins_s: float
    ends_s: float
    fails: bool


Order = Callable[[Life], Any]
"""By what the rows are sorted."""


def newest(life: Life) -> float:
    return -life.begins_s


def oldest(life: Life) -> float:
    return life.begins_s


def by_id(life: Life) -> str:
    return life.id


def last_ended(life: Life) -> float:
    return -life.ends_s


@dataclass
class ModelApi(ScriptedApi):
    """A list of lives, sorted as `orders` say: from so many seconds on by that."""

    lives: list[Life] = field(default_factory=list)
    orders: Sequence[tuple[float, Order]] = ((0.0, newest),)
    page_rows: int = PAGE_ROWS
    dates: str = "true"
    jitter_s: float = 0.0
    fault: Callable[[int, int], Fault] = lambda _count, _page: Fault.NONE
    clock_set: Callable[[float], float] = lambda _now: 0.0
    refused: Callable[[int], bool] = lambda _page: False
    amend: Callable[[ExecutionSnapshot], ExecutionSnapshot] = lambda row: row
    hides: Callable[[ExecutionSnapshot], bool] = lambda _row: False
    last_page: Callable[[int], int] | None = None  # by how many rows there are: it is shown for those beyond, too
    total_at_most: int = 10**9
    counts_page: bool = False  # its total is of each page alone
    has_date: bool = True  # its answers say what its clock shows
    count: int = 0

    def _row(self, life: Life, now: float) -> ExecutionSnapshot:
        ended = life.ends_s <= now
        status = ("failed" if life.fails else "success") if ended else "running"
        if self.dates == "none":
            return ExecutionSnapshot(life.id, status)
        begins_s = life.begins_s + self.jitter_s * (int(life.id[:3], 16) / 4096)
        started_s, ended_s = (0.0, 0.0) if self.dates == "equal" else (begins_s, max(begins_s, life.ends_s))
        began, finished = (
            EPOCH + timedelta(seconds=at + self.offset_s + self.clock_set(at)) for at in (started_s, ended_s)
        )
        return ExecutionSnapshot(life.id, status, started_at=began, finished_at=finished if ended else None)

    async def get(self, *, pipeline: str, execution: str, known_hash: int | None = None) -> Reply:
        sent_at = self.clock.monotonic()
        self.asked.append((sent_at, execution))
        life = next((each for each in self.lives if each.id == execution and each.begins_s <= sent_at), None)
        if life is None:
            return Reply(Outcome.NOT_FOUND, sent_at, None, 404)
        row = replace(self.amend(self._row(life, sent_at)), pipeline_id=PIPELINE, pipeline_name="Sales agent")
        body_hash = hash(repr(row))
        found = None if body_hash == known_hash else self._dated(row)
        return Reply(Outcome.OK, sent_at, found, 200, body_hash=body_hash, ahead_us=self.ahead_us or 0)

    @property
    def ahead_us(self) -> int:
        return self.ahead_us_at(self.clock.monotonic()) if self.has_date else 0

    def ahead_us_at(self, now_s: float) -> int:
        return super().ahead_us + round(self.clock_set(now_s) * 1e6)

    async def list(self, *, pipeline: str, page: int, known: Reply | None = None) -> Reply:
        sent_at = self.clock.monotonic()
        self.asked.append((sent_at, f"page {page}"))
        self.count += 1
        if self.refused(page):
            return Reply(Outcome.FORBIDDEN, sent_at, None, 403)
        order = [order for from_s, order in self.orders if from_s <= sent_at][-1]
        fault = self.fault(self.count, page)
        at = sent_at - STALE_S if fault is Fault.STALE else sent_at
        shown = [] if fault is Fault.EMPTY else sorted((x for x in self.lives if x.begins_s <= at), key=order)
        page -= fault is Fault.REPEATED
        page = page if self.last_page is None else min(page, self.last_page(len(shown)))
        rows = tuple(self._row(each, at) for each in shown[(page - 1) * self.page_rows : page * self.page_rows])
        rows = rows[: len(rows) // 2] if fault is Fault.CUT else rows
        rows = tuple(self.amend(row) for row in rows if not self.hides(row))
        count = len(rows) if self.counts_page else min(len(shown), self.total_at_most)
        total = count if self.states_total else None
        body_hash = hash((repr(rows), total))
        if known is not None and known.body_hash == body_hash:
            return known._replace(sent_at=sent_at)
        rows = tuple(map(self._dated, rows))
        reply = Reply(Outcome.OK, sent_at, None, 200, body_hash=body_hash, rows=rows, total=total)
        return reply._replace(ahead_us=self.ahead_us or 0)


def lives(
    count: int, *, from_s: float, until_s: float, seed: int = 1, length_s: float = 0.5, fails: bool = True
) -> list[Life]:
    """Return executions that begin evenly over that time and are as short as that."""
    draw = Random(f"{seed}/{from_s}")
    begins = [from_s + (until_s - from_s) * number / count for number in range(count)]
    return [Life(str(UUID(int=draw.getrandbits(128))), each, each + length_s, fails=fails) for each in begins]


@dataclass
class Emitted:
    """What came of it."""

    ended: dict[str, int]
    gaps: list[str]
    other: list[str]

    def missing(self, several: Sequence[Life]) -> int:
        return sum(each.id not in self.ended for each in several)


def assert_all(result: Emitted, since: Sequence[Life]) -> None:
    """Assert that these ends were reported, each once, and nothing else."""
    assert (result.missing(since), len(result.ended), result.gaps) == (0, len(since), [])
    assert set(result.ended.values()) <= {1}


async def emitted(account: Account, *, after_s: float | None = None) -> Emitted:
    result = Emitted({}, [], [])
    for event in await account.events(after_s=after_s):
        if event["type"] in {"execution.failed", "execution.success"}:
            result.ended[event["subject"]] = result.ended.get(event["subject"], 0) + 1
        elif event["type"] == "pipeline.gap":
            result.gaps.append(event["data"]["reason"])
        elif not event["type"].startswith("execution."):
            result.other.append(event["type"])
    return result


@dataclass(frozen=True, slots=True)
class Lists:
    """A store and a clock, for APIs that show lists and for what watches these."""

    store: SqlStore
    clock: FakeClock

    def api(self, lives: list[Life], *, order: Order = newest, **how: Any) -> ModelApi:
        """Return an API that shows these lives, in one order unless `orders` has several."""
        return ModelApi(self.clock, lives=lives, **({"orders": ((0.0, order),)} | how))

    async def watch(self, api: ModelApi, *, rate_per_s: float = 5.0, **rules: Any) -> Account:
        """Begin to watch, or go on after a restart."""
        rules = {"pages_at_most": max(50, round(rate_per_s * 150))} | rules
        return await account_of(
            self.store, self.clock, watches=[WHOLE], rate_per_s=rate_per_s, rules=replace(RULES, **rules), api=api
        )

    async def watched(self, api: ModelApi, *, for_s: float, **how: Any) -> Emitted:
        """Return what is reported in the first so many seconds."""
        account = await self.watch(api, **how)
        return await emitted(account, after_s=for_s)
