"""What the answers of the Clerk Chat API look like, and which of their fields are read.

Answers carry conversations, contacts and environments. The models name the allowed fields, and no other is kept.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from watcher.domain.envelope import LIST_LENGTH
from watcher.domain.execution import ExecutionSnapshot, FailedNode

QUICK_BYTES = 32 * 1024
"""A body that is no larger is parsed within some 10 ms, whatever it holds."""

NUL = rb"\u0000"
"""PostgreSQL keeps it in no text."""

TEXT_LENGTH = 16 * 1024
"""A text of a large answer is cut to so many characters: six times what an event holds."""

ROWS_COUNT = 10_000
LISTS_COUNT = 250_000
"""An answer with longer lists, or with more of them, is junk; to parse it would hold up the event loop."""


class _OrNone:
    """Reads an optional field as `None` when it is not of its documented type: it must not cost us the status."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default=None, on_error="default")


Text = Annotated[str | None, _OrNone()]
_Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]
_Broken = Annotated[float, Field(ge=-(2.0**53), le=2.0**53, allow_inf_nan=False)]
Number = Annotated[_Whole | _Broken | None, _OrNone()]
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


_MODELS = (WireNode, WireNodeExecution, WireExecution, WireRow, WirePage)
_READ = frozenset(field.alias for model in _MODELS for field in model.model_fields.values())


class UnreadableError(Exception):
    """A body is not what was asked for. `flaw` is a word of ours for what is wrong with it, and none of its own."""

    def __init__(self, flaw: str) -> None:
        """Keep that word only."""
        super().__init__(flaw)
        self.flaw = flaw


class NotJsonError(UnreadableError):
    """The body is no JSON as pydantic reads it. Read as `forgiving` it may still tell its status."""


class ParsedPage(NamedTuple):
    """What can be read of one page of a list. `skipped` rows, or more, cannot; `total` is what the API says."""

    rows: tuple[ExecutionSnapshot, ...]
    skipped: int
    total: int | None


def parse_execution(body: bytes, *, asked: str, forgiving: bool = False) -> ExecutionSnapshot:
    """Read one execution from the bytes. Raises `UnreadableError`: also if it is not the one asked for.

    `forgiving` is for a thread: it takes longer, and reads texts that are cut within a character.
    """
    wire = _parse(WireExecution, body, forgiving=forgiving, misshapen="no_execution")
    if wire.id.lower() != asked:
        raise UnreadableError("wrong_id")
    failed: list[FailedNode] = []
    goals: list[str] = []
    for each in wire.nodes_executed or ():
        if each is None:
            continue
        node = each.node
        if each.status == "failed" or each.error_message:
            failed.append(
                FailedNode(each.id, each.node_name or (None if node is None else node.name), each.error_message)
            )
        if node is not None and node.is_goal and node.goal_name:
            goals.append(node.goal_name)
    return _snapshot(
        wire,
        id_=asked,
        pipeline_id=wire.pipeline_id,
        pipeline_name=wire.pipeline_name,
        version_number=wire.pipeline_version_number,
        failed_nodes=tuple(failed[:LIST_LENGTH]),
        goals=tuple(goals[:LIST_LENGTH]),
    )


def parse_page(body: bytes, *, forgiving: bool = False) -> ParsedPage:
    """Read one page of a list from the bytes. Raises `UnreadableError`: also if no row of it can be read."""
    wire = _parse(WirePage, body, forgiving=forgiving, misshapen="no_list")
    rows = tuple(_snapshot(row, id_=str(row.id)) for row in wire.data if row is not None)
    if wire.data and not rows:
        raise UnreadableError("no_rows")
    return ParsedPage(rows, len(wire.data) - len(rows), wire.total)


def _parse(model: type[_Shape], body: bytes, *, forgiving: bool, misshapen: str) -> _Shape:
    """Read a body as that model. The flaw is `misshapen` if it is JSON at least."""
    try:
        if forgiving:
            return model.model_validate(_load(body))
        if NUL in body:
            raise NotJsonError("no_json")
        return model.model_validate_json(body)
    except ValidationError as error:
        flaws = error.errors(include_url=False, include_context=False, include_input=False)
        raise NotJsonError("no_json") if flaws[0]["type"] == "json_invalid" else UnreadableError(misshapen) from None


def _load(body: bytes) -> object:
    """Parse a body with the standard library, which takes what pydantic does not: half a surrogate pair, for one.

    JavaScript sends that where it cuts a text within an emoji. No object keeps its private fields.
    """
    try:
        if body.count(b"[") > LISTS_COUNT:
            raise UnreadableError("too_large")
        found = json.loads(body.decode("utf-8-sig", "replace"), strict=False, object_pairs_hook=_allowed)
    except (ValueError, RecursionError):
        raise UnreadableError("html" if body.lstrip().startswith(b"<") else "no_json") from None
    if isinstance(found, dict) and any(isinstance(each, list) and len(each) > ROWS_COUNT for each in found.values()):
        raise UnreadableError("too_large")
    return found


def _allowed(members: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Return of an object what is read, its texts without NULs and halves of pairs."""
    return {
        name: value[:TEXT_LENGTH].replace("\0", "").encode("utf-8", "ignore").decode()
        if isinstance(value, str)
        else value
        for name, value in members
        if name in _READ
    }


def _aware(moment: datetime) -> datetime | None:
    """Read a time without a zone as UTC, as in all documented examples, and a year such as 1 or 9999 as absent."""
    try:
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:  # its zone moves it out of the years there are
        return None
    return moment if 1970 <= moment.year < 9999 else None


def _snapshot(wire: _WireFacts, *, id_: str, **of_one: Any) -> ExecutionSnapshot:
    """Return an execution: what a list says of it too, and `of_one`, which is answered of one alone."""
    return ExecutionSnapshot(
        id=id_,
        status=wire.status,
        version_id=wire.pipeline_version_id,
        started_at=wire.started_at and _aware(wire.started_at),
        finished_at=wire.finished_at and _aware(wire.finished_at),
        error=wire.error,
        ai_tokens_used=wire.ai_tokens_used,
        nodes_started=wire.nodes_started,
        triggered_by=wire.triggered_by,
        triggered_by_entity_id=wire.triggered_by_entity_id,
        conversation_id=wire.conversation_id,
        **of_one,
    )
