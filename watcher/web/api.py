"""The handlers of the API.

A handler takes the console, the values in the path, and the query or body; it returns a model of `models`, or raises
`RefusedError`. `routes` has the path of each handler, and the pages call the same handlers.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID

from watcher.domain.history import DAY_US, HOUR_US
from watcher.domain.routing import types_matching
from watcher.domain.timestamps import NEVER, Micros, to_us
from watcher.web import models
from watcher.web.console import Console
from watcher.web.deliveries import delivery_views, load_deliveries
from watcher.web.events import EventFilter, load_events, load_newest_events, load_recorded_at
from watcher.web.executions import execution_view, load_execution, load_executions, stays_of
from watcher.web.history import History, HistoryQuery, find_history
from watcher.web.listing import Position
from watcher.web.overview import StatusView
from watcher.web.problems import ProblemRow, alert_of, load_problem, load_problems, load_problems_by_id, problem_view
from watcher.web.report import Report, ReportQuery, make_report
from watcher.web.silences import load_silences, stored_silence
from watcher.web.status import worst_first
from watcher.web.told import told_of

_ID_BEGINNING = re.compile(r"[0-9a-f]{4,32}", re.ASCII)


class RefusedError(Exception):
    """The refusal of a request, with a status code, and words that say what would be right."""

    def __init__(self, status: HTTPStatus, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


def _unknown(what: str) -> RefusedError:
    return RefusedError(HTTPStatus.NOT_FOUND, what)


# Handlers that read


async def status(console: Console) -> StatusView:
    """Return the overview, which is made at most once a second."""
    found = await console.status.get()
    return found.model_copy(update={"pipelines": [each.view() for each in worst_first(console)]})


async def problems(console: Console, request: models.ProblemQuery) -> models.Page[models.ProblemView]:
    """Return problems: open ones that nobody acknowledged, other open ones, closed ones; the last opened first."""
    rows, last = await load_problems(
        console.store,
        is_open={"open": True, "closed": False, "all": None}[request.state],
        kinds=request.kind,
        accounts=request.account,
        is_of_pipeline=_is_of_pipeline(console, request) if request.pipeline or request.label else None,
        incident_key=request.incident,
        since=_since(console, request),
        after=_position(request, "oae"),
        limit=request.limit,
    )
    looked = None if last is None or len(rows) == request.limit else last.at
    items = await _problems(console, rows)
    return models.Page[models.ProblemView](items=items, next=_cursor(last), looked_back_to=looked)


async def _problems(console: Console, rows: Sequence[ProblemRow]) -> Sequence[models.ProblemView]:
    await console.status.get()  # this sets `console.pipelines`, which has the names
    watches = console.watches()
    return [problem_view(console, row, watches) for row in rows]


async def problem(console: Console, id_: str) -> models.ProblemDetail:
    """Return one problem, with its events and their deliveries, and what each sink was sent."""
    found = await load_problem(console.store, _uuid(id_, "problem"))
    if found is None:
        raise _unknown("there is no such problem, or it was closed longer ago than store.retention")
    row, its = found
    (it,) = await _problems(console, [row])
    events, deliveries = _event_views(its.bodies), delivery_views(console, its.deliveries)
    told = told_of(console, row, its.deliveries, deliveries)
    return models.ProblemDetail(**dict(it), told=told, events=events, deliveries=deliveries)


async def executions(console: Console, request: models.ExecutionQuery) -> models.Page[models.ExecutionView]:
    """Return executions: open ones, the newest status first, then ended ones, the latest end first."""
    await console.status.get()  # this sets `console.pipelines`, which has the names and states
    watches, named, beginning, end = console.watches(), None, None, ""
    if request.q:
        word = request.q.strip().casefold()
        named = {
            name
            for name, each in console.pipelines.items()
            if (each.name or "").casefold().startswith(word) or each.id == word
        }
        if not named:
            # Pages shorten an id to its beginning, `…` and its end.
            beginning, _, end = word.replace("-", "").partition("…")
            if not _ID_BEGINNING.fullmatch(beginning):
                return models.Page[models.ExecutionView](items=[])

    is_of_pipeline = _is_of_pipeline(console, request)
    rows, last = await load_executions(
        console.store,
        is_of_pipeline=lambda name: is_of_pipeline(name) and (not named or name in named),
        statuses=request.status,
        ended_since=_since(console, request),
        id_beginning=beginning,
        after=_position(request, "i" if beginning else "oe"),
        limit=request.limit,
    )
    items = [each for each in (execution_view(console, row, watches) for row in rows) if each.id.endswith(end)]
    looked = None if last is None or len(rows) == request.limit else last.at
    return models.Page[models.ExecutionView](items=items, next=_cursor(last), looked_back_to=looked)


async def execution(console: Console, account: str, pipeline: str, id_: str) -> models.ExecutionDetail:
    """Return one execution with its stays, events and deliveries."""
    _uuid(id_, "execution")
    found = await load_execution(console.store, f"{account}/{pipeline.lower()}", id_)
    if found is None:
        raise _unknown("there is no such execution: it is not watched, or it ended longer ago than store.retention")
    row, told = found
    await console.status.get()
    it, events = execution_view(console, row, console.watches()), _event_views(told.bodies)
    deliveries = delivery_views(console, told.deliveries)
    return models.ExecutionDetail(**dict(it), events=events, deliveries=deliveries, stays=stays_of(events))


async def events(console: Console, request: models.EventQuery) -> models.Page[models.EventView]:
    """Return events in the order of recording; requests that go on with `next` miss no event."""
    after = None if request.after is None else int(request.after)
    bodies, last = await load_events(console.store, _filter(console, request), after=after, limit=request.limit)
    return models.Page[models.EventView](items=_event_views(bodies), next=str(last))


def _event_views(bodies: Iterable[bytes]) -> Sequence[models.EventView]:
    return list(map(models.EventView.model_validate_json, bodies))


async def newest_events(console: Console, request: models.EventQuery) -> models.Page[Any]:
    """Return events as alerts for the page of events, the last recorded event first."""
    after = None if request.after is None else int(request.after)
    bodies, last = await load_newest_events(console.store, _filter(console, request), after=after, limit=request.limit)
    items = [alert_of(console, json.loads(body)) for body in bodies]
    looked = None if last is None or len(items) == request.limit else await load_recorded_at(console.store, last)
    return models.Page[Any](items=items, next=None if last is None else str(last), looked_back_to=looked)


def _filter(console: Console, request: models.EventQuery) -> EventFilter:
    return EventFilter(
        types_matching(tuple(request.type)) if request.type else None,
        request.pipeline,
        _labels(request.label),
        None if request.execution is None else str(request.execution),
        _since(console, request),
    )


async def deliveries(console: Console, request: models.DeliveryQuery) -> models.Page[models.DeliveryView]:
    """Return deliveries, those of the newest events first."""
    rows, last = await load_deliveries(
        console.store,
        state=request.state,
        sink=request.sink,
        types=types_matching(tuple(request.type)) if request.type else None,
        after=_position(request, "", is_number=True),
        limit=request.limit,
    )
    looked = None if last is None or len(rows) == request.limit else await load_recorded_at(console.store, last.at)
    views = delivery_views(console, rows)
    return models.Page[models.DeliveryView](items=views, next=_cursor(last), looked_back_to=looked)


async def silences(console: Console) -> models.Page[models.SilenceView]:
    """Return the silences of the file that are not over, and those made by a page, a command or the API."""
    return models.Page[models.SilenceView](items=await load_silences(console))


async def history(console: Console, account: str, id_: str, request: HistoryQuery) -> History:
    """Return the history of a pipeline: by the hour up to `7d`, else by the day (UTC). The running period is last."""
    name = f"{account}/{_uuid(id_, 'pipeline')}"
    await console.status.get()
    if name not in console.pipelines:
        raise _unknown("there is no such pipeline in the configuration")
    span_us = round(request.span * 1e6)
    return await find_history(console, name, span_us=span_us, length_us=HOUR_US if span_us <= 7 * DAY_US else DAY_US)


async def report(console: Console, request: ReportQuery) -> Report:
    """Return the report on all pipelines over the last hours, with the running hour."""
    async with console.reporting:
        now = console.clock.steady_us()
        made = await make_report(console, since=Micros(now - round(request.last * 1e6)), until=now)
    return Report.model_validate(made)


# Handlers that do something


async def acknowledge_several(console: Console, request: models.AckSeveralRequest) -> models.Page[models.ProblemView]:
    """Acknowledge several problems at once; return those that were open."""
    taken = await _acknowledge(console, request, *request.ids)
    rows = await load_problems_by_id(console.store, [id_.bytes for id_ in taken])
    return models.Page[models.ProblemView](items=await _problems(console, rows))


async def acknowledge(console: Console, id_: str, request: models.AckRequest) -> models.ProblemView:
    """Acknowledge a problem: no reminder is sent until the problem is closed, or `for` is over."""
    found = await problem(console, id_)
    if not await _acknowledge(console, request, UUID(found.id)):
        raise RefusedError(HTTPStatus.CONFLICT, "the problem is closed: nobody needs to acknowledge it any more")
    return await problem(console, id_)


async def _acknowledge(console: Console, request: models.AckRequest, *ids: UUID) -> Sequence[UUID]:
    until = None if request.for_s is None else console.clock.now() + timedelta(seconds=request.for_s)
    return await console.operator.acknowledge(*ids, by=request.by, comment=request.comment, until=until)


async def unacknowledge(console: Console, id_: str) -> models.ProblemView:
    """Take back an acknowledgement: reminders are sent again."""
    found = await problem(console, id_)
    if not await console.operator.unacknowledge(UUID(found.id)):
        raise RefusedError(HTTPStatus.CONFLICT, "the problem is closed, or nobody has acknowledged it")
    return await problem(console, id_)


async def add_silence(console: Console, request: models.SilenceRequest) -> models.SilenceView:
    """Silence the events that match, from now on."""
    now = console.clock.now()
    until = request.until or now + timedelta(seconds=request.for_s or 0.0)
    if until <= now:
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "until: is over already; write a later moment")
    settings = console.settings()
    for kind, named, known in (
        ("sinks", request.match.sinks, [name for name, sink in settings.sinks.items() if sink.target is not None]),
        ("accounts", request.match.accounts, settings.accounts),
    ):
        if unknown := [name for name in named if name not in known]:
            text = f"match.{kind}: {unknown[0]} cannot be silenced; these can: {', '.join(known)}"
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, text)
    match = request.match.model_dump_json(exclude_defaults=True)
    added = await console.operator.add_silence(
        match, starts_at=now, ends_at=until, by=request.by, comment=request.comment
    )
    return stored_silence(console, added)


async def end_silence(console: Console, id_: str) -> None:
    """End a silence that is not one of the file."""
    if not re.fullmatch(r"\d{1,18}", id_, re.ASCII) or not await console.operator.end_silence(int(id_)):
        raise _unknown("there is no such silence, or it has ended; one of the file ends in the file")


async def replay(console: Console, request: models.ReplayRequest) -> models.Replayed:
    """Send dead letters of a sink again, with their old ids."""
    _sink(console, request.sink)
    ids = None if request.ids is None else [int(id_) for id_ in request.ids]
    count = await console.operator.replay(request.sink, ids)
    if not count:
        text = "none of these is a dead letter: a pending delivery is sent in any case"
        raise RefusedError(HTTPStatus.CONFLICT, text)
    return models.Replayed(replayed=count)


async def enable(console: Console, name: str, within_s: float = 20.0) -> models.Done:
    """Enable a sink that its receiver disabled by a 410; answer 202 if that takes longer than 20 s."""
    _sink(console, name)
    sink = next((each for each in (await console.status.get()).sinks if each.name == name), None)
    if sink is None or sink.state != "disabled":
        raise RefusedError(HTTPStatus.CONFLICT, f"sink {name} is not disabled: only a receiver's 410 does that")
    await console.operator.request_action("enable", name)
    console.changed()
    until = console.clock.monotonic() + within_s
    while ("enable", name) in await console.operator.load_actions():
        if console.clock.monotonic() >= until:
            return models.Done(done=False)
        await asyncio.sleep(0.2)
    return models.Done(done=True)


async def test(console: Console, name: str) -> models.TestResult:
    """Send a test message to a sink, and return its receiver's answer."""
    _sink(console, name)
    return await console.test_sink(name)


async def scan(console: Console, account: str, id_: str) -> models.Done:
    """Scan the list of a whole pipeline as soon as the budget allows; several requests at once cause one scan."""
    name = f"{account}/{_uuid(id_, 'pipeline')}"
    watch = console.watches().get(name)
    if watch is None:
        raise _unknown("there is no such pipeline in the configuration")
    if watch.executions:
        raise RefusedError(HTTPStatus.CONFLICT, "only some executions of this pipeline are watched: no list is read")
    await console.operator.request_action("scan", name)
    return models.Done(done=False)


# Parts of requests


def _sink(console: Console, name: str) -> None:
    if name not in console.settings().sinks:
        raise _unknown("there is no such sink in the configuration")


def _uuid(text: str, what: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise _unknown(f"there is no such {what}: its id has 32 hexadecimal digits") from None


def _position(request: models.PageQuery, parts: str, *, is_number: bool = False) -> Position | None:
    if request.after is None:
        return None
    match = re.fullmatch(models.CURSOR, request.after)
    assert match is not None
    part, at, key = match.groups()
    if part not in (list(parts) or [""]) or (len(key) > 15 if is_number else len(key) % 2):
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, f"after: {models.NO_CURSOR}")
    return Position(part, int(at), int(key, 16) if is_number else bytes.fromhex(key))


def _cursor(position: Position | None) -> str | None:
    if position is None:
        return None
    key = f"{position.key:x}" if isinstance(position.key, int) else position.key.hex()
    return f"{position.part}.{position.at}.{key}"


def _since(console: Console, request: models.PipelineQuery) -> Micros:
    if request.since is None:
        return NEVER
    if isinstance(request.since, float):
        return Micros(console.clock.steady_us() - round(request.since * 1e6))
    return to_us(request.since)


def _is_of_pipeline(console: Console, request: models.ExecutionQuery | models.ProblemQuery) -> Callable[[str], bool]:
    """Return the function that says whether a pipeline (`account/id`) passes the filters of a query."""
    watches, labels = console.watches(), _labels(request.label)

    def matches(name: str) -> bool:
        account, _, id_ = name.rpartition("/")
        its = watches[name].labels if name in watches else {}
        return (
            (not request.account or account in request.account)
            and (not request.pipeline or id_ in request.pipeline)
            and all((its.get(key) == value) == is_there for key, value, is_there in labels)
        )

    return matches


def _labels(wanted: Iterable[str]) -> Sequence[tuple[str, str, bool]]:
    """Return label filters, such as `team:sales` and `!env:dev`, as key, value, and whether a pipeline must have it."""
    parts = ((text.removeprefix("!").partition(":"), not text.startswith("!")) for text in wanted)
    return [(key, value, is_there) for (key, _, value), is_there in parts]
