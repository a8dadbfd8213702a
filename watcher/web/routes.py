"""The routes of the API under `/api/v1`. The table `ROUTES` makes docs/reference/api.md and the OpenAPI document.

A request is parsed into a model for its handler in `api`; the handler's model, or its refusal, becomes the answer.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from aiohttp import web
from multidict import MultiMapping
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from watcher.domain.errors import StoreError
from watcher.web import api, models
from watcher.web.api import RefusedError
from watcher.web.console import Console
from watcher.web.csv_answers import csv_pieces
from watcher.web.history import HistoryQuery
from watcher.web.server import read_body

API = "/api/v1"

_COMMA, _BEFORE_LABEL = re.compile(","), re.compile(r",(?=\s*!?[^:,]+:)")
"""The separators of several values of one filter. A label's own value may hold a comma."""


class Caller(NamedTuple):
    """The sender of a request."""

    by: str
    """The proof of the sender: `bearer`, `proxy` (a bearer token that may be the proxy's), `session`, or empty."""
    may_act: bool
    user: str = ""
    """The name of the user, as the proxy of `http.proxy` gives it."""


CALLER = web.RequestKey("caller", Caller)


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """A request that the API takes.

    The handler gets the console, the values in the path in their order, and a model of the query or the body if it has
    a parameter `request`. The annotations and the docstring of the handler describe the request in the reference.
    """

    method: str
    path: str
    handler: Callable[..., Awaitable[BaseModel | None]]
    status: int = 200
    refuses: Sequence[int] = ()
    """Status codes of refusals by this handler."""

    @property
    def request_model(self) -> type[models.ApiRequest]:
        """Return the model of the query of a GET, or of the body of another method."""
        model: type[models.ApiRequest] = get_type_hints(self.handler).get("request", models.ApiRequest)
        return model


ROUTES = (
    ApiRoute("GET", "/status", api.status),
    ApiRoute("GET", "/problems", api.problems),
    ApiRoute("GET", "/problems/{id}", api.problem, refuses=(404,)),
    ApiRoute("POST", "/problems/ack", api.acknowledge_several),
    ApiRoute("POST", "/problems/{id}/ack", api.acknowledge, refuses=(404, 409)),
    ApiRoute("DELETE", "/problems/{id}/ack", api.unacknowledge, refuses=(404, 409)),
    ApiRoute("GET", "/executions", api.executions),
    ApiRoute("GET", "/executions/{account}/{pipeline}/{id}", api.execution, refuses=(404,)),
    ApiRoute("GET", "/events", api.events),
    ApiRoute("GET", "/deliveries", api.deliveries),
    ApiRoute("POST", "/deliveries/replay", api.replay, refuses=(404, 409)),
    ApiRoute("POST", "/sinks/{name}/enable", api.enable, refuses=(404, 409)),
    ApiRoute("POST", "/sinks/{name}/test", api.test, refuses=(404,)),
    ApiRoute("GET", "/report", api.report),
    ApiRoute("GET", "/silences", api.silences),
    ApiRoute("POST", "/silences", api.add_silence, status=201),
    ApiRoute("DELETE", "/silences/{id}", api.end_silence, status=204, refuses=(404,)),
    ApiRoute("GET", "/pipelines/{account}/{id}/history", api.history, refuses=(404,)),
    ApiRoute("POST", "/pipelines/{account}/{id}/scan", api.scan, status=202, refuses=(404, 409)),
)
"""All requests, in the order of docs/reference/api.md."""


def api_routes(console: Callable[[], Console | None]) -> Sequence[web.RouteDef]:
    """Return the routes. They answer 503 while `console` returns `None`, because the store is not open."""
    by_path: dict[str, dict[str, ApiRoute]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, {})[route.method] = route

    def at(path: str, methods: Mapping[str, ApiRoute]) -> web.RouteDef:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return await _respond(request, console(), methods)
            except RefusedError as error:
                return refusal(error)
            except StoreError:
                text = "the store cannot be used now; /readyz?verbose and the log say more"
                return refusal(RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, text))

        return web.route("*", path, answer)

    paths = [at(f"{API}{path}", methods) for path, methods in by_path.items()]
    return [*paths, at("/api/{rest:.*}", {}), web.get("/openapi.json", _openapi)]


async def _respond(
    request: web.Request, console: Console | None, methods: Mapping[str, ApiRoute]
) -> web.StreamResponse:
    if not methods:
        raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such path; /openapi.json has all of them")
    route = methods.get("GET" if request.method == "HEAD" else request.method)
    if route is None:
        allowed = ", ".join(sorted(methods))
        raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, f"this path takes {allowed}", Allow=allowed)
    if console is None:
        raise StoreError("it is not open yet")
    parsed = await _read_request(request, route)
    for query in parsed:
        if isinstance(query, models.ExecutionQuery | HistoryQuery) and query.format == "csv":
            return await _csv(request, csv_pieces(console, *request.match_info.values(), request=query))
    handling = asyncio.ensure_future(_handle(route, console, *request.match_info.values(), *parsed))
    # If the client has left, nobody awaits a write: an error that is not retrieved would be logged by asyncio.
    handling.add_done_callback(lambda task: task.cancelled() or task.exception())
    result = await (handling if route.method == "GET" else asyncio.shield(handling))
    if result is None:
        return web.Response(status=route.status)
    status = 202 if result == models.Done(done=False) else route.status
    response = _response(result, status, "application/json", {})
    if route.method == "GET":
        assert isinstance(response.body, bytes)
        tag = blake2b(response.body, digest_size=12).hexdigest()
        response.etag = tag
        if any(each.value in {"*", tag} for each in request.if_none_match or ()):
            return web.Response(status=304, headers={"ETag": response.headers["ETag"]})
    return response


async def _csv(request: web.Request, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    """Send an answer in pieces. If the store fails after the first piece, the connection is closed before the end."""
    piece = await anext(pieces)  # a refusal or a failure here has an answer of its own
    kind = request.path.rpartition("/")[2]
    response = web.StreamResponse(headers={"Content-Disposition": f'attachment; filename="{kind}.csv"'})
    response.content_type, response.charset = "text/csv", "utf-8"
    await response.prepare(request)
    try:
        await response.write(piece)
        async for piece in pieces:
            await response.write(piece)
    except (StoreError, ConnectionError):
        if request.transport is not None:
            request.transport.abort()  # so that the client does not take the part for the whole
    return response


async def _handle(route: ApiRoute, console: Console, *arguments: object) -> BaseModel | None:
    """Call the handler, and after a write `console.changed`.

    `_respond` shields a write, so that both calls are completed even if the client has left.
    """
    result = await route.handler(console, *arguments)
    if route.method != "GET":
        console.changed()
    return result


async def _read_request(request: web.Request, route: ApiRoute) -> Sequence[models.ApiRequest]:
    try:
        if route.method == "GET":
            parsed = route.request_model.model_validate(query_of(request.query, route.request_model))
        else:
            body = await read_body(request)
            # A page of another site can make a browser post a form, but only without a bearer token.
            may_be_form = request.method == "POST" and request[CALLER].by != "bearer"
            if (body or may_be_form) and request.content_type != "application/json":
                text = "write it as JSON, with Content-Type: application/json"
                raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, text)
            parsed = route.request_model.model_validate_json(body or b"{}")
    except web.HTTPRequestEntityTooLarge:
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a body has at most 64 KiB") from None
    except ValidationError as error:
        is_json = error.errors(include_context=False, include_input=False)[0]["type"] != "json_invalid"
        status = HTTPStatus.UNPROCESSABLE_ENTITY if is_json else HTTPStatus.BAD_REQUEST
        raise RefusedError(status, mistakes_in(error)) from None
    if (user := request[CALLER].user) and isinstance(parsed, models.PersonalRequest):
        parsed = parsed.model_copy(update={"by": user})
    if "\\u0000" in parsed.model_dump_json():  # PostgreSQL cannot store it
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "a text holds a null character; leave it out")
    return () if route.request_model is models.ApiRequest else (parsed,)


def mistakes_in(error: ValidationError) -> str:
    """Return the mistakes in a request, each with the name of its field."""
    found = error.errors(include_context=False, include_input=False)
    return "; ".join(": ".join((*map(str, each["loc"][:1]), _plain_words(each))) for each in found)


def _plain_words(error: ErrorDetails) -> str:
    """Return pydantic's error message in plain words."""
    words = re.sub(r"^\w+ should ", "must ", error["msg"].removeprefix("Value error, "))
    return words.partition(", ")[0] if error["type"].endswith("_parsing") else words


def query_of(given: MultiMapping[str], model: type[models.ApiRequest]) -> dict[str, Any]:
    """Return the fields of a query. A list takes several values: separated by commas, or as a repeated field."""
    query: dict[str, Any] = {}
    for name in given:
        values = given.getall(name)
        if name in model.model_fields and model.model_fields[name].default == ():
            comma = _BEFORE_LABEL if name == "label" else _COMMA
            query[name] = [part.strip() for value in values for part in comma.split(value)]
        else:
            query[name] = values[0] if len(values) == 1 else values
    return query


def refusal(error: RefusedError) -> web.Response:
    """Return the response for a refusal."""
    trouble = models.Trouble(title=error.status.phrase, status=error.status, detail=error.detail)
    return _response(trouble, error.status, "application/problem+json", error.headers)


def _response(answer: BaseModel, status: int, content_type: str, headers: Mapping[str, str]) -> web.Response:
    body = answer.model_dump_json(by_alias=True, exclude_none=True).encode()
    return web.Response(body=body, status=status, content_type=content_type, headers=headers)


async def _openapi(_: web.Request) -> web.FileResponse:
    return web.FileResponse(Path(__file__).with_name("openapi.json"))
