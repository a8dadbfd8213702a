"""How many leases of a kind each replica is to have: the same number, or one more."""

from collections.abc import Collection


def target_count(mine: int, others: Collection[int], *, free: int) -> int:
    """Return how many a replica that holds `mine` is to hold once all that is free is taken.

    Those who hold fewest take first, and none gives anything up for it. What cannot be divided anybody may have.
    """
    level, at_level, left = _filled([mine, *others], free=free)
    return max(mine, level + _share(left, at_level))


def surplus_count(mine: int, others: Collection[int], *, free: int, wanted: int) -> int:
    """Return how many a replica that holds `mine` of those that are wanted is to give up for others to take.

    Whoever holds most gives up first, and nothing for those who can have what is free.
    """
    if not others:
        return 0
    beyond = mine - _share(wanted, 1 + len(others))
    level, at_level, left = _filled(others, free=free)
    is_uneven = mine >= max(others) and mine - (level + left // at_level) > 1
    return max(beyond, int(is_uneven), 0)


def _filled(counts: Collection[int], *, free: int) -> tuple[int, int, int]:
    """Give what is free to those who have fewest, as far as it makes them even with the next.

    Return what they have then, how many they are, and how much is left, which is less than makes them even.
    """
    level, *above = sorted(counts)
    for at_level, count in enumerate(above, start=1):
        needed = (count - level) * at_level
        if needed > free:
            return level, at_level, max(0, free)
        free, level = free - needed, count
    return level, len(counts), max(0, free)


def _share(count: int, replica_count: int) -> int:
    """Return the part of one replica, rounded up."""
    return -(-count // replica_count)
