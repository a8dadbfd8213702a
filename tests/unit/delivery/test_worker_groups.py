"""How a sink is sent groups: what goes together, when, and that nothing of it is lost or changed."""

import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from structlog.testing import capture_logs
from worker_rig import BUSY, DELIVERED, FAILED, GONE, REFUSED, RULES, Rig, name_of

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventKey, EventType
from watcher.domain.routing import GroupRules
from watcher.sinks.protocol import SendResult, WorkerRules

GROUPED = replace(RULES, group=GroupRules(("pipeline",), wait_s=30.0, max_count=4))


def of(pipeline: str, **more: object) -> Mapping[str, object]:
    return {"account": "default", "pipeline": {"id": pipeline}, **more}


def by(*fields: str, max_count: int = 100) -> WorkerRules:
    return replace(RULES, group=GroupRules(fields, wait_s=30.0, max_count=max_count))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path / "watcher.db")
    await rig.start(rules=GROUPED)
    yield rig
    await rig.stop()


async def batches_after(rig: Rig, after_s: float = 0.0) -> list[list[str]]:
    """Return what goes together if so much time passes."""
    rig.sink.take_batches()
    await rig.go(after_s)
    return rig.sink.take_batches()


async def test_a_group_is_open_so_long_from_when_its_first_event_was_recorded(rig: Rig) -> None:
    await rig.record("a", data=of("p"))
    assert await batches_after(rig) == []
    await rig.record("b", data=of("p"))
    assert await batches_after(rig, 29.9) == []
    assert await batches_after(rig, 0.1) == [["a1", "b1"]]
    assert (rig.counted("delivered"), rig.row("a1")["state"]) == (2, "delivered")


async def test_the_worker_asks_to_be_called_when_a_group_is_complete(rig: Rig) -> None:
    await rig.record("a", data=of("p"))
    assert await rig.go(25) == pytest.approx(5.0, abs=0.01)


async def test_a_full_group_goes_at_once(rig: Rig) -> None:
    await rig.record("a", "b", "c", "d", "e", data=of("p"))
    assert await batches_after(rig) == [["a1", "b1", "c1", "d1"]]
    assert await batches_after(rig, 30) == [["e1"]]


async def test_events_of_one_execution_may_go_together_in_order(rig: Rig) -> None:
    await rig.record("a", "a", "b", "a", data=of("p"))
    assert await batches_after(rig) == [["a1", "a2", "b1", "a3"]]


async def test_what_differs_goes_apart(rig: Rig) -> None:
    await rig.record("a", data=of("p"))
    await rig.record("b", data=of("q"))
    assert sorted(await batches_after(rig, 30)) == [["a1"], ["b1"]]


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("account", {"account": "another"}),
        ("labels.team", {"labels": {"team": "support"}}),
        ("pipeline", {"pipeline": {"id": "q"}}),
    ],
)
async def test_a_sink_says_what_goes_together(rig: Rig, field: str, other: Mapping[str, object]) -> None:
    await rig.restart(rules=by(field))
    same = of("p", labels={"team": "sales"})
    await rig.record("a", data=same)
    await rig.record("b", data={**same, **other})
    await rig.record("c", data={**same, "reason": "x"})
    assert sorted(await batches_after(rig, 30)) == [["a1", "c1"], ["b1"]]


async def test_types_may_go_apart_and_keep_the_order_of_an_execution(rig: Rig) -> None:
    await rig.restart(rules=by("type"))
    await rig.record("a", type_=EventType.EXECUTION_RUNNING, data=of("p"))
    await rig.record("a", "b", data=of("p"))
    first, second, last = await batches_after(rig, 30)
    assert (sorted([first, second]), last) == ([["a1"], ["b1"]], ["a2"])


async def test_an_event_without_a_field_goes_alone_at_once(rig: Rig) -> None:
    await rig.restart(rules=by("pipeline", "labels.team"))
    await rig.record("a", "b", data=of("p"))
    assert sorted(await batches_after(rig)) == [["a1"], ["b1"]]


@pytest.mark.parametrize(
    "type_", [EventType.ACCOUNT_DEGRADED, EventType.PIPELINE_FAILING, EventType.SINK_FAILING, EventType.PROBLEM_CLOSED]
)
async def test_what_tells_of_a_problem_goes_alone_at_once(rig: Rig, type_: EventType) -> None:
    await rig.restart(rules=by("account"))
    await rig.record("a", "b", type_=type_, data={**of("p"), "problem": {"id": str(UUID(int=5))}})
    assert sorted(await batches_after(rig)) == [["a1"], ["b1"]]


async def test_a_group_that_failed_is_the_same_on_every_attempt(rig: Rig) -> None:
    rig.sink.answer = lambda _: FAILED
    await rig.record("a", "b", data=of("p"))
    assert await batches_after(rig, 30) == [["a1", "b1"]]
    await rig.record("c", data=of("p"))
    assert await batches_after(rig, 1.5) == [["a1", "b1"]]
    rig.sink.answer = lambda _: DELIVERED
    assert await batches_after(rig, 5) == [["a1", "b1"]]
    assert await batches_after(rig, 30) == [["c1"]]


async def test_a_kill_leaves_a_fixed_group_as_it_was(rig: Rig) -> None:
    rig.sink.answer = lambda _: FAILED
    await rig.record("b", "a", "b", data=of("p"))
    await rig.go(30)
    ids = [each.group_id for each in rig.sink.sent]
    await rig.kill()
    await rig.start(rules=GROUPED)
    await rig.record("c", "d", data=of("p"))
    rig.sink.sent.clear()
    assert sorted(await batches_after(rig, 30)) == [["b1", "a1", "b2"], ["c1", "d1"]]
    assert [each.group_id for each in rig.sink.sent if each.group_id == ids[0]] == ids


async def test_a_kill_before_a_group_is_complete_loses_nothing(rig: Rig) -> None:
    await rig.record("a", data=of("p"))
    await rig.go(20)
    await rig.kill()
    await rig.start(rules=GROUPED)
    await rig.record("b", data=of("p"))
    assert await batches_after(rig, 10) == [["a1", "b1"]]


async def test_later_events_of_an_execution_wait_for_its_group(rig: Rig) -> None:
    rig.sink.answer = lambda _: FAILED
    await rig.record("a", "b", data=of("p"))
    await rig.go(30)
    await rig.record("a", "c", data=of("p"))
    assert await batches_after(rig, 0.9) == []
    assert ["c1"] in await batches_after(rig, 30)
    rig.sink.answer = lambda _: DELIVERED
    assert (await batches_after(rig, 60))[-1] == ["a2"]


async def test_all_of_a_group_share_one_fate(rig: Rig) -> None:
    rig.sink.answer = lambda _: FAILED
    await rig.record("a", "b", data=of("p"))
    await rig.go(30)
    same = ("attempts", "steps", "rejections", "due_at", "tried_at", "first_due_us", "group_id", "state")
    assert [rig.row("a1")[name] for name in same] == [rig.row("b1")[name] for name in same]
    assert (rig.row("a1")["attempts"], rig.counted("retried")) == (1, 2)


async def test_a_refused_group_goes_in_halves_down_to_the_one_that_is_refused(rig: Rig) -> None:
    def answer(_: Delivery) -> object:
        return REFUSED if "c1" in rig.sink.batches[-1] else DELIVERED

    rig.sink.answer = answer  # type: ignore[assignment] # as any answer
    await rig.record("a", "b", "c", "d", data=of("p"))
    whole, *parts = await batches_after(rig, 30)
    assert (whole, sorted(parts)) == (["a1", "b1", "c1", "d1"], [["a1", "b1"], ["c1"], ["c1", "d1"], ["d1"]])
    assert await batches_after(rig, 600) == [["c1"]]
    with capture_logs() as logs:
        for _ in range(3):
            await rig.go(600)
    assert (rig.row("c1")["state"], rig.row("c1")["rejections"], rig.counted("dead")) == ("dead", 5, 1)
    assert rig.counted("delivered") == 3
    (dead,) = [each for each in logs if each["event"] == "delivery.dead"]
    assert (dead["attempt"], dead["refused"]) == (7, 5)  # two of its attempts were those of a group


async def test_a_group_whose_message_is_refused_goes_in_minimal_form_before_it_goes_in_halves(rig: Rig) -> None:
    def answer(_: Delivery) -> SendResult:
        first, *others = rig.sink.sent[-len(rig.sink.batches[-1]) :]
        return replace(REFUSED, minimal_left=not first.rejections) if others else DELIVERED

    rig.sink.answer = answer
    await rig.record("a", "b", data=of("p"))
    whole, minimal, *halves = await batches_after(rig, 30)
    assert (whole, minimal, sorted(halves)) == (["a1", "b1"], ["a1", "b1"], [["a1"], ["b1"]])
    assert rig.counted("delivered") == 2


async def test_halves_keep_the_order_of_an_execution(rig: Rig) -> None:
    refused = iter([REFUSED])
    rig.sink.answer = lambda _: next(refused, DELIVERED)
    await rig.record("a", "a", "b", data=of("p"))
    assert await batches_after(rig, 30) == [["a1", "a2", "b1"], ["a1"], ["a2", "b1"]]


async def test_a_group_that_is_given_up_dies_as_a_whole(rig: Rig) -> None:
    await rig.restart(rules=replace(GROUPED, retry=replace(RULES.retry, give_up_after_s=100.0)))
    rig.sink.answer = lambda _: FAILED
    await rig.record("a", "a", "b", data=of("p"))
    await rig.go(30)
    await rig.go(101)
    assert [rig.row(name)["state"] for name in ("a1", "a2", "b1")] == ["dead"] * 3
    assert rig.counted("dead") == 3


async def test_a_group_is_as_old_as_its_youngest_event(rig: Rig) -> None:
    await rig.restart(rules=replace(by("pipeline"), retry=replace(RULES.retry, give_up_after_s=100.0)))
    await rig.record("a", data=of("p"))
    await rig.go()
    await rig.worker.flush()
    rig.sink.answer = lambda _: FAILED
    await rig.go(20)
    await rig.record("b", data=of("p"))
    await rig.go(10)
    await rig.go(75)
    assert [rig.row(name)["state"] for name in ("a1", "b1")] == ["waiting"] * 2
    await rig.go(60)
    assert [rig.row(name)["state"] for name in ("a1", "b1")] == ["dead"] * 2


async def test_a_dead_sink_gives_up_what_waits_for_it_in_groups_or_not(rig: Rig) -> None:
    await rig.restart(rules=replace(GROUPED, retry=replace(RULES.retry, give_up_after_s=100.0)))
    rig.sink.answer = lambda _: BUSY
    await rig.record("a", "b", data=of("p"))
    await rig.go(30)
    await rig.record("c", data=of("p"))
    await rig.go(1)
    rig.sink.answer = lambda _: replace(BUSY, retry_after_s=3600)
    await rig.go(60)
    await rig.worker.flush()
    await rig.go(110)
    await rig.worker.flush()
    assert [rig.row(name)["state"] for name in ("a1", "b1", "c1")] == ["dead"] * 3


async def test_an_open_breaker_tries_one_group_at_a_time(rig: Rig) -> None:
    rig.sink.answer = lambda _: FAILED
    for number in range(6):
        await rig.record(f"a{number}-", f"b{number}-", data=of(f"p{number}"))
    assert len(await batches_after(rig, 30)) == 6
    assert rig.worker._breaker.is_open
    assert len(await batches_after(rig, 1)) == 1
    rig.sink.answer = lambda _: DELIVERED
    assert len(await batches_after(rig, 60)) == 6
    assert rig.counted("delivered") == 12


async def test_what_comes_while_the_sink_takes_nothing_goes_as_one_group(rig: Rig) -> None:
    await rig.restart(rules=by("pipeline"))
    rig.sink.answer = lambda _: BUSY
    await rig.record("z", data=of("q"))
    await rig.go(30)
    for number in range(3):
        await rig.record(f"a{number}-", data=of("p"))
        await rig.go(10)
    await rig.record("b", data=of("p"))
    rig.sink.answer = lambda _: DELIVERED
    assert sorted(await batches_after(rig, 40)) == [["a0-1", "a1-1", "a2-1", "b1"], ["z1"]]


async def test_a_slow_pace_makes_for_larger_groups(rig: Rig) -> None:
    await rig.restart(rules=replace(by("pipeline"), rate_per_s=1 / 60))
    for number in range(20):
        await rig.record(f"a{number:02}-", data=of(f"p{number}"))
    assert await batches_after(rig, 30) == []
    await rig.record("b00-", "b19-", data=of("p19"))
    batches = [batch for _ in range(40) for batch in await batches_after(rig, 60)]
    assert sorted(batches) == [*([f"a{number:02}-1"] for number in range(19)), ["a19-1", "b00-1", "b19-1"]]


async def test_a_sink_that_is_gone_is_sent_nothing_more(rig: Rig) -> None:
    rig.sink.answer = lambda _: GONE
    await rig.record("a", "b", data=of("p"))
    assert len(await batches_after(rig, 30)) == 1
    await rig.record("c", data=of("p"))
    assert await batches_after(rig, 60) == []
    assert rig.row("a1")["state"] == "waiting"


@pytest.mark.parametrize("broken", ["ungrouped", "fix_groups", "next_groups", "group_members", "settle"])
async def test_trouble_with_the_store_loses_and_changes_nothing(rig: Rig, broken: str) -> None:
    await rig.record("a", "b", data=of("p"))
    await rig.go(29)
    rig.store.broken = {broken}
    await rig.go(1)
    assert rig.counted("delivered") == 0
    rig.store.broken = set()
    await rig.go(30)
    assert rig.sink.take_batches() == [["a1", "b1"]]
    assert (rig.counted("delivered"), rig.ends) == (2, [])


async def test_a_sink_that_has_no_groups_any_more_is_sent_each_alone(rig: Rig) -> None:
    rig.sink.answer = lambda _: FAILED
    await rig.record("a", "a", "b", data=of("p"))
    await rig.go(30)
    await rig.restart()
    rig.sink.answer = lambda _: DELIVERED
    assert sorted(await rig.sent_after(60)) == ["a1", "a2", "b1"]


async def test_what_was_tried_before_its_sink_had_groups_goes_alone(rig: Rig) -> None:
    await rig.restart()
    rig.sink.answer = lambda _: FAILED
    await rig.record("a", "b", data=of("p"))
    await rig.go()
    await rig.restart(rules=GROUPED)
    await rig.record("a", data=of("p"))
    rig.sink.answer = lambda _: DELIVERED
    first, second, last = await batches_after(rig, 60)
    assert (sorted([first, second]), last) == ([["a1"], ["b1"]], ["a2"])


async def test_what_is_replayed_goes_in_groups_of_its_own(rig: Rig) -> None:
    rig.sink.answer = lambda _: REFUSED
    await rig.restart(rules=by("pipeline", max_count=1))
    await rig.record("a", "b", data=of("p"))
    for _ in range(6):
        await rig.go(600)
    assert rig.counted("dead") == 2
    await rig.restart(rules=GROUPED)
    await rig.record("c", data=of("p"))
    rig.sink.answer = lambda _: DELIVERED
    assert await rig.real_store.replay_all("ops") == 2
    rig.sink.sent.clear()
    assert sorted(await batches_after(rig, 60)) == [["a1", "b1"], ["c1"]]
    assert {name_of(each): each.replayed for each in rig.sink.sent} == {"a1": True, "b1": True, "c1": False}


async def test_what_is_replayed_while_the_worker_runs_is_found(rig: Rig) -> None:
    await rig.restart(rules=replace(GROUPED, retry=replace(RULES.retry, give_up_after_s=10.0)))
    rig.sink.answer = lambda _: FAILED
    await rig.record("a", data=of("p"))
    await rig.go(30)
    await rig.go(11)
    assert rig.row("a1")["state"] == "dead"
    rig.sink.answer = lambda _: DELIVERED
    await rig.go(60)
    assert await rig.real_store.replay("ops", EventKey(b"a", 1))
    assert await batches_after(rig, 60) == [["a1"]]


async def test_no_more_than_a_bound_is_collected(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "MEMBERS_COUNT", 6)
    await rig.restart(rules=by("pipeline"))
    await rig.record(*(f"p{number}-" for number in range(4)), data=of("p"))
    await rig.record(*(f"q{number}-" for number in range(4)), data=of("q"))
    assert [len(batch) for batch in await batches_after(rig)] == [4]
    assert [len(batch) for batch in await batches_after(rig, 30)] == [4]


async def test_a_storm_makes_few_groups_and_each_event_is_in_one(rig: Rig) -> None:
    await rig.restart(rules=by("pipeline", max_count=100))
    names = [f"s{number:04}-" for number in range(1000)]
    for start in range(0, 1000, 50):
        await rig.record(*names[start : start + 50], data=of("p"))
        await rig.go(3 - 0.05)
    await rig.go(30)
    batches = rig.sink.take_batches()
    assert [name for batch in batches for name in batch] == [f"{name}1" for name in names]
    assert len(batches) <= max(1 + 60 / 30, 1000 / 100 + 1)


async def test_a_group_is_fixed_before_it_is_sent(rig: Rig) -> None:
    def answer(delivery: Delivery) -> object:
        with closing(sqlite3.connect(rig.path)) as connection:
            query = "SELECT count(*) FROM delivery WHERE group_id = ?"
            assert delivery.group_id is not None
            assert connection.execute(query, (delivery.group_id.bytes,)).fetchone() == (2,)
        return DELIVERED

    rig.sink.answer = answer  # type: ignore[assignment] # as any answer
    await rig.record("a", "b", data=of("p"))
    assert await batches_after(rig, 30) == [["a1", "b1"]]
    assert [name_of(each) for each in rig.sink.sent] == ["a1", "b1"]
