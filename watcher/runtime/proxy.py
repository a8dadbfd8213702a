"""The proxy the environment asks for. Read once per target: aiohttp's `trust_env` reads it in threads, per request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from watcher.domain.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy: its address without credentials (`None`: go directly), and the headers it wants."""

    url: URL | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def proxy_for(target: URL) -> Proxy:
    """Return the proxy that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name for a target. Raises `ConfigError`."""
    address = getproxies().get(target.scheme)
    if address is None or proxy_bypass(target.host or ""):
        return Proxy()
    url = URL(address if "://" in address else f"http://{address}")
    if url.scheme not in {"http", "https"}:
        name = f"{target.scheme.upper()}_PROXY"
        raise ConfigError(f"{name}: only http and https proxies are known; write it like http://proxy.example.com:3128")
    if url.user is None:
        return Proxy(url)
    login = aiohttp.encode_basic_auth(url.user, url.password or "")
    return Proxy(url.with_user(None), {"Proxy-Authorization": login})
