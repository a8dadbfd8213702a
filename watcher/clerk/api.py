"""The client of the Clerk Chat API: its requests, and the meaning of its status codes. `schemas` parses the bodies."""

import asyncio
from calendar import timegm
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import parsedate
from functools import partial
from typing import Any, NamedTuple

from yarl import URL

from watcher.clerk.schemas import QUICK_BYTES, ApiDates, ParsedPage, UnreadableError, parse_execution, parse_page
from watcher.domain.errors import TransportFailedError
from watcher.domain.execution import ExecutionSnapshot, Outcome
from watcher.domain.timestamps import Micros, Monotonic, from_us
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import Client
from watcher.runtime.pacing import parse_retry_after


class Reply(NamedTuple):
    """The result of one request. For a poll, `execution` is set if `outcome` is `ok` and the body is not the known one.

    `body_hash` is the hash of a body that could be parsed. `sent_at` is when the request was sent (monotonic).
    `retry_after_s` is the `Retry-After` of the answer in seconds. Without an answer there is no `status_code`. `reason`
    is a fixed word for the log that names the failure.

    For a page, `rows` are set if and only if `outcome` is `ok`, in the API's order. If the body equals that of the
    known page, `rows` is the same object as in the known reply. `skipped` more rows could not be parsed. `total` is the
    number of rows that the API names for the whole list, true or not.

    The API's clock was ahead of our steady clock by `ahead_us`. `began_at` and `ended_at` in this reply are converted
    by this offset.
    """

    outcome: Outcome
    sent_at: Monotonic
    execution: ExecutionSnapshot | None = None
    status_code: int | None = None
    retry_after_s: float | None = None
    reason: str | None = None
    body_hash: int | None = None
    rows: tuple[ExecutionSnapshot, ...] | None = None
    skipped: int = 0
    total: int | None = None
    ahead_us: int = 0


PAGE_ROWS = 50
"""The number of rows in a page, and the most that the API returns."""


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


SECOND_US = 1_000_000
"""The precision of a `Date` (microseconds): it has no fractions of a second."""

TOLERANCE_US = 2_000_000
"""The deviation (microseconds) of an answer's `Date` up to which the known offset of the API's clock is kept.

A new offset at each small deviation could change the order of the ends on two pages.
"""


_Found = ExecutionSnapshot | ParsedPage


class ClerkApi:
    """The Clerk Chat API with one key.

    `ahead_us` is the time (microseconds) by which the API's clock is ahead of our steady clock (negative: behind), and
    `None` before the first success. Only the `Date` of a success counts: a gateway writes its own `Date` on errors.
    """

    def __init__(self, client: Client, *, base_url: str, clock: Clock) -> None:
        """Take the base URL, with or without a trailing slash."""
        self._client = client
        self._base_url = URL(base_url, encoded=True)
        self._path = self._base_url.raw_path.rstrip("/")
        self._clock = clock
        self.ahead_us: int | None = None
        self._date: str | None = None  # the `Date` of the last success, if it had one
        # One thread, started when needed: answers that are slow to parse delay only those of this key.
        self._parser_thread = ThreadPoolExecutor(1, thread_name_prefix="clerk-api")

    def get(self, *, pipeline: str, execution: str, known_hash: int | None = None) -> Coroutine[Any, Any, Reply]:
        """Fetch one execution by lower-case ids. A failure is a reply, too. A body with `known_hash` is not parsed."""
        parse = partial(parse_execution, asked=execution)
        return self._ask(f"{pipeline}/executions/{execution}", parse=parse, known_hash=known_hash)

    def list(self, *, pipeline: str, page: int, known: Reply | None = None) -> Coroutine[Any, Any, Reply]:
        """Fetch one page of a pipeline's list; pages count from 1. Failures are replies, too.

        A body that equals the body of the reply `known` is not parsed.
        """
        query = f"limit={PAGE_ROWS}&page={page}"
        known_hash = None if known is None else known.body_hash
        return self._ask(f"{pipeline}/executions", query, parse=parse_page, known_hash=known_hash, known=known)

    async def _ask(
        self,
        what: str,
        query: str = "",
        *,
        parse: Callable[..., _Found],
        known_hash: int | None,
        known: Reply | None = None,
    ) -> Reply:
        url = self._base_url.with_path(f"{self._path}/public/pipelines/{what}", encoded=True)
        sent_at = self._clock.monotonic()

        async def read(body: bytes, date: str | None) -> tuple[_Found | None, int, ApiDates]:
            """Parse a small body here, a large one in the thread, and a body with the known hash not at all.

            Python keys the hash with a secret of the process, so nobody can make two bodies with the same hash.
            """
            body_hash, dates = hash(body), self._dates(date, sent_at=sent_at)
            if body_hash == known_hash:
                return None, body_hash, dates
            if len(body) <= QUICK_BYTES:
                return parse(body, dates=dates), body_hash, dates
            in_thread = partial(parse, body, dates=dates)
            return await asyncio.get_running_loop().run_in_executor(self._parser_thread, in_thread), body_hash, dates

        try:
            response = await self._client.get(url.with_query(query) if query else url, read=read)
        except TransportFailedError as failure:
            return Reply(_FAILURES.get(failure.kind, Outcome.CONNECTION), sent_at, reason=failure.kind)
        except UnreadableError as error:
            return Reply(Outcome.INVALID, sent_at, status_code=200, reason=str(error))
        code = response.status_code
        if response.found is not None:
            found, body_hash, dates = response.found
            self.ahead_us, self._date = dates.ahead_us, response.date
            if isinstance(found, ParsedPage):
                return Reply(Outcome.OK, sent_at, None, code, None, None, body_hash, *found, dates.ahead_us)
            if found is None and known is not None:
                return known._replace(sent_at=sent_at)
            return Reply(Outcome.OK, sent_at, found, code, body_hash=body_hash, ahead_us=dates.ahead_us)
        at = _moment(response.date)  # of this answer, because its Retry-After is by the same clock
        at = Micros(self._clock.steady_us() + (self.ahead_us or 0)) if at is None else at
        retry_after_s = parse_retry_after(response.retry_after, now=from_us(at))
        outcome = _OUTCOMES.get(code) or _CLASSES.get(code // 100) or Outcome.INVALID
        return Reply(outcome, sent_at, status_code=code, retry_after_s=retry_after_s, reason=f"status_{code}")

    def _dates(self, date: str | None, *, sent_at: Monotonic) -> ApiDates:
        """Return the conversion of an answer's dates into our clock.

        The last offset is kept if the API can have written this answer's `Date` between request and answer. Otherwise
        the offset is measured again with this `Date`.
        """
        now, ahead_us = self._clock.steady_us(), self.ahead_us
        if date != self._date and (at := _moment(date)) is not None:
            least_us = at - now
            most_us = least_us + SECOND_US + round((self._clock.monotonic() - sent_at) * 1e6)
            if ahead_us is None or not least_us - TOLERANCE_US <= ahead_us <= most_us + TOLERANCE_US:
                ahead_us = least_us
        return ApiDates(ahead_us or 0, now)


def _moment(date: str | None) -> Micros | None:
    """Return the time in a `Date` header; `None` if the header is absent or malformed."""
    with suppress(ArithmeticError, LookupError, TypeError, ValueError):  # raised for malformed text
        return Micros(timegm(parsedate(date or "") or ()) * 1_000_000)
    return None
