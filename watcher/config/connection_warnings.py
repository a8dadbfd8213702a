"""What is likely a mistake in how a sink is to connect: what is refused, what cannot be judged, what has expired."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime

from yarl import URL

from watcher.config.document import Document
from watcher.config.models import Settings
from watcher.config.problems import Problem
from watcher.config.yaml_tree import Path
from watcher.delivery.sinks.http_settings import HttpSinkSettings
from watcher.delivery.sinks.tls_settings import TlsSettings
from watcher.domain.errors import ConfigError
from watcher.runtime.certificates import certificates_in, expires_at
from watcher.runtime.http_client import proxy_for
from watcher.runtime.private_addresses import is_private_host


def of_connections(document: Document, settings: Settings, *, now: datetime) -> Iterator[Problem]:
    """Return what a person should check. `now` is the wall clock."""
    for name, sink in settings.sinks.items():
        if not isinstance(sink, HttpSinkSettings):
            continue
        if not sink.allow_private:
            yield from _of_private(document, URL(sink.address), path=("sinks", name))
        if sink.tls is not None:
            yield from _of_expiry(document, sink.tls, path=("sinks", name, "tls"), now=now)


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
