"""The API that is watched, as its owners see it: one request, one answer."""

from typing import NamedTuple, Protocol

from watcher.domain.execution import ExecutionSnapshot, Outcome
from watcher.domain.timestamps import Monotonic


class Reply(NamedTuple):
    """What became of one request. `execution` is there if `outcome` is `ok` and the body is not the one that is known.

    `body_hash` is that of a body that could be read. `sent_at` is a monotonic reading taken just before the request
    went out; `retry_after_s` is the server's wish, as it gave it; `status_code` is absent when there was no answer.
    `reason` is a word of ours for the log: why there is no execution.
    """

    outcome: Outcome
    sent_at: Monotonic
    execution: ExecutionSnapshot | None = None
    status_code: int | None = None
    retry_after_s: float | None = None
    reason: str | None = None
    body_hash: int | None = None


PAGE_ROWS = 50
"""How many rows of a list are asked for at once: the most the API gives."""


class PageReply(NamedTuple):
    """What became of one request for a page of a list. `rows` are there if and only if `outcome` is `ok`.

    They come in the API's order, the very objects of the page that is known if its body was the same; `skipped` more
    were on the page, unreadable. `total` is what the API says the whole list holds, true or not. The other fields are
    as in `Reply`.
    """

    outcome: Outcome
    sent_at: Monotonic
    rows: tuple[ExecutionSnapshot, ...] | None = None
    skipped: int = 0
    total: int | None = None
    status_code: int | None = None
    retry_after_s: float | None = None
    reason: str | None = None
    body_hash: int | None = None


Answer = Reply | PageReply
"""What a reply says of the account it was asked for is the same in both."""


class Api(Protocol):
    """The Clerk Chat API with one key. Trouble is a reply, never an exception; only cancellation comes through."""

    async def get(self, *, pipeline: str, execution: str, known_hash: int | None = None) -> Reply:
        """Fetch one execution. A body with the known hash is not read."""
        ...

    async def list(self, *, pipeline: str, page: int, known: PageReply | None = None) -> PageReply:
        """Fetch one page of a pipeline's list; the first is page 1. A body like that of the known reply is not read."""
        ...

    @property
    def ahead_us(self) -> int:
        """By how much its clock is ahead of our steady one (below 0: behind); 0 if nobody knows."""
        ...
