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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("10s", 10), ("15m", 900), ("48h", 172_800), ("3d", 259_200), ("1.5s", 1.5), (" 0s ", 0)],
)
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10", "has no unit; write 10s, 10m, 10h or 10d"),
        ("1.5", "has no unit; write 1.5s, 1.5m, 1.5h or 1.5d"),
        ("", "is not a duration; write 500ms, 10s, 15m, 48h or 3d"),
        ("-1s", "is not a duration; write 500ms, 10s, 15m, 48h or 3d"),
        ("1h30m", "is not a duration; write 500ms, 10s, 15m, 48h or 3d"),
        ("1S", "is not a duration; write 500ms, 10s, 15m, 48h or 3d"),
        ("٣s", "is not a duration; write 500ms, 10s, 15m, 48h or 3d"),
        ("36501d", "is longer than a century; write at most 36500d"),
        ("9" * 400 + "s", "is longer than a century; write at most 36500d"),
    ],
)
def test_a_bad_duration_says_what_would_be_right(text: str, message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_duration(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(("text", "per_s"), [("5/s", 5), ("300/m", 5), ("3600/h", 1), ("0.5/s", 0.5), (" 1/s ", 1)])
def test_a_rate_is_per_second(text: str, per_s: float) -> None:
    assert parse_rate(text) == per_s


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "has no unit; write 5/s or 300/m"),
        ("0/s", "is no usable rate; write more than 0/s, at most 1000000/s, such as 5/s"),
        ("5/d", "is not a rate; write 5/s or 300/m"),
        ("-5/s", "is not a rate; write 5/s or 300/m"),
        ("fast", "is not a rate; write 5/s or 300/m"),
        ("9" * 400 + "/s", "is no usable rate; write more than 0/s, at most 1000000/s, such as 5/s"),
    ],
)
def test_a_bad_rate_says_what_would_be_right(text: str, message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_rate(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(("text", "share"), [("20%", 0.2), ("100%", 1), ("0.5%", 0.005), (" 20 % ", 0.2)])
def test_a_share_is_of_a_whole(text: str, share: float) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("20", "has no unit; write 20%"),
        ("0.2", "has no unit; write 20%"),
        ("0.075", "has no unit; write 7.5%"),
        ("0%", "is no share of a whole; write more than 0% and at most 100%"),
        ("101%", "is no share of a whole; write more than 0% and at most 100%"),
        ("-5%", "is not a share; write a percentage, such as 20%"),
        ("half", "is not a share; write a percentage, such as 20%"),
    ],
)
def test_a_bad_share_says_what_would_be_right(text: str, message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_share(text)
    assert str(caught.value) == message


def test_a_remedy_that_holds_the_value_has_one_without_it() -> None:
    for parse in (parse_duration, parse_rate, parse_share):
        with pytest.raises(InvalidValueError) as caught:
            parse("4711")
        assert "4711" not in caught.value.problem + caught.value.blind_remedy


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:8080", Address("::1", 8080)),
        (":8080", Address("", 8080)),
        (" 0.0.0.0:65535 ", Address("0.0.0.0", 65_535)),  # noqa: S104 - parsed, not listened on
    ],
)
def test_an_address_is_host_and_port(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "8080", "localhost", "::1:8080", "[::1]", "a b:1", "http://h:80", "h:", "h:65536", "h:999999"]
)
def test_a_bad_address_says_what_would_be_right(text: str) -> None:
    with pytest.raises(InvalidValueError, match=r"write 127\.0\.0\.1:8080, \[::1\]:8080 or :8080"):
        parse_address(text)


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
