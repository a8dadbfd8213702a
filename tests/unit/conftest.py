"""A clock moved by hand, a real store and accounts that go by it, and the command line in this process."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import pytest
from bench.virtual_time import write_without_waiting
from stores import HeardStore, open_soon
from virtual import FakeClock, Start, account_of

from watcher.cli.main import main
from watcher.runtime.signals import ENDING
from watcher.store.sql_store import SqlStore


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Ended]
RunMain = Callable[..., int]


def ignore(_sinks: Collection[str]) -> None:
    """Nobody waits for what is recorded here."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "watcher.db"


@pytest.fixture
async def store(path: Path, clock: FakeClock) -> AsyncIterator[SqlStore]:
    store = await open_soon(path, clock=clock, busy_timeout_s=0.01)
    await write_without_waiting(store)
    yield store
    await store.close()


@pytest.fixture
def heard(store: SqlStore) -> HeardStore:
    return HeardStore(store)


@pytest.fixture
def start(heard: HeardStore, clock: FakeClock) -> Start:
    return partial(account_of, cast("SqlStore", heard), clock)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with nothing in the environment that would configure the program."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("WATCHER_", "CLERK_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def run_main(alone: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunMain]:
    """Run a command in this process, on its standard streams; return the exit code."""

    def run_main(*words: str, **environ: str) -> int:
        monkeypatch.setattr(sys, "argv", ["watcher", *words])
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    handlers = {signum: signal.getsignal(signum) for signum in ENDING}
    yield run_main
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


@pytest.fixture
def command(run_main: RunMain, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command with its output into pipes; return how it ended."""

    def command(*words: str, **environ: str) -> Ended:
        code = run_main(*words, **environ)
        return Ended(code, *capsys.readouterr())

    return command
