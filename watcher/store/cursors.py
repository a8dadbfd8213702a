"""How far the lists of pipelines were read: written with the pipelines' events, forgotten after a long absence."""

from collections.abc import Collection, Iterable
from dataclasses import fields
from operator import attrgetter, itemgetter
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, delete, insert, select, update

from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.store.changes import PipelineChange
from watcher.store.leases import expect_written
from watcher.store.records import PipelineRecord
from watcher.store.row_mapping import AnyRow
from watcher.store.source_ids import Source, SourceNumbers, pipeline
from watcher.store.tables import scan, source

FORGOTTEN_AFTER_US = 24 * 3600 * 1_000_000
"""A pipeline absent for longer is read anew when it returns: by then it is another beginning, no interruption."""

_OF_PIPELINE: BindParameter[Any] = bindparam("of_pipeline")
_ITS_SCAN = (scan.c.account_id == bindparam("of_account"), scan.c.pipeline_id == _OF_PIPELINE)
_FIELDS = tuple(field.name for field in fields(Cursor))  # each has a column of its name
_CURSOR = select(*(scan.c[name] for name in _FIELDS)).where(*_ITS_SCAN)
_FORGET = delete(scan).where(*_ITS_SCAN)
_BEGIN = insert(scan).values(
    account_id=bindparam("of_account"),
    pipeline_id=_OF_PIPELINE,
    **{name: bindparam(f"new_{name}") for name in _FIELDS},
)
_WRITE_SEQUENCE = (
    update(source)
    .where(source.c.id == _OF_PIPELINE, source.c.sequence == bindparam("before"))
    .values(sequence=bindparam("new_sequence"))
)
_MARK_PIPELINE = update(source).where(source.c.id == _OF_PIPELINE).values(absent_since=bindparam("since"))
_SCANNED = select(
    scan.c.account_id.label("of_account"), scan.c.pipeline_id.label("of_pipeline"), source.c.name, source.c.absent_since
).join(source, source.c.id == scan.c.pipeline_id)


def write_pipelines(connection: Connection, changes: Iterable[PipelineChange], *, numbers: SourceNumbers) -> None:
    """Write how far pipelines are read, each from the sequence its writer believes recorded; the last one stays."""
    rows: list[dict[str, Any]] = [
        {
            "before": change.before,
            "new_sequence": change.sequence,
            "of_account": numbers[Source("account", change.lease.name)],
            "of_pipeline": numbers[pipeline(change.lease.name, change.pipeline)],
        }
        | {f"new_{name}": getattr(change.cursor, name) for name in _FIELDS}
        for change in changes
    ]
    if rows:
        # Sorted, so that two writers never wait for each other; stable, so one pipeline's changes keep their order.
        rows.sort(key=itemgetter("of_pipeline"))
        written = connection.execute(_WRITE_SEQUENCE, rows)
        expect_written(written.rowcount, wanted=len(rows))
        latest = list({row["of_pipeline"]: row for row in rows}.values())
        connection.execute(_FORGET, latest)
        connection.execute(_BEGIN, latest)


def load_pipeline(connection: Connection, *, account_id: int, pipeline_id: int, now: Micros) -> PipelineRecord:
    """Return what is recorded of a pipeline, which is present again. Its cursor may have to be forgotten first."""
    itself = {"of_account": account_id, "of_pipeline": pipeline_id}
    columns = (source.c.sequence, source.c.absent_since)
    row = connection.execute(select(*columns).where(source.c.id == pipeline_id)).one()
    connection.execute(_MARK_PIPELINE, itself | {"since": None})
    if _is_forgotten(row, now=now):
        connection.execute(_FORGET, itself)
    cursor = connection.execute(_CURSOR, itself).one_or_none()
    return PipelineRecord(row.sequence, None if cursor is None else Cursor(*cursor))


def mark_absent_pipelines(connection: Connection, *, present: Collection[tuple[str, str]], now: Micros) -> None:
    """Note which pipelines are watched whole no more; forget how far those were read that have been so for long.

    One that is back is forgotten all the same: whether its account or this comes first must make no difference.
    """
    names = {pipeline(account, pipeline_id).name for account, pipeline_id in present}
    # The same order as in `write_pipelines`, so that two writers never wait for each other.
    rows = sorted(connection.execute(_SCANNED), key=attrgetter("of_pipeline"))
    forgotten = [row._asdict() for row in rows if _is_forgotten(row, now=now)]
    marks = [
        {"of_pipeline": row.of_pipeline, "since": None if row.name in names else row.absent_since or now}
        for row in rows
    ]
    if marks:
        connection.execute(_MARK_PIPELINE, marks)
    if forgotten:
        connection.execute(_FORGET, forgotten)


def _is_forgotten(row: AnyRow, *, now: Micros) -> bool:
    return row.absent_since is not None and now - row.absent_since > FORGOTTEN_AFTER_US
