"""The reloader over real files; what it has applied is noted instead."""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest
from structlog.testing import capture_logs
from virtual import FakeClock
from watchfiles._rust_notify import WatchfilesRustInternalError

from watcher.config.file_stamp import HANGS, Cause, FileError, Files, Stamp
from watcher.config.models import Settings
from watcher.config.source import ConfigSource
from watcher.daemon.reload import Reloader, Reloading
from watcher.domain.errors import StoreError
from watcher.domain.timestamps import Monotonic
from watcher.runtime.clock import SystemClock
from watcher.runtime.metrics import Metrics

WATCH = """
accounts: {default: {api_key: k}}
watch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f, executions: [9a1b0000-0000-4000-8000-000000000001]}]
"""


class Applied:
    """Notes what was to be applied; fails so many times first."""

    def __init__(self, failures: int = 0) -> None:
        self.levels: list[str] = []
        self._failures = failures

    async def __call__(self, settings: Settings) -> None:
        self.levels.append(settings.log.level)
        if len(self.levels) <= self._failures:
            raise StoreError("no store today")


class HurryingClock(FakeClock):
    """Half a second passes whenever it is read."""

    def monotonic(self) -> Monotonic:
        self.advance(0.5)
        return super().monotonic()


class NotedMetrics(Metrics):
    """Says how each reload went, as soon as it has."""

    def __init__(self) -> None:
        super().__init__()
        self.went: asyncio.Queue[float | None] = asyncio.Queue()

    def reloaded(self, *, well: bool, at: datetime) -> None:
        super().reloaded(well=well, at=at)
        self.went.put_nowait(self.registry.get_sample_value("watcher_config_last_reload_successful"))

    async def next(self) -> float | None:
        async with asyncio.timeout(10):
            return await self.went.get()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "watcher.yaml"
    write(file, "info")
    return file


def write(file: Path, level: str, *, more: str = "") -> None:
    put(file, f"{WATCH}log: {{level: {level}}}\n{more}")


def put(file: Path, text: str) -> None:
    file.write_text(text)


@asynccontextmanager
async def following(
    file: Path,
    applied: Applied,
    *,
    reader: Files | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Reloading, NotedMetrics]]:
    reloading = Reloading(ConfigSource(file, environ={}, clock=SystemClock(), reader=reader), asyncio.Event())
    metrics = NotedMetrics()
    settings = reloading.source.load()
    options = {"clock": FakeClock()} | options
    reloader = Reloader(reloading, settings=settings, apply=applied, metrics=metrics, **options)
    task = asyncio.create_task(reloader.run())
    yield reloading, metrics
    task.cancel()
    await asyncio.wait([task])


async def test_a_change_is_applied_and_so_is_the_next(file: Path) -> None:
    applied = Applied()
    async with following(file, applied) as (_, metrics):
        for level in ("debug", "warning"):
            write(file, level)
            assert await metrics.next() == 1.0
    assert applied.levels == ["debug", "warning"]


class BuggyFiles(Files):
    """Fails as nothing should while a file holds a certain word."""

    def read(self, path: Path, *, limit: int, pipe: bool = False, hurried: bool = False) -> bytes:
        content = super().read(path, limit=limit, pipe=pipe, hurried=hurried)
        if b"odd" in content:
            raise ZeroDivisionError("hunter2")
        return content


async def test_an_error_of_ours_while_it_is_read_keeps_the_old_one_as_a_mistake_does(file: Path) -> None:
    applied = Applied()
    with capture_logs() as logs:
        async with following(file, applied, reader=BuggyFiles()) as (_, metrics):
            write(file, "debug", more="# odd")
            assert await metrics.next() == 0.0
            write(file, "warning")
            assert await metrics.next() == 1.0
    assert applied.levels == ["warning"]
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("config.rejected", "error"),
        ("config.reloaded", "info"),
    ]
    (problem,) = logs[0]["problems"]
    assert problem.startswith("reading it failed (ZeroDivisionError at test_reload.py:")
    assert problem.endswith("); this is a bug: report it")


async def test_being_asked_is_enough(file: Path) -> None:
    applied = Applied()
    async with following(file, applied) as (reloading, metrics):
        reloading.asked.set()
        assert await metrics.next() == 1.0
        assert not reloading.asked.is_set()
    assert applied.levels == ["info"]


async def test_what_could_not_be_applied_is_tried_again(file: Path) -> None:
    applied = Applied(failures=2)
    with capture_logs() as logs:
        async with following(file, applied, check_every_s=0.01) as (_, metrics):
            write(file, "debug")
            assert [await metrics.next() for _ in range(3)] == [0.0, 0.0, 1.0]
    assert applied.levels == ["debug"] * 3
    assert [entry["event"] for entry in logs] == ["config.not_applied", "config.not_applied", "config.reloaded"]


class HangingApplied(Applied):
    """Never ends with the level `debug` unless it is allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.emitted = asyncio.Event(), asyncio.Event()
        self.under_way = 0

    async def __call__(self, settings: Settings) -> None:
        await super().__call__(settings)
        assert self.under_way == 0
        self.under_way += 1
        try:
            await self._hang(settings)
        finally:
            for _ in range(3):
                await asyncio.sleep(0)  # as what is broken off in several places
            self.under_way -= 1

    async def _hang(self, settings: Settings) -> None:
        if settings.log.level == "debug":
            self.begun.set()
            await self.emitted.wait()


async def test_what_is_still_being_applied_gives_way_to_what_is_newer(file: Path) -> None:
    applied = HangingApplied()
    with capture_logs() as logs:
        async with following(file, applied, check_every_s=0.01) as (_, metrics):
            write(file, "debug")
            await applied.begun.wait()
            write(file, "warning")
            assert await metrics.next() == 1.0
    assert applied.levels == ["debug", "warning"]
    assert [(entry["event"], entry["changes"]) for entry in logs] == [("config.reloaded", ["log.level changed"])]


async def test_a_bad_file_breaks_nothing_off_and_stays_the_one_that_is_not_in_use(file: Path) -> None:
    applied = HangingApplied()
    with capture_logs() as logs:
        async with following(file, applied, check_every_s=0.01) as (_, metrics):
            write(file, "debug")
            await applied.begun.wait()
            write(file, "loud")
            assert await metrics.next() == 0.0
            applied.emitted.set()
            assert await metrics.next() == 0.0
            write(file, "warning")
            assert await metrics.next() == 1.0
    assert applied.levels == ["debug", "warning"]
    assert [entry["event"] for entry in logs] == ["config.rejected", "config.reloaded", "config.reloaded"]


async def test_whoever_stops_following_breaks_off_what_is_being_applied(file: Path) -> None:
    applied = HangingApplied()
    async with following(file, applied, check_every_s=0.01):
        write(file, "debug")
        await applied.begun.wait()
    assert applied.under_way == 0


async def test_an_error_nobody_foresaw_ends_it_as_it_is(file: Path) -> None:
    async def apply(_: Settings) -> None:
        raise ZeroDivisionError

    reloading = Reloading(ConfigSource(file, environ={}, clock=SystemClock()), asyncio.Event())
    settings = reloading.source.load()
    reloading.asked.set()
    with pytest.raises(ZeroDivisionError):
        await Reloader(reloading, settings=settings, apply=apply, metrics=Metrics(), clock=FakeClock()).run()


async def test_a_bad_file_is_not_applied_and_said_once(file: Path) -> None:
    applied = Applied()
    with capture_logs() as logs:
        async with following(file, applied, check_every_s=0.01) as (_, metrics):
            write(file, "loud")
            assert await metrics.next() == 0.0
            write(file, "debug")
            assert await metrics.next() == 1.0
    assert [entry["event"] for entry in logs] == ["config.rejected", "config.reloaded"]
    assert applied.levels == ["debug"]


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (WatchfilesRustInternalError("no inotify instance"), "WatchfilesRustInternalError"),
    ],
)
async def test_where_nothing_reports_changes_the_files_are_read_again_and_again(
    file: Path, failure: Exception, said: str
) -> None:
    def no_watches(*_: object, **__: object) -> NoReturn:
        raise failure

    applied = Applied()
    with capture_logs() as logs:
        async with following(file, applied, watch=no_watches, check_every_s=0.01) as (reloading, metrics):
            for _ in range(3):
                reloading.asked.set()
                assert await metrics.next() == 1.0
            write(file, "debug")
            assert await metrics.next() == 1.0
    assert applied.levels == ["info"] * 3 + ["debug"]
    assert [entry["error"] for entry in logs if entry["event"] == "config.unwatched"] == [said]


async def test_what_keeps_changes_from_being_reported_but_once_is_not_said(file: Path) -> None:
    fails = iter([True, False, True, False, True, True, False, True, True])
    over = asyncio.Event()

    async def watch(*_: object, **__: object) -> AsyncGenerator[None]:
        if (failing := next(fails, None)) is None:
            over.set()
            await asyncio.Event().wait()
        if failing:
            raise OSError(2, "No such file or directory")
        yield

    with capture_logs() as logs:
        async with following(file, Applied(), watch=watch, check_every_s=0.001):
            async with asyncio.timeout(10):
                await over.wait()
    assert [entry["event"] for entry in logs] == ["config.unwatched"] * 2


async def test_nothing_is_read_while_nothing_changes(file: Path) -> None:
    applied = Applied()
    rests = iter((0, 3))

    async def watch(*_: object, **__: object) -> AsyncGenerator[None]:
        for _rest in range(next(rests)):
            yield
        write(file, "debug")
        yield

    async with following(file, applied, watch=watch) as (_, metrics):
        assert await metrics.next() == 1.0
    assert applied.levels == ["debug"]


async def test_what_needs_a_restart_is_said_for_as_long_as_it_does(file: Path) -> None:
    with capture_logs() as logs:
        async with following(file, Applied()) as (reloading, metrics):
            write(file, "info", more="store: {url: sqlite:///other.db}\nhttp: {listen: 127.0.0.1:1}\n")
            assert await metrics.next() == 1.0
            reloading.asked.set()
            assert await metrics.next() == 1.0
            write(file, "info")
            assert await metrics.next() == 1.0
    assert [entry.get("key") for entry in logs] == ["store.url", "http.listen", None] * 2 + [None]


@pytest.mark.parametrize(
    ("text", "emitted"),
    [
        ("log: {level: loud}\nhttp: {listen: x}\n", ["log.level: ", "http.listen: "]),
        ("accounts: {default: {api_key: k}}\n", ["nothing to watch: "]),
    ],
)
async def test_each_mistake_is_one_problem(file: Path, text: str, emitted: list[str]) -> None:
    with capture_logs() as logs:
        async with following(file, Applied()) as (_, metrics):
            await asyncio.to_thread(file.write_text, text)
            assert await metrics.next() == 0.0
    problems = logs[0]["problems"]
    assert len(problems) == len(emitted)
    assert all(each in problem for each, problem in zip(emitted, problems, strict=True))


SECRET = WATCH.replace("api_key: k", "api_key_file: ./key")


def restarts(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("watcher_config_restart_pending")


@pytest.mark.parametrize("more", ["store: {url: sqlite:///other.db}\n", "http: {listen: 127.0.0.1:1}\n"])
async def test_a_restart_is_pending_until_the_file_says_again_what_is_in_use(more: str, file: Path) -> None:
    async with following(file, Applied()) as (_, metrics):
        assert restarts(metrics) == 0
        for text, pending in ((more, 1), ("store: [\n", 1), ("", 0), (more, 1)):
            write(file, "info", more=text)
            await metrics.next()
            assert restarts(metrics) == pending


async def test_a_restart_is_pending_while_the_rest_cannot_be_applied_yet(file: Path) -> None:
    applied = Applied(failures=10**9)
    async with following(file, applied, check_every_s=0.01) as (_, metrics):
        write(file, "info", more="http: {listen: 127.0.0.1:1}\n")
        assert await metrics.next() == 0
        assert restarts(metrics) == 1


async def test_a_pipe_that_takes_the_place_of_a_secret_is_refused_and_the_next_file_taken(file: Path) -> None:
    key = file.with_name("key")
    key.write_text("k")
    put(file, SECRET)
    applied = Applied()
    with capture_logs() as logs:
        async with following(file, applied) as (_, metrics):
            os.mkfifo(file.with_name("next"))
            file.with_name("next").rename(key)
            assert await metrics.next() == 0
            file.with_name("next").write_text("k2")
            file.with_name("next").rename(key)
            assert await metrics.next() == 1
    assert [entry["event"] for entry in logs] == ["config.rejected", "config.reloaded"]
    assert "accounts.default.api_key_file: cannot read ./key (a named pipe" in logs[0]["problems"][0]


@pytest.mark.parametrize("name", ["loop", '"a\\0b"', "x" * 300, "/dev/zero"])
async def test_a_secret_that_is_no_file_is_refused_and_the_next_configuration_taken(name: str, file: Path) -> None:
    file.with_name("loop").symlink_to("loop")
    applied = Applied()
    async with following(file, applied) as (_, metrics):
        put(file, SECRET.replace("./key", name))
        assert await metrics.next() == 0
        write(file, "debug")
        assert await metrics.next() == 1
    assert applied.levels == ["debug"]


class Hanging(Files):
    """A file system that can be made to hang, one file of it or all."""

    def __init__(self) -> None:
        super().__init__(within_s=0.01)
        self.hangs = threading.Event()
        self.reads_count = 0

    def stamps(self, paths: Iterable[Path], *, hurried: bool = False) -> dict[Path, Stamp | None]:
        found = super().stamps(paths, hurried=hurried)
        return dict.fromkeys(found, HANGS) if self.hangs.is_set() else found


async def test_a_file_system_that_hangs_is_loud_once_and_followed_again_when_it_answers(file: Path) -> None:
    reader, applied = Hanging(), Applied()
    with capture_logs() as logs:
        async with following(file, applied, reader=reader, check_every_s=0.01) as (reloading, metrics):
            reader.hangs.set()
            assert await metrics.next() == 0
            reloading.asked.set()
            assert await metrics.next() == 0
            write(file, "debug")
            reader.hangs.clear()
            assert await metrics.next() == 1
    assert [entry["event"] for entry in logs] == ["config.rejected", "config.rejected", "config.reloaded"]
    assert "watcher.yaml: cannot read this file (no answer" in logs[0]["problems"][0]
    assert applied.levels == ["debug"]


class Twitching(Hanging):
    """A file system that hangs each time a file is read, though it says how the file looks."""

    def read(self, path: Path, *, limit: int, pipe: bool = False, hurried: bool = False) -> bytes:
        if self.hangs.is_set():
            self.reads_count += 1
            raise FileError(Cause.HANGS, "no answer within 0 s")
        return super().read(path, limit=limit, pipe=pipe, hurried=hurried)

    def stamps(self, paths: Iterable[Path], *, hurried: bool = False) -> dict[Path, Stamp | None]:
        return Files.stamps(self, paths, hurried=hurried)


async def test_what_hangs_only_when_it_is_read_is_tried_on_and_said_once(file: Path) -> None:
    reader, applied = Twitching(), Applied()
    with capture_logs() as logs:
        async with following(file, applied, reader=reader, check_every_s=0.01, clock=HurryingClock()) as (_, metrics):
            reader.hangs.set()
            write(file, "debug")
            for _ in range(3):
                assert await metrics.next() == 0
            reader.hangs.clear()
            assert await metrics.next() == 1
    assert [entry["event"] for entry in logs] == ["config.rejected", "config.reloaded"]
    assert applied.levels == ["debug"]


async def test_a_file_that_never_rests_is_read_nevertheless(file: Path) -> None:
    over = threading.Event()

    def write_on() -> None:
        while not over.is_set():
            file.write_text(f"{WATCH}log: {{level: loud}}\n")
            over.wait(0.01)

    with capture_logs() as logs:
        async with following(file, Applied(), clock=HurryingClock()) as (_, metrics):
            writer = threading.Thread(target=write_on)
            writer.start()
            assert await metrics.next() == 0
            over.set()
            writer.join()
    assert logs[0]["event"] == "config.rejected"


async def test_of_many_mistakes_the_log_has_some_and_how_many_more(file: Path) -> None:
    with capture_logs() as logs:
        async with following(file, Applied()) as (_, metrics):
            put(file, WATCH + "".join(f"k{number}: 1\n" for number in range(60)))
            assert await metrics.next() == 0
    assert (len(logs[0]["problems"]), logs[0]["more"]) == (50, 10)
