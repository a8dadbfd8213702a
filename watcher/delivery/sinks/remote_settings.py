"""What the blocks of all sinks that send elsewhere have: when to try again, how often, and what goes together."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from watcher.delivery.sinks.protocol import GroupRules, RetryRules, WorkerRules
from watcher.delivery.sinks.settings import SinkSettings
from watcher.runtime.settings import Block, Duration, Rate, as_written, did_you_mean
from watcher.runtime.units import InvalidValueError

BATCH_COUNT = 100
GROUP_COUNT = 10_000
"""Events in one batch of a plain webhook by default, and in one of anything at most."""

_GROUPED_BY = ("pipeline", "account", "type")
_LABEL = "labels."
_LABEL_PREFIX = re.compile(r"labels?[.:=]")


def _field(value: str) -> str:
    if value in _GROUPED_BY or (value.startswith(_LABEL) and value != _LABEL):
        return value
    rest = f"write {', '.join(_GROUPED_BY)} or {_LABEL}"
    blind, remedy = f"{rest}NAME", did_you_mean(value, _GROUPED_BY, rest=f"{rest}NAME")
    label = _LABEL_PREFIX.sub("", value)
    if label and remedy == blind:
        remedy = f"{rest}{label}"
    raise InvalidValueError("is nothing to group by", remedy=remedy, blind_remedy=blind)


def _most(value: int) -> int:
    if value <= GROUP_COUNT:
        return value
    raise InvalidValueError("is too large", remedy=f"write at most {GROUP_COUNT}")


class RetrySettings(Block):
    """When a failed delivery is tried again: the last step repeats until `give_up_after`."""

    schedule: tuple[Duration, ...] = Field(
        default=tuple(map(as_written, ("1s", "5s", "30s", "2m", "10m", "1h", "3h"))),
        min_length=1,
        description="The waits of a delivery that fails while others get through (±20 %), unless `Retry-After` asks "
        "for more; the last one repeats.",
        examples=["[5s, 1m, 10m]"],
    )
    give_up_after_s: Duration = Field(
        default=as_written("3d"),
        alias="give_up_after",
        description="How long a delivery is retried, from when it was first due; then it is a dead letter.",
        examples=["12h"],
    )


class GroupSettings(Block):
    """Which events are sent together. `max` is absent unless it is given."""

    by: tuple[Annotated[str, AfterValidator(_field)], ...] = Field(
        default=("pipeline",),
        min_length=1,
        description="Events alike in all of these share a group: `pipeline`, `account`, `type`, `labels.NAME`. One "
        "that lacks any of them goes alone.",
        examples=["[pipeline, labels.team]"],
    )
    wait_s: Duration = Field(
        default=as_written("30s"),
        alias="wait",
        description="How long a group is open, from when its first event was recorded; less than "
        "`retry.give_up_after`.",
        examples=["2m"],
    )
    max: Annotated[int, AfterValidator(_most)] | None = Field(
        default=None,
        ge=1,
        description=f"The most events in one batch ({BATCH_COUNT} unless given, at most {GROUP_COUNT}). Only of a "
        "webhook without `template`: one message has room for all.",
        examples=["500"],
    )

    def rules(self, *, is_batch: bool) -> GroupRules:
        """Return how the worker is to group; `is_batch` says that events are posted as they are."""
        return GroupRules(self.by, self.wait_s, (self.max or BATCH_COUNT) if is_batch else GROUP_COUNT)


class RemoteSettings(SinkSettings):
    """Common to all sinks but stdout: they may be slow, away, or asked too much of."""

    timeout_s: Duration = Field(
        default=as_written("15s"), alias="timeout", description="How long one request may take.", examples=["5s"]
    )
    rate_limit: Rate = Field(
        default=as_written("100/s"),
        description="The most requests sent. Slack and Teams: `1/s`, Discord: `30/m`, PagerDuty: `2/s`.",
        examples=["60/m"],
    )
    retry: RetrySettings = Field(default=RetrySettings(), description="When a failed delivery is tried again.")
    group: GroupSettings | None = Field(
        default=None,
        description="Sends events together: a webhook without `template` as a CloudEvents batch, else as one message.",
        examples=["{by: [pipeline], wait: 30s}"],
    )
    remind_every_s: Duration | None = Field(
        default=None,
        alias="remind_every",
        description="How often `problem.reminder` is sent while a problem is open. Without it never.",
        examples=["4h"],
    )

    @property
    def sends_batches(self) -> bool:
        """Whether a group is sent as a batch of events, not as one message."""
        return False

    @property
    def rules(self) -> WorkerRules:
        """Return how to send to it."""
        return WorkerRules(
            RetryRules(self.retry.schedule, self.retry.give_up_after_s),
            self.rate_limit,
            group=None if self.group is None else self.group.rules(is_batch=self.sends_batches),
            remind_every_s=self.remind_every_s,
        )
