"""Reads executions from the store, and makes their models."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import starmap
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, false, or_, select, text

from watcher.config.models import WatchSettings
from watcher.domain.event import EVENT_KINDS, EventType
from watcher.domain.execution import OPEN_STATUSES, TERMINAL_STATUSES
from watcher.domain.timestamps import NEVER, Micros
from watcher.runtime.terminal import first_visible
from watcher.sinks.alert import Alert
from watcher.store.sources import execution_key, names_of
from watcher.store.sql_store import SqlStore
from watcher.store.tables import event, execution
from watcher.web import listing, models
from watcher.web.console import Console
from watcher.web.events import DETAIL_COUNT, EVENTS, EventsAndDeliveries, with_deliveries
from watcher.web.listing import ListedRow, ListedRows, Listing, PageReader, Position, cut_page, position_of


class ExecutionRow(NamedTuple):
    """An execution with the names of its account and pipeline (account/id). Times are microseconds UTC."""

    account_id: int
    key: bytes
    """The execution's id."""
    status: str | None
    since_at: Micros
    overdue_sequence: int | None
    lost: str | None
    ended_at: Micros | None
    """The time when the end was seen."""
    started_at: Micros | None
    finished_at: Micros | None
    """The API's date of the end, or when the end was seen."""
    stream: bytes | None
    account: str
    pipeline_name: str
    title: str | None
    """The API's name of the pipeline."""
    body: bytes | None
    """The last event of the execution."""


_OPEN = Listing(execution.c.since_at, execution.c.execution, "o", execution.c.account_id)
_ENDED = Listing(execution.c.finished_at, execution.c.execution, "e", execution.c.account_id)
_EXECUTIONS = text(
    "SELECT execution.account_id, execution.execution, status, execution.since_at, overdue_sequence, lost, ended_at,"
    " started_at, finished_at, execution.stream, account.name, pipeline.name, scan.name, event.body"
    " FROM execution JOIN source AS account ON account.id = execution.account_id"
    " JOIN source AS pipeline ON pipeline.id = execution.pipeline_id"
    " LEFT JOIN scan ON scan.account_id = execution.account_id AND scan.pipeline_id = execution.pipeline_id"
    " LEFT JOIN event ON event.stream = execution.stream AND event.sequence = execution.sequence"
    " WHERE execution.account_id IN :accounts AND execution.execution IN :executions"
).bindparams(
    bindparam("accounts", expanding=True, type_=execution.c.account_id.type),
    bindparam("executions", expanding=True, type_=execution.c.execution.type),
)
_FAILED = text(
    "SELECT account_id, execution FROM (SELECT account_id, execution, status, finished_at FROM execution"
    " WHERE finished_at IS NOT NULL AND sequence > 0 AND lost IS NULL AND finished_at <= :until"
    " AND pipeline_id = (SELECT id FROM source WHERE kind = 'pipeline' AND name = :name)"
    f" ORDER BY finished_at DESC, ended_at DESC LIMIT {listing.EXAMINED_COUNT}) AS ended"
    " WHERE status = 'failed' ORDER BY finished_at DESC LIMIT :limit"
)


async def load_executions(
    store: SqlStore,
    *,
    is_of_pipeline: Callable[[str], bool] = lambda _: True,
    statuses: Collection[str] = (),
    ended_since: Micros = NEVER,
    id_beginning: str | None = None,
    after: Position | None = None,
    limit: int,
) -> tuple[Sequence[ExecutionRow], Position | None]:
    """Return a page of executions: first open ones, the last change first, then ended ones, the last end first.

    `lost` counts as a status. If an end is seen late, a reader whose page is already past the time of that end
    misses the execution. `is_of_pipeline` is called with names of pipelines (account/id). With an `id_beginning`
    (hexadecimal digits) executions are in the order of their ids. Raises `StoreError`.
    """
    only = statuses or ("",)
    parts = "o" * (not set(only) <= {*TERMINAL_STATUSES}) + "e" * (not set(only) <= {*OPEN_STATUSES})

    def find(connection: Connection) -> ListedRows:
        page, names = PageReader(connection, after, limit), names_of(connection, "pipeline")
        numbers = [number for number, name in names.items() if is_of_pipeline(name)]
        wanted: list[Any] = [execution.c.status.is_not(None)]
        if statuses:
            is_lost = execution.c.lost.is_not(None) if "lost" in statuses else false()
            wanted.append(or_(execution.c.status.in_(statuses), is_lost))
        several = numbers if len(numbers) < len(names) else None
        of_these = wanted if several is None else [*wanted, execution.c.pipeline_id.in_(several)]
        if id_beginning is not None:
            return _by_id(page, id_beginning, of_these)

        def read_part(page: PageReader, part: str) -> ListedRows:
            if part == "o":
                return _open(page, several, wanted, is_filtered=bool(statuses))
            return page.search(_ENDED._replace(lowest=ended_since), (), of_these)

        return page.read_parts(parts, read_part)

    def read(connection: Connection) -> tuple[Sequence[ExecutionRow], Position | None]:
        found, position = find(connection)
        by_key = _by_key(connection, found)
        return [by_key[row.account_id, row.key] for row in found if (row.account_id, row.key) in by_key], position

    return await store.read(read)


async def load_failed(store: SqlStore, pipeline: str, *, until: Micros, limit: int) -> Sequence[ExecutionRow]:
    """Return the executions of a pipeline (account/id) that failed at `until` or before, the latest end first.

    Raises `StoreError`.
    """

    def read(connection: Connection) -> Sequence[ExecutionRow]:
        found = connection.execute(_FAILED, {"name": pipeline, "until": until, "limit": limit})
        rows = _by_key(connection, [ListedRow(0, row.execution, row.account_id) for row in found]).values()
        return sorted(rows, key=attrgetter("finished_at"), reverse=True)

    return await store.read(read)


async def load_execution(store: SqlStore, pipeline: str, name: str) -> tuple[ExecutionRow, EventsAndDeliveries] | None:
    """Return an execution of a pipeline (account/id) with its last 200 events and their deliveries.

    Raises `ValueError` if `name` is not an id, and `StoreError`.
    """
    key = execution_key(name)

    def read(connection: Connection) -> tuple[ExecutionRow, EventsAndDeliveries] | None:
        places = [ListedRow(0, key, account) for account in names_of(connection, "account")]
        for row in _by_key(connection, places).values():
            if row.pipeline_name == pipeline:
                of_it = EVENTS.where(event.c.stream == row.stream).order_by(event.c.sequence.desc())
                events = connection.execute(of_it.limit(DETAIL_COUNT))
                return row, with_deliveries(connection, {each.id: each.body for each in events})
        return None

    return await store.read(read)


def _by_key(connection: Connection, places: Iterable[ListedRow]) -> Mapping[tuple[int | None, bytes], ExecutionRow]:
    """Return executions by their account and key."""
    keys = {"accounts": {each.account_id for each in places}, "executions": [each.key for each in places]}
    rows = starmap(ExecutionRow, connection.execute(_EXECUTIONS, keys))
    return {(row.account_id, row.key): row for row in rows}


def _open(page: PageReader, numbers: Sequence[int] | None, wanted: Sequence[Any], *, is_filtered: bool) -> ListedRows:
    """Return a page of the open executions of these pipelines, or of all if `numbers` is `None`.

    If the pipelines are few, each is read by a statement of its own: with many open executions of other pipelines, a
    window over all would rarely have one of these.
    """
    scope, limit = (execution.c.ended_at.is_(None),), page.limit
    if numbers is None:
        return page.search(_OPEN, scope, wanted, listing.EXAMINED_COUNT if is_filtered else limit + 1)
    # With many pipelines one statement for all costs less per row than a statement for each.
    if len(numbers) * (limit + 1) > listing.EXAMINED_COUNT // 2:
        return page.search(_OPEN, scope, [*wanted, execution.c.pipeline_id.in_(numbers)])
    found: list[ListedRow] = []
    ends: list[Position] = []
    count = max(limit + 1, listing.EXAMINED_COUNT // max(1, len(numbers)) if is_filtered else 0)
    for number in numbers:
        rows, end = page.search(_OPEN, (*scope, execution.c.pipeline_id == number), wanted, count)
        found += rows
        ends += [] if end is None else [end]
    newest = max(ends, default=None)
    found = [row for row in found if newest is None or position_of(row, "o") >= newest]
    return cut_page(sorted(found, key=position_of, reverse=True), newest, limit, "o")


def _by_id(page: PageReader, beginning: str, wanted: Iterable[Any]) -> ListedRows:
    first, last = (bytes.fromhex(beginning.ljust(32, digit)) for digit in "0f")
    connection, behind, id_ = page.connection, page.after or Position("i", 0, b""), execution.c.execution
    found: list[ListedRow] = []
    for account_id in sorted(names_of(connection, "account")):
        if account_id >= behind.at:
            key = behind.key if account_id == behind.at else b""
            ids = select(id_).where(execution.c.account_id == account_id, id_.between(first, last), id_ > key, *wanted)
            keys = connection.scalars(ids.order_by(id_).limit(page.limit + 1))
            found += [ListedRow(account_id, each, account_id) for each in keys]
    return cut_page(found, None, page.limit, "i")


def execution_view(console: Console, row: ExecutionRow, watches: Mapping[str, WatchSettings]) -> models.ExecutionView:
    """Return an execution as a model, with the data of its last event."""
    alert = None if row.body is None else Alert.of(json.loads(row.body))
    data = {} if alert is None else alert.data
    block = data.get("execution", {})
    node, error = alert.nodes[0] if alert is not None and alert.nodes else ("", "")
    watch, known = watches.get(row.pipeline_name), console.pipelines.get(row.pipeline_name)
    is_unknown = known is not None and known.unknown and row.ended_at is None
    name = (known and known.name) or data.get("pipeline", {}).get("name") or row.title
    return models.ExecutionView(
        account=row.account,
        pipeline=models.PipelineRef(id=row.pipeline_name.rpartition("/")[2], name=name),
        id=row.key,
        status=row.status,
        since=row.since_at,
        ended_at=row.finished_at,
        end_seen_at=row.ended_at,
        lost=row.lost,
        overdue=row.overdue_sequence is not None,
        unknown=is_unknown,
        unknown_since=known.unknown_since if known and is_unknown else None,
        started_at=block.get("startedAt", row.started_at),
        finished_at=block.get("finishedAt"),
        duration_seconds=block.get("durationSeconds"),
        error=first_visible(error, block.get("error")) or None,
        node=node or None,
        labels=data.get("labels", {}) if watch is None else watch.labels,
        link=None if alert is None else alert.link,
    )


def stays_of(events: Sequence[models.EventView]) -> Sequence[models.Stay]:
    """Return the stays of an execution, made from its events. A stay is a period in one status."""
    found: list[models.Stay] = []
    for each in events:
        if not EVENT_KINDS[each.type].is_status:
            continue
        observed = each.data["observed"]
        status = "lost" if each.type is EventType.EXECUTION_LOST else each.data["execution"]["status"]
        stay = models.Stay(status=status, at=observed["at"], not_before=observed.get("notBefore"))
        if found:
            found[-1] = found[-1].model_copy(update={"until": stay.at})
        found.append(stay)
    return found
