"""The pages, rendered from the answers of the API's handlers with the files in `templates/` and `static/`."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from http import HTTPStatus
from math import inf
from mimetypes import guess_type
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar
from urllib.parse import quote, urlencode
from uuid import UUID

from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import MultiDict
from pydantic import ValidationError
from pydantic_core import to_json

from watcher.config.checks import fits
from watcher.config.models import Settings
from watcher.domain.envelope import Json
from watcher.domain.errors import StoreError
from watcher.domain.event import EventType
from watcher.domain.problems import PROBLEM_KINDS
from watcher.domain.timestamps import Micros, to_us
from watcher.runtime.clock import Clock
from watcher.runtime.version import VERSION
from watcher.sinks.settings import SilenceMatch
from watcher.web import access, api, models, routes
from watcher.web.console import Console
from watcher.web.executions import execution_view, load_failed
from watcher.web.graphs import SPANS
from watcher.web.history import find_history, load_rates
from watcher.web.overview import PipelineState, StatusView
from watcher.web.server import read_body
from watcher.web.status import worst_first

NEEDS_COUNT = 10
"""Maximum number of needs on the overview; a link shows the others."""

FAILED_COUNT = 10
"""Maximum number of failed executions on the page of a problem."""

PIPELINES_COUNT = 100
"""Maximum number of pipelines on one page of the overview: a page with thousands would be slow."""

FILL_S = 2.0
"""Seconds for which the page of a filtered list goes on until it is full."""

ROUTINE = (EventType.EXECUTION_NEW, EventType.EXECUTION_RUNNING)
"""Types of events that the lists of events and of deliveries show only on demand.

They are shown with a filter by type; the events also with a filter by execution, the deliveries also among the dead
letters.
"""

PageContext = dict[str, Any]
"""The values for a template. The page's ETag is a hash of these values, so they must not hold the present time."""

FindContext = Callable[[Console, StatusView, web.Request], Awaitable[PageContext]]
Q = TypeVar("Q", bound=models.PageQuery)


def page_routes(
    console: Callable[[], Console | None], settings: Callable[[], Settings], clock: Clock
) -> Sequence[web.RouteDef]:
    """Return the routes of pages and of static files."""
    site = _Site(console, settings, clock)
    return [
        web.get("/", site.page("overview.html", _overview)),
        web.get("/executions", site.page("executions.html", _executions)),
        web.get("/executions/{account}/{pipeline}/{id}", site.page("execution.html", _execution)),
        web.get("/pipelines/{account}/{id}", site.page("pipeline.html", _pipeline)),
        web.get("/problems", site.page("problems.html", _problems)),
        web.get("/problems/{id}", site.page("problem.html", _problem)),
        web.get("/events", site.page("events.html", _events)),
        web.get("/deliveries", site.page("deliveries.html", _deliveries)),
        web.get("/silences", site.page("silences.html", _silences)),
        web.get("/e/{prefix}", site.page("executions.html", _by_prefix)),
        web.get(access.LOGIN, site.login),
        web.post(access.LOGIN, site.log_in),
        web.post(access.LOGOUT, site.log_out),
        web.get(access.STATIC + "{name}", _static),
        web.get("/{rest:.*}", site.unknown),
    ]


class _Site(NamedTuple):
    """The answers of pages, and the login. `console` returns `None` until the store is open."""

    console: Callable[[], Console | None]
    settings: Callable[[], Settings]
    clock: Clock

    def respond(self, request: web.Request, template: str, found: PageContext, status: int = 200) -> web.Response:
        """Return a page, or 304 if the browser has it."""
        caller = request[routes.CALLER]
        its = {"may_act": caller.may_act, "has_session": caller.by == "session", "user": caller.user}
        found = {"unknown": 0, **found, **its}
        digest = hashlib.sha256(to_json([request.path_qs, template, VERSION, found], fallback=str)).hexdigest()
        headers = {200: {"ETag": f'"{digest[:32]}"'}, 429: {"Retry-After": "1"}}.get(status, {})
        if "ETag" in headers and request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        if template == "login.html" or found["has_session"]:  # otherwise a browser sends our forms with `Origin: null`
            headers["Referrer-Policy"] = "same-origin"
        text = _render(request, template, found, now=self.clock.now())
        return web.Response(text=text, status=status, content_type="text/html", headers=headers)

    def message(self, request: web.Request, status: int, title: str, detail: str) -> web.Response:
        """Return a page with a message."""
        found = {"title": title, "detail": detail, "status": status, "needs": 0}
        return self.respond(request, "message.html", found, status)

    def page(self, template: str, find: FindContext) -> Handler:
        """Return the handler of a page."""

        async def show(request: web.Request) -> web.Response:
            now_open = self.console()
            if now_open is None:
                return self.message(request, 503, "Not ready", "The store is not open yet. This page tries again.")
            try:
                status = await now_open.status.get()
                found = await find(now_open, status, request)
            except api.RefusedError as error:
                title = "Not found" if error.status == HTTPStatus.NOT_FOUND else "This filter cannot be used"
                return self.message(request, error.status, title, f"{error.detail[0].upper()}{error.detail[1:]}.")
            except StoreError:
                return self.message(
                    request, 503, "The store does not answer", "Nothing is lost. This page tries again."
                )
            except ValidationError as error:
                return self.message(request, 400, "This filter cannot be used", f"{routes.mistakes_in(error)}.")
            needs = sum(not each.acknowledged for each in status.needs)
            unknown = {"unknown": status.unknown, "unknown_since": status.unknown_since}
            return self.respond(
                request, template, {"needs": needs, "watched": len(now_open.pipelines), **unknown, **found}
            )

        return show

    async def login(self, request: web.Request) -> web.Response:
        """Return the login form."""
        found = {"next": access.local_path(request.query.get("next", "/")), "problem": "", "needs": 0}
        return self.respond(request, "login.html", found)

    async def log_in(self, request: web.Request) -> web.Response:
        """Begin a session if the token of the form is right."""
        await read_body(request)
        try:
            form = await request.post()
        except (ValueError, LookupError):
            return self.message(request, 400, "This form cannot be read", "Send it as this page does.")
        found = {"next": access.local_path(str(form.get("next", "/"))), "needs": 0}
        token = access.right_token(str(form.get("token", "")).strip(), access.tokens_of(self.settings()))
        if token is None:
            is_too_fast = request[access.WRONG_TOKENS].note(request)
            found["problem"] = f"This is not the token{', either. Try again in a second' if is_too_fast else ''}."
            return self.respond(request, "login.html", found, 429 if is_too_fast else 401)
        response = web.Response(status=303, headers={"Location": str(found["next"])})
        response.set_cookie(
            access.COOKIE,
            access.new_session(token, now=self.clock.now()),
            max_age=access.SESSION_S,
            httponly=True,
            samesite="Strict",
            secure=request.headers.get("Origin", self.settings().http.public_url or "").startswith("https:"),
        )
        return response

    async def log_out(self, _request: web.Request) -> web.Response:
        """End the session."""
        response = web.Response(status=303, headers={"Location": access.LOGIN})
        response.del_cookie(access.COOKIE)
        return response

    async def unknown(self, request: web.Request) -> web.Response:
        """Return 404."""
        return self.message(request, 404, "Not found", "There is no such page.")


def _render(request: web.Request, template: str, found: PageContext, *, now: datetime) -> str:
    from watcher.web.render import render  # noqa: PLC0415 (Jinja2 takes memory, so it is imported with the first page)

    def with_query(changes: Mapping[str, str]) -> str:
        pairs = [(name, value) for name, value in request.query.items() if value and name not in changes]
        return f"{request.path}?{urlencode([*pairs, *((name, value) for name, value in changes.items() if value)])}"

    static = {name: f"{access.STATIC}{hashed}" for hashed, (name, _) in _files().items()}
    return render(
        template,
        here=request.path,
        now=now,
        query=defaultdict(str, request.query),
        static=static,
        version=VERSION,
        with_query=with_query,
        **found,
    )


@cache
def _files() -> Mapping[str, tuple[str, bytes]]:
    """Return the name and the content of each static file, by its name in URLs.

    The name in URLs holds a hash of the content, so that browsers may cache the file for ever.
    """
    files = {}
    for path in (Path(__file__).parent / "static").iterdir():
        content = path.read_bytes()
        files[f"{path.stem}.{hashlib.sha256(content).hexdigest()[:12]}{path.suffix}"] = (path.name, content)
    return files


async def _static(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if (found := _files().get(name)) is None:
        raise web.HTTPNotFound
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return web.Response(body=found[1], content_type=guess_type(name)[0], headers=headers)


def _read(model: type[Q], request: web.Request) -> Q:
    """Return the query of a form, without empty fields and without fields that the model lacks."""
    given = [(name, value) for name, value in request.query.items() if value.strip() and name in model.model_fields]
    return model.model_validate(routes.query_of(MultiDict(given), model))


async def _overview(console: Console, status: StatusView, request: web.Request) -> PageContext:
    query = defaultdict(str, request.query)
    pipelines = worst_first(console)
    matching = [each for each in pipelines if _is_shown(each, query)]
    if query["sort"] in ORDERS:
        matching.sort(key=ORDERS[query["sort"]])
    page = max(1, int(query["page"])) if re.fullmatch(r"\d{1,6}", query["page"], re.ASCII) else 1
    first = (page - 1) * PIPELINES_COUNT
    shown = matching[first : first + PIPELINES_COUNT]
    names = {f"{each.account}/{each.id}" for each in shown}
    shown_needs = len(status.needs) if query["needs"] == "all" else NEEDS_COUNT
    problems = [id_ for each in status.needs[:shown_needs] if not each.acknowledged for id_ in each.problems]
    return {
        "status": status.model_copy(update={"pipelines": [each.view() for each in shown]}),
        "rates": await load_rates(console.store, names),
        "shown_needs": shown_needs,
        "shown_problems": problems[: models.ACK_COUNT],
        "names": _names(console),
        "first": first,
        "next_page": page + 1 if first + len(shown) < len(matching) else 0,
        "matching": len(matching),
        "accounts": [each.name for each in status.accounts],
        "labels": _labels(console),
        "max_interval": console.settings().polling.max_interval_s,
        "started": any(map(_has_started, pipelines)),
    }


def _has_started(pipeline: PipelineState) -> bool:
    last = pipeline.snapshot
    return bool(last.open or last.ends or last.last_started_at)


def _is_shown(pipeline: PipelineState, query: Mapping[str, str]) -> bool:
    is_open = any(pipeline.snapshot.open.values())
    states = {"failing": bool(pipeline.problems), "open": is_open, "idle": not is_open}
    key, _, value = query["label"].partition(":")
    return (
        states.get(query["state"], True)
        and query["account"] in {"", pipeline.account}
        and (not key or pipeline.labels.get(key) == value)
    )


def _name(pipeline: PipelineState) -> str:
    return (pipeline.name or pipeline.id).lower()


ORDERS: Mapping[str, Callable[[PipelineState], Any]] = {
    "name": _name,
    "oldest": lambda each: min(each.snapshot.oldest.values(), default=inf),
}
"""The sort keys of pipelines, by the name in the query; by default the worst pipelines come first."""


def _labels(console: Console) -> Sequence[tuple[tuple[str, str], int]]:
    """Return all labels of the configuration, each with the number of pipelines that have it."""
    return sorted(Counter(pair for watch in console.settings().watch for pair in watch.labels.items()).items())


def _names(console: Console) -> Mapping[str, str]:
    return {each.id: each.name or each.id for each in sorted(worst_first(console), key=_name)}


async def _executions(console: Console, status: StatusView, request: web.Request) -> PageContext:
    query = _read(models.ExecutionQuery, request)
    return {**_filters(console, status, query), **await _fill(console, api.executions, query)}


async def _fill(console: Console, find: Callable[[Console, Q], Awaitable[models.Page[Any]]], query: Q) -> PageContext:
    """Return the `page` of a list. If it ends early, go on for up to 2 s until it is full."""
    until = console.clock.monotonic() + FILL_S
    page = await find(console, query)
    while page.next and len(page.items) < query.limit and console.clock.monotonic() < until:
        rest = {"after": page.next, "limit": query.limit - len(page.items)}
        further = await find(console, query.model_copy(update=rest))
        page = further.model_copy(update={"items": [*page.items, *further.items]})
    return {"page": page}


def _filters(console: Console, status: StatusView, query: models.PipelineQuery) -> PageContext:
    """Return the values of the filter form above a list."""
    return {
        "asked": query,
        "pipelines": _names(console),
        "accounts": [each.name for each in status.accounts],
        "filtered": bool(query.model_fields_set - {"after", "limit"}),
    }


async def _execution(console: Console, status: StatusView, request: web.Request) -> PageContext:
    it = await api.execution(console, *request.match_info.values())
    minute = int(console.clock.now().timestamp() // 60)  # makes the ETag change each minute, because the timeline grows
    return {"it": it, "choices": _silence_choices(console, it.account, it.pipeline.id), "minute": minute}


async def _pipeline(console: Console, status: StatusView, request: web.Request) -> PageContext:
    account, id_ = request.match_info["account"], request.match_info["id"]
    it = console.pipelines.get(f"{account}/{id_}")
    if it is None:
        raise api.RefusedError(HTTPStatus.NOT_FOUND, "there is no such pipeline in the configuration")
    span = request.query.get("span") or "24h"
    if span not in SPANS:
        raise api.RefusedError(HTTPStatus.BAD_REQUEST, f"span: write one of {', '.join(SPANS)}")
    span_us, length_us = SPANS[span]
    problems = await api.problems(console, models.ProblemQuery(account=[account], pipeline=[id_], limit=200))
    latest = models.ExecutionQuery(account=[account], pipeline=[id_], limit=20)
    return {
        "it": it.view(),
        "problems": problems.items,
        "span": span,
        "history": await find_history(console, f"{account}/{id_}", span_us=span_us, length_us=length_us),
        "choices": _silence_choices(console, account, id_),
        "executions": (await api.executions(console, latest)).items,
    }


async def _problems(console: Console, status: StatusView, request: web.Request) -> PageContext:
    query = _read(models.ProblemQuery, request)
    asked = query if "state" in query.model_fields_set else query.model_copy(update={"state": "all"})
    page = await _fill(console, api.problems, asked)
    return {**_filters(console, status, query), "asked": asked, "kinds": sorted(PROBLEM_KINDS), **page}


async def _events(console: Console, status: StatusView, request: web.Request) -> PageContext:
    query = _read(models.EventQuery, request)
    hidden = () if query.type or query.execution else ROUTINE
    page = await _fill(console, api.newest_events, _without(hidden, query))
    return {**_filters(console, status, query), "accounts": (), "hidden": hidden, **page}


async def _problem(console: Console, status: StatusView, request: web.Request) -> PageContext:
    it = await api.problem(console, request.match_info["id"])
    if it.account is None or it.pipeline is None:
        return {"it": it, "failed": (), "choices": (), "silenced_until": None}
    failed: Sequence[models.ExecutionView] = ()
    if it.kind == EventType.PIPELINE_FAILING:
        until = Micros(console.clock.steady_us()) if it.closed_at is None else to_us(it.closed_at)
        rows = await load_failed(console.store, f"{it.account}/{it.pipeline.id}", until=until, limit=FAILED_COUNT)
        failed = [execution_view(console, row, console.watches()) for row in rows]
    known = console.pipelines.get(f"{it.account}/{it.pipeline.id}")
    return {
        "it": it,
        "failed": failed,
        "choices": _silence_choices(console, it.account, it.pipeline.id),
        "silenced_until": known and known.silenced_until,
    }


def _silence_choices(console: Console, account: str, pipeline: str) -> Sequence[tuple[str, Json, int]]:
    """Return the silences that a page offers: of this pipeline alone, or of all pipelines with one of its labels.

    Each has a name, the `match` of a request to the API, and the number of pipelines that match.
    """
    watch = console.watches().get(f"{account}/{pipeline}")
    matches = {"this pipeline": SilenceMatch(accounts=(account,), pipelines=(UUID(pipeline),))}
    for key, value in (watch.labels if watch else {}).items():
        matches[f"{key}={value}"] = SilenceMatch(labels={key: value})
    all_watches = console.settings().watch
    return [
        (text, match.model_dump(mode="json", exclude_defaults=True), sum(fits(each, match) for each in all_watches))
        for text, match in matches.items()
    ]


async def _deliveries(console: Console, status: StatusView, request: web.Request) -> PageContext:
    query = _read(models.DeliveryQuery, request)
    hidden = () if query.type or query.state == "dead" else ROUTINE
    page = await _fill(console, api.deliveries, _without(hidden, query))
    return {"asked": query, "hidden": hidden, "sinks": status.sinks, **page}


def _without(hidden: Sequence[EventType], query: Q) -> Q:
    """Return the query, limited to the types of events that are not hidden."""
    types = [each for each in EventType if each not in hidden]
    return query.model_copy(update={"type": types}) if hidden else query


async def _silences(console: Console, status: StatusView, request: web.Request) -> PageContext:
    return {
        "silences": status.silences,
        "labels": _labels(console),
        "names": _names(console),
        "sinks": [each.name for each in status.sinks if each.type != "stdout"],
    }


async def _by_prefix(console: Console, status: StatusView, request: web.Request) -> NoReturn:
    """Redirect to the only execution whose id begins with the prefix, otherwise to the list of executions."""
    prefix = request.match_info["prefix"]
    items = (await api.executions(console, models.ExecutionQuery(q=prefix, limit=200))).items
    beginning = prefix.strip().lower().partition("…")[0]
    one = items[0] if len(items) == 1 and items[0].id.startswith(beginning) else None
    raise web.HTTPFound(
        f"/executions/{quote(one.account)}/{one.pipeline.id}/{one.id}"
        if one
        else f"/executions?{urlencode({'q': prefix})}"
    )
