import pytest

from watcher.runtime.spelling import did_you_mean, distance, nearest


@pytest.mark.parametrize(
    ("left", "right", "edits"),
    [("", "", 0), ("a", "", 1), ("", "ab", 2), ("kitten", "sitting", 3), ("runing", "running", 1), ("ab", "ba", 2)],
)
def test_the_distance_counts_edits(left: str, right: str, edits: int) -> None:
    assert distance(left, right) == distance(right, left) == edits


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("webhok", "webhook"),
        ("Webhook", "webhook"),
        ("std", None),
        ("", None),
        ("ab", None),
        ("url", "url"),
    ],
)
def test_a_word_is_near_within_two_edits(word: str, near: str | None) -> None:
    assert nearest(word, ("webhook", "stdout", "url")) == near


def test_a_hint_goes_before_the_rest() -> None:
    assert did_you_mean("runing", ["running"], rest="allowed: running") == 'did you mean "running"? Allowed: running'
    assert did_you_mean("elephant", ["running"], rest="allowed: running") == "allowed: running"
