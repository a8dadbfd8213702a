"""What every store promises of groups of deliveries (`sink_protocol.SqlStore`)."""

from collections.abc import Collection
from uuid import UUID

from stores import SECOND_US, START_US, SetClock, attempt_record, change, execution_id, source_change, stream_of

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import EventKey
from watcher.domain.timestamps import Micros
from watcher.store.changes import Lease
from watcher.store.records import BEGINNING, DueDeliveries, GroupPosition
from watcher.store.sql_store import SqlStore

LATER = Micros(START_US + 3_600 * SECOND_US)
FIRST, SECOND = UUID(int=1), UUID(int=2)


def of(number: int, *, sequence: int = 1) -> EventKey:
    return EventKey(stream_of(execution_id(number)), sequence)


async def record(store: SqlStore, account: Lease, *numbers: int, sequence: int = 1) -> None:
    for number in numbers:
        await store.record(change(account, number, sequence=sequence))


async def fix(store: SqlStore, ops: Lease, id_: UUID, *events: EventKey) -> None:
    await store.fix_groups(ops, [(id_, events)])


async def next_groups(
    store: SqlStore, ops: Lease, *, now: Micros = LATER, limit: int = 9, skip: Collection[bytes] = ()
) -> DueDeliveries:
    return await store.next_groups(ops, now=now, limit=limit, skip=skip)


async def members_of(store: SqlStore, ops: Lease, id_: UUID) -> list[EventKey]:
    return [EventKey(each.stream, each.sequence) for each in await store.group_members(ops, id_)]


async def settle_group(store: SqlStore, ops: Lease, id_: UUID, **how: object) -> None:
    for each in await store.group_members(ops, id_):
        await store.settle(attempt_record(ops, each, **({"group_id": id_} | how)))  # type: ignore[arg-type] # fields


async def candidates(store: SqlStore, ops: Lease, *, after: GroupPosition = BEGINNING, limit: int = 9) -> list[int]:
    found = await store.ungrouped(ops, now=LATER, after=after, limit=limit)
    return [each.delivery.sequence for each in found]


async def test_what_is_in_no_group_comes_in_the_order_it_came_due_with_what_is_before_it(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock
) -> None:
    await record(store, account, 1)
    clock.us += SECOND_US
    await record(store, account, 1, sequence=2)
    await record(store, account, 2)
    found = await store.ungrouped(ops, now=LATER, after=BEGINNING, limit=9)
    by_key = {EventKey(each.delivery.stream, each.delivery.sequence): each.earlier for each in found}
    assert by_key == {of(1): None, of(1, sequence=2): 1, of(2): None}
    assert found[0].delivery.body
    first = found[0].delivery
    after = GroupPosition(first.due_at, first.recorded_at, first.stream, first.sequence)
    assert len(await candidates(store, ops, after=after)) == 2
    assert len(await candidates(store, ops, limit=1)) == 1
    assert await store.ungrouped(ops, now=Micros(START_US - 1), after=BEGINNING, limit=9) == []


async def test_what_was_tried_or_is_fixed_is_collected_no_more(store: SqlStore, account: Lease, ops: Lease) -> None:
    await record(store, account, 1, 2, 3)
    await fix(store, ops, FIRST, of(1))
    (due,) = [each.delivery for each in await store.ungrouped(ops, now=LATER, after=BEGINNING, limit=9)][:1]
    await store.settle(attempt_record(ops, due, state=DeliveryState.WAITING))
    assert len(await candidates(store, ops)) == 1


async def test_a_group_goes_as_one_and_its_first_stands_for_it(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock
) -> None:
    await record(store, account, 2)
    clock.us += SECOND_US
    await record(store, account, 1)
    await record(store, account, 1, sequence=2)
    await fix(store, ops, FIRST, of(1), of(1, sequence=2), of(2))
    due = await next_groups(store, ops)
    (head,) = due.deliveries
    assert (head.stream, head.group_id, head.group_count, due.next_due_at) == (of(2).stream, FIRST, 3, None)
    assert await members_of(store, ops, FIRST) == [of(2), of(1), of(1, sequence=2)]
    assert (await next_groups(store, ops, skip=[FIRST.bytes])).deliveries == []


async def test_a_group_keeps_its_members_over_a_failure(store: SqlStore, account: Lease, ops: Lease) -> None:
    await record(store, account, 1, 2)
    await fix(store, ops, FIRST, of(1), of(2))
    await settle_group(store, ops, FIRST, state=DeliveryState.WAITING, due_at=LATER, steps=1)
    due = await next_groups(store, ops, now=Micros(LATER - 1))
    assert (due.deliveries, due.next_due_at) == ([], LATER)
    (head,) = (await next_groups(store, ops)).deliveries
    assert (head.attempts, head.steps, head.group_count) == (1, 1, 2)
    await settle_group(store, ops, FIRST)
    assert (await next_groups(store, ops)).deliveries == []
    assert await members_of(store, ops, FIRST) == []


async def test_what_is_settled_or_in_a_group_stays_out_of_another(store: SqlStore, account: Lease, ops: Lease) -> None:
    await record(store, account, 1, 2)
    await fix(store, ops, FIRST, of(1))
    await fix(store, ops, SECOND, of(1), of(2), of(3))
    assert await members_of(store, ops, FIRST) == [of(1)]
    assert await members_of(store, ops, SECOND) == [of(2)]


async def test_the_second_half_of_a_group_waits_for_what_the_first_holds_of_its_streams(
    store: SqlStore, account: Lease, ops: Lease
) -> None:
    await record(store, account, 1)
    await record(store, account, 1, sequence=2)
    await fix(store, ops, FIRST, of(1), of(1, sequence=2))
    one, two = await store.group_members(ops, FIRST)
    await store.settle(attempt_record(ops, one, state=DeliveryState.WAITING, group_id=FIRST))
    await store.settle(attempt_record(ops, two, state=DeliveryState.WAITING, group_id=SECOND))
    assert [each.group_id for each in (await next_groups(store, ops)).deliveries] == [FIRST]
    assert (await next_groups(store, ops, skip=[FIRST.bytes])).deliveries == []
    await settle_group(store, ops, FIRST)
    assert [each.group_id for each in (await next_groups(store, ops)).deliveries] == [SECOND]


async def test_what_was_tried_before_its_sink_had_groups_goes_alone(
    store: SqlStore, account: Lease, ops: Lease
) -> None:
    await record(store, account, 1, 2)
    found = await store.next_deliveries(ops, now=LATER, limit=1)
    await store.settle(attempt_record(ops, found.deliveries[0], state=DeliveryState.WAITING))
    (head,) = (await next_groups(store, ops)).deliveries
    assert (head.event_id, head.group_id, head.group_count) == (found.deliveries[0].event_id, None, 1)
    assert (await next_groups(store, ops, skip=[head.stream])).deliveries == []


async def test_groups_never_tried_come_first_and_no_more_than_asked_for(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock
) -> None:
    await record(store, account, 1)
    await fix(store, ops, FIRST, of(1))
    await settle_group(store, ops, FIRST, state=DeliveryState.WAITING)
    clock.us += SECOND_US
    await record(store, account, 2)
    await fix(store, ops, SECOND, of(2))
    assert [each.group_id for each in (await next_groups(store, ops)).deliveries] == [SECOND, FIRST]
    due = await next_groups(store, ops, limit=1)
    assert ([each.group_id for each in due.deliveries], due.next_due_at) == ([SECOND], LATER)


async def test_a_trial_is_a_group_never_tried_else_the_one_with_the_fewest_steps_due_or_not(
    store: SqlStore, account: Lease, ops: Lease
) -> None:
    third = UUID(int=3)
    await record(store, account, 1, 2, 3)
    for number, id_, steps in ((1, FIRST, 2), (2, SECOND, 1)):
        await fix(store, ops, id_, of(number))
        await settle_group(store, ops, id_, state=DeliveryState.WAITING, steps=steps, due_at=LATER + SECOND_US)
    assert await store.next_group_trial(ops, now=LATER, never_tried=True) is None
    trial = await store.next_group_trial(ops, now=LATER)
    assert trial is not None
    assert trial.group_id == SECOND
    trial = await store.next_group_trial(ops, now=LATER, skip=[SECOND.bytes])
    assert trial is not None
    assert trial.group_id == FIRST
    await fix(store, ops, third, of(3))
    trial = await store.next_group_trial(ops, now=LATER)
    assert trial is not None
    assert trial.group_id == third


async def test_a_group_is_given_up_as_a_whole(store: SqlStore, account: Lease, ops: Lease, clock: SetClock) -> None:
    await record(store, account, 1)
    await store.give_up(ops, now=clock.steady_us(), clock_s=10.0, after_s=5.0)
    await record(store, account, 1, sequence=2)
    await record(store, account, 2)
    await fix(store, ops, FIRST, of(1), of(1, sequence=2), of(2))
    assert await store.give_up(ops, now=clock.steady_us(), clock_s=15.0, after_s=5.0, skip=[FIRST.bytes]) == 0
    assert await store.give_up(ops, now=clock.steady_us(), clock_s=15.0, after_s=5.0) == 3
    assert await members_of(store, ops, FIRST) == []


async def test_the_groups_of_a_sink_are_its_own(store: SqlStore, account: Lease, ops: Lease) -> None:
    other = await store.claim("sink", "other")
    await store.record(source_change(account, sinks=("ops", "other")))
    event = EventKey(stream_of("accounts/default"), 1)
    await fix(store, ops, FIRST, event)
    assert (await next_groups(store, other)).deliveries == []
    assert len(await store.ungrouped(other, now=LATER, after=BEGINNING, limit=9)) == 1
