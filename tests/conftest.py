"""What all tests share: files in memory, aioresponses with the aiohttp we use, logging of one's own, PostgreSQL."""

import atexit
import codecs
import fcntl
import logging
import os
import re
import shutil
import tempfile
from collections import Counter
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


LONGEST = ["e2e_pipelines", "account_poller_fairness", "e2e_browser", "pages_layout", "e2e_groups", "e2e_chaos"]
LONGEST += ["e2e_alertmanager", "e2e_demo", "e2e_replicas", "api_document", "e2e_kill", "e2e_commands"]
LONGEST += ["e2e_operations", "e2e_strangers", "e2e_upgrade"]
"""Of the long tests these files take longest, the first of them most."""


def _place(item: pytest.Item) -> int:
    name = item.path.stem.removeprefix("test_")
    return LONGEST.index(name) if item.get_closest_marker("long") and name in LONGEST else len(LONGEST)


STANDS_AS = {"heavy": r"mark\.heavy", "untraced": r"mark\.untraced", "long": r"mark\.long|thinned"}
"""What the Makefile looks for in the file of a test that has the mark. `thinning.py` marks parameters."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Mark heavy tests as untraced, and put the files that take longest first: nobody waits for them at the end.

    Refuse a mark that does not stand in the file of its test: the Makefile finds tests by the text of their files.
    """
    for mark, text in STANDS_AS.items():
        files = {item.path for item in items if item.get_closest_marker(mark)}
        if missed := [str(file) for file in files if not re.search(text, file.read_text(encoding="utf-8"))]:
            raise pytest.UsageError(f"the mark {mark} must stand in the file of the test itself: {missed}")
    for item in items:
        if item.get_closest_marker("heavy"):
            item.add_marker("untraced")
    yield
    items.sort(key=_place)


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Add what was skipped to the list in `$SKIPPED`, if that is set: two runs side by side end with one list."""
    skipped = terminalreporter.stats.get("skipped", [])
    is_whole = not hasattr(terminalreporter.config, "workerinput")  # of several processes one knows of all
    if is_whole and skipped and (path := os.environ.get("SKIPPED")):
        whys = [(each.nodeid.partition("::")[0], each.longrepr[2].removeprefix("Skipped: ")) for each in skipped]
        with Path(path).open("a", encoding="utf-8") as file:
            file.writelines(f"SKIPPED [{count}] {name}: {why}\n" for (name, why), count in Counter(whys).items())


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
def postgres() -> Iterator[PostgresServer]:
    """Run a PostgreSQL server as long as this process has tests that want it.

    The process that wants one first makes the files that all of them begin with: a full database takes 7 s.
    """
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
