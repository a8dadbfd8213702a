"""Did you mean: the nearest of a few known words."""

from collections.abc import Iterable

FARTHEST = 2
"""Edits a word may be away and still be meant."""


def distance(left: str, right: str) -> int:
    """Return the edit distance (Levenshtein)."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word at most two edits away, fewer than the word is long; `None` if there is none."""
    near = [(distance(word.lower(), each), each) for each in known if abs(len(word) - len(each)) <= FARTHEST]
    edits, best = min(near, default=(len(word), ""))
    return best if edits <= FARTHEST and edits < len(word) else None


def did_you_mean(word: str, known: Iterable[str], *, rest: str) -> str:
    """Return `rest`, behind `did you mean "…"?` if there is a near word."""
    best = nearest(word, known)
    return f'did you mean "{best}"? {rest[0].upper()}{rest[1:]}' if best else rest
