"""What the load server answers: the documented shape, about 3 kB, the same for every execution but id and status.

A page of a list has the same for every row but id, status and date. Each pipeline has 60 executions, newest first.
Half of the answers differ from the one before in a field that nobody may tell: an agent that talks and works on changes
its conversation and its run time, not its status.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

PIPELINE = "77aa0000-0000-4000-8000-000000000000"
BODY_BYTES = 3_000
ID_LENGTH = 36
PIPELINE_ROWS = 60
_PAGE_ROWS = 50
_NEWEST_AT = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=1)  # within any lookback


def execution_ids(count: int) -> tuple[str, ...]:
    """Return that many ids, always the same."""
    return tuple(str(UUID(int=(0x9A1B << 112) | (0x40008 << 60) | number)) for number in range(count))


def pipeline_ids(count: int) -> tuple[str, ...]:
    """Return that many ids of pipelines, always the same."""
    return tuple(f"{PIPELINE[:-12]}{number:012}" for number in range(count))


def rows_of(pipeline: str, *, page: int) -> Sequence[str]:
    """Return the ids on a page of a pipeline's list."""
    first = int(pipeline[-12:]) * PIPELINE_ROWS
    return execution_ids(first + PIPELINE_ROWS)[first:][(page - 1) * _PAGE_ROWS : page * _PAGE_ROWS]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer before and after the execution's id."""

    before: bytes
    after: bytes


def private_field(nth: int) -> int:
    """Return what the private field of the nth answer to a question holds: the same in two answers, then the other."""
    return nth // 2 % 2


def answer(status: str, *, private: int = 0) -> Answer:
    """Return the answer of an execution in that status. Answers of another `private` are as long."""
    before, after = _body(status, private=private).split(b"{id}", 1)
    return Answer(_head(len(before) + ID_LENGTH + len(after)) + before, after)


def page_answer(rows: Sequence[str], *, page: int, status_of: Callable[[str], str], private: int) -> bytes:
    """Return the whole HTTP answer of a page with these rows."""
    first = (page - 1) * _PAGE_ROWS
    data = [_row(each, status_of(each), index=index, private=private) for index, each in enumerate(rows, first)]
    body = json.dumps({"data": data, "total": PIPELINE_ROWS}, separators=(",", ":")).encode()
    return _head(len(body)) + body


def _head(length: int) -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {length}\r\n\r\n".encode()
    )


def _row(execution: str, status: str, *, index: int, private: int) -> dict[str, object]:
    return {
        "id": execution,
        "pipelineVersionId": "b5c8f1e0-2c3a-4f1e-9d8a-7e6b5a4c3d2f",
        "status": status,
        "startedAt": (_NEWEST_AT - timedelta(minutes=index)).isoformat(),
        "runTime": 2000 + private,
        "aiTokensUsed": 512,
        "nodesStarted": 2,
        "finishedAt": None,
        "triggeredBy": "message_received",
        "triggeredByEntityId": "5f0c0000-0000-4000-8000-000000000000",
        "conversationId": "6a0d0000-0000-4000-8000-000000000000",
        "error": None,
    }


def _body(status: str, *, private: int) -> bytes:
    """Return a body in which `{id}` stands for the execution's id."""
    document = _document(status)
    text = "We would love to see you next week, what day suits you best? "
    missing = BODY_BYTES - len(json.dumps(document, separators=(",", ":")))
    said = f"{private} {text * 50}"[:missing]
    document["conversationHistory"] = {"messages": [{"role": "contact", "text": said}]}
    return json.dumps(document, separators=(",", ":")).encode()


def _document(status: str) -> dict[str, object]:
    return {
        "id": "{id}",
        "pipelineId": PIPELINE,
        "pipelineVersionId": "b5c8f1e0-2c3a-4f1e-9d8a-7e6b5a4c3d2f",
        "status": status,
        "pipelineName": "Sales agent",
        "pipelineVersionNumber": 7,
        "startedAt": "2025-11-24T10:00:00.000Z",
        "finishedAt": None,
        "error": None,
        "aiTokensUsed": 512,
        "nodesStarted": 2,
        "contactDetails": {"name": "A contact", "phone": "+15550100"},
        "environment": {"CRM": "https://crm.example.com"},
        "triggeredBy": "message_received",
        "triggeredByEntityId": "5f0c0000-0000-4000-8000-000000000000",
        "conversationId": "6a0d0000-0000-4000-8000-000000000000",
        "nodesExecuted": [_node(number) for number in (1, 2)],
        "pipelineMessages": [],
    }


def _node(number: int) -> dict[str, object]:
    name, key = f"Step {number}", str(number)
    return {
        "nodeName": name,
        "node": {"id": key, "name": name, "staticId": key, "isGoal": False, "goalName": None},
        "id": f"7b0e0000-0000-4000-8000-00000000000{number}",
        "startedAt": "2025-11-24T10:00:01.000Z",
        "finishedAt": "2025-11-24T10:00:02.000Z",
        "status": "success",
        "errorMessage": None,
        "aiTokensUsed": 256,
        "input": {"prompt": "Greet the contact and ask what they need."},
        "output": {"text": "Hello! How can we help you today?"},
    }
