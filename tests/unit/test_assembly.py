"""What is built from settings, where no other test sees it."""

from typing import Any

import pytest

from watcher.assembly import _fingerprint
from watcher.sinks.webhook import WebhookSettings

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
BLOCK: dict[str, Any] = {"type": "webhook", "url": "https://h/path", "secret": SECRET, "headers": {"A": "b"}}


class LaterSettings(WebhookSettings):
    """The same block as a later version knows it."""

    template: str | None = None


def test_a_block_has_the_same_fingerprint_in_every_version() -> None:
    assert _fingerprint(WebhookSettings(**BLOCK)) == _fingerprint(LaterSettings(**BLOCK))


@pytest.mark.parametrize(
    "change", [{"url": "https://h/other"}, {"secret": SECRET[:-1] + "y"}, {"headers": {"A": "c"}}, {"timeout": "15s"}]
)
def test_whatever_is_written_differently_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert _fingerprint(WebhookSettings(**BLOCK)) != _fingerprint(WebhookSettings(**BLOCK | change))
