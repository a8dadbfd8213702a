"""Which addresses count as private: a table of our own, whatever the running Python believes."""

import socket

import pytest

from watcher.runtime.http_client import PrivateAddressError, is_private, is_private_host, public_socket

PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "::1", "0.0.0.0", "0.1.2.3", "::"),  # noqa: S104 (the unspecified one)
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd00:ec2::254", "fec0::1"),
    *("169.254.169.254", "169.254.1.1", "fe80::1", "fe80::1%eth0", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("168.63.129.16", "192.0.0.192", "192.0.0.9", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1"),
    *("224.0.0.1", "239.255.255.255", "255.255.255.255", "240.0.0.1", "ff02::1", "192.88.99.1"),
    *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "::ffff:0:127.0.0.1"),
    *("64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::8.8.8.8", "2002:7f00:1::", "2002:808:808::"),
    *("2001::1", "2001:db8::1", "3fff::1", "100::1", "5f00::1"),
]
PUBLIC = [
    *("8.8.8.8", "1.1.1.1", "9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0", "100.63.255.255"),
    *("100.128.0.0", "169.253.255.255", "169.255.0.0", "192.167.255.255", "192.169.0.0", "223.255.255.255"),
    *("2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_no_socket_is_made_for_a_private_address(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    assert is_private(address)
    with pytest.raises(PrivateAddressError):
        public_socket((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 443)))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_socket_is_made_for_a_public_address(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    assert not is_private(address)
    with public_socket((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 443))) as made:
        assert made.family == family


@pytest.mark.parametrize(
    "host", [*("127.0.0.1", "10.0.0.1", "::1", "::ffff:10.0.0.1", "fe80::1%25eth0", "localhost", "LOCALHOST.")]
)
def test_a_host_that_is_private_whoever_resolves_it_is_known_without_asking(host: str) -> None:
    assert is_private_host(host)


@pytest.mark.parametrize("host", ["8.8.8.8", "2606:4700::1111", "hooks.example.com", "10.example", "a:b"])
def test_of_any_other_host_nothing_is_known(host: str) -> None:
    assert not is_private_host(host)
