"""Successes that count as failures of the rule `failing`: `also`."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from rules_rig import AT_ONCE, again, name_of, row, show, told, watch_of, whole
from virtual import EPOCH, PIPELINE, RULES, Account, FakeClock, Start, said

from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.rules import FailingRule, Rules
from watcher.domain.watch import Details

TOO_SHORT = Rules(FailingRule(consecutive=3, shorter_than_s=5.0, **AT_ONCE))
TOO_FEW = Rules(FailingRule(consecutive=3, fewer_nodes_than=2, **AT_ONCE))
RATE = Rules(FailingRule(rate=0.5, of_last=6, at_least=4, shorter_than_s=5.0))


def ends_of(account: Account) -> str:
    return account.watcher._session.recent_ends[PIPELINE].snapshot().ends


def success(number: int, *, seconds: float | None = 30.0, **facts: Any) -> ExecutionSnapshot:
    """Return a success that ended with its number and took so long, if that is known."""
    at = EPOCH + timedelta(seconds=1000.0 + number)
    return said(
        name_of(number),
        "success",
        started_at=None if seconds is None else at - timedelta(seconds=seconds),
        finished_at=at,
        **facts,
    )


async def test_successes_that_were_too_short_open_a_problem_and_say_why(start: Start) -> None:
    account = await whole(start, TOO_SHORT)
    short = [success(number, seconds=1.5) for number in (1, 2)]
    show(account, *short, row(3, error="boom"))
    *ends, opening = await account.events(after_s=5)
    assert [each["type"].partition(".")[2] for each in ends] == ["success", "success", "failed"]
    assert all("error" not in each["data"]["execution"] for each in ends[:2])  # of this rule alone
    assert (opening["type"], opening["data"]["execution"]["error"]) == ("pipeline.failing", "boom")
    assert opening["data"]["problem"]["count"] == 3
    show(account, *short, row(3), success(8, seconds=0.25))
    assert await told(account, after_s=5) == ["success"]
    (problem,) = (await account.watcher._deps.store.load_rules(PIPELINE)).problems.values()
    assert (problem.failed_count, problem.latest and problem.latest.execution) == (4, name_of(8))
    assert problem.latest
    assert (problem.latest.node, problem.latest.error) == (None, "succeeded after 0.25 s, in less than 5 s")
    show(account, *short, row(3), success(8, seconds=0.25), success(13))
    assert await told(account, after_s=5) == ["success", "pipeline.recovered"]


async def test_the_last_ends_show_which_successes_count_as_failed_over_a_restart_too(start: Start) -> None:
    account = await whole(start, TOO_SHORT)
    show(account, success(1, seconds=1.5), success(2), row(3))
    await account.run_for(5)
    await account.watcher.flush()
    assert ends_of(account) == "csf"
    show(account, success(1, seconds=1.5), success(2), row(3), success(4))
    await account.run_for(5)  # this end is in no snapshot
    account = await again(start, account)
    assert ends_of(account) == "csfs"


async def test_an_opening_by_a_success_names_its_fault(start: Start) -> None:
    account = await whole(start, TOO_SHORT)
    show(account, row(1), row(2), success(3, seconds=1.5))
    *_, opening = await account.events(after_s=5)
    data, fault = opening["data"], "succeeded after 1.5 s, in less than 5 s"
    assert (data["execution"]["status"], data["execution"]["error"]) == ("success", fault)


@pytest.mark.parametrize(
    ("rules", "facts"),
    [
        (TOO_SHORT, {"seconds": 5.0}),
        (TOO_SHORT, {"seconds": -3.0}),  # the API has two clocks
        (TOO_SHORT, {"seconds": None}),
        (TOO_FEW, {"nodes_started": 2.0}),
        (TOO_FEW, {"nodes_started": None, "seconds": 0.0}),
    ],
    ids=["as long", "a negative duration", "no start", "as many nodes", "no nodes"],
)
async def test_what_is_not_below_the_limit_or_not_known_is_no_failure(
    start: Start, rules: Rules, facts: dict[str, Any]
) -> None:
    account = await whole(start, rules)
    show(account, *(success(number, **facts) for number in (1, 2, 3)))
    assert await told(account, after_s=5) == ["success"] * 3


async def test_a_duration_that_an_event_rounds_up_to_the_limit_is_not_below_it(start: Start) -> None:
    account = await whole(start, TOO_SHORT)
    show(account, *(success(number, seconds=4.9998) for number in (1, 2, 3)))
    assert await told(account, after_s=5) == ["success"] * 3
    show(account, *(success(number, seconds=4.9994) for number in (6, 7, 8)))
    *_, opening = await account.events(after_s=5)
    assert opening["data"]["execution"]["error"] == "succeeded after 4.999 s, in less than 5 s"


async def test_too_few_nodes_are_known_by_a_get_if_each_end_is_fetched(start: Start) -> None:
    account = await whole(start, TOO_FEW, scan=replace(RULES, details=Details.ALWAYS))
    ends = [success(number, nodes_started=1.0) for number in (1, 2, 3)]
    show(account, *ends)
    account.api.pages = {1: tuple(replace(each, nodes_started=None) for each in ends[::-1])}
    *_, opening = await account.events(after_s=15)
    assert opening["type"] == "pipeline.failing"
    assert opening["data"]["execution"]["error"] == "succeeded, but started 1 nodes, fewer than 2"


async def test_a_rate_counts_short_successes_too(start: Start) -> None:
    account = await whole(start, RATE)
    ends = [success(1), success(2, seconds=1.0), success(3), success(4, seconds=1.0)]
    show(account, *ends)
    assert await told(account, after_s=5) == ["success"] * 4 + ["pipeline.failing"]
    show(account, *ends, *(success(number) for number in (6, 7, 8, 9)))
    assert await told(account, after_s=5) == ["success"] * 4 + ["pipeline.recovered"]


async def test_short_successes_that_were_held_over_a_start_count_and_say_why(start: Start, clock: FakeClock) -> None:
    account = await whole(start, TOO_SHORT)
    clock.advance(600)
    account = await again(start, account, TOO_SHORT)
    show(account, *(success(number, seconds=2.0) for number in (101, 102, 103)))
    *_, opening = await account.events(after_s=5)
    assert opening["type"] == "pipeline.failing"
    assert opening["data"]["problem"]["count"] == 3
    assert opening["data"]["execution"]["error"] == "succeeded after 2 s, in less than 5 s"


async def test_a_short_success_is_no_new_error_and_closes_no_problem_of_the_rule_without_also(start: Start) -> None:
    account = await whole(start, Rules(TOO_SHORT.failing, reports_new_errors=True))
    show(account, *(success(number, seconds=2.0) for number in (1, 2, 3)))
    assert await told(account, after_s=5) == ["success"] * 3 + ["pipeline.failing"]
    await account.watcher.watch([watch_of(Rules(FailingRule(consecutive=3, **AT_ONCE)))])
    show(account, success(6, seconds=2.0))
    assert await told(account, after_s=5) == ["success", "pipeline.recovered"]
