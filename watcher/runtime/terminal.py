"""What a terminal may be shown: nothing it would obey, and signs its encoding has. Knows no console."""

import unicodedata

PLAIN_SIGNS = str.maketrans(
    {"✓": "+", "✕": "x", "○": "o", "▶": ">", "‖": "=", "·": "-", "…": "~", "\N{MULTIPLICATION SIGN}": "x", "◷": "!"}
)
"""What stands for a sign where the encoding has none."""

_BLANK_CATEGORIES = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp", "Mn"})
_BLANK_SIGNS = frozenset(
    {
        *("\N{HANGUL CHOSEONG FILLER}", "\N{HANGUL JUNGSEONG FILLER}", "\N{HANGUL FILLER}"),
        *("\N{HALFWIDTH HANGUL FILLER}", "\N{BRAILLE PATTERN BLANK}"),
    }
)
"""What shows nothing by itself: controls, spaces, marks without a letter, and some signs that only take up room."""


def printable(text: str, *, encoding: str) -> str:
    """Return a text with signs this encoding has."""
    return text if "utf" in encoding.lower() else text.translate(PLAIN_SIGNS)


def first_visible(*texts: str | None) -> str:
    """Return the first of these names or errors in which there is anything to see, else an empty text."""
    return next((text for text in texts if text and not all(map(_is_blank, text))), "")


def harmless(text: str) -> str:
    """Return a text on one line with nothing a terminal would obey: control characters are shown by their codes."""
    return "".join(each if each.isprintable() else _shown(each) for each in text)


def _is_blank(character: str) -> bool:
    return unicodedata.category(character) in _BLANK_CATEGORIES or character in _BLANK_SIGNS


def _shown(character: str) -> str:
    return " " if character.isspace() else character.encode("unicode_escape").decode()
