"""The history of a pipeline for the API and the pages."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, create_model

from watcher.domain.execution import END_LABELS
from watcher.domain.history import DAY_US, HOUR_US, Totals, has_changed, period_start, sum_up
from watcher.domain.timestamps import Micros
from watcher.web.models import ApiModel, ApiRequest, Id, PipelineRef, Span, Time
from watcher.web.shown import Console


def _in_range(seconds: float) -> float:
    if not 3_600 <= seconds <= 90 * 86_400:
        raise ValueError("must be from 1h to 90d")
    return seconds


PastSpan = Annotated[Span, AfterValidator(_in_range)]
PAST_SPAN = Field(default=86_400.0, json_schema_extra={"default": "24h"})


class HistoryQuery(ApiRequest):
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


class History(ApiModel):
    """The history of a pipeline: by the hour up to `7d`, else by the day (UTC); the running period is the last.

    `errors` are the five most frequent kinds, `problems` at most 100, the last opened first.
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


async def find_history(console: Console, name: str, *, span_us: int, length_us: int) -> History:
    """Return the history of a pipeline (account/id) over a span until now, in periods of `length_us`.

    The pipeline must be one of `console.pipelines`.
    """
    pipeline, now = console.pipelines[name], console.clock.steady_us()
    until = Micros(period_start(now, length_us) + length_us)
    from_at = Micros(until + -span_us // length_us * length_us)  # rounded up to whole periods, the last of them running
    found = await console.store.history(name, since=from_at)
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
        of_before = sum_up((await console.store.history(name, since=before_at)).hours, before_at, from_at)
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
        problems=[PastProblem(**row._asdict()) for row in found.problems],
    )


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
