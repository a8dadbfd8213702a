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
def command(alone: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run a command with its output into pipes; return how it ended."""

    def command(*words: str, **environ: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["watcher", *words])
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    handlers = {signum: signal.getsignal(signum) for signum in ENDING}
    yield command
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
