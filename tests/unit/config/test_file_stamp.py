"""Files on file systems that answer and that hang: a path whose look or read waits stands in for a dead server."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from watcher.config.file_stamp import HANGS, LEFT_BEHIND_COUNT, Cause, FileError, Files

SHORT_S = 0.05


class DeadPath(type(Path())):  # type: ignore[misc] # the class of the system's paths, which 3.11 makes at run time
    """A path on a server that does not answer, but does again once `back` is set."""

    back = threading.Event()
    asked: list[str]

    def stat(self, **_: Any) -> os.stat_result:
        self.asked.append(str(self))
        self.back.wait()
        return super().stat()  # type: ignore[no-any-return]


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[DeadPath]:
    DeadPath.back, DeadPath.asked = threading.Event(), []
    (tmp_path / "key").write_text("k")
    yield DeadPath(tmp_path / "key")
    DeadPath.back.set()


@pytest.fixture
def files() -> Files:
    return Files(within_s=SHORT_S)


def test_a_file_that_is_there_has_a_stamp_and_one_that_is_not_has_none(tmp_path: Path) -> None:
    stamps = Files().stamps([tmp_path / "a", tmp_path, Path("a\0b")])
    assert [each is not None for each in stamps.values()] == [False, True, False]


def test_a_file_that_hangs_is_known_to_and_holds_up_no_other(dead: DeadPath, files: Files, tmp_path: Path) -> None:
    stamps = files.stamps([dead, tmp_path])
    assert stamps[dead] == HANGS
    assert stamps[tmp_path] == Files().stamps([tmp_path])[tmp_path]


def test_a_file_that_hangs_is_asked_once_until_it_answers(dead: DeadPath, files: Files) -> None:
    for _ in range(3):
        assert files.stamps([dead]) == {dead: HANGS}
    assert len(dead.asked) == 1
    dead.back.set()
    found = Files().stamps([Path(dead)])[Path(dead)]
    deadline = time.monotonic() + 10
    while files.stamps([dead])[dead] != found:
        assert time.monotonic() < deadline


def test_a_file_that_is_known_to_hang_costs_no_more_time(dead: DeadPath) -> None:
    files = Files(within_s=0.5)
    began_at = time.monotonic()
    for _ in range(10):
        assert files.stamps([dead]) == {dead: HANGS}
    assert time.monotonic() - began_at < 4


def test_a_file_that_hangs_is_asked_anew_after_a_while_for_it_may_be_mounted_anew(
    dead: DeadPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watcher.config.file_stamp.ASKED_AGAIN_S", 0.0)
    files = Files(within_s=0.001)
    for _ in range(LEFT_BEHIND_COUNT + 5):
        files.stamps([dead], hurried=True)
    assert len(dead.asked) == LEFT_BEHIND_COUNT + 1


def test_a_file_that_hangs_is_not_read(dead: DeadPath, files: Files) -> None:
    with pytest.raises(FileError, match=r"no answer within 0\.05 s") as caught:
        files.read(dead, limit=9)
    assert caught.value.cause is Cause.HANGS


def test_no_more_threads_are_left_behind_than_a_few_until_the_files_answer(
    dead: DeadPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watcher.config.file_stamp.HURRIED_S", SHORT_S)
    files = Files(within_s=0.001)
    for _ in range(LEFT_BEHIND_COUNT + 5):
        with pytest.raises(FileError):
            files.read(dead, limit=9, hurried=True)
    assert len(dead.asked) == LEFT_BEHIND_COUNT
    dead.back.set()
    deadline = time.monotonic() + 10
    while _outcome(files, dead) != b"k":
        assert time.monotonic() < deadline


def _outcome(files: Files, path: Path) -> bytes | None:
    try:
        return files.read(path, limit=9)
    except FileError:
        return None


def test_a_directory_is_one_if_it_answers(dead: DeadPath, files: Files, tmp_path: Path) -> None:
    assert not files.is_directory(dead)
    assert not Files().is_directory(tmp_path / "none")
    assert Files().is_directory(tmp_path)


def test_what_hangs_cannot_be_watched(dead: DeadPath, files: Files, tmp_path: Path) -> None:
    assert files.directories([dead, tmp_path / "none"]) == {tmp_path}


def test_what_hangs_once_it_was_looked_at_cannot_be_watched_either(tmp_path: Path) -> None:
    class DyingPath(type(Path())):  # type: ignore[misc] # as above
        def __fspath__(self) -> str:
            over.wait()
            return str(self)

        def stat(self, **_: Any) -> os.stat_result:
            return tmp_path.stat()

    over = threading.Event()
    assert Files(within_s=SHORT_S).directories([DyingPath(tmp_path)]) == set()
    over.set()


@pytest.mark.parametrize("path", ["loop", "a\0b", "x" * 300, "x/" * 3000])
def test_a_path_that_leads_nowhere_has_no_more_than_the_directory_it_is_in(path: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert Files().directories([tmp_path / path]) <= {tmp_path}


def test_a_file_may_be_as_large_as_the_limit_and_no_larger(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"123456")
    assert Files().read(tmp_path / "file", limit=6) == b"123456"
    with pytest.raises(FileError) as caught:
        Files().read(tmp_path / "file", limit=5)
    assert caught.value.cause is Cause.TOO_LARGE


def test_a_file_that_says_it_is_empty_and_is_not_is_bounded_too() -> None:
    with pytest.raises(FileError, match="larger than 0 KiB"):
        Files().read(Path("/proc/self/status"), limit=10)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_what_is_written_into_a_pipe_is_read_to_its_end(pipe: Path) -> None:
    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            for _ in range(4):
                file.write(b"x" * 50_000)
                time.sleep(0.01)  # as a slow program does

    threading.Thread(target=write).start()
    assert Files().read(pipe, limit=10**6, pipe=True) == b"x" * 200_000


def test_a_pipe_is_bounded_too(pipe: Path) -> None:
    def write() -> None:
        with suppress(BrokenPipeError), pipe.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 50_000)

    thread = threading.Thread(target=write)
    thread.start()
    with pytest.raises(FileError) as caught:
        Files().read(pipe, limit=10**6, pipe=True)
    thread.join()
    assert caught.value.cause is Cause.TOO_LARGE


def test_a_pipe_that_is_closed_without_a_word_is_empty(pipe: Path) -> None:
    threading.Thread(target=lambda: pipe.open("wb").close()).start()
    assert Files().read(pipe, limit=9, pipe=True) == b""


def test_a_pipe_that_nobody_writes_is_waited_for_only_so_long(pipe: Path, files: Files) -> None:
    with pytest.raises(FileError, match=r"a pipe that nobody wrote and closed within 0\.05 s"):
        files.read(pipe, limit=9, pipe=True)


def test_a_pipe_that_is_never_closed_is_waited_for_only_so_long(pipe: Path, files: Files) -> None:
    fd = os.open(pipe, os.O_RDWR)
    os.write(fd, b"half")
    with pytest.raises(FileError, match="a pipe that nobody wrote and closed"):
        files.read(pipe, limit=9, pipe=True)
    os.close(fd)


def test_what_is_written_into_a_pipe_makes_it_no_other_file(pipe: Path) -> None:
    before = Files().stamps([pipe])
    fd = os.open(pipe, os.O_RDWR)
    os.write(fd, b"more")
    assert Files().stamps([pipe]) == before
    os.close(fd)
