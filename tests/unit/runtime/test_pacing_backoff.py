"""Waits: doubling, spreading, and what servers ask for."""

from datetime import UTC, datetime, timedelta

import pytest

from watcher.runtime.pacing import LONGEST_WAIT_S, doubling, parse_retry_after, spread

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(("attempt", "delay_s"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (10**6, 60)])
def test_a_wait_doubles_up_to_its_cap(attempt: int, delay_s: float) -> None:
    assert doubling(attempt, base_s=1, cap_s=60) == delay_s


def test_a_base_above_the_cap_is_the_cap() -> None:
    assert doubling(1, base_s=90, cap_s=60) == 60


@pytest.mark.parametrize(("draw", "delay_s"), [(0.0, 8.0), (0.5, 10.0), (0.75, 11.0), (0.999999, 12.0)])
def test_a_wait_is_spread_to_both_sides(draw: float, delay_s: float) -> None:
    assert spread(10, share=0.2, jitter=lambda: draw) == pytest.approx(delay_s, abs=1e-4)


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        (None, None),
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        ("86400", 86400.0),
        ("Tue, 24 Nov 2026 10:01:30 GMT", 90.0),
        ("Tuesday, 24-Nov-26 10:01:30 GMT", 90.0),
        ("Tue, 24 Nov 2026 12:01:30 +0200", 90.0),
        ("Tue, 24 Nov 2026 09:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2026 10:01:30", 90.0),
        ("Tue Nov 24 10:01:30 2026", 90.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("nan", None),
        ("Tue, 99 Nov 2026 10:00:00 GMT", None),
        ("24 Nov 2026 10:6001600200", None),
        ("1\u0663(", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_WAIT_S),
        ("9" * 400, LONGEST_WAIT_S),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_anything_else_is_absent(value: str | None, wait_s: float | None) -> None:
    assert parse_retry_after(value, now=NOW) == wait_s


def test_a_date_is_measured_from_now() -> None:
    header = "Tue, 24 Nov 2026 10:01:30 GMT"
    assert parse_retry_after(header, now=NOW + timedelta(seconds=60)) == 30.0
