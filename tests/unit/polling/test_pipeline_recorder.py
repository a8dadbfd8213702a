"""When rules are asked, and what is written with what they conclude."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from rules_rig import (
    AT_ONCE,
    BOTH,
    HOUR_US,
    IN_A_ROW,
    SILENT,
    UNCONFIRMED,
    again,
    row,
    ruled,
    show,
    shown,
    told,
    watch_of,
    whole,
)
from stores import HeardStore
from virtual import EPOCH, PIPELINE, RULES, Account, FakeClock, Start, name_of

from watcher.domain.errors import StoreError
from watcher.domain.event import EventType, GapReason
from watcher.domain.execution import ExecutionSnapshot, FailedNode, Outcome
from watcher.domain.problems import LatestFailure
from watcher.domain.rule import Rule
from watcher.domain.timestamps import Micros, to_us
from watcher.domain.watch import Details
from watcher.store.changes import ChangeSet, ExecutionChange


async def rules_events(account: Account) -> list[Mapping[str, Any]]:
    return [event for event in await account.events() if "problem" in event["data"]]


async def test_a_problem_is_opened_with_the_end_that_did_it_and_closed_once(start: Start) -> None:
    account = await whole(start)
    for count, status in enumerate(("failed", "failed", "failed", "failed", "success", "success"), 1):
        rows = [row(5 * number) for number in range(1, min(count, 4) + 1)]
        rows += [row(5 * number, status) for number in range(5, count + 1)]
        show(account, *rows)
        await account.run_for(5)
    opening, closing = await rules_events(account)
    assert (opening["type"], opening["source"]) == ("pipeline.failing", f"/accounts/default/pipelines/{PIPELINE}")
    assert (opening["data"]["execution"]["id"], opening["data"]["execution"]["status"]) == (name_of(15), "failed")
    assert opening["data"]["problem"] == {
        "id": closing["data"]["problem"]["id"],
        "kind": "pipeline.failing",
        "severity": "critical",
        "openedAt": opening["time"],
        "count": 3,
    }
    assert (closing["type"], closing["sequence"], closing["data"]["problem"]["count"]) == (
        "pipeline.recovered",
        "0000000002",
        4,
    )
    assert opening["data"]["closesWhen"] == (
        "1 in a row succeeded, at most a tenth of the last 0 s failed, and it has been open for 0 s"
    )
    assert not {"execution", "closesWhen"} & closing["data"].keys()


NODES = {name: (FailedNode("2d3e", name, f"{name} broke"),) for name in ("Greeting", "Lookup")}


async def latest_of(account: Account) -> tuple[int, LatestFailure | None]:
    """Return how many failures the open problem has in the store, and the newest."""
    problem = (await account.watcher._deps.store.load_rules(PIPELINE)).problems[EventType.PIPELINE_FAILING]
    return problem.failed_count, problem.latest


async def test_an_open_problem_has_its_newest_failure_and_a_late_one_only_counts(start: Start) -> None:
    account = await whole(start)
    first = [row(number, failed_nodes=NODES["Greeting"]) for number in (1, 2, 3)]
    await shown(account, *first)
    at = to_us(EPOCH) + 1_000_000_000
    assert await latest_of(account) == (
        3,
        LatestFailure(Micros(at + 3_000_000), name_of(3), "Greeting", "Greeting broke"),
    )
    newest = row(6, failed_nodes=NODES["Lookup"], error="unused")
    await shown(account, *first, newest)
    lookup = LatestFailure(Micros(at + 6_000_000), name_of(6), "Lookup", "Lookup broke")
    assert await latest_of(account) == (4, lookup)
    late = row(5, failed_nodes=NODES["Greeting"])
    await shown(account, *first, newest, late)
    assert await latest_of(account) == (5, lookup)
    await shown(account, *first, newest, late, row(15, error="out of credit"))
    assert await latest_of(account) == (6, LatestFailure(Micros(at + 15_000_000), name_of(15), None, "out of credit"))


@pytest.mark.parametrize("rules", [IN_A_ROW, ()])
async def test_ends_of_one_page_are_recorded_and_judged_oldest_first(start: Start, rules: tuple[Rule, ...]) -> None:
    account = await whole(start, rules)
    show(account, row(1), row(2), row(3), row(4, "success"))
    emitted = [(event["type"], event.get("subject")) for event in await account.events(after_s=2)]
    assert [subject for type_, subject in emitted if type_.startswith("execution.")] == list(map(name_of, (1, 2, 3, 4)))
    edges = [type_ for type_, _ in emitted if "pipeline" in type_]
    assert edges == (["pipeline.failing"] if rules else [])
    if rules:
        show(account, row(1), row(2), row(3), row(4, "success"), row(8, "success"))
        assert await told(account, after_s=4) == ["success", "pipeline.recovered"]


async def test_ends_are_held_back_until_a_scan_is_complete_and_survive_a_restart(start: Start) -> None:
    account = await whole(start)
    running = [row(number, "running") for number in (1, 2, 3)]
    await shown(account, *running)
    account = await again(start, account)
    account.api.script = {each.id: row(number, at_s=1010.0 + number) for number, each in enumerate(running, 1)}
    account.api.pages = {1: Outcome.SERVER_ERROR}
    await account.run_for(200)
    assert sorted(await told(account)) == ["account.degraded", "failed", "failed", "failed", *["running"] * 3]
    account = await again(start, account)
    show(account, *(row(number, at_s=1010.0 + number) for number in (1, 2, 3)))
    recovered, opening = await account.events(after_s=5)
    assert (recovered["type"], opening["type"]) == ("account.recovered", "pipeline.failing")
    assert opening["data"]["execution"]["id"] == name_of(3)


@pytest.mark.parametrize(
    ("ends", "counts"), [("FFFFFS", []), ("FFFFF", [5]), ("SFFFFSFFF", [3]), ("SFFFFSFF", []), ("FFFSFFFS", [])]
)
async def test_after_a_downtime_rules_judge_once_by_what_stands_then(
    start: Start, clock: FakeClock, ends: str, counts: list[int]
) -> None:
    account = await whole(start)
    clock.advance(600)
    account = await again(start, account)
    words = {"F": "failed", "S": "success"}
    show(account, *(row(number, words[end], at_s=1100.0 + number) for number, end in enumerate(ends)))
    events = await account.events(after_s=5)
    assert sum(event["type"].startswith("execution.") for event in events) == len(ends)
    problems = [event for event in events if "problem" in event["data"]]
    assert [event["type"] for event in problems] == ["pipeline.failing"] * len(counts)
    assert [event["data"]["problem"]["count"] for event in problems] == counts


async def test_one_that_is_lost_for_good_while_its_end_is_to_be_confirmed_holds_up_no_other(start: Start) -> None:
    account = await start(watches=[watch_of(IN_A_ROW)], rules=RULES)
    await shown(account, row(1, "running"), for_s=60)
    show(account, row(50, "running"))
    account.api.script[name_of(1)] = Outcome.NOT_FOUND
    assert "lost" in await told(account, after_s=400)
    entry = account.watcher._registry.entries[name_of(1)]
    lost_at = Micros((entry.known.lost_at or 0) - 24 * HOUR_US)  # its day is over
    entry.known = replace(entry.known, lost_at=lost_at)
    ended = row(1, at_s=1450.0)
    account.api.pages = {1: (row(50, "running"), ended)}
    await account.run_for(60)
    others = [row(number, at_s=1500.0 + number) for number in (60, 61, 62)]
    account.api.script |= {each.id: each for each in others}
    account.api.pages = {1: (*others[::-1], ended, row(50, "running"))}
    assert (await told(account, after_s=600))[-1] == "pipeline.failing"


async def pipeline_trouble(account: Account, trouble: str) -> None:
    """Have the list answer nothing any more, while what is known can be asked for."""
    match trouble:
        case "degraded":
            account.api.default, account.api.status_codes = Outcome.UNAUTHORIZED, {Outcome.UNAUTHORIZED: 401}
            await account.run_for(10)
            account.api.default = None
        case _:
            account.api.pages = {1: Outcome(trouble)}
            account.api.status_codes = {Outcome.FORBIDDEN: 403}
            await account.run_for(10)


@pytest.mark.parametrize("trouble", ["server_error", "forbidden", "degraded"])
async def test_after_trouble_ends_wait_for_a_scan_that_begins_after_it(start: Start, trouble: str) -> None:
    account = await whole(start)
    show(account, *(row(number, "running") for number in (1, 2, 3)))
    await told(account, after_s=5)
    await pipeline_trouble(account, trouble)
    assert is_held(account)
    account.api.script = {name_of(number): row(number, at_s=1020.0 + number) for number in (1, 2, 3)}
    account.api.pages = {1: Outcome.FORBIDDEN}
    assert "pipeline.failing" not in await told(account, after_s=150)
    show(account, *(row(number, at_s=1020.0 + number) for number in (1, 2, 3)))
    assert "pipeline.failing" in await told(account, after_s=700)


def is_held(account: Account) -> bool:
    return account.watcher._alert_rules.recorders[PIPELINE]._hold is not None


async def test_after_a_gap_ends_wait_for_the_next_complete_scan(start: Start) -> None:
    account = await whole(start)
    (listing,) = account.watcher._list_poller._lists.values()
    await account.watcher._list_poller.record(listing, listing.cursor, gap=GapReason.DELETED)
    assert is_held(account)
    await account.run_for(5)
    assert not is_held(account)
    show(account, row(6), row(7), row(8))
    events = await account.events(after_s=5)
    assert [event["type"] for event in events[1:]] == [*["execution.failed"] * 3, "pipeline.failing"]
    assert (events[0]["type"], events[0]["sequence"], events[-1]["sequence"]) == (
        "pipeline.gap",
        "0000000001",
        "0000000002",
    )


async def test_a_hold_that_begins_while_one_before_is_released_goes_on(
    start: Start, heard: HeardStore, clock: FakeClock
) -> None:
    account = await whole(start)
    await shown(account, row(1, "running"))
    account.api.pages, account.api.script = {1: Outcome.SERVER_ERROR}, {name_of(1): row(1)}
    await account.run_for(20)
    recorder = account.watcher._alert_rules.recorders[PIPELINE]

    def meanwhile(_item: object) -> bool:
        recorder.hold()
        return True

    heard.takes = meanwhile
    await recorder.note_scan(clock.monotonic(), silent_until=None)
    assert (await account.watcher._deps.store.load_rules(PIPELINE)).unjudged == []
    assert is_held(account)


async def test_what_ends_while_another_end_is_written_is_written_together(start: Start, heard: HeardStore) -> None:
    names = [name_of(number) for number in range(1, 21)]
    account = await start(watches=[watch_of(IN_A_ROW, *names)])
    account.api.script = {name: row(0, "running") for name in names}
    await account.run_for(10)
    account.api.gate.clear()
    account.api.script = {each.id: each for each in map(row, range(1, 21))}
    await account.run_for(10)
    heard.heard.clear()
    account.api.gate.set()
    await account.run_for(1)
    written = [item for item in heard.heard if isinstance(item, ChangeSet)]
    assert sum(isinstance(each, ExecutionChange) for item in written for each in item.changes) == len(names)
    assert len(written) <= 3


async def test_history_that_is_silent_is_not_judged(start: Start) -> None:
    account = await start(watches=[watch_of(IN_A_ROW)], rules=UNCONFIRMED)
    assert await told(account, *(row(number, at_s=-7200.0 + number) for number in (1, 2, 3)), after_s=30) == []


@pytest.mark.ci
async def test_a_rule_that_is_new_counts_from_the_last_start_the_list_shows(start: Start) -> None:
    account = await whole(start, ())
    show(account, row(1, "success"))
    await told(account, after_s=3000)
    await account.watcher.watch([watch_of(SILENT)])
    assert await told(account, after_s=500) == []
    assert await told(account, after_s=200) == ["pipeline.silent"]


@pytest.mark.ci
async def test_silence_ends_with_a_start_and_survives_a_restart(start: Start, clock: FakeClock) -> None:
    account = await whole(start, SILENT)
    await account.run_for(4000)
    account = await again(start, account, SILENT)
    (opening,) = await account.events(after_s=4000)
    since, at = (datetime.fromisoformat(text) for text in (opening["data"]["silentSince"], opening["time"]))
    assert opening["data"]["limitSeconds"] == 3600.0
    assert 0 <= (at - since).total_seconds() - opening["data"]["limitSeconds"] < 61
    show(account, row(1, "running", at_s=clock.monotonic()))
    running, closing = await account.events(after_s=61)
    assert (running["type"], closing["type"]) == ("execution.running", "pipeline.active")
    assert closing["data"]["problem"]["id"] == opening["data"]["problem"]["id"]
    assert closing["data"]["problem"]["durationSeconds"] > 4000


@pytest.mark.ci
async def test_an_execution_that_was_new_for_long_ends_a_silence_when_it_starts(start: Start, clock: FakeClock) -> None:
    account = await whole(start, SILENT)
    new = replace(row(1, "running"), status="new", started_at=None)
    assert await told(account, new, after_s=4000) == ["new", "pipeline.silent"]
    assert await told(account, row(1, "running", at_s=clock.monotonic()), after_s=61) == ["running", "pipeline.active"]


@pytest.mark.parametrize(
    ("answer", "opened_by"), [("failed", 3), (Outcome.SERVER_ERROR, 3), ("running", 4), ("a restart", 4)]
)
async def test_an_end_is_told_at_once_but_judged_after_an_older_one_that_is_to_be_confirmed(
    start: Start, answer: Any, opened_by: int
) -> None:
    account = await whole(start, scan=RULES)
    rows = [row(1), row(2), row(3), row(4, error="why")]
    show(account, *rows)
    account.api.script[name_of(1)] = Outcome.SERVER_ERROR
    assert await told(account, after_s=10) == ["failed"] * 3
    if answer == "a restart":  # what waits, and the list shows, is judged once
        account = await again(start, account, scan=RULES)
        show(account, *rows)
    else:  # an error: not in time, so the row counts
        account.api.script[name_of(1)] = answer if isinstance(answer, Outcome) else row(1, answer)
    end, opening = await account.events(after_s=40)
    assert (end["subject"], end["type"]) == (name_of(1), f"execution.{'running' if answer == 'running' else 'failed'}")
    assert (opening["type"], opening["data"]["execution"]["id"]) == ("pipeline.failing", name_of(opened_by))


async def test_ends_dated_a_little_ahead_of_now_keep_their_order_though_one_is_confirmed_later(start: Start) -> None:
    """The `Date` of an answer counts whole seconds: on our clock dates may lie up to a second ahead."""
    account = await whole(start, ruled(failing={"consecutive": 2}), scan=RULES)
    show(account, row(1, at_s=1006.3), row(2, "success", at_s=1006.5), row(3, at_s=1006.7))
    assert sorted(await told(account, after_s=10)) == ["failed", "failed", "success"]


async def test_a_rule_that_is_removed_and_returns_begins_with_nothing(start: Start) -> None:
    account = await whole(start)
    await shown(account, row(1), row(2))
    for rules in (BOTH, SILENT, BOTH):
        await account.watcher.watch([watch_of(rules)])
    assert await told(account, row(1), row(2), row(7), after_s=5) == ["failed"] * 3
    show(account, row(1), row(2), row(7), row(12), row(13))
    assert await told(account, after_s=5) == ["failed", "failed", "pipeline.failing"]


async def test_a_date_that_is_yet_to_come_does_not_make_later_ends_old(start: Start) -> None:
    account = await whole(start)
    await shown(account, row(1, "running"))
    ahead = replace(row(1, "success"), finished_at=EPOCH + timedelta(seconds=9000))
    assert await told(account, ahead, after_s=61) == ["running", "success"]
    show(account, ahead, *(row(number, at_s=1060.0 + number) for number in (2, 3, 4)))
    assert await told(account, after_s=61) == ["failed", "failed", "failed", "pipeline.failing"]


# Successes that count as failures: `also`

TOO_SHORT = ruled(failing={"consecutive": 3, "also": {"shorter_than": "5s"}, **AT_ONCE})
TOO_FEW = ruled(failing={"consecutive": 3, "also": {"fewer_nodes_than": 2}, **AT_ONCE})


def ends_of(account: Account) -> str:
    return account.watcher._session.recent_ends[PIPELINE].snapshot().ends


def success(number: int, *, seconds: float = 30.0, **facts: Any) -> ExecutionSnapshot:
    """Return a success that ended with its number and took so long."""
    began_at = EPOCH + timedelta(seconds=1000.0 + number - seconds)
    return row(number, "success", **{"started_at": began_at} | facts)


async def test_successes_that_were_too_short_open_a_problem_and_say_why(start: Start) -> None:
    account = await whole(start, TOO_SHORT)
    short = [success(number, seconds=1.5) for number in (1, 2)]
    show(account, *short, row(3, error="boom"))
    *ends, opening = await account.events(after_s=5)
    assert [each["type"].partition(".")[2] for each in ends] == ["success", "success", "failed"]
    assert all("error" not in each["data"]["execution"] for each in ends[:2])  # of this rule alone
    assert (opening["type"], opening["data"]["execution"]["error"]) == ("pipeline.failing", "boom")
    assert opening["data"]["problem"]["count"] == 3
    assert await told(account, *short, row(3), success(8, seconds=0.25), after_s=5) == ["success"]
    (problem,) = (await account.watcher._deps.store.load_rules(PIPELINE)).problems.values()
    assert (problem.failed_count, problem.latest and problem.latest.execution) == (4, name_of(8))
    assert problem.latest
    assert (problem.latest.node, problem.latest.error) == (None, "succeeded after 0.25 s, in less than 5 s")
    show(account, *short, row(3), success(8, seconds=0.25), success(13))
    assert await told(account, after_s=5) == ["success", "pipeline.recovered"]


async def test_the_last_ends_show_which_successes_count_as_failed_over_a_restart_too(start: Start) -> None:
    account = await whole(start, TOO_SHORT)
    await shown(account, success(1, seconds=1.5), success(2), row(3))
    await account.watcher.flush()
    assert ends_of(account) == "csf"
    show(account, success(1, seconds=1.5), success(2), row(3), success(4))
    await account.run_for(5)  # this end is in no snapshot
    account = await again(start, account)
    assert ends_of(account) == "csfs"


async def test_too_few_nodes_are_known_by_a_get_if_each_end_is_fetched(start: Start) -> None:
    account = await whole(start, TOO_FEW, scan=replace(RULES, details=Details.ALWAYS))
    ends = [success(number, nodes_started=1.0) for number in (1, 2, 3)]
    show(account, *ends)
    account.api.pages = {1: tuple(replace(each, nodes_started=None) for each in ends[::-1])}
    *_, opening = await account.events(after_s=15)
    assert opening["type"] == "pipeline.failing"
    assert opening["data"]["execution"]["error"] == "succeeded, but started 1 nodes, fewer than 2"


async def test_short_successes_that_were_held_over_a_start_count_and_say_why(start: Start, clock: FakeClock) -> None:
    account = await whole(start, TOO_SHORT)
    clock.advance(600)
    account = await again(start, account, TOO_SHORT)
    show(account, *(success(number, seconds=2.0) for number in (101, 102, 103)))
    *_, opening = await account.events(after_s=5)
    assert opening["type"] == "pipeline.failing"
    assert opening["data"]["problem"]["count"] == 3
    assert opening["data"]["execution"]["error"] == "succeeded after 2 s, in less than 5 s"


# Rules that change while the process runs, and a store that fails meanwhile


async def change(account: Account, rules: tuple[Rule, ...]) -> None:
    await account.watcher.watch([watch_of(rules)])


async def test_a_rule_that_could_not_be_removed_is_once_that_is_tried_again(start: Start, heard: HeardStore) -> None:
    account = await whole(start, BOTH)
    await shown(account, row(1), row(2))
    heard.takes = lambda _item: False
    with pytest.raises(StoreError):
        await change(account, SILENT)
    heard.takes = lambda _item: True
    for each in (SILENT, BOTH):
        await change(account, each)
    assert await told(account, row(1), row(2), row(12), after_s=5) == ["failed"] * 3


@pytest.mark.ci
async def test_a_silence_rule_that_is_new_in_the_middle_of_a_scan_does_not_take_old_rows_for_the_last_start(
    start: Start,
) -> None:
    account = await start(watches=[watch_of(())], rules=UNCONFIRMED, rate_per_s=0.5)
    old = [row(number, "success", at_s=-9000.0 - number) for number in range(2, 120)]
    await shown(account, row(1, "success", at_s=900.0), *old, for_s=1)
    assert [page for _, page in account.api.asked] == ["page 1"]
    await change(account, SILENT)
    assert await told(account, after_s=60) == []
    assert await told(account, after_s=4000) == ["pipeline.silent"]
