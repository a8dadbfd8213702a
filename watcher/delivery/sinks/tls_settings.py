"""Whom a sink trusts, and the certificate it shows. The loader has read the files: here is what they hold."""

import ssl
from dataclasses import dataclass, field
from typing import Annotated, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    SkipValidation,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from watcher.runtime.certificates import certificates_in, client_context, load_key_pair
from watcher.runtime.settings import Block
from watcher.runtime.units import InvalidValueError


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file by the path that the configuration gives, and what it held: another content is another value."""

    path: str
    content: bytes = field(repr=False)


def _read(value: object) -> PemFile:
    if isinstance(value, PemFile):
        return value
    raise InvalidValueError("is not a single value", remedy="write one path", quote=False)


PemPath = Annotated[
    SkipValidation[PemFile],
    BeforeValidator(_read),
    PlainSerializer(lambda file: file.path, return_type=str),  # certificates may differ between replicas
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

    @field_validator("ca_file", "cert_file")
    @classmethod
    def _with_certificates(cls, value: PemFile | None) -> PemFile | None:
        if value is not None:
            try:
                certificates_in(value.content)
            except ValueError:
                remedy = "write it as PEM, which begins with -----BEGIN CERTIFICATE-----"
                raise InvalidValueError("holds no certificate, or a broken one", remedy=remedy, quote=False) from None
        return value

    @field_validator("key_file")
    @classmethod
    def _with_its_certificate(cls, value: PemFile | None, info: ValidationInfo) -> PemFile | None:
        if "cert_file" not in info.data:  # that has a problem of its own
            return value
        certificate = info.data["cert_file"]
        if certificate is None and value is not None:
            problem = "is given without cert_file"
            raise InvalidValueError(problem, remedy="name its certificate, or remove it", quote=False)
        if certificate is not None and value is None:
            problem = "cert_file is given without key_file"
            raise InvalidValueError(problem, remedy="name its key, or remove cert_file", quote=False)
        if certificate is not None and value is not None:
            _check_pair(certificate.content, value.content)
        return value

    @model_validator(mode="after")
    def _made_here(self) -> Self:
        """Make the context now, in the loader's thread: an event loop is not to read the system's certificates."""
        self.context()
        return self

    def context(self) -> ssl.SSLContext:
        """Return how to connect."""
        ca, certificate, key = (
            None if file is None else file.content for file in (self.ca_file, self.cert_file, self.key_file)
        )
        return client_context(ca=ca, certificate=certificate, key=key)


def _check_pair(certificate: bytes, key: bytes) -> None:
    try:
        load_key_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate=certificate, key=key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem, remedy = "is not the key of cert_file", "name the two that were made together"
        elif b"ENCRYPTED" in key:
            problem, remedy = "is encrypted", "write it without a passphrase"
        elif b"PRIVATE KEY-----" not in key:
            problem, remedy = "holds no private key", "write it as PEM, which begins with -----BEGIN PRIVATE KEY-----"
        else:
            word = (error.reason or "unknown").lower().replace("_", " ")
            problem, remedy = f"cannot be used with cert_file ({word})", "make both anew"
        raise InvalidValueError(problem, remedy=remedy, quote=False) from None
