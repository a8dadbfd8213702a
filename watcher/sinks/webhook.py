"""The webhook sink: signed POSTs as Standard Webhooks asks for."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from watcher.fields import Block, Duration, Rate, Secret
from watcher.sinks.settings import SinkSettings


class RetrySettings(Block):
    """When a failed delivery is tried again: the last step repeats until `give_up_after`."""

    schedule: tuple[Duration, ...] = Field(default=("1s", "5s", "30s", "2m", "10m", "1h", "3h"), min_length=1)
    give_up_after_s: Duration = Field(default="3d", alias="give_up_after")


class WebhookSettings(SinkSettings):
    """`{type: webhook, url: …}`. `secret` is a tuple, for a list signs with each."""

    type: Literal["webhook"]
    url: Secret
    secret: tuple[Secret, ...] = ()
    headers: Mapping[str, Secret] = Field(default_factory=dict)
    timeout_s: Duration = Field(default="15s", alias="timeout")
    rate_limit: Rate = Field(default="100/s")
    retry: RetrySettings = RetrySettings()
