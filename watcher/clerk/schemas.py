"""What the answers of the Clerk Chat API look like, and which of their fields are read.

Answers carry conversations, contacts and environments. The models name the allowed fields, and no other is kept.
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


def _aware(moment: datetime) -> datetime | None:
    """Read a time without a zone as UTC, as in all documented examples, and a year such as 1 or 9999 as absent."""
    try:
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:  # its zone moves it out of the years there are
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
    """What a list says of an execution as well: the documented fields that may leave the process, but for its id.

    The fields have the names they have in an `ExecutionSnapshot`.
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
    """One execution as the API answers it when asked for it."""

    id: Word
    pipeline_id: Text = None
    pipeline_name: Text = None
    version_number: Number = Field(None, alias="pipelineVersionNumber")
    nodes_executed: Annotated[_Several[WireNodeExecution] | None, _OrNone()] = None


class WireRow(_WireFacts):
    """One row of a list. By its id the execution is asked for and recorded, so it has to be what is documented."""

    id: Annotated[UUID, AfterValidator(str)]


class WirePage(_Wire):
    """One page of a list."""

    data: _Several[WireRow]
    total: Count = None


_MODELS = (WireNode, WireNodeExecution, WireExecution, WireRow, WirePage)
_READ = frozenset(field.alias for model in _MODELS for field in model.model_fields.values())


class UnreadableError(Exception):
    """A body is not what was asked for. Its text is a word of ours for what is wrong with it, and none of its own."""


FUTURE_US = 15_000_000
"""A date that is further ahead of the API's own clock is wrong (microseconds)."""

DATE_ERROR_US = 2_000_000
"""An offset that is known by a `Date`, which counts whole seconds, may be wrong by as much (microseconds)."""


class ApiDates(NamedTuple):
    """Turns the dates of one answer, which was read at `now`, into our steady clock.

    The API's clock was ahead of ours by `ahead_us` (microseconds; below 0: behind) when it sent the answer.
    """

    ahead_us: int
    now: Micros

    def ours(self, at: datetime | None) -> Micros | None:
        """Return a date on our clock, at most `now` but for the error of a `Date`; `None` for a date that is wrong.

        Within that error the ends of two answers keep their order.
        """
        moment = None if at is None else Micros(to_us(at) - self.ahead_us)
        if moment is None or moment > self.now + FUTURE_US:
            return None
        return min(moment, Micros(self.now + DATE_ERROR_US))


class ParsedPage(NamedTuple):
    """What can be read of one page of a list. `skipped` rows, or more, cannot; `total` is what the API says."""

    rows: tuple[ExecutionSnapshot, ...]
    skipped: int
    total: int | None


def parse_execution(body: bytes, *, asked: str, dates: ApiDates) -> ExecutionSnapshot:
    """Read one execution from the bytes. Raises `UnreadableError`: also if it is not the one asked for."""
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
    """Read one page of a list from the bytes. Raises `UnreadableError`: also if no row of it can be read."""
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
    """Read a body as that model. The flaw is `misshapen` if it is JSON at least.

    The standard library takes what pydantic does not: half a surrogate pair, for one, which JavaScript sends where it
    cuts a text within an emoji. It also lets other threads run, so it reads what is large.
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
    """Return of an object what is read, its texts without NULs and halves of pairs."""
    return {
        name: value[:TEXT_LENGTH].replace("\0", "").encode("utf-8", "ignore").decode()
        if isinstance(value, str)
        else value
        for name, value in members
        if name in _READ
    }
