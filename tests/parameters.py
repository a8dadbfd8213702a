"""Parameters of which `make test` runs the first, `.ci/run` a few more, and `make soak` the rest."""

from collections.abc import Sequence
from typing import Any

import pytest


def each_value(*axes: Sequence[Any]) -> list[Any]:
    """Return as many combinations that each value of each axis is in one. `make test` runs the first of them."""
    rows = [[axis[row % len(axis)] for axis in axes] for row in range(max(map(len, axes)))]
    return [pytest.param(*row, marks=[pytest.mark.ci] * bool(number)) for number, row in enumerate(rows)]


def seeds(*, ci: int, soak: int) -> list[Any]:
    """Return seed 0 for `make test`, then `ci` seeds for `.ci/run`, then those up to `soak` for `make soak`."""
    marks = [[], *[[pytest.mark.ci]] * ci, *[[pytest.mark.soak]] * soak]
    return [pytest.param(seed, marks=marks[seed]) for seed in range(soak)]
