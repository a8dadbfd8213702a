"""The history of pipelines: counted with the ends that it counts, in their transaction, and read back."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, select, text

from watcher.domain.history import DAY_US, HOUR_US, EndedExecution, Totals, beginning, totals_of
from watcher.domain.timestamps import Micros
from watcher.store.database import HotStatement
from watcher.store.tables import AnyRow, pipeline_hour, source

KINDS_COUNT = 20_000
"""Rows of kinds of errors that are looked at, the newest days first."""

FREQUENT_COUNT = 5
"""Kinds of errors that are returned with the history of a pipeline."""

PROBLEMS_COUNT = 100
"""Problems that are returned with the history of a pipeline, the last opened first."""

_COUNTS = ("started", "success", "failed", "unrecognized", "tokens")
_HOUR = HotStatement("SELECT * FROM pipeline_hour WHERE pipeline_id = :pipeline_id AND from_at = :from_at")
_WRITE_HOUR = HotStatement(
    f"INSERT INTO pipeline_hour (pipeline_id, from_at, {', '.join(_COUNTS)}, durations)"
    f" VALUES (:pipeline_id, :from_at, :{', :'.join(_COUNTS)}, :durations) ON CONFLICT (pipeline_id, from_at)"
    f" DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in (*_COUNTS, 'durations'))}"
)
_NEWER = "CASE WHEN excluded.last_at >= error_kind.last_at THEN excluded.{0} ELSE error_kind.{0} END"
_COUNT_ERROR = HotStatement(
    "INSERT INTO error_kind (pipeline_id, from_at, fingerprint, failed_count, node, text, first_at, last_at)"
    " VALUES (:pipeline_id, :from_at, :fingerprint, 1, :node, :text, :at, :at)"
    " ON CONFLICT (pipeline_id, from_at, fingerprint) DO UPDATE SET failed_count = error_kind.failed_count + 1,"
    " first_at = CASE WHEN excluded.first_at < error_kind.first_at THEN excluded.first_at ELSE error_kind.first_at END,"
    f" text = {_NEWER.format('text')}, last_at = {_NEWER.format('last_at')}"
)


def count_ends(connection: Connection, ended: Iterable[tuple[int, EndedExecution]]) -> None:
    """Count executions, each with the number of its pipeline, in the transaction that writes that they have ended.

    So each is counted once. Nobody else writes the hours of a pipeline: its account has one owner.
    """
    by_pipeline = defaultdict[int, list[EndedExecution]](list)
    errors: list[dict[str, Any]] = []
    for pipeline_id, each in ended:
        by_pipeline[pipeline_id].append(each)
        if each.error is not None:
            day = {"pipeline_id": pipeline_id, "from_at": each.ended_at - each.ended_at % DAY_US, "at": each.ended_at}
            errors.append(day | each.error._asdict())
    rows: list[dict[str, Any]] = []
    # Sorted by key, so that two writers never wait for each other.
    for pipeline_id in sorted(by_pipeline):
        for from_at, totals in sorted(totals_of(by_pipeline[pipeline_id]).items(), key=itemgetter(0)):
            key = {"pipeline_id": pipeline_id, "from_at": from_at}
            if (row := _HOUR.run(connection, key).one_or_none()) is not None:
                totals.add(_totals(row))
            counts = {name: getattr(totals, name) for name in _COUNTS}
            rows.append({**key, **counts, "durations": json.dumps(totals.durations, separators=(",", ":"))})
    _WRITE_HOUR.run(connection, *rows)
    if errors:
        _COUNT_ERROR.run(connection, *sorted(errors, key=itemgetter("pipeline_id", "from_at", "fingerprint")))


def _totals(row: AnyRow) -> Totals:
    durations = {int(bucket): count for bucket, count in json.loads(row.durations).items()}
    return Totals(row.started, row.success, row.failed, row.unrecognized, row.tokens, durations)


class PipelineHistory(NamedTuple):
    """What is known of a pipeline since some moment. Times are microseconds UTC, those of problems the wall clock's.

    `hours` has each hour in which something happened, by when it begins; nothing is known of the time before
    `known_from`, nor of any while that is `None`. `errors` are the most frequent kinds of the days since then, with
    `fingerprint`, `node`, `text`, `failed_count`, `first_at` and `last_at`; `problems` those of the pipeline itself
    that were open.
    """

    hours: Mapping[Micros, Totals]
    known_from: Micros | None
    errors: Sequence["FrequentError"]
    problems: Sequence[AnyRow]


class FrequentError(NamedTuple):
    """A kind of error of a pipeline (account/id), how often it came, its newest text, and when it was first seen."""

    pipeline_name: str
    fingerprint: bytes
    node: str | None
    text: str
    failed_count: int
    first_at: Micros
    last_at: Micros


_OF_PIPELINE = "(SELECT id FROM source WHERE kind = 'pipeline' AND name = :name)"
_HOURS = text(f"SELECT * FROM pipeline_hour WHERE pipeline_id = {_OF_PIPELINE} AND from_at >= :since")
_OPEN_STARTS = text(
    f"SELECT started_at - started_at % {HOUR_US} AS from_at, count(*) AS started FROM execution"
    f" WHERE pipeline_id = {_OF_PIPELINE} AND ended_at IS NULL AND started_at >= :since GROUP BY 1"
)
_KNOWN_FROM = text(f"SELECT known_from FROM scan WHERE pipeline_id = {_OF_PIPELINE}")
_KINDS = (
    "SELECT source.name AS pipeline_name, error_kind.* FROM error_kind JOIN source ON source.id = pipeline_id"
    f" WHERE {{}} ORDER BY from_at DESC LIMIT {KINDS_COUNT}"
)
_KINDS_OF_PIPELINE, _ALL_KINDS = (
    text(_KINDS.format(f"pipeline_id = {_OF_PIPELINE}")),
    text(_KINDS.format("from_at >= :since AND from_at < :until")),
)
_PROBLEMS_SINCE = text(
    f"SELECT id, kind, opened_at, closed_at FROM problem WHERE pipeline_id = {_OF_PIPELINE} AND execution IS NULL"
    f" AND (closed_at IS NULL OR closed_at >= :since) ORDER BY opened_at DESC LIMIT {PROBLEMS_COUNT}"
)


def load_history(connection: Connection, pipeline: str, *, since: Micros) -> PipelineHistory:
    """Return the history of a pipeline (account/id) from the hour on that holds `since`."""
    of_it = {"name": pipeline, "since": beginning(since, HOUR_US)}
    hours = {Micros(row.from_at): _totals(row) for row in connection.execute(_HOURS, of_it)}
    for row in connection.execute(_OPEN_STARTS, of_it):
        hours.setdefault(Micros(row.from_at), Totals()).started += row.started
    return PipelineHistory(
        hours,
        connection.scalar(_KNOWN_FROM, of_it),
        _frequent(connection.execute(_KINDS_OF_PIPELINE, of_it), since=since)[:FREQUENT_COUNT],
        connection.execute(_PROBLEMS_SINCE, of_it).all(),
    )


def load_frequent_errors(
    connection: Connection, *, since: Micros, until: Micros, limit: int
) -> Sequence[FrequentError]:
    """Return the most frequent kinds of errors of all pipelines, of the days (UTC) that hold this time."""
    days = {"since": beginning(since, DAY_US), "until": until}
    return _frequent(connection.execute(_ALL_KINDS, days), since=since)[:limit]


def _frequent(rows: Iterable[AnyRow], *, since: Micros) -> list[FrequentError]:
    """Return the kinds of errors of the days since then, the most frequent first; each with when it was first seen."""
    found: dict[tuple[str, bytes], FrequentError] = {}
    first_day = beginning(since, DAY_US)
    for row in rows:  # the newest day first
        key, count = (row.pipeline_name, row.fingerprint), row.failed_count if row.from_at >= first_day else 0
        newest = found.get(key)
        if newest is not None:
            found[key] = newest._replace(
                failed_count=newest.failed_count + count, first_at=min(newest.first_at, row.first_at)
            )
        elif count:
            found[key] = FrequentError(*key, row.node, row.text, count, row.first_at, row.last_at)
    return sorted(found.values(), key=attrgetter("failed_count", "last_at"), reverse=True)


# One row for each pipeline, with the durations of all hours as a list: a row for each hour would take twice as long.
_TOTALS = (
    select(
        source.c.name,
        *(func.sum(pipeline_hour.c[name]).label(name) for name in _COUNTS),
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
).bindparams(bindparam("names", expanding=True))


def load_totals(connection: Connection, *, since: Micros, until: Micros) -> tuple[Sequence[AnyRow], Sequence[AnyRow]]:
    """Return what happened in each pipeline in the hours that begin from `since` until `until`, for `totals_by_name`.

    Rows of what has ended, and of the starts of what runs still.
    """
    span = {"since": since, "until": until}
    return connection.execute(_TOTALS, span).all(), connection.execute(_OPEN_TOTALS, span).all()


def totals_by_name(ended: Iterable[AnyRow], running: Iterable[AnyRow]) -> Mapping[str, Totals]:
    """Return these rows by pipeline (account/id). It takes up to a second, so it is done after the transaction."""
    found = defaultdict[str, Totals](Totals)
    for row in ended:
        totals = found[row.name] = Totals(row.started, row.success, row.failed, row.unrecognized, int(row.tokens))
        for durations in json.loads(f"[{row.durations}]"):
            for bucket, count in durations.items():
                totals.durations[int(bucket)] = totals.durations.get(int(bucket), 0) + count
    for row in running:
        found[row.name].started += row.started
    return found


def load_rates(connection: Connection, names: Collection[str], *, now: Micros) -> Sequence[AnyRow]:
    """Return how many executions of these pipelines (account/id) ended, and succeeded, within 24 hours and 7 days."""
    first = {"day": beginning(now, HOUR_US) - 23 * HOUR_US, "week": beginning(now, HOUR_US) - 167 * HOUR_US}
    return connection.execute(_RATES, {**first, "names": sorted(names)}).all() if names else ()
