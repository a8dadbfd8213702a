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


def claimant(*, at: float = 0.0) -> Someone:
    return Someone(Claim(Execution("e", "failed"), at, at))


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
    claims, one, other = Confirmations[Someone](), claimant(), claimant()
    claims.add(one)
    claims.add(other)
    assert [claims.take(0.0, other_wants=False) for _ in range(3)] == [one, other, None]


def test_while_something_else_waits_every_second_turn_is_its() -> None:
    claims = Confirmations[Someone]()
    several = [claimant() for _ in range(3)]
    for each in several:
        claims.add(each)
    turns = [claims.take(0.0, other_wants=True) for _ in range(5)]
    assert turns == [several[0], None, several[1], None, several[2]]


def test_one_that_could_not_be_asked_waits_and_holds_nobody_up() -> None:
    claims, one, other = Confirmations[Someone](), claimant(), claimant()
    for each in (one, other):
        claims.add(each)
    assert claims.take(0.0, other_wants=False) is one
    assert one.claim is not None
    one.claim.retry_after(5.0, now=1.0)
    claims.add(one)
    assert claims.wanted_at() == float("-inf")
    assert [claims.take(2.0, other_wants=False) for _ in range(2)] == [other, None]
    assert claims.wanted_at() == 6.0
    assert claims.take(6.0, other_wants=False) is one


def test_a_claim_expires_and_what_cannot_be_written_then_waits_a_little() -> None:
    claims, one, young = Confirmations[Someone](), claimant(), claimant(at=10.0)
    claims.add(one)
    claims.add(young)
    assert claims.expired(CONFIRM_WITHIN_S - 0.1) == []
    assert claims.next_expiry_at() == CONFIRM_WITHIN_S
    assert claims.expired(CONFIRM_WITHIN_S) == [one]
    assert one.claim is not None
    one.claim.retry_after(2.0, now=CONFIRM_WITHIN_S)
    claims.add(one)
    assert claims.expired(CONFIRM_WITHIN_S + 1) == []
    assert claims.expired(CONFIRM_WITHIN_S + 2) == [one]


def test_a_try_that_waits_long_does_not_put_off_the_end_of_a_claim() -> None:
    claim = Claim(Execution("e", "failed"), 0.0, 0.0)
    claim.retry_after(60.0, now=20.0)
    assert claim.expires_at == claim.retry_at == CONFIRM_WITHIN_S


def test_nobody_waits_at_first() -> None:
    claims = Confirmations[Someone]()
    assert claims.take(0.0, other_wants=True) is None
    assert claims.wanted_at() == claims.next_expiry_at() == float("inf")
