"""The schemas of the Clerk Chat API's answers, with the fields that are read.

Answers carry conversations, contacts and environments. The models name the allowed fields; all others are dropped.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, NamedTuple, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from watcher.domain.envelope import LIST_LENGTH
from watcher.domain.execution import ExecutionSnapshot, FailedNode
from watcher.domain.timestamps import Micros, to_us

QUICK_BYTES = 32 * 1024
"""The largest body that is parsed in the event loop. Parsing takes at most some 10 ms."""

NUL = rb"\u0000"
"""The escaped NUL character. PostgreSQL stores no text that contains one."""

TEXT_LENGTH = 16 * 1024
"""The number of characters to which texts are cut if the standard library parses them. Events cut them further."""

ROWS_COUNT = 10_000
LISTS_COUNT = 250_000
"""The most entries of a list, and the most lists in an answer. Parsing more would block the event loop."""


class _OrNone:
    """Reads an optional field of the wrong type as `None`, so that the execution's status can still be read."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default=None, on_error="default")


def _aware(moment: datetime) -> datetime | None:
    """Return a time in UTC. A time without a zone counts as UTC. Return `None` before 1970 and from 9999 on."""
    try:
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:  # its zone moves it out of the valid years
        return None
    return moment if 1970 <= moment.year < 9999 else None


Text = Annotated[str | None, _OrNone()]
_Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]
_Broken = Annotated[float, Field(ge=-(2.0**53), le=2.0**53, allow_inf_nan=False)]
Number = Annotated[_Whole | _Broken | None, _OrNone()]
Moment = Annotated[Annotated[datetime, AfterValidator(_aware)] | None, _OrNone()]
Count = Annotated[int | None, Field(strict=True, ge=0, le=2**53), _OrNone()]
Word = Annotated[str, Field(min_length=1)]
_Each = TypeVar("_Each")
_Several = Annotated[list[Annotated[_Each | None, _OrNone()]], Field(max_length=ROWS_COUNT)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", alias_generator=to_camel, hide_input_in_errors=True)


_Shape = TypeVar("_Shape", bound=_Wire)


class WireNode(_Wire):
    """The `node` of an entry of `nodesExecuted`."""

    id: Text = None
    name: Text = None
    is_goal: Annotated[bool | None, _OrNone()] = None
    goal_name: Text = None


class WireNodeExecution(_Wire):
    """One entry of `nodesExecuted`, without its input and output."""

    id: Text = None
    node_name: Text = None
    node: Annotated[WireNode | None, _OrNone()] = None
    status: Text = None
    error_message: Text = None


class _WireFacts(_Wire):
    """The allowed fields, except the id, that both a row of a list and a single execution have.

    The attributes have the same names as in `ExecutionSnapshot`.
    """

    status: Word
    version_id: Text = Field(None, alias="pipelineVersionId")
    started_at: Moment = None
    finished_at: Moment = None
    error: Text = None
    ai_tokens_used: Number = None
    nodes_started: Number = None
    triggered_by: Text = None
    triggered_by_entity_id: Text = None
    conversation_id: Text = None


class WireExecution(_WireFacts):
    """One execution as the API returns it by its id."""

    id: Word
    pipeline_id: Text = None
    pipeline_name: Text = None
    version_number: Number = Field(None, alias="pipelineVersionNumber")
    nodes_executed: Annotated[_Several[WireNodeExecution] | None, _OrNone()] = None


class WireRow(_WireFacts):
    """One row of a list. Requests and records use its id, so the id must be a UUID, as documented."""

    id: Annotated[UUID, AfterValidator(str)]


class WirePage(_Wire):
    """One page of a list."""

    data: _Several[WireRow]
    total: Count = None


_MODELS = (WireNode, WireNodeExecution, WireExecution, WireRow, WirePage)
_READ = frozenset(field.alias for model in _MODELS for field in model.model_fields.values())


class UnreadableError(Exception):
    """A body that is no usable answer. The error's text is a fixed word for the flaw, without any text of the body."""


FUTURE_US = 15_000_000
"""The most microseconds by which a date may be ahead of the API's own clock. A later date is wrong."""

DATE_ERROR_US = 2_000_000
"""The largest error (microseconds) of a clock offset measured with a `Date` header, which has whole seconds only."""


class ApiDates(NamedTuple):
    """The conversion of one answer's dates into our steady clock.

    `now` is when we read the answer. When the API sent it, the API's clock was ahead of ours by `ahead_us`
    (microseconds; negative: behind).
    """

    ahead_us: int
    now: Micros

    def ours(self, at: datetime | None) -> Micros | None:
        """Return a date on our steady clock, at most `DATE_ERROR_US` after `now`; `None` for a wrong date.

        Without this margin the ends in two answers could lose their order.
        """
        moment = None if at is None else Micros(to_us(at) - self.ahead_us)
        if moment is None or moment > self.now + FUTURE_US:
            return None
        return min(moment, Micros(self.now + DATE_ERROR_US))


class ParsedPage(NamedTuple):
    """The readable rows of one page, the number of unreadable rows (`skipped`), and the `total` that the API names."""

    rows: tuple[ExecutionSnapshot, ...]
    skipped: int
    total: int | None


def parse_execution(body: bytes, *, asked: str, dates: ApiDates) -> ExecutionSnapshot:
    """Parse one execution. Raises `UnreadableError`, also if its id is not the requested one."""
    wire = _parse(WireExecution, body, misshapen="no_execution")
    if wire.id.lower() != asked:
        raise UnreadableError("wrong_id")
    facts, failed, goals = vars(wire), list[FailedNode](), list[str]()
    for each in facts.pop("nodes_executed") or ():
        node = each and each.node
        if node and node.is_goal and node.goal_name:
            goals.append(node.goal_name)
        if each and (each.status == "failed" or each.error_message):
            failed.append(FailedNode(each.id, each.node_name or (node and node.name), each.error_message))
    facts |= {"id": asked, "failed_nodes": tuple(failed[:LIST_LENGTH]), "goals": tuple(goals[:LIST_LENGTH])}
    return ExecutionSnapshot(**facts, began_at=dates.ours(wire.started_at), ended_at=dates.ours(wire.finished_at))


def parse_page(body: bytes, *, dates: ApiDates) -> ParsedPage:
    """Parse one page of a list. Raises `UnreadableError`, also if none of its rows is readable."""
    wire = _parse(WirePage, body, misshapen="no_list")
    rows = tuple(
        ExecutionSnapshot(**vars(row), began_at=dates.ours(row.started_at), ended_at=dates.ours(row.finished_at))
        for row in wire.data
        if row is not None
    )
    if wire.data and not rows:
        raise UnreadableError("no_rows")
    return ParsedPage(rows, len(wire.data) - len(rows), wire.total)


def _parse(model: type[_Shape], body: bytes, *, misshapen: str) -> _Shape:
    """Parse a body as a model. Raises `UnreadableError`: its text is `misshapen` for JSON of another shape.

    The standard library accepts bodies that pydantic refuses: for example half a surrogate pair, which JavaScript sends
    if it cuts a text within an emoji. It parses large bodies, too, because it lets other threads run meanwhile.
    """
    try:
        if len(body) <= QUICK_BYTES and NUL not in body:
            return model.model_validate_json(body)
    except ValidationError as error:
        if error.errors(include_url=False, include_context=False, include_input=False)[0]["type"] != "json_invalid":
            raise UnreadableError(misshapen) from None
    if body.count(b"[") > LISTS_COUNT:
        raise UnreadableError("too_large")
    try:
        text = body.decode("utf-8-sig", "replace")
        return model.model_validate(json.loads(text, strict=False, object_pairs_hook=_allowed))
    except ValidationError:
        raise UnreadableError(misshapen) from None
    except (ValueError, RecursionError):
        raise UnreadableError("html" if body.lstrip().startswith(b"<") else "no_json") from None


def _allowed(members: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Return the members of an object that the models read. Texts are cut, and lose NULs and half surrogate pairs."""
    return {
        name: value[:TEXT_LENGTH].replace("\0", "").encode("utf-8", "ignore").decode()
        if isinstance(value, str)
        else value
        for name, value in members
        if name in _READ
    }
