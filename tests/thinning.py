"""Parameters of which `make test` runs a few, `make test-long` more, and `make soak` the rest."""

from collections.abc import Sequence
from itertools import product
from random import Random
from typing import Any

import pytest


def thinned(*axes: Sequence[Any]) -> list[Any]:
    """Return all combinations, marked by where they run.

    `make test` runs one, `make test-long` as many that each value of each axis is in one, and `make soak` the rest.
    """
    combinations = list(product(*axes))
    positions = list(product(*(range(len(values)) for values in axes)))
    left, kept = {part for each in positions for part in enumerate(each)}, list[int]()
    order = Random(1).sample(range(len(positions)), len(positions))
    for at_least in range(len(axes), 0, -1):
        for index in order:
            covered = set(enumerate(positions[index])) & left
            if len(covered) >= at_least:
                left -= covered
                kept.append(index)
    marks: dict[int, tuple[pytest.MarkDecorator, ...]] = dict.fromkeys(range(len(combinations)), (pytest.mark.soak,))
    marks |= dict.fromkeys(kept, (pytest.mark.long,)) | {kept[0]: ()}
    return [pytest.param(*each, marks=marks[index]) for index, each in enumerate(combinations)]


def thinned_seeds(count: int, *, quick: int, long: int = 0) -> list[Any]:
    """Return seeds: `quick` of them for `make test`, `long` more for `make test-long`, the rest for `make soak`."""
    marks = [()] * quick + [(pytest.mark.long,)] * long + [(pytest.mark.soak,)] * count
    return [pytest.param(seed, marks=marks[seed]) for seed in range(count)]
