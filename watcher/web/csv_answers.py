"""Answers in CSV: the executions of a filter, or the periods of a history, with the columns of the API.

A column of a nested object is named `pipeline.id`. Labels are written as in a filter: `team:sales,env:dev`.
"""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from watcher.web import api, models
from watcher.web.console import Console
from watcher.web.history import HistoryPeriod, HistoryQuery

FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r")
"""The first characters of a text that spreadsheets would evaluate; an apostrophe before them makes it a text."""

_ROWS_COUNT = 200
"""Executions that are read from the store at a time."""


async def csv_pieces(
    console: Console, *arguments: object, request: models.ExecutionQuery | HistoryQuery
) -> AsyncIterator[bytes]:
    """Yield the answer in pieces. Raises `RefusedError` and `StoreError`.

    `arguments` are the account and the pipeline of a history. Executions go on over all pages, from `after` on, unless
    the query has a `limit`.
    """
    if isinstance(request, HistoryQuery):
        account, id_ = map(str, arguments)
        found = await api.history(console, account, id_, request)
        yield _text(HistoryPeriod, found.periods, with_head=True)
        return
    has_limit, after = "limit" in request.model_fields_set, request.after
    query = request if has_limit else request.model_copy(update={"limit": _ROWS_COUNT})
    is_first = True
    while is_first or (after is not None and not has_limit):
        page = await api.executions(console, query.model_copy(update={"after": after}))
        yield _text(models.ExecutionView, page.items, with_head=is_first)
        is_first, after = False, page.next


def _text(model: type[BaseModel], items: Iterable[BaseModel], *, with_head: bool) -> bytes:
    columns, text = list(_columns(model)), io.StringIO()
    lines = csv.writer(text)
    if with_head:
        lines.writerow(".".join(path) for path in columns)
    for each in items:
        row = each.model_dump(mode="json", by_alias=True)
        lines.writerow(_cell(row, path) for path in columns)
    return text.getvalue().encode()


def _columns(model: type[BaseModel], before: Sequence[str] = ()) -> Iterator[Sequence[str]]:
    """Yield the path of each column."""
    for name, field in model.model_fields.items():
        path = (*before, field.alias or to_camel(name))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _columns(field.annotation, path)
        else:
            yield path


def _cell(row: Any, path: Sequence[str]) -> object:
    for name in path:
        row = row[name]
    if isinstance(row, dict):
        row = ",".join(f"{key}:{value}" for key, value in row.items())
    if isinstance(row, bool):
        return str(row).lower()
    return f"'{row}" if isinstance(row, str) and row.startswith(FORMULA_BEGINS) else row
