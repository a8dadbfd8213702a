"""The OpenAPI document and docs/reference/api.md, from the table of requests, with answers of a real server."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from inspect import getdoc
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, get_args, get_type_hints

from console_rig import DEGRADED, OVERDUE, a_desk, count, ended, know_from
from openapi_pydantic import Info, MediaType, OpenAPI, Operation, Parameter, PathItem, RequestBody, Response
from openapi_pydantic.util import PydanticSchema, construct_open_api_with_schema_class
from pydantic import BaseModel
from sample_events import PIPELINE, execution_id

from documents.events import fold
from watcher.domain.history import DAY_US
from watcher.web import models
from watcher.web.routes import API, ROUTES, ApiRoute

HEAD = """\
# API

Made by `make docs` from the table that serves it, the examples by asking a real server. A running daemon has the same
at `/openapi.json`, as [OpenAPI 3.1](https://spec.openapis.org/oas/v3.1.1).

Everything is below `/api/v1`, in JSON; times are RFC 3339 in UTC, and what is absent is left out. With
[`http.token`](configuration.md) each request needs `Authorization: Bearer TOKEN`; to read, `http.read_token` will do.
A body needs `Content-Type: application/json`. Without a token, so does a `POST` without a body: else a page of another
site could send it.

- **Lists** come in pages of `limit` (50, at most 200). With the `next` of a page as `after` the list goes on. A page
  reads at most 5,000 rows, so that of a filtered list may be short and still have a `next`.
- **Several values** of one filter are written `status=failed,paused` or `status=failed&status=paused`.
- **Ask again** with `If-None-Match` and the `ETag` of the last answer: 304 says that nothing changed.
- **Refusals** are `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)); `detail` says what
  would be right. 400, 422: the request cannot be read. 401: the token is missing or wrong. 403: it may not do that, or
  the request asks for a name that is not the watcher's. 404: there is no such thing. 409: its state does not allow
  that. 415: the `Content-Type` is wrong. 429: wrong tokens come too fast. 503: the store cannot be used now.
- **Filters that lists share**: `pipeline` (ids, any of them), `label` (all of these: `team:sales`, or `!env:dev` to
  leave out all with this label) and `since` (what ended, was recorded or was opened within `2h`, or since a date).
- **A field** is text unless its kind is named. **Examples** have the first item of each list, of an
  [event](events.md) only id and type.
- **What somebody does** holds on every replica within a second.
"""

_BODIES: Mapping[str, Mapping[str, Any]] = {
    "acknowledge_several": {"ids": [str(OVERDUE), str(DEGRADED)], "comment": "calling the vendor", "by": "ann"},
    "acknowledge": {"comment": "restarting the API", "by": "ann", "for": "2h"},
    "add_silence": {"match": {"labels": {"team": "sales"}}, "for": "2h", "comment": "deploy"},
    "replay": {"sink": "ops", "state": "dead"},
}
_QUERIES: Mapping[str, str] = {
    "executions": "?status=failed",
    "events": "?type=execution.failed",
    "deliveries": "?state=dead&sink=ops",
    "problems": "?limit=1",
    "history": "?span=1h",
}
"""What the examples ask."""

SHARED = models.PipelineQuery.model_fields
"""Keys of requests for lists, which the head of the page explains."""
_VALUES = {"account": "default", "pipeline": PIPELINE, "name": "ops"}


def _path(route: ApiRoute) -> str:
    """Return a path with values in place of names."""
    if "problems" in route.path:
        id_ = str(OVERDUE)
    elif "pipelines" in route.path:
        id_ = PIPELINE
    else:
        id_ = "1" if "silences" in route.path else execution_id(4)
    return route.path.format(id=id_, **_VALUES)


def _summary(route: ApiRoute) -> str:
    return (getdoc(route.handler) or "").partition("\n")[0]


def _answer_of(route: ApiRoute) -> type[BaseModel] | None:
    answer: type[BaseModel] = get_type_hints(route.handler)["return"]
    return answer if isinstance(answer, type) and issubclass(answer, BaseModel) else None


def _content(model: type[BaseModel], media_type: str = "application/json") -> dict[str, MediaType]:
    return {media_type: MediaType(media_type_schema=PydanticSchema(schema_class=model))}


def _content_of(route: ApiRoute, model: type[BaseModel]) -> dict[str, MediaType]:
    """Return what an answer of this model may be written in."""
    if model is models.Trouble:
        return _content(model, "application/problem+json")
    is_table = issubclass(route.request_model, models.CsvQuery)
    return _content(model) | ({"text/csv": MediaType()} if is_table else {})


def _statuses(route: ApiRoute) -> Iterator[tuple[int, type[BaseModel] | None]]:
    """Yield what is answered with what."""
    yield route.status, _answer_of(route)
    if route.handler.__name__ == "enable":
        yield 202, models.Done
    refusals = {401, 403, 429, 503, *route.refuses, *((400, 413, 415, 422) if route.method != "GET" else (422,))}
    for status in sorted(refusals):
        yield status, models.Trouble


def _operation(route: ApiRoute) -> Operation:
    parameters = [
        Parameter.model_validate({"name": name, "in": "path", "required": True, "schema": {"type": "string"}})
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    body = None
    if route.method == "GET":
        schema = route.request_model.model_json_schema()
        for name, field in schema.get("properties", {}).items():
            how = {"style": "form", "explode": False} if field.get("type") == "array" else {}
            kinds = [each for each in field.get("anyOf", (field,)) if each != {"type": "null"}]
            described = {"name": name, "in": "query", "description": field.get("description")}
            of_value = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
            parameters.append(Parameter.model_validate(described | {"schema": of_value} | how))
    elif route.method == "POST":
        body = RequestBody(content=_content(route.request_model), required=True)
    return Operation(
        operationId=route.handler.__name__,
        summary=_summary(route),
        parameters=parameters or None,
        requestBody=body,
        responses={
            str(status): Response(
                description=HTTPStatus(status).phrase,
                content=model and _content_of(route, model),
            )
            for status, model in _statuses(route)
        },
    )


def document() -> str:
    """Return the OpenAPI document."""
    paths: dict[str, dict[str, Operation]] = {}
    for route in ROUTES:
        paths.setdefault(f"{API}{route.path}", {})[route.method.lower()] = _operation(route)
    described = OpenAPI.model_validate(
        {
            "info": Info(title="clerk-watcher", version="1"),
            "paths": {path: PathItem(**methods) for path, methods in paths.items()},
            "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
            "security": [{"token": []}, {}],
        }
    )
    whole = construct_open_api_with_schema_class(described)
    plain = whole.model_dump(mode="json", by_alias=True, exclude_none=True)
    for operation in chain.from_iterable(methods.values() for methods in plain["paths"].values()):
        for parameter in operation.get("parameters", ()):  # neither may be said of one in a path
            del parameter["allowEmptyValue"], parameter["allowReserved"]
    return json.dumps(plain, indent=1, ensure_ascii=False) + "\n"


async def _examples() -> Sequence[tuple[int, Any]]:
    """Return what a server answers to each request, in order."""
    answers = []
    with TemporaryDirectory() as folder:
        async with a_desk(Path(folder)) as desk:
            now = desk.clock.us
            await know_from(desk, now - 60 * DAY_US)
            await count(desk, ended(now, tokens=512), ended(now, "failed"))
            for route in ROUTES:
                name = route.handler.__name__
                how = {"json": _BODIES.get(name, {})} if route.method != "GET" else {}
                answers.append(await desk.ask(_path(route) + _QUERIES.get(name, ""), route.method, **how))
    return answers


def _type(field: Mapping[str, Any]) -> str:
    """Return what a value is, in words."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return "as `match` of [silences](configuration.md)" if name == "SilenceMatch" else name
    if "anyOf" in field:
        words = [_type(each) for each in field["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{each}`" for each in field["enum"])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    kind: str = field.get("type", "")
    return {"string": "text", "integer": "number"}.get(kind, kind)


def _fields(model: type[BaseModel], described: dict[str, str], *, title: str) -> str:
    """Return a line a field of a request, and one of the fields that `described`, by their line, has from earlier."""
    lines, earlier = [], dict[str, list[str]]()
    for name, field in model.model_json_schema().get("properties", {}).items():
        if name in SHARED:
            continue
        default = field.get("default")
        kinds = [kind for kind in [_type(field)] if kind != "text"]
        kinds += [f"default `{default}`"] if default not in (None, [], ()) else []
        kind = f" ({', '.join(kinds)})" if kinds else ""
        line = f"- `{name}`{kind}: {field.get('description', '')}"
        if line in described:
            earlier.setdefault(described[line], []).append(f"`{name}`")
        else:
            described[line] = title
            lines.append(line)
    lines += [f"- {', '.join(names)}: as of `{of}`." for of, names in earlier.items()]
    return "\n".join(lines)


def _shortened(value: Any) -> Any:
    """Return a part of an example with the first item of each list, and of an event only id and type."""
    if isinstance(value, list):
        return [_shortened(item) for item in value[:1]]
    if not isinstance(value, dict):
        return value
    if "specversion" in value:
        return {"id": value["id"], "type": value["type"]}
    return {key: _shortened(item) for key, item in value.items()}


class _Shown(NamedTuple):
    """The answers of a kind that the page has shown: how to name the first, and the names of the fields in all."""

    words: str
    fields: set[str]


def _example(route: ApiRoute, answer: Any, shown: dict[type[BaseModel], _Shown]) -> str:
    """Return an answer, without the fields that an earlier one of its kind, in `shown`, has."""
    model = _answer_of(route)
    if model is None:
        return f"{route.status}, without a body."
    title = f"`{route.method} {route.path}`"
    known = next((shown[kind] for kind in model.__mro__ if kind in shown), None)
    if known is None:
        shown[model] = _Shown(f"the same as {title}", set(answer))
        if (items := model.model_fields.get("items")) is not None:
            shown.setdefault(get_args(items.annotation)[0], _Shown(f"an item of {title}", set(answer["items"][0])))
        fields, intro = answer, ""
    else:
        fields = {name: value for name, value in answer.items() if name not in known.fields}
        known.fields.update(answer)
        intro = f" {known.words}{', and' if fields else ''}"
    if "version" in fields:
        fields["version"] = "1.1.0"
    block = f"\n\n```json\n{fold(_shortened(fields))}\n```" if fields else ""
    return f"{route.status}:{intro}{block}"


def api() -> str:
    """Return docs/reference/api.md."""
    described: dict[str, str] = {}
    shown: dict[type[BaseModel], _Shown] = {}
    sections = [HEAD]
    for route, (status, answer) in zip(ROUTES, asyncio.run(_examples()), strict=True):
        assert status == route.status, (route, answer)
        title, name = f"{route.method} {route.path}", route.handler.__name__
        parts = [f"## {title}", _summary(route), _fields(route.request_model, described, title=title)]
        shared = [name for name in route.request_model.model_fields if name in SHARED]
        if shared:
            parts.append(f"Shared by lists: {', '.join(f'`{name}`' for name in shared)}.")
        if name in _QUERIES or name in _BODIES:
            request = f"{route.method} {API}{_path(route)}{_QUERIES.get(name, '')}"
            body = f"\n\n{json.dumps(_BODIES[name], ensure_ascii=False)}" if name in _BODIES else ""
            parts.append(f"```http\n{request}{body}\n```")
        parts.append(_example(route, answer, shown))
        if route.refuses:
            parts.append(f"Refused also with {' or '.join(map(str, route.refuses))}.")
        sections.append("\n\n".join(part for part in parts if part) + "\n")
    return "\n".join(sections)
