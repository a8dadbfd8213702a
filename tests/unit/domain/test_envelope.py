"""One event as one line: its characters, its texts, and what is given up of one that is too long."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from watcher.domain.envelope import cut, encode, event_of, truncate
from watcher.domain.event import EventType

AT = datetime(2026, 11, 24, 10, tzinfo=UTC)
FULL = 16 * 1024 - len(b"\n")
PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"


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


# Lines that are too long


def node(number: int, error: str) -> dict[str, str]:
    return {"id": f"n-{number}", "name": "Greeting", "error": error}


def envelope(*, labels: Any = None, link: str = "https://example.com/a", **execution: Any) -> dict[str, Any]:
    emitted = {"id": "9a1b", "status": "failed", "previousStatus": "running", "error": "no answer"} | execution
    pipeline = {"id": PIPELINE, "name": "Sales agent", "versionNumber": 7}
    data = {"labels": labels or {"team": "sales"}, "link": link, "pipeline": pipeline, "execution": emitted}
    return {"id": "1", "data": data | {"observed": {"at": "2026-11-24T10:00:01.800Z"}}}


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
        return event_of(EventType.EXECUTION_FAILED, "/accounts/a", AT, sequence=1, data=data, subject="x").body

    left = FULL - len(body(1)) + 1
    assert len(body(left)) == FULL
    assert json.loads(body(left + 1))["data"] == {"execution": {"error": "e" * 2048}}


def test_the_tails_of_nodes_and_goals_go_first() -> None:
    nodes = [node(number, "e" * 2048) for number in range(20)]
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


def test_a_link_that_is_too_long_goes_and_the_labels_stay() -> None:
    out = fitted(envelope(link="https://example.com/" + "x" * 30_000))
    assert "link" not in out
    assert (out["labels"], out["execution"]["error"]) == ({"team": "sales"}, "no answer")


def test_labels_that_are_too_long_go_altogether() -> None:
    out = fitted(envelope(labels={"long": "x" * 20_000}))
    assert "labels" not in out
    assert out["execution"]["error"] == "no answer"
