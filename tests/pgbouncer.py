"""PgBouncer in transaction mode, as Debian packages it: each transaction may get another connection to the server."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest
from postgres import PostgresServer, as_nobody

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

installed = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed: apt-get install pgbouncer")
"""For tests that need it."""

_SETTINGS = """
[databases]
* = host={server} user=postgres
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = 6
server_login_retry = 1
"""


@contextmanager
def pooled(server: PostgresServer, url: str) -> Iterator[str]:
    """Give the URL of the same database through a pooler that runs meanwhile."""
    folder = server.folder("pgbouncer")
    settings = folder / "pgbouncer.ini"
    direct, _, where = url.partition("?host=")
    settings.write_text(_SETTINGS.format(server=where, folder=folder))
    through = f"{direct.replace('@/', '@:6432/')}?host={folder}"
    process = subprocess.Popen([str(PROGRAM), "-q", str(settings)], stderr=subprocess.DEVNULL, **as_nobody())
    try:
        _wait_until_it_answers(through, process)
        yield through
    finally:
        process.kill()  # asked to end, it would wait for its clients
        process.wait()
        shutil.rmtree(folder)


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with suppress(psycopg.OperationalError), psycopg.connect(url):
            return
    raise RuntimeError(f"pgbouncer ended with exit code {process.returncode}")
