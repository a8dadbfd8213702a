"""How leases are spread: replicas that take and give up in turn until nothing moves."""

from itertools import product
from random import Random

import pytest

from watcher.store.postgresql_leases import surplus_count, target_count


@pytest.mark.parametrize(
    ("mine", "others", "free", "wanted"),
    [
        (0, [], 12, 12),
        (0, [0, 0], 12, 4),
        (0, [0, 0], 4, 2),
        (4, [4], 4, 6),
        (0, [6, 6], 4, 4),
        (6, [6, 0], 4, 6),
        (2, [2, 1], 1, 2),
        (1, [2, 2], 1, 2),
        (2, [2, 1], 2, 3),
        (3, [], 0, 3),
        (0, [1, 1], 0, 0),
    ],
)
def test_what_is_free_goes_to_those_who_hold_fewest(mine: int, others: list[int], free: int, wanted: int) -> None:
    assert target_count(mine, others, free=free) == wanted


@pytest.mark.parametrize(
    ("mine", "others", "free", "wanted", "surplus"),
    [
        (12, [], 0, 12, 0),
        (12, [0], 0, 12, 6),
        (6, [6, 0], 0, 12, 2),
        (4, [4, 4], 0, 12, 0),
        (2, [2, 0], 0, 4, 1),
        (2, [1, 1], 0, 4, 0),
        (1, [0, 0], 0, 1, 0),
        (1, [0, 0], 1, 2, 0),
        (2, [3, 0], 1, 6, 0),  # this one has just given up what the third is about to take
        (3, [3, 0], 0, 6, 1),
    ],
)
def test_a_replica_gives_up_what_another_has_too_few_of(
    mine: int, others: list[int], free: int, wanted: int, surplus: int
) -> None:
    assert surplus_count(mine, others, free=free, wanted=wanted) == surplus


@pytest.mark.parametrize(("wanted", "replica_count"), [*product(range(14), range(1, 6))])
def test_whoever_begins_with_whatever_it_ends_even_and_at_rest(wanted: int, replica_count: int) -> None:
    for first in {0, wanted // 2, wanted}:
        counts = [first, *[0] * (replica_count - 1)]
        for _ in range(2 * wanted + 2):
            for index in range(replica_count):
                others = [count for other, count in enumerate(counts) if other != index]
                counts[index] = target_count(counts[index], others, free=wanted - sum(counts))
            for index in range(replica_count):
                others = [count for other, count in enumerate(counts) if other != index]
                free = wanted - sum(counts)
                counts[index] -= min(1, surplus_count(counts[index], others, free=free, wanted=wanted))
        assert sum(counts) == wanted, (first, counts)
        assert max(counts) - min(counts) <= 1, (first, counts)


@pytest.mark.parametrize("seed", range(20))
def test_no_replica_takes_back_what_it_has_given_up_for_another(seed: int) -> None:
    rng = Random(seed)
    counts, wanted = [6, 6, 0], 12
    given = 0
    for _ in range(200):
        index = rng.randrange(3)
        others = [count for other, count in enumerate(counts) if other != index]
        free = wanted - sum(counts)
        counts[index] = target_count(counts[index], others, free=free)
        free = wanted - sum(counts)
        surplus = min(1, surplus_count(counts[index], others, free=free, wanted=wanted))
        counts[index] -= surplus
        given += surplus
    assert counts == [4, 4, 4]
    assert given == 4
