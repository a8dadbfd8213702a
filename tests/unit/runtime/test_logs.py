"""What is logged, how it looks, what libraries never get to say, and streams that take none: real pipes."""

import asyncio
import fcntl
import io
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from virtual import FakeClock

from watcher.runtime.logs import LINES_COUNT, LogFormat, LogLines, configure_logs, flush_logs, log_lines

SECRET = "postgresql://me:secret@host"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def text_of(stream: io.StringIO) -> str:
    assert flush_logs(within_s=5)
    return stream.getvalue()


def lines(stream: io.StringIO) -> list[Any]:
    return [json.loads(line) for line in text_of(stream).splitlines()]


def configured(
    *,
    level: str = "info",
    format_: LogFormat = "json",
    stream: io.StringIO | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> io.StringIO:
    out = stream or io.StringIO()
    configure_logs(level=level, format_=format_, stream=out, monotonic=monotonic)
    return out


def test_for_a_person_the_time_is_local_with_its_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        out = configured(format_="console")
        structlog.get_logger().info("a.thing")
        assert text_of(out).split()[0].endswith("+09:00")
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_hides_what_is_below_it(level: str, shown: list[str]) -> None:
    out = configured(level=level)
    log = structlog.get_logger()
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("a.thing")
    assert [line["level"] for line in lines(out)] == shown


@pytest.mark.parametrize(
    ("format_", "stream", "is_json", "is_coloured"),
    [
        ("auto", Terminal(), False, True),
        ("auto", io.StringIO(), True, False),
        ("json", Terminal(), True, False),
        ("console", io.StringIO(), False, False),
        ("console", Terminal(), False, True),
    ],
)
def test_the_format_is_as_asked_or_suits_the_stream(
    format_: LogFormat, stream: io.StringIO, *, is_json: bool, is_coloured: bool
) -> None:
    out = configured(format_=format_, stream=stream)
    structlog.get_logger().warning("a.thing", account="default")
    text = text_of(out)
    assert text.startswith("{") is is_json
    assert ("\x1b[" in text) is is_coloured
    assert "a.thing" in text


def test_a_line_is_json_on_stderr_and_stdout_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    out = configured()
    structlog.get_logger().error("account.degraded", account="default", reason="unauthorized")
    (line,) = lines(out)
    moment = line.pop("timestamp")
    assert moment.endswith("Z")
    assert line == {"event": "account.degraded", "level": "error", "account": "default", "reason": "unauthorized"}
    configure_logs(level="info", format_="auto")
    structlog.get_logger().info("a.thing")
    assert flush_logs(within_s=5)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "a.thing"


@pytest.mark.parametrize("level", ["debug", "info"])
@pytest.mark.parametrize("name", ["sqlalchemy.engine", "sqlalchemy.pool", "apscheduler.scheduler", "aiohttp.access"])
def test_what_libraries_say_below_warning_never_shows(level: str, name: str) -> None:
    out = configured(level=level)
    library = logging.getLogger(name)
    library.debug("SELECT ? with %s", SECRET)
    library.info("connected to %s", SECRET)
    assert text_of(out) == ""


@pytest.mark.parametrize(("level", "error"), [(logging.WARNING, None), (logging.ERROR, OSError(SECRET))])
def test_a_library_that_warns_is_named_with_its_error_but_no_text(level: int, error: OSError | None) -> None:
    out = configured()
    logging.getLogger("aiohttp.client").log(level, "could not reach %s", SECRET, exc_info=error)
    (line,) = lines(out)
    assert (line["event"], line["library"]) == ("library.warned", "aiohttp.client")
    assert (line["level_name"], line["error"]) == (logging.getLevelName(level), error and "OSError")
    assert not any(word in text_of(out) for word in (SECRET, "Traceback"))


def test_a_library_is_logged_once_a_minute_and_never_for_an_end() -> None:
    out = configured()
    library = logging.getLogger("apscheduler.executors.default")
    library.error("Job raised an exception", exc_info=asyncio.CancelledError())
    assert text_of(out) == ""
    clock = FakeClock()
    out = configured(monotonic=clock.monotonic)
    for passed_s in (0, 30, 29.9, 0.1, 30):
        clock.advance(passed_s)
        for error in (OSError(24, "none left"), RuntimeError()):
            logging.getLogger("asyncio").error("accept failed", exc_info=error)
    assert [line["error"] for line in lines(out)] == ["OSError", "RuntimeError"] * 2


SMALLEST_BYTES = 4096
"""No pipe can be smaller."""

USUAL_BYTES = 65_536
"""What a pipe takes that nobody has made smaller."""


class Pipe:
    """A pipe, its writing end as a stream."""

    def __init__(self) -> None:
        self.read_fd, write_fd = os.pipe()
        fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, SMALLEST_BYTES)
        self.stream = os.fdopen(write_fd, "w", encoding="ascii")

    def read_all(self, writer: LogLines) -> str:
        """Read what is written until all of it is."""
        fcntl.fcntl(self.read_fd, fcntl.F_SETPIPE_SZ, USUAL_BYTES)  # else it takes thousands of turns
        os.set_blocking(self.read_fd, False)
        read = bytearray()
        while not writer.flush_within(0.001):
            read += self._read()
        return (read + self._read()).decode()

    def _read(self) -> bytes:
        try:
            return os.read(self.read_fd, 1_000_000)
        except BlockingIOError:
            return b""


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.stream.close()
    os.close(pipe.read_fd)


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_are_written_in_order_whatever_signs_the_stream_has_not(pipe: Pipe, *, blocking: bool) -> None:
    os.set_blocking(pipe.stream.fileno(), blocking)
    writer = LogLines(pipe.stream)
    for number in range(1000):
        writer.msg(f"{number} ü")
    assert pipe.read_all(writer) == "".join(f"{number} ?\n" for number in range(1000))


def test_a_reader_that_stands_still_holds_up_nobody_and_the_log_says_what_is_missing(pipe: Pipe) -> None:
    configure_logs(level="info", format_="json", stream=pipe.stream)
    log, writer = structlog.get_logger(), log_lines(pipe.stream)
    for number in range(LINES_COUNT + 1000):
        log.info("line", number=number)
    assert not writer.flush_within(0.01)
    written = pipe.read_all(writer)
    log.info("on")
    entries = [json.loads(line) for line in (written + pipe.read_all(writer)).splitlines()]
    kept = [entry["number"] for entry in entries if entry["event"] == "line"]
    assert kept == sorted(kept)
    dropped = [entry["count"] for entry in entries if entry["event"] == "log.dropped"]
    assert sum(dropped) == LINES_COUNT + 1000 - len(kept) > 0
    assert entries[-1]["event"] == "on"


@pytest.mark.parametrize("is_full", [True, False])
def test_a_full_disk_or_a_reader_that_is_gone_loses_a_line_and_ends_nothing(pipe: Pipe, *, is_full: bool) -> None:
    gone_fd, write_fd = os.pipe()
    os.close(gone_fd)
    if is_full:
        full_fd = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full_fd, write_fd)
        os.close(full_fd)
    with os.fdopen(write_fd, "w") as stream:
        writer = LogLines(stream)
        writer.msg("lost")
        assert writer.flush_within(5)
        os.dup2(pipe.stream.fileno(), write_fd)
        writer.msg("kept")
        assert pipe.read_all(writer) == "kept\n"
