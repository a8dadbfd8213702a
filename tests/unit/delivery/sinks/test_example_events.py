import json
from collections.abc import Iterator
from typing import Any

from documents.events_text import FIELDS

from watcher.delivery.sinks.example_events import example_events, example_groups
from watcher.domain.event import EventType


def fields(data: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in data.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict) and key != "labels":
            yield from fields(value, f"{prefix}{key}.")


def test_there_is_a_full_and_a_sparse_example_of_every_type() -> None:
    events = list(example_events())
    assert sorted(event.type for event in events) == sorted([*EventType, *EventType])
    full = {event.type: json.loads(event.body)["data"] for event in reversed(events)}
    sparse = {event.type: json.loads(event.body)["data"] for event in events}
    assert all(set(fields(sparse[type_])) <= set(fields(full[type_])) for type_ in EventType)
    blocks = {"pipeline", "execution", "problem", "observed"}
    assert {name for data in full.values() for name in fields(data)} - blocks == set(FIELDS)
    assert set(fields(sparse[EventType.EXECUTION_FAILED])) - blocks == {
        "account", "pipeline.id", "execution.id", "execution.status", "observed.at",
    }  # fmt: skip


def test_a_full_example_breaks_what_puts_texts_between_quotes() -> None:
    failed = next(event for event in example_events() if event.type is EventType.EXECUTION_FAILED)
    data = json.loads(failed.body)["data"]
    for text in (data["pipeline"]["name"], data["execution"]["error"], data["execution"]["failedNodes"][0]["name"]):
        assert '"' in text


def test_groups_are_of_what_is_grouped() -> None:
    for group in example_groups():
        assert {event.type.partition(".")[0] for event in group} == {"execution", "pipeline"}
        assert len(group) == 9
