"""What the blocks of all sinks that post over HTTP have: which connections they may open."""

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from yarl import URL

from watcher.delivery.sinks.http_post import ConnectionRules
from watcher.delivery.sinks.remote_settings import RemoteSettings
from watcher.delivery.sinks.tls_settings import TlsSettings
from watcher.runtime.settings import shown_url
from watcher.runtime.units import InvalidValueError


class HttpSinkSettings(RemoteSettings):
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

    @field_validator("url", check_fields=False)
    @classmethod
    def _secured(cls, value: SecretStr | str, info: ValidationInfo) -> SecretStr | str:
        url = value if isinstance(value, str) else value.get_secret_value()
        if info.data.get("tls") is not None and URL(url).scheme != "https":
            remedy = "write https://, or remove tls"
            raise InvalidValueError("has tls, and does not begin with https://", remedy=remedy, quote=False)
        return value

    @property
    def address(self) -> str:
        """Return the whole URL, which may be a secret."""
        raise NotImplementedError

    @property
    def target(self) -> str:
        """Return scheme and host, with the port where there is one: the path may be a secret."""
        return shown_url(self.address)

    def connection_rules(self) -> ConnectionRules:
        """Return how its `Poster` is to connect."""
        if self.tls is None:
            return ConnectionRules(self.allow_private)
        return ConnectionRules(self.allow_private, self.tls.context(), shows_cert=self.tls.cert_file is not None)
