"""Prepares texts for a terminal: without control characters, and without signs that its encoding lacks."""

PLAIN_SIGNS = str.maketrans("✓✕○▶‖·…\N{MULTIPLICATION SIGN}◷█", "+xo>=-~x!#")
"""The ASCII replacement of each sign, for encodings that lack the sign."""


def printable(text: str, *, encoding: str) -> str:
    """Return a text with its signs replaced by ASCII, unless the encoding is a UTF."""
    return text if "utf" in encoding.lower() else text.translate(PLAIN_SIGNS)


def first_visible(*texts: str | None) -> str:
    """Return the first text that is not blank, else an empty text."""
    return next((text for text in texts if text and text.strip()), "")


def harmless(text: str) -> str:
    """Return a text on one line, with escape codes in place of control characters, which a terminal would obey."""
    return "".join(each if each.isprintable() else _shown(each) for each in text)


def _shown(character: str) -> str:
    return " " if character.isspace() else character.encode("unicode_escape").decode()
