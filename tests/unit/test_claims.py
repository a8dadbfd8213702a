"""Rows that say an execution has ended, and who is confirmed when."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from watcher.claims import CONFIRM_WITHIN_S, Claim, Confirmations, selects
from watcher.models import Details, Execution

ENDED = datetime(2026, 11, 24, tzinfo=UTC)


@dataclass(eq=False)
class Someone:
    """Somebody with a claim."""

    claim: Claim | None = None


def claimant(*, at: float = 0.0, pipeline: str = "p") -> Someone:
    return Someone(Claim(pipeline, Execution("e", "failed"), at, at))


def confirmations(*waiting: Someone, in_time_count: float = 100.0) -> Confirmations[Someone]:
    claims = Confirmations[Someone](in_time_count=in_time_count)
    for each in waiting:
        claims.add(each)
    return claims


def take(claims: Confirmations[Someone], now: float = 0.0) -> Someone | None:
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


def test_nobody_waits_at_first() -> None:
    claims = confirmations()
    assert claims.first(0.0) is None
    assert claims.wanted_at() == claims.next_expiry_at() == float("inf")
