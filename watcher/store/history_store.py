"""Reads the history of pipelines for pages, reports and the API."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import nlargest
from operator import attrgetter
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, select, text

from watcher.domain.history import COUNTS, DAY_US, HOUR_US, Totals, kind_without_node, period_start
from watcher.domain.timestamps import Micros
from watcher.store.history import totals_in
from watcher.store.sql_store import SqlStore
from watcher.store.tables import AnyRow, pipeline_hour, source

ERROR_ROWS_COUNT = 20_000
"""The most rows of `error_kind` that are read for one answer, those of the newest days first."""

FREQUENT_COUNT = 5
"""Most kinds of errors that are returned with the history of a pipeline, the most frequent first."""

PROBLEMS_COUNT = 100
"""Most problems that are returned with the history of a pipeline, the last opened first."""

WEEK_BAR_US = 6 * HOUR_US
"""The length of a bar in the graph of 7 d on a pipeline's page.

The overview counts its rate of 7 d over the same bars, so that both pages show the same rate.
"""

_OF_PIPELINE = "(SELECT id FROM source WHERE kind = 'pipeline' AND name = :name)"
_HOURS = text(f"SELECT * FROM pipeline_hour WHERE pipeline_id = {_OF_PIPELINE} AND from_at >= :since")
_OPEN_STARTS = text(
    f"SELECT started_at - started_at % {HOUR_US} AS from_at, count(*) AS started FROM execution"
    f" WHERE pipeline_id = {_OF_PIPELINE} AND ended_at IS NULL AND started_at >= :since GROUP BY 1"
)
_KNOWN_FROM = text(f"SELECT known_from FROM scan WHERE pipeline_id = {_OF_PIPELINE}")
_FIRST_HOUR = text(f"SELECT min(from_at) FROM pipeline_hour WHERE pipeline_id = {_OF_PIPELINE}")
_SAME_KIND = (
    " FROM error_kind AS same WHERE same.pipeline_id = frequent.pipeline_id AND same.fingerprint = frequent.fingerprint"
)
# The rows are sorted in Python: our PostgreSQL sessions disable sorts, so that no page sorts a whole table.
_ERRORS = (
    f"SELECT source.name AS pipeline_name, frequent.*, (SELECT min(first_at){_SAME_KIND}) AS first_at,"
    f" (SELECT text{_SAME_KIND} ORDER BY from_at DESC LIMIT 1) AS text FROM (SELECT pipeline_id, fingerprint, node,"
    " sum(failed_count) AS failed_count, max(last_at) AS last_at FROM"
    f" (SELECT * FROM error_kind WHERE from_at >= :since AND from_at < :until AND {{}} ORDER BY from_at DESC"
    f" LIMIT {ERROR_ROWS_COUNT}) AS looked_at GROUP BY pipeline_id, fingerprint, node) AS frequent"
    " JOIN source ON source.id = pipeline_id"
)
_ERRORS_OF_PIPELINE = text(_ERRORS.format(f"pipeline_id = {_OF_PIPELINE}"))
_ALL_ERRORS = text(_ERRORS.format("true"))
_FIRST_SEEN = text(
    f"SELECT min(first_at) FROM error_kind WHERE pipeline_id = {_OF_PIPELINE} AND fingerprint = :fingerprint"
)
_PROBLEMS_SINCE = text(
    f"SELECT id, kind, opened_at, closed_at FROM problem WHERE pipeline_id = {_OF_PIPELINE} AND execution IS NULL"
    f" AND (closed_at IS NULL OR closed_at >= :since) ORDER BY opened_at DESC LIMIT {PROBLEMS_COUNT}"
)
# One row per pipeline, with the durations of all its hours as a list: one row per hour would take twice as long.
_TOTALS = (
    select(
        source.c.name,
        *(func.sum(pipeline_hour.c[name]).label(name) for name in COUNTS),
        func.aggregate_strings(pipeline_hour.c.durations, ",").label("durations"),
    )
    .join(source, source.c.id == pipeline_hour.c.pipeline_id)
    .where(pipeline_hour.c.from_at >= bindparam("since"), pipeline_hour.c.from_at < bindparam("until"))
    .group_by(source.c.name)
)
_OPEN_TOTALS = text(
    "SELECT source.name, count(*) AS started FROM source JOIN execution ON execution.pipeline_id = source.id"
    " WHERE source.kind = 'pipeline' AND ended_at IS NULL AND started_at >= :since AND started_at < :until"
    " GROUP BY source.name"
)
_RATES = text(
    "SELECT source.name, sum(CASE WHEN from_at >= :day THEN success ELSE 0 END) AS day_success,"
    " sum(CASE WHEN from_at >= :day THEN success + failed + unrecognized ELSE 0 END) AS day_ended,"
    " sum(success) AS week_success, sum(success + failed + unrecognized) AS week_ended"
    " FROM source JOIN pipeline_hour ON pipeline_id = source.id AND from_at >= :week"
    " WHERE source.kind = 'pipeline' AND source.name IN :names GROUP BY source.name"
).bindparams(bindparam("names", expanding=True, type_=source.c.name.type))


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
    errors: Sequence[tuple[AnyRow, Micros]]
    """The most frequent kinds of errors, counted over whole days, each with the time when its text was first seen.

    The text may have been seen first in another node, or without a node: lists do not name the node.
    """
    problems: Sequence[AnyRow]
    """The pipeline's own problems (not those of its executions) that were open at some time in this span."""


class HistoryStore:
    """The history of pipelines. Pipelines are named account/id; each method raises `StoreError`.

    A row of a kind of error has `pipeline_name`, `fingerprint`, `node`, `failed_count`, the newest `text`, and the
    times when the kind was last and first seen, within retention: `last_at` and `first_at`.
    """

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def history(self, pipeline: str, *, since: Micros) -> PipelineHistory:
        """Return the history of a pipeline from the start of the hour that contains `since`."""
        of_it = {"name": pipeline, "since": period_start(since, HOUR_US)}
        days = {"name": pipeline, "since": period_start(since, DAY_US), "until": 2**62}

        def read(connection: Connection) -> PipelineHistory:
            hours = {Micros(row.from_at): totals_in(row) for row in connection.execute(_HOURS, of_it)}
            for row in connection.execute(_OPEN_STARTS, of_it):
                hours.setdefault(Micros(row.from_at), Totals()).started += row.started
            first_at = min(filter(None, (connection.scalar(_FIRST_HOUR, of_it), *hours)), default=None)
            known_from = connection.scalar(_KNOWN_FROM, of_it)
            errors = []
            for row in _most_frequent(connection.execute(_ERRORS_OF_PIPELINE, days), since, FREQUENT_COUNT):
                alone = {"name": pipeline, "fingerprint": kind_without_node(row.text).fingerprint}
                errors.append((row, min(row.first_at, connection.scalar(_FIRST_SEEN, alone) or row.first_at)))
            problems = connection.execute(_PROBLEMS_SINCE, of_it).all()
            return PipelineHistory(hours, first_at, known_from, errors, problems)

        return await self._store.read(read)

    async def frequent_errors(self, *, since: Micros, until: Micros, limit: int) -> Sequence[AnyRow]:
        """Return the most frequent kinds of errors of all pipelines, from the start of the day (UTC) of `since` on."""
        days = {"since": period_start(since, DAY_US), "until": until}
        return await self._store.read(
            lambda connection: _most_frequent(connection.execute(_ALL_ERRORS, days), since, limit)
        )

    async def totals(self, *, since: Micros, until: Micros) -> Mapping[str, Totals]:
        """Return the totals of each pipeline over the hours that begin at `since` or later, and before `until`."""
        span = {"since": since, "until": until}
        ended, running = await self._store.read(
            lambda connection: [connection.execute(each, span).all() for each in (_TOTALS, _OPEN_TOTALS)]
        )

        def add_up() -> Mapping[str, Totals]:
            found = defaultdict[str, Totals](Totals)
            for row in ended:
                counts = (row.started, row.success, row.failed, row.unrecognized, int(row.tokens))
                totals = found[row.name] = Totals(*counts)
                for durations in json.loads(f"[{row.durations}]"):
                    totals.durations.update({int(bucket): count for bucket, count in durations.items()})
            for row in running:
                found[row.name].started += row.started
            return found

        return await asyncio.to_thread(add_up)  # takes up to a second, during which no transaction may stay open

    async def rates(self, pipelines: Collection[str]) -> Sequence[AnyRow]:
        """Return how many executions of each pipeline ended, and how many succeeded, within 24 h and within 7 d."""
        now = self._store.clock.steady_us()
        day, week = period_start(now, HOUR_US) - 23 * HOUR_US, period_start(now, WEEK_BAR_US) - 27 * WEEK_BAR_US
        asked = {"names": sorted(pipelines), "day": day, "week": week}
        return await self._store.read(lambda connection: connection.execute(_RATES, asked).all())


def _most_frequent(rows: Iterable[AnyRow], since: Micros, limit: int) -> Sequence[AnyRow]:
    seen = (row for row in rows if row.last_at >= since)
    return nlargest(limit, seen, key=attrgetter("failed_count", "last_at"))
