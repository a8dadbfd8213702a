from datetime import UTC, datetime

from watcher.domain.timestamps import EARLIEST, LATEST, NEVER, Micros, Monotonic, from_us, to_us

AT = datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)


def test_a_date_is_microseconds_since_1970() -> None:
    assert to_us(AT) == 1_500_000
    last = datetime.max.replace(tzinfo=UTC)
    assert from_us(to_us(last)) == last


def test_a_moment_fits_neither_the_other_clock_nor_a_duration() -> None:
    """It is mypy that holds this: an error that is ignored here and does not come is an error itself."""
    due_at: Monotonic = to_us(AT)  # type: ignore[assignment]
    due_at = 5.0  # type: ignore[assignment]
    recorded_at: Micros = due_at  # type: ignore[assignment]
    recorded_at = to_us(AT) + 1_000_000  # type: ignore[assignment]
    assert recorded_at > NEVER
    assert EARLIEST < due_at < LATEST
