"""When to ask again, and what failures mean: a table of every outcome, for an execution and for a list."""

import pytest
from virtual import PIPELINE, RULES, FakeClock, watch_of

from watcher.clerk.api import Reply
from watcher.domain.event import AccountTrouble
from watcher.domain.execution import ExecutionRecord, LostReason, Outcome
from watcher.domain.timestamps import Monotonic
from watcher.polling.circuit_breaker import AccountCircuitBreaker
from watcher.polling.evaluator import Cadence, backoff_cadence
from watcher.polling.poll_item import LOST_EVERY_S, Failures, PolledList, PollItem, TrackedExecution
from watcher.store.changes import AccountRecord

HOUR_S = 3600.0
KINDS = ("execution", "list")

# Outcome and code: what an execution, and a list, is lost for after 3 in a row over a minute; the same after an hour;
# whether the wait grows; whether it ends a list's refusals in a row. `-` is nothing.
TABLE = {
    (Outcome.NOT_FOUND, 404): "not_found not_found not_found not_found grows -",
    (Outcome.NOT_FOUND, 410): "not_found not_found not_found not_found grows -",
    (Outcome.REJECTED, 400): "rejected rejected rejected rejected grows -",
    (Outcome.REJECTED, 422): "rejected rejected rejected rejected grows -",
    (Outcome.FORBIDDEN, 403): "forbidden forbidden forbidden forbidden grows -",
    (Outcome.INVALID, 200): "- - unreadable unreadable grows ends",
    (Outcome.INVALID, None): "- - unreadable unreadable grows ends",
    (Outcome.INVALID, 402): "- - - unreadable grows ends",
    (Outcome.UNAUTHORIZED, 401): "- - - unreadable grows ends",
    (Outcome.RATE_LIMITED, 429): "- - - unreadable - ends",
    (Outcome.SERVER_ERROR, 500): "- - - unreadable grows ends",
    (Outcome.SERVER_ERROR, 503): "- - - unreadable - ends",
    (Outcome.TIMEOUT, None): "- - - unreadable grows ends",
    (Outcome.CONNECTION, None): "- - - unreadable grows ends",
    (Outcome.REDIRECT, 302): "- - - unreadable grows ends",
}
ROWS = [pytest.param(*key, *row.split(), id=f"{key[0]} {key[1]}") for key, row in TABLE.items()]


class Rig:
    """One item that fails, while others of its account may be well."""

    def __init__(self, kind: str, *, draw: float = 0.5, trouble: AccountTrouble | None = None) -> None:
        self.clock = FakeClock()
        record = AccountRecord(trouble=trouble)
        self.breaker = AccountCircuitBreaker(RULES, record, clock=self.clock, jitter=lambda: draw)
        execution = TrackedExecution(ExecutionRecord("e", PIPELINE), watch_of("e"))
        self.item: PollItem = execution if kind == "execution" else PolledList(watch_of())
        self.alone = False

    def fail(self, outcome: Outcome, code: int | None, *, at: float, well: bool = True) -> LostReason | None:
        """Fail so many seconds after the start; the others are well a moment before if they are `well`."""
        self.clock.elapsed_s = 1000.0 + at
        now = self.clock.monotonic()
        if well:
            self.breaker.note(PollItem(), Reply(Outcome.OK, now), now=now)
        return self.breaker.note(self.item, Reply(outcome, now, None, code), now=now, alone=self.alone)

    def wait_s(self, reason: LostReason | None = None) -> float:
        return self.breaker.wait_s(self.item, reason, sent_at=self.clock.monotonic())


def lost(word: str) -> LostReason | None:
    return None if word == "-" else LostReason(word)


def test_the_table_has_every_outcome_but_success() -> None:
    assert {outcome for outcome, _ in TABLE} == set(Outcome) - {Outcome.OK}


@pytest.mark.parametrize(
    ("outcome", "code", "execution", "listed", "execution_later", "listed_later", "grows", "ends"), ROWS
)
def test_what_is_refused_or_unreadable_for_long_enough_is_lost_and_nothing_else(
    outcome: Outcome, code: int | None, execution: str, listed: str, execution_later: str, listed_later: str,
    grows: str, ends: str,
) -> None:  # fmt: skip
    for kind, soon, later in (("execution", execution, execution_later), ("list", listed, listed_later)):
        rig = Rig(kind)
        assert [rig.fail(outcome, code, at=at) for at in (0, 30, 60)] == [None, None, lost(soon)]
        assert rig.fail(outcome, code, at=HOUR_S - 1) is lost(soon)
        assert rig.fail(outcome, code, at=HOUR_S) is lost(later)
        assert (rig.item.failures or Failures()).count == (5 if grows == "grows" else 0)
        refused = Rig(kind)
        for at in (0, 30):
            refused.fail(Outcome.NOT_FOUND, 404, at=at)
        refused.fail(outcome, code, at=59)
        again = refused.fail(Outcome.NOT_FOUND, 404, at=60)
        assert again is (None if ends == "ends" and kind == "list" else LostReason.NOT_FOUND)


@pytest.mark.parametrize(("outcome", "code"), TABLE)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_while_nothing_else_succeeds(kind: str, outcome: Outcome, code: int | None) -> None:
    rig = Rig(kind)
    rig.breaker.success_at = Monotonic(999.0)  # before the first failure
    assert {rig.fail(outcome, code, at=at, well=False) for at in (0, 30, 60, HOUR_S, 2 * HOUR_S)} == {None}


@pytest.mark.parametrize(("outcome", "code"), TABLE)
@pytest.mark.parametrize("kind", KINDS)
def test_alone_a_refusal_is_believed_but_a_403_is_the_accounts(kind: str, outcome: Outcome, code: int | None) -> None:
    rig = Rig(kind)
    rig.alone = True
    reasons = [rig.fail(outcome, code, at=at, well=False) for at in (0, 30, 60)]
    own = {Outcome.NOT_FOUND: LostReason.NOT_FOUND, Outcome.REJECTED: LostReason.REJECTED}
    assert reasons == [None, None, own.get(outcome)]


@pytest.mark.parametrize(
    ("times", "is_lost"), [([0, 30, 60], True), ([0, 30, 59], False), ([0, 60], False), ([0, 1, 2, 3, 60], True)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_counts_once_it_came_often_and_for_long(kind: str, times: list[float], *, is_lost: bool) -> None:
    rig = Rig(kind)
    reasons = [rig.fail(Outcome.NOT_FOUND, 404, at=at) for at in times]
    assert reasons == [None] * (len(times) - 1) + [LostReason.NOT_FOUND if is_lost else None]


@pytest.mark.parametrize("kind", KINDS)
def test_the_hour_is_one_in_which_the_process_ran_and_a_success_begins_it_anew(kind: str) -> None:
    rig = Rig(kind)
    rig.fail(Outcome.INVALID, 200, at=0)
    rig.clock.stop_for(3000)
    assert rig.fail(Outcome.INVALID, 200, at=HOUR_S + 2999) is None
    assert rig.fail(Outcome.INVALID, 200, at=HOUR_S + 3000) is LostReason.UNREADABLE
    rig.item.failures = None
    assert rig.fail(Outcome.INVALID, 200, at=HOUR_S + 3001) is None
    assert rig.fail(Outcome.INVALID, 200, at=2 * HOUR_S + 3001) is LostReason.UNREADABLE


@pytest.mark.parametrize(
    ("usable", "draw", "expected"),
    [
        (True, 0.5, [1, 2, 4, 8, 16, 32, 60, 60]),
        (True, 0.0, [0.9, 1.8, 3.6, 7.2, 14.4, 28.8, 54, 54]),
        (False, 0.5, [1] * 8),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_wait_doubles_unless_in_trouble(kind: str, draw: float, expected: list[float], *, usable: bool) -> None:
    rig = Rig(kind, draw=draw, trouble=None if usable else AccountTrouble.UNREACHABLE)
    waits = []
    for at in range(8):
        rig.fail(Outcome.SERVER_ERROR, 500, at=at, well=False)
        waits.append(rig.wait_s())
    assert waits == pytest.approx(expected)


@pytest.mark.parametrize(
    ("times", "wait_s"),
    [
        ([0, 1, 3, 7, 15, 31], 29.01),  # one more can be the last that it takes
        ([0, 31], 2),  # its wait is shorter than that
        ([31], 1),
        ([0, 1, 3, 7, 15, 59.5], 1),  # not within the shortest interval
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_one_is_asked_again_as_soon_as_it_can_be_a_loss(kind: str, times: list[float], wait_s: float) -> None:
    rig = Rig(kind)
    for at in times:
        assert rig.fail(Outcome.NOT_FOUND, 404, at=at) is None
    assert rig.wait_s() == pytest.approx(wait_s)


@pytest.mark.parametrize("reason", list(LostReason))
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_lost_is_asked_for_every_10_minutes_if_not_unreadable(kind: str, reason: LostReason) -> None:
    rig = Rig(kind)
    rig.fail(Outcome.INVALID, 200, at=0)
    assert rig.wait_s(reason) == (1 if reason is LostReason.UNREADABLE else LOST_EVERY_S)


def a_backoff(draw: float = 0.5) -> Cadence:
    return backoff_cadence(min_interval_s=1, max_interval_s=60, jitter=lambda: draw)


@pytest.mark.parametrize(("draw", "interval_s"), [(0.0, 9.0), (0.25, 9.5), (0.5, 10.0), (0.9999999, 11.0)])
def test_backoff_is_spread_by_a_tenth_to_both_sides(draw: float, interval_s: float) -> None:
    assert a_backoff(draw)(100) == pytest.approx(interval_s, abs=1e-5)
