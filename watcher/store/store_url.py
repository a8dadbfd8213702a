"""Checks the URL of a store before the store is opened: for the configuration file and for `copy-store`.

Messages show only the names of the URL's parameters, because any other part may be a password.
"""

import re
from importlib import import_module
from pathlib import Path

from watcher.runtime.units import InvalidValueError

_SQLITE = re.compile(r"sqlite:///(?!:memory:)[^?#\0]*[^?#/\0]")
_RIGHT = "write postgresql://user@host/db"


def is_postgresql(url: str) -> bool:
    """Return whether a store's URL names a PostgreSQL database."""
    return url.startswith(("postgresql://", "postgres://"))


def path_of(url: str) -> Path:
    """Return the file of a valid URL, with all links resolved, so that all names of a file share one lock."""
    return Path(url.removeprefix("sqlite:///")).resolve()


def check_store_url(url: str) -> str:
    """Return the URL if it can be the URL of a store. Raises `InvalidValueError` otherwise."""
    if is_postgresql(url):
        _check_postgresql(url)
    elif not _SQLITE.fullmatch(url):
        remedy = "write sqlite:///watcher.db, sqlite:////var/lib/watcher/watcher.db or postgresql://user@host/db"
        raise InvalidValueError("is not the address of a SQLite file or a PostgreSQL database", remedy=remedy)
    return url


def _check_postgresql(url: str) -> None:
    """Let libpq itself parse the URL, before any attempt to connect."""
    try:
        psycopg, conninfo = import_module("psycopg"), import_module("psycopg.conninfo")
    except ImportError:
        remedy = "from a checkout: pip install '.[postgres]'"
        raise InvalidValueError("postgresql needs the extra", remedy=remedy) from None
    if re.search(r"\s", url):
        raise InvalidValueError("is not a URL", remedy=_RIGHT)
    if "#" in url:  # most parsers of URLs stop at "#", libpq does not
        raise InvalidValueError("holds a #", remedy="write %23 for it")
    try:
        given = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        odd = re.search(r'invalid URI query parameter: "(\w+)"', str(error))
        problem = f"has the parameter {odd[1]}, which libpq does not know" if odd else "is not a URL"
        raise InvalidValueError(problem, remedy=_RIGHT) from None
    if given.get("password") or given.get("sslpassword"):
        raise InvalidValueError("holds a password", remedy="write it into a file, and name that in store.password_file")
    # Otherwise libpq would show the port in its error, and the port may be the end of a password.
    if not re.fullmatch(r"[\d,]*", given.get("port") or "", re.ASCII):
        raise InvalidValueError("has a port that is no number", remedy=_RIGHT)
