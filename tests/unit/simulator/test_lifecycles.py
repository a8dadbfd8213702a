from itertools import pairwise

import pytest

from watcher.domain.execution import TERMINAL_STATUSES
from watcher.simulator.lifecycles import BRISK, Kind, make_lifecycle

FOLLOWERS = {"new": {"running"}, "running": {"paused", "success", "failed"}, "paused": {"running"}}


@pytest.mark.parametrize("kind", Kind)
def test_statuses_follow_each_other_as_documented(kind: Kind) -> None:
    for index in range(50):
        statuses = [phase.status for phase in make_lifecycle(1, index=index, kind=kind).phases]
        assert statuses[0] == "new"
        assert statuses[-1] in TERMINAL_STATUSES
        assert all(after in FOLLOWERS[before] for before, after in pairwise(statuses))


@pytest.mark.parametrize("kind", Kind)
def test_stays_take_some_time_and_nodes_lie_within_the_lifecycle(kind: Kind) -> None:
    lifecycle = make_lifecycle(2, index=0, kind=kind)
    starts = [phase.begins_s for phase in lifecycle.phases]
    assert starts == sorted(set(starts))
    assert all(starts[1] <= node.begins_s < node.ends_s <= starts[-1] for node in lifecycle.nodes)
    assert [node.begins_s for node in lifecycle.nodes] == sorted(node.begins_s for node in lifecycle.nodes)


def test_one_lifecycle_in_eight_fails_whatever_the_seed() -> None:
    for seed in range(20):
        kinds = [make_lifecycle(seed, index=index).kind for index in range(40)]
        assert kinds.count(Kind.FAILING) == 5


def test_a_failing_lifecycle_ends_with_the_node_that_failed() -> None:
    lifecycle = make_lifecycle(3, index=0, kind=Kind.FAILING)
    assert lifecycle.phases[-1].status == "failed"
    assert lifecycle.error == f"{lifecycle.nodes[-1].name}: {lifecycle.nodes[-1].error}"
    assert [node for node in lifecycle.nodes if node.error] == [lifecycle.nodes[-1]]


def test_brisk_lifecycles_are_for_people_who_watch() -> None:
    assert max(make_lifecycle(7, index=index, pace=BRISK).length_s() for index in range(80)) < 40


def test_a_stretched_lifecycle_keeps_its_proportions() -> None:
    lifecycle = make_lifecycle(7, index=0)
    slow = lifecycle.stretched(2)
    assert slow.length_s() == lifecycle.length_s() * 2
    assert [node.ends_s for node in slow.nodes] == [node.ends_s * 2 for node in lifecycle.nodes]
