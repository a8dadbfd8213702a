"""What goes out: the envelope to the byte, ids that never change, the rules of time, the sizes."""

import json
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from sample_events import data_of

from watcher.domain.envelope import cut, encode, event_of, timestamp, truncate
from watcher.domain.event import AccountTrouble, Event, EventType, GapReason, OutboxEntry
from watcher.domain.event_factory import EventFactory, trial_event
from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot, FailedNode, LostReason
from watcher.domain.routing import Router
from watcher.domain.timestamps import EARLIEST, LATEST, NEVER, Micros, Monotonic, from_us, to_us
from watcher.domain.transitions import StatusChange
from watcher.domain.watch import Watch

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
EXECUTION = "9a1b0000-0000-4000-8000-000000000001"
STARTED = datetime(2026, 11, 24, 9, 59, 48, 600_000, tzinfo=UTC)
FINISHED = datetime(2026, 11, 24, 10, 0, 1, tzinfo=UTC)
SEEN = datetime(2026, 11, 24, 10, 0, 1, 800_000, tzinfo=UTC)
BEFORE = datetime(2026, 11, 24, 10, 0, 0, 750_000, tzinfo=UTC)
NOW_MS = 1_795_514_401_800

WATCH = Watch("default", PIPELINE, (EXECUTION,), name="Sales agent", labels={"team": "sales"})
FACTS = ExecutionSnapshot(
    id=EXECUTION,
    status="failed",
    pipeline_id=PIPELINE,
    version_id="1c2d0000-0000-4000-8000-000000000002",
    pipeline_name="What the API calls it",
    version_number=7,
    started_at=STARTED,
    finished_at=FINISHED,
    error="Node “Greeting” failed",
    ai_tokens_used=512,
    nodes_started=3,
    triggered_by="message_received",
    triggered_by_entity_id="5e6f",
    conversation_id="7a8b",
    failed_nodes=(FailedNode("n-1", "Greeting", "no answer"),),
    goals=("Booked appointment",),
    began_at=to_us(STARTED),
    ended_at=to_us(FINISHED),
)
FAILED = StatusChange(EventType.EXECUTION_FAILED, "failed", "failed", "running", nth=1, sequence=3)
RUNNING = StatusChange(EventType.EXECUTION_RUNNING, "running", "running", None, nth=1, sequence=1)
PAUSED = StatusChange(EventType.EXECUTION_PAUSED, "paused", "paused", "running", nth=1, sequence=2)
ODD = StatusChange(EventType.EXECUTION_UNRECOGNIZED, "unrecognized:odd", "odd", "running", nth=1, sequence=2)
OVERDUE = StatusChange(EventType.EXECUTION_OVERDUE, "overdue", "running", None, nth=1, sequence=2)
LOST = StatusChange(EventType.EXECUTION_LOST, "lost", "lost", "running", nth=1, sequence=2)

Params = partial[OutboxEntry]
EVENTS = EventFactory(Router({}))
PARAMS = partial(
    EVENTS.execution,
    watch=WATCH,
    change=FAILED,
    known=ExecutionRecord(EXECUTION, PIPELINE, status="failed"),
    observed_at=SEEN,
    seen_at=to_us(SEEN),
    not_before=BEFORE,
    facts=FACTS,
    link="https://example.com/agents/{pipelineId}/runs/{executionId}",
)


BARE = partial(
    EVENTS.execution,
    watch=Watch("default", PIPELINE, ()),
    known=ExecutionRecord(EXECUTION, PIPELINE),
    observed_at=SEEN,
    seen_at=to_us(SEEN),
)


def execution_event(params: Params) -> Event:
    return params().event


def read(event: Event) -> Any:
    return json.loads(event.body)


def data(params: Params) -> Any:
    return read(execution_event(params))["data"]


GOLDEN = (
    '{"specversion":"1.0","id":"ID",'
    '"source":"/accounts/default/pipelines/0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f","type":"execution.failed",'
    '"subject":"9a1b0000-0000-4000-8000-000000000001","time":"2026-11-24T10:00:01.000Z",'
    '"datacontenttype":"application/json","sequence":"0000000003",'
    '"data":{"account":"default","labels":{"team":"sales"},'
    '"link":"https://example.com/agents/0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f/runs/9a1b0000-0000-4000-8000-000000000001",'
    '"pipeline":{"id":"0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f","name":"Sales agent",'
    '"versionId":"1c2d0000-0000-4000-8000-000000000002","versionNumber":7},'
    '"execution":{"id":"9a1b0000-0000-4000-8000-000000000001","status":"failed","previousStatus":"running",'
    '"startedAt":"2026-11-24T09:59:48.600Z","finishedAt":"2026-11-24T10:00:01.000Z","durationSeconds":12.4,'
    '"error":"Node “Greeting” failed","aiTokensUsed":512,"nodesStarted":3,"triggeredBy":"message_received",'
    '"triggeredByEntityId":"5e6f","conversationId":"7a8b",'
    '"failedNodes":[{"id":"n-1","name":"Greeting","error":"no answer"}],"goals":["Booked appointment"]},'
    '"observed":{"at":"2026-11-24T10:00:01.800Z","notBefore":"2026-11-24T10:00:00.750Z","delaySeconds":0.8}}}'
)
FAILED_ID = "463ad2d1-fe28-5ab8-b190-a2f573201990"
"""What receivers have recorded. If this test fails, every event there ever was would be reported a second time."""


def test_the_example_of_the_contract_comes_out_to_the_byte() -> None:
    assert execution_event(PARAMS).body.decode() == GOLDEN.replace("ID", FAILED_ID)


# Ids


@pytest.mark.parametrize(
    ("status_change", "id_"),
    [
        (FAILED, FAILED_ID),
        (replace(RUNNING, nth=2), "21e02634-604b-5a80-841f-4233d2dacbd0"),
        (ODD, "2f7f93ac-1823-5f91-8cee-7ee8d45b5942"),
        (OVERDUE, "07a3b7d5-d82e-5dcf-9394-15fac60c261f"),
        (LOST, "cc4b96db-7a2d-5129-91c2-8e2483386d4b"),
    ],
)
def test_the_ids_of_an_execution_never_change(status_change: StatusChange, id_: str) -> None:
    assert str(execution_event(partial(PARAMS, change=status_change)).id) == id_


def test_an_id_is_the_same_whatever_else_is_known() -> None:
    change = replace(FAILED, previous=None, sequence=9)
    assert str(execution_event(partial(BARE, change=change, observed_at=SEEN + timedelta(days=1))).id) == FAILED_ID


@pytest.mark.parametrize(
    ("other", "same_stream"),
    [
        (partial(PARAMS, change=replace(FAILED, nth=2)), True),
        (partial(PARAMS, change=replace(FAILED, type=EventType.EXECUTION_SUCCESS)), True),
        (partial(PARAMS, change=replace(FAILED, kind="unrecognized:failed")), True),
        (partial(PARAMS, watch=replace(WATCH, account="other")), False),
        (partial(PARAMS, watch=replace(WATCH, pipeline=EXECUTION)), False),
        (partial(PARAMS, known=ExecutionRecord(PIPELINE, PIPELINE)), False),
    ],
)
def test_another_type_word_or_count_is_another_id_and_another_execution_another_stream(
    other: Params, *, same_stream: bool
) -> None:
    event = execution_event(other)
    assert str(event.id) != FAILED_ID
    assert event.id.version == 5
    assert (event.stream == execution_event(PARAMS).stream) is same_stream


# Time


@pytest.mark.parametrize(
    ("status_change", "facts", "was_paused", "time"),
    [
        (FAILED, FACTS, False, FINISHED),
        (replace(FAILED, type=EventType.EXECUTION_SUCCESS, kind="success"), FACTS, False, FINISHED),
        (FAILED, replace(FACTS, finished_at=None), False, SEEN),
        (RUNNING, FACTS, False, STARTED),
        (RUNNING, replace(FACTS, started_at=None), False, SEEN),
        (RUNNING, FACTS, True, SEEN),
        (replace(RUNNING, nth=2), FACTS, False, SEEN),
        (replace(RUNNING, kind="new", type=EventType.EXECUTION_NEW), FACTS, False, SEEN),
        (PAUSED, FACTS, True, SEEN),
        (ODD, FACTS, False, SEEN),
        (FAILED, None, False, SEEN),
    ],
)
def test_the_time_of_an_event_is_the_reported_one_where_that_is_meant(
    status_change: StatusChange, facts: ExecutionSnapshot | None, was_paused: bool, time: datetime
) -> None:
    known = replace(PARAMS.keywords["known"], was_paused=was_paused)
    params = partial(PARAMS, change=status_change, facts=facts, known=known)
    event = read(execution_event(params))
    assert event["time"] == timestamp(time)
    delay_s = None if time is SEEN else round((SEEN - time).total_seconds(), 3)
    assert event["data"]["observed"].get("delaySeconds") == delay_s


def test_a_delay_is_never_negative() -> None:
    ahead = replace(FACTS, finished_at=SEEN + timedelta(hours=1), ended_at=None)  # as such a date is read
    assert data(partial(PARAMS, facts=ahead))["observed"]["delaySeconds"] == 0


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 24, 10, tzinfo=UTC), "2026-11-24T10:00:00.000Z"),
        (datetime(2026, 11, 24, 10, 0, 0, 999_999, tzinfo=UTC), "2026-11-24T10:00:00.999Z"),
        (datetime(2026, 11, 24, 1, tzinfo=timezone(timedelta(hours=2))), "2026-11-23T23:00:00.000Z"),
    ],
)
def test_a_time_is_utc_with_milliseconds(moment: datetime, text: str) -> None:
    assert timestamp(moment) == text


MOMENT = datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)


def test_a_date_is_microseconds_since_1970() -> None:
    assert to_us(MOMENT) == 1_500_000
    last = datetime.max.replace(tzinfo=UTC)
    assert from_us(to_us(last)) == last


def test_a_moment_fits_neither_the_other_clock_nor_a_duration() -> None:
    """It is mypy that holds this: an error that is ignored here and does not come is an error itself."""
    due_at: Monotonic = to_us(MOMENT)  # type: ignore[assignment]
    due_at = 5.0  # type: ignore[assignment]
    recorded_at: Micros = due_at  # type: ignore[assignment]
    recorded_at = to_us(MOMENT) + 1_000_000  # type: ignore[assignment]
    assert recorded_at > NEVER
    assert EARLIEST < due_at < LATEST


# Absent values


def test_what_is_absent_is_left_out() -> None:
    facts = ExecutionSnapshot(EXECUTION, "running", error="", triggered_by="")
    assert data(partial(BARE, change=replace(RUNNING, previous=None), facts=facts)) == {
        "account": "default",
        "pipeline": {"id": PIPELINE},
        "execution": {"id": EXECUTION, "status": "running"},
        "observed": {"at": timestamp(SEEN)},
    }


@pytest.mark.parametrize(
    "facts",
    [
        replace(FACTS, started_at=None),
        replace(FACTS, finished_at=None),
        replace(FACTS, finished_at=STARTED - timedelta(seconds=1)),
    ],
)
def test_a_duration_needs_both_ends_in_their_order(facts: ExecutionSnapshot) -> None:
    assert "durationSeconds" not in data(partial(PARAMS, facts=facts))["execution"]


def test_zero_is_not_absent() -> None:
    facts = replace(FACTS, ai_tokens_used=0, nodes_started=0, version_number=0, started_at=FINISHED)
    out = data(partial(PARAMS, facts=facts))
    execution = out["execution"]
    assert (execution["aiTokensUsed"], execution["nodesStarted"], execution["durationSeconds"]) == (0, 0, 0)
    assert out["pipeline"]["versionNumber"] == 0


@pytest.mark.parametrize(
    ("name", "facts", "known_name", "emitted"),
    [
        ("Ours", FACTS, "Earlier", "Ours"),
        (None, FACTS, "Earlier", "What the API calls it"),
        (None, replace(FACTS, pipeline_name=None), "Earlier", "Earlier"),
        (None, None, "Earlier", "Earlier"),
        (None, None, None, None),
    ],
)
def test_a_pipeline_has_our_name_else_the_apis(
    name: str | None, facts: ExecutionSnapshot | None, known_name: str | None, emitted: str | None
) -> None:
    params = partial(PARAMS, watch=replace(WATCH, name=name), facts=facts, pipeline_name=known_name)
    assert data(params)["pipeline"].get("name") == emitted


def test_a_link_is_filled_in_wherever_it_says_so() -> None:
    link = "https://example.com/{executionId}?p={pipelineId}&again={executionId}"
    filled = f"https://example.com/{EXECUTION}?p={PIPELINE}&again={EXECUTION}"
    assert data(partial(PARAMS, link=link))["link"] == filled
    assert "link" not in data(partial(PARAMS, link=None))


def test_a_loss_reports_its_reason_and_no_facts() -> None:
    known = replace(PARAMS.keywords["known"], lost=LostReason.NOT_FOUND)
    out = data(partial(PARAMS, change=LOST, facts=None, known=known))
    assert out["reason"] == "not_found"
    assert out["execution"] == {"id": EXECUTION, "status": "lost", "previousStatus": "running"}


def test_overdue_reports_by_how_much_and_its_limit() -> None:
    overdue = data(partial(PARAMS, change=OVERDUE, overdue_s=12.34567, limit_s=120.0))
    assert (overdue["overdueSeconds"], overdue["limitSeconds"]) == (12.346, 120)
    assert not {"overdueSeconds", "limitSeconds"} & data(PARAMS).keys()


# Events without an execution


def gap_of(watch: Watch = WATCH, *, at_most: int | None = 12, link: str = "https://example.com/{pipelineId}") -> Event:
    more = {"reason": GapReason.DELETED, "atMost": at_most}
    return EVENTS.pipeline(EventType.PIPELINE_GAP, watch, more, None, link=link, after=3, at=SEEN).entry.event


def of_account(name: str) -> Event:
    trouble = AccountTrouble.RATE_LIMITED
    return EVENTS.account(name, None, trouble, cause=None, problem=None, after=3, at=SEEN).entry.event


def of_sink(type_: EventType) -> Event:
    return EVENTS.of_source(type_, "/sinks/ops", {"sink": "ops", "answer": "204"}, None, after=3, at=SEEN).entry.event


SALES = {"id": PIPELINE, "name": "Sales agent"}


@pytest.mark.parametrize(
    ("event", "type_", "source", "data"),
    [
        (of_account("eu"), "account.recovered", "/accounts/eu", {"account": "eu", "reason": "rate_limited"}),
        (of_sink(EventType.SINK_RECOVERED), "sink.recovered", "/sinks/ops", {"sink": "ops", "answer": "204"}),
        (trial_event(sink="ops", at=SEEN), "watcher.test", "/sinks/ops", {"sink": "ops"}),
        (
            gap_of(),
            "pipeline.gap",
            f"/accounts/default/pipelines/{PIPELINE}",
            {
                "account": "default",
                "labels": {"team": "sales"},
                "link": f"https://example.com/{PIPELINE}",
                "pipeline": SALES,
                "reason": "deleted",
                "atMost": 12,
            },
        ),
        (
            gap_of(Watch("default", PIPELINE, ()), at_most=None, link="https://h/{executionId}"),
            "pipeline.gap",
            f"/accounts/default/pipelines/{PIPELINE}",
            {"account": "default", "pipeline": {"id": PIPELINE}, "reason": "deleted"},
        ),
    ],
)
def test_one_without_an_execution_has_no_subject(event: Event, type_: str, source: str, data: dict[str, Any]) -> None:
    at = "2026-11-24T10:00:01.800Z"
    assert read(event) == {
        "specversion": "1.0",
        "id": str(event.id),
        "source": source,
        "type": type_,
        "time": at,
        "datacontenttype": "application/json",
        "sequence": "0000000001" if type_ == "watcher.test" else "0000000004",
        "data": data | {"observed": {"at": at}},
    }
    assert (event.id.version, event.id.int >> 80) == (7, NOW_MS)


# Sizes


def test_texts_are_cut_at_2_kib() -> None:
    out = data(partial(PARAMS, facts=replace(FACTS, error="e" * 2047 + "é" + "e" * 5000)))
    assert out["execution"]["error"] == "e" * 2047
    out = data(partial(PARAMS, facts=replace(FACTS, error="e" * 2048)))
    assert out["execution"]["error"] == "e" * 2048


def test_lists_are_cut_at_20() -> None:
    nodes = tuple(FailedNode(f"n-{count}", None, None) for count in range(25))
    goals = tuple(f"goal {count}" for count in range(25))
    execution = data(partial(PARAMS, facts=replace(FACTS, failed_nodes=nodes, goals=goals)))["execution"]
    assert [node["id"] for node in execution["failedNodes"]] == [f"n-{count}" for count in range(20)]
    assert execution["goals"] == [f"goal {count}" for count in range(20)]


WIDE = "😀"
CONTROL = "\x01"
"""Six bytes once escaped."""


def huge(character: str) -> ExecutionSnapshot:
    text = character * 5000
    return replace(
        FACTS,
        version_id=text,
        pipeline_name=text,
        error=text,
        triggered_by=text,
        triggered_by_entity_id=text,
        conversation_id=text,
        ai_tokens_used=-1.7976931348623157e308,
        nodes_started=10**300,
        version_number=10**300,
        failed_nodes=(FailedNode(text, text, text),) * 30,
        goals=(text,) * 30,
    )


LABELS = {f"{count:03}{WIDE * 253}": WIDE * 256 for count in range(32)}
MONSTERS = {
    **{f"every text of {each!a}": partial(PARAMS, facts=huge(each)) for each in ("x", '"', "\x85", "\u2028")},
    "wide labels with wide keys": partial(PARAMS, watch=replace(WATCH, labels=LABELS)),
    "20 nodes with long errors": partial(
        PARAMS, facts=replace(FACTS, failed_nodes=(FailedNode("n", "N", "e" * 3000),) * 20)
    ),
    "a long link of a lost one": partial(PARAMS, facts=None, link="https://example.com/" + "ü" * 30_000),
    **{
        f"all at once, of {each!a}": partial(
            PARAMS,
            watch=replace(WATCH, account="a" * 64, labels=LABELS, name=each * 256),
            change=replace(ODD, status=each * 64, previous=each * 64),
            facts=huge(each),
            link="https://example.com/" + each * 30_000,
        )
        for each in (CONTROL, WIDE)
    },
}


@pytest.mark.parametrize("name", MONSTERS)
def test_a_line_stays_under_16_kib_and_keeps_what_matters(name: str) -> None:
    params = MONSTERS[name]
    event, change = execution_event(params), params.keywords["change"]
    assert len(event.body) + len(b"\n") <= 16 * 1024
    out = read(event)["data"]
    status = {"id": EXECUTION, "status": change.status, "previousStatus": change.previous}
    assert status.items() <= out["execution"].items()
    assert (read(event)["id"], out["pipeline"]["id"]) == (str(event.id), PIPELINE)
    assert out["observed"]["at"] == timestamp(SEEN)


# Lines that are too long

FULL = 16 * 1024 - len(b"\n")
LABEL = {"team": "sales"}


@pytest.mark.parametrize(
    ("text", "limit", "kept"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "abc"),
        ("aé", 2, "a"),
        ("aé", 3, "aé"),
        ("😀😀", 7, "😀"),
        ("😀", 3, ""),
        ("\ud83d", 9, "?"),
    ],
)
def test_a_text_is_cut_in_bytes_between_characters(text: str, limit: int, kept: str) -> None:
    assert cut(text, limit=limit) == kept


def test_other_characters_stay_as_they_are() -> None:
    assert encode({"a": "é “x” 😀 \\ /"}) == '{"a":"é “x” 😀 \\\\ /"}'.encode()


def test_a_number_that_json_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode({"a": float("nan")})


def envelope(*, labels: Any = None, link: str = "https://example.com/a", **execution: Any) -> dict[str, Any]:
    whole = data_of(EventType.EXECUTION_FAILED)
    execution = whole["execution"] | {"error": "no answer"} | execution
    return {"id": "1", "data": whole | {"labels": labels or LABEL, "link": link, "execution": execution}}


def fitted(whole: dict[str, Any]) -> Any:
    """Return the data of a line that had to be shortened."""
    line = truncate(whole)
    assert len(encode(whole)) > FULL
    assert len(line) <= FULL
    assert truncate(json.loads(encode(whole))) == line
    return json.loads(line)["data"]


def test_a_line_that_is_short_enough_is_left_as_it_is() -> None:
    def body(error_length: int) -> bytes:
        data = {"execution": {"error": "e" * error_length}}
        return event_of(EventType.EXECUTION_FAILED, "/accounts/a", SEEN, sequence=1, data=data, subject="x").body

    left = FULL - len(body(1)) + 1
    assert len(body(left)) == FULL
    assert json.loads(body(left + 1))["data"] == {"execution": {"error": "e" * 2048}}


def test_the_tails_of_nodes_and_goals_go_first() -> None:
    nodes = [{"id": "n", "name": "Greeting", "error": "e" * 2048}] * 20
    whole = envelope(failedNodes=nodes, goals=["g" * 2048, "Booked"], error="x" * 2048)
    out = fitted(whole)
    assert {each["error"] for each in out["execution"]["failedNodes"]} == {"e" * 256}
    assert out["execution"]["goals"] == ["g" * 256, "Booked"]
    kept = out | {"execution": out["execution"] | {"failedNodes": nodes, "goals": whole["data"]["execution"]["goals"]}}
    assert kept == whole["data"]


def test_then_most_of_them_go_and_the_tails_of_all_texts() -> None:
    wide, long = "\x01" * 60, "\x01" * 2048
    nodes = [{"id": wide, "name": wide, "error": wide} for _ in range(20)]
    out = fitted(envelope(failedNodes=nodes, goals=[wide] * 20, error=long, conversationId=long))["execution"]
    assert len(out["failedNodes"]) == len(out["goals"]) == 3
    assert (out["error"], out["conversationId"], out["status"]) == ("\x01" * 128, "\x01" * 128, "failed")


def test_a_link_that_is_too_long_goes_and_then_the_labels() -> None:
    out = fitted(envelope(link="https://example.com/" + "x" * 30_000))
    assert (out["labels"], out["execution"]["error"], "link" in out) == (LABEL, "no answer", False)
    out = fitted(envelope(labels={"long": "x" * 20_000}))
    assert (out["execution"]["error"], "labels" in out) == ("no answer", False)


# What a terminal or a line reader would obey

OBEYED = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in {"Cc", "Zl", "Zp"}]


def test_no_character_that_ends_a_line_or_moves_a_terminal_appears_raw() -> None:
    text = "".join(OBEYED)
    facts = replace(FACTS, error=text, goals=(text,), failed_nodes=(FailedNode(text, text, text),))
    params = partial(PARAMS, facts=facts, watch=replace(WATCH, labels={text: text}), link=f"https://example.com/{text}")
    body = execution_event(params).body
    line = body.decode()
    assert not any(character in line for character in OBEYED)
    assert (len(line.splitlines()), len(body.splitlines())) == (1, 1)
    out = json.loads(line)["data"]
    assert (out["execution"]["error"], out["labels"]) == (text, {text: text})
