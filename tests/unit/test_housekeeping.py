"""The housekeeping over the real store in virtual time."""

from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path

import pytest
from virtual import FakeClock, account_of, said

from watcher.errors import StoreError
from watcher.housekeeping import Housekeeping, HousekeepingParts
from watcher.metrics import Metrics
from watcher.models import Known
from watcher.store.opening import open_store
from watcher.store.sql import SqlStore

A, B = (f"9a1b0000-0000-4000-8000-00000000000{digit}" for digit in "ab")
DAY_S = 86_400.0


def ignore(_sinks: Collection[str]) -> None:
    """Nobody waits for what is recorded here."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SqlStore]:
    store = await open_store(f"sqlite:///{tmp_path}/watcher.db", clock=clock, on_recorded=ignore)
    yield store
    await store.close()


async def known_of(store: SqlStore) -> Mapping[str, Known]:
    return await store.load_executions(await store.claim("account", "default"), (A, B))


async def test_what_ended_long_ago_goes_but_for_the_ids_that_are_still_named(store: SqlStore, clock: FakeClock) -> None:
    account = await account_of(store, clock, A, B)
    account.api.script = {A: said(A, "success"), B: said(B, "failed")}
    await account.run_for(1)
    assert len(await account.told()) == 2
    housekeeping = Housekeeping(
        HousekeepingParts(
            store=store,
            clock=clock,
            metrics=account.metrics,
            accounts=[account.watcher],
            sinks=("ops",),
            retention_s=30 * DAY_S,
            named=lambda _account, _pipeline, execution: execution == A,
        )
    )
    await housekeeping.round()
    assert set(await known_of(store)) == {A, B}
    clock.advance(31 * DAY_S)
    assert await housekeeping.round() == 5.0
    assert set(await known_of(store)) == {A}


async def test_a_removed_sink_has_its_deliveries_die_after_a_day(store: SqlStore, clock: FakeClock) -> None:
    account = await account_of(store, clock, A)
    await account.run_for(1)
    housekeeping = housekeeping_of(store, clock, account.metrics)
    await housekeeping.round()
    await housekeeping.refresh_backlog()
    assert pending(account.metrics) == 1
    clock.advance(DAY_S + 1)
    await housekeeping.round()
    await housekeeping.refresh_backlog()
    assert pending(account.metrics) == 0


def pending(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("watcher_outbox_pending", {"sink": "ops"})


def housekeeping_of(store: SqlStore, clock: FakeClock, metrics: Metrics) -> Housekeeping:
    return Housekeeping(
        HousekeepingParts(
            store=store,
            clock=clock,
            metrics=metrics,
            accounts=[],
            sinks=("stdout",),
            retention_s=30 * DAY_S,
            named=lambda *_: True,
        )
    )


class UnreadableStore:
    """A store that fails at everything."""

    def __getattr__(self, name: str) -> object:
        async def fail(*_args: object, **_named: object) -> None:
            raise StoreError(f"no {name} today")

        return fail


async def test_trouble_with_the_store_ends_nothing(clock: FakeClock, store: SqlStore) -> None:
    account = await account_of(store, clock, A)
    housekeeping = housekeeping_of(UnreadableStore(), clock, account.metrics)  # type: ignore[arg-type]
    assert await housekeeping.round() == 5.0
    assert await housekeeping.round() == 5.0
    await housekeeping.refresh_backlog()
