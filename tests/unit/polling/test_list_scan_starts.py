"""Lists of executions that start late, or never do: their rows stand where nothing else shows that they are new."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from uuid import UUID

import pytest
from list_model import HOUR_S, Life, Lists, ModelApi
from parameters import seeds
from virtual import FakeClock

from watcher.domain.execution import ExecutionSnapshot

QUEUED_S = 0.6


def queued(count: int, *, from_s: float, until_s: float, seed: int) -> list[Life]:
    """Return executions that begin at random and take a moment or some seconds."""
    draw = Random(f"{seed}/{from_s}")
    begins = sorted(draw.uniform(from_s, until_s) for _ in range(count))
    return [
        Life(str(UUID(int=draw.getrandbits(128))), at, at + draw.uniform(0.2, 10), fails=draw.random() < 0.3)
        for at in begins
    ]


def never_starts(life: Life) -> bool:
    return int(life.id[:2], 16) < 26


def never_started(api: ModelApi) -> Callable[[ExecutionSnapshot], ExecutionSnapshot]:
    """Let one in ten fail before it starts, and the others wait for a moment."""
    lives = {life.id: life for life in api.lives}

    def amend(row: ExecutionSnapshot) -> ExecutionSnapshot:
        life = lives[row.id]
        return replace(row, started_at=None) if is_null(life, api.clock) else row

    return amend


def is_null(life: Life, clock: FakeClock) -> bool:
    return never_starts(life) or clock.monotonic() < life.begins_s + min(QUEUED_S, (life.ends_s - life.begins_s) / 3)


@pytest.mark.ci
@pytest.mark.parametrize("seed", seeds(ci=1, soak=8))
@pytest.mark.parametrize(("nulls", "sign"), [("last", -1), ("first", -1), ("last", 1), ("first", 1)])
async def test_what_never_started_is_reported_wherever_the_list_has_it(
    lists: Lists, nulls: str, sign: int, seed: int
) -> None:
    old = queued(300, from_s=-HOUR_S, until_s=950.0, seed=seed)
    since = queued(80, from_s=1017.0, until_s=1070.0, seed=seed)
    api = lists.api(old + since)
    position = 1 if nulls == "last" else -1
    api.orders = ((0.0, lambda life: (position * is_null(life, lists.clock), sign * life.begins_s)),)
    api.amend = never_started(api)
    result = await lists.watched(api, for_s=240)
    assert result.missing(old) == len(old)
    assert result.missing(since) == 0 or result.gaps
    assert set(result.ended.values()) == {1}


@pytest.mark.parametrize("count", [301, 351])
@pytest.mark.parametrize("seed", [1, pytest.param(0, marks=pytest.mark.ci)])
async def test_where_what_was_created_earlier_started_later_no_history_is_reported(
    lists: Lists, count: int, seed: int
) -> None:
    draw = Random(seed)
    created = [1000.0 - 300.0 - 5.0 * number for number in range(count)][::-1]
    lives = []
    for at in created:
        began = at + draw.uniform(0, 300)
        lives.append(Life(str(UUID(int=draw.getrandbits(128))), began, began + draw.uniform(0.2, 10), fails=True))
    old = [life for life in lives if life.ends_s < 995]
    rank = {life.id: number for number, life in enumerate(old)}
    since = queued(20, from_s=1030.0, until_s=1100.0, seed=seed)
    rank |= {life.id: 1000 + number for number, life in enumerate(since)}
    api = lists.api(old + since, orders=((0.0, lambda life: rank[life.id]),))
    result = await lists.watched(api, for_s=130)
    assert result.missing(old) == len(old)
    assert (result.missing(since), result.gaps) == (0, [])
