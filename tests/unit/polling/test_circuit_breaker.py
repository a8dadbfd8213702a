"""How an account is doing: pauses, trouble and its end, probes, the budget."""

from dataclasses import dataclass, replace

import pytest
from virtual import RULES, FakeClock

from watcher.clerk.api import Reply
from watcher.domain.event import AccountTrouble
from watcher.domain.execution import Outcome
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.polling.circuit_breaker import GAP_TOLERANCE, TIMER_TOLERANCE_S, AccountCircuitBreaker
from watcher.polling.poll_item import PollItem
from watcher.runtime.clock import Clock
from watcher.store.changes import AccountRecord

UNAUTHORIZED = AccountTrouble.UNAUTHORIZED
OVER_BUDGET = AccountTrouble.OVER_BUDGET
MAX_INTERVAL_S = 60.0
ALLOWED_S = MAX_INTERVAL_S * GAP_TOLERANCE + TIMER_TOLERANCE_S


@dataclass
class Account:
    """A circuit breaker and the answers it is given, sent a tenth of a second before they arrive."""

    breaker: AccountCircuitBreaker
    clock: FakeClock
    alone: bool = False

    def answer(
        self,
        outcome: Outcome,
        *,
        at: float,
        code: int | None = None,
        retry_after_s: float | None = None,
        sent_at: float | None = None,
        reason: str | None = None,
    ) -> AccountTrouble | None:
        reply = Reply(outcome, Monotonic(at - 0.1 if sent_at is None else sent_at), None, code, retry_after_s, reason)
        self.clock.elapsed_s = at
        self.breaker.note(PollItem(), reply, now=Monotonic(at), alone=self.alone)
        return self.breaker.trouble

    def busy(self, *, at: float, retry_after_s: float | None = None, sent_at: float | None = None) -> float:
        """Answer 429; return how long the pause then is."""
        self.answer(Outcome.RATE_LIMITED, at=at, code=429, retry_after_s=retry_after_s, sent_at=sent_at)
        return self.breaker.opens_at() - at

    def is_open(self, *, at: float) -> bool:
        """Return whether nothing may be sent then."""
        return at < self.breaker.opens_at()

    def check(self, at: float) -> AccountTrouble | None:
        self.clock.elapsed_s = at
        self.breaker.check(Monotonic(at))
        return self.breaker.trouble

    def gap(self, gap_s: float, *, at: float) -> AccountTrouble | None:
        self.clock.elapsed_s = at
        self.breaker.budget.note(PollItem(due_at=EARLIEST), last_at=Monotonic(at - gap_s), now=Monotonic(at))
        return self.check(at)

    def overrun(self) -> None:
        """Be late with each poll for five minutes from 1000 on."""
        for now in range(1000, 1310, 10):
            self.gap(100, at=now)


def an_account(
    trouble: AccountTrouble | None = None,
    *,
    alone: bool = False,
    degraded_after_s: float = 60,
    max_interval_s: float = MAX_INTERVAL_S,
) -> Account:
    clock = FakeClock()
    rules = replace(RULES, degraded_after_s=degraded_after_s, max_interval_s=max_interval_s)
    breaker = AccountCircuitBreaker(rules, AccountRecord(trouble=trouble), clock=clock, jitter=lambda: 0.5)
    return Account(breaker, clock, alone)


# Pauses


@pytest.mark.parametrize(
    ("wish_s", "pause_s"), [(7, 7), (1, 1), (0, 1), (0.3, 1), (899, 899), (900, 900), (901, 900), (86400, 900)]
)
def test_a_pause_is_as_long_as_the_server_asks_and_at_most_15_minutes(wish_s: float, pause_s: float) -> None:
    account = an_account()
    assert account.busy(at=1000, retry_after_s=wish_s) == pytest.approx(pause_s)
    assert account.is_open(at=1000 + pause_s - 0.01)
    assert not account.is_open(at=1000 + pause_s)


@pytest.mark.parametrize(("code", "pause_s"), [(429, 30), (503, 30), (408, 0), (500, 0), (502, 0)])
def test_the_codes_that_ask_for_a_pause_get_one_and_no_others(code: int, pause_s: float) -> None:
    account = an_account()
    account.answer(Outcome.SERVER_ERROR, at=1000, code=code, retry_after_s=30)
    assert max(1000, account.breaker.opens_at()) == 1000 + pause_s


def test_without_a_wish_pauses_double_from_1_to_60_seconds() -> None:
    account = an_account(degraded_after_s=1e9)
    now, pauses = 1000.0, []
    for _ in range(8):
        pause_s = account.busy(at=now)
        pauses.append(round(pause_s))
        now += pause_s + 0.2
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_requests_in_flight_when_the_pause_began_do_not_double_it() -> None:
    account = an_account()
    assert account.busy(at=1000) == 1
    for step in range(50):
        account.busy(at=1000.01 + step / 1000, sent_at=999.9)
    assert account.breaker.opens_at() == pytest.approx(1001.06, abs=0.01)
    assert account.busy(at=1002) == 2


def test_a_success_starts_the_doubling_anew() -> None:
    account = an_account()
    account.busy(at=1000)
    assert account.busy(at=1002) == 2
    account.answer(Outcome.OK, at=1005)
    assert account.busy(at=1006) == 1


def test_a_shorter_wish_does_not_end_a_longer_pause() -> None:
    account = an_account()
    account.busy(at=1000, retry_after_s=60)
    account.busy(at=1001, retry_after_s=1, sent_at=999)
    assert account.breaker.opens_at() == 1060.0


# Trouble


@pytest.mark.parametrize(
    ("outcome", "trouble"),
    [
        (Outcome.RATE_LIMITED, AccountTrouble.RATE_LIMITED),
        (Outcome.FORBIDDEN, AccountTrouble.UNAUTHORIZED),
        (Outcome.INVALID, AccountTrouble.INVALID),
        (Outcome.NOT_FOUND, AccountTrouble.INVALID),
        (Outcome.REJECTED, AccountTrouble.INVALID),
        (Outcome.REDIRECT, AccountTrouble.UNREACHABLE),
        (Outcome.TIMEOUT, AccountTrouble.UNREACHABLE),
        (Outcome.CONNECTION, AccountTrouble.UNREACHABLE),
        (Outcome.SERVER_ERROR, AccountTrouble.UNREACHABLE),
    ],
)
def test_60_seconds_without_one_success_are_trouble_of_the_last_kind(outcome: Outcome, trouble: AccountTrouble) -> None:
    account = an_account()
    assert account.answer(Outcome.CONNECTION, at=1000) is None
    assert account.answer(outcome, at=1059.9) is None
    assert account.check(1059.99) is None
    assert account.check(1060) is trouble
    assert account.breaker.unusable_for is trouble


def test_one_success_within_the_time_starts_it_anew() -> None:
    account = an_account(degraded_after_s=5)
    account.answer(Outcome.CONNECTION, at=1000)
    account.answer(Outcome.OK, at=1004)
    account.answer(Outcome.CONNECTION, at=1005)
    assert account.check(1009.9) is None
    assert account.check(1010) is AccountTrouble.UNREACHABLE


def test_another_reason_for_the_same_silence_is_not_reported_again() -> None:
    account = an_account()
    account.answer(Outcome.CONNECTION, at=1000)
    account.check(1060)
    assert account.answer(Outcome.UNAUTHORIZED, at=1070, code=401) is AccountTrouble.UNREACHABLE
    assert account.answer(Outcome.RATE_LIMITED, at=1080, code=429) is AccountTrouble.UNREACHABLE


def test_a_success_that_was_asked_for_before_the_trouble_does_not_end_it() -> None:
    account = an_account()
    account.answer(Outcome.UNAUTHORIZED, at=1000, code=401)
    assert account.answer(Outcome.OK, at=1001, sent_at=999) is UNAUTHORIZED
    assert account.answer(Outcome.OK, at=1060, sent_at=1000) is None


@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.OK])
def test_alone_an_unknown_id_says_nothing_of_the_account_and_all_else_does(outcome: Outcome) -> None:
    account = an_account(alone=True)
    account.answer(outcome, at=1000)
    assert (account.check(1060) is None) == (outcome in {Outcome.NOT_FOUND, Outcome.REJECTED})


# Probes


def test_answers_that_were_in_flight_put_no_probe_off() -> None:
    account = an_account()
    account.answer(Outcome.UNAUTHORIZED, at=1000, code=401)
    account.answer(Outcome.UNAUTHORIZED, at=1005, code=401)
    assert account.breaker.opens_at() == 1060.0


def test_a_probe_waits_for_the_pause_too() -> None:
    account = an_account()
    account.answer(Outcome.CONNECTION, at=1000)
    account.busy(at=1059, retry_after_s=600)
    account.check(1060)
    assert account.breaker.opens_at() == 1659.0


# Trouble that was recorded before a restart


def test_a_restored_overrun_stops_no_poll_and_no_success_ends_it() -> None:
    account = an_account(OVER_BUDGET)
    assert not account.is_open(at=1000)
    assert account.answer(Outcome.OK, at=1000) is OVER_BUDGET


# The budget


def test_gaps_as_long_as_allowed_are_within_the_budget() -> None:
    account = an_account()
    assert all(account.gap(ALLOWED_S - 0.01, at=now) is None for now in range(1000, 5000, 10))


def test_a_short_overrun_is_forgotten() -> None:
    account = an_account()
    account.gap(100, at=1000)
    account.gap(10, at=1067)
    for now in range(1100, 1399, 10):
        assert account.gap(100, at=now) is None


def test_punctual_polls_between_late_ones_do_not_hide_an_overrun() -> None:
    account = an_account()
    for now in range(1000, 1310, 10):
        account.gap(100, at=now)
        account.gap(10, at=now + 5)
    assert account.check(1310) is OVER_BUDGET


def test_a_single_late_poll_is_no_overrun_however_rare_polls_are() -> None:
    account = an_account(max_interval_s=600)
    account.gap(1000, at=1000)
    assert account.check(1600) is None


def test_what_was_late_before_an_outage_is_no_overrun_after_it() -> None:
    account = an_account()
    account.gap(100, at=1000)
    account.answer(Outcome.UNAUTHORIZED, at=1010, code=401)
    account.answer(Outcome.OK, at=9000)
    assert account.gap(8000, at=9001) is None
    assert account.gap(10, at=9002 + ALLOWED_S) is None
    assert account.check(9999) is None


def test_an_overrun_ends_when_the_budget_was_held_for_one_max_interval() -> None:
    account = an_account()
    account.overrun()
    assert account.gap(10, at=1299.9 + ALLOWED_S) is OVER_BUDGET
    assert account.gap(10, at=1300.1 + ALLOWED_S) is None


def test_worse_trouble_takes_the_place_of_an_overrun() -> None:
    account = an_account(OVER_BUDGET)
    assert account.answer(Outcome.UNAUTHORIZED, at=1000, code=401) is UNAUTHORIZED
    assert account.gap(10, at=1010) is UNAUTHORIZED


def test_an_overrun_that_ends_leaves_worse_trouble_alone() -> None:
    account = an_account()
    account.gap(100, at=1000)
    account.answer(Outcome.UNAUTHORIZED, at=1010, code=401)
    assert account.gap(10, at=1100) is UNAUTHORIZED


@pytest.mark.parametrize("is_stopped", [True, False])
def test_what_was_not_asked_for_long_after_a_stop_or_a_rest_is_late_by_the_time_since_then(*, is_stopped: bool) -> None:
    account = an_account()
    account.clock.elapsed_s = 1500
    if is_stopped:
        account.clock.stop_for(500)
    else:
        account.breaker.rest(Monotonic(2000))
    troubles = [account.gap(now - 1500, at=now) for now in range(2010, 2380, 10)]
    assert set(troubles[:-1]) == {None}
    assert troubles[-1] is OVER_BUDGET  # the first that was late came at 2070


# A process that is stopped for a while


def test_what_was_under_way_when_the_process_was_stopped_broke_by_that() -> None:
    account = an_account()
    account.clock.stop_for(65)
    account.answer(Outcome.TIMEOUT, at=1066, sent_at=1000.5)
    assert account.breaker.failing_for_s() is None
    account.answer(Outcome.TIMEOUT, at=1076, sent_at=1066)
    assert account.breaker.failing_for_s() == 0


def test_after_a_stop_something_must_fail_anew_before_it_is_trouble() -> None:
    account = an_account()
    account.answer(Outcome.CONNECTION, at=1000)
    account.check(1059.9)
    account.clock.stop_for(65)
    account.answer(Outcome.SERVER_ERROR, code=500, at=1125, sent_at=1059.8)
    assert account.check(1126) is None
    assert account.answer(Outcome.CONNECTION, at=1126) is AccountTrouble.UNREACHABLE


def test_a_process_that_has_nothing_to_ask_for_a_while_was_not_stopped() -> None:
    now = 50.0
    breaker = AccountCircuitBreaker(RULES, AccountRecord(), clock=Clock(read=lambda: now), jitter=lambda: 0.5)
    for _ in range(30):
        now += 1
        breaker.check(Monotonic(now))
    timeout = Reply(Outcome.TIMEOUT, Monotonic(now))
    now += 0.5
    breaker.note(PollItem(), timeout, now=Monotonic(now))
    assert breaker.failing_for_s() is not None


def test_a_refused_key_is_refused_whenever_it_was_asked_for() -> None:
    account = an_account()
    account.clock.stop_for(65)
    assert account.answer(Outcome.UNAUTHORIZED, at=1066, sent_at=1000.5, code=401) is UNAUTHORIZED


def test_a_machine_that_is_busy_for_a_moment_was_not_stopped() -> None:
    account = an_account()
    account.answer(Outcome.SERVER_ERROR, at=1000, code=500)
    account.clock.stop_for(0.9)
    assert account.check(1060) is AccountTrouble.UNREACHABLE


def test_a_pause_goes_on_while_the_process_is_stopped() -> None:
    account = an_account()
    account.busy(at=1000, retry_after_s=70)
    account.clock.stop_for(65)
    assert account.breaker.opens_at() == 1070.0


# What went wrong


@pytest.mark.parametrize(
    ("outcome", "code", "reason", "cause"),
    [
        (Outcome.SERVER_ERROR, 503, "status_503", "503"),
        (Outcome.UNAUTHORIZED, 401, "status_401", "401"),
        (Outcome.CONNECTION, None, "refused", "refused"),
        (Outcome.CONNECTION, None, "dns", "dns"),
        (Outcome.INVALID, 200, "html", "html"),
        (Outcome.TIMEOUT, None, None, "timeout"),
    ],
)
def test_trouble_has_the_cause_of_what_failed_last(
    outcome: Outcome, code: int | None, reason: str | None, cause: str
) -> None:
    account = an_account()
    account.answer(Outcome.REDIRECT, at=1000, code=302)
    assert account.breaker.cause is None
    account.answer(outcome, at=1060, code=code, reason=reason)
    assert account.breaker.cause == cause


def test_a_budget_that_is_too_small_has_no_cause() -> None:
    account = an_account()
    account.answer(Outcome.REDIRECT, at=999, code=302)
    account.answer(Outcome.OK, at=1000)
    account.overrun()
    assert (account.breaker.trouble, account.breaker.cause) == (OVER_BUDGET, None)
