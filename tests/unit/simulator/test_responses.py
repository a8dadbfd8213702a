import json
from typing import Any, cast

from watcher.simulator.lifecycles import Kind, Lifecycle, Node, StatusPhase, make_lifecycle
from watcher.simulator.responses import (
    BODY_BYTES,
    PRIVATE,
    JsonObject,
    encode,
    full,
    listing,
    row,
)
from watcher.simulator.world import SimExecution, SimPipeline, World

PIPELINE = SimPipeline(id="0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f", name="Sales agent", version_number=7)
EXECUTION_FIELDS = {
    "id": str,
    "pipelineId": str,
    "pipelineVersionId": str,
    "status": str,
    "pipelineName": str,
    "pipelineVersionNumber": int,
    "startedAt": str,
    "finishedAt": str,
    "error": str,
    "aiTokensUsed": int,
    "nodesStarted": int,
    "conversationHistory": dict,
    "contactDetails": dict,
    "environment": dict,
    "triggeredBy": str,
    "triggeredByEntityId": str,
    "conversationId": str,
    "nodesExecuted": list,
    "pipelineMessages": list,
}
NODE_FIELDS = {
    "nodeName": str,
    "node": dict,
    "id": str,
    "startedAt": str,
    "finishedAt": str,
    "status": str,
    "errorMessage": str,
    "aiTokensUsed": int,
    "input": dict,
    "output": dict,
}
MESSAGE_FIELDS = {
    "sourceNode": dict,
    "id": str,
    "content": dict,
    "messageType": str,
    "sourceNodeExecutionId": str,
    "created": str,
    "destinations": dict,
}
NODE_OF_PIPELINE_FIELDS = {"id": str, "name": str, "staticId": str, "isGoal": bool, "goalName": str}
ROW_FIELDS = {
    "id": str,
    "pipelineVersionId": str,
    "status": str,
    "startedAt": str,
    "runTime": int,
    "aiTokensUsed": int,
    "nodesStarted": int,
    "finishedAt": str,
    "triggeredBy": str,
    "triggeredByEntityId": str,
    "conversationId": str,
    "error": str,
}


def types(document: JsonObject) -> dict[str, type]:
    return {key: type(value) for key, value in document.items()}


def parsed(document: JsonObject) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(encode(document)))


def failed(world: World) -> SimExecution:
    return world.add(make_lifecycle(7, index=0, kind=Kind.FAILING), pipeline=PIPELINE)


def small(*phases: StatusPhase, nodes: tuple[Node, ...] = ()) -> Lifecycle:
    return Lifecycle("e", phases=phases, nodes=nodes)


def test_an_answer_has_every_documented_field_in_its_order(world: World) -> None:
    document = parsed(full(failed(world), world=world, now_s=1e6))
    assert list(types(document).items()) == list(EXECUTION_FIELDS.items())
    assert types(document["nodesExecuted"][-1]) == NODE_FIELDS
    assert types(document["nodesExecuted"][0]["node"]) == NODE_OF_PIPELINE_FIELDS
    assert types(document["pipelineMessages"][0]) == MESSAGE_FIELDS
    assert types(document["pipelineMessages"][0]["sourceNode"]) == NODE_OF_PIPELINE_FIELDS


def test_a_row_has_every_documented_field_and_no_other(world: World) -> None:
    document = parsed(row(failed(world), world=world, now_s=1e6))
    assert list(types(document).items()) == list(ROW_FIELDS.items())


def test_dates_are_written_as_the_documentation_writes_them(world: World) -> None:
    execution = world.add(
        small(StatusPhase("new", 0), StatusPhase("running", 1.25), StatusPhase("success", 61)), pipeline=PIPELINE
    )
    document = full(execution, world=world, now_s=70)
    assert document["startedAt"] == "2026-11-24T10:00:01.250Z"
    assert document["finishedAt"] == "2026-11-24T10:01:01.000Z"


def test_nodes_appear_when_they_begin_and_end_when_they_end(world: World) -> None:
    node = Node(id="n", number="1", name="Greeting", begins_s=1, ends_s=3, error="no", goal="Sold", tokens=5)
    execution = world.add(small(StatusPhase("running", 0), StatusPhase("failed", 3), nodes=(node,)), pipeline=PIPELINE)
    before, during, after = (parsed(full(execution, world=world, now_s=now_s)) for now_s in (0, 2, 4))
    assert (before["nodesExecuted"], before["nodesStarted"], before["aiTokensUsed"]) == ([], 0, 0)
    assert during["nodesExecuted"][0]["status"] == "running"
    assert during["nodesExecuted"][0]["errorMessage"] is None
    assert during["aiTokensUsed"] == 5
    assert after["nodesExecuted"][0]["status"] == "failed"
    assert after["nodesExecuted"][0]["errorMessage"] == "no"


def test_every_private_field_carries_its_mark(world: World) -> None:
    document = parsed(full(failed(world), world=world, now_s=1e6))
    node, message = document["nodesExecuted"][0], document["pipelineMessages"][0]
    for value, mark in (
        (document["conversationHistory"], "PRIVATE-conversation"),
        (document["contactDetails"], "PRIVATE-contact"),
        (document["environment"], "PRIVATE-environment"),
        (node["input"], "PRIVATE-input"),
        (node["output"], "PRIVATE-output"),
        (message["content"], "PRIVATE-message"),
    ):
        assert mark in json.dumps(value)
        assert mark.startswith(PRIVATE)


def test_no_public_field_carries_a_mark(world: World) -> None:
    document = parsed(full(failed(world), world=world, now_s=1e6))
    for key in ("conversationHistory", "contactDetails", "environment", "pipelineMessages"):
        del document[key]
    for node in document["nodesExecuted"]:
        del node["input"], node["output"]
    assert PRIVATE not in json.dumps(document)


def test_an_answer_is_as_large_as_a_real_one(world: World) -> None:
    lifecycle = small(StatusPhase("running", 0), StatusPhase("success", 4))
    execution = world.add(lifecycle, pipeline=PIPELINE)
    assert len(encode(full(execution, world=world, now_s=5))) == BODY_BYTES


def test_fields_can_be_null_or_absent(world: World) -> None:
    lifecycle = Lifecycle(
        "e", phases=(StatusPhase("success", 0),), nulls=frozenset({"finishedAt"}), absent=frozenset({"error"})
    )
    execution = world.add(lifecycle, pipeline=PIPELINE)
    for document in (full(execution, world=world, now_s=1), row(execution, world=world, now_s=1)):
        assert document["finishedAt"] is None
        assert "error" not in document


def page_of(world: World, *, number: int, limit: int) -> dict[str, Any]:
    return parsed(listing(PIPELINE.id, number=number, limit=limit, world=world, base_url="http://sim")[0])


def test_pages_divide_the_list_and_link_to_each_other(world: World) -> None:
    for nth in range(5):
        world.add(Lifecycle(f"e{nth}", phases=(StatusPhase("running", 0),)), pipeline=PIPELINE, begins_s=-nth)
    url = f"http://sim/public/pipelines/{PIPELINE.id}/executions?limit=2&page="
    first, second, last = (page_of(world, number=number, limit=2) for number in (1, 2, 3))
    assert [len(page["data"]) for page in (first, second, last)] == [2, 2, 1]
    assert [each["id"] for each in first["data"] + second["data"] + last["data"]] == ["e0", "e1", "e2", "e3", "e4"]
    assert [page["total"] for page in (first, second, last)] == [5, 5, 5]
    assert first["links"] == {"next": f"{url}2", "self": f"{url}1"}
    assert second["links"] == {"next": f"{url}3", "prev": f"{url}1", "self": f"{url}2"}
    assert last["links"] == {"prev": f"{url}2", "self": f"{url}3"}
