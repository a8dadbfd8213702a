"""How many leases of a kind each replica is to have: the same number, or one more."""

from collections.abc import Collection


def target_count(mine: int, others: Collection[int], *, free: int) -> int:
    """Return how many a replica that holds `mine` is to hold once all that is free is taken.

    Those who hold fewest take first, and none gives anything up for it. What cannot be divided anybody may have.
    """
    counts = sorted([mine, *others])
    level = counts[0]
    for at_level, count in enumerate(counts[1:], start=1):
        needed = (count - level) * at_level
        if needed >= free:
            return max(mine, level + _share(free, at_level))
        free, level = free - needed, count
    return max(mine, level + _share(free, len(counts)))


def surplus_count(mine: int, others: Collection[int], *, wanted: int) -> int:
    """Return how many a replica that holds `mine` of those that are wanted is to give up for others to take."""
    beyond = mine - _share(wanted, 1 + len(others))
    is_uneven = mine - min(others, default=mine) > 1
    return max(beyond, int(is_uneven), 0)


def _share(count: int, replica_count: int) -> int:
    """Return the part of one replica, rounded up."""
    return -(-count // replica_count)
