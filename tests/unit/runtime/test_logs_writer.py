"""What becomes of log lines whose stream takes them, takes none for now, or takes none ever again: real pipes."""

import fcntl
import json
import os
from collections.abc import Iterator

import pytest
import structlog

from watcher.runtime.logs import LINES_COUNT, LogLines, configure_logs, log_lines

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

    def read_all(self, lines: LogLines) -> str:
        """Read what is written until all of it is."""
        fcntl.fcntl(self.read_fd, fcntl.F_SETPIPE_SZ, USUAL_BYTES)  # else it takes thousands of turns
        os.set_blocking(self.read_fd, False)
        read = bytearray()
        while not lines.flush_within(0.001):
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
    lines = LogLines(pipe.stream)
    for number in range(1000):
        lines.msg(f"{number} ü")
    assert pipe.read_all(lines) == "".join(f"{number} ?\n" for number in range(1000))


def test_a_reader_that_stands_still_holds_up_nobody_and_the_log_says_what_is_missing(pipe: Pipe) -> None:
    configure_logs(level="info", format_="json", stream=pipe.stream)
    log, lines = structlog.get_logger(), log_lines(pipe.stream)
    for number in range(LINES_COUNT + 1000):
        log.info("line", number=number)
    assert not lines.flush_within(0.01)
    written = pipe.read_all(lines)
    log.info("on")
    entries = [json.loads(line) for line in (written + pipe.read_all(lines)).splitlines()]
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
        lines = LogLines(stream)
        lines.msg("lost")
        assert lines.flush_within(5)
        os.dup2(pipe.stream.fileno(), write_fd)
        lines.msg("kept")
        assert pipe.read_all(lines) == "kept\n"
