"""What is likely a mistake in how a sink is to connect: what is refused, what cannot be judged, what has expired."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path as FilePath

from yarl import URL

from watcher.config.document import Document, quoted
from watcher.config.file_stamp import CONFIG_BYTES, FileError
from watcher.config.models import Settings
from watcher.config.problems import Problem
from watcher.config.yaml_tree import Path
from watcher.delivery.sinks.http_settings import HttpSinkSettings
from watcher.delivery.sinks.tls_settings import TlsSettings
from watcher.domain.errors import ConfigError
from watcher.runtime.certificates import certificates_in, expires_at, is_trust_file
from watcher.runtime.http_client import proxy_for
from watcher.runtime.private_addresses import is_private_host

_SHOWN_LIMIT = 1024

TRUST_VARIABLE = "SSL_CERT_FILE"
"""What OpenSSL reads when it starts, and says nothing of if it cannot."""


def of_connections(document: Document, settings: Settings, *, now: datetime) -> Iterator[Problem]:
    """Return what a person should check. `now` is the wall clock."""
    for name, sink in settings.sinks.items():
        if not isinstance(sink, HttpSinkSettings):
            continue
        if not sink.allow_private:
            yield from _of_private(document, URL(sink.address), path=("sinks", name))
        if sink.tls is not None:
            yield from _of_expiry(document, sink.tls, path=("sinks", name, "tls"), now=now)


def of_trust(document: Document, settings: Settings, *, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Warn of the environment's file of CAs if OpenSSL passes over it, and anything is to be verified by it."""
    given = environ.get(TRUST_VARIABLE)
    if given is None or not _relies_on_environment(settings):
        return
    shown = quoted(given, limit=_SHOWN_LIMIT)
    try:
        if is_trust_file(document.reader.read(FilePath(given), limit=CONFIG_BYTES)):
            return
        problem, remedy = f"{shown} holds no certificate, or a broken one", "write all of it as PEM"
    except FileError as error:
        problem, remedy = f"cannot read {shown} ({error})", "correct the path or its permissions"
    problem = f"{problem}: no CA in it is trusted, and https:// may fail"
    yield Problem(f"${TRUST_VARIABLE}", 0, 0, "", problem, f"{remedy}, or unset the variable")


def _relies_on_environment(settings: Settings) -> bool:
    sinks = [sink for sink in settings.sinks.values() if isinstance(sink, HttpSinkSettings)]
    urls = [account.base_url for account in settings.accounts.values()]
    urls += [sink.target for sink in sinks if sink.tls is None or sink.tls.ca_file is None]
    return any(url.startswith("https:") for url in urls)


def _of_private(document: Document, url: URL, *, path: Path) -> Iterator[Problem]:
    if is_private_host(url.raw_host or ""):
        problem = "is a private address, which allow_private: false refuses: nothing will be sent"
        yield document.remark((*path, "url"), problem, remedy="correct it, or remove allow_private")
        return
    with suppress(ConfigError):  # of a proxy that cannot be used; it is refused where it is used
        if proxy_for(url).url is not None:
            problem = f"{url.scheme.upper()}_PROXY resolves the name in url, so it is not judged here"
            yield document.remark((*path, "allow_private"), problem, remedy="have the proxy refuse private addresses")


def _of_expiry(document: Document, tls: TlsSettings, *, path: Path, now: datetime) -> Iterator[Problem]:
    """Warn of a certificate that is over; of CAs only if all are: a bundle keeps some for long."""
    if tls.cert_file is not None:
        at = expires_at(certificates_in(tls.cert_file.content)[0])
        if at <= now:
            problem = f"its certificate expired on {at:%Y-%m-%d}"
            yield document.remark((*path, "cert_file"), problem, remedy="renew it; a new one is taken up by itself")
    if tls.ca_file is not None:
        at = max(map(expires_at, certificates_in(tls.ca_file.content)))
        if at <= now:
            problem = f"the last of its certificates expired on {at:%Y-%m-%d}, so nothing is trusted"
            yield document.remark((*path, "ca_file"), problem, remedy="get those that are valid now")
