"""Models whose fields are described by the docstrings below them."""

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic_core import CoreSchema


class DescribedModel(BaseModel):
    """A model of which the docstring of a field is its description in the JSON Schema.

    Pydantic's `use_attribute_docstrings` reads the source of each class when it is imported, which takes half a second
    at each start. This reads it when the schema is made.
    """

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, description in descriptions_of(cls).items():
            properties[cls.model_fields[name].alias or name].setdefault("description", description)
        return schema


def descriptions_of(model: type[BaseModel]) -> dict[str, str]:
    """Return the descriptions of a model's fields by their names, those of its parents included."""
    parts = [part for part in reversed(model.__mro__) if issubclass(part, DescribedModel)]
    found = {name: text for part in parts for name, text in _docstrings(part.__module__).get(part.__name__, ())}
    fields = model.model_fields.items()
    return {name: text for name, field in fields if (text := field.description or found.get(name))}


@cache
def _docstrings(module: str) -> dict[str, list[tuple[str, str]]]:
    """Return the names and docstrings of the fields of each class in a module."""
    classes = [
        part for part in ast.parse(inspect.getsource(sys.modules[module])).body if isinstance(part, ast.ClassDef)
    ]
    return {each.name: list(_fields(each)) for each in classes}


def _fields(of: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, text in pairwise(of.body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                yield name, inspect.cleandoc(words)
