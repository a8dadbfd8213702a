"""The store for the owner of an account. It takes writes only while the owner holds the lease of the account."""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice
from operator import attrgetter
from sys import intern

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, bindparam, select, text

from watcher.domain.event import EventKey
from watcher.domain.execution import Counts, ExecutionRecord, LostReason
from watcher.domain.history import DAY_US, period_start
from watcher.domain.snapshots import ENDS_COUNT, AccountSnapshot
from watcher.domain.timestamps import Micros, from_us
from watcher.domain.watch import Cursor
from watcher.store.changes import AccountRecord, BackoffState, PipelineRecord, RulesRecord
from watcher.store.problems import OPEN_PROBLEMS, open_problem_of, problem_of
from watcher.store.recording import (
    AS_KNOWN,
    CURSOR_FIELDS,
    FORGET_SCAN,
    MARK_SOURCE,
    UNJUDGED_END,
    as_known,
    is_forgotten,
    load_backoff,
    load_events,
    write_backoff,
)
from watcher.store.sources import execution_id, execution_key, names_of, pipeline, pipeline_id
from watcher.store.sql_store import LeasedStore
from watcher.store.tables import AnyRow, error_kind, execution, scan, snapshot, source, unjudged_end

LOADED_COUNT = 5_000
"""Most executions that one statement loads. SQLite binds at most 32,766 values."""

SEARCHED_COUNT = 20_000
"""Most of a pipeline's last ends among which the last successes are searched."""

POLL_TIMES_COUNT = 1_000
"""Most poll times in one transaction. Each is a statement of its own, and changes of state wait for the transaction."""

_RECORD_COLUMNS = tuple(column for column in execution.c if column.name not in {"account_id", "stream"})
_RECORDS = select(*_RECORD_COLUMNS).where(
    execution.c.account_id == bindparam("of_account"), execution.c.execution.in_(bindparam("keys", expanding=True))
)
_OPEN = select(*_RECORD_COLUMNS).where(
    execution.c.pipeline_id == bindparam("of_pipeline"),  # a pipeline belongs to one account
    execution.c.ended_at.is_(None),
)
_ENDS = text(
    "SELECT finished_at, status FROM execution WHERE finished_at IS NOT NULL AND sequence > 0 AND lost IS NULL"
    " AND pipeline_id = (SELECT id FROM source WHERE kind = 'pipeline' AND name = :name)"
    " ORDER BY finished_at DESC, ended_at DESC LIMIT :limit"
)
_DURATIONS = text(
    "SELECT finished_at - started_at AS duration FROM (SELECT finished_at, ended_at, started_at, status, was_paused"
    " FROM execution WHERE finished_at IS NOT NULL AND sequence > 0 AND lost IS NULL AND pipeline_id = :of_pipeline"
    f" ORDER BY finished_at DESC, ended_at DESC LIMIT {SEARCHED_COUNT}) AS ended"
    " WHERE status = 'success' AND was_paused = false AND finished_at > started_at"
    " ORDER BY finished_at DESC, ended_at DESC LIMIT :limit"
)
_TOKENS = text(
    "SELECT coalesce(sum(tokens), 0) FROM pipeline_hour WHERE pipeline_id = :of_pipeline AND from_at >= :day"
)
_OVERSPENDING = text(
    "SELECT body FROM event WHERE stream = :stream AND type = 'pipeline.overspending' AND recorded_at >= :day"
    " ORDER BY sequence DESC LIMIT 1"
)
_ERRORS = text(
    "SELECT coalesce(sum(failed_count), 0) FROM error_kind WHERE pipeline_id = :of_pipeline AND from_at IN :days"
    " AND fingerprint IN :fingerprints AND last_at >= :since"
).bindparams(
    bindparam("days", expanding=True),  # with `from_at >= …` a database would read all kinds of these days
    bindparam("fingerprints", expanding=True, type_=error_kind.c.fingerprint.type),
)
_IN_PARTS = {"yield_per": LOADED_COUNT}  # so that not all rows are in memory at once
_OPEN_PROBLEMS = text(OPEN_PROBLEMS.format("pipeline_id = :of_pipeline AND execution IS NULL"))
_CURSOR = select(*(scan.c[name] for name in CURSOR_FIELDS)).where(
    scan.c.account_id == bindparam("account_id"), scan.c.pipeline_id == bindparam("pipeline_id")
)
_UNJUDGED = select(unjudged_end).where(unjudged_end.c.pipeline_id == bindparam("of_pipeline"))
_SAVE_POLL_TIMES = text(
    "UPDATE execution SET looked_at = :at WHERE account_id = :of_account AND execution = :of_execution"
    " AND looked_at < :at"
)
_SNAPSHOT = TypeAdapter(AccountSnapshot)


class AccountStore(LeasedStore):
    """The stored state of one account, its pipelines and its executions."""

    async def load_account(self) -> AccountRecord:
        """Return the stored state of the account itself, with the time that is left of its pause now."""
        now = self._store.clock.steady_us()

        def load(connection: Connection, account_id: int) -> AccountRecord:
            row = connection.execute(select(source).where(source.c.id == account_id)).one()
            opened = open_problem_of(connection, source_id=account_id)
            last = connection.execute(select(snapshot).where(snapshot.c.source_id == account_id)).one_or_none()
            stood, stood_at = None, None if last is None else Micros(last.written_at)
            if last is not None:
                with suppress(ValidationError):  # another version wrote it: the counts start from 0 again
                    stood = _SNAPSHOT.validate_json(last.body)
            backoff = load_backoff(connection, row, now=now)
            return AccountRecord(row.sequence, row.state, backoff, opened, stood, stood_at)

        return await self._write(load)

    async def load_executions(self, executions: Collection[str]) -> Mapping[str, ExecutionRecord]:
        """Return the stored states of these executions, by id. Times in the future are returned as now."""
        now = self._store.clock.steady_us()

        def load(connection: Connection, account_id: int) -> dict[str, ExecutionRecord]:
            pipelines = names_of(connection, "pipeline")
            found: dict[str, ExecutionRecord] = {}
            wanted = iter(sorted(executions))
            while part := tuple(islice(wanted, LOADED_COUNT)):
                names = {execution_key(name): name for name in part}  # reuses the caller's ids: 100,000 take 9 MB
                for row in connection.execute(_RECORDS, {"of_account": account_id, "keys": list(names)}).all():
                    name = names[row.execution]
                    found[name] = _record_of(row, name=name, pipelines=pipelines, now=now)
            return found

        return await self._read(load)

    async def load_open(self, pipelines: Collection[str]) -> Sequence[ExecutionRecord]:
        """Return the executions of these pipelines that have not ended. Times in the future are returned as now."""
        numbers = sorted([await self._number_of(each) for each in pipelines])
        now = self._store.clock.steady_us()

        def load(connection: Connection, _account_id: int) -> list[ExecutionRecord]:
            names = names_of(connection, "pipeline")
            return [
                _record_of(row, name=execution_id(row.execution), pipelines=names, now=now)
                for number in numbers
                for row in connection.execute(_OPEN, {"of_pipeline": number}, execution_options=_IN_PARTS)
            ]

        return await self._read(load)

    async def load_ends(self, pipelines: Collection[str]) -> Mapping[str, Sequence[tuple[Micros, str]]]:
        """Return the last `ENDS_COUNT` reported ends of each pipeline, oldest first: the time and the status of each.

        Times in the future are returned as now.
        """
        now = self._store.clock.steady_us()

        def load(connection: Connection, _account_id: int) -> dict[str, list[tuple[Micros, str]]]:
            found = {}
            for each in pipelines:
                of_it = {"name": pipeline(self.lease.name, each).name, "limit": ENDS_COUNT}
                rows = connection.execute(_ENDS, of_it).all()
                found[each] = [(Micros(min(row.finished_at, now)), row.status) for row in reversed(rows)]
            return found

        return await self._read(load)

    async def load_pipeline(self, pipeline: str) -> PipelineRecord:
        """Return the stored state of a pipeline that is watched whole, and mark the pipeline as present.

        If the pipeline was absent for more than 24 h, its cursor is deleted. The sequence of its events continues.
        """
        number, now = await self._number_of(pipeline), self._store.clock.steady_us()

        def load(connection: Connection, account_id: int) -> PipelineRecord:
            itself = {"account_id": account_id, "pipeline_id": number}
            row = connection.execute(select(source).where(source.c.id == number)).one()
            connection.execute(MARK_SOURCE, {"of_source": number, "since": None})
            if is_forgotten(row, now=now):
                connection.execute(FORGET_SCAN, itself)
            row_of_scan = connection.execute(_CURSOR, itself).one_or_none()
            cursor = None if row_of_scan is None else Cursor(*row_of_scan)
            if cursor is not None and not cursor.dated:  # the wall clock may have been set back
                cursor = replace(cursor, complete_at=min(cursor.complete_at, now))
            return PipelineRecord(row.sequence, cursor)

        return await self._write(load)

    async def load_rules(self, pipeline: str) -> RulesRecord:
        """Return the stored states of a pipeline's rules. Their times may lie in the future."""
        number = await self._number_of(pipeline)

        def load(connection: Connection, account_id: int) -> RulesRecord:
            row = connection.execute(select(source.c.sequence, source.c.rules).where(source.c.id == number)).one()
            itself = {"of_source": account_id, "of_pipeline": number}
            problems = map(problem_of, connection.execute(_OPEN_PROBLEMS, itself))
            unjudged = [UNJUDGED_END.validate_json(each.body) for each in connection.execute(_UNJUDGED, itself)]
            ends = sorted(unjudged, key=attrgetter("ended_at"))
            return RulesRecord(row.sequence, row.rules, {each.kind: each for each in problems}, ends)

        return await self._read(load)

    async def load_durations(self, pipeline: str, *, limit: int) -> Sequence[int]:
        """Return the durations (microseconds) of the last successes of a pipeline, oldest first, at most `limit`.

        Executions that were seen paused, or are history, do not count.
        """
        of_it = {"of_pipeline": await self._number_of(pipeline), "limit": limit}
        return await self._store.read(
            lambda connection: [row.duration for row in reversed(connection.execute(_DURATIONS, of_it).all())]
        )

    async def load_spending(self, pipeline: str, *, stream: bytes, day_at: Micros) -> tuple[int, int]:
        """Return the tokens of a pipeline's executions that ended since `day_at`, and the percentage that was reported.

        `stream` is the key of the pipeline's own events. An event about the day before may be recorded after `day_at`.
        """
        of_it = {"of_pipeline": await self._number_of(pipeline), "day": day_at, "stream": stream}

        def load(connection: Connection) -> tuple[int, int]:
            tokens, body = int(connection.scalar(_TOKENS, of_it)), connection.scalar(_OVERSPENDING, of_it)
            reported = {} if body is None else json.loads(body)["data"]
            is_of_day = reported.get("day") == f"{from_us(day_at):%Y-%m-%d}"
            return tokens, reported["percent"] if is_of_day else 0

        return await self._store.read(load)

    async def count_errors(self, pipeline: str, fingerprints: Collection[bytes], since: Micros) -> int:
        """Return the number of failed executions with errors of these kinds, over the days with one since `since`."""
        of_it = {"of_pipeline": await self._number_of(pipeline), "fingerprints": sorted(fingerprints), "since": since}
        of_it["days"] = list(range(period_start(since, DAY_US), self._store.clock.steady_us() + DAY_US, DAY_US))
        return await self._store.read(lambda connection: int(connection.scalar(_ERRORS, of_it)))

    async def load_events(self, keys: Collection[EventKey]) -> Mapping[EventKey, bytes]:
        """Return the bodies of these events, except those that retention has deleted."""
        return await self._store.read(partial(load_events, keys=keys))

    async def save_poll_times(self, polled_at: Mapping[str, Micros]) -> None:
        """Save the times at which unchanged executions were last polled (microseconds UTC, steady clock), by id."""
        account_id = await self._number()
        times = sorted((execution_key(name), at) for name, at in polled_at.items())
        rows = [{"of_account": account_id, "of_execution": key, "at": at} for key, at in times]
        for start in range(0, len(rows), POLL_TIMES_COUNT):
            part = rows[start : start + POLL_TIMES_COUNT]
            await self._keep(partial(Connection.execute, statement=_SAVE_POLL_TIMES, parameters=part))

    async def save_backoff(self, backoff: BackoffState) -> None:
        """Save how long the account still pauses, and for how long it has failed."""
        account_id, now = await self._number(), self._store.clock.steady_us()
        await self._keep(lambda connection: write_backoff(connection, account_id, backoff, now=now))

    async def _number_of(self, pipeline_id: str) -> int:
        return await self._store.number_of(pipeline(self.lease.name, pipeline_id))


def _record_of(row: AnyRow, *, name: str, pipelines: Mapping[int, str], now: Micros) -> ExecutionRecord:
    """Return the execution of a row. Times after `now` become `now`.

    Otherwise new polls would seem older than the stored one.
    """
    return ExecutionRecord(
        execution=name,
        pipeline=intern(pipeline_id(pipelines[row.pipeline_id])),
        status=row.status and intern(row.status),
        since_at=min(row.since_at, now),
        polled_at=min(row.looked_at, now),
        counts=counts_of(row.counts),
        lost=None if row.lost is None else LostReason(row.lost),
        end_seen_at=row.ended_at,
        ended_at=row.finished_at,
        **dict(zip(AS_KNOWN, as_known(row), strict=True))
        | {"found_at": min(row.found_at, now), "started_at": row.started_at and min(row.started_at, now)},
    )


@lru_cache(maxsize=4096)
def counts_of(text: str) -> Counts:
    """Return the counts that a stored text holds. Executions with equal counts share one tuple."""
    return tuple((intern(kind), count) for kind, count in json.loads(text).items())
