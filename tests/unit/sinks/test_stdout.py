"""Lines on a real pipe, read slowly, never, or by nobody; and one event as a line for people."""

import asyncio
import errno
import fcntl
import os
import pty
import resource
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from examples import EVENT
from sample_events import BLANKS, LATEST

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import encode
from watcher.domain.errors import OutputClosedError
from watcher.domain.timestamps import Micros
from watcher.sinks.output import StdoutOutput
from watcher.sinks.protocol import SendOutcome, SendResult
from watcher.sinks.stdout import StdoutSink, event_console, event_line, render

WRITTEN = SendResult(SendOutcome.DELIVERED, "written")


class Pipe:
    """Both ends, closed at the end of the test."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)

    def close(self, *fds: int) -> None:
        for fd in fds or (self.reading, self.writing):
            with suppress(OSError):
                os.close(fd)

    def read_to_end(self) -> bytes:
        """Read until the writing end is closed."""
        with os.fdopen(self.reading, "rb", closefd=False) as file:
            return file.read()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def delivery(body: bytes) -> Delivery:
    return Delivery("console", 1, b"s", UUID(int=1), "execution.failed", body, Micros(0), Micros(0))


def is_ready(task: asyncio.Task[SendResult]) -> bool:
    return task.done()


@pytest.mark.parametrize(
    ("format_", "on_terminal", "readable"),
    [("auto", True, True), ("auto", False, False), ("json", True, False), ("text", False, True)],
)
async def test_people_read_a_line_and_programs_the_event(format_: str, on_terminal: bool, readable: bool) -> None:
    ours, theirs = pty.openpty() if on_terminal else os.pipe()
    await StdoutSink(StdoutOutput(theirs), format_=format_).send([delivery(encode(EVENT))])
    line = await asyncio.to_thread(os.read, ours, 4096)
    assert ("✕ failed ".encode() in line) is readable
    assert (encode(EVENT) in line) is not readable
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_slow_reader_delays_lines_and_tears_none_nor_stops_the_loop(pipe: Pipe, *, blocking: bool) -> None:
    os.set_blocking(pipe.writing, blocking)
    sink = StdoutSink(StdoutOutput(pipe.writing))
    body = b"x" * 16_000  # four times what the pipe holds
    sending = [asyncio.create_task(sink.send([delivery(body)])) for _ in range(3)]
    first = await asyncio.to_thread(os.read, pipe.reading, 1)  # the thread has begun, and the loop goes on
    assert not any(map(is_ready, sending))
    reading = asyncio.create_task(asyncio.to_thread(pipe.read_to_end))
    assert await asyncio.gather(*sending) == [WRITTEN] * 3
    pipe.close(pipe.writing)
    assert first + await reading == (body + b"\n") * 3


async def test_an_output_that_is_gone_or_may_not_grow_ends_the_program(pipe: Pipe, tmp_path: Path) -> None:
    sink = StdoutSink(StdoutOutput(pipe.writing))
    pipe.close(pipe.reading)
    for _ in range(2):
        with pytest.raises(OutputClosedError, match=r"^stdout was closed by its reader$"):
            await sink.send([delivery(b"{}")])
    fd = os.open(tmp_path / "events.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
    try:
        with pytest.raises(OutputClosedError, match=r"^stdout cannot be written: File too large$"):
            await StdoutSink(StdoutOutput(fd)).send([delivery(b"{}")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        os.close(fd)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_on_a_full_disk_events_are_tried_again_each_second_and_a_person_hears_what_to_do(pipe: Pipe) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    sink = StdoutSink(StdoutOutput(full))
    try:
        result = await sink.send([delivery(b"{}")])
        assert (result.outcome, result.answer, result.retry_after_s) == (SendOutcome.BUSY, "disk_full", 1)
        assert "make room" in result.remedy
        assert sink.batch_count == 1  # a line that fits is settled, and not written again with the next that does not
        os.dup2(pipe.writing, full)
        assert await sink.send([delivery(b"{}")]) == WRITTEN
        assert sink.batch_count > 1
    finally:
        os.close(full)


class AlmostFull:
    """A file of which the disk takes so many bytes more."""

    def __init__(self) -> None:
        self.left, self.text = 0, b""

    def write(self, _fd: int, data: bytes) -> int:
        if not self.left:
            raise OSError(errno.ENOSPC, "full")
        taken, self.left = bytes(data[: self.left]), max(0, self.left - len(data))
        self.text += taken
        return len(taken)


@pytest.mark.parametrize("room", [(3,), (3, 1, 2), (5,), (6,), (9,), (5, 0, 1)])
async def test_half_a_line_on_a_full_disk_is_ended_first(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, room: tuple[int, ...]
) -> None:
    file, output = AlmostFull(), StdoutOutput(pipe.writing)
    await output.thread.run(lambda: None)
    monkeypatch.setattr(os, "write", file.write)
    for file.left in room:
        assert not await output.thread.run(partial(output.write, [b"first", b"second"]))
    file.left = 1000
    assert await output.thread.run(partial(output.write, [b"first", b"second"]))
    assert set(file.text.splitlines()) == {b"first", b"second"}
    assert file.text.endswith(b"first\nsecond\n")


# A file that an earlier life was killed over


@pytest.mark.parametrize("mode", [os.O_WRONLY, os.O_RDWR])
@pytest.mark.parametrize(
    ("found", "left"),
    [(b'{"a":1}\n{"b"', b'{"a":1}\n{"b"\n{"c":3}\n'), (b'{"a":1}\n', b'{"a":1}\n{"c":3}\n'), (b"", b'{"c":3}\n')],
)
async def test_a_half_written_line_is_ended_first(tmp_path: Path, found: bytes, left: bytes, mode: int) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(found)
    fd = os.open(file, mode | os.O_APPEND)
    output = StdoutOutput(fd)
    await StdoutSink(output).send([delivery(b'{"c":3}')])
    output.close()
    os.close(fd)
    assert file.read_bytes() == left


async def test_a_half_written_line_is_ended_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, disk = tmp_path / "events.jsonl", AlmostFull()
    file.write_bytes(b'{"b"')
    fd = os.open(file, os.O_WRONLY | os.O_APPEND)
    output = StdoutOutput(fd)
    monkeypatch.setattr(os, "write", disk.write)
    assert (await StdoutSink(output).send([delivery(b"{}")])).outcome is SendOutcome.BUSY
    disk.left = 1000
    assert await StdoutSink(output).send([delivery(b"{}")]) == WRITTEN
    assert disk.text == b"\n{}\n"
    output.close()
    os.close(fd)


async def test_a_cancelled_line_is_written_whole_and_the_others_are_reported(pipe: Pipe) -> None:
    sink = StdoutSink(StdoutOutput(pipe.writing))
    cancelled, kept = (asyncio.create_task(sink.send([delivery(b"x" * 16_000)])) for _ in range(2))
    await asyncio.to_thread(os.read, pipe.reading, 1)
    cancelled.cancel()
    reading = asyncio.create_task(asyncio.to_thread(pipe.read_to_end))
    assert await kept == WRITTEN
    pipe.close(pipe.writing)
    assert len(await reading) == 2 * 16_001 - 1


async def test_after_closing_its_thread_ends(pipe: Pipe) -> None:
    before = set(threading.enumerate())
    output = StdoutOutput(pipe.writing)
    (thread,) = set(threading.enumerate()) - before
    sink = StdoutSink(output)
    await sink.send([delivery(b"{}")])
    await sink.close()
    await sink.send([delivery(b"{}")])  # the output is the others', too
    output.close()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


class IdleOutput(StdoutOutput):
    """Takes lines and makes none of them."""

    def write(self, lines: Iterable[bytes]) -> bool:
        return True


async def test_lines_for_people_are_not_rendered_in_the_event_loop(pipe: Pipe) -> None:
    unreadable = delivery(b"not JSON")
    assert await StdoutSink(IdleOutput(pipe.writing), format_="text").send([unreadable]) == WRITTEN
    with pytest.raises(ValueError, match="Expecting value"):
        await StdoutSink(StdoutOutput(pipe.writing), format_="text").send([unreadable])


# for people


def line_of(data: dict[str, Any] | None = None, **event: Any) -> str:
    """Return the line of an event that differs from the example in these."""
    return event_line(EVENT | event | {"data": EVENT["data"] | (data or {})}).plain


@pytest.mark.parametrize(("columns", "whole"), [(119, False), (120, True)])
def test_a_wide_terminal_shows_whole_ids(
    columns: int, whole: bool, terminal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    line = render(EVENT, console=event_console(terminal)).decode()
    assert (EVENT["subject"] in line) is whole


def test_whoever_is_no_terminal_is_shown_whole_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        assert EVENT["subject"] in render(EVENT, console=event_console(nowhere.fileno())).decode()


def test_a_line_says_what_failed_where_why_and_when_it_happened() -> None:
    line = event_line(EVENT, note="  signature ok").plain
    assert "✕ failed   Sales agent          9a1b…0001  ran 5.1 s   seen after 0.4 s   signature ok" in line
    assert line.endswith("  Greeting: [red]upstream timeout")
    assert f" {EVENT['subject']}  ran 5.1 s " in event_line(EVENT, whole_ids=True).plain
    observed = {"at": "2026-11-24T10:00:01.000Z", "notBefore": "2026-11-24T10:00:00.700Z"}
    assert "seen within 0.3 s" in line_of({"observed": observed}, type="execution.paused")
    del observed["notBefore"]
    assert "seen" not in line_of({"observed": observed}, type="execution.paused")


@pytest.mark.parametrize(
    ("type_", "data", "shown"),
    [
        ("account.degraded", {"account": "eu"}, "✕ degraded eu"),
        ("account.recovered", {"account": "eu", "reason": "unauthorized"}, "✓ recovered eu "),
        ("account.degraded", {"account": "eu", "reason": "unreachable", "cause": "dns"}, "  unreachable, dns"),
        ("pipeline.active", {"account": "eu", "reason": "x"}, "✓ pipeline.active eu "),
        ("problem.closed", {"account": "eu", "reason": "removed"}, "✓ problem.closed eu "),
        ("sink.failing", {"sink": "ops", "answer": "503"}, "✕ sink.failing ops "),
        (
            "pipeline.gap",
            {"account": "eu", "pipeline": {"id": "0b5c", "name": "Sales"}, "reason": "deleted"},
            "! pipeline.gap Sales ",
        ),
    ],
)
def test_a_line_of_the_watcher_itself_says_whose_it_is_and_why(type_: str, data: dict[str, Any], shown: str) -> None:
    event = EVENT | {"type": type_, "data": data | {"observed": {"at": "2026-11-24T10:00:01.000Z"}}}
    line = event_line(event).plain
    assert shown in line
    assert line.endswith(data.get("cause") or data.get("reason") or data.get("answer", ""))


@pytest.mark.parametrize("blank", BLANKS)
def test_a_name_or_an_error_that_nobody_sees_is_left_out(blank: str) -> None:
    nodes = [{"id": "n1", "name": blank, "error": "timeout"}]
    line = line_of({"pipeline": {"name": blank}, "execution": {"failedNodes": nodes}})
    assert "✕ failed   default " in line
    assert line.endswith("  timeout")


def test_an_error_without_a_node_and_a_reminder_with_its_newest_failure_are_shown() -> None:
    assert "out of credit" in line_of({"execution": {"id": "9", "status": "failed", "error": "out of credit"}})
    assert "a\\x1b[2Jb c" in line_of({"pipeline": {"name": "a\x1b[2Jb\nc"}})
    at = "2026-11-24T14:00:07.000Z"
    line = line_of({"latest": LATEST}, type="problem.reminder", time=at)
    assert line.startswith(f"{datetime.fromisoformat(at).astimezone():%H:%M:%S} ")
    assert line.endswith("Lookup: upstream returned 404")
    assert not any(word in line for word in ("seen", "ran"))


@pytest.fixture
def terminal() -> Iterator[int]:
    ours, theirs = pty.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)
