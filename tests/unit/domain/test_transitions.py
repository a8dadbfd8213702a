"""What an answer means for one execution: all pairs of states, dropped polls, stays that are overdue, losses."""

from dataclasses import replace
from datetime import datetime

import pytest
from stores import from_us
from virtual import on_our_clock

from watcher.domain.event import EventType
from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot, LostReason
from watcher.domain.timestamps import Micros
from watcher.domain.transitions import Observation, TransitionResult, is_terminal, lose, observe

SECOND = 1_000_000
NOW = Micros(1_800_000_000 * SECOND)
BEGAN = Micros(NOW - 3600 * SECOND)
LIMITS = {"new": 120.0, "running": 900.0, "paused": 3600.0}


def at(us: int) -> datetime:
    return from_us(us)


def an_observation(
    word: str, *, sent_at: int = NOW - 1000, seen_at: int = NOW, started_at: int | None = None
) -> Observation:
    """`odd.` is the word `odd` with `finishedAt` set."""
    finished_at = at(NOW) if word.endswith(".") else None
    started = None if started_at is None else at(started_at)
    answer = ExecutionSnapshot("e", word.rstrip("."), started_at=started, finished_at=finished_at)
    return Observation(on_our_clock(answer), Micros(sent_at), Micros(seen_at))


def see(before: ExecutionRecord, observation: Observation, limits: dict[str, float] | None = None) -> TransitionResult:
    return observe(before, observation, polled_at=before.polled_at, overdue_after_s=limits or {})


def after(*words: str, limits: dict[str, float] | None = None) -> ExecutionRecord:
    """What is known after these words, a second apart, the last of them 10 s ago. `lost` is a loss."""
    known = ExecutionRecord("e", "p")
    for age, word in zip(reversed(range(len(words))), words, strict=True):
        moment = NOW - (10 + age) * SECOND
        if word == "lost":
            known = lose(known, LostReason.NOT_FOUND, at=Micros(moment), polled_at=known.polled_at).known
        else:
            known = see(known, an_observation(word, sent_at=moment - 1, seen_at=moment), limits).known
    return known


def emitted(result: TransitionResult) -> str:
    return " ".join(
        status_change.type.removeprefix("execution.") + (f"<{status_change.previous}" if status_change.previous else "")
        for status_change in result.status_changes
    )


# Every pair. `type<previous`; `!` ends; `-` reports nothing; `x` drops the poll, `xx` as a contradiction too.
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
def test_every_pair_of_states_is_reported_as_the_table_says(before: tuple[str, ...], word: str, expected: str) -> None:
    known = after(*before)
    result = see(known, an_observation(word))
    count = 0 if expected[0] in "-x" else 1
    assert (len(result.status_changes), result.known.sequence) == (count, known.sequence + count)
    assert sum(times for _, times in result.known.counts) == sum(times for _, times in known.counts) + count
    if result.dropped:
        assert (expected, result.known) == ("xx" if result.contradicts else "x", known)
        return
    assert (emitted(result) or "-") + ("!" if result.known.end_seen_at else "") == expected
    assert (result.known.lost, result.known.status, result.contradicts) == (None, word.rstrip("."), False)
    assert all(status_change.sequence == result.known.sequence for status_change in result.status_changes)


@pytest.mark.parametrize("words", [("new",), ("running",), ("paused",), ("odd",), ("running", "paused")])
def test_an_unchanged_poll_leaves_what_is_known_as_it_is(words: tuple[str, ...]) -> None:
    known = after(*words)
    assert see(known, an_observation(words[-1])).known is known


def test_a_repeated_status_is_reported_again_and_counted() -> None:
    known, nths = after(), []
    for count, word in enumerate(("running", "paused", "running", "paused", "running")):
        moment = NOW + count * SECOND
        result = see(known, an_observation(word, sent_at=moment - 1, seen_at=moment))
        known = result.known
        nths.append((word, result.status_changes[0].nth, result.status_changes[0].sequence))
    assert nths == [("running", 1, 1), ("paused", 1, 2), ("running", 2, 3), ("paused", 2, 4), ("running", 3, 5)]
    assert known.was_paused


# Unrecognized words


def test_an_unrecognized_word_is_reported_once_per_value_whatever_comes_between() -> None:
    kinds = []
    known = after()
    for count, word in enumerate(("odd", "running", "odd", "other", "odd", "other", "success")):
        moment = NOW + count * SECOND
        result = see(known, an_observation(word, sent_at=moment - 1, seen_at=moment))
        known = result.known
        kinds += [(emitted(result), status_change.kind) for status_change in result.status_changes]
    assert kinds == [
        ("unrecognized", "unrecognized:odd"),
        ("running<odd", "running"),
        ("unrecognized<odd", "unrecognized:other"),
        ("success<other", "success"),
    ]


def test_a_move_to_a_word_already_reported_is_recorded_with_its_own_stay() -> None:
    known = after("odd", "running")
    result = see(known, an_observation("odd"))
    assert (result.known.status, result.known.since_at, result.known.polled_at) == ("odd", NOW, NOW)


@pytest.mark.parametrize("word", ["Running", "SUCCESS", "lost", "success ", "", "overdue", "cancelled"])
def test_any_word_but_the_five_is_unrecognized(word: str) -> None:
    result = see(after("running"), Observation(ExecutionSnapshot("e", word), Micros(NOW - 1), NOW))
    assert [status_change.type for status_change in result.status_changes] == [EventType.EXECUTION_UNRECOGNIZED]
    assert result.known.end_seen_at is None


def test_an_endless_word_is_cut_and_still_itself_at_the_next_poll() -> None:
    known = after("x" * 500)
    assert known.status == "x" * 64
    assert see(known, an_observation("x" * 500)).known is known


@pytest.mark.parametrize(
    ("word", "ends"),
    [*((f"{word}.", False) for word in ("new", "running", "paused")), ("success", True), ("failed.", True)],
)
def test_what_ends_is_for_the_word_to_say_if_it_is_known(word: str, *, ends: bool) -> None:
    assert is_terminal(an_observation(word).execution) is ends


# Polls that are too old


@pytest.mark.parametrize(
    ("word", "sent_after_us", "dropped"),
    [
        *((word, -1, True) for word in ("new", "running", "paused", "odd")),
        *((word, -1, False) for word in ("success", "failed", "odd.")),
        ("paused", 0, False),
    ],
)
def test_a_poll_asked_for_before_the_last_one_ended_is_dropped_unless_it_is_terminal(
    word: str, sent_after_us: int, *, dropped: bool
) -> None:
    known = after("running")
    result = see(known, an_observation(word, sent_at=known.polled_at + sent_after_us))
    assert (len(result.status_changes), result.dropped) == (1 - dropped, dropped)
    assert (result.known is known) is dropped


def test_the_last_poll_that_counts_may_be_later_than_the_recorded_one() -> None:
    known = after("running")
    result = observe(known, an_observation("paused", sent_at=NOW - 2), polled_at=Micros(NOW - 1), overdue_after_s={})
    assert result.dropped


# Overdue


@pytest.mark.parametrize(
    ("before", "started_at", "since_at"),
    [
        (("new",), BEGAN, NOW),
        ((), BEGAN, BEGAN),
        ((), None, NOW),
        ((), NOW + 60 * SECOND, NOW),
        (("running", "lost"), BEGAN, NOW),
    ],
)
def test_a_stay_begins_when_it_was_seen_and_at_first_sight_when_the_api_says_it_started(
    before: tuple[str, ...], started_at: int | None, since_at: int
) -> None:
    assert see(after(*before), an_observation("running", started_at=started_at)).known.since_at == since_at


def test_an_execution_overdue_at_first_sight_reports_both_events_in_one_poll() -> None:
    result = see(after(), an_observation("running", started_at=BEGAN), LIMITS)
    assert emitted(result) == "running overdue"
    assert [status_change.sequence for status_change in result.status_changes] == [1, 2]
    assert [status_change.nth for status_change in result.status_changes] == [1, 1]
    assert result.status_changes[1].status == "running"
    assert (result.known.sequence, result.known.overdue_sequence) == (2, 2)


@pytest.mark.parametrize(("status", "limit_s"), LIMITS.items())
def test_overdue_begins_just_past_the_limit(status: str, limit_s: float) -> None:
    limit = round(limit_s * SECOND)
    known = replace(after(status), since_at=NOW)
    assert see(known, an_observation(status, seen_at=NOW + limit), LIMITS).status_changes == ()
    assert emitted(see(known, an_observation(status, seen_at=NOW + limit + 1), LIMITS)) == "overdue"


def test_overdue_is_reported_once_per_stay_and_again_in_the_next() -> None:
    known = replace(after("running"), since_at=BEGAN)
    first = see(known, an_observation("running"), LIMITS)
    assert emitted(first) == "overdue"
    assert first.known.overdue_sequence == first.known.sequence == 2
    assert see(first.known, an_observation("running", sent_at=NOW, seen_at=NOW + SECOND), LIMITS).known is first.known
    paused = see(first.known, an_observation("paused", sent_at=NOW, seen_at=NOW + SECOND), LIMITS)
    assert paused.known.overdue_sequence is None
    again = see(paused.known, an_observation("running", sent_at=NOW + SECOND, seen_at=NOW + 2 * SECOND), LIMITS)
    later = replace(again.known, since_at=BEGAN)
    second = see(later, an_observation("running", sent_at=NOW + 2 * SECOND, seen_at=NOW + 3 * SECOND), LIMITS)
    changes = [(status_change.type, status_change.nth) for status_change in second.status_changes]
    assert changes == [(EventType.EXECUTION_OVERDUE, 2)]


@pytest.mark.parametrize("word", ["success", "failed", "odd."])
def test_an_end_after_the_limit_is_only_the_end(word: str) -> None:
    known = replace(after("running"), since_at=BEGAN)
    limits = LIMITS | {"odd": 1.0, "success": 1.0, "failed": 1.0}
    assert "overdue" not in emitted(see(known, an_observation(word), limits))


# Tokens


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("before", [(), ("running",), ("running", "lost"), ("paused", "odd"), ("success",)])
def test_what_is_expensive_comes_before_the_end_else_last(before: tuple[str, ...], word: str) -> None:
    known, plain = after(*before), an_observation(word)
    observation = plain._replace(execution=replace(plain.execution, ai_tokens_used=1001.0))
    without = see(known, observation, LIMITS)
    result = observe(known, observation, polled_at=known.polled_at, overdue_after_s=LIMITS, max_tokens=1000)
    if without.dropped:
        assert result == without
        return
    others = emitted(without).split()
    assert emitted(result).split() == (["expensive", *others] if result.known.end_seen_at else [*others, "expensive"])
    numbers = [each.sequence - known.sequence for each in result.status_changes]
    assert numbers == list(range(1, len(numbers) + 1))
    assert replace(result.known, counts=(), sequence=0, overdue_sequence=None, polled_at=NOW) == replace(
        without.known, counts=(), sequence=0, overdue_sequence=None, polled_at=NOW
    )
    again = observe(result.known, observation, polled_at=Micros(0), overdue_after_s={}, max_tokens=1000)
    assert "expensive" not in emitted(again)


# Losses


def test_a_loss_reports_what_it_was_before_and_keeps_the_last_word() -> None:
    result = lose(after("running"), LostReason.FORBIDDEN, at=NOW, polled_at=Micros(NOW - 5))
    known = result.known
    assert emitted(result) == "lost<running"
    assert result.status_changes[0].status == "lost"
    assert (known.status, known.lost, known.lost_at, known.polled_at) == ("running", LostReason.FORBIDDEN, NOW, NOW - 5)
    assert known.end_seen_at is None
    assert emitted(lose(after(), LostReason.NOT_FOUND, at=NOW, polled_at=Micros(0))) == "lost"


def test_the_event_after_the_return_from_a_loss_names_the_status_again() -> None:
    assert emitted(see(after("running", "lost", "running"), an_observation("paused"))) == "paused<running"


def test_a_loss_ends_what_was_overdue() -> None:
    known = see(replace(after("running"), since_at=BEGAN), an_observation("running"), LIMITS).known
    assert lose(known, LostReason.NOT_FOUND, at=NOW, polled_at=NOW).known.overdue_sequence is None


def test_an_execution_that_was_given_up_may_still_be_heard_of() -> None:
    known = replace(after("running", "lost"), end_seen_at=Micros(NOW - SECOND))
    assert known.end_seen_at == NOW - SECOND
    result = see(known, an_observation("running"))
    assert (emitted(result), result.known.end_seen_at) == ("running<lost", None)


@pytest.mark.parametrize("before", [(), ("running",)])
def test_the_duration_of_what_ended_is_that_of_the_api_s_dates(before: tuple[str, ...]) -> None:
    """Its dates come from answers whose `Date` differ by up to a second from each other on our clock."""
    started_at, finished_at, ended_at = at(NOW - 9 * SECOND), at(NOW - 7 * SECOND), Micros(NOW - 5 * SECOND)
    answer = replace(an_observation("success").execution, started_at=started_at, finished_at=finished_at)
    answer = replace(answer, ended_at=ended_at)
    known = see(after(*before), an_observation("success")._replace(execution=answer)).known
    assert (known.ended_at, known.started_at) == (NOW - 5 * SECOND, NOW - 7 * SECOND)


@pytest.mark.parametrize(("by_s", "since_s", "started_s"), [(-3, -13, -3603), (5, -5, -3595), (20, 0, -3580)])
def test_a_record_moves_to_our_clock_but_not_beyond_now(by_s: int, since_s: int, started_s: int) -> None:
    known = see(after(), an_observation("running", seen_at=NOW - 10 * SECOND)).known
    moved = replace(known, started_at=BEGAN).moved(by_s * SECOND, now=NOW)
    assert (moved.since_at, moved.started_at) == (NOW + since_s * SECOND, NOW + started_s * SECOND)
    assert known.moved(by_s * SECOND, now=NOW).started_at == moved.since_at
    assert replace(known, started_at=None).moved(by_s * SECOND, now=NOW).started_at is None
