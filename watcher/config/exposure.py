"""Which URLs send in clear to somewhere a stranger may listen."""

from ipaddress import ip_address, ip_network

from yarl import URL

_LOCAL_NETWORKS = tuple(
    ip_network(each)
    for each in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "0.0.0.0/32"),
        *("::1/128", "fc00::/7", "fe80::/10", "::/128"),
    )
)
_LOCAL_NAMES = ("localhost", "local", "internal", "lan", "home.arpa", "svc")
"""Where a name ends that is of this machine or network alone; so is one without a dot (`receiver`, in Compose)."""


def exposed_host(url: str) -> str | None:
    """Return the host of a URL that sends in clear to somewhere beyond this machine and its network, else `None`."""
    parts = URL(url)
    host = (parts.host or "").rstrip(".").lower()
    return host if parts.scheme == "http" and not _is_local(host) else None


def _is_local(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return "." not in host or any(host.endswith(f".{end}") for end in _LOCAL_NAMES)
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in _LOCAL_NETWORKS)
