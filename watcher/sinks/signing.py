"""Signatures as Standard Webhooks asks for them: the secrets, and what is signed with them. Knows nothing of HTTP."""

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr

from watcher.runtime.settings import one_or_list
from watcher.runtime.units import InvalidValueError

SECRET_PREFIX = "whsec_"  # noqa: S105 (how signing secrets begin, not one of them)
_SECRET_BYTES = range(24, 65)


def _signing_secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if text.startswith(SECRET_PREFIX) and len(key) in _SECRET_BYTES:
        return value
    remedy = "write whsec_ + base64 of 24 to 64 bytes; make one: watcher init --secret"
    raise InvalidValueError("not a signing secret", remedy=remedy, quote=False)


SigningSecrets = Annotated[
    tuple[Annotated[SecretStr, AfterValidator(_signing_secret)], ...],
    BeforeValidator(one_or_list, json_schema_input_type=str | list[str]),
]
"""Signing secrets in the configuration; one text is a list of one."""


def signing_key(secret: str) -> bytes:
    """Return the key that `whsec_<base64>` stands for."""
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX))


def sign(body: bytes, *, message_id: str, timestamp: str, keys: Sequence[bytes]) -> str:
    """Return the `webhook-signature` header: one signature per key, for receivers know only one while rotating.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md#signature-scheme
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join("v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
