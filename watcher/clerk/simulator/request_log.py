"""What the simulator was asked and what it answered, for tests to compare with. Holds no secret; keys are numbered."""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from watcher.clerk.simulator.faults import Fault

KEPT_COUNT = 500_000
"""Older entries are forgotten, so that a simulator can run for days; their counts stay."""

KEPT_PAGES_COUNT = 20_000
"""Of older pages it is forgotten what they answered."""

_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(slots=True)
class LoggedRequest:
    """One request. `at` is when it came, in monotonic seconds.

    `key` is the place of the API key among those that are valid, `None` for any other. `code` is missing while there is
    no answer, and for ever after a reset. `answered` is the status a client could read from the answer, `truth` the one
    the execution had. `rows` are the statuses a page answered, by execution; only the last pages have them.
    """

    at: float
    key: int | None
    endpoint: str
    pipeline: str | None = None
    execution: str | None = None
    code: int | None = None
    fault: Fault | None = None
    answered: str | None = None
    truth: str | None = None
    rows: Mapping[str, str] | None = None


class RequestLog:
    """Every request, in the order they came."""

    def __init__(self, *, kept_count: int = KEPT_COUNT, kept_pages_count: int = KEPT_PAGES_COUNT) -> None:
        """Start blank."""
        self._kept_pages_count = kept_pages_count
        self.entries: deque[LoggedRequest] = deque(maxlen=kept_count)
        self.served_count = 0
        self._pages: deque[LoggedRequest] = deque()
        self._troubles: Counter[str] = Counter()

    def open(self, entry: LoggedRequest) -> LoggedRequest:
        """Write down a request that came; what becomes of it is filled in later."""
        self.entries.append(entry)
        self.served_count += 1
        return entry

    def close(self, entry: LoggedRequest) -> None:
        """Count a request by how it was answered."""
        if trouble := _trouble(entry):
            self._troubles[trouble] += 1

    def note_page(self, entry: LoggedRequest, *, rows: Mapping[str, str]) -> None:
        """Write down what a page answered."""
        entry.rows = rows
        self._pages.append(entry)
        if len(self._pages) > self._kept_pages_count:
            self._pages.popleft().rows = None

    def lines(self) -> Iterator[dict[str, object]]:
        """Go through the entries as plain values."""
        return (asdict(entry) for entry in self.entries)

    def summary(self) -> str:
        """Return one line for people: how many requests came, and how many had which trouble."""
        troubles = " ".join(f"{name}{_TIMES}{count}" for name, count in sorted(self._troubles.items()))
        return f"served {self.served_count} · {troubles}".rstrip(" ·")


def _trouble(entry: LoggedRequest) -> str | None:
    if entry.code is not None and entry.code >= 500:
        return "5xx"
    if entry.code is not None and entry.code >= 300:
        return str(entry.code)
    return None if entry.fault is None else entry.fault.value
