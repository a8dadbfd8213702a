from dataclasses import replace
from itertools import product
from random import Random

import pytest

from watcher.domain.problems import CLOSED_BY
from watcher.domain.rules import RULES, Asked, End, FailingRule, Rule, Rules, RuleState
from watcher.store.recording import RULE_STATE

SECOND = 1_000_000
HOUR = 3600 * SECOND
THREE = FailingRule(consecutive=3)
FIFTH = FailingRule(rate=0.2, of_last=10, within_us=HOUR, at_least=5)
OF_KEY = {rule.key: rule for rule in RULES}
FAILING, SILENT = OF_KEY["failing"], OF_KEY["silent_us"]


def judged(state: RuleState, end: End, rule: FailingRule, *, is_open: bool) -> tuple[RuleState, str]:
    """Let an end take its place; return what it leads to: `opens`, `closes` or nothing."""
    rules = Rules(rule)
    state = state.with_end(end, rules)
    holds = FAILING.holds(state, rules, end.ended_at)
    return state, "" if holds is None or holds is is_open else "opens" if holds else "closes"


def edges(rule: FailingRule, ends: list[End]) -> tuple[list[str], RuleState]:
    """Judge ends one by one; return what each led to."""
    state, is_open, found = RuleState(), False, []
    for end in ends:
        state, edge = judged(state, end, rule, is_open=is_open)
        is_open = edge == "opens" or (is_open and not edge)
        found.append(edge)
    return found, state


def ends_of(word: str, *, step: int = SECOND) -> list[End]:
    """Return ends one after the other: `F` failed, `S` succeeded."""
    return [End((index + 1) * step, letter == "F") for index, letter in enumerate(word)]


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
def test_so_many_failures_in_a_row_open_and_a_success_closes(word: str, expected: str) -> None:
    found, _ = edges(THREE, ends_of(word))
    assert found == [{" ": "", "o": "opens", "c": "closes"}[letter] for letter in expected]


def test_an_end_older_than_the_newest_neither_makes_nor_breaks_a_row() -> None:
    late_failure, late_success = End(1, failed=True), End(2, failed=False)
    found, state = edges(THREE, [*ends_of("FF"), late_failure])
    assert (found, state.failed_in_row) == (["", "", ""], 2)
    found, state = edges(THREE, [*ends_of("FFF"), late_success])
    assert (found[-1], state.failed_in_row) == ("", 3)


def test_a_late_end_does_not_open_what_a_lowered_limit_would() -> None:
    _, state = edges(FailingRule(consecutive=5), ends_of("FFFF"))
    assert judged(state, End(1, failed=True), THREE, is_open=False)[1] == ""
    assert judged(state, End(9 * SECOND, failed=True), THREE, is_open=False)[1] == "opens"


def test_a_late_end_does_not_close_what_a_rate_has_opened() -> None:
    state = edges(FIFTH, ends_of("FFFFS"))[1]
    assert judged(state, End(1, failed=True), THREE, is_open=True)[1] == ""
    assert judged(state, End(9 * SECOND, failed=False), THREE, is_open=True)[1] == "closes"


def test_a_raised_limit_goes_on_with_the_same_problem_until_a_success() -> None:
    _, state = edges(THREE, ends_of("FFF"))
    raised = FailingRule(consecutive=9)
    state, edge = judged(state, End(HOUR, failed=True), raised, is_open=True)
    assert edge == ""
    assert judged(state, End(2 * HOUR, failed=False), raised, is_open=True)[1] == "closes"


@pytest.mark.parametrize(
    ("word", "last"),
    [
        ("FSSS", ""),  # fewer than at_least
        ("FSSSS", "opens"),  # a fifth exactly
        ("FSSSSS", ""),  # a sixth is more than half of a fifth
        ("FSSSSSSSSS", ""),  # a tenth is half of it
        ("FSSSSSSSSSS", "closes"),  # it is not among the last ten any more
        ("FFSSSSSSSSS", ""),  # the second one is
    ],
)
def test_a_rate_holds_over_the_last_ends(word: str, last: str) -> None:
    assert edges(FIFTH, ends_of(word))[0][-1] == last


def test_a_pipeline_that_fails_about_as_often_as_the_rate_is_one_problem() -> None:
    draw = Random(7)
    word = "".join("F" if draw.random() < 0.22 else "S" for _ in range(800))
    rule = FailingRule(rate=0.2, of_last=20, within_us=HOUR, at_least=5)
    assert edges(rule, ends_of(word))[0].count("opens") <= 12  # some 60 if it closed just below the rate


@pytest.mark.parametrize(("rule", "word", "count"), [(THREE, "SFFF", 3), (FIFTH, "FSFSS", 2), (THREE, "FS", 0)])
def test_a_rule_says_by_how_many_failures_it_goes(rule: FailingRule, word: str, count: int) -> None:
    assert FAILING.failed_count(edges(rule, ends_of(word))[1], Rules(rule)) == count


def test_ends_longer_ago_than_the_window_count_no_more() -> None:
    found, _ = edges(FIFTH, ends_of("FFFFF" + "S", step=HOUR // 4))
    assert found[4] == "opens"
    found, _ = edges(FIFTH, ends_of("FFFFF", step=HOUR // 3))
    assert found == [""] * 5  # never five within the hour


@pytest.mark.parametrize(("failed", "last"), [(True, ""), (False, "closes")])
def test_after_a_rest_a_success_is_a_recovery_and_a_failure_is_none(last: str, *, failed: bool) -> None:
    found, _ = edges(FIFTH, [*ends_of("FFFFF"), End(24 * HOUR, failed=failed)])
    assert (found[4], found[5]) == ("opens", last)


def test_a_late_end_counts_for_a_rate() -> None:
    _, state = edges(FIFTH, ends_of("SSSS", step=10 * SECOND))
    assert judged(state, End(5 * SECOND, failed=True), FIFTH, is_open=False)[1] == "opens"


@pytest.mark.parametrize("rule", [THREE, FIFTH])
def test_edges_alternate_whatever_comes(rule: FailingRule) -> None:
    for letters in product("FS", repeat=9):
        found = [edge for edge in edges(rule, ends_of("".join(letters)))[0] if edge]
        assert found == (["opens", "closes"] * 5)[: len(found)]


def test_no_more_ends_are_kept_than_a_rule_looks_at() -> None:
    _, state = edges(FailingRule(rate=0.5, of_last=30), ends_of("FS" * 50))
    assert (len(state.ends), state.ends[-1].ended_at) == (30, 100 * SECOND)
    _, state = edges(THREE, ends_of("S" * 50))
    assert len(state.ends) == 20


def test_a_state_comes_back_from_its_text() -> None:
    _, state = edges(THREE, ends_of("FSFF"))
    state = replace(state, started_at=7)
    assert RULE_STATE.validate_json(RULE_STATE.dump_json(state)) == state
    assert RULE_STATE.validate_json(RULE_STATE.dump_json(RuleState())) == RuleState()


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        (Rules(THREE, HOUR), ("ends", "started_at")),
        (Rules(THREE), ("ends",)),
        (Rules(silent_us=HOUR), ("started_at",)),
        (Rules(), ()),
    ],
)
def test_what_no_rule_goes_by_is_forgotten(rules: Rules, kept: tuple[str, ...]) -> None:
    _, state = edges(THREE, ends_of("FF"))
    state = replace(state, started_at=7)
    left = state.kept_for(rules)
    assert (left.ends, left.failed_in_row, left.newest_at) == (
        (state.ends, 2, 2 * SECOND) if "ends" in kept else ((), 0, 0)
    )
    assert left.started_at == (7 if "started_at" in kept else 0)


def test_silence_counts_from_the_last_start() -> None:
    state, rules = RuleState().with_start(HOUR).with_start(SECOND), Rules(silent_us=HOUR)
    assert state.started_at == HOUR
    assert not SILENT.holds(state, rules, 2 * HOUR)
    assert SILENT.holds(state, rules, 2 * HOUR + 1)


def test_silence_is_told_after_a_scan_and_ends_with_a_start() -> None:
    assert (SILENT.opened_by, SILENT.closed_by) == (Asked.SCAN, Asked.START)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.key)
def test_every_rule_has_its_key_and_a_kind_of_problem_that_something_closes(rule: Rule) -> None:
    assert rule.key in Rules.__dataclass_fields__
    assert CLOSED_BY[rule.kind].startswith("pipeline.")
