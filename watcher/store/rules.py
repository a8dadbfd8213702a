"""What the rules of pipelines go by: written with what they judge, loaded when an owner begins, forgotten with them."""

from collections.abc import Collection, Iterable
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from watcher.domain.rules import End, RuleState, UnjudgedEnd
from watcher.store.changes import RulesChange
from watcher.store.leases import expect_written
from watcher.store.problems import open_problems_of_pipeline
from watcher.store.records import RulesRecord
from watcher.store.row_mapping import execution_id, execution_key
from watcher.store.source_ids import SourceNumbers, pipeline
from watcher.store.tables import source, unjudged_end

_WRITE_STATE = (
    update(source)
    .where(source.c.id == bindparam("of_pipeline"), source.c.sequence == bindparam("before"))
    .values(sequence=bindparam("new_sequence"), rules=bindparam("new_rules"))
)
_OF_PIPELINE = unjudged_end.c.pipeline_id == bindparam("of_pipeline")
_WAIT = insert(unjudged_end)
_JUDGED = delete(unjudged_end).where(_OF_PIPELINE)
_UNJUDGED = (
    select(unjudged_end.c.execution, unjudged_end.c.ended_at, unjudged_end.c.failed)
    .where(_OF_PIPELINE)
    .order_by(unjudged_end.c.ended_at)
)
_WITH_RULES = select(source.c.id.label("of_pipeline"), source.c.name).where(
    source.c.kind == "pipeline", source.c.rules.is_not(None)
)
_FORGET = update(source).where(source.c.id == bindparam("of_pipeline")).values(rules=None)


def write_rules(connection: Connection, changes: Iterable[RulesChange], *, numbers: SourceNumbers) -> None:
    """Write what rules go by, each from the sequence its writer believes recorded; the last state stays."""
    rows: list[dict[str, Any]] = []
    # Sorted, so that two writers never wait for each other; stable, so one pipeline's changes keep their order.
    by_pipeline = [(numbers[pipeline(change.lease.name, change.pipeline)], change) for change in changes]
    for pipeline_id, change in sorted(by_pipeline, key=itemgetter(0)):
        rows.append(
            {
                "of_pipeline": pipeline_id,
                "before": change.before,
                "new_sequence": change.sequence,
                "new_rules": change.state.to_json(),
            }
        )
        if change.judges_all:
            connection.execute(_JUDGED, {"of_pipeline": pipeline_id})
        if change.unjudged:
            ends = sorted((execution_key(name), *end) for name, end in change.unjudged)
            waiting = [{"execution": key, "ended_at": ended_at, "failed": failed} for key, ended_at, failed in ends]
            connection.execute(_WAIT, [{"pipeline_id": pipeline_id} | row for row in waiting])
    if rows:
        written = connection.execute(_WRITE_STATE, rows)
        expect_written(written.rowcount, wanted=len(rows))


def load_rules(connection: Connection, *, account_id: int, pipeline_id: int) -> RulesRecord:
    """Return what is recorded of the rules of a pipeline."""
    row = connection.execute(select(source.c.sequence, source.c.rules).where(source.c.id == pipeline_id)).one()
    problems = open_problems_of_pipeline(connection, account_id=account_id, pipeline_id=pipeline_id)
    unjudged = connection.execute(_UNJUDGED, {"of_pipeline": pipeline_id})
    return RulesRecord(
        row.sequence,
        RuleState() if row.rules is None else RuleState.from_json(row.rules),
        {problem.kind: problem for problem in problems},
        [UnjudgedEnd(execution_id(each.execution), End(each.ended_at, each.failed)) for each in unjudged],
    )


def forget_rules(connection: Connection, *, present: Collection[tuple[str, str]]) -> None:
    """Forget what rules went by of all pipelines but these: what is not kept up says nothing of later."""
    names = {pipeline(account, pipeline_id).name for account, pipeline_id in present}
    ids = sorted(row.of_pipeline for row in connection.execute(_WITH_RULES) if row.name not in names)
    gone = [{"of_pipeline": each} for each in ids]
    if gone:  # in the order of `write_rules`
        connection.execute(_JUDGED, gone)
        connection.execute(_FORGET, gone)
