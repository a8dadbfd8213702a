"""What the blocks of all sinks that post over HTTP have: which connections they may open, whom they trust."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    SerializationInfo,
    SkipValidation,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from yarl import URL

from watcher.runtime.settings import Block, shown_url
from watcher.runtime.units import InvalidValueError
from watcher.sinks.http_post import Poster
from watcher.sinks.settings import RemoteSettings


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file as the configuration names it, where that is, and a hash of what it held: a changed file is another."""

    given: str
    path: Path
    digest: str

    @classmethod
    def of(cls, given: str, path: Path, content: bytes) -> Self:
        """Return the file with this content."""
        return cls(given, path, sha256(content).hexdigest())


def _read(value: object) -> PemFile:
    if isinstance(value, PemFile):
        return value
    raise InvalidValueError("is not a single value", remedy="write one path", quote=False)


def _dumped(file: PemFile, info: SerializationInfo) -> str:
    """Return its name and hash; as JSON its name alone: replicas, whose certificates may differ, compare that."""
    return file.given if info.mode == "json" else f"{file.given} {file.digest}"


PemPath = Annotated[
    SkipValidation[PemFile],
    BeforeValidator(_read),
    PlainSerializer(_dumped, return_type=str),
    WithJsonSchema({"type": "string"}),
]
"""A path, as it is written; the loader puts the `PemFile` in its place."""


class TlsSettings(Block):
    """`{ca_file: …, cert_file: …, key_file: …}`: the first alone, the other two, or all three."""

    ca_file: PemPath | None = Field(
        default=None,
        description="The certificates (PEM) of the CAs to trust, instead of the system's.",
        examples=["/etc/watcher/ca.pem"],
    )
    cert_file: PemPath | None = Field(
        default=None,
        description="The certificate (PEM) to show, with those between it and its CA; needs `key_file`.",
        examples=["/etc/watcher/tls/tls.crt"],
    )
    key_file: PemPath | None = Field(
        default=None,
        description="Its private key (PEM), without a passphrase.",
        examples=["/etc/watcher/tls/tls.key"],
    )

    @field_validator("ca_file")
    @classmethod
    def _with_certificates(cls, value: PemFile | None) -> PemFile | None:
        if value is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value.path)
            except OSError:
                remedy = "write it as PEM, which begins with -----BEGIN CERTIFICATE-----"
                raise InvalidValueError("holds no certificate, or a broken one", remedy=remedy, quote=False) from None
        return value

    @field_validator("key_file")
    @classmethod
    def _with_its_certificate(cls, value: PemFile | None, info: ValidationInfo) -> PemFile | None:
        if "cert_file" not in info.data:  # that has a problem of its own
            return value
        certificate = info.data["cert_file"]
        if (certificate is None) is not (value is None):
            problem = "is given without cert_file" if certificate is None else "cert_file is given without key_file"
            raise InvalidValueError(problem, remedy="name both, or none", quote=False)
        if certificate is not None and value is not None:
            try:
                _show(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, value)
            except OSError as error:
                reason = (getattr(error, "reason", None) or "not readable").lower().replace("_", " ")
                remedy = "name a certificate and its own key, both as PEM, the key without a passphrase"
                raise InvalidValueError(
                    f"cannot be used with cert_file ({reason})", remedy=remedy, quote=False
                ) from None
        return value

    @model_validator(mode="after")
    def _make(self) -> Self:
        """Make the context here, in the loader's thread: an event loop is not to read files."""
        assert self.context
        return self

    @cached_property
    def context(self) -> ssl.SSLContext:
        """Return how to connect. It is no part of what is compared when the configuration is read again."""
        context = ssl.create_default_context(cafile=None if self.ca_file is None else self.ca_file.path)
        context.set_alpn_protocols(["http/1.1"])
        if self.cert_file is not None and self.key_file is not None:
            _show(context, self.cert_file, self.key_file)
        return context


class HttpSinkSettings(RemoteSettings):
    """Common to all sinks with a `Poster`."""

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

    def poster(self, url: URL, *, headers: Mapping[str, str], check: Callable[[], None]) -> Poster:
        """Return what posts to this URL."""
        return Poster(
            url,
            headers=headers,
            timeout_s=self.timeout_s,
            check=check,
            allow_private=self.allow_private,
            tls=None if self.tls is None else self.tls.context,
        )


def _show(context: ssl.SSLContext, certificate: PemFile, key: PemFile) -> None:
    """Have a context show a certificate. Raises `OSError` (`SSLError` is one), also for a key with a passphrase."""
    context.load_cert_chain(certificate.path, key.path, password="")  # which OpenSSL would ask for on the terminal
