"""The answers of the simulated API, with all fields of the API's reference page.

Private data of customers begins with `PRIVATE-`, so that tests can search for it everywhere.
"""

import json
from collections.abc import Mapping
from datetime import timedelta

from watcher.domain.envelope import timestamp
from watcher.domain.execution import Status
from watcher.simulator.world import Node, SimExecution, World

PRIVATE = "PRIVATE-"

PAGE_LIMIT = 50
BODY_BYTES = 3000
"""Size of the answer about one execution, about that of a real answer."""

JsonObject = dict[str, object]


def encode(document: object) -> bytes:
    """Return a document as JSON, the body of an answer."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def full(execution: SimExecution, *, world: World, now_s: float) -> JsonObject:
    """Return the answer to "get a pipeline execution", in a realistic size."""
    pipeline, words = execution.pipeline, f"{PRIVATE}conversation-{execution.id} said so. "
    nodes = _started_nodes(execution, now_s)
    message = {"role": "contact", "text": words}
    document: JsonObject = {
        **_common_fields(execution, world=world, now_s=now_s),
        "pipelineId": pipeline.id,
        "pipelineName": pipeline.name,
        "pipelineVersionNumber": pipeline.version_number,
        "conversationHistory": {"messages": [message]},
        "contactDetails": {"name": f"{PRIVATE}contact-{execution.id}", "phone": f"{PRIVATE}contact-phone"},
        "environment": {"CRM_TOKEN": f"{PRIVATE}environment-{execution.id}"},
        "nodesExecuted": [_node(node, execution=execution, world=world, now_s=now_s) for node in nodes],
        "pipelineMessages": [_message(node, execution=execution, world=world) for node in nodes],
    }
    message["text"] = words.ljust(len(words) + BODY_BYTES - len(encode(document)), "-")
    return _apply_oddities(document, execution=execution)


def row(execution: SimExecution, *, world: World, now_s: float) -> JsonObject:
    """Return the row that an execution has in a list."""
    started_s, finished_s = execution.started_s(now_s), execution.finished_s(now_s)
    run_time_s = None if started_s is None else (now_s if finished_s is None else finished_s) - started_s
    run_time_ms = None if run_time_s is None else round(run_time_s * 1000)
    document = {**_common_fields(execution, world=world, now_s=now_s), "runTime": run_time_ms}
    return _apply_oddities(document, execution=execution)


def listing(
    pipeline: str, *, number: int, limit: int, world: World, base_url: str
) -> tuple[JsonObject, Mapping[str, str]]:
    """Return a page of a pipeline's list, and the statuses on that page by execution. The first page has number 1."""
    executions = world.list_executions(pipeline)
    now_s = world.now_s()
    shown = executions[(number - 1) * limit : number * limit]
    url = f"{base_url}/public/pipelines/{pipeline}/executions?limit={limit}&page="
    last = max(1, -(-len(executions) // limit))
    numbers = {"next": number + 1, "prev": number - 1, "self": number}
    document: JsonObject = {
        "data": [row(execution, world=world, now_s=now_s) for execution in shown],
        "total": len(executions),
        "links": {name: f"{url}{to}" for name, to in numbers.items() if name == "self" or 1 <= to <= last},
    }
    return document, {execution.id: execution.phase_at(now_s).status for execution in shown}


def _common_fields(execution: SimExecution, *, world: World, now_s: float) -> JsonObject:
    lifecycle, status, nodes = execution.lifecycle, execution.phase_at(now_s).status, _started_nodes(execution, now_s)
    return {
        "id": execution.id,
        "pipelineVersionId": execution.pipeline.version_id,
        "status": status,
        "startedAt": _date(execution.started_s(now_s), world=world),
        "finishedAt": _date(execution.finished_s(now_s), world=world),
        "error": lifecycle.error if status == Status.FAILED else None,
        "aiTokensUsed": sum(node.tokens for node in nodes),
        "nodesStarted": len(nodes),
        "triggeredBy": lifecycle.triggered_by,
        "triggeredByEntityId": lifecycle.triggered_by_entity_id,
        "conversationId": lifecycle.conversation_id,
    }


def _started_nodes(execution: SimExecution, now_s: float) -> list[Node]:
    return [node for node in execution.lifecycle.nodes if execution.begins_s + node.begins_s <= now_s]


def _node(node: Node, *, execution: SimExecution, world: World, now_s: float) -> JsonObject:
    is_over = execution.begins_s + node.ends_s <= now_s
    error = node.error if is_over else None
    return {
        "nodeName": node.name,
        "node": _node_of_pipeline(node),
        "id": node.id,
        "startedAt": _date(execution.begins_s + node.begins_s, world=world),
        "finishedAt": _date(execution.begins_s + node.ends_s if is_over else None, world=world),
        "status": "failed" if error else "success" if is_over else "running",
        "errorMessage": error,
        "aiTokensUsed": node.tokens,
        "input": {"prompt": f"{PRIVATE}input-{node.id}"},
        "output": {"text": f"{PRIVATE}output-{node.id}"} if is_over else {},
    }


def _node_of_pipeline(node: Node) -> JsonObject:
    return {
        "id": node.number,
        "name": node.name,
        "staticId": node.number,
        "isGoal": node.is_goal,
        "goalName": node.goal,
    }


def _message(node: Node, *, execution: SimExecution, world: World) -> JsonObject:
    return {
        "sourceNode": _node_of_pipeline(node),
        "id": f"{node.id[:-4]}0000",
        "content": {"text": f"{PRIVATE}message-{node.id}"},
        "messageType": "text",
        "sourceNodeExecutionId": node.id,
        "created": _date(execution.begins_s + node.begins_s, world=world),
        "destinations": {},
    }


def _apply_oddities(document: JsonObject, *, execution: SimExecution) -> JsonObject:
    nulls, absent = execution.lifecycle.nulls, execution.lifecycle.absent
    return {key: None if key in nulls else value for key, value in document.items() if key not in absent}


def _date(moment_s: float | None, *, world: World) -> str | None:
    if moment_s is None:
        return None
    return timestamp(world.epoch + timedelta(seconds=moment_s))
