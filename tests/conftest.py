"""What all tests share: files in memory, aioresponses with the aiohttp we use, logging of one's own, PostgreSQL."""

import atexit
import codecs
import fcntl
import gc
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import Mock

import aiohttp
import aioresponses.core
import pytest
import structlog
from plans import PlanCheck, make_files
from postgres import PostgresServer, postgres_server
from receiver import Receiver

MEMORY = Path("/dev/shm")  # noqa: S108 (pytest makes a folder of its own there)
ROOM_BYTES = 2 << 30


def _has_room(folder: Path) -> bool:
    """Say whether files may be written and programs started there, and whether there is room for those of all tests."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC and shutil.disk_usage(folder).free > ROOM_BYTES


if "TMPDIR" not in os.environ and _has_room(MEMORY):
    # On a disk each commit waits for it, ten times as long where others use it too.
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

SHARED = "WATCHER_TESTS_SHARED"
"""The environment variable that names the folder of what all processes of a run share."""

if "PYTEST_XDIST_WORKER" not in os.environ:
    shared = tempfile.TemporaryDirectory(prefix="watcher-shared-")
    atexit.register(shared.cleanup)
    os.environ[SHARED] = shared.name


class AnsweredResponse(aiohttp.ClientResponse):
    """aiohttp ≥ 3.14 wants a `stream_writer` that aioresponses 0.7.9 does not pass (its issue 289)."""

    def __init__(self, *args: Any, stream_writer: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, stream_writer=stream_writer or Mock(output_size=0), **kwargs)


vars(aioresponses.core)["ClientResponse"] = AnsweredResponse

for codec in ("ascii", "idna", "latin-1", "punycode", "utf-8-sig"):
    codecs.lookup(codec)  # first used by a test that may not read Python's own files, it would be unknown from then on

gc.set_threshold(100_000, 20, 50)  # eight thousand cases are looked through each time: 15 of 360 s of processor time


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Run end-to-end tests first: they mostly wait, and nobody waits for them at the end."""
    yield
    items.sort(key=lambda item: "e2e" not in item.path.parts)


MOST_CPU_S = 2.0
"""A test that uses more of its process's processor time is marked `ci`, so that `make test` stays quick.

That is a second on a quiet machine: where both cores are busy, the same test takes twice the processor time.
"""


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fail a test that is too slow for `make test`."""
    began_s = time.process_time()
    result = yield
    used_s = time.process_time() - began_s
    is_late = any(pyfuncitem.iter_markers("ci")) or any(pyfuncitem.iter_markers("soak"))
    is_traced = pyfuncitem.config.pluginmanager.hasplugin("_cov")
    assert is_late or is_traced or used_s < MOST_CPU_S, f"{used_s:.1f} s of processor time: mark it `ci`"
    return result


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> Random:
    """Random numbers that come again with the seed of the run, which a test that fails shows."""
    return Random(f"{request.config.getoption('randomly_seed', 0)}/{request.node.nodeid}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show at a failure how to run the test with the same random numbers again: `random` itself has that seed, too."""
    report = yield
    if report.failed:
        again = f"pytest --randomly-seed={item.config.getoption('randomly_seed', 0)} '{item.nodeid}'"
        report.sections.append(("Again with the same random numbers", again))
    return report


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """Undo what a test configured of logging: the next one starts from nothing."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Run a receiver of HTTP requests."""
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """Run a PostgreSQL server as long as this process has tests that want it.

    `.ci/run` checks the plans of all statements of its own processes on a full database. The process that wants a
    server first makes the files that all of them begin with: a full database takes 7 s.
    """
    if "not ci" in request.config.getoption("markexpr") or all(
        "e2e" in each.path.parts for each in request.session.items
    ):
        with postgres_server() as server:
            yield server
        return
    files = Path(os.environ[SHARED], "postgres")
    with files.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not files.exists():
            make_files(files)
    with postgres_server(None, files) as server, PlanCheck(server) as check:
        checks.append(check)
        yield server
        checks.clear()


checks: list[PlanCheck] = []


@pytest.fixture(autouse=True)
def _cheap_plans() -> Iterator[None]:
    """Fail after a test that sends PostgreSQL a statement whose plan costs too much where tables are full."""
    yield
    for check in checks:
        assert not (costly := check.costly()), "\n".join(costly)
