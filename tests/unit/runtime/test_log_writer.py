"""What becomes of log lines whose stream takes them, takes none for now, or takes none ever again: real pipes."""

import fcntl
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from watcher.runtime.log_writer import CHARACTERS_COUNT, LINES_COUNT, BackgroundLogWriter

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

    def read_all(self, writer: BackgroundLogWriter) -> str:
        """Read what a writer writes until it has written it all."""
        fcntl.fcntl(self.read_fd, fcntl.F_SETPIPE_SZ, USUAL_BYTES)  # else it takes thousands of turns
        os.set_blocking(self.read_fd, False)
        read = bytearray()
        while not writer.flush(within_s=0.001):
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


@pytest.fixture
def full() -> Iterator[TextIO]:
    with Path("/dev/full").open("w", encoding="ascii") as stream:
        yield stream


def writer_on(stream: TextIO) -> BackgroundLogWriter:
    """Return a writer that says on its own stream how many lines were dropped."""
    writer = BackgroundLogWriter(stream, on_dropped=lambda count: writer.write(f"{count} dropped\n"))
    return writer


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "logs"]


def test_lines_are_written_in_order_whatever_signs_the_stream_has_not(pipe: Pipe) -> None:
    writer = writer_on(pipe.stream)
    for number in range(1000):
        writer.write(f"{number} ü\n")
    assert pipe.read_all(writer) == "".join(f"{number} ?\n" for number in range(1000))


def test_a_stream_in_memory_is_written_too() -> None:
    stream = io.StringIO()
    writer = writer_on(stream)
    writer.write("a\n")
    assert writer.flush(within_s=5)
    assert stream.getvalue() == "a\n"


@pytest.mark.parametrize("blocking", [True, False])
def test_a_reader_that_stands_still_holds_up_nobody_and_loses_nothing_up_to_the_limit(
    pipe: Pipe, *, blocking: bool
) -> None:
    os.set_blocking(pipe.stream.fileno(), blocking)
    writer = writer_on(pipe.stream)
    for number in range(LINES_COUNT + 1000):
        writer.write(f"line {number}\n")
    assert not writer.flush(within_s=0.01)
    *lines, last = pipe.read_all(writer).splitlines()
    assert lines == [f"line {number}" for number in range(len(lines))]
    assert last == f"{LINES_COUNT + 1000 - len(lines)} dropped"
    writer.write("on\n")
    assert pipe.read_all(writer) == "on\n"


def test_few_long_lines_are_as_much_as_many(pipe: Pipe) -> None:
    writer = writer_on(pipe.stream)
    for _ in range(9):
        writer.write("x" * (CHARACTERS_COUNT // 8))
    assert pipe.read_all(writer).endswith("x1 dropped\n")


def test_of_what_was_dropped_nothing_need_be_said(pipe: Pipe) -> None:
    writer = BackgroundLogWriter(pipe.stream, on_dropped=lambda _: None)
    for _ in range(9):
        writer.write("x" * (CHARACTERS_COUNT // 8))
    assert set(pipe.read_all(writer)) == {"x"}


def test_a_full_disk_takes_the_next_line_once_there_is_room(full: TextIO, pipe: Pipe) -> None:
    writer = writer_on(full)
    writer.write("lost\n")
    assert writer.flush(within_s=5)
    os.dup2(pipe.stream.fileno(), full.fileno())
    writer.write("kept\n")
    assert pipe.read_all(writer) == "kept\n"


def test_a_line_that_was_cut_is_ended_before_the_next_one(full: TextIO, pipe: Pipe) -> None:
    stream = os.fdopen(os.dup(pipe.stream.fileno()), "w", encoding="ascii")
    os.set_blocking(stream.fileno(), False)
    writer = writer_on(stream)
    writer.write("x" * 5000 + "\n")  # more than fits
    assert not writer.flush(within_s=0.01)
    os.dup2(full.fileno(), stream.fileno())  # and the rest finds a full disk
    cut = pipe.read_all(writer)
    os.dup2(pipe.stream.fileno(), stream.fileno())
    writer.write("whole\n")
    assert cut + pipe.read_all(writer) == "x" * SMALLEST_BYTES + "\nwhole\n"
    stream.close()


def test_a_reader_that_is_gone_ends_nothing(pipe: Pipe) -> None:
    gone_fd, write_fd = os.pipe()
    os.close(gone_fd)
    with os.fdopen(write_fd, "w") as stream:
        writer = writer_on(stream)
        writer.write("a\n")
        assert writer.flush(within_s=5)
        os.dup2(pipe.stream.fileno(), write_fd)
        writer.write("b\n")
        assert pipe.read_all(writer) == "b\n"


def test_a_stream_that_was_closed_ends_nothing(pipe: Pipe) -> None:
    writer = writer_on(pipe.stream)
    pipe.stream.close()
    writer.write("a\n")
    assert writer.flush(within_s=5)


def test_there_is_a_thread_from_the_first_line_until_it_is_closed() -> None:
    before = threads()
    stream = io.StringIO()
    writer = writer_on(stream)
    assert threads() == before
    writer.write("a\n")
    writer.write("b\n")
    (thread,) = set(threads()) - set(before)
    writer.close()
    thread.join(timeout=5)
    assert not thread.is_alive()
    assert stream.getvalue() == "a\nb\n"
