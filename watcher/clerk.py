"""The Clerk Chat API: what its answers look like, which of their fields are read, what their codes mean.

Answers carry conversations, contacts and environments; the wire models name the allowed fields, and nothing else is
ever turned into a Python object.
"""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema
from yarl import URL

from watcher.client import Client, Response
from watcher.clock import Clock
from watcher.errors import TransportFailedError
from watcher.models import Execution, FailedNode, Outcome
from watcher.ports import Reply
from watcher.retry import parse_retry_after


class _OrNone:
    """Reads an optional field as `None` when it is not of its documented type: it must not cost us the status."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default=None, on_error="default")


Text = Annotated[str | None, _OrNone()]
Number = Annotated[int | float | None, Field(allow_inf_nan=False), _OrNone()]
Moment = Annotated[datetime | None, _OrNone()]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", alias_generator=to_camel, hide_input_in_errors=True)


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


class WireExecution(_Wire):
    """One execution as the API answers it: the documented fields that may leave the process."""

    id: Annotated[str, Field(min_length=1)]
    status: Annotated[str, Field(min_length=1)]
    pipeline_id: Text = None
    pipeline_version_id: Text = None
    pipeline_name: Text = None
    pipeline_version_number: Number = None
    started_at: Moment = None
    finished_at: Moment = None
    error: Text = None
    ai_tokens_used: Number = None
    nodes_started: Number = None
    triggered_by: Text = None
    triggered_by_entity_id: Text = None
    conversation_id: Text = None
    nodes_executed: Annotated[list[Annotated[WireNodeExecution | None, _OrNone()]] | None, _OrNone()] = None


def parse_execution(body: bytes, *, asked: str) -> Execution | None:
    """Read one execution straight from the bytes; `None` if they are not it, or not the one that was asked for."""
    wire = _parse(body) or _parse(_without_half_pairs(body))
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


def flaw_of(body: bytes) -> str:
    """Return a word for what is wrong with a body that is not the execution asked for, and none of its own."""
    try:
        WireExecution.model_validate_json(_without_half_pairs(body))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
    else:
        return "wrong_id"
    if body.lstrip().startswith(b"<"):
        return "html"
    return "no_json" if found[0]["type"] == "json_invalid" else "no_execution"


def _parse(body: bytes) -> WireExecution | None:
    try:
        return WireExecution.model_validate_json(body)
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


def _failed(node: WireNodeExecution) -> FailedNode:
    return FailedNode(node.id, node.node_name or (node.node or WireNode()).name, node.error_message)


_OUTCOMES = {
    400: Outcome.REJECTED,
    401: Outcome.UNAUTHORIZED,
    403: Outcome.FORBIDDEN,
    404: Outcome.NOT_FOUND,
    408: Outcome.TIMEOUT,
    410: Outcome.NOT_FOUND,
    422: Outcome.REJECTED,
    429: Outcome.RATE_LIMITED,
}
_CLASSES = {3: Outcome.REDIRECT, 5: Outcome.SERVER_ERROR}
_FAILURES = {"timeout": Outcome.TIMEOUT, "truncated": Outcome.INVALID, "too_large": Outcome.INVALID}


def outcome_of(status_code: int) -> Outcome:
    """Return what a status code other than 200 means (SPEC 4)."""
    return _OUTCOMES.get(status_code) or _CLASSES.get(status_code // 100) or Outcome.INVALID


class ClerkApi:
    """Clerk Chat with one key, over one client."""

    def __init__(self, client: Client, *, base_url: str, clock: Clock) -> None:
        """Take the base URL without a trailing slash."""
        self._client = client
        self._base_url = URL(base_url, encoded=True)
        self._path = self._base_url.raw_path.rstrip("/")
        self._clock = clock

    async def get(self, *, pipeline: str, execution: str) -> Reply:
        """Fetch one execution by lower-case ids. Trouble is a `Reply` too."""
        path = f"{self._path}/public/pipelines/{pipeline}/executions/{execution}"
        url = self._base_url.with_path(path, encoded=True)
        sent_at = self._clock.monotonic()
        try:
            response = await self._client.get(url)
        except TransportFailedError as failure:
            return Reply(_FAILURES.get(failure.kind, Outcome.CONNECTION), sent_at, reason=failure.kind)
        return self._read(response, sent_at=sent_at, asked=execution)

    def _read(self, response: Response, *, sent_at: float, asked: str) -> Reply:
        if response.status_code != 200:  # noqa: PLR2004 (HTTP)
            retry_after_s = parse_retry_after(response.retry_after, now=self._clock.now())
            code = response.status_code
            return Reply(outcome_of(code), sent_at, None, code, retry_after_s, reason=f"status_{code}")
        execution = parse_execution(response.body, asked=asked)
        if execution is None:
            return Reply(Outcome.INVALID, sent_at, None, 200, reason=flaw_of(response.body))
        return Reply(Outcome.OK, sent_at, execution, 200)
