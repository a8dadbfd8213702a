"""From a reply to what is recorded and when to poll next, with a clock that only the test moves."""

import json
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from worker_rig import EPOCH, FakeClock

from watcher.clerk.api import Reply
from watcher.domain.event import EventType
from watcher.domain.event_factory import EventFactory
from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot, Outcome
from watcher.domain.routing import Route, Router
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Watch
from watcher.polling.evaluator import Evaluation, ReplyEvaluator
from watcher.polling.failures import FailurePolicy
from watcher.polling.poll_item import TrackedExecution
from watcher.store.changes import ExecutionChange, Lease

LEASE = Lease("account", "default", 7)
WATCH = Watch("default", "p-1", ("e-1",), overdue_after_s={"running": 900.0})
HOUR_S = 3600.0
DAY_S = 86400.0
REQUEST_S = 0.25


def tenth(dwell_s: float) -> float:
    return max(1.0, dwell_s / 10)


@dataclass
class Rig:
    """One evaluator and one execution, whose changes are taken over as if they had been recorded."""

    link: str | None = None
    ahead_us: int = 0
    clock: FakeClock = field(default_factory=FakeClock)
    entry: TrackedExecution = field(default_factory=lambda: TrackedExecution(ExecutionRecord("e-1", "p-1"), WATCH))
    router: Router = field(default_factory=lambda: Router({"all": Route(frozenset(EventType), {}, frozenset())}))
    bodies: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.failures = FailurePolicy(
            min_interval_s=1,
            max_interval_s=60,
            lost_after=3,
            lost_grace_s=60,
            clock=self.clock,
            jitter=lambda: 0.5,
        )
        self.evaluator = ReplyEvaluator(
            lease=LEASE,
            api=cast("Any", SimpleNamespace(ahead_us=self.ahead_us)),
            events=EventFactory(self.router),
            clock=self.clock,
            failures=self.failures,
            cadence=tenth,
            link=self.link,
        )

    def rule(
        self, outcome: Outcome, *, code: int | None = None, execution: ExecutionSnapshot | None = None
    ) -> Evaluation:
        """Answer a request that took a quarter of a second."""
        sent_at = self.clock.monotonic()
        self.clock.passed_s += REQUEST_S
        reply = Reply(outcome, sent_at, execution, code)
        if execution is None:
            well_at = self.clock.monotonic()
            reason = self.failures.note_failure(self.entry, reply, alone=False, success_at=well_at, usable=True)
            evaluation = self.evaluator.failure(self.entry, reason, sent_at=sent_at)
        else:
            evaluation = self.evaluator.success(self.entry, execution, sent_at=reply.sent_at)
        if evaluation.change is not None:
            self.bodies += [json.loads(entry.event.body) for entry in evaluation.change.entries]
        self.entry.recorded |= evaluation.change is not None
        self.entry.known = evaluation.known
        self.entry.polled_at = evaluation.polled_at or self.entry.polled_at
        return evaluation

    def see(self, status: str, **facts: Any) -> Evaluation:
        return self.rule(Outcome.OK, code=200, execution=ExecutionSnapshot("e-1", status, **facts))

    def fail(self, outcome: Outcome = Outcome.TIMEOUT, *, code: int | None = None) -> Evaluation:
        return self.rule(outcome, code=code)

    def wait(self, seconds: float) -> None:
        self.clock.passed_s += seconds

    def fail_for(self, seconds: float, outcome: Outcome, *, every_s: float = 30) -> Evaluation:
        evaluation = self.fail(outcome)
        for _ in range(round(seconds / every_s)):
            self.wait(every_s - REQUEST_S)
            evaluation = self.fail(outcome)
        return evaluation

    @property
    def emitted(self) -> list[str]:
        return [body["type"].removeprefix("execution.") for body in self.bodies]


def change_of(evaluation: Evaluation) -> ExecutionChange:
    assert evaluation.change is not None
    return evaluation.change


def us(rig: Rig) -> int:
    return rig.clock.steady_us()


# Successful polls


def test_what_a_list_found_has_a_row_before_its_first_event() -> None:
    rig = Rig(entry=TrackedExecution(ExecutionRecord("e-1", "p-1", found_at=Micros(5)), WATCH, recorded=True))
    change = change_of(rig.see("running"))
    assert (change.before, change.known.sequence, change.known.found_at) == (0, 1, 5)
    assert "previousStatus" not in rig.bodies[0]["data"]["execution"]
    assert "notBefore" not in rig.bodies[0]["data"]["observed"]
    assert change_of(rig.see("success")).before == 1


# When it was seen


def test_not_before_is_the_last_poll_that_still_saw_the_old_status() -> None:
    rig = Rig()
    rig.see("running")
    rig.wait(10 - REQUEST_S)
    rig.see("running")
    rig.wait(5 - REQUEST_S)
    rig.see("success")
    first, last = (body["data"]["observed"] for body in rig.bodies)
    assert "notBefore" not in first
    assert (last["at"], last["notBefore"]) == ("2026-11-24T10:00:15.250Z", "2026-11-24T10:00:10.250Z")


def test_a_wall_clock_that_was_set_shows_only_in_the_times_written_down() -> None:
    rig = Rig()
    rig.see("running")
    rig.clock.wall_error_s = -7200
    rig.wait(10 - REQUEST_S)
    evaluation = rig.see("paused")
    result = rig.bodies[1]["data"]["observed"]
    assert (result["at"], result["notBefore"]) == ("2026-11-24T08:00:10.250Z", "2026-11-24T08:00:00.250Z")
    assert evaluation.polled_at == us(rig)


def test_a_poll_recorded_by_a_clock_that_was_ahead_does_not_put_not_before_after_the_observation() -> None:
    rig = Rig(
        entry=TrackedExecution(
            ExecutionRecord("e-1", "p-1", status="running", sequence=1), WATCH, polled_at=Micros(2**60)
        )
    )
    rig.see("success")
    result = rig.bodies[0]["data"]["observed"]
    assert result["notBefore"] == result["at"]


# Overdue


def test_overdue_reports_by_how_much_the_limit_is_passed() -> None:
    rig = Rig()
    rig.see("running")
    rig.wait(1000)
    evaluation = rig.see("running")
    assert rig.emitted == ["running", "overdue"]
    assert rig.bodies[1]["data"]["overdueSeconds"] == 100.25
    assert change_of(evaluation).before == 1


def test_the_end_of_an_overdue_stay_goes_to_all_who_were_sent_it() -> None:
    rig = Rig()
    rig.see("running")
    rig.wait(1000)
    rig.see("running")
    evaluation = rig.see("success")
    assert [entry.event.closes for entry in change_of(evaluation).entries] == [True]


@pytest.mark.parametrize(("limits", "unwatched"), [({}, False), ({"new": 60.0}, False), ({"running": 900.0}, True)])
def test_a_stay_that_nobody_asks_for_any_more_is_ended_elsewhere(limits: dict[str, float], *, unwatched: bool) -> None:
    rig = Rig()
    rig.see("running")
    rig.wait(1000)
    rig.see("running")
    rig.entry.watch, rig.entry.unwatched = replace(WATCH, overdue_after_s=limits), unwatched
    change = change_of(rig.see("success"))
    assert [entry.event.closes for entry in change.entries] == [False]
    assert change.problems == ()
    assert "problem" not in rig.bodies[-1]["data"]


def test_only_the_event_that_ends_the_stay_goes_to_them() -> None:
    rig = Rig()
    rig.see("running")
    rig.wait(1000)
    rig.see("running")
    rig.see("paused")
    evaluation = rig.see("success")
    assert [entry.event.closes for entry in change_of(evaluation).entries] == [False]


def test_overdue_at_first_sight_is_reported_with_the_status_in_one_change() -> None:
    rig = Rig()
    evaluation = rig.see("running", started_at=EPOCH - timedelta(hours=1))
    assert rig.emitted == ["running", "overdue"]
    assert [entry.event.closes for entry in change_of(evaluation).entries] == [False, False]
    assert change_of(evaluation).before is None


# Poll errors


# Losses


def test_a_loss_names_the_last_poll_that_saw_it() -> None:
    rig = Rig()
    rig.see("running")
    rig.fail_for(60, Outcome.NOT_FOUND)
    result = rig.bodies[1]["data"]["observed"]
    assert (result["at"], result["notBefore"]) == ("2026-11-24T10:01:00.500Z", "2026-11-24T10:00:00.250Z")
    assert rig.entry.known.polled_at == us(rig) - 60_250_000


def test_an_execution_lost_before_it_was_seen_is_a_new_row_without_a_poll_before() -> None:
    rig = Rig()
    evaluation = rig.fail_for(60, Outcome.NOT_FOUND)
    assert change_of(evaluation).before is None
    assert rig.emitted == ["lost"]
    assert "notBefore" not in rig.bodies[0]["data"]["observed"]
    assert "previousStatus" not in rig.bodies[0]["data"]["execution"]
    assert change_of(rig.see("running")).before == 1
    assert rig.bodies[1]["data"]["execution"]["previousStatus"] == "lost"


def test_what_cannot_be_read_for_an_hour_is_lost_and_still_polled() -> None:
    rig = Rig()
    rig.see("running")
    rig.fail_for(HOUR_S - 60, Outcome.INVALID, every_s=60)
    assert rig.emitted == ["running"]
    rig.wait(60 - REQUEST_S)
    evaluation = rig.fail(Outcome.INVALID)
    assert rig.emitted == ["running", "lost"]
    assert rig.bodies[1]["data"]["reason"] == "unreadable"
    assert evaluation.next_s == 60
    evaluation = rig.fail_for(2 * DAY_S, Outcome.INVALID, every_s=3600)
    assert (evaluation.next_s, evaluation.known.ended_at, evaluation.change) == (60, None, None)
    assert rig.emitted == ["running", "lost"]
    rig.see("success")
    assert rig.bodies[-1]["data"]["execution"]["previousStatus"] == "lost"


# What is remembered of a pipeline


def test_a_loss_carries_the_name_the_api_gave_the_pipeline_before() -> None:
    rig = Rig()
    rig.see("running", pipeline_name="Sales agent")
    rig.fail_for(60, Outcome.NOT_FOUND)
    assert rig.bodies[-1]["data"]["pipeline"]["name"] == "Sales agent"
