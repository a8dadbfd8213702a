"""Parses and writes durations, rates, shares, addresses, counts: `500ms`, `2 m 14 s`, `300/m`, `20%`, `[::1]:8080`."""

import re
from ipaddress import ip_address
from typing import NamedTuple

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_RATE = re.compile(r"(\d+(?:\.\d+)?)/(s|m|h)", re.ASCII)
_SHARE = re.compile(r"(\d+(?:\.\d+)?) ?%", re.ASCII)
_ODD_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|[smhd])(?:ec(?:ond)?|in(?:ute)?|our|r|ay)?s?", re.IGNORECASE)
"""Durations as other programs write them: `5 min`, `1d12h`. They are refused with a hint."""
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_S = 36_500 * _SECONDS["d"]
"""A century. Longer durations in microseconds overflow the store's integers."""
_FASTEST_PER_S = 1_000_000.0
_ADDRESS = re.compile(r"(\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\s:/\[\]]*)):(?P<port>\d{1,5})", re.ASCII)


class InvalidValueError(ValueError):
    """A value that cannot be used: `problem` says what is wrong, and `remedy` what would be right.

    Neither text holds the value, unless it is a duration. With `quote` the message shows the value before the problem:
    `"5x" is not a rate`. `at` is the wrong key within a block, if only one key is wrong.
    """

    def __init__(self, problem: str, *, remedy: str, quote: bool = False, at: str = "") -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy
        self.quote = quote
        self.at = at


class Address(NamedTuple):
    """An address to listen on. An empty host means every interface; port 0 means any free port."""

    host: str
    port: int


def parse_duration(text: str) -> float:
    """Return a duration in seconds, 0 to a century. Raises `InvalidValueError`."""
    text = text.strip()
    if match := _DURATION.fullmatch(text):
        seconds = float(match[1]) * _SECONDS[match[2]]
        if seconds <= _LONGEST_S:
            return seconds
        raise InvalidValueError("is longer than a century", remedy="write at most 36500d", quote=True)
    seconds = sum(float(number) * _SECONDS[unit.lower()] for number, unit in _ODD_DURATION.findall(text))
    is_odd = 0 < seconds <= _LONGEST_S and not _ODD_DURATION.sub("", text).strip()
    written = f"{write_duration(seconds)}: one number and one unit" if is_odd else "500ms, 10s, 15m, 48h or 3d"
    raise InvalidValueError("is not a duration", remedy=f"write {written}", quote=True)


def parse_rate(text: str) -> float:
    """Return a rate per second, above 0. Raises `InvalidValueError`."""
    text = text.strip()
    if match := _RATE.fullmatch(text):
        if 0 < (per_s := float(match[1]) / _SECONDS[match[2]]) <= _FASTEST_PER_S:
            return per_s
        raise InvalidValueError(
            "is no usable rate", remedy="write more than 0/s, at most 1000000/s, such as 5/s", quote=True
        )
    raise InvalidValueError("is not a rate", remedy="write 5/s or 300/m", quote=True)


def parse_share(text: str) -> float:
    """Return a share of a whole, above 0 and at most 1, from `20%`. Raises `InvalidValueError`."""
    text = text.strip()
    if match := _SHARE.fullmatch(text):
        if 0 < (percent := float(match[1])) <= 100:
            return percent / 100
        raise InvalidValueError("is no share of a whole", remedy="write more than 0% and at most 100%", quote=True)
    raise InvalidValueError("is not a share", remedy="write a percentage, such as 20%", quote=True)


def parse_address(text: str) -> Address:
    """Return the address to listen on, from `host:port`, `[::1]:8080` or `:8080`. Raises `InvalidValueError`."""
    match = _ADDRESS.fullmatch(text.strip())
    if match is None or int(match["port"]) > 65_535:
        raise InvalidValueError("is not host:port", remedy="write 127.0.0.1:8080, [::1]:8080 or :8080", quote=True)
    return Address(host=match["v6"] or match["name"] or "", port=int(match["port"]))


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address or `localhost`. Only this machine can reach such a host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def write_duration(seconds: float) -> str:
    """Return a duration in the configuration's notation: the largest unit with a whole number above 1: `60s`, `10m`."""
    whole = (unit for unit in ("d", "h", "m") if seconds % _SECONDS[unit] == 0 and seconds > _SECONDS[unit])
    unit = next(whole, "s" if seconds % 1 == 0 else "ms")
    return f"{round(seconds / _SECONDS[unit], 3):.10g}{unit}"


def spell_duration(seconds: float) -> str:
    """Return a duration for readers, in its two largest units: `14 s`, `2 m 14 s`, `1 h 2 m`, `3 d`."""
    whole = int(seconds)
    for unit_s, unit, part_s, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= unit_s:
            rest = whole % unit_s // part_s
            return f"{whole // unit_s} {unit} {rest} {part}" if rest else f"{whole // unit_s} {unit}"
    return f"{whole} s"


def percent(part: float, whole: float) -> str:
    """Return a part as a percentage of the whole. It is 100 only if the part equals the whole."""
    return "100" if part == whole else f"{min(99.9, 100 * part / whole):.1f}"


def counted(count: int, word: str) -> str:
    """Return a count with its word, in the plural unless there is one: `2 watches`."""
    plural = "es" if word.endswith(("ch", "ss")) else "s"
    return f"{count} {word}{'' if count == 1 else plural}"
