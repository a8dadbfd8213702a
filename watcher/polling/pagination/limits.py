"""When a scan is a race that is lost, or its list has no order. Pure counting."""

TURNS_AT_MOST = 3
"""A list that turns over more often than that while it is read has no order."""


class Limits:
    """Counts the pages of one scan that lead no further, against how many there may be."""

    def __init__(self, pages_at_most: int) -> None:
        """Begin with none."""
        self._pages_at_most = pages_at_most
        self._turn_count = 0
        self._stalled_count = 0
        self._unproven_count = 0
        self._extra_count = 0

    def turn(self) -> bool:
        """Count that the list turned over, and tell whether to follow it, once more too often."""
        self._turn_count += 1
        return self._turn_count <= TURNS_AT_MOST + 1

    def read(self, *, is_further: bool) -> None:
        """Count a page that led further down, or did not: new rows push pages along."""
        self._stalled_count = max(0, self._stalled_count - 1) if is_further else self._stalled_count + 1

    def judge(self, *, is_unproven: bool) -> None:
        """Count a page at which no order shows."""
        self._unproven_count += is_unproven

    def read_on(self) -> None:
        """Count a page that is read though everything was seen."""
        self._extra_count += 1

    @property
    def turns_too_often(self) -> bool:
        """Whether the list turns over so often that it has no order."""
        return self._turn_count > TURNS_AT_MOST

    @property
    def is_unordered(self) -> bool:
        """Whether more pages were read without an order than may be."""
        return self._unproven_count >= self._pages_at_most

    @property
    def is_outrun(self) -> bool:
        """Whether more pages led no further down than may be."""
        return self._stalled_count >= self._pages_at_most

    def may_read_on(self, count: int | None = None) -> bool:
        """Tell whether fewer pages than so many, or than may be, were read though everything was seen."""
        return self._extra_count < (self._pages_at_most if count is None else count)
