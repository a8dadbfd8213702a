"""`told` of a problem: for each sink what it was sent and when, or why not yet, or why never."""

from typing import Any

import pytest
from console_rig import DEGRADED, OVERDUE, SETTINGS, Desk, write
from sqlalchemy import select, update
from stores import START_US

from watcher.config.models import Settings
from watcher.store.tables import delivery, event, problem, source

NOW = START_US + 600_000_000
"""Ten minutes later."""


async def told(desk: Desk, **changed: Any) -> dict[str, Any]:
    """Return what the sinks were sent of the overdue execution, by sink, once its delivery to `ops` has changed."""
    number = select(event.c.id).where(event.c.problem_id == OVERDUE.bytes).scalar_subquery()
    if changed:
        await write(desk, update(delivery).where(delivery.c.number == number).values(**changed))
    desk.clock.us = NOW
    found = await desk.found(f"/problems/{OVERDUE}")
    return {each.pop("sink"): each for each in found["told"]}


UNTIL = "2026-11-24T00:20:00Z"
WAITING = {"state": "waiting", "recorded_at": NOW - 300_000_000, "due_at": NOW + 600_000_000, "settled_at": None}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"state": "delivered", "settled_at": START_US + 1_000_000},
            {"sent": [{"type": "execution.overdue", "at": "2026-11-24T00:00:01Z"}]},
        ),
        (WAITING, {"sent": [], "waiting": "after 15 m", "until": UNTIL}),
        (WAITING | {"group_key": b"x"}, {"sent": [], "waiting": "after 15 m, grouped", "until": UNTIL}),
        (WAITING | {"due_at": NOW}, {"sent": [], "waiting": "pending"}),
        (
            WAITING | {"tried": True, "attempts": 3, "answer": "503"},
            {"sent": [], "waiting": "retry after 503", "until": UNTIL},
        ),
        ({"state": "silenced", "answer": "silence"}, {"sent": [], "waiting": "pending"}),
        ({"state": "dead", "answer": "400"}, {"sent": [], "never": "dead letter: 400"}),
    ],
)
async def test_a_sink_is_said_to_be_sent_an_opening_or_why_not(
    changed: dict[str, Any], expected: dict[str, Any], desk: Desk
) -> None:
    desk.console.silences.all = ()
    await write(desk, update(source).where(source.c.name == "ops").values(state=None))
    found = await told(desk, **changed)
    assert found["ops"] == expected
    assert [*found] == ["console", "ops", "chat"]
    assert found["chat"] == {"sent": [], "never": "not: the sink, or its filter, is newer than the problem"}


async def test_a_silence_is_named_with_its_end_and_comment(desk: Desk) -> None:
    await write(desk, update(source).where(source.c.name == "ops").values(state=None))
    silenced = {"sent": [], "waiting": "silenced until 2026-11-25 00:00 UTC: shop closed"}
    silenced["until"] = "2026-11-25T00:00:00Z"
    for changed in (WAITING, {"state": "silenced", "answer": "silence"}):
        assert (await told(desk, **changed))["ops"] == silenced
    closed = update(problem).where(problem.c.id == OVERDUE.bytes).values(closed_at=NOW)
    await write(desk, closed)
    assert (await told(desk))["ops"] == {"sent": [], "never": "not: silenced"}
    for answer, why in (("after", "it closed before `after` had passed"), ("over", "it no longer held")):
        assert (await told(desk, state="silenced", answer=answer))["ops"] == {"sent": [], "never": f"not: {why}"}


async def test_a_disabled_or_paused_sink_and_an_earlier_delivery_are_the_reason(desk: Desk) -> None:
    disabled = {"sent": [], "waiting": "the sink is disabled: watcher enable-sink ops"}
    assert (await told(desk, **WAITING))["ops"] == disabled
    paused = update(source).where(source.c.name == "ops").values(state=None, paused_until=NOW + 900_000_000)
    await write(desk, paused)
    pause = {"sent": [], "waiting": "the receiver asked for a pause", "until": "2026-11-24T00:25:00Z"}
    assert (await told(desk))["ops"] == pause
    stream = select(problem.c.stream).where(problem.c.id == OVERDUE.bytes).scalar_subquery()
    earlier = (
        update(delivery)
        .where(delivery.c.number.in_(select(event.c.id).where(event.c.stream == stream)))
        .values(state="waiting")
    )
    await write(desk, earlier)
    assert (await told(desk))["ops"]["waiting"].startswith("blocked by delivery ")


async def test_an_opening_waits_while_its_problem_is_acknowledged(desk: Desk) -> None:
    desk.console.silences.all = ()
    await write(desk, update(source).where(source.c.name == "ops").values(state=None))
    await write(desk, update(problem).where(problem.c.id == OVERDUE.bytes).values(acked_at=START_US))
    assert (await told(desk, **WAITING))["ops"] == {"sent": [], "waiting": "acknowledged"}


async def test_the_filter_that_refuses_is_named(desk: Desk) -> None:
    sinks: dict[str, Any] = SETTINGS["sinks"]  # type: ignore[assignment]
    chat, ops = sinks["chat"] | {"match": {"labels": {"team": "ops"}}}, sinks["ops"] | {"events": ["account.*"]}
    desk.settings = Settings.model_validate(SETTINGS | {"sinks": {"chat": chat, "new": ops}})
    found = await told(desk, state="delivered", settled_at=START_US)
    assert [(name, each.get("never")) for name, each in found.items()] == [
        ("chat", "not: match"),
        ("new", "not: events"),
        ("ops", None),
    ]
    assert (await told(desk, **WAITING))["ops"]["waiting"] == "the sink is not in the configuration"
    of_account = (await desk.found(f"/problems/{DEGRADED}"))["told"]
    assert of_account[0]["never"] == "not: the sink, or its filter, is newer than the problem"
