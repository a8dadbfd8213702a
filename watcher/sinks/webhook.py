"""The webhook sink: signed POSTs as Standard Webhooks asks for."""

from typing import Literal

from pydantic import Field

from watcher.fields import Block, Duration, Rate, as_written
from watcher.sinks.settings import Headers, SigningSecrets, SinkSettings, SinkUrl


class RetrySettings(Block):
    """When a failed delivery is tried again: the last step repeats until `give_up_after`."""

    schedule: tuple[Duration, ...] = Field(
        default=tuple(map(as_written, ("1s", "5s", "30s", "2m", "10m", "1h", "3h"))), min_length=1
    )
    give_up_after_s: Duration = Field(default=as_written("3d"), alias="give_up_after")


class WebhookSettings(SinkSettings):
    """`{type: webhook, url: …}`. `secret` is a tuple, for a list signs with each."""

    type: Literal["webhook"]
    url: SinkUrl = Field(examples=["https://hooks.example.com/clerk"])
    url_file: str | None = None
    secret: SigningSecrets = ()
    secret_file: str | None = None
    headers: Headers = Field(default_factory=dict)
    timeout_s: Duration = Field(default=as_written("15s"), alias="timeout")
    rate_limit: Rate = Field(default=as_written("100/s"))
    retry: RetrySettings = RetrySettings()
