"""Times as the domain counts them: microseconds UTC. Reads no clock."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_us(moment: datetime) -> int:
    """Return an aware datetime as microseconds UTC."""
    return round(moment.timestamp() * 1_000_000)


def from_us(moment_us: int) -> datetime:
    """Return microseconds UTC as an aware datetime."""
    return _EPOCH + timedelta(microseconds=moment_us)
