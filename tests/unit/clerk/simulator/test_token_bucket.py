import pytest

from watcher.clerk.simulator.token_bucket import Bucket


def test_a_full_bucket_holds_one_second() -> None:
    bucket = Bucket(5, now=0)
    assert [bucket.take(0) for _ in range(5)] == [0] * 5
    assert bucket.take(0) == pytest.approx(0.2)


def test_a_bucket_fills_at_its_rate_and_never_over_the_brim() -> None:
    bucket = Bucket(5, now=0)
    assert [bucket.take(100) for _ in range(5)] == [0] * 5
    assert bucket.take(100) > 0
    assert bucket.take(100.2) == pytest.approx(0)


def test_a_slow_bucket_holds_one_token() -> None:
    bucket = Bucket(0.1, now=0)
    assert bucket.take(0) == 0
    assert bucket.take(0) == pytest.approx(10)


def test_being_refused_costs_no_token() -> None:
    bucket = Bucket(1, now=0)
    waits = [bucket.take(at) for at in (0, 0.25, 0.5, 0.75, 1.0)]
    assert [wait == 0 for wait in waits] == [True, False, False, False, True]
