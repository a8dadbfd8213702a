"""How an account is doing: pauses, trouble and its end, probes, the budget."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

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
OVER_BUDGET, UNREACHABLE = AccountTrouble.OVER_BUDGET, AccountTrouble.UNREACHABLE
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

    def check(self, at: float) -> AccountTrouble | None:
        self.clock.elapsed_s = at
        self.breaker.check(Monotonic(at))
        return self.breaker.trouble

    def gap(self, gap_s: float, *, at: float) -> AccountTrouble | None:
        self.clock.elapsed_s = at
        self.breaker.budget.note(PollItem(due_at=EARLIEST), last_at=Monotonic(at - gap_s), now=Monotonic(at))
        return self.check(at)


Step = Callable[[Account], AccountTrouble | None]
"""Something that happens to an account. It returns what trouble the account is in since."""


def says(outcome: Outcome, code: int | None = None, *, at: float, **more: Any) -> Step:
    return lambda account: account.answer(outcome, at=at, code=code, **more)


busy, refused, broken = (
    partial(says, outcome, code)
    for outcome, code in ((Outcome.RATE_LIMITED, 429), (Outcome.UNAUTHORIZED, 401), (Outcome.SERVER_ERROR, 500))
)
down, well = partial(says, Outcome.CONNECTION), partial(says, Outcome.OK)


def checked(*, at: float) -> Step:
    return lambda account: account.check(at)


def asked(*, at: float, after_s: float) -> Step:
    """Ask for something that was asked for so long before."""
    return lambda account: account.gap(after_s, at=at)


def stopped(seconds: float) -> Step:
    return lambda account: account.clock.stop_for(seconds)


def late_each_ten_seconds(from_s: int, until_s: int) -> list[Step]:
    return [asked(at=at, after_s=100) for at in range(from_s, until_s, 10)]


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
    ("steps", "opens_at"),
    [
        *(([busy(at=1000, retry_after_s=s)], 1000 + s) for s in (1, 7, 899, 900)),
        *(([busy(at=1000, retry_after_s=s)], 1001) for s in (0, 0.3)),
        *(([busy(at=1000, retry_after_s=s)], 1900) for s in (901, 86400)),
        *(([says(Outcome.SERVER_ERROR, code, at=1000, retry_after_s=30)], 1030) for code in (429, 503)),
        *(([says(Outcome.SERVER_ERROR, code, at=1000, retry_after_s=30)], EARLIEST) for code in (408, 500, 502)),
        # those in flight when the pause began do not double it, a success starts the doubling anew
        ([busy(at=1000), *(busy(at=1000.01 + nth / 1000, sent_at=999.9) for nth in range(50))], 1001.059),
        ([busy(at=1000), busy(at=1000.5, sent_at=999.9), busy(at=1002)], 1004),
        ([busy(at=1000), busy(at=1002), well(at=1005), busy(at=1006)], 1007),
        # a shorter wish does not end a longer pause, and no stop makes one longer
        ([busy(at=1000, retry_after_s=60), busy(at=1001, retry_after_s=1, sent_at=999)], 1060),
        ([busy(at=1000, retry_after_s=70), stopped(65)], 1070),
        # answers that were in flight put no probe off, and a probe waits for the pause too
        ([refused(at=1000), refused(at=1005)], 1060),
        ([down(at=1000), busy(at=1059, retry_after_s=600), checked(at=1060)], 1659),
    ],
)
def test_nothing_is_asked_before_a_pause_is_over_that_an_answer_asks_for(steps: list[Step], opens_at: float) -> None:
    account = an_account()
    for step in steps:
        step(account)
    assert account.breaker.opens_at() == pytest.approx(opens_at, abs=0.001)


def test_without_a_wish_pauses_double_from_1_to_60_seconds() -> None:
    account = an_account(degraded_after_s=1e9)
    now, pauses = 1000.0, []
    for _ in range(8):
        busy(at=now)(account)
        pauses.append(round(account.breaker.opens_at() - now))
        now = account.breaker.opens_at() + 0.2
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


# Trouble


@pytest.mark.parametrize(
    ("outcome", "trouble"),
    [
        (Outcome.RATE_LIMITED, AccountTrouble.RATE_LIMITED),
        (Outcome.FORBIDDEN, UNAUTHORIZED),
        *((each, AccountTrouble.INVALID) for each in (Outcome.INVALID, Outcome.NOT_FOUND, Outcome.REJECTED)),
        *((each, UNREACHABLE) for each in (Outcome.REDIRECT, Outcome.TIMEOUT, Outcome.SERVER_ERROR)),
    ],
)
def test_60_seconds_without_one_success_are_trouble_of_the_last_kind(outcome: Outcome, trouble: AccountTrouble) -> None:
    account = an_account()
    assert account.answer(Outcome.CONNECTION, at=1000) is None
    assert account.answer(outcome, at=1059.9) is None
    assert account.check(1059.99) is None
    assert account.check(1060) is trouble
    assert account.breaker.unusable_for is trouble


@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.OK])
def test_alone_an_unknown_id_says_nothing_of_the_account_and_all_else_does(outcome: Outcome) -> None:
    account = an_account(alone=True)
    account.answer(outcome, at=1000)
    assert (account.check(1060) is None) == (outcome in {Outcome.NOT_FOUND, Outcome.REJECTED})


Story = tuple[AccountTrouble | None, list[Step], list[AccountTrouble | None]]
STORIES: dict[str, Story] = {
    "one success within the time starts it anew": (
        None,
        [down(at=1000), well(at=1030), down(at=1031), checked(at=1090.9), checked(at=1091)],
        [None, UNREACHABLE],
    ),
    "another reason for the same silence is not reported again": (
        None,
        [down(at=1000), checked(at=1060), refused(at=1070), busy(at=1080)],
        [UNREACHABLE] * 3,
    ),
    "a success that was asked for before the trouble does not end it": (
        None,
        [refused(at=1000), well(at=1001, sent_at=999), well(at=1060, sent_at=1000)],
        [UNAUTHORIZED, UNAUTHORIZED, None],
    ),
    "no success ends an overrun that was recorded before a restart": (OVER_BUDGET, [well(at=1000)], [OVER_BUDGET]),
    "gaps as long as allowed are within the budget": (
        None,
        [asked(at=at, after_s=ALLOWED_S - 0.01) for at in range(1000, 5000, 10)],
        [None] * 400,
    ),
    "a short overrun is forgotten": (
        None,
        [asked(at=1000, after_s=100), asked(at=1067, after_s=10), *late_each_ten_seconds(1100, 1399)],
        [None] * 32,
    ),
    "punctual polls between late ones do not hide an overrun": (
        None,
        [step for late in late_each_ten_seconds(1000, 1310) for step in (late, asked(at=1000, after_s=10))]
        + [checked(at=1310)],
        [OVER_BUDGET],
    ),
    "an overrun ends when the budget was held for one max_interval": (
        None,
        [
            *late_each_ten_seconds(1000, 1310),
            asked(at=1299.9 + ALLOWED_S, after_s=10),
            asked(at=1300.1 + ALLOWED_S, after_s=10),
        ],
        [OVER_BUDGET, None],
    ),
    "what was late before an outage is no overrun after it": (
        None,
        [
            asked(at=1000, after_s=100),
            refused(at=1010),
            well(at=9000),
            asked(at=9001, after_s=8000),
            asked(at=9002 + ALLOWED_S, after_s=10),
            checked(at=9999),
        ],
        [UNAUTHORIZED, None, None, None, None],
    ),
    "worse trouble takes the place of an overrun": (
        OVER_BUDGET,
        [refused(at=1000), asked(at=1010, after_s=10)],
        [UNAUTHORIZED] * 2,
    ),
    "an overrun that ends leaves worse trouble alone": (
        None,
        [asked(at=1000, after_s=100), refused(at=1010), asked(at=1100, after_s=10)],
        [UNAUTHORIZED] * 2,
    ),
    "after a stop something must fail anew before it is trouble": (
        None,
        [
            down(at=1000),
            checked(at=1059.9),
            stopped(65),
            broken(at=1125, sent_at=1059.8),
            checked(at=1126),
            down(at=1126),
        ],
        [None, None, UNREACHABLE],
    ),
    "a refused key is refused whenever it was asked for": (
        None,
        [stopped(65), refused(at=1066, sent_at=1000.5)],
        [UNAUTHORIZED],
    ),
    "a machine that is busy for a moment was not stopped": (
        None,
        [broken(at=1000), stopped(0.9), checked(at=1060)],
        [UNREACHABLE],
    ),
}


@pytest.mark.parametrize(("before", "steps", "troubles"), STORIES.values(), ids=STORIES)
def test_an_account_is_in_trouble_by_what_happened_last(
    before: AccountTrouble | None, steps: list[Step], troubles: list[AccountTrouble | None]
) -> None:
    account = an_account(before)
    assert [step(account) for step in steps][-len(troubles) :] == troubles


def test_a_single_late_poll_is_no_overrun_however_rare_polls_are() -> None:
    account = an_account(max_interval_s=600)
    account.gap(1000, at=1000)
    assert account.check(1600) is None


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


def test_what_was_under_way_when_the_process_was_stopped_broke_by_that() -> None:
    account = an_account()
    account.clock.stop_for(65)
    account.answer(Outcome.TIMEOUT, at=1066, sent_at=1000.5)
    assert account.breaker.failing_for_s() is None
    account.answer(Outcome.TIMEOUT, at=1076, sent_at=1066)
    assert account.breaker.failing_for_s() == 0


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
def test_trouble_has_the_last_cause(outcome: Outcome, code: int | None, reason: str | None, cause: str) -> None:
    account = an_account()
    account.answer(Outcome.REDIRECT, at=1000, code=302)
    assert account.breaker.cause is None
    account.answer(outcome, at=1060, code=code, reason=reason)
    assert account.breaker.cause == cause


def test_a_budget_that_is_too_small_has_no_cause() -> None:
    account = an_account()
    for step in (says(Outcome.REDIRECT, 302, at=999), well(at=1000), *late_each_ten_seconds(1000, 1310)):
        step(account)
    assert (account.breaker.trouble, account.breaker.cause) == (OVER_BUDGET, None)
