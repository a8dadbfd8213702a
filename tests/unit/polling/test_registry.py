"""Watches that change while their executions are polled, over the real store in virtual time."""

from virtual import PIPELINE, Start, said

from watcher.domain.execution import Outcome
from watcher.domain.watch import Watch

A, B, C = (f"9a1b0000-0000-4000-8000-00000000000{digit}" for digit in "abc")


def watch(*executions: str, team: str = "sales") -> Watch:
    return Watch("default", PIPELINE, executions, labels={"team": team})


async def test_an_execution_that_is_added_is_polled_and_one_that_is_removed_no_more(start: Start) -> None:
    account = await start(A)
    account.api.script[B] = said(B, "paused")
    await account.run_for(5)
    await account.watcher.watch([watch(B)])
    polled = len(account.api.times(A))
    await account.run_for(50)
    assert len(account.api.times(A)) == polled
    assert await account.emitted() == [("execution.running", "running", None), ("execution.paused", "paused", None)]


async def test_an_execution_that_is_watched_again_goes_on_from_what_was_reported(start: Start) -> None:
    account = await start(A)
    await account.run_for(5)
    await account.watcher.watch([])
    account.api.script[A] = said(A, "success")
    await account.run_for(500)
    await account.watcher.watch([watch(A)])
    await account.run_for(5)
    await account.watcher.watch([watch(A)])
    await account.run_for(500)
    assert await account.emitted() == [
        ("execution.running", "running", None),
        ("execution.success", "success", "running"),
    ]
    assert len(account.api.times(A)) == 7


async def test_labels_that_change_are_in_the_next_event_and_nothing_else_comes_of_it(start: Start) -> None:
    account = await start(A)
    await account.run_for(100)
    polled = len(account.api.asked)
    await account.watcher.watch([watch(A, team="ops")])
    await account.run_for(0.5)
    assert len(account.api.asked) == polled
    account.api.script[A] = said(A, "failed")
    await account.run_for(60)
    assert [event["data"]["labels"]["team"] for event in await account.events()] == ["sales", "ops"]


async def test_one_that_is_removed_and_added_while_a_poll_is_under_way_is_not_asked_for_twice(start: Start) -> None:
    account = await start(A)
    account.api.gate.clear()
    await account.run_for(0.1)
    await account.watcher.watch([])
    await account.watcher.watch([watch(A)])
    await account.run_for(5)
    assert (len(account.api.asked), account.api.most_in_flight) == (1, 1)
    account.api.gate.set()
    await account.run_for(5)
    assert len(account.api.asked) > 3
    assert await account.emitted() == [("execution.running", "running", None)]


async def test_one_that_is_removed_while_a_poll_is_under_way_is_let_go_when_it_is_back(start: Start) -> None:
    account = await start(A, B)
    account.api.gate.clear()
    await account.run_for(0.1)
    await account.watcher.watch([watch(B)])
    account.api.gate.set()
    await account.run_for(60)
    assert len(account.api.times(A)) == 1
    assert await account.emitted() == [("execution.running", "running", None)] * 2
    assert (
        account.metrics.registry.get_sample_value(
            "watcher_open_executions", {"account": "default", "status": "running"}
        )
        == 1
    )


async def test_one_that_ends_while_the_store_is_asked_for_others_is_not_taken_for_a_new_one(start: Start) -> None:
    account = await start(A)
    account.api.script = {A: said(A, "success"), C: said(C, "running")}
    account.api.gate.clear()
    await account.run_for(0.1)
    account.api.gate.set()
    await account.watcher.watch([watch(A, C)])
    await account.run_for(60)
    assert account.fatal == []
    assert len(account.api.times(A)) == 1


async def test_those_polled_longest_ago_come_first_at_a_start(start: Start) -> None:
    account = await start(A, B, C)
    account.api.script[A] = said(A, "paused")
    await account.run_for(1)
    account.api.script[B] = said(B, "paused")
    await account.run_for(2)
    again = await start(A, B, C, rate_per_s=1.0)
    await again.run_for(5)
    assert [name for _, name in again.api.asked][:3] == [A, C, B]


async def test_a_refused_key_is_tried_at_once_when_the_configuration_is_read_anew(start: Start) -> None:
    account = await start(A)
    account.api.script[A] = Outcome.UNAUTHORIZED
    await account.run_for(5)
    polled = len(account.api.asked)
    await account.watcher.watch([watch(A)])
    await account.run_for(5)
    assert len(account.api.asked) == polled + 1
