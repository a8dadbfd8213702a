"""Which deliveries go together and when, and what is read from their events for it."""

from dataclasses import replace
from uuid import UUID

import pytest
from sample_events import PIPELINE, sample
from watcher.delivery.grouping import Member, OpenGroups, fixed, key_of
from watcher.delivery.silencing import fields_of

from watcher.delivery import grouping
from watcher.domain.event import EventKey, EventType
from watcher.domain.event_ids import group_id
from watcher.domain.silences import DeliveryFields
from watcher.domain.timestamps import Micros
from watcher.sinks.protocol import GroupRules

FAILED = DeliveryFields("ops", EventType.EXECUTION_FAILED, "default", "p", {"team": "sales"})
RULES = GroupRules(("pipeline",), wait_s=1.0, max_count=3)


def add(groups: OpenGroups, one: Member, *, earlier: int | None = None, now: int = 0) -> bool:
    return groups.add(one, earlier=earlier, now=Micros(now))


def member(name: str, *, at: int = 0, replayed: bool = False, fields: DeliveryFields = FAILED) -> Member:
    """Return `a1`: the first event of stream `a`."""
    event = EventKey(name[:-1].encode(), int(name[-1]))
    return Member(Micros(at), event, UUID(int=int.from_bytes(name.encode())), fields, replayed)


def names(groups: OpenGroups, *, now: int) -> list[list[str]]:
    return [
        [f"{each.event.stream.decode()}{each.event.sequence}" for each in group.members]
        for group in groups.complete(Micros(now))
    ]


def test_what_groups_and_silences_go_by_is_read_from_the_event() -> None:
    fields = fields_of(sample(EventType.EXECUTION_FAILED))
    assert fields == DeliveryFields("ops", "execution.failed", "default", PIPELINE, {"team": "sales"})
    assert fields_of(sample(EventType.SINK_FAILING, data={})) == DeliveryFields("ops", "sink.failing")


@pytest.mark.parametrize(
    ("by", "key"),
    [
        (("pipeline",), ("p",)),
        (("account", "type", "labels.team"), ("default", "execution.failed", "sales")),
        (("pipeline", "labels.env"), None),
    ],
)
def test_deliveries_are_alike_in_all_that_is_named(by: tuple[str, ...], key: tuple[str, ...] | None) -> None:
    assert key_of(FAILED, by) == key


@pytest.mark.parametrize("type_", EventType)
def test_what_happens_to_executions_is_grouped_and_a_gap(type_: EventType) -> None:
    is_grouped = type_.startswith("execution.") or type_ is EventType.PIPELINE_GAP
    assert (key_of(replace(FAILED, type=type_), ("pipeline",)) is not None) is is_grouped


def test_a_group_is_complete_after_its_time_or_when_it_is_full() -> None:
    groups = OpenGroups(RULES)
    assert add(groups, member("a1", at=5), now=10)
    assert (groups.next_at(), names(groups, now=1_000_004)) == (1_000_005, [])
    assert names(groups, now=1_000_005) == [["a1"]]
    for name in ("b1", "c1", "d1"):
        assert add(groups, member(name, at=20), now=20)
    assert names(groups, now=20) == [["a1", "b1", "c1"]]
    assert groups.next_at() == 20


def test_what_a_clock_that_was_ahead_recorded_waits_no_longer_than_the_rest() -> None:
    groups = OpenGroups(RULES)
    add(groups, member("a1", at=10**15), now=10)
    assert groups.next_at() == 1_000_010


def test_what_is_removed_is_known_no_more() -> None:
    groups = OpenGroups(RULES)
    add(groups, member("a1"))
    groups.remove(groups.complete(Micros(1_000_000)))
    assert EventKey(b"a", 1) not in groups
    assert groups.next_at() is None
    assert add(groups, member("b1"))
    assert names(groups, now=1_000_000) == [["b1"]]


def test_a_follower_goes_with_the_one_before_it_or_waits() -> None:
    groups = OpenGroups(replace(RULES, max_count=2))
    assert not add(groups, member("a2"), earlier=1)
    assert add(groups, member("a1"))
    assert add(groups, member("a2"), earlier=1)
    assert not add(groups, member("a3"), earlier=2)
    assert names(groups, now=0) == [["a1", "a2"]]


def test_what_goes_alone_waits_for_the_one_before_it() -> None:
    groups = OpenGroups(RULES)
    alone = replace(FAILED, pipeline=None)
    assert add(groups, member("a1", fields=alone))
    assert not add(groups, member("a2", fields=alone), earlier=1)
    assert names(groups, now=0) == [["a1"]]


def test_what_is_replayed_goes_apart() -> None:
    groups = OpenGroups(RULES)
    add(groups, member("a1"))
    add(groups, member("b1", replayed=True))
    assert names(groups, now=1_000_000) == [["a1"], ["b1"]]


def test_when_there_is_no_room_for_more_the_oldest_group_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "MEMBERS_COUNT", 2)
    groups = OpenGroups(RULES)
    add(groups, member("a1"))
    assert names(groups, now=0) == []
    add(groups, member("b1", fields=replace(FAILED, pipeline="q")))
    assert (names(groups, now=0), groups.next_at()) == ([["a1"]], 0)


def test_a_group_is_named_by_its_events_in_the_order_they_were_recorded() -> None:
    second, first = member("a1", at=2), member("b1", at=1)
    assert fixed([second, first]) == (group_id([first.event_id, second.event_id]), [first.event, second.event])
