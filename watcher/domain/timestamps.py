"""Times as the domain counts them: microseconds UTC. Reads no clock."""

from datetime import datetime


def to_us(moment: datetime) -> int:
    """Return an aware datetime as microseconds UTC."""
    return round(moment.timestamp() * 1_000_000)
