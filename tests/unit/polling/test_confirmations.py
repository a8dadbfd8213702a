"""Rows that say an execution has ended, and who is confirmed when."""

from collections import OrderedDict
from datetime import UTC, datetime
from random import Random

import pytest

from watcher.domain.models import Details, Execution, Known, Watch
from watcher.polling.confirmations import Confirmations, selects
from watcher.polling.poll_queue import CONFIRM_WITHIN_S, Claim, Entry

ENDED = datetime(2026, 11, 24, tzinfo=UTC)


WATCH = Watch("default", "p", ())


def claimant(*, at: float = 0.0, pipeline: str = "p") -> Entry:
    return Entry(Known("e", pipeline), WATCH, claim=Claim(pipeline, Execution("e", "failed"), at, at))


def confirmations(*waiting: Entry, in_time_count: float = 100.0) -> Confirmations:
    claims = Confirmations(in_time_count=in_time_count)
    for each in waiting:
        claims.add(each)
    return claims


def take(claims: Confirmations, now: float = 0.0) -> Entry | None:
    first = claims.first(now)
    if first is not None:
        claims.take(first)
    return first


@pytest.mark.parametrize("details", Details)
@pytest.mark.parametrize("status", ["new", "running", "paused", "success", "failed", "odd"])
def test_only_ends_are_fetched_and_only_those_that_are_wanted(details: Details, status: str) -> None:
    wanted = {
        Details.NEVER: set(),
        Details.FAILED: {"failed"},
        Details.ALWAYS: {"success", "failed", "odd"},
    }
    execution = Execution("e", status, finished_at=ENDED if status == "odd" else None)
    assert selects(details, execution) is (status in wanted[details])


def test_the_oldest_claim_is_confirmed_first() -> None:
    one, other = claimant(), claimant()
    claims = confirmations(one, other)
    assert [take(claims) for _ in range(3)] == [one, other, None]


def test_pipelines_take_turns() -> None:
    many, few = [claimant(pipeline="busy") for _ in range(4)], [claimant(pipeline="quiet") for _ in range(2)]
    claims = confirmations(*many, *few)
    order = [take(claims) for _ in range(7)]
    assert order == [many[0], few[0], many[1], few[1], many[2], many[3], None]


def test_one_whose_turn_cannot_come_in_time_has_waited_long_enough() -> None:
    many, one, late = [claimant(pipeline="busy") for _ in range(8)], claimant(pipeline="quiet"), claimant()
    claims = confirmations(*many[:7], one, in_time_count=5.0)
    assert claims.next_expiry_at() == float("-inf")
    assert claims.expired(0.0) == many[5:7]
    assert claims.next_expiry_at() == CONFIRM_WITHIN_S
    claims.add(many[7])  # its turn would be the seventh: one of the quiet pipeline comes in between
    claims.add(late)  # and this one's the third
    assert claims.expired(0.0) == [many[7]]
    assert [take(claims) for _ in range(3)] == [many[0], one, late]


def test_however_few_there_may_be_one_can_be_confirmed() -> None:
    one, other = claimant(), claimant()
    claims = confirmations(one, other, in_time_count=0.1)
    assert claims.expired(0.0) == [other]
    assert take(claims) is one


def test_one_that_could_not_be_asked_waits_and_holds_nobody_up() -> None:
    one, other = claimant(), claimant()
    claims = confirmations(one, other)
    assert take(claims) is one
    assert one.claim is not None
    one.claim.retry_after(5.0, now=1.0)
    claims.add(one)
    assert claims.wanted_at() == float("-inf")
    assert [take(claims, 2.0) for _ in range(2)] == [other, None]
    assert claims.wanted_at() == 6.0
    assert take(claims, 6.0) is one


def test_a_claim_expires_and_what_cannot_be_written_then_waits_a_little() -> None:
    one, young = claimant(), claimant(at=10.0)
    claims = confirmations(one, young)
    assert claims.expired(CONFIRM_WITHIN_S - 0.1) == []
    assert claims.next_expiry_at() == CONFIRM_WITHIN_S
    assert claims.expired(CONFIRM_WITHIN_S) == [one]
    assert one.claim is not None
    one.claim.retry_after(2.0, now=CONFIRM_WITHIN_S)
    claims.add(one)
    assert claims.expired(CONFIRM_WITHIN_S + 1) == []
    assert claims.expired(CONFIRM_WITHIN_S + 2) == [one]


def test_a_try_that_waits_long_does_not_put_off_the_end_of_a_claim() -> None:
    claim = Claim("p", Execution("e", "failed"), 0.0, 0.0)
    claim.retry_after(60.0, now=20.0)
    assert claim.expires_at == claim.retry_at == CONFIRM_WITHIN_S


class Plainly:
    """What is asked of `Confirmations`, in the plainest way: whoever asks has all of them looked at."""

    def __init__(self) -> None:
        self.waiting: OrderedDict[str, dict[Entry, Claim]] = OrderedDict()

    def add(self, someone: Entry) -> None:
        assert someone.claim is not None
        self.waiting.setdefault(someone.claim.pipeline, {})[someone] = someone.claim

    def first(self, now: float) -> Entry | None:
        everyone = (pair for several in self.waiting.values() for pair in several.items())
        return next((each for each, claim in everyone if claim.retry_at <= now), None)

    def take(self, someone: Entry) -> None:
        assert someone.claim is not None
        several = self.waiting[someone.claim.pipeline]
        del several[someone]
        self.waiting.move_to_end(someone.claim.pipeline)
        if not several:
            del self.waiting[someone.claim.pipeline]

    def expired(self, now: float) -> set[Entry]:
        return {each for several in self.waiting.values() for each, claim in several.items() if claim.expires_at <= now}

    def claims(self) -> list[Claim]:
        return [claim for several in self.waiting.values() for claim in several.values()]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_it_is_as_if_all_were_looked_at(seed: int) -> None:
    dice, now = Random(seed), 0.0
    plainly, claims = Plainly(), confirmations(in_time_count=1e9)
    for _ in range(400):
        now += dice.choice((0.0, 0.1, 1.0, 9.0))
        for _ in range(dice.randrange(4)):
            someone = claimant(at=now, pipeline=dice.choice("abc"))
            plainly.add(someone)
            claims.add(someone)
        expired = plainly.expired(now)
        old = claims.expired(now)
        assert expired == set(old)
        for each in old:  # they leave in any order
            plainly.take(each)
        first = claims.first(now)
        assert first is plainly.first(now)
        wanted_at = min((claim.retry_at for claim in plainly.claims()), default=float("inf"))
        assert max(now, claims.wanted_at()) == max(now, wanted_at)
        assert claims.next_expiry_at() == min((each.expires_at for each in plainly.claims()), default=float("inf"))
        if first is not None and dice.random() < 0.8:
            plainly.take(first)
            claims.take(first)
            if dice.random() < 0.5:  # it could not be asked
                assert first.claim is not None
                first.claim.retry_after(dice.choice((1.0, 4.0, 40.0)), now=now)
                plainly.add(first)
                claims.add(first)


class CountedNumber(float):
    """A time that counts how often it is compared."""

    compared_count = 0

    def __lt__(self, other: float) -> bool:
        CountedNumber.compared_count += 1
        return float(self) < other

    def __le__(self, other: float) -> bool:
        CountedNumber.compared_count += 1
        return float(self) <= other


def test_a_turn_takes_a_few_steps_however_many_wait() -> None:
    claims, waiting_count = confirmations(in_time_count=1e9), 15_000
    for number in range(waiting_count):
        someone = claimant(at=CountedNumber(number / 1e3), pipeline=f"p{number % 20}")
        assert someone.claim is not None
        someone.claim.retry_at = CountedNumber(number / 1e3)
        claims.add(someone)
    CountedNumber.compared_count = 0
    for number in range(1000):
        now = number / 1e3
        assert claims.expired(now) == []
        assert take(claims, now) is not None
        assert claims.wanted_at() > now
        assert claims.next_expiry_at() > now
    assert CountedNumber.compared_count < 1000 * 100


def test_nobody_waits_at_first() -> None:
    claims = confirmations()
    assert claims.first(0.0) is None
    assert claims.wanted_at() == claims.next_expiry_at() == float("inf")
