"""Durations and rates as people write them: `500ms`, `15m`, `3d`; `5/s`, `300/m`."""

import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_RATE = re.compile(r"(\d+(?:\.\d+)?)/(s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Return a duration in seconds. Raises `ValueError` with what would be right."""
    if match := _DURATION.fullmatch(text.strip()):
        return float(match[1]) * _SECONDS[match[2]]
    if re.fullmatch(r"\d+(?:\.\d+)?", text.strip()):
        raise ValueError(f'"{text}" has no unit; write {text.strip()}s')
    raise ValueError(f'"{text}" is not a duration; write 500ms, 10s, 15m, 48h or 3d')


def parse_rate(text: str) -> float:
    """Return a rate per second. Raises `ValueError` with what would be right."""
    if match := _RATE.fullmatch(text.strip()):
        rate = float(match[1]) / _SECONDS[match[2]]
        if rate > 0:
            return rate
        raise ValueError(f'"{text}" would never send anything; write a rate above 0, such as 5/s')
    if re.fullmatch(r"\d+(?:\.\d+)?", text.strip()):
        raise ValueError(f'"{text}" has no unit; write {text.strip()}/s or {60 * float(text):g}/m')
    raise ValueError(f'"{text}" is not a rate; write 5/s or 300/m')
