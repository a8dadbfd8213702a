from datetime import UTC, datetime, timedelta

import pytest

from watcher.domain.event import EventType
from watcher.domain.problems import CLOSINGS
from watcher.domain.silences import DeliveryFields, Silence, Silences

START = datetime(2026, 12, 24, tzinfo=UTC)
END = START + timedelta(days=3)
FAILED = DeliveryFields("ops", EventType.EXECUTION_FAILED, "default", "p1", {"team": "sales", "env": "live"})
DEGRADED = DeliveryFields("ops", EventType.ACCOUNT_DEGRADED, "default")


def silence(**wanted: object) -> Silence:
    return Silence(START, END, **wanted)  # type: ignore[arg-type] # each a field of it


@pytest.mark.parametrize(
    ("at", "holds"),
    [
        (START - timedelta(microseconds=1), False),
        (START, True),
        (END - timedelta(microseconds=1), True),
        (END, False),
    ],
)
def test_a_silence_holds_from_its_start_until_its_end(at: datetime, *, holds: bool) -> None:
    assert silence(sinks=("ops",)).holds(FAILED, at=at) is holds


@pytest.mark.parametrize(
    ("wanted", "failed", "degraded"),
    [
        ({"types": {EventType.EXECUTION_FAILED}}, True, False),
        ({"accounts": ("default", "eu")}, True, True),
        ({"accounts": ("eu",)}, False, False),
        ({"pipelines": ("p1",)}, True, False),
        ({"pipelines": ("p2",)}, False, False),
        ({"sinks": ("ops",)}, True, True),
        ({"sinks": ("other",)}, False, False),
        ({"labels": {"team": "sales"}}, True, False),
        ({"labels": {"team": "sales", "env": "test"}}, False, False),
        ({"labels": {"team": "sales"}, "types": {EventType.ACCOUNT_DEGRADED}}, False, False),
    ],
)
def test_all_that_is_given_must_match(wanted: dict[str, object], *, failed: bool, degraded: bool) -> None:
    assert silence(**wanted).holds(FAILED, at=START) is failed
    assert silence(**wanted).holds(DEGRADED, at=START) is degraded


@pytest.mark.parametrize("type_", sorted(CLOSINGS))
def test_what_only_says_that_a_problem_is_over_is_never_kept_back(type_: EventType) -> None:
    everything = silence(accounts=("default",))
    assert not everything.holds(DeliveryFields("ops", type_, "default", "p1", {"team": "sales"}), at=START)


def test_those_that_hold_now_and_may_concern_a_sink_are_found_and_replaced() -> None:
    everywhere, there = silence(accounts=("default",)), silence(sinks=("ops",))
    silences = Silences([everywhere, there])
    assert silences.on("ops", at=START) == (everywhere, there)
    assert silences.on("other", at=START) == (everywhere,)
    assert silences.on("ops", at=END) == ()
    silences.replace([there])
    assert silences.on("other", at=START) == ()
