"""Which addresses belong to this machine or its networks, and a socket that is made for no such address.

The address a socket is made for is the one it connects to: no name can mean another one by then (DNS rebinding). The
list is our own, for `ipaddress.is_global` changes between versions of Python: IANA's registries of special addresses
(RFC 6890), with what clouds use inside.
"""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from aiohttp import AddrInfoType

_PRIVATE_V4 = tuple(
    ip_network(each)
    for each in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # Azure's host, which hands out what a virtual machine is configured with
    )
)
_GLOBAL_V6, _NAT64 = ip_network("2000::/3"), ip_network("64:ff9b::/96")
_PRIVATE_V6 = tuple(ip_network(each) for each in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
"""Within `_GLOBAL_V6`: Teredo and other protocols, examples, and 6to4, which leads to any IPv4 address."""


class PrivateAddressError(OSError):
    """A connection would have been opened to a private address."""

    def __init__(self) -> None:
        """Name no address: it may be what a stranger wants to learn."""
        super().__init__("the address is private")


def is_private(address: str) -> bool:
    """Return whether this address, as the system writes it, is no public one of a single machine."""
    found = ip_address(address.partition("%")[0])  # behind it is the name of an interface
    if isinstance(found, IPv6Address):
        within = IPv4Address(int(found) & 0xFFFFFFFF) if found in _NAT64 else found.ipv4_mapped
        if within is None:
            return found not in _GLOBAL_V6 or any(found in network for network in _PRIVATE_V6)
        found = within
    return any(found in network for network in _PRIVATE_V4)


def is_private_host(host: str) -> bool:
    """Return whether a URL's host is a private address, or this machine; of a name nothing is known."""
    try:
        return is_private(host)
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def public_socket(addr_info: AddrInfoType) -> socket.socket:
    """Return a socket for what a connector is about to connect to. Raises `PrivateAddressError`."""
    family, type_, proto, _, address = addr_info
    if is_private(str(address[0])):
        raise PrivateAddressError
    return socket.socket(family=family, type=type_, proto=proto)
