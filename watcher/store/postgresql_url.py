"""Judges the URL of a PostgreSQL store by libpq itself, before anything connects. Needs psycopg.

No message shows a part of the URL but the names of its parameters: a password may stand anywhere in it.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from watcher.runtime.units import InvalidValueError

_RIGHT = "write postgresql://user@host/db"
_ALLOWED = "correct it as libpq's documentation says"
_SECRETS = ("password", "sslpassword")
_NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
"""What is read only while a connection over TCP is made."""

_NOWHERE = "/dev/null"
"""As a host it is a directory for sockets, and holds none: libpq judges all it is given, tries it, and has failed."""


def check_postgresql_url(url: str) -> None:
    """Raise `InvalidValueError` for a URL that libpq would refuse, whatever server there is, or that holds a secret."""
    if re.search(r"\s", url):
        raise InvalidValueError("is not a URL", remedy=_RIGHT, quote=False)
    if "#" in url:  # most readers of URLs end there, libpq does not
        raise InvalidValueError("holds a #", remedy="write %23 for it", quote=False)
    try:
        given = conninfo_to_dict(url)
    except ProgrammingError as error:
        odd = re.search(r'invalid URI query parameter: "(\w+)"', str(error))
        problem = f"has the parameter {odd[1]}, which libpq does not know" if odd else "is not a URL"
        raise InvalidValueError(problem, remedy=_RIGHT, quote=False) from None
    if any(given.get(name) for name in _SECRETS):
        remedy = "write it into a file, and name that in store.password_file"
        raise InvalidValueError("holds a password", remedy=remedy, quote=False)
    for name in _NUMBERS:
        if not re.fullmatch(r"-?\d*", str(given.get(name) or ""), re.ASCII):
            raise InvalidValueError(f"has a {name} that is no number", remedy=_ALLOWED, quote=False)
    if refusal := _refusal(given):
        problem = re.sub(r':? "([^"]*)"', lambda quoted: f" {quoted[1]}" if quoted[1] in given else "", refusal)
        if variable := _variable_at_fault(given, refusal):
            problem = f"cannot be used with ${variable} as it is set: libpq refuses that ({problem})"
            raise InvalidValueError(problem, remedy="correct or unset the variable", quote=False)
        raise InvalidValueError(f"is refused by libpq ({problem})", remedy=_ALLOWED, quote=False)


def _refusal(given: Mapping[str, Any]) -> str:
    """Return what libpq says against it, values and all; nothing if it would go on to connect.

    What the URL leaves out libpq takes from its environment, as it will for a connection.
    """
    hosts_count = str(given.get("hostaddr") or given.get("host") or "").count(",") + 1
    nowhere = {"host": ",".join([_NOWHERE] * hosts_count), "hostaddr": "", "gssencmode": "disable"}  # GSS needs TCP
    tried = pq.PGconn.connect(make_conninfo(**{**given, **nowhere}).encode())
    said = tried.error_message.decode(errors="replace").splitlines()
    tried.finish()
    return next((line for line in said if _NOWHERE not in line and not line.startswith("\t")), "")


def _variable_at_fault(given: Mapping[str, Any], refusal: str) -> str:
    """Return the variable without which libpq would say something else; none if it is the URL."""
    for option in pq.Conninfo.parse(b""):
        name, variable = option.keyword.decode(), (option.envvar or b"").decode()
        if variable in os.environ and name not in given:
            default = (option.compiled or b"").decode()
            if _refusal({**given, name: default}) != refusal:
                return variable
    return ""
