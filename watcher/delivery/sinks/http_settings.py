"""What the blocks of all sinks that post over HTTP have: which connections they may open."""

from pydantic import Field

from watcher.delivery.sinks.http_post import ConnectionRules
from watcher.delivery.sinks.remote_settings import RemoteSettings
from watcher.delivery.sinks.tls_settings import TlsSettings


class HttpSettings(RemoteSettings):
    """Common to all sinks with a `Poster`, which is given what `connection_rules` returns."""

    allow_private: bool = Field(
        default=True,
        description="`false` refuses a target that resolves to an address of this machine or of a private network. "
        "See [sinks.md](sinks.md#connections).",
        examples=["false"],
    )
    tls: TlsSettings | None = Field(
        default=None,
        description="Whom to trust instead of the system's CAs, and the certificate to show. For `https://` only. "
        "Relative paths start beside the configuration file; a change of a file is taken up.",
        examples=["{ca_file: ca.pem}"],
    )

    def connection_rules(self) -> ConnectionRules:
        """Return how its `Poster` is to connect."""
        return ConnectionRules(self.allow_private, None if self.tls is None else self.tls.context())
