"""What an answer means for one execution: all pairs of states, dropped looks, stays that are overdue, losses."""

from dataclasses import replace
from datetime import datetime

import pytest
from stores import from_us

from watcher.domain.models import EventType, Execution, Known, LostReason, Outcome
from watcher.domain.transitions import (
    EXECUTION_REASONS,
    Look,
    Observed,
    Streak,
    give_up,
    is_terminal,
    lose,
    means_lost,
    observe,
    prolong,
)

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
BEGAN = NOW - 3600 * SECOND
LIMITS = {"new": 120.0, "running": 900.0, "paused": 3600.0}


def at(us: int) -> datetime:
    return from_us(us)


def a_look(word: str, *, sent_at: int = NOW - 1000, seen_at: int = NOW, started_at: int | None = None) -> Look:
    """`odd.` is the word `odd` with `finishedAt` set."""
    finished_at = at(NOW) if word.endswith(".") else None
    started = None if started_at is None else at(started_at)
    return Look(Execution("e", word.rstrip("."), started_at=started, finished_at=finished_at), sent_at, seen_at)


def see(before: Known, look: Look, limits: dict[str, float] | None = None) -> Observed:
    return observe(before, look, looked_at=before.looked_at, overdue_after_s=limits or {})


def after(*words: str, limits: dict[str, float] | None = None) -> Known:
    """What is known after these words, a second apart, the last of them 10 s ago. `lost` is a loss."""
    known = Known("e", "p")
    for age, word in zip(reversed(range(len(words))), words, strict=True):
        moment = NOW - (10 + age) * SECOND
        if word == "lost":
            known = lose(known, LostReason.NOT_FOUND, at=moment, looked_at=known.looked_at).known
        else:
            known = see(known, a_look(word, sent_at=moment - 1, seen_at=moment), limits).known
    return known


def told(observed: Observed) -> str:
    return " ".join(
        happening.type.removeprefix("execution.") + (f"<{happening.previous}" if happening.previous else "")
        for happening in observed.happenings
    )


# Every pair. `type<previous`; `!` ends; `-` tells nothing; `x` drops the look, `xx` as a contradiction too.
# The words before are what was seen; a word with a dot has `finishedAt` set.
WORDS = ("new", "running", "paused", "success", "failed", "odd", "odd.", "other", "other.")
PAIRS = {
    (): "new running paused success! failed! unrecognized unrecognized! unrecognized unrecognized!",
    ("new",): "- running<new paused<new success<new! failed<new! "
    "unrecognized<new unrecognized<new! unrecognized<new unrecognized<new!",
    ("running",): "new<running - paused<running success<running! failed<running! "
    "unrecognized<running unrecognized<running! unrecognized<running unrecognized<running!",
    ("paused",): "new<paused running<paused - success<paused! failed<paused! "
    "unrecognized<paused unrecognized<paused! unrecognized<paused unrecognized<paused!",
    ("success",): "xx xx xx x xx xx xx xx xx",
    ("failed",): "xx xx xx xx x xx xx xx xx",
    ("odd",): "new<odd running<odd paused<odd success<odd! failed<odd! - -! unrecognized<odd unrecognized<odd!",
    ("odd.",): "xx xx xx xx xx x x xx xx",
    ("lost",): "new<lost running<lost paused<lost success<lost! failed<lost! "
    "unrecognized<lost unrecognized<lost! unrecognized<lost unrecognized<lost!",
    ("running", "lost"): "new<lost running<lost paused<lost success<lost! failed<lost! "
    "unrecognized<lost unrecognized<lost! unrecognized<lost unrecognized<lost!",
    ("odd", "running"): "new<running - paused<running success<running! failed<running! "
    "- -! unrecognized<running unrecognized<running!",
}
TABLE = [
    pytest.param(before, word, expected, id=f"{'+'.join(before) or 'unseen'}→{word}")
    for before, row in PAIRS.items()
    for word, expected in zip(WORDS, row.split(), strict=True)
]


@pytest.mark.parametrize(("before", "word", "expected"), TABLE)
def test_every_pair_of_states_is_told_as_the_table_says(before: tuple[str, ...], word: str, expected: str) -> None:
    observed = see(after(*before), a_look(word))
    if observed.dropped:
        assert expected == ("xx" if observed.contradicts else "x")
        assert observed.known == after(*before)
        assert observed.happenings == ()
        return
    assert (told(observed) or "-") + ("!" if observed.known.ended_at else "") == expected
    assert observed.known.lost is None
    assert observed.known.status == word.rstrip(".")
    assert not observed.contradicts


@pytest.mark.parametrize(("before", "word", "expected"), TABLE)
def test_every_event_is_counted_and_numbered_without_holes(before: tuple[str, ...], word: str, expected: str) -> None:
    known = after(*before)
    observed = see(known, a_look(word))
    count = len(observed.happenings)
    assert count == (0 if expected[0] in "-x" else 1)
    assert observed.known.sequence == known.sequence + count
    assert sum(times for _, times in observed.known.counts) == sum(times for _, times in known.counts) + count
    assert all(happening.sequence == observed.known.sequence for happening in observed.happenings)


@pytest.mark.parametrize("words", [("new",), ("running",), ("paused",), ("odd",), ("running", "paused")])
def test_an_unchanged_look_leaves_what_is_known_as_it_is(words: tuple[str, ...]) -> None:
    known = after(*words)
    assert see(known, a_look(words[-1])).known is known


def test_a_repeated_status_is_told_again_and_counted() -> None:
    known, nths = after(), []
    for count, word in enumerate(("running", "paused", "running", "paused", "running")):
        moment = NOW + count * SECOND
        observed = see(known, a_look(word, sent_at=moment - 1, seen_at=moment))
        known = observed.known
        nths.append((word, observed.happenings[0].nth, observed.happenings[0].sequence))
    assert nths == [("running", 1, 1), ("paused", 1, 2), ("running", 2, 3), ("paused", 2, 4), ("running", 3, 5)]
    assert known.was_paused


@pytest.mark.parametrize(("words", "paused"), [(("running",), False), (("paused",), True), (("paused", "new"), True)])
def test_a_pause_is_remembered(words: tuple[str, ...], *, paused: bool) -> None:
    assert after(*words).was_paused is paused


# Unrecognized words


def test_an_unrecognized_word_is_told_once_per_value_whatever_comes_between() -> None:
    kinds = []
    known = after()
    for count, word in enumerate(("odd", "running", "odd", "other", "odd", "other", "success")):
        moment = NOW + count * SECOND
        observed = see(known, a_look(word, sent_at=moment - 1, seen_at=moment))
        known = observed.known
        kinds += [(told(observed), happening.kind) for happening in observed.happenings]
    assert kinds == [
        ("unrecognized", "unrecognized:odd"),
        ("running<odd", "running"),
        ("unrecognized<odd", "unrecognized:other"),
        ("success<other", "success"),
    ]


def test_a_move_to_a_word_already_told_is_recorded_with_its_own_stay() -> None:
    known = after("odd", "running")
    observed = see(known, a_look("odd"))
    assert (observed.known.status, observed.known.since_at, observed.known.looked_at) == ("odd", NOW, NOW)


@pytest.mark.parametrize("word", ["Running", "SUCCESS", "lost", "success ", "", "overdue", "cancelled"])
def test_any_word_but_the_five_is_unrecognized(word: str) -> None:
    observed = see(after("running"), Look(Execution("e", word), NOW - 1, NOW))
    assert [happening.type for happening in observed.happenings] == [EventType.EXECUTION_UNRECOGNIZED]
    assert observed.known.ended_at is None


def test_an_endless_word_is_cut_and_still_itself_at_the_next_look() -> None:
    known = after("x" * 500)
    assert known.status == "x" * 64
    assert see(known, a_look("x" * 500)).known is known


@pytest.mark.parametrize("word", ["new", "running", "paused"])
def test_a_finished_at_does_not_end_a_status_that_is_open(word: str) -> None:
    assert not is_terminal(a_look(word + ".").execution)


@pytest.mark.parametrize("word", ["success", "failed", "success.", "failed."])
def test_an_end_needs_no_finished_at(word: str) -> None:
    assert is_terminal(a_look(word).execution)


# Looks that are too old


@pytest.mark.parametrize("word", ["new", "running", "paused", "odd"])
def test_a_look_asked_for_before_the_last_one_ended_is_dropped(word: str) -> None:
    known = after("running")
    observed = see(known, a_look(word, sent_at=known.looked_at - 1))
    assert observed == Observed(known, dropped=True)


@pytest.mark.parametrize("word", ["success", "failed", "odd."])
def test_a_late_look_counts_if_it_is_terminal(word: str) -> None:
    known = after("running")
    observed = see(known, a_look(word, sent_at=known.looked_at - 1))
    assert observed.known.ended_at == NOW
    assert len(observed.happenings) == 1


def test_a_look_asked_for_at_the_very_end_of_the_last_one_counts() -> None:
    known = after("running")
    assert told(see(known, a_look("paused", sent_at=known.looked_at))) == "paused<running"


def test_the_last_look_that_counts_may_be_later_than_the_recorded_one() -> None:
    known = after("running")
    observed = observe(known, a_look("paused", sent_at=NOW - 2), looked_at=NOW - 1, overdue_after_s={})
    assert observed.dropped


# Overdue


def test_a_stay_begins_when_the_change_was_seen() -> None:
    observed = see(after("new"), a_look("running", started_at=BEGAN))
    assert observed.known.since_at == NOW


def test_a_stay_begins_at_first_sight_when_the_api_says_it_started() -> None:
    assert see(after(), a_look("running", started_at=BEGAN)).known.since_at == BEGAN
    assert see(after(), a_look("running")).known.since_at == NOW


def test_a_start_in_the_future_does_not_make_a_stay_of_negative_length() -> None:
    assert see(after(), a_look("running", started_at=NOW + 60 * SECOND)).known.since_at == NOW


def test_an_execution_overdue_at_first_sight_tells_both_events_in_one_look() -> None:
    observed = see(after(), a_look("running", started_at=BEGAN), LIMITS)
    assert told(observed) == "running overdue"
    assert [happening.sequence for happening in observed.happenings] == [1, 2]
    assert [happening.nth for happening in observed.happenings] == [1, 1]
    assert observed.happenings[1].status == "running"
    assert (observed.known.sequence, observed.known.overdue_sequence) == (2, 2)


@pytest.mark.parametrize(("status", "limit_s"), LIMITS.items())
def test_overdue_begins_just_past_the_limit(status: str, limit_s: float) -> None:
    limit = round(limit_s * SECOND)
    known = replace(after(status), since_at=NOW)
    assert see(known, a_look(status, seen_at=NOW + limit), LIMITS).happenings == ()
    assert told(see(known, a_look(status, seen_at=NOW + limit + 1), LIMITS)) == "overdue"


def test_overdue_is_told_once_per_stay_and_again_in_the_next() -> None:
    known = replace(after("running"), since_at=BEGAN)
    first = see(known, a_look("running"), LIMITS)
    assert told(first) == "overdue"
    assert first.known.overdue_sequence == first.known.sequence == 2
    assert see(first.known, a_look("running", sent_at=NOW, seen_at=NOW + SECOND), LIMITS).known is first.known
    paused = see(first.known, a_look("paused", sent_at=NOW, seen_at=NOW + SECOND), LIMITS)
    assert paused.known.overdue_sequence is None
    again = see(paused.known, a_look("running", sent_at=NOW + SECOND, seen_at=NOW + 2 * SECOND), LIMITS)
    later = replace(again.known, since_at=BEGAN)
    second = see(later, a_look("running", sent_at=NOW + 2 * SECOND, seen_at=NOW + 3 * SECOND), LIMITS)
    assert [(happening.type, happening.nth) for happening in second.happenings] == [(EventType.EXECUTION_OVERDUE, 2)]


@pytest.mark.parametrize("word", ["success", "failed", "odd", "odd."])
def test_a_status_without_a_limit_is_never_overdue(word: str) -> None:
    assert "overdue" not in told(see(after(), a_look(word, started_at=BEGAN), LIMITS))


@pytest.mark.parametrize("word", ["success", "failed", "odd."])
def test_an_end_after_the_limit_is_only_the_end(word: str) -> None:
    known = replace(after("running"), since_at=BEGAN)
    assert "overdue" not in told(see(known, a_look(word), LIMITS | {"odd": 1.0, "success": 1.0, "failed": 1.0}))


def test_a_dropped_look_makes_nothing_overdue() -> None:
    known = replace(after("running"), since_at=BEGAN)
    assert see(known, a_look("running", sent_at=known.looked_at - 1), LIMITS).happenings == ()


def test_the_look_that_tells_overdue_is_recorded() -> None:
    known = replace(after("running"), since_at=BEGAN)
    assert see(known, a_look("running"), LIMITS).known.looked_at == NOW


def test_a_wait_before_the_loss_is_not_held_against_the_status_after_it() -> None:
    known = replace(after("running", "lost"), since_at=BEGAN)
    observed = see(known, a_look("running", started_at=BEGAN), LIMITS)
    assert (told(observed), observed.known.since_at) == ("running<lost", NOW)


# Losses


def test_a_loss_tells_what_it_was_before_and_keeps_the_last_word() -> None:
    observed = lose(after("running"), LostReason.FORBIDDEN, at=NOW, looked_at=NOW - 5)
    known = observed.known
    assert told(observed) == "lost<running"
    assert observed.happenings[0].status == "lost"
    assert (known.status, known.lost, known.lost_at, known.looked_at) == (
        "running",
        LostReason.FORBIDDEN,
        NOW,
        NOW - 5,
    )
    assert known.ended_at is None


def test_a_loss_before_the_first_sight_has_nothing_before_it() -> None:
    observed = lose(after(), LostReason.NOT_FOUND, at=NOW, looked_at=0)
    assert told(observed) == "lost"
    assert observed.happenings[0].sequence == 1


def test_a_second_loss_is_the_second() -> None:
    known = after("running", "lost", "running")
    assert lose(known, LostReason.NOT_FOUND, at=NOW, looked_at=0).happenings[0].nth == 2


def test_the_event_after_the_return_from_a_loss_names_the_status_again() -> None:
    assert told(see(after("running", "lost", "running"), a_look("paused"))) == "paused<running"


def test_a_loss_ends_what_was_overdue() -> None:
    known = see(replace(after("running"), since_at=BEGAN), a_look("running"), LIMITS).known
    assert lose(known, LostReason.NOT_FOUND, at=NOW, looked_at=NOW).known.overdue_sequence is None


def test_an_execution_that_was_given_up_may_still_be_heard_of() -> None:
    known = give_up(after("running", "lost"), at=NOW - SECOND)
    assert known.ended_at == NOW - SECOND
    observed = see(known, a_look("running"))
    assert (told(observed), observed.known.ended_at) == ("running<lost", None)


def test_only_refusals_and_unknown_ids_may_be_about_the_execution() -> None:
    assert EXECUTION_REASONS == {
        Outcome.NOT_FOUND: LostReason.NOT_FOUND,
        Outcome.REJECTED: LostReason.REJECTED,
        Outcome.FORBIDDEN: LostReason.FORBIDDEN,
    }


# Streaks: an answer every `every_s`, and the moments at which another execution of the account answered.


def a_streak(*reasons: LostReason, every_s: float, others_at: tuple[float, ...] = ()) -> Streak:
    streak: Streak | None = None
    for count, reason in enumerate(reasons):
        now = 1000 + count * every_s
        before = [moment for moment in others_at if moment <= now]
        streak = prolong(streak, reason, at=now, other_success_at=max(before, default=None))
    assert streak is not None
    return streak


def lost(streak: Streak, *, lost_after: int = 3, lost_grace_s: float = 60, alone: bool = False) -> bool:
    return means_lost(streak, lost_after=lost_after, lost_grace_s=lost_grace_s, alone=alone)


GONE = LostReason.NOT_FOUND
BARRED = LostReason.FORBIDDEN


@pytest.mark.parametrize("reason", [LostReason.NOT_FOUND, LostReason.REJECTED, LostReason.FORBIDDEN])
def test_enough_answers_over_the_grace_while_others_answer_are_a_loss(reason: LostReason) -> None:
    streak = a_streak(reason, reason, reason, every_s=30, others_at=(1045,))
    assert lost(streak)
    assert streak.reason is reason


def test_too_few_answers_are_no_loss_however_long_they_take() -> None:
    assert not lost(a_streak(GONE, GONE, every_s=500, others_at=(1400,)))


def test_many_answers_within_the_grace_are_no_loss() -> None:
    assert not lost(a_streak(*[GONE] * 30, every_s=2, others_at=(1057,)))
    assert lost(a_streak(*[GONE] * 31, every_s=2, others_at=(1059,)))


def test_a_single_answer_can_be_a_loss_when_alone_and_asked_for() -> None:
    assert lost(a_streak(GONE, every_s=1), lost_after=1, lost_grace_s=0, alone=True)


def test_a_gateway_that_refuses_everybody_loses_nobody() -> None:
    assert not lost(a_streak(*[GONE] * 50, every_s=30, others_at=(999,)))
    assert not lost(a_streak(*[GONE] * 50, every_s=30))


def test_a_success_before_the_last_such_answer_but_one_vouches_for_nothing() -> None:
    assert not lost(a_streak(GONE, GONE, GONE, GONE, every_s=30, others_at=(1015, 1059)))
    assert lost(a_streak(GONE, GONE, GONE, GONE, every_s=30, others_at=(1015, 1060)))


def test_alone_an_unknown_id_needs_nobody_to_vouch_for_it() -> None:
    assert lost(a_streak(GONE, GONE, GONE, every_s=30), alone=True)
    assert lost(a_streak(*[LostReason.REJECTED] * 3, every_s=30), alone=True)


def test_alone_a_403_is_the_accounts_own_trouble() -> None:
    assert not lost(a_streak(*[BARRED] * 50, every_s=30), alone=True)


def test_a_streak_of_several_kinds_is_one_and_ends_with_the_last() -> None:
    streak = a_streak(GONE, BARRED, LostReason.REJECTED, every_s=30, others_at=(1045,))
    assert lost(streak)
    assert streak.reason is LostReason.REJECTED
