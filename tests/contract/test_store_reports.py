"""Reports in the store, on both databases: each moment is recorded once, with its event and deliveries, or not."""

from datetime import datetime, timedelta

import pytest
from stores import (
    PIPELINE,
    START,
    StoreRig,
    claim,
    due,
    event,
    names,
    open_soon,
    upkeep,
)

from watcher.domain.errors import StoreError
from watcher.domain.event import EventType, OutboxEntry
from watcher.domain.event_factory import EventFactory
from watcher.domain.routing import Router
from watcher.domain.timestamps import Micros, to_us
from watcher.store.changes import SourceChange
from watcher.store.console_store import ConsoleStore
from watcher.store.maintenance_store import MaintenanceStore
from watcher.store.tables import AnyRow

FIRST, SECOND, THIRD = (START + timedelta(days=count) for count in range(3))


def entry(known: AnyRow, moment: datetime) -> OutboxEntry:
    made = EventFactory(Router({})).report
    return made(known.name, {"lookCount": 0}, sinks=["ops"], moment=moment, after=known.sequence, at=moment)


async def record(store: MaintenanceStore, known: AnyRow, moment: datetime) -> bool:
    return await store.record_report(known, to_us(moment), entry(known, moment))


@pytest.fixture
async def reports(rig: StoreRig) -> MaintenanceStore:
    store = await upkeep(rig.store)
    await store.add_report("morning", to_us(FIRST))
    return store


async def test_a_report_is_recorded_with_its_moment_and_counts_in_a_sequence_of_its_own(
    rig: StoreRig, reports: MaintenanceStore
) -> None:
    await reports.add_report("weekly", to_us(FIRST))
    await reports.add_report("weekly", to_us(SECOND))  # it is known already
    for moment in (SECOND, THIRD):
        assert await record(reports, (await reports.reports())["morning"], moment)
    found = {name: (row.moment_at, row.sequence) for name, row in (await reports.reports()).items()}
    assert found == {"morning": (to_us(THIRD), 2), "weekly": (to_us(FIRST), 0)}
    sent = await due(rig.ops)
    assert [(each.type, each.content["sequence"]) for each in sent] == [
        ("watcher.report", "0000000001"),
        ("watcher.report", "0000000002"),
    ]
    assert rig.woken.names == ["ops", "ops"]


async def test_of_two_who_record_the_same_moment_the_first_does(rig: StoreRig, reports: MaintenanceStore) -> None:
    known = (await reports.reports())["morning"]
    assert await record(reports, known, SECOND)
    assert not await record(await upkeep(rig.store), known, SECOND)
    assert len(await due(rig.ops)) == 1


async def test_a_moment_that_comes_again_after_the_clock_was_set_back_is_recorded_once(
    rig: StoreRig, reports: MaintenanceStore
) -> None:
    for moment, is_recorded in ((SECOND, True), (THIRD, True), (SECOND, False), (THIRD, False)):
        known = (await reports.reports())["morning"]
        assert await record(reports, known, moment) is is_recorded
        assert (await reports.reports())["morning"].moment_at == to_us(moment)
    assert len(await due(rig.ops)) == 2


async def test_whoever_has_lost_the_lease_records_nothing(rig: StoreRig, reports: MaintenanceStore) -> None:
    known = (await reports.reports())["morning"]
    await upkeep(rig.store)
    with pytest.raises(StoreError):
        await record(reports, known, SECOND)
    assert (await reports.reports())["morning"].moment_at == to_us(FIRST)
    assert await due(rig.ops) == []


async def test_a_transaction_that_does_not_end_leaves_the_report_due(
    rig: StoreRig, reports: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = (await reports.reports())["morning"]
    with monkeypatch.context() as patched:
        patched.setitem(rig.store.outbox.__dict__, "write", lambda *_args, **_how: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await record(reports, known, SECOND)
    assert (await reports.reports())["morning"].moment_at == to_us(FIRST)
    assert await record(reports, known, SECOND)
    assert len(await due(rig.ops)) == 1


async def test_after_a_restart_it_is_known_what_was_recorded(
    rig: StoreRig, reports: MaintenanceStore, url: str
) -> None:
    await record(reports, (await reports.reports())["morning"], SECOND)
    if url.startswith("sqlite"):
        await rig.store.close()
    again = await open_soon(url, clock=rig.clock)
    known = (await MaintenanceStore(again, await claim(again, "maintenance", "")).reports())["morning"]
    assert (known.moment_at, known.sequence) == (to_us(SECOND), 1)
    await again.close()


async def test_a_report_that_was_removed_is_forgotten_but_its_sequence_goes_on(
    rig: StoreRig, reports: MaintenanceStore
) -> None:
    known = (await reports.reports())["morning"]
    await record(reports, known, SECOND)
    await reports.forget_reports([known])
    await reports.forget_reports([])
    assert await reports.reports() == {}
    await reports.add_report("morning", to_us(SECOND))
    await record(reports, (await reports.reports())["morning"], THIRD)
    assert len(names(await due(rig.ops))) == 2


async def test_news_are_events_of_the_span_that_open_no_problem(rig: StoreRig) -> None:
    at = to_us(START)
    rig.clock.us = at
    emitted = event("a pipeline", sequence=1, type_=EventType.PIPELINE_NEW_ERROR)
    await rig.store.record(SourceChange(rig.account, 0, 1, None, (OutboxEntry(emitted, ()),), pipeline=PIPELINE))
    store = ConsoleStore(rig.store)
    (row,) = await store.news(since=at, until=Micros(at + 1))
    assert bytes(row.body) == emitted.body
    assert (row.opened_at, row.closed_at) == (at, at)
    assert await store.news(since=Micros(at + 1), until=Micros(at + 2)) == []
    assert await store.news(since=Micros(at - 1), until=at) == []
