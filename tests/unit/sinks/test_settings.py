import base64
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr, ValidationError
from standardwebhooks import Webhook

from watcher.domain.event import EventType
from watcher.sinks.webhook import WebhookSettings, sign, signing_key


def settings(**more: object) -> WebhookSettings:
    return WebhookSettings.model_validate({"type": "webhook", "url": "https://h.example", **more})


def secret(byte_count: int) -> str:
    return f"whsec_{base64.b64encode(bytes(byte_count)).decode()}"


@pytest.mark.parametrize("glob", ["*", "execution.*", "account.degraded", "*.failing", "execution.[rp]*", *EventType])
def test_a_glob_matches_a_type(glob: str) -> None:
    assert settings(events=[glob]).events == (glob,)


@pytest.mark.parametrize("byte_count", [24, 32, 64])
def test_a_signing_secret_has_24_to_64_bytes(byte_count: int) -> None:
    assert settings(secret=secret(byte_count)).secret == (SecretStr(secret(byte_count)),)


@pytest.mark.parametrize("name", ["Authorization", "X-Team", "x_1.2"])
def test_a_header_has_a_name_and_a_value(name: str) -> None:
    assert settings(headers={name: "a\tb é"}).headers[name].get_secret_value() == "a\tb é"


GLOBS = ("", "Execution.failed", "executions.*", "failed", "problem.taken")
SECRETS = (
    *("", "whsec_", "whsec_é", secret(23), secret(65), secret(31)[:-1], f"WHSEC_{secret(32)[6:]}"),
    *(secret(32).removeprefix("whsec_"), f"{secret(32)}=", f"{secret(32)} ", f"{secret(32)[:-2]}!="),
    secret(32).replace("A", "-"),
)
HEADERS = (
    *("", "a b", "a:", "é", "a\n", "webhook-id", "Webhook-Signature", "CONTENT-TYPE", "Content-Length"),
    *("user-agent", "Host"),
)


@pytest.mark.parametrize(
    "refused",
    [
        *({"events": [glob]} for glob in GLOBS),
        *({"secret": [text]} for text in SECRETS),
        *({"headers": {name: "x"}} for name in HEADERS),
        *({"headers": {"X-A": value}} for value in ("a\nb", "a\r", "\x00", "\x7f")),
    ],
)
def test_others_are_refused(refused: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        settings(**refused)


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


def test_while_rotating_each_secret_verifies() -> None:
    headers = signed(SECRET, OTHER)
    assert len(headers["webhook-signature"].split(" ")) == 2
    Webhook(SECRET).verify(BODY, headers)
    Webhook(OTHER).verify(BODY, headers)
