"""The search of `watcher wait --next` for the execution to follow, in pages of the pipeline's list. Pure, no I/O."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from watcher.clerk.api import Reply
from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.timestamps import NEVER, Micros

_NO_START = datetime.max.replace(tzinfo=UTC)
"""The sort key of an execution without a start: after all others."""


@dataclass(slots=True)
class NextSearch:
    """The search for the earliest execution, on the pages it reads, that started at `since_at` (steady clock) or later.

    Request `page` and pass the reply to `take`, until `take` returns an id. Each round reads the first and the last
    page, because the list may be in either order.

    An execution without a usable start counts as started when a round first shows it. The first round shows old
    executions, too, so such a row of the first round does not count until it has a start.

    An execution that had ended before the search began at `began_at` is probably not the one that was just triggered:
    it does not count in the first round, and later only if no other one does.
    """

    since_at: Micros
    began_at: Micros
    conversation_id: str | None = None
    """In lower case. Without it the executions of all conversations count."""
    page: int = 1
    _pages: list[tuple[ExecutionSnapshot, ...]] = field(default_factory=list)
    _seen: set[str] | None = None
    """The ids in all rounds that could be read, `None` before the first one."""

    def take(self, reply: Reply) -> str | None:
        """Take the reply for `page`. Return the id of the execution to follow, `None` if the search goes on.

        If the last page cannot be read, the first page decides: in either order it shows the earliest start that counts
        unless all of its rows count.
        """
        if reply.rows is not None:
            self._pages.append(reply.rows)
            count, total = len(reply.rows) + reply.skipped, reply.total or 0
            if self.page == 1 and 0 < count < total:
                self.page = -(-total // count)
                return None
        found = self._choose() if self._pages else None
        if reply.rows is not None:
            self._seen = (self._seen or set()).union(row.id for page in self._pages for row in page)
        self.page, self._pages = 1, []
        return found

    def _choose(self) -> str | None:
        """Return the id of the earliest execution that counts. Equal starts go by id."""
        rows = [
            row for page in self._pages for row in page if row.began_at is not None and row.began_at >= self.since_at
        ]
        if self._seen is not None:
            # Rows can move onto the page with the oldest rows, so a new id there may be an old execution.
            newest_page = max(self._pages, key=lambda page: max((row.began_at or NEVER for row in page), default=NEVER))
            rows += [row for row in newest_page if row.began_at is None and row.id not in self._seen]
        if self.conversation_id is not None:
            rows = [row for row in rows if (row.conversation_id or "").lower() == self.conversation_id]
        first = min(rows, key=lambda row: (self._is_over(row), row.started_at or _NO_START, row.id), default=None)
        return None if first is None or (self._seen is None and self._is_over(first)) else first.id

    def _is_over(self, row: ExecutionSnapshot) -> bool:
        """Return whether an execution had ended before the search began."""
        return row.ended_at is not None and row.ended_at < self.began_at
