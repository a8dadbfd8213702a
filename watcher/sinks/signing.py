"""Signatures as Standard Webhooks asks for them: what is signed, with which key. It knows nothing of HTTP."""

import base64
import hmac
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 (how signing secrets begin, not one of them)


def signing_key(secret: str) -> bytes:
    """Return the key that `whsec_<base64>` stands for."""
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX))


def sign(body: bytes, *, message_id: str, timestamp: str, keys: Sequence[bytes]) -> str:
    """Return the `webhook-signature` header: one signature per key, for receivers know only one while rotating.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md#signature-scheme
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join("v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
