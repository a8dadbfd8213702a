import base64
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from watcher.sinks.webhook import sign, signing_key

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(64))).decode()
BODY = '{"name": "Größe €"}'.encode()


def signed(*secrets: str, body: bytes = BODY) -> dict[str, str]:
    timestamp = str(int(datetime.now(UTC).timestamp()))
    keys = [signing_key(secret) for secret in secrets]
    signature = sign(body, message_id="msg-1", timestamp=timestamp, keys=keys)
    return {"webhook-id": "msg-1", "webhook-timestamp": timestamp, "webhook-signature": signature}


def test_a_signature_is_that_of_the_specification() -> None:
    # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    signature = sign(
        b'{"test": 2432232314}',
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp="1614265330",
        keys=[signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", [SECRET, OTHER])
def test_the_library_of_the_standard_accepts_a_signature(secret: str) -> None:
    Webhook(secret).verify(BODY, signed(secret))


def test_while_rotating_each_secret_verifies() -> None:
    headers = signed(SECRET, OTHER)
    assert len(headers["webhook-signature"].split(" ")) == 2
    Webhook(SECRET).verify(BODY, headers)
    Webhook(OTHER).verify(BODY, headers)


def test_another_body_or_secret_does_not_verify() -> None:
    for secret, body in ((SECRET, BODY + b" "), (OTHER, BODY)):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, signed(SECRET))
