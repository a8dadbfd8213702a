"""What a terminal may be shown: nothing it would obey, and signs its encoding has. Knows no console."""

PLAIN_SIGNS = str.maketrans("✓✕○▶‖·…\N{MULTIPLICATION SIGN}◷█", "+xo>=-~x!#")
"""What stands for a sign where the encoding has none."""


def printable(text: str, *, encoding: str) -> str:
    """Return a text with signs this encoding has."""
    return text if "utf" in encoding.lower() else text.translate(PLAIN_SIGNS)


def first_visible(*texts: str | None) -> str:
    """Return the first of these names or errors that is not blank, else an empty text."""
    return next((text for text in texts if text and text.strip()), "")


def harmless(text: str) -> str:
    """Return a text on one line with nothing a terminal would obey: control characters are shown by their codes."""
    return "".join(each if each.isprintable() else _shown(each) for each in text)


def _shown(character: str) -> str:
    return " " if character.isspace() else character.encode("unicode_escape").decode()
