"""The figures: what was promised, what was measured, and the table that shows both."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

_COLUMNS = ("", "bound", "min", "median", "max", "")


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured several times, its bound in words, and what its median means for that bound."""

    name: str
    values: Sequence[float]
    bound: str = ""
    result: str = ""


def at_least(bound: float, name: str, values: Sequence[float]) -> Figure:
    """Return a figure that is to be at least so much."""
    short = 1 - median(values) / bound
    return Figure(name, values, f"≥ {_number(bound)}", _result(short))


def at_most(bound: float, name: str, values: Sequence[float]) -> Figure:
    """Return a figure that is to be at most so much."""
    over = median(values) / bound - 1
    return Figure(name, values, f"≤ {_number(bound)}", _result(over))


def shown(name: str, values: Sequence[float]) -> Figure:
    """Return a figure that nothing was promised of: it explains another."""
    return Figure(name, values)


def percentile(values: Sequence[float], nth: int) -> float:
    """Return what `nth` in a hundred of the values do not exceed."""
    return quantiles(values, n=100)[nth - 1]


def table(figures: Iterable[Figure]) -> str:
    """Return the figures as text, one a line."""
    rows = [_COLUMNS, *map(_row, figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths=widths) for row in rows)


def _result(missed_by: float) -> str:
    return "ok" if missed_by <= 0 else f"missed by {missed_by:.1%}"


def _row(figure: Figure) -> tuple[str, ...]:
    values = (min(figure.values), median(figure.values), max(figure.values))
    return (figure.name, figure.bound, *map(_number, values), figure.result)


def _line(row: Sequence[str], *, widths: Sequence[int]) -> str:
    name, *numbers, result = row
    cells = (f"{number:>{width}}" for number, width in zip(numbers, widths[1:-1], strict=True))
    return "  ".join((f"{name:<{widths[0]}}", *cells, result)).rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
