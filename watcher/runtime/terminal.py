"""Texts for a terminal: without control characters, and only with signs that its encoding has."""

PLAIN_SIGNS = str.maketrans("✓✕○▶‖·…\N{MULTIPLICATION SIGN}◷█", "+xo>=-~x!#")
"""The ASCII replacement of each sign, for encodings that lack the sign."""


def printable(text: str, *, encoding: str) -> str:
    """Return a text with the signs replaced that the encoding lacks."""
    return text if "utf" in encoding.lower() else text.translate(PLAIN_SIGNS)


def first_visible(*texts: str | None) -> str:
    """Return the first text that is not blank, else an empty text."""
    return next((text for text in texts if text and text.strip()), "")


def harmless(text: str) -> str:
    """Return a text on one line, with the codes of control characters, so that a terminal obeys none of them."""
    return "".join(each if each.isprintable() else _shown(each) for each in text)


def _shown(character: str) -> str:
    return " " if character.isspace() else character.encode("unicode_escape").decode()
