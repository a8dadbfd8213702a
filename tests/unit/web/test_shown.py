"""How what the store has becomes models: the stays of an execution."""

import pytest

from watcher.domain.event import EventType
from watcher.web.models import EventView
from watcher.web.shown import stays_of

RUNNING, SUCCESS = EventType.EXECUTION_RUNNING, EventType.EXECUTION_SUCCESS
OVERDUE, EXPENSIVE = EventType.EXECUTION_OVERDUE, EventType.EXECUTION_EXPENSIVE


@pytest.mark.parametrize(
    "types",
    [
        [RUNNING, SUCCESS],
        [RUNNING, OVERDUE, SUCCESS],
        [RUNNING, EXPENSIVE, SUCCESS],
        [EXPENSIVE, RUNNING, OVERDUE, SUCCESS],
    ],
)
def test_what_changes_no_status_begins_no_stay(types: list[EventType]) -> None:
    events = [
        EventView(
            id=f"{number}",
            source="/accounts/default",
            type=type_,
            time=f"2026-11-24T00:00:0{number}Z",
            sequence=f"{number:010}",
            data={
                "execution": {"status": "success" if type_ is SUCCESS else "running"},
                "observed": {"at": f"2026-11-24T00:00:0{number}Z"},
            },
        )
        for number, type_ in enumerate(types, 1)
    ]
    first, second = stays_of(events)
    assert (first.status, second.status, first.until) == ("running", "success", second.at)
