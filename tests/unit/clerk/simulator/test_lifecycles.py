import math
from itertools import pairwise

import pytest

from watcher.clerk.simulator.lifecycles import BRISK, Kind, Stay, Story, has_ended, tell
from watcher.domain.models import TERMINAL_STATUSES

FOLLOWERS = {"new": {"running"}, "running": {"paused", "success", "failed"}, "paused": {"running"}}
STORY = Story("e", stays=(Stay("new", 0), Stay("running", 2), Stay("success", 6)))


def test_a_seed_and_an_index_always_tell_the_same_story() -> None:
    assert tell(7, index=3) == tell(7, index=3)


def test_other_seeds_and_indexes_tell_other_stories() -> None:
    assert len({tell(seed, index=index).execution for seed in range(5) for index in range(50)}) == 250


@pytest.mark.parametrize("kind", Kind)
def test_statuses_follow_each_other_as_documented(kind: Kind) -> None:
    for index in range(50):
        statuses = [stay.status for stay in tell(1, index=index, kind=kind).stays]
        assert statuses[0] == "new"
        assert statuses[-1] in TERMINAL_STATUSES
        assert all(after in FOLLOWERS[before] for before, after in pairwise(statuses))


@pytest.mark.parametrize("kind", Kind)
def test_stays_take_some_time_and_nodes_lie_within_the_story(kind: Kind) -> None:
    story = tell(2, index=0, kind=kind)
    starts = [stay.begins_s for stay in story.stays]
    assert starts == sorted(set(starts))
    assert all(starts[1] <= node.begins_s < node.ends_s <= starts[-1] for node in story.nodes)
    assert [node.begins_s for node in story.nodes] == sorted(node.begins_s for node in story.nodes)


def test_one_story_in_eight_fails_whatever_the_seed() -> None:
    for seed in range(20):
        kinds = [tell(seed, index=index).kind for index in range(40)]
        assert kinds.count(Kind.FAILING) == 5


def test_a_failing_story_ends_with_the_node_that_failed() -> None:
    story = tell(3, index=0, kind=Kind.FAILING)
    assert story.stays[-1].status == "failed"
    assert story.error == f"{story.nodes[-1].name}: {story.nodes[-1].error}"
    assert [node for node in story.nodes if node.error] == [story.nodes[-1]]


def test_only_failing_stories_have_an_error() -> None:
    for kind in set(Kind) - {Kind.FAILING}:
        assert tell(3, index=0, kind=kind).error is None


def test_some_stories_reach_a_goal() -> None:
    assert any(node.is_goal for index in range(40) for node in tell(7, index=index).nodes)


def test_stories_take_seconds_to_hours() -> None:
    lengths = [tell(7, index=index).length_s() for index in range(80)]
    assert min(lengths) < 20
    assert max(lengths) > 7200


def test_brisk_stories_are_for_people_who_watch() -> None:
    assert max(tell(7, index=index, tempo=BRISK).length_s() for index in range(80)) < 40


@pytest.mark.parametrize(
    ("t", "status"), [(-1, "new"), (0, "new"), (1.9, "new"), (2, "running"), (6, "success"), (1e9, "success")]
)
def test_a_stay_begins_at_its_second(t: float, status: str) -> None:
    assert STORY.stay_at(t).status == status


def test_an_execution_starts_when_it_leaves_new() -> None:
    assert STORY.started_s() == 2


def test_an_execution_that_stays_new_never_starts() -> None:
    assert Story("e", stays=(Stay("new", 0),)).started_s() is None


def test_only_terminal_stays_and_those_that_say_so_have_ended() -> None:
    assert has_ended(Stay("failed", 0))
    assert has_ended(Stay("archived", 0, ends=True))
    assert not has_ended(Stay("archived", 0))


def test_the_next_change_is_the_next_stay_or_node() -> None:
    story = tell(7, index=0, kind=Kind.PAUSES)
    moments = {stay.begins_s for stay in story.stays}
    moments |= {node.begins_s for node in story.nodes} | {node.ends_s for node in story.nodes}
    t, seen = -1.0, set()
    while (t := story.next_change_s(t)) < math.inf:
        seen.add(t)
    assert seen == moments


def test_a_stretched_story_keeps_its_proportions() -> None:
    story = tell(7, index=0)
    slow = story.stretched(2)
    assert slow.length_s() == story.length_s() * 2
    assert [node.ends_s for node in slow.nodes] == [node.ends_s * 2 for node in story.nodes]
