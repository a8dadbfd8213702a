from collections.abc import Callable

import pytest

from watcher.runtime.units import (
    Address,
    InvalidValueError,
    parse_address,
    parse_duration,
    parse_rate,
    parse_share,
    spell_duration,
    write_duration,
)

Parse = Callable[[str], object]


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        *((parse_duration, text, value) for text, value in (("500ms", 0.5), ("10s", 10), ("15m", 900), ("1.5s", 1.5))),
        *((parse_duration, text, value) for text, value in (("48h", 172_800), ("3d", 259_200), (" 0s ", 0))),
        *((parse_rate, text, value) for text, value in (("5/s", 5), ("300/m", 5), ("3600/h", 1), (" 0.5/s ", 0.5))),
        *((parse_share, text, value) for text, value in (("20%", 0.2), ("100%", 1), ("0.5%", 0.005), (" 20 % ", 0.2))),
        (parse_address, "127.0.0.1:8080", Address("127.0.0.1", 8080)),
        (parse_address, "localhost:0", Address("localhost", 0)),
        (parse_address, "[::1]:8080", Address("::1", 8080)),
        (parse_address, ":8080", Address("", 8080)),
        (parse_address, " 0.0.0.0:65535 ", Address("0.0.0.0", 65_535)),  # noqa: S104 - parsed, not listened on
    ],
)
def test_durations_rates_shares_and_addresses_mean_what_they_say(parse: Parse, text: str, value: object) -> None:
    assert parse(text) == value


ODD_DURATIONS = {
    "1h30m": "90m",
    "1d12h": "36h",
    "1S": "1s",
    "5 min": "5m",
    "5 minutes": "5m",
    "2hrs": "2h",
    "500 ms": "500ms",
    "1 hour 30 minutes": "90m",
    "10 secs": "10s",
    "1.5 days": "36h",
    "٣s": "3s",
}
NO_DURATION = "is not a duration; write 500ms, 10s, 15m, 48h or 3d"
NO_ADDRESS = "is not host:port; write 127.0.0.1:8080, [::1]:8080 or :8080"
NO_RATE = "is no usable rate; write more than 0/s, at most 1000000/s, such as 5/s"


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        *(
            (parse_duration, text, NO_DURATION)
            for text in ("", "10", "-1s", "5 months", "PT5M", "0s 0m", "999999999d 1h", "9" * 400 + "s 1s")
        ),
        *(
            (parse_duration, text, f"is not a duration; write {meant}: one number and one unit")
            for text, meant in ODD_DURATIONS.items()
        ),
        (parse_duration, "36501d", "is longer than a century; write at most 36500d"),
        (parse_duration, "9" * 400 + "s", "is longer than a century; write at most 36500d"),
        *((parse_rate, text, "is not a rate; write 5/s or 300/m") for text in ("5", "5/d", "-5/s", "fast")),
        *((parse_rate, text, NO_RATE) for text in ("0/s", "9" * 400 + "/s")),
        *(
            (parse_share, text, "is no share of a whole; write more than 0% and at most 100%")
            for text in ("0%", "101%")
        ),
        *((parse_share, text, "is not a share; write a percentage, such as 20%") for text in ("20", "-5%", "half")),
        *((parse_address, text, NO_ADDRESS) for text in ("", "8080", "localhost", "::1:8080", "[::1]", "a b:1")),
        *((parse_address, text, NO_ADDRESS) for text in ("http://h:80", "h:", "h:65536", "h:999999")),
    ],
)
def test_what_is_wrong_says_what_would_be_right(parse: Parse, text: str, message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.5, "500ms"), (1, "1s"), (60, "60s"), (90, "90s"), (120, "2m"), (3600, "60m"), (7200, "2h"), (259_200, "3d")],
)
def test_a_duration_is_written_as_people_do_and_reads_the_same(seconds: float, written: str) -> None:
    assert write_duration(seconds) == written
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "0 s"),
        (14, "14 s"),
        (60, "1 m"),
        (134, "2 m 14 s"),
        (3599.9, "59 m 59 s"),
        (3725, "1 h 2 m"),
        (86_400, "1 d"),
        (270_000, "3 d 3 h"),
    ],
)
def test_a_duration_is_spelt_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert spell_duration(seconds) == text
