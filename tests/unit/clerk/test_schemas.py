"""Which fields of the API's answers are read, and what becomes of those that are not as documented."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from virtual import DATES

from watcher.clerk.schemas import ROWS_COUNT, TEXT_LENGTH, ParsedPage, UnreadableError, parse_execution, parse_page
from watcher.domain.execution import ExecutionSnapshot, FailedNode

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
EXECUTION = "9a1b0000-0000-4000-8000-000000000001"
OTHER = "9a1b0000-0000-4000-8000-000000000002"
NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def body(**fields: object) -> bytes:
    return json.dumps({"id": EXECUTION, "status": "running", **fields}).encode()


PRIVATE = "the customer's own words"
FULL = {
    "id": EXECUTION,
    "pipelineId": PIPELINE,
    "pipelineVersionId": "v-1",
    "status": "failed",
    "pipelineName": "Sales agent",
    "pipelineVersionNumber": 7,
    "startedAt": "2026-11-24T09:59:48.600Z",
    "finishedAt": "2026-11-24T12:00:01.000+02:00",
    "error": "Node failed",
    "aiTokensUsed": 512,
    "nodesStarted": 3,
    "conversationHistory": {"messages": [PRIVATE]},
    "contactDetails": {"phone": PRIVATE},
    "environment": {"TOKEN": PRIVATE},
    "triggeredBy": "message_received",
    "triggeredByEntityId": "e-1",
    "conversationId": "c-1",
    "nodesExecuted": [
        {
            "nodeName": "Greeting",
            "node": {"id": "1", "name": "Greeting", "isGoal": True, "goalName": "Booked appointment"},
            "id": "n-1",
            "status": "success",
            "errorMessage": None,
            "input": {"text": PRIVATE},
            "output": {"text": PRIVATE},
        },
        {"id": "n-2", "nodeName": "Call", "node": {"name": "other"}, "status": "failed", "input": PRIVATE},
        {"id": "n-3", "node": {"name": "Ask", "isGoal": False, "goalName": "no"}, "errorMessage": "no answer"},
        {"id": "n-4", "status": "failed", "node": {"isGoal": True}, "errorMessage": ""},
    ],
    "pipelineMessages": [{"content": {"text": PRIVATE}}],
}
ALLOWED = ExecutionSnapshot(
    id=EXECUTION,
    status="failed",
    pipeline_id=PIPELINE,
    version_id="v-1",
    pipeline_name="Sales agent",
    version_number=7,
    started_at=datetime(2026, 11, 24, 9, 59, 48, 600_000, tzinfo=UTC),
    finished_at=datetime(2026, 11, 24, 10, 0, 1, tzinfo=UTC),
    error="Node failed",
    ai_tokens_used=512,
    nodes_started=3,
    triggered_by="message_received",
    triggered_by_entity_id="e-1",
    conversation_id="c-1",
    failed_nodes=(FailedNode("n-2", "Call", None), FailedNode("n-3", "Ask", "no answer"), FailedNode("n-4", None, "")),
    goals=("Booked appointment",),
)


def page_of(*rows: object, **fields: object) -> ParsedPage:
    return parse_page(json.dumps({"data": rows, "total": len(rows), **fields}).encode(), dates=DATES)


def parse(**fields: object) -> ExecutionSnapshot:
    return parse_execution(body(**fields), asked=EXECUTION, dates=DATES)


@pytest.mark.parametrize("wrong", [None, [], {}, {"a": 1}, [1], "odd", 1e300, -1, True])
@pytest.mark.parametrize("field", sorted(FULL.keys() - {"id", "status"}))
def test_an_optional_field_of_any_type_costs_at_most_itself(field: str, wrong: object) -> None:
    execution = parse(**FULL | {"status": "paused", field: wrong})
    assert execution.status == "paused"
    others = {"started_at", "goals", "error", "version_number"} - {_ATTRIBUTES.get(field, "")}
    assert all(getattr(execution, name) == getattr(ALLOWED, name) for name in others)


_ATTRIBUTES = {
    "startedAt": "started_at",
    "finishedAt": "finished_at",
    "nodesExecuted": "goals",
    "error": "error",
    "pipelineVersionNumber": "version_number",
}


@pytest.mark.parametrize(
    "number",
    [*["NaN", "Infinity", "-Infinity", "1e400", "1e308", "-1e308"], "9" * 400, "-" + "9" * 4000, str(2**53 + 2)],
)
def test_a_number_beyond_all_measure_is_absent(number: str) -> None:
    raw = body(aiTokensUsed="N").replace(b'"N"', number.encode())
    execution = parse_execution(raw, asked=EXECUTION, dates=DATES)
    assert execution.ai_tokens_used is None


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-24T10:00:00", NOW),
        ("2026-11-24T10:00:00Z", NOW),
        ("2026-11-24T12:00:00+02:00", NOW),
        *((f"{year}-12-31T23:59:59Z", None) for year in ("1969", "9999", "12026", "0000")),
        *((text, None) for text in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59")),
        *((text, None) for text in ("1970-01-01T00:00:00+14:00", "9998-12-31T23:59:59-14:00")),
        ("1969-12-31T23:59:59-01:00", datetime(1970, 1, 1, 0, 59, 59, tzinfo=UTC)),
        ("2026-11-24T10:00:00+24:00", None),
        ("2026-11-24T10:00:60Z", None),
        ("2026-11-24T10:00:00.999999999Z", NOW.replace(microsecond=999_999)),
        *((text, None) for text in ("yesterday", "")),
    ],
)
def test_a_time_is_read_as_utc_and_an_impossible_one_as_absent(text: str, moment: datetime | None) -> None:
    execution = parse(startedAt=text, finishedAt=text)
    assert (execution.started_at, execution.finished_at) == (moment, moment)


def test_half_a_surrogate_pair_or_a_wrong_node_costs_only_itself() -> None:
    raw = body(error="N", conversationHistory={"text": "x"}, pipelineName="P")
    raw = raw.replace(b'"N"', rb'"cut \ud83d"').replace(b'"x"', rb'"\udE00 \\ud83d \ud83d\ude00"')
    raw = raw.replace(b'"P"', rb'"\\ud83d \ud83d\ude00 \\\ud83d\n"')
    execution = parse_execution(raw, asked=EXECUTION, dates=DATES)
    assert execution.error == "cut "
    assert execution.pipeline_name == "\\ud83d \U0001f600 \\\n"
    nodes = [None, 7, "x", {"id": 5, "node": "y", "errorMessage": "bad"}, {"node": {"isGoal": True, "goalName": "G"}}]
    execution = parse(nodesExecuted=nodes)
    assert execution.failed_nodes == (FailedNode(None, None, "bad"),)
    assert execution.goals == ("G",)


def test_an_id_is_kept_as_asked_and_a_nul_is_left_out() -> None:
    assert parse(id=EXECUTION.upper()) == ExecutionSnapshot(id=EXECUTION, status="running")
    raw = body(status="od\0d", pipelineName="P\0")
    assert rb"\u0000" in raw
    execution = parse_execution(raw, asked=EXECUTION, dates=DATES)
    assert (execution.status, execution.pipeline_name) == ("odd", "P")


# A page of a list

ROW = {name: FULL[name] for name in FULL if name not in {"pipelineId", "pipelineName", "pipelineVersionNumber"}}
ROW_ALLOWED = replace(ALLOWED, pipeline_id=None, pipeline_name=None, version_number=None, failed_nodes=(), goals=())


def test_the_allowed_fields_are_read_and_no_others() -> None:
    assert parse_execution(json.dumps(FULL).encode(), asked=EXECUTION, dates=DATES) == ALLOWED
    assert page_of(ROW, total=7) == ParsedPage((ROW_ALLOWED,), 0, 7)


@pytest.mark.parametrize(
    "bad",
    [
        *(None, 7, "x", [], {}, {"id": OTHER}, {"status": "new"}),
        *({"id": id_, "status": "new"} for id_ in (None, 5, "", "../accounts")),
        *({"id": OTHER, "status": status} for status in (None, "", 3)),
    ],
)
def test_a_row_without_id_or_status_costs_only_itself(bad: object) -> None:
    assert page_of(bad, {"id": EXECUTION, "status": "new"}, bad) == ParsedPage(
        (ExecutionSnapshot(EXECUTION, "new"),), 2, 3
    )


def test_a_page_keeps_its_order_and_is_none_if_no_row_can_be_read() -> None:
    rows = [{"id": name, "status": "new"} for name in (OTHER, EXECUTION)]
    assert page_of(*rows) == ParsedPage((ExecutionSnapshot(OTHER, "new"), ExecutionSnapshot(EXECUTION, "new")), 0, 2)
    assert page_of() == ParsedPage((), 0, 0)
    with pytest.raises(UnreadableError, match="no_rows"):
        page_of({"status": "new"}, None)


WRONG_TOTALS: list[object] = [None, -1, "7", 1.5, True, [], {}, 2**60, 1e300]


@pytest.mark.parametrize(
    ("total", "read"), [(0, 0), (51, 51), (2**53, 2**53), *((wrong, None) for wrong in WRONG_TOTALS)]
)
def test_a_total_of_another_type_is_absent(total: object, read: int | None) -> None:
    assert page_of(total=total) == ParsedPage((), 0, read)


@pytest.mark.parametrize(
    "data", [b'{"total": 1}', b'{"data": null}', b'{"data": {}}', b'{"data": "x"}', b"[]", b"null"]
)
def test_without_a_list_there_is_no_page(data: bytes) -> None:
    with pytest.raises(UnreadableError, match="no_list"):
        parse_page(data, dates=DATES)


# What is hard to read

UNREAD = {
    "201 levels": b"[" * 201 + b"]" * 201,
    "a number beyond all measure": b"1e999",
    "bytes that are no text": b'"\xff\xfe"',
    "control characters": b'"\x00\n"',
    "a NUL": rb'"\u0000"',
    "half a surrogate pair": rb'"\ud83d"',
    "a huge text": b'"' + b"x" * 2_000_000 + b'"',
    "a huge text of escapes": b'"' + rb"\u0041" * 300_000 + b'"',
    "a million values": b"[" + b"0," * 1_000_000 + b"0]",
}


@pytest.mark.parametrize("name", UNREAD)
def test_nothing_in_a_private_or_optional_field_makes_an_execution_unreadable(name: str) -> None:
    raw = json.dumps(FULL | {"conversationHistory": "N", "environment": {"id": "wrong", "status": "new"}}).encode()
    assert parse_execution(raw.replace(b'"N"', UNREAD[name]), asked=EXECUTION, dates=DATES) == ALLOWED
    if name != "a million values":
        raw = json.dumps(FULL | {"triggeredBy": "N"}).encode()
        execution = parse_execution(raw.replace(b'"N"', UNREAD[name]), asked=EXECUTION, dates=DATES)
        assert replace(execution, triggered_by=None) == replace(ALLOWED, triggered_by=None)


@pytest.mark.parametrize("name", UNREAD)
def test_what_is_cut_or_another_id_stays_unreadable_however_it_is_read(name: str) -> None:
    raw = body(x="N").replace(b'"N"', UNREAD[name])
    with pytest.raises(UnreadableError, match="no_json"):
        parse_execution(raw[:-1], asked=EXECUTION, dates=DATES)
    with pytest.raises(UnreadableError, match="wrong_id"):
        parse_execution(raw, asked=OTHER, dates=DATES)


@pytest.mark.parametrize(
    ("raw", "flaw"),
    [
        (b"<html></html>", "html"),
        (b"", "no_json"),
        (b'{"id": "', "no_json"),
        (b'{"id": ""}', "no_execution"),
        (b'[{"id": ""}]', "no_execution"),
        (b"[" * 100_000 + b"]" * 100_000, "no_json"),
        (b'{"id":%s}' % (b"9" * 1_000_000), "no_json"),
        (b"[%s]" % (b"[]," * 1_000_000), "too_large"),
        (b'{"data":[%s{}]}' % (b"{}," * ROWS_COUNT), "no_execution"),
    ],
)
def test_a_word_of_ours_says_what_is_wrong(raw: bytes, flaw: str) -> None:
    with pytest.raises(UnreadableError, match=flaw):
        parse_execution(raw, asked=EXECUTION, dates=DATES)


def test_a_long_text_and_many_nodes_are_cut_and_a_late_failure_found() -> None:
    raw = body(error="x" * 2_000_000)
    assert parse_execution(raw, asked=EXECUTION, dates=DATES).error == "x" * TEXT_LENGTH
    node = {"id": "n", "status": "failed", "node": {"isGoal": True, "goalName": "G"}}
    execution = parse(nodesExecuted=[node] * 100)
    assert (len(execution.failed_nodes), len(execution.goals)) == (20, 20)
    nodes: list[object] = [{"id": f"n-{number}", "status": "success"} for number in range(ROWS_COUNT - 1)]
    execution = parse_execution(
        body(nodesExecuted=[*nodes, {"id": "bad", "status": "failed"}]), asked=EXECUTION, dates=DATES
    )
    assert execution.failed_nodes == (FailedNode("bad", None, None),)
