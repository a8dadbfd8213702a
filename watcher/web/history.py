"""The history of pipelines: read from the store for pages, reports and the API, and its models."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from functools import partial
from heapq import nlargest
from itertools import starmap
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, create_model
from pydantic_core import from_json
from sqlalchemy import Connection, Select, Table, bindparam, func, select, text, union_all

from watcher.config.checks import fits
from watcher.domain.execution import END_LABELS
from watcher.domain.history import (
    COUNTS,
    DAY_US,
    HOUR_US,
    Totals,
    has_changed,
    kind_without_node,
    period_start,
    sum_up,
)
from watcher.domain.timestamps import Micros, from_us
from watcher.store.history import counts_in, totals_in
from watcher.store.sources import names_of
from watcher.store.sql_store import SqlStore
from watcher.store.tables import pipeline_day, pipeline_hour
from watcher.web.console import Console
from watcher.web.models import ApiModel, CsvQuery, Id, PipelineRef, Span, Time
from watcher.web.silences import load_past_silences

ERROR_ROWS_COUNT = 20_000
"""The most rows of `error_kind` that are read for one answer, those of the newest days first."""

FREQUENT_COUNT = 5
"""Most kinds of errors that are returned with the history of a pipeline, the most frequent first."""

PIPELINES_COUNT = 100
"""The most pipelines whose totals are read in one transaction: others read in between, and the memory is bounded."""

NO_END = Micros(2**62)

PROBLEMS_COUNT = 100
"""Most problems, and most windows of silences, that are returned with the history of a pipeline."""

WEEK_BAR_US = 6 * HOUR_US
"""The length of a bar in the graph of 7 d on a pipeline's page.

The overview counts its rate of 7 d over the same bars, so that both pages show the same rate.
"""


def _in_range(seconds: float) -> float:
    if not 3_600 <= seconds <= 90 * 86_400:
        raise ValueError("must be from 1h to 90d")
    return seconds


PastSpan = Annotated[Span, AfterValidator(_in_range)]
PAST_SPAN = Field(default=86_400.0, json_schema_extra={"default": "24h"})


class HistoryQuery(CsvQuery):
    """The span of a history until now, rounded up to whole hours or days."""

    span: PastSpan = PAST_SPAN
    """Length of the span, from `1h` to `90d`."""


class _EndCounts(ApiModel):
    """Numbers of executions that ended, by status."""

    success: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        """Return how many ended."""
        return sum(self.model_dump().values())


_OTHER_LABELS: dict[str, Any] = {label: (int, 0) for label in END_LABELS if label not in _EndCounts.model_fields}
EndCounts = create_model("EndCounts", __base__=_EndCounts, __doc__=_EndCounts.__doc__, **_OTHER_LABELS)


class HistoryPeriod(ApiModel):
    """The counts of a period. It is not `known` if the pipeline was not watched then, or its state was unknown."""

    from_: Time = Field(alias="from")
    until: Time
    known: bool
    started: int
    ended: EndCounts
    median_seconds: float | None = None
    """The median duration of successes, within 5 %."""
    p95_seconds: float | None = None
    """The 95th percentile of the durations of successes, within 5 %."""
    tokens: int


class ErrorCount(ApiModel):
    """A kind of error: failures in one node whose texts differ only in ids, numbers and the like.

    `text` is the newest of these texts, `count` the number of failures on whole days (UTC).
    """

    fingerprint: Annotated[str, BeforeValidator(lambda digest: digest.hex() if isinstance(digest, bytes) else digest)]
    node: str | None = None
    text: str
    count: int
    last_at: Time
    is_new: bool
    """Whether the kind was first seen within the last 24 h, although the history is known for longer."""


class PastProblem(ApiModel):
    """A problem of the pipeline itself that was open within the span."""

    id: Id
    kind: str
    opened_at: Time
    closed_at: Time | None = None


class SilencedTime(ApiModel):
    """A window of a silence that may concern the pipeline; its end may lie ahead."""

    from_: Time = Field(alias="from")
    until: Time
    what: str
    """The silenced part, and the reason: `silenced at phone: deploy`."""


class History(ApiModel):
    """The history of a pipeline: by the hour up to `7d`, else by the day (UTC); the running period is the last.

    `errors` are the five most frequent kinds, `problems` at most 100, the last opened first, `silences` the last 100
    windows of silences, in their order.
    """

    account: str
    pipeline: PipelineRef
    from_: Time = Field(alias="from")
    until: Time
    """The end of the running hour or day."""
    known_from: Time | None = None
    """Time since which the history is known; absent if it is not known yet."""
    periods: Sequence[HistoryPeriod]
    total: HistoryPeriod
    before: HistoryPeriod | None = None
    """The counts of the span of the same length before; absent unless that whole span is known."""
    rate_has_changed: bool = False
    """Whether the success rate differs from that of `before` by more than chance explains (p < 0.05)."""
    errors: Sequence[ErrorCount]
    problems: Sequence[PastProblem]
    silences: Sequence[SilencedTime] = ()


_OF_PIPELINE = "(SELECT id FROM source WHERE kind = 'pipeline' AND name = :name)"
_HOURS = text(f"SELECT * FROM pipeline_hour WHERE pipeline_id = {_OF_PIPELINE} AND from_at >= :since")
_OPEN_STARTS = text(
    f"SELECT started_at - started_at % {HOUR_US} AS from_at, count(*) AS started FROM execution"
    f" WHERE pipeline_id = {_OF_PIPELINE} AND ended_at IS NULL AND started_at >= :since GROUP BY 1"
)
_KNOWN_FROM = text(f"SELECT known_from FROM scan WHERE pipeline_id = {_OF_PIPELINE}")
_FIRST_HOUR = text(f"SELECT min(from_at) FROM pipeline_hour WHERE pipeline_id = {_OF_PIPELINE}")
# The rows are sorted in Python: our PostgreSQL sessions disable sorts, so that no page sorts a whole table.
_ERRORS = (
    "SELECT source.name AS pipeline_name, newest.fingerprint, newest.node, newest.text, frequent.failed_count,"
    " frequent.last_at FROM (SELECT pipeline_id, fingerprint, max(from_at) AS from_at,"
    " sum(failed_count) AS failed_count, max(last_at) AS last_at FROM"
    f" (SELECT * FROM error_kind WHERE from_at >= :since AND from_at < :until AND {{}} ORDER BY from_at DESC"
    f" LIMIT {ERROR_ROWS_COUNT}) AS looked_at GROUP BY pipeline_id, fingerprint) AS frequent"
    " JOIN error_kind AS newest ON newest.pipeline_id = frequent.pipeline_id AND newest.from_at = frequent.from_at"
    " AND newest.fingerprint = frequent.fingerprint JOIN source ON source.id = frequent.pipeline_id"
)
_ERRORS_OF_PIPELINE = text(_ERRORS.format(f"pipeline_id = {_OF_PIPELINE}"))
_ALL_ERRORS = text(_ERRORS.format("true"))
_FIRST_SEEN = text(
    f"SELECT min(first_at) FROM error_kind WHERE pipeline_id = {_OF_PIPELINE} AND fingerprint IN (:fingerprint, :alone)"
)
_PROBLEMS_SINCE = text(
    f"SELECT id, kind, opened_at, closed_at FROM problem WHERE pipeline_id = {_OF_PIPELINE} AND execution IS NULL"
    f" AND (closed_at IS NULL OR closed_at >= :since) ORDER BY opened_at DESC LIMIT {PROBLEMS_COUNT}"
)


def _periods(table: Table, since: str, until: str) -> Select[Any]:
    of_pipelines = table.c.pipeline_id.in_(bindparam("pipelines", expanding=True))
    return select(table).where(of_pipelines, table.c.from_at >= bindparam(since), table.c.from_at < bindparam(until))


# Whole days of a span are read by the day, the rest by the hour: 30 d have 29 days and 24 hours, not 720 hours.
_SPAN = union_all(
    _periods(pipeline_hour, "since", "first_day"),
    _periods(pipeline_day, "first_day", "last_day"),
    _periods(pipeline_hour, "last_day", "until"),
).subquery()
_TOTALS = select(_SPAN.c.pipeline_id, *(func.sum(_SPAN.c[name]).label(name) for name in COUNTS)).group_by(
    _SPAN.c.pipeline_id
)
# The durations of all periods are one list: one row per period would take twice as long.
_TOTALS_WITH_DURATIONS = _TOTALS.add_columns(func.aggregate_strings(_SPAN.c.durations, ",").label("durations"))


class FrequentError(NamedTuple):
    """A kind of error with its newest text, the number of its failures, and the time of the last (microseconds UTC)."""

    pipeline_name: str
    fingerprint: bytes
    node: str | None
    text: str
    failed_count: int
    last_at: Micros


class PipelineHistory(NamedTuple):
    """The history of a pipeline from some time on. Times are microseconds UTC, those of problems on the wall clock."""

    hours: Mapping[Micros, Totals]
    """The counts of each hour in which something happened, by the start of the hour."""
    first_at: Micros | None
    """The start of the first hour of the pipeline that the store still has."""
    known_from: Micros | None
    """The time from which on the history is known, of a pipeline that is watched whole.

    `None` before the first complete scan, and for a pipeline that is not watched whole.
    """
    errors: Sequence[tuple[FrequentError, Micros]]
    """The most frequent kinds of errors, counted over whole days, each with the time when its text was first seen.

    The text may have been seen first in another node, or without a node: lists do not name the node.
    """
    problems: Sequence[PastProblem]
    """The pipeline's own problems (not those of its executions) that were open at some time in this span."""


async def load_history(store: SqlStore, pipeline: str, *, since: Micros) -> PipelineHistory:
    """Return the history of a pipeline (account/id) from the start of the hour that contains `since`.

    Raises `StoreError`.
    """
    of_it = {"name": pipeline, "since": period_start(since, HOUR_US)}
    days = {"name": pipeline, "since": period_start(since, DAY_US), "until": NO_END}

    def read(connection: Connection) -> PipelineHistory:
        hours = {Micros(row.from_at): totals_in(row) for row in connection.execute(_HOURS, of_it)}
        for row in connection.execute(_OPEN_STARTS, of_it):
            hours.setdefault(Micros(row.from_at), Totals()).counts["started"] += row.started
        first_at = min(filter(None, (connection.scalar(_FIRST_HOUR, of_it), *hours)), default=None)
        known_from = connection.scalar(_KNOWN_FROM, of_it)
        errors = []
        for kind in _most_frequent(connection.execute(_ERRORS_OF_PIPELINE, days), since, FREQUENT_COUNT):
            both = {"fingerprint": kind.fingerprint, "alone": kind_without_node(kind.text).fingerprint}
            first_seen_at = connection.scalar(_FIRST_SEEN, {"name": pipeline, **both})
            errors.append((kind, Micros(first_seen_at or kind.last_at)))
        problems = [PastProblem(**row._asdict()) for row in connection.execute(_PROBLEMS_SINCE, of_it)]
        return PipelineHistory(hours, first_at, known_from, errors, problems)

    return await store.read(read)


async def load_frequent_errors(
    store: SqlStore, *, since: Micros, until: Micros, limit: int, of: Iterable[str] | None = None
) -> Sequence[FrequentError]:
    """Return the most frequent kinds of errors of all pipelines, from the start of the day (UTC) of `since` on.

    With `of` they are those of these pipelines (account/id). Raises `StoreError`.
    """
    days = {"since": period_start(since, DAY_US), "until": until}
    if of is None:
        return await store.read(lambda connection: _most_frequent(connection.execute(_ALL_ERRORS, days), since, limit))
    rows: list[Sequence[Any]] = []

    def read(connection: Connection, name: str) -> None:
        rows.extend(connection.execute(_ERRORS_OF_PIPELINE, {**days, "name": name}))

    for name in of:  # not in one statement: the rows that it examines are bounded, and those of others would fill it
        await store.read(partial(read, name=name))
    return _most_frequent(rows, since, limit)


async def load_totals(
    store: SqlStore, pipelines: AbstractSet[str], *, since: Micros, until: Micros = NO_END, with_durations: bool = False
) -> Mapping[str, Totals]:
    """Return the totals of pipelines (account/id) over the hours that begin at `since` or later, and before `until`.

    Executions that have not ended are not counted. A pipeline without counts is missing. Raises `StoreError`.
    """
    first_day = min(until, period_start(Micros(since + DAY_US - 1), DAY_US))
    last_day = max(first_day, period_start(until, DAY_US))
    span = {"since": since, "first_day": first_day, "last_day": last_day, "until": until}
    names = await store.read(lambda connection: names_of(connection, "pipeline"))
    numbers, found = [number for number, name in names.items() if name in pipelines], {}
    statement = _TOTALS_WITH_DURATIONS if with_durations else _TOTALS

    def read(connection: Connection, some: Sequence[int]) -> None:
        for row in connection.execute(statement, {**span, "pipelines": some}):
            durations = defaultdict[str, int](int)
            for of_period in from_json(f"[{row.durations}]") if with_durations else ():
                for bucket, count in of_period.items():
                    durations[bucket] += count
            in_buckets = Counter({int(bucket): count for bucket, count in durations.items()})
            found[names[row.pipeline_id]] = Totals(counts_in(row), in_buckets)

    for start in range(0, len(numbers), PIPELINES_COUNT):
        some = numbers[start : start + PIPELINES_COUNT]
        await store.read(partial(read, some=some))
    return found


async def load_rates(store: SqlStore, pipelines: AbstractSet[str]) -> Mapping[str, tuple[int, int, int, int]]:
    """Return how many executions of each pipeline succeeded, and how many ended, within 24 h and within 7 d.

    Raises `StoreError`.
    """
    now = store.clock.steady_us()
    of_day = await load_totals(store, pipelines, since=Micros(period_start(now, HOUR_US) - 23 * HOUR_US))
    of_week = await load_totals(store, pipelines, since=Micros(period_start(now, WEEK_BAR_US) - 27 * WEEK_BAR_US))
    both = ((name, of_day.get(name, Totals()), week) for name, week in of_week.items())
    return {name: (day.success, day.ended, week.success, week.ended) for name, day, week in both}


def _most_frequent(rows: Iterable[Sequence[Any]], since: Micros, limit: int) -> Sequence[FrequentError]:
    """Return the most frequent kinds of errors that were seen since `since`.

    Lists do not name the failed node, so failures without a node count to the most frequent kind of the same text.
    """
    by_count = attrgetter("failed_count", "last_at")
    seen = sorted((each for each in starmap(FrequentError, rows) if each.last_at >= since), key=by_count, reverse=True)
    alone = {(each.pipeline_name, each.fingerprint): each for each in seen if each.node is None}
    pipelines = {name for name, _ in alone}
    found: list[FrequentError] = []
    for each in seen:
        same = None
        if each.node is not None and each.pipeline_name in pipelines:
            same = alone.pop((each.pipeline_name, kind_without_node(each.text).fingerprint), None)
        if same is not None:
            newest, count = max(each, same, key=attrgetter("last_at")), each.failed_count + same.failed_count
            found.append(each._replace(text=newest.text, last_at=newest.last_at, failed_count=count))
        elif each.node is not None:
            found.append(each)
    return nlargest(limit, [*found, *alone.values()], by_count)


async def find_history(console: Console, name: str, *, span_us: int, length_us: int) -> History:
    """Return the history of a pipeline (account/id) over a span until now, in periods of `length_us`.

    The pipeline must be one of `console.pipelines`.
    """
    pipeline, now = console.pipelines[name], console.clock.steady_us()
    until = Micros(period_start(now, length_us) + length_us)
    from_at = Micros(until + -span_us // length_us * length_us)  # rounded up to whole periods, the last of them running
    found = await load_history(console.store, name, since=from_at)
    kept_from = Micros(period_start(now, HOUR_US) - round(console.settings().store.retention_s * 1e6))
    # If only named executions of the pipeline are watched, its history is known from the first of them on.
    first_at = found.known_from if pipeline.whole else found.first_at
    known_from = until if first_at is None else max(first_at, kept_from)
    known_until = until if pipeline.unknown_since is None else pipeline.unknown_since
    parts, total = [], Totals()
    for start in map(Micros, range(from_at, until, length_us)):
        end = Micros(start + length_us)
        totals = sum_up(found.hours, start, end)
        is_known = (known_from < end and start < known_until) or bool(totals.started or totals.ended)
        parts.append(_period(start, end, totals, is_known=is_known))
        total.add(totals)
    before, before_at, of_before = None, Micros(from_at - (until - from_at)), Totals()
    if known_from <= before_at:
        of_before = sum_up((await load_history(console.store, name, since=before_at)).hours, before_at, from_at)
        before = _period(before_at, from_at, of_before, is_known=True)
    day_ago = now - DAY_US
    return History(
        account=pipeline.account,
        pipeline=PipelineRef(id=pipeline.id, name=pipeline.name),
        from_=from_at,
        until=until,
        known_from=None if first_at is None else known_from,
        periods=parts,
        total=_period(from_at, until, total, is_known=any(each.known for each in parts)),
        before=before,
        rate_has_changed=has_changed(total, of_before),
        errors=[
            ErrorCount(**row._asdict(), count=row.failed_count, is_new=known_from <= day_ago < first_seen_at)
            for row, first_seen_at in found.errors
        ],
        problems=found.problems,
        silences=await _silenced(console, name, since=from_us(from_at)),
    )


async def _silenced(console: Console, name: str, *, since: datetime) -> Sequence[SilencedTime]:
    watch, silences = console.watches()[name], await load_past_silences(console, since=since, until=console.clock.now())
    of_it = [each for each in silences if fits(watch, each.settings.match)]
    return [SilencedTime(from_=each.begins_at, until=each.ends_at, what=each.words) for each in of_it[-PROBLEMS_COUNT:]]


def _period(from_at: Micros, until: Micros, totals: Totals, *, is_known: bool) -> HistoryPeriod:
    return HistoryPeriod(
        from_=from_at,
        until=until,
        known=is_known,
        started=totals.started,
        ended=EndCounts(**{label: totals.counts[label] for label in END_LABELS}),
        median_seconds=totals.quantile(0.5),
        p95_seconds=totals.quantile(0.95),
        tokens=totals.tokens,
    )
