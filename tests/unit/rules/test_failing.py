from collections.abc import Sequence
from itertools import product
from random import Random
from typing import Any

import pytest
from rules_rig import problem_of

from watcher.domain.event import EventType
from watcher.domain.history import DAY_US, EndedExecution
from watcher.domain.problems import LatestFailure, Problem
from watcher.domain.rule import News
from watcher.domain.timestamps import Micros
from watcher.rules import dump_states, load_states
from watcher.rules.failing import TALLIES_COUNT, End, Failing, FailingSettings, FailingState, Tally
from watcher.rules.silent import Silent, SilentState

SECOND = 1_000_000
HOUR = 3600 * SECOND
FAILING = EventType.PIPELINE_FAILING
NOON = Micros(20_000 * DAY_US + DAY_US // 2)


def failing(**settings: Any) -> Failing:
    return Failing(FailingSettings.model_validate(settings))


AT_ONCE = failing(consecutive=3, recover_after=1, quiet_for="1ms")
THREE = failing(consecutive=3, quiet_for="10s")
FIFTH = failing(rate="20%", of_last=10, within="1h", at_least=5)


class Watched:
    """A pipeline with a rule, each of whose ends is judged when it ends, or later (`now`)."""

    def __init__(self, rule: Failing, state: FailingState | None = None) -> None:
        self.rule = rule
        self.state = state or FailingState()
        self.problem: Problem | None = None

    def ends(self, *ends: End, now: int | None = None, once: bool = False) -> str:
        """Judge ends one by one, or `once`. Return `o` or `c` for each that opened or closed a problem."""
        found = ""
        for part in (ends,) if once else [(end,) for end in ends]:
            at = Micros(max(end.ended_at for end in part) if now is None else now)
            judged = self.rule.judge(
                self.state, News(at, [ended(nth, end) for nth, end in enumerate(part)], once), self.problem
            )
            self.state, self.told = judged.state, judged.events
            is_open = self.problem is not None
            for told in judged.events:
                is_open = told.type is FAILING
                found += "o" if is_open else "c"
            found += "" if judged.events else " "
            self.problem = problem_of(self.rule, failed_count=judged.failed_count) if is_open else None
        return found


def ended(nth: int, end: End) -> EndedExecution:
    at = Micros(end.ended_at)
    return EndedExecution(at, at, "failed" if end.failed else "success", execution=str(nth))


def ends_of(word: str, *, step: int = SECOND, after: int = 0) -> list[End]:
    """Return ends one after the other: `F` failed, `S` succeeded."""
    return [End(after + (index + 1) * step, letter == "F") for index, letter in enumerate(word)]


def edges(rule: Failing, ends: Sequence[End]) -> str:
    return Watched(rule).ends(*ends)


# In a row


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("FF", "  "),
        ("FFF", "  o"),
        ("FFFF", "  o "),
        ("FFSF", "    "),
        ("FFFS", "  oc"),
        ("FFFSFFF", "  oc  o"),
        ("SFFFFSS", "   o c "),
    ],
)
def test_so_many_failures_in_a_row_open_and_where_it_is_to_recover_at_once_a_success_closes(
    word: str, expected: str
) -> None:
    assert edges(AT_ONCE, ends_of(word)) == expected


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ([(1, "S"), (2, "F"), (4, "F"), (3, "S"), (5, "F")], "     "),
        ([(1, "S"), (3, "F"), (2, "F"), (4, "F")], "   o"),
        ([(1, "S"), (3, "F"), (4, "F"), (2, "F")], "    "),  # a late end opens nothing by itself
        ([(1, "S"), (3, "F"), (4, "F"), (2, "F"), (5, "F")], "    o"),
        ([(1, "F"), (2, "F"), (2, "S"), (3, "F")], "    "),  # equal times go by the order of recording
        ([(1, "F"), (2, "S"), (2, "F"), (3, "F"), (3, "F")], "    o"),
    ],
)
def test_the_newest_ends_by_their_times_decide_late_ones_in_their_place(
    recorded: list[tuple[int, str]], expected: str
) -> None:
    ends = [End(at * SECOND, letter == "F") for at, letter in recorded]
    assert Watched(THREE).ends(*ends, now=9 * SECOND) == expected


@pytest.mark.parametrize(
    ("recorded", "newest"),
    [
        ([(1, "F"), (2, "F"), (3, "S")], ("1", 2)),
        ([(4, "F"), (2, "F")], ("0", 4)),  # a late end replaces nothing
        ([(4, "F"), (5, "S"), (4, "F")], ("2", 4)),  # equal times go by the order of recording
        ([(4, "S")], (None, 0)),
    ],
)
def test_the_newest_failure_is_the_one_that_ended_last(
    recorded: list[tuple[int, str]], newest: tuple[str | None, int]
) -> None:
    watched = Watched(THREE)
    ends = [End(at * SECOND, letter == "F") for at, letter in recorded]
    watched.ends(*ends, now=9 * SECOND, once=True)
    latest = watched.state.latest
    assert ((latest.execution, latest.at) if latest else (None, 0)) == (newest[0], newest[1] * SECOND)
    watched.ends(End(6 * SECOND, failed=False), End(SECOND, failed=True), now=9 * SECOND, once=True)
    if newest[0] is not None:
        assert watched.state.latest is not None
        assert watched.state.latest.execution == newest[0]


def test_a_late_end_closes_nothing_by_itself() -> None:
    watched = Watched(AT_ONCE)
    assert watched.ends(*ends_of("FFF")) == "  o"
    assert watched.ends(End(2, failed=False), now=4 * SECOND) == " "
    assert watched.ends(End(5 * SECOND, failed=False)) == "c"


def test_ends_that_waited_are_judged_once_by_what_stands_then() -> None:
    assert Watched(THREE).ends(*ends_of("FFFS"), once=True) == " "
    watched = Watched(THREE)
    assert watched.ends(*ends_of("S" + "F" * 50), once=True) == "o"
    assert (watched.problem and watched.problem.failed_count) == 50
    assert (watched.told[0].failed_count, watched.told[0].execution) == (50, "50")


def test_a_lowered_limit_opens_with_the_next_end_a_raised_one_closes_nothing() -> None:
    watched = Watched(failing(consecutive=5))
    watched.ends(*ends_of("FFFF"))
    watched.rule = AT_ONCE
    assert watched.ends(End(1, failed=True), End(9 * SECOND, failed=True)) == " o"
    watched.rule = failing(consecutive=9, recover_after=1, quiet_for="1ms")
    assert watched.ends(End(10 * SECOND, failed=True), End(11 * SECOND, failed=False)) == " c"


# Recovering: with `THREE` ten seconds after the opening


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("SSSSSSSSSS", "         c"),
        ("SSSSSSSSFSSSS", "           c "),  # once the last three succeeded
        ("FSSSSSSSSSSS", "         c  "),  # a tenth
        ("FFSSSSSSSSSSS", "           c "),  # two of ten, then one of eleven
        ("F" * 30 + "S" * 11, " " * 39 + "c "),
    ],
)
def test_a_problem_closes_once_the_pipeline_has_been_well_for_a_while(word: str, expected: str) -> None:
    watched = Watched(THREE)
    assert watched.ends(*ends_of("FFF")) == "  o"
    assert watched.ends(*ends_of(word, after=3 * SECOND)) == expected


def test_a_problem_does_not_close_before_its_quiet_time_is_over_however_many_succeed() -> None:
    watched = Watched(THREE)
    watched.ends(*ends_of("FFF"))
    assert watched.ends(*ends_of("S" * 699, step=SECOND // 100, after=3 * SECOND)).strip() == ""
    assert watched.ends(End(13 * SECOND, failed=False)) == "c"


def test_the_quiet_time_counts_from_when_the_problem_opened_not_from_when_its_failures_ended() -> None:
    watched = Watched(THREE)  # as after a night in which the daemon was off
    assert watched.ends(*ends_of("FFF"), once=True, now=HOUR) == "o"
    assert watched.ends(*ends_of("SSSSSSSSS", after=HOUR)).strip() == ""
    assert watched.ends(End(HOUR + 10 * SECOND, failed=False)) == "c"


def test_a_problem_of_which_is_not_known_when_it_opened_is_taken_to_open_now() -> None:
    watched = Watched(THREE)  # as one of version 1.0.0, or of a rate that was replaced
    watched.problem = problem_of(THREE, failed_count=7)
    assert watched.ends(*ends_of("S" * 9, after=HOUR), now=None).strip() == ""
    assert watched.state.opened_at == HOUR + SECOND
    assert watched.ends(*ends_of("SSS", after=HOUR + 9 * SECOND)) == " c "


@pytest.mark.parametrize(("failing_share", "closes"), [(0.05, True), (0.2, False)])
def test_a_busy_pipeline_is_counted_in_a_few_tallies(failing_share: float, *, closes: bool) -> None:
    draw, watched = Random(5), Watched(failing(consecutive=3, quiet_for="60s"))
    watched.ends(*ends_of("FFF"))
    word = "".join("F" if draw.random() < failing_share else "S" for _ in range(60 * 100 + 99))
    found = watched.ends(*ends_of(word, step=SECOND // 100, after=3 * SECOND))
    assert found.strip() == ("c" if closes else "")
    assert len(watched.state.tallies) <= TALLIES_COUNT + 1
    assert len(dump_states({"failing": watched.state})) < 1500
    if not closes:
        assert sum(each.ended_count for each in watched.state.tallies) == pytest.approx(6_000, rel=1 / TALLIES_COUNT)


def test_late_ends_go_into_the_tally_of_their_time_and_are_at_most_twice_as_many() -> None:
    watched = Watched(failing(consecutive=3, quiet_for="20s", recover_after=99))
    watched.ends(*ends_of("FFF"), now=SECOND // 2)
    watched.ends(*ends_of("S" * 10, step=2 * SECOND, after=3 * SECOND), now=30 * SECOND)
    late = [End(4 * SECOND + 250_000 * nth, failed=True) for nth in range(40)]
    watched.ends(*Random(3).sample(late, 40), now=30 * SECOND)
    assert len(watched.state.tallies) <= 2 * TALLIES_COUNT
    assert list(watched.state.tallies) == sorted(watched.state.tallies)
    assert [sum(each[part] for each in watched.state.tallies) for part in (1, 2)] == [50, 40]


# By rate


@pytest.mark.parametrize(
    ("word", "last"),
    [
        ("FSSS", " "),  # fewer than at_least
        ("FSSSS", "o"),  # a fifth exactly
        ("FSSSSS", " "),  # a sixth is more than half of a fifth
        ("FSSSSSSSSS", " "),  # a tenth is half of it
        ("FSSSSSSSSSS", "c"),  # it is not among the last ten any more
        ("FFSSSSSSSSS", " "),  # the second one is
    ],
)
def test_a_rate_holds_over_the_last_ends(word: str, last: str) -> None:
    assert edges(FIFTH, ends_of(word))[-1] == last


def test_a_pipeline_that_fails_about_as_often_as_the_rate_is_one_problem() -> None:
    draw = Random(7)
    word = "".join("F" if draw.random() < 0.22 else "S" for _ in range(800))
    rule = failing(rate="20%", of_last=20, within="1h", at_least=5)
    assert edges(rule, ends_of(word)).count("o") <= 12  # some 60 if it closed just below the rate


@pytest.mark.parametrize(("rule", "word", "count"), [(THREE, "SFFF", 3), (FIFTH, "FSFSS", 2)])
def test_a_problem_opens_with_the_failures_that_open_it_and_counts_on(rule: Failing, word: str, count: int) -> None:
    watched = Watched(rule)
    assert watched.ends(*ends_of(word))[-1] == "o"
    assert (watched.problem and watched.problem.failed_count) == count
    watched.ends(*ends_of("FSF", after=10 * SECOND))
    assert (watched.problem and watched.problem.failed_count) == count + 2


def test_ends_longer_ago_than_the_window_count_no_more() -> None:
    assert edges(FIFTH, ends_of("FFFFF" + "S", step=HOUR // 4))[4] == "o"
    assert edges(FIFTH, ends_of("FFFFF", step=HOUR // 3)) == " " * 5  # never five within the hour


@pytest.mark.parametrize(("failed", "last"), [(True, " "), (False, "c")])
def test_after_a_rest_a_success_is_a_recovery_and_a_failure_is_none(last: str, *, failed: bool) -> None:
    assert edges(FIFTH, [*ends_of("FFFFF"), End(24 * HOUR, failed=failed)])[4:] == f"o{last}"


# What is kept


@pytest.mark.parametrize("rule", [AT_ONCE, THREE, FIFTH])
def test_edges_alternate_whatever_comes(rule: Failing) -> None:
    for letters in product("FS", repeat=9):
        found = edges(rule, ends_of("".join(letters), step=4 * SECOND)).replace(" ", "")
        assert found == ("oc" * 5)[: len(found)]


@pytest.mark.parametrize(
    ("rule", "count"),
    [
        (failing(rate="50%", of_last=30), 30),
        (THREE, 20),
        (failing(consecutive=25), 25),
        (failing(consecutive=3, recover_after=40), 40),
    ],
)
def test_no_more_ends_are_kept_than_a_rule_looks_at(rule: Failing, count: int) -> None:
    watched = Watched(rule)
    watched.ends(*ends_of("FS" * 50))
    assert (len(watched.state.ends), watched.state.ends[-1].ended_at) == (count, 100 * SECOND)


def test_states_come_back_from_their_text_and_what_belongs_to_no_rule_is_left_as_it_is() -> None:
    latest = LatestFailure(Micros(7), "1", "Greeting", "boom")
    states = {"failing": FailingState(tuple(ends_of("FSFF")), 8, (Tally(9, 3, 1),), latest), "silent": SilentState(3)}
    assert load_states(dump_states(states), [THREE, Silent(9.0)]) == states
    assert load_states(dump_states(states), [Silent(9.0)])["failing"]["opened_at"] == 8
    assert load_states(None, [THREE]) == {}


def test_a_state_moves_with_nothing_after_now_and_what_is_unknown_stays_so() -> None:
    ends, tallies = (End(50, failed=True), End(90, failed=False)), (Tally(80, 2, 1),)
    state = FailingState(ends, 70, tallies, LatestFailure(Micros(50), "1"))
    moved = (End(40, failed=True), End(75, failed=False)), 60, (Tally(70, 2, 1),), LatestFailure(Micros(40), "1")
    assert THREE.moved(state, -10, now=Micros(75)) == FailingState(*moved)
    assert THREE.moved(FailingState(), -10, now=Micros(75)) == FailingState()
    silent = Silent(9.0)
    assert [silent.moved(SilentState(at), -10, now=Micros(75)).started_at for at in (0, 50, 90)] == [0, 40, 75]


def test_a_rate_keeps_no_time_at_which_its_problem_opened() -> None:
    problem, state = problem_of(FIFTH, failed_count=3), FailingState(tuple(ends_of("FF")), 8)
    assert FIFTH.judge(state, News(Micros(HOUR)), problem).state == FailingState(state.ends)
    assert THREE.judge(state, News(Micros(HOUR)), problem).state == state


# Successes that count as failures


@pytest.mark.parametrize(
    ("duration_s", "nodes_count", "fault"),
    [
        (None, None, None),
        (5.0, 2, None),
        (4.9996, 2, None),
        (4.9994, 2, "succeeded after 4.999 s, in less than 5 s"),
        (0.25, None, "succeeded after 0.25 s, in less than 5 s"),
        (5.0, 1, "succeeded, but started 1 nodes, fewer than 2"),
        (None, 0, "succeeded, but started 0 nodes, fewer than 2"),
        (1.0, 0, "succeeded after 1 s, in less than 5 s"),
    ],
)
def test_a_success_that_was_too_short_or_started_too_few_nodes_is_a_failure(
    duration_s: float | None, nodes_count: float | None, fault: str | None
) -> None:
    rule = failing(consecutive=3, also={"shorter_than": "5s", "fewer_nodes_than": 2})
    end = EndedExecution(NOON, NOON, "success", 0, duration_s, nodes=nodes_count)
    assert rule.fault_of(end) == fault
    assert rule.fault_of(end._replace(status="failed")) is None
    assert THREE.fault_of(end) is None
