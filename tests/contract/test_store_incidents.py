"""What every store promises about incidents: which problems are one, how they stand, and for how long that is kept."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from contract.conftest import prune
from stores import (
    LATER,
    PIPELINE,
    SECOND_US,
    StoreRig,
    change,
    closed,
    event,
    execution_id,
    names,
    of,
    opened,
    operator_of,
    overdue,
    settle,
    settle_all,
    silence,
    taken,
)

from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.event import EventType, OutboxEntry
from watcher.domain.problems import Incident
from watcher.domain.routing import IncidentRules

BY_PIPELINE = IncidentRules(("pipeline",), wait_s=0.0)
OWN = IncidentRules(("labels.team",), wait_s=0.0)


async def opens(rig: StoreRig, *numbers: int) -> None:
    """Let these executions of one pipeline be overdue."""
    for number in numbers:
        problem = overdue(number)
        about = {"account": "default", "pipeline": PIPELINE, "problem": problem.id}
        emitted = event(execution_id(number), sequence=1, type_=EventType.EXECUTION_OVERDUE, **about)
        emitted = replace(emitted, body=b'{"id":"%s","data":{}}' % of(number).encode())
        entries = (OutboxEntry(emitted, ("ops",)),)
        await rig.store.record(replace(change(rig.account, number, problems=opened(problem)), entries=entries))


async def batches(rig: StoreRig, *, now: int = LATER, rules: IncidentRules = BY_PIPELINE) -> list[list[Delivery]]:
    return [list(batch) for batch in (await taken(rig.ops, now=now, incidents=rules)).batches]


async def only(
    rig: StoreRig, *, now: int = LATER, rules: IncidentRules = BY_PIPELINE
) -> tuple[Incident, list[Delivery]]:
    """Return the one incident of which something waits, with that."""
    (batch,) = await batches(rig, now=now, rules=rules)
    (key,) = {each.incident.key for each in batch if each.incident}
    assert all(each.incident and each.incident.key == key for each in batch)
    assert batch[0].incident is not None
    return batch[0].incident, batch


def open_ones(incident: Incident) -> list[UUID]:
    return [each.problem.id for each in incident.problems]


@pytest.fixture
async def two(rig: StoreRig) -> StoreRig:
    """Return a store in which two executions of a pipeline are overdue."""
    await opens(rig, 1, 2)
    return rig


async def test_problems_of_one_group_go_together_as_one_incident(two: StoreRig) -> None:
    incident, batch = await only(two)
    assert names(batch) == [of(1), of(2)]
    assert (open_ones(incident), incident.problems[-1].opening) == ([UUID(int=1), UUID(int=2)], batch[-1].body)
    assert (await only(two))[0].key == incident.key  # as nothing was settled


async def test_all_that_waits_of_an_incident_goes_with_what_is_new(two: StoreRig) -> None:
    """What failed is due in an hour; the closing of the other problem goes at once, and takes it along."""
    _, batch = await only(two)
    an_hour_later = LATER + 3600 * SECOND_US
    await settle(two.ops, *batch, state=DeliveryState.WAITING, due_at=an_hour_later)
    assert await batches(two) == []
    await two.record(2, sequence=2, problems=closed(overdue(2)))
    incident, batch = await only(two)
    assert (names(batch), open_ones(incident)) == ([of(1), of(2), of(2, sequence=2)], [UUID(int=1)])
    await settle(two.ops, *batch)
    await two.record(1, sequence=2, problems=closed(overdue(1)))
    assert open_ones((await only(two))[0]) == []


async def test_nothing_of_an_incident_goes_while_another_request_of_it_is_under_way(two: StoreRig) -> None:
    incident, _ = await only(two)
    await opens(two, 3)
    found = await taken(two.ops, incidents=BY_PIPELINE, skip=[incident.key.bytes])
    assert found.batches == []


@pytest.mark.parametrize(("passed_s", "joins"), [(599, True), (600, False)])
async def test_an_incident_takes_problems_for_ten_minutes(two: StoreRig, passed_s: int, joins: bool) -> None:
    first, batch = await only(two)
    await settle(two.ops, *batch)
    await opens(two, 3)
    second, _ = await only(two, now=LATER + passed_s * SECOND_US)
    assert (second.key == first.key) is joins


async def test_an_incident_takes_no_problem_once_one_was_acknowledged(two: StoreRig) -> None:
    first, batch = await only(two)
    await settle(two.ops, *batch)
    until = two.clock.now() + timedelta(hours=1)
    for number in (1, 2):
        await operator_of(two.store).acknowledge(UUID(int=number), by=None, comment=None, until=until)
    incident, batch = await only(two)
    assert (incident.key, incident.acked_until) == (first.key, until)
    await settle(two.ops, *batch)
    await opens(two, 3)
    assert (await only(two))[0].key != first.key


async def test_a_problem_that_lacks_the_field_has_its_own_id_as_key(two: StoreRig) -> None:
    found = await batches(two, rules=OWN)
    assert [batch[0].incident and batch[0].incident.key for batch in found] == [UUID(int=1), UUID(int=2)]


async def test_a_problem_whose_opening_is_silenced_leaves_and_may_join_another(two: StoreRig) -> None:
    first, batch = await only(two)
    await settle(two.ops, batch[0])
    await silence(two.ops, batch[1])
    await two.record(1, sequence=2, problems=closed(overdue(1)))
    incident, batch = await only(two)
    assert open_ones(incident) == []
    await settle(two.ops, *batch)
    await two.ops.release()
    assert (await only(two))[0].key != first.key


async def test_what_was_opened_without_incidents_is_closed_under_the_problems_id(two: StoreRig) -> None:
    await settle_all(two.ops)
    await two.record(1, sequence=2, problems=closed(overdue(1)))
    incident, _ = await only(two)
    assert (incident.key, open_ones(incident)) == (UUID(int=1), [])


async def test_members_are_kept_until_the_receiver_knows_that_all_is_over(two: StoreRig) -> None:
    _, batch = await only(two)
    await settle(two.ops, *batch)
    for number in (1, 2):
        await two.record(number, sequence=2, problems=closed(overdue(number)), end_seen_at=1)

    async def kept() -> int:
        await prune(two.store, before=LATER + 10**15)
        rows = await two.store.read(lambda connection: connection.exec_driver_sql("SELECT 1 FROM incident").all())
        return len(rows)

    assert await kept() == 2
    await settle(two.ops, *(await only(two))[1])
    assert await kept() == 0


async def test_an_incident_accepts_three_pipelines_more_than_it_was_triggered_with(rig: StoreRig) -> None:
    """The limit is kept with the incident: another process may own the sink by then."""
    by_account = IncidentRules(("account",), wait_s=0.0)
    keys = []
    for number in range(1, 6):
        problem, pipeline = overdue(number), str(UUID(int=number))
        about = {"account": "default", "pipeline": pipeline, "problem": problem.id}
        emitted = event(execution_id(number), sequence=1, type_=EventType.EXECUTION_OVERDUE, **about)
        entries = (OutboxEntry(emitted, ("ops",)),)
        told = change(rig.account, number, problems=opened(problem))
        await rig.store.record(replace(told, known=replace(told.known, pipeline=pipeline), entries=entries))
        incident, batch = await only(rig, rules=by_account)
        keys.append(incident.key)
        await settle(rig.ops, *batch)
    assert keys[0] == keys[1] == keys[2] == keys[3] != keys[4]
