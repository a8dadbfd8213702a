"""The filters and tests a template may use, and what each costs: a step for an item and for a hundred characters.

None gives something else the next time, and each is charged before it makes much of little. A list that holds itself
twice, as `[x, x]` does if it is made of itself again and again, is soon larger than the memory once it is written or
compared: what is made, or used as a whole, costs all that it holds, as often as it holds it. Imports jinja2.
"""

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextvars import ContextVar
from functools import wraps
from html import escape
from typing import Any

from jinja2.filters import FILTERS
from jinja2.runtime import LoopContext, Undefined
from jinja2.tests import TESTS

from watcher.delivery.sinks.alert_text import to_json

CHARACTERS_PER_STEP = 100
"""To make a text costs a step for so many characters."""

NUMBER_BITS = 1024
"""What is added or multiplied again and again soon fills the memory. No number that has a fraction is larger."""

_KEPT_FILTERS = (
    *("abs", "capitalize", "d", "default", "dictsort", "first", "float", "groupby", "int", "items", "last", "length"),
    *("list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort"),
    *("string", "sum", "title", "trim", "truncate", "unique", "upper", "urlencode"),
)
"""Those of Jinja's own that always give the same, and no more than they are given."""

_BY_ITEM = frozenset(FILTERS[name] for name in ("groupby", "max", "min", "sort", "sum", "unique"))
"""Those that may use all they are given once for each item, and of a text each character is an item."""

_SHALLOW = frozenset(
    {"count", "d", "default", "first", "items", "last", "length", "list", "map", "reverse"}
    | {"reject", "rejectattr", "select", "selectattr"}
)
_SHALLOW_TESTS = frozenset(
    {"boolean", "defined", "iterable", "mapping", "none", "number", "sameas", "sequence", "string", "undefined"}
)
"""Those that look at no item of what they are given, and at most hand it on."""


class TooMuchError(Exception):
    """A template does more than it may."""


class Steps:
    """How much of what a rendering may cost is left."""

    def __init__(self, count: int) -> None:
        """Begin with all of it."""
        self.left = count

    def spend(self, count: int) -> None:
        """Take so much of it, and never give any back. Raises `TooMuchError`."""
        self.left -= max(count, 0)
        if self.left < 0:
            raise TooMuchError


current_steps: ContextVar[Steps] = ContextVar("steps")


def size_of(value: object) -> int:
    """Return what it costs to make or go through a value."""
    if isinstance(value, str):
        return len(value) // CHARACTERS_PER_STEP
    return len(value) if isinstance(value, list | tuple | dict | range | KeysView | ValuesView | ItemsView) else 0


def charged_whole(value: object) -> Any:
    """Return a value, paid for with all that it holds."""
    steps = current_steps.get()
    held = [value]
    while held:
        item = held.pop()
        steps.spend(size_of(item))
        if isinstance(item, dict):
            held += (*item, *item.values())
        elif isinstance(item, list | tuple | KeysView | ValuesView | ItemsView):
            held += item
    return value


def bounded(value: Any) -> Any:
    """Return a value, unless it is a number that takes long to reckon with. Raises `TooMuchError`."""
    if isinstance(value, int) and value.bit_length() > NUMBER_BITS:
        raise TooMuchError
    return value


def weighed(value: object, steps_count: int) -> Any:
    """Return a value, paid for with what the code around it costs each time it is run."""
    current_steps.get().spend(steps_count)
    return value


def charged_slice(value: object) -> Any:
    """Return a value, paid for with a copy of it."""
    current_steps.get().spend(size_of(value))
    return value


def _charged(function: Any, *, is_shallow: bool) -> Callable[..., Any]:
    """Return a filter or a test of Jinja's that is paid for what it is given, and what it makes."""
    at = 1 if hasattr(function, "jinja_pass_arg") else 0  # where the value stands: Jinja may pass its own first
    goes_through = function in _BY_ITEM

    @wraps(function)
    def charged(*args: Any, **kwargs: Any) -> Any:
        steps = current_steps.get()
        steps.spend(1)
        if not is_shallow:
            args = tuple(_listed(arg) for arg in args)
        if goes_through and len(args) > at:
            items = list(each(args[at]))
            steps.spend(len(items) * sum(size_of(arg) for arg in (*args[at + 1 :], *kwargs.values())))
            args = (*args[:at], items, *args[at + 1 :])
        for arg in (*args, *kwargs.values()):
            if is_shallow:
                steps.spend(size_of(arg))
            else:
                charged_whole(arg)
        result = bounded(function(*args, **kwargs))
        steps.spend(size_of(result))
        return result

    return charged


def _listed(value: object) -> object:
    """Return as a list what yields its items one by one, for these have to be paid for before they are used."""
    return list(each(value)) if isinstance(value, Iterator) and not isinstance(value, LoopContext) else value


def joined(parts: Iterable[object], separator: str = "") -> str:
    """Return a text of parts, as long as it may become."""
    texts: list[str] = []
    length = 0
    steps = current_steps.get()
    for part in parts:
        texts.append(str(charged_whole(part)))
        length += len(texts[-1]) + len(separator)
        steps.spend(length // CHARACTERS_PER_STEP)
        length %= CHARACTERS_PER_STEP
    return separator.join(texts)


def _join(value: Iterable[object], d: str = "") -> str:
    return joined(each(value), d)


def each(items: Iterable[object]) -> Iterator[object]:
    """Yield items, a step for each."""
    steps = current_steps.get()
    for item in items:
        steps.spend(1)
        yield item


def steps_range(*bounds: int) -> range:
    """Return a range, which costs a step for each of its numbers."""
    numbers = range(*bounds)
    try:
        current_steps.get().spend(len(numbers))
    except OverflowError:
        raise TooMuchError from None
    return numbers


def _replace(text: object, old: str, new: str) -> str:
    text = str(charged_whole(text))
    made = (text.count(old) * len(new)) // CHARACTERS_PER_STEP
    current_steps.get().spend(1 + size_of(text) + made)
    return text.replace(old, new)


def _escape(text: object) -> str:
    """Return a text as HTML shows it."""
    text = str(charged_whole(text))
    current_steps.get().spend(1 + size_of(text))
    return escape(text)


def _round(value: float, precision: int = 0) -> float:
    current_steps.get().spend(1)
    return round(float(value), precision)


def _to_json(value: object) -> str:
    """Return JSON, with every character as it is. Jinja's own hides some for the sake of pages."""
    text = to_json(charged_whole(_plain(value)))
    current_steps.get().spend(1 + size_of(text))
    return text


def _plain(value: object) -> object:
    """Raise for what is absent, in words of its own."""
    if isinstance(value, Undefined):
        str(value)
    return list(value) if isinstance(value, Iterator) else value


ALLOWED: Mapping[str, Callable[..., Any]] = {
    **{name: _charged(FILTERS[name], is_shallow=name in _SHALLOW) for name in _KEPT_FILTERS},
    "count": _charged(FILTERS["length"], is_shallow=True),
    "e": _escape,
    "escape": _escape,
    "join": _join,
    "replace": _replace,
    "round": _round,
    "tojson": _to_json,
}
"""The filters by name."""

ALLOWED_TESTS: Mapping[str, Callable[..., Any]] = {
    name: _charged(test, is_shallow=name in _SHALLOW_TESTS) for name, test in TESTS.items()
}
"""The tests by name."""
