"""What the answers of the Clerk Chat API look like, and which of their fields are read.

Answers carry conversations, contacts and environments; the wire models name the allowed fields, and nothing else is
ever turned into a Python object. What is small and as it should be is read as it came; all else is cut down to the
allowed fields first, which bounds the work and forgives whatever is wrong with the others.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import Enum, auto
from itertools import islice
from typing import Annotated, Any, NamedTuple, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from watcher.clerk.tolerant_json import LEAF, BrokenJsonError, Fields, Rows, Wanted, slim
from watcher.domain.event_size import LIST_LENGTH
from watcher.domain.execution import ExecutionSnapshot, FailedNode

QUICK_BYTES = 32 * 1024
"""What is no larger is read within some 10 ms, however it is made."""

NUL = rb"\u0000"
"""PostgreSQL keeps it in no text."""

MOST_NODES = 10_000
"""Of nodes executed no more are read."""

MOST_ROWS = 2_000
"""Of one page no more rows are read. It is asked for 50; whoever does not heed that may send all there are."""


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


def _fields(model: type[_Wire], **nested: Wanted) -> Fields:
    """Return what a model reads, by the API's names."""
    return Fields({(field.alias or "").encode(): nested.get(name, LEAF) for name, field in model.model_fields.items()})


_NODE = _fields(WireNodeExecution, node=_fields(WireNode))
_WANTED: dict[type[_Wire], Fields] = {
    WireExecution: _fields(WireExecution, nodes_executed=Rows(_NODE, MOST_NODES)),
    WirePage: _fields(WirePage, data=Rows(_fields(WireRow), MOST_ROWS)),
}


class UnreadableError(Exception):
    """A body is not what was asked for. `flaw` is a word of ours for what is wrong with it, and none of its own."""

    def __init__(self, flaw: str) -> None:
        """Keep that word only."""
        super().__init__(flaw)
        self.flaw = flaw


class ParseAttempt(Enum):
    """How a body is read. The first attempt is for the event loop; the second may take seconds."""

    FIRST = auto()
    """As it came, if it is small. Raises `HardToReadError` if it is not, or is no JSON for our parser."""
    SECOND = auto()
    """Cut down to what is wanted, which forgives what is wrong with the rest."""
    BOTH = auto()
    """The second if the first fails."""


class HardToReadError(Exception):
    """The first attempt is not enough."""


class ParsedPage(NamedTuple):
    """What can be read of one page of a list. `skipped` rows, or more, cannot; `total` is what the API says."""

    rows: tuple[ExecutionSnapshot, ...]
    skipped: int
    total: int | None


def parse_execution(body: bytes, *, asked: str, attempt: ParseAttempt = ParseAttempt.BOTH) -> ExecutionSnapshot:
    """Read one execution straight from the bytes. Raises `UnreadableError`: also if it is not the one asked for."""
    wire = _parse(WireExecution, body, attempt=attempt, misshapen="no_execution")
    if wire.id.lower() != asked:
        raise UnreadableError("wrong_id")
    failed, goals = _of_nodes(wire.nodes_executed) if wire.nodes_executed else ((), ())
    return _snapshot(
        wire,
        id_=asked,
        pipeline_id=wire.pipeline_id,
        pipeline_name=wire.pipeline_name,
        version_number=wire.pipeline_version_number,
        failed_nodes=failed,
        goals=goals,
    )


def parse_page(body: bytes, *, attempt: ParseAttempt = ParseAttempt.BOTH) -> ParsedPage:
    """Read one page of a list straight from the bytes. Raises `UnreadableError`: also if no row of it can be read."""
    wire = _parse(WirePage, body, attempt=attempt, misshapen="no_list")
    rows = tuple(_snapshot(row, id_=str(row.id)) for row in wire.data if row is not None)
    if wire.data and not rows:
        raise UnreadableError("no_rows")
    return ParsedPage(rows, len(wire.data) - len(rows), wire.total)


def _parse(model: type[_Shape], body: bytes, *, attempt: ParseAttempt, misshapen: str) -> _Shape:
    """Read a body as that model. The flaw is `misshapen` if it is JSON at least."""
    is_quick = len(body) <= QUICK_BYTES and NUL not in body
    if is_quick and attempt is not ParseAttempt.SECOND:
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            flaws = error.errors(include_url=False, include_context=False, include_input=False)
            if flaws[0]["type"] != "json_invalid":  # the model refused it, not the parser
                raise UnreadableError(misshapen) from None
    if attempt is ParseAttempt.FIRST:
        raise HardToReadError
    try:
        return model.model_validate_json(slim(body, _WANTED[model]))
    except BrokenJsonError:
        raise UnreadableError("html" if body.lstrip().startswith(b"<") else "no_json") from None
    except ValidationError:  # what is small came here because it is no JSON
        raise UnreadableError("no_json" if is_quick else misshapen) from None


def _of_nodes(executed: Iterable[WireNodeExecution | None]) -> tuple[tuple[FailedNode, ...], tuple[str, ...]]:
    """Return the nodes that failed, and the goals that were reached."""
    nodes = [node for node in executed if node is not None]
    failed = (
        FailedNode(node.id, node.node_name or (node.node or WireNode()).name, node.error_message)
        for node in nodes
        if node.status == "failed" or node.error_message
    )
    goals = (each.node.goal_name for each in nodes if each.node and each.node.is_goal and each.node.goal_name)
    return tuple(islice(failed, LIST_LENGTH)), tuple(islice(goals, LIST_LENGTH))


def _aware(moment: datetime | None) -> datetime | None:
    """Read a time without a zone as UTC, as in all documented examples, and a year such as 1 or 9999 as absent."""
    if moment is None:
        return None
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
        started_at=_aware(wire.started_at),
        finished_at=_aware(wire.finished_at),
        error=wire.error,
        ai_tokens_used=wire.ai_tokens_used,
        nodes_started=wire.nodes_started,
        triggered_by=wire.triggered_by,
        triggered_by_entity_id=wire.triggered_by_entity_id,
        conversation_id=wire.conversation_id,
        **of_one,
    )
