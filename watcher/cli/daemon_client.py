"""The HTTP client of commands that ask a running daemon.

Answers are plain JSON: to import the models in `watcher.web.models` takes most of a second.
"""

import http.client
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import urlencode, urlsplit

import typer

from watcher.cli.local_daemon import NoAnswerError, daemon_address, local_url
from watcher.cli.shell import put_error
from watcher.config.files import DEFAULTS, LISTEN_VARIABLE, find_config
from watcher.config.locate import daemon_document, http_token
from watcher.domain.errors import ConfigError, DaemonError, Exit, UsageError
from watcher.runtime.terminal import harmless
from watcher.runtime.version import VERSION

UrlOption = Annotated[
    str | None, typer.Option(metavar="URL", envvar="WATCHER_URL", help="The daemon; default: http.listen of the file.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, of a list one object per line; errors, too.")]
Query = Sequence[tuple[str, str]]

TIMEOUT_S = 30.0
"""Longest wait for an answer, in seconds, before a command asks whether the daemon still works.

The daemon may take 20 s to answer a request to do something."""

FILL_S = 2.0
"""Seconds for which the list that a terminal shows is read on, if its pages end early."""


class Answer(dict[str, Any]):
    """A JSON object of an answer. A missing key raises `DaemonError`: the daemon must have another version."""

    def __missing__(self, key: str) -> NoReturn:
        raise _other_version(f'no "{key}" in its answer')


class DaemonClient:
    """The client of one daemon. Each request has a connection of its own."""

    def __init__(self, url: str, token: str | None, *, timeout_s: float = TIMEOUT_S) -> None:
        """Check the URL, without connecting. Raises `UsageError` for an invalid URL."""
        with suppress(ValueError):  # raised for an invalid host or port
            parts = urlsplit(url)
            if parts.scheme in {"http", "https"} and parts.hostname and parts.username is None:
                kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
                self._connect = partial(kind, parts.hostname, parts.port, timeout=timeout_s)
                self._path = parts.path.rstrip("/")
                self._headers = {"Authorization": f"Bearer {token}"} if token else {}
                self.url = f"{parts.scheme}://{parts.netloc}{self._path}"
                return
        raise UsageError("--url, or WATCHER_URL, is no address of a daemon; write http://127.0.0.1:8080")

    def send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, is_patient: bool = False
    ) -> tuple[int, bytes]:
        """Send a request; return the status code and the body of the answer. Raises `DaemonError` without an answer.

        With `is_patient` it waits for an answer as long as the daemon still answers other requests.
        """
        connection = self._connect()
        headers = self._headers if method == "GET" else {**self._headers, "Content-Type": "application/json"}
        try:
            connection.request(method, self._path + path, None if body is None else json.dumps(body), headers)
            while True:
                try:
                    response = connection.getresponse()
                    break
                except TimeoutError:
                    if not is_patient:
                        raise
                    self.send("GET", "/livez")
            return response.status, response.read(64 << 20)
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswerError(self.url, error) from None
        finally:
            connection.close()

    def ask(self, method: str, path: str, *, query: Query = (), body: Mapping[str, Any] | None = None) -> Answer:
        """Send a request to the daemon's API; return the answer. Raises `DaemonError`, also for a refusal."""
        code, content = self._read(method, path, query, body)
        answer: object = None
        with suppress(ValueError):
            answer = json.loads(content or b"{}", object_hook=Answer)
        if not isinstance(answer, Answer):
            raise _other_version(f"{self.url} answers {code} to {method} /api/v1{path}")
        return answer

    def csv(self, path: str, *, query: Query) -> str:
        """Return an answer of the daemon's API in CSV. Raises `DaemonError`, also for a refusal."""
        return self._read("GET", path, [*query, ("format", "csv")])[1].decode()

    def _read(self, method: str, path: str, query: Query, body: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
        code, content = self.send(
            method, f"/api/v1{path}{'?' if query else ''}{urlencode(query)}", body, is_patient=True
        )
        if code < 300:
            return code, content
        answer: object = None
        with suppress(ValueError):
            answer = json.loads(content, object_hook=Answer)
        if not isinstance(answer, Answer) or "title" not in answer:
            raise _other_version(f"{self.url} answers {code} to {method} /api/v1{path}")
        why = harmless(str(answer.get("detail") or answer["title"]))
        if code in {401, 403, 429}:
            hint = "" if code == 403 else "set WATCHER_TOKEN to the http.token of its file"
            raise DaemonError(f"the daemon at {self.url} refuses ({code}): {why}", hint=hint, is_refusal=True)
        exit_code = Exit.NOT_FOUND if code == 404 else Exit.USAGE if code < 500 else Exit.FAILED
        raise DaemonError(why, code=exit_code, is_refusal=code < 500)

    def items(self, path: str, query: Query = ()) -> Iterator[Answer]:
        """Yield all items of a list of the API, page by page. On a terminal stop after 2 s if pages end early."""
        after: Query = ()
        until = time.monotonic() + FILL_S
        while True:
            page = self.ask("GET", path, query=[*query, ("limit", "200"), *after])
            yield from page["items"]
            if not page.get("next"):
                return
            if sys.stdout.isatty() and "lookedBackTo" in page and time.monotonic() > until:
                put_error(f"hint: this looked back to {page['lookedBackTo']}; piped, it goes on to the end")
                return
            after = [("after", page["next"])]


def _other_version(what: str) -> DaemonError:
    hint = f"is it clerk-watcher {VERSION}, as this command is?"
    return DaemonError(f"what answers is another program, or another version ({what})", hint=hint)


def find_daemon(config: Path | None, *, url: str | None = None) -> DaemonClient:
    """Return a client of the daemon at `url`, by default at `http.listen` of the configuration.

    The token is `WATCHER_TOKEN`, by default `http.token` of the configuration. With `url` a file
    that cannot be read counts as absent. Raises `ConfigError`, `UsageError` and `DaemonError`.
    """
    file: Path | None = None
    with suppress(ConfigError):
        file = find_config(config, environ=os.environ)
    try:
        document = daemon_document(file, environ=os.environ)
    except ConfigError:
        if not url:  # another daemon may listen at the default address
            raise
        document = daemon_document(None, environ=os.environ)
    if not url:
        url = local_url(daemon_address(document.get(DEFAULTS[LISTEN_VARIABLE]), environ=os.environ))
    token = os.environ.get("WATCHER_TOKEN", "").strip() or http_token(document)
    if token and not (token.isascii() and token.isprintable()):
        raise UsageError("WATCHER_TOKEN, or http.token, holds what no header can; write it again on one line")
    return DaemonClient(url, token)
