"""What the answers of the Clerk Chat API look like, and which of their fields are read.

Answers carry conversations, contacts and environments; the wire models name the allowed fields, and nothing else is
ever turned into a Python object.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, NamedTuple, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from watcher.models import Execution, FailedNode


class _OrNone:
    """Reads an optional field as `None` when it is not of its documented type: it must not cost us the status."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default=None, on_error="default")


Text = Annotated[str | None, _OrNone()]
Number = Annotated[int | float | None, Field(allow_inf_nan=False), _OrNone()]
Moment = Annotated[datetime | None, _OrNone()]
Count = Annotated[int | None, Field(strict=True, ge=0, le=2**53), _OrNone()]
Word = Annotated[str, Field(min_length=1)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", alias_generator=to_camel, hide_input_in_errors=True)


_Shape = TypeVar("_Shape", bound=_Wire)


class WireNode(_Wire):
    """`nodesExecuted[].node`."""

    id: Text = None
    name: Text = None
    is_goal: Annotated[bool | None, _OrNone()] = None
    goal_name: Text = None


class WireNodeExecution(_Wire):
    """One of `nodesExecuted`, without its input and output."""

    id: Text = None
    node_name: Text = None
    node: Annotated[WireNode | None, _OrNone()] = None
    status: Text = None
    error_message: Text = None


class _WireFacts(_Wire):
    """What a list says of an execution as well: the documented fields that may leave the process, but for its id."""

    status: Word
    pipeline_version_id: Text = None
    started_at: Moment = None
    finished_at: Moment = None
    error: Text = None
    ai_tokens_used: Number = None
    nodes_started: Number = None
    triggered_by: Text = None
    triggered_by_entity_id: Text = None
    conversation_id: Text = None


class WireExecution(_WireFacts):
    """One execution as the API answers it when asked for it."""

    id: Word
    pipeline_id: Text = None
    pipeline_name: Text = None
    pipeline_version_number: Number = None
    nodes_executed: Annotated[list[Annotated[WireNodeExecution | None, _OrNone()]] | None, _OrNone()] = None


class WireRow(_WireFacts):
    """One row of a list. By its id the execution is asked for and recorded, so it has to be what is documented."""

    id: UUID


class WirePage(_Wire):
    """One page of a list."""

    data: list[Annotated[WireRow | None, _OrNone()]]
    total: Count = None


class Page(NamedTuple):
    """What can be read of one page of a list. `skipped` rows cannot; `total` is what the API says, true or not."""

    rows: tuple[Execution, ...]
    skipped: int
    total: int | None


def parse_execution(body: bytes, *, asked: str) -> Execution | None:
    """Read one execution straight from the bytes; `None` if they are not it, or not the one that was asked for."""
    wire = _parse(WireExecution, body)
    if wire is None or wire.id.lower() != asked:
        return None
    nodes = [node for node in wire.nodes_executed or () if node is not None]
    return Execution(
        id=asked,
        status=wire.status,
        pipeline_id=wire.pipeline_id,
        version_id=wire.pipeline_version_id,
        pipeline_name=wire.pipeline_name,
        version_number=wire.pipeline_version_number,
        started_at=_aware(wire.started_at),
        finished_at=_aware(wire.finished_at),
        error=wire.error,
        ai_tokens_used=wire.ai_tokens_used,
        nodes_started=wire.nodes_started,
        triggered_by=wire.triggered_by,
        triggered_by_entity_id=wire.triggered_by_entity_id,
        conversation_id=wire.conversation_id,
        failed_nodes=tuple(_failed(node) for node in nodes if node.status == "failed" or node.error_message),
        goals=tuple(node.node.goal_name for node in nodes if node.node and node.node.is_goal and node.node.goal_name),
    )


def parse_page(body: bytes) -> Page | None:
    """Read one page of a list straight from the bytes; `None` if they are none, or not one of its rows can be read."""
    wire = _parse(WirePage, body)
    if wire is None:
        return None
    rows = tuple(_row(row) for row in wire.data if row is not None)
    return Page(rows, len(wire.data) - len(rows), wire.total) if rows or not wire.data else None


def flaw_of_execution(body: bytes) -> str:
    """Return a word for what is wrong with a body that is not the execution asked for, and none of its own."""
    return _flaw(WireExecution, body, misshapen="no_execution") or "wrong_id"


def flaw_of_page(body: bytes) -> str:
    """Return a word for what is wrong with a body that is no page of a list, and none of its own."""
    return _flaw(WirePage, body, misshapen="no_list") or "no_rows"


def _flaw(model: type[_Wire], body: bytes, *, misshapen: str) -> str | None:
    """Return a word of ours for why a body is not read as that model, `misshapen` if it is JSON at least."""
    try:
        model.model_validate_json(_without_half_pairs(body))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
    else:
        return None
    if body.lstrip().startswith(b"<"):
        return "html"
    return "no_json" if found[0]["type"] == "json_invalid" else misshapen


def _parse(model: type[_Shape], body: bytes) -> _Shape | None:
    return _try(model, body) or _try(model, _without_half_pairs(body))


def _try(model: type[_Shape], body: bytes) -> _Shape | None:
    try:
        return model.model_validate_json(body)
    except ValidationError:
        return None


# JavaScript sends half a surrogate pair where it cut a text within an emoji. JSON allows it, our parser does not.
_SURROGATES = re.compile(
    rb"(?<!\\)(?P<backslashes>(?:\\\\)*)"
    rb"(?:(?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


def _without_half_pairs(body: bytes) -> bytes:
    return _SURROGATES.sub(rb"\g<backslashes>\g<pair>", body)


def _aware(moment: datetime | None) -> datetime | None:
    """Read a time without a zone as UTC, as in all documented examples, and a year such as 1 or 9999 as absent."""
    if moment is None or not 1970 <= moment.year < 9999:  # noqa: PLR2004 (before Unix time; the last year of datetime)
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _row(wire: WireRow) -> Execution:
    """Return a row as an execution. Lists name no pipeline and show no nodes."""
    return Execution(
        id=str(wire.id),
        status=wire.status,
        version_id=wire.pipeline_version_id,
        started_at=_aware(wire.started_at),
        finished_at=_aware(wire.finished_at),
        error=wire.error,
        ai_tokens_used=wire.ai_tokens_used,
        nodes_started=wire.nodes_started,
        triggered_by=wire.triggered_by,
        triggered_by_entity_id=wire.triggered_by_entity_id,
        conversation_id=wire.conversation_id,
    )


def _failed(node: WireNodeExecution) -> FailedNode:
    return FailedNode(node.id, node.node_name or (node.node or WireNode()).name, node.error_message)
