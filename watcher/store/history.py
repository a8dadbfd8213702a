"""Counts ended executions by the hour and by the day, in the transaction that records the ends."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection

from watcher.domain.history import COUNTS, DAY_US, HOUR_US, EndedExecution, Totals, totals_of
from watcher.store.database import HotStatement
from watcher.store.tables import AnyRow

_READ = "SELECT * FROM {} WHERE pipeline_id = :pipeline_id AND from_at = :from_at"
_WRITE = (
    f"INSERT INTO {{}} (pipeline_id, from_at, {', '.join(COUNTS)}, durations)"
    f" VALUES (:pipeline_id, :from_at, :{', :'.join(COUNTS)}, :durations) ON CONFLICT (pipeline_id, from_at)"
    f" DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in (*COUNTS, 'durations'))}"
)
_PERIODS = [
    (length_us, HotStatement(_READ.format(table)), HotStatement(_WRITE.format(table)))
    for table, length_us in (("pipeline_hour", HOUR_US), ("pipeline_day", DAY_US))
]
_NEWER = "CASE WHEN excluded.last_at >= error_kind.last_at THEN excluded.{0} ELSE error_kind.{0} END"
_COUNT_ERROR = HotStatement(
    "INSERT INTO error_kind (pipeline_id, from_at, fingerprint, failed_count, node, text, first_at, last_at)"
    " VALUES (:pipeline_id, :from_at, :fingerprint, 1, :node, :text, :at, :at)"
    " ON CONFLICT (pipeline_id, from_at, fingerprint) DO UPDATE SET failed_count = error_kind.failed_count + 1,"
    " first_at = CASE WHEN excluded.first_at < error_kind.first_at THEN excluded.first_at ELSE error_kind.first_at END,"
    f" text = {_NEWER.format('text')}, last_at = {_NEWER.format('last_at')}"
)


def count_ends(connection: Connection, ended: Iterable[tuple[int, EndedExecution]]) -> None:
    """Count ended executions, each given with the number of its pipeline, in its periods and the kinds of errors.

    This is done in the transaction that writes the ends, so each end is counted once. The periods of a pipeline have
    one writer: the owner of its account.
    """
    by_pipeline = defaultdict[int, list[EndedExecution]](list)
    errors: list[dict[str, Any]] = []
    for pipeline_id, each in ended:
        by_pipeline[pipeline_id].append(each)
        if each.error is not None:
            day = {"pipeline_id": pipeline_id, "from_at": each.ended_at - each.ended_at % DAY_US, "at": each.ended_at}
            errors.append(day | each.error._asdict())
    for length_us, read, write in _PERIODS:
        rows: list[dict[str, Any]] = []
        # Sorted by key, so that two writers cannot deadlock.
        for pipeline_id in sorted(by_pipeline):
            for from_at, totals in sorted(totals_of(by_pipeline[pipeline_id], length_us).items(), key=itemgetter(0)):
                key = {"pipeline_id": pipeline_id, "from_at": from_at}
                if (row := read.run(connection, key).one_or_none()) is not None:
                    totals.add(totals_in(row))
                counts = {name: totals.counts[name] for name in COUNTS}
                rows.append({**key, **counts, "durations": json.dumps(totals.durations, separators=(",", ":"))})
        write.run(connection, *rows)
    if errors:
        _COUNT_ERROR.run(connection, *sorted(errors, key=itemgetter("pipeline_id", "from_at", "fingerprint")))


def totals_in(row: AnyRow) -> Totals:
    """Return the counts in a row of `pipeline_hour` or `pipeline_day`."""
    durations = Counter({int(bucket): count for bucket, count in json.loads(row.durations).items()})
    return Totals(counts_in(row), durations)


def counts_in(row: AnyRow) -> Counter[str]:
    """Return the plain numbers in such a row, or in the sum of several."""
    return Counter({name: int(getattr(row, name)) for name in COUNTS})
