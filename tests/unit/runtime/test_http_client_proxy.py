import pytest
from yarl import URL

from watcher.domain.errors import ConfigError
from watcher.runtime.http_client import Proxy, proxy_for

PROXY = URL("http://proxy.example.com:3128")


pytestmark = pytest.mark.usefixtures("alone")


def test_without_a_proxy_requests_go_directly() -> None:
    assert proxy_for(URL("https://hooks.example.com/")) == Proxy()


def test_each_scheme_has_its_own_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", str(PROXY))
    assert proxy_for(URL("https://hooks.example.com/")) == Proxy(PROXY)
    assert proxy_for(URL("http://hooks.example.com/")) == Proxy()


def test_excepted_hosts_are_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", str(PROXY))
    monkeypatch.setenv("NO_PROXY", "localhost,.example.com")
    assert proxy_for(URL("https://hooks.example.com/")) == Proxy()
    assert proxy_for(URL("https://hooks.example.org/")) == Proxy(PROXY)


def test_credentials_become_a_header_and_leave_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:p%40ss@proxy.example.com:3128")
    proxy = proxy_for(URL("http://hooks.example.com/"))
    assert proxy == Proxy(PROXY, {"Proxy-Authorization": "Basic dXNlcjpwQHNz"})


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("socks5://user:hunter2@proxy.example.com:1080", "only http and https proxies are known"),
        ("http://user:hunter2@proxy.example.com:port", "is no URL of a proxy"),
        ("http://", "is no URL of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, address: str, problem: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address)
    with pytest.raises(ConfigError, match=f"^HTTPS_PROXY: {problem}; write it like") as caught:
        proxy_for(URL("https://hooks.example.com/"))
    assert "hunter2" not in str(caught.value)
