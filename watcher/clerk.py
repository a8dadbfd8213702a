"""The Clerk Chat API: what is asked of it, and what its codes mean. What its answers look like is `wire`'s."""

from typing import NamedTuple

from yarl import URL

from watcher.client import Client
from watcher.clock import Clock
from watcher.errors import TransportFailedError
from watcher.models import Outcome
from watcher.ports.api import PAGE_ROWS, PageReply, Reply
from watcher.retry import parse_retry_after
from watcher.wire import flaw_of_execution, flaw_of_page, parse_execution, parse_page

_OUTCOMES = {
    400: Outcome.REJECTED,
    401: Outcome.UNAUTHORIZED,
    403: Outcome.FORBIDDEN,
    404: Outcome.NOT_FOUND,
    408: Outcome.TIMEOUT,
    410: Outcome.NOT_FOUND,
    422: Outcome.REJECTED,
    429: Outcome.RATE_LIMITED,
}
_CLASSES = {3: Outcome.REDIRECT, 5: Outcome.SERVER_ERROR}
_FAILURES = {"timeout": Outcome.TIMEOUT, "truncated": Outcome.INVALID, "too_large": Outcome.INVALID}


def outcome_of(status_code: int) -> Outcome:
    """Return what a status code other than 200 means (SPEC 4)."""
    return _OUTCOMES.get(status_code) or _CLASSES.get(status_code // 100) or Outcome.INVALID


class _Heard(NamedTuple):
    """What came of one request, before its body is read; `body` is there if and only if `outcome` is `ok`."""

    outcome: Outcome
    sent_at: float
    body: bytes | None = None
    status_code: int | None = None
    retry_after_s: float | None = None
    reason: str | None = None


class ClerkApi:
    """Clerk Chat with one key, over one client."""

    def __init__(self, client: Client, *, base_url: str, clock: Clock) -> None:
        """Take the base URL without a trailing slash."""
        self._client = client
        self._base_url = URL(base_url, encoded=True)
        self._path = self._base_url.raw_path.rstrip("/")
        self._clock = clock

    async def get(self, *, pipeline: str, execution: str) -> Reply:
        """Fetch one execution by lower-case ids. Trouble is a `Reply` too."""
        outcome, sent_at, body, code, retry_after_s, reason = await self._ask(f"{pipeline}/executions/{execution}")
        if body is None:
            return Reply(outcome, sent_at, None, code, retry_after_s, reason)
        found = parse_execution(body, asked=execution)
        if found is None:
            return Reply(Outcome.INVALID, sent_at, None, code, reason=flaw_of_execution(body))
        return Reply(Outcome.OK, sent_at, found, code)

    async def list(self, *, pipeline: str, page: int) -> PageReply:
        """Fetch one page of a pipeline's list, the first is 1. Trouble is a `PageReply` too."""
        query = f"limit={PAGE_ROWS}&page={page}"
        outcome, sent_at, body, code, retry_after_s, reason = await self._ask(f"{pipeline}/executions", query)
        if body is None:
            return PageReply(outcome, sent_at, None, 0, None, code, retry_after_s, reason)
        found = parse_page(body)
        if found is None:
            return PageReply(Outcome.INVALID, sent_at, None, status_code=code, reason=flaw_of_page(body))
        return PageReply(Outcome.OK, sent_at, *found, code)

    async def _ask(self, what: str, query: str = "") -> _Heard:
        url = self._base_url.with_path(f"{self._path}/public/pipelines/{what}", encoded=True)
        sent_at = self._clock.monotonic()
        try:
            response = await self._client.get(url.with_query(query) if query else url)
        except TransportFailedError as failure:
            return _Heard(_FAILURES.get(failure.kind, Outcome.CONNECTION), sent_at, reason=failure.kind)
        code = response.status_code
        if code == 200:  # noqa: PLR2004 (HTTP)
            return _Heard(Outcome.OK, sent_at, response.body, code)
        retry_after_s = parse_retry_after(response.retry_after, now=self._clock.now())
        return _Heard(outcome_of(code), sent_at, None, code, retry_after_s, f"status_{code}")
