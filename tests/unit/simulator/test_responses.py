import json
from typing import Any, cast

from watcher.simulator.responses import BODY_BYTES, PRIVATE, JsonObject, encode, full, listing, row
from watcher.simulator.world import Kind, Lifecycle, Node, SimExecution, SimPipeline, StatusPhase, World, make_lifecycle

PIPELINE = SimPipeline(id="0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f", name="Sales agent", version_number=7)
TEXTS = ("id", "pipelineVersionId", "status", "startedAt", "finishedAt", "error")
ORIGIN = dict.fromkeys(("triggeredBy", "triggeredByEntityId", "conversationId"), str)
SHARED_FIELDS = dict.fromkeys(TEXTS, str) | dict.fromkeys(("aiTokensUsed", "nodesStarted"), int) | ORIGIN
EXECUTION_FIELDS = (
    SHARED_FIELDS
    | {"pipelineId": str, "pipelineName": str, "pipelineVersionNumber": int}
    | dict.fromkeys(("conversationHistory", "contactDetails", "environment"), dict)
    | dict.fromkeys(("nodesExecuted", "pipelineMessages"), list)
)
NODE_FIELDS = (
    dict.fromkeys(("nodeName", "id", "startedAt", "finishedAt", "status", "errorMessage"), str)
    | {"aiTokensUsed": int}
    | dict.fromkeys(("node", "input", "output"), dict)
)
MESSAGE_FIELDS = dict.fromkeys(("id", "messageType", "sourceNodeExecutionId", "created"), str) | dict.fromkeys(
    ("sourceNode", "content", "destinations"), dict
)
NODE_OF_PIPELINE_FIELDS = {"id": str, "name": str, "staticId": str, "isGoal": bool, "goalName": str}


def types(document: JsonObject) -> dict[str, type]:
    return {key: type(value) for key, value in document.items()}


def parsed(document: JsonObject) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(encode(document)))


def failed(world: World) -> SimExecution:
    return world.add(make_lifecycle(7, index=0, kind=Kind.FAILING), pipeline=PIPELINE)


def small(*phases: StatusPhase, nodes: tuple[Node, ...] = ()) -> Lifecycle:
    return Lifecycle("e", phases=phases, nodes=nodes)


def test_answers_and_rows_have_every_documented_field(world: World) -> None:
    execution = failed(world)
    document = parsed(full(execution, world=world, now_s=1e6))
    assert types(document) == EXECUTION_FIELDS
    assert types(document["nodesExecuted"][-1]) == NODE_FIELDS
    assert types(document["nodesExecuted"][0]["node"]) == NODE_OF_PIPELINE_FIELDS
    assert types(document["pipelineMessages"][0]) == MESSAGE_FIELDS
    assert types(document["pipelineMessages"][0]["sourceNode"]) == NODE_OF_PIPELINE_FIELDS
    assert types(parsed(row(execution, world=world, now_s=1e6))) == SHARED_FIELDS | {"runTime": int}


def test_dates_are_as_documented_and_an_answer_as_large_as_a_real_one(world: World) -> None:
    phases = (StatusPhase("new", 0), StatusPhase("running", 1.25), StatusPhase("success", 61))
    document = full(world.add(small(*phases), pipeline=PIPELINE), world=world, now_s=70)
    assert document["startedAt"] == "2026-11-24T10:00:01.250Z"
    assert document["finishedAt"] == "2026-11-24T10:01:01.000Z"
    assert len(encode(document)) == BODY_BYTES


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


def test_every_private_field_carries_a_mark_and_no_other_does(world: World) -> None:
    document = parsed(full(failed(world), world=world, now_s=1e6))
    for key in ("conversationHistory", "contactDetails", "environment"):
        assert PRIVATE in json.dumps(document.pop(key))
    assert all(PRIVATE in json.dumps(each.pop("content")) for each in document["pipelineMessages"])
    for node in document["nodesExecuted"]:
        assert PRIVATE in json.dumps(node.pop("input"))
        assert PRIVATE in json.dumps(node.pop("output"))
    assert PRIVATE not in json.dumps(document)


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
