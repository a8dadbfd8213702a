"""Texts as messages show them: harmless, cut to a length, durations and times in words.

What the API or the user calls something may hold anything: control characters are shown by their codes, and where a
receiver reads markup, its template puts such a text in no such field. Characters are counted as UTF-16 has them, where
an emoji is two: not every receiver says how it counts, and none counts more.
"""

import json
import re
from datetime import UTC, datetime

from watcher.runtime.terminal import harmless

LINK_LIMIT = 2048
"""Characters of a link that Discord, which takes the least, still takes."""

_LINK = re.compile(r"https?://[!#-;=?-\[\]_a-z~]+")
"""No character that would have to be quoted: a receiver refuses the whole message for one."""

_WORD = re.compile(r"[\w-]+")

_UNITS = (("d", 86_400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1))
"""Each unit with its seconds, and the next smaller one."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def to_json(value: object) -> str:
    """Return compact JSON."""
    return _ENCODER.encode(value)


def clean(text: str) -> str:
    """Return a text on one line without control characters."""
    return text if text.isprintable() else harmless(text)


def length(text: str) -> int:
    """Return how many characters a text has in UTF-16."""
    return len(text.encode("utf-16-le")) // 2


def shorten(text: str, limit: int) -> str:
    """Return a name, cut to so many characters."""
    text = clean(text)
    return text if length(text) <= limit else f"{_beginning(text, limit - 1)}…"


class Cutter:
    """Cuts texts and says how much is missing. `has_cut`: whether it ever had to."""

    def __init__(self) -> None:
        """Have cut nothing yet."""
        self.has_cut = False

    def __call__(self, text: str, limit: int) -> str:
        """Return a text, cut to so many characters, of which there must be room for what is said of the rest."""
        text = clean(text)
        if length(text) <= limit:
            return text
        self.has_cut = True
        kept = _beginning(text, limit - len(_mark_of(len(text))))
        return kept + _mark_of(len(text) - len(kept))


def _mark_of(missing_count: int) -> str:
    return f"… (+{missing_count:,} chars)"


def _beginning(text: str, limit: int) -> str:
    """Return so many characters of a text, or one less where the last would be half of a pair."""
    return text.encode("utf-16-le")[: 2 * limit].decode("utf-16-le", "ignore")


def usable_link(link: object) -> str | None:
    """Return a link that every receiver takes, else `None`."""
    return link if isinstance(link, str) and len(link) <= LINK_LIMIT and _LINK.fullmatch(link) else None


def mask(text: str) -> str:
    """Return a text with `#` for each word with a digit in it: what differs between two errors that are the same."""
    return _WORD.sub(lambda word: "#" if any(map(str.isdigit, word[0])) else word[0], text)


def in_words(seconds: float) -> str:
    """Return a duration: `5.1 s`, `2 m 31 s`, `4 h 12 m`, `3 d 4 h`."""
    if round(seconds) < _UNITS[-1][1]:
        return f"{seconds:.1f} s"
    unit, size, smaller, smaller_size = next(each for each in _UNITS if round(seconds) >= each[1])
    rest = round(seconds) % size // smaller_size
    return f"{round(seconds) // size} {unit}{f' {rest} {smaller}' if rest else ''}"


def in_utc(moment: datetime) -> str:
    """Return a moment to the second: `2026-11-24 12:00:31 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def span(first: datetime, last: datetime) -> str:
    """Return the time between two moments in UTC, with dates if they are not of one day."""
    if first.date() == last.date():
        return f"{first:%H:%M:%S}-{last:%H:%M:%S} UTC"
    return f"{first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC"
