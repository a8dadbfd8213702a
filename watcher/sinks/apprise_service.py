"""One service that Apprise sends to. Only this module imports Apprise: the import takes half a second and 26 MB.

`AppriseService.notify` is called from threads. Only status codes and our own words leave this module: the texts that
Apprise logs may hold the URL, which is a secret.
"""

import logging
import re
import time
import warnings

import apprise
import urllib3

from watcher.runtime.units import InvalidValueError

LOG = logging.getLogger(apprise.LOGGER_NAME)
LOG.propagate = False
LOG.setLevel(logging.WARNING)
warnings.filterwarnings("ignore", category=urllib3.exceptions.HTTPWarning)  # names the host of a URL with `verify=no`

SERVICES = "https://github.com/caronc/apprise/wiki"

_STATUS = re.compile(r"\berror=(\d{3})\b")
_CONNECTION = re.compile(r"connection error", re.IGNORECASE)

_ASSET = apprise.AppriseAsset(
    app_id="clerk-watcher",
    app_desc="clerk-watcher",
    service_timeout=0,  # else Apprise sends in threads of its own, and the process cannot end before these threads
    storage_mode=apprise.PersistentStoreMode.MEMORY,
    pgp_autogen=False,
    pem_autogen=False,
    http_redirects=False,  # a redirect would lead the message to a stranger
)
"""The settings of Apprise: it writes nothing to disk, and loads no plugins."""


class AppriseService:
    """One service. A call sends its message once: the sink's retries and timeout apply, not those in the URL."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """Open no connection yet. Raises `InvalidValueError` for a URL that Apprise cannot use."""
        service = apprise.Apprise.instantiate(url, asset=_ASSET)
        if service is None:
            services, scheme = apprise.NotificationManager(), url.partition("://")[0].lower()  # type: ignore[no-untyped-call]
            problem = f"{scheme}:// needs something that is missing here, such as a package"
            if scheme not in services:
                problem = "is of no service that Apprise knows"
            elif services[scheme].enabled:
                problem = f"is not what Apprise needs for {scheme}://"
            raise InvalidValueError(problem, remedy=f"see {SERVICES}")
        service.retry = 0
        service.optional = False  # with another value a failure counts as a success
        service.overflow_mode = apprise.OverflowMode.TRUNCATE  # a long text is cut, not split into several messages
        service.request_rate_per_sec = 0.0  # else Apprise sleeps before it sends; the worker limits the rate
        service.socket_connect_timeout = service.socket_read_timeout = timeout_s
        self._timeout_s = timeout_s
        self._apprise = apprise.Apprise(asset=_ASSET)
        self._apprise.add(service)

    def notify(self, title: str, body: str, type_: str) -> str | None:
        """Send a message once. Return `None` for success, else the last status code that Apprise logs, or a word."""
        logged: list[str] = []
        began_at = time.monotonic()
        is_taken = self._apprise.notify(
            body,
            title=title,
            notify_type=type_,
            body_format=apprise.NotifyFormat.TEXT,
            log_callback=lambda entry, _: logged.append(entry.message),
        )
        text, took_s = "\n".join(logged), time.monotonic() - began_at
        if is_taken:
            return None
        if codes := _STATUS.findall(text):
            return str(codes[-1])
        if not _CONNECTION.search(text):
            return "no cause given"
        return "timeout" if took_s >= self._timeout_s else "connection"  # Apprise calls both a connection error
