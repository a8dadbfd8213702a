"""The reloader over real files; what it has applied is noted instead."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import pytest
from structlog.testing import capture_logs

from watcher.config.loader import ConfigSource
from watcher.config.models import Settings
from watcher.daemon.reload import ConfigFollower
from watcher.domain.errors import StoreError
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics

WATCH = """
accounts: {default: {api_key: k}}
watch: [{pipeline: 1c5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f, executions: [9a1b0000-0000-4000-8000-000000000001]}]
"""


class Applied:
    """Notes what was to be applied; fails so many times first."""

    def __init__(self, failures: int = 0) -> None:
        self.levels: list[str] = []
        self.failures = failures

    async def __call__(self, settings: Settings) -> None:
        self.levels.append(settings.log.level)
        if len(self.levels) <= self.failures:
            raise StoreError("no store today")


class NotedMetrics(Metrics):
    """Says how each reload went, as soon as it has."""

    def __init__(self) -> None:
        super().__init__()
        self.went: asyncio.Queue[float | None] = asyncio.Queue()

    def record_reload(self, *, well: bool, at: datetime) -> None:
        super().record_reload(well=well, at=at)
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
    applied: Callable[[Settings], Awaitable[None]] | None,
    fatal: Callable[[BaseException], None] | None = None,
) -> AsyncIterator[tuple[ConfigFollower, NotedMetrics]]:
    source = ConfigSource(file, environ={})
    metrics, failures = NotedMetrics(), list[BaseException]()
    follower = ConfigFollower(
        source, source.load(), metrics=metrics, clock=Clock(), fatal=fatal or failures.append, check_every_s=0.01
    )
    if applied is not None:
        follower.apply = applied
    follower.begin()
    yield follower, metrics
    await follower.end()
    assert failures == []


@pytest.mark.parametrize("is_ours", [False, True])
async def test_a_mistake_or_an_error_of_ours_while_it_is_read_keeps_the_old_one_and_is_said_once(
    file: Path, monkeypatch: pytest.MonkeyPatch, *, is_ours: bool
) -> None:
    applied = Applied()

    def fail(*_: object, **__: object) -> NoReturn:
        raise ZeroDivisionError("hunter2")

    with capture_logs() as logs:
        async with following(file, applied) as (_, metrics):
            if is_ours:
                monkeypatch.setattr("watcher.config.loader.require_usable", fail)
            write(file, "debug" if is_ours else "loud")
            assert await metrics.next() == 0.0
            monkeypatch.undo()
            write(file, "warning")
            assert await metrics.next() == 1.0
    assert applied.levels == ["warning"]
    said = [(entry["event"], entry["log_level"]) for entry in logs]
    assert said == [("config.rejected", "error"), ("config.reloaded", "info")]
    if is_ours:
        problem = logs[0]["problem"]
        assert problem.startswith("reading it failed (ZeroDivisionError at test_reload.py:")
        assert problem.endswith("); this is a bug: report it")


async def test_being_asked_is_enough(file: Path) -> None:
    applied, metrics, source = Applied(), NotedMetrics(), ConfigSource(file, environ={})
    follower = ConfigFollower(source, source.load(), metrics=metrics, clock=Clock(), fatal=raise_it, check_every_s=60)
    follower.apply = applied
    follower.begin()
    source.asked.set()
    assert await metrics.next() == 1.0
    assert not source.asked.is_set()
    await follower.end()
    assert applied.levels == ["info"]


def raise_it(error: BaseException) -> NoReturn:
    raise error


async def test_each_reason_for_which_it_could_not_be_applied_is_said_once_though_they_come_by_turns(file: Path) -> None:
    tries = iter(["away", "locked", "away", "locked"])

    async def apply(_: Settings) -> None:
        if problem := next(tries, None):
            raise StoreError(problem)

    with capture_logs() as logs:
        async with following(file, apply) as (_, metrics):
            write(file, "debug")
            assert [await metrics.next() for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert [entry["problem"] for entry in logs if entry["event"] == "config.not_applied"] == ["away", "locked"]


@pytest.mark.parametrize("fails", [True, False])
async def test_what_could_not_be_applied_or_still_is_gives_way_to_what_is_newer(file: Path, *, fails: bool) -> None:
    begun, applied = asyncio.Event(), list[str]()

    async def apply(settings: Settings) -> None:
        begun.set()
        if settings.log.level == "debug":
            if fails:
                raise StoreError("no store today")
            await asyncio.Event().wait()
        applied.append(settings.log.level)

    with capture_logs() as logs:
        async with following(file, apply) as (_, metrics):
            write(file, "debug")
            await begun.wait()
            write(file, "warning")
            while await metrics.next() != 1.0:
                pass
    assert applied == ["warning"]
    assert (logs[-1]["event"], logs[-1]["changes"]) == ("config.reloaded", ["log changed"])


async def test_before_there_is_a_store_a_bad_file_is_loud_and_a_good_one_waits(file: Path) -> None:
    applied = Applied()
    async with following(file, None) as (follower, metrics):
        write(file, "loud")
        assert await metrics.next() == 0.0
        write(file, "debug")
        await asyncio.sleep(0.3)
        assert metrics.went.empty()
        follower.apply = applied
        assert await metrics.next() == 1.0
    assert applied.levels == ["debug"]


async def test_an_error_nobody_foresaw_ends_the_daemon(file: Path) -> None:
    async def apply(_: Settings) -> None:
        raise ZeroDivisionError

    failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    async with following(file, apply, fatal=failed.set_result):
        write(file, "debug")
        assert isinstance(await failed, ZeroDivisionError)


@pytest.mark.parametrize(
    ("text", "emitted"),
    [
        ("log: {level: loud}\nhttp: {listen: x}\n", ["log.level: ", "http.listen: "]),
        ("accounts: {default: {api_key: k}}\n", ["nothing to watch: "]),
        (WATCH + "".join(f"k{number}: 1\n" for number in range(60)), [": k"] * 50),  # of many the first
    ],
)
async def test_each_mistake_is_one_problem(file: Path, text: str, emitted: list[str]) -> None:
    with capture_logs() as logs:
        async with following(file, Applied()) as (_, metrics):
            put(file, text)
            assert await metrics.next() == 0.0
    problems = [entry["problem"] for entry in logs if entry["event"] == "config.rejected"]
    assert all(each in problem for each, problem in zip(emitted, problems, strict=True))


def restarts(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("watcher_config_restart_pending")


URL, LISTEN = "store: {url: sqlite:///other.db}\n", "http: {listen: 127.0.0.1:1}\n"


@pytest.mark.parametrize("failures", [0, 10**9])
async def test_a_restart_is_pending_until_the_file_says_again_what_is_in_use(file: Path, failures: int) -> None:
    with capture_logs() as logs:
        async with following(file, Applied(failures)) as (_, metrics):
            for text, pending in (("", 0), (URL, 1), ("store: [\n", 1), (LISTEN, 1), ("", 0), (URL + LISTEN, 1)):
                write(file, "info", more=f"{text}# changed\n")
                await metrics.next()
                assert restarts(metrics) == pending
    said = [entry["key"] for entry in logs if entry["event"] == "config.needs_restart"]
    assert said == ([] if failures else ["store.url", "http.listen", "store.url", "http.listen"])


async def test_what_is_likely_a_mistake_in_a_changed_file_is_logged(file: Path) -> None:
    with capture_logs() as logs:
        async with following(file, Applied()) as (_, metrics):
            sinks = f"sinks: {{page: {{type: webhook, template: pagerduty, routing_key: {'k' * 32}}}}}\n"
            write(file, "info", more=sinks)
            await metrics.next()
    said = [(entry["event"], entry["log_level"]) for entry in logs]
    assert said == [("config.warning", "warning")] * 2 + [("config.reloaded", "info")]
    assert "sinks.page: no rule and no overdue_after can open a problem" in "".join(
        each["problem"] for each in logs[:2]
    )
