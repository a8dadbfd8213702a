"""Blocks and values of a webhook's settings: retries, groups, the routing key, and which templates there are."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr

from watcher.delivery.sinks.alertmanager import AlertmanagerTemplate
from watcher.delivery.sinks.pagerduty import ENQUEUE_URL, PagerDutyTemplate
from watcher.delivery.sinks.protocol import GroupRules
from watcher.delivery.sinks.slack import SlackTemplate
from watcher.runtime.settings import Block, Duration, as_written, did_you_mean
from watcher.runtime.units import InvalidValueError

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "slack": {"events": list(SlackTemplate.events), "rate_limit": SlackTemplate.rate_limit},
    "pagerduty": {
        "events": list(PagerDutyTemplate.events),
        "rate_limit": PagerDutyTemplate.rate_limit,
        "url": ENQUEUE_URL,
    },
    "alertmanager": {"events": list(AlertmanagerTemplate.events), "rate_limit": AlertmanagerTemplate.rate_limit},
}
"""What each template's receiver wants where the file says nothing."""

BATCH_COUNT = 100
GROUP_COUNT = 10_000
"""Events in one batch of a plain webhook by default, and in one of anything at most."""

_ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")
_GROUPED_BY = ("pipeline", "account", "type")
_LABEL = "labels."
_LABEL_PREFIX = re.compile(r"labels?[.:=]")


def _routing_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if _ROUTING_KEY.fullmatch(key):
        return value
    problem = "is not a routing key" if len(key) == 32 else f"has {len(key)} characters"  # noqa: PLR2004
    remedy = "copy the Integration Key of an Events API v2 integration: 32 letters and digits"
    raise InvalidValueError(problem, remedy=remedy, quote=False)


RoutingKey = Annotated[SecretStr, AfterValidator(_routing_key)]
"""Which PagerDuty service an event is for. Whoever has it can page."""


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
        description=f"The most events in one batch ({BATCH_COUNT} unless given, at most {GROUP_COUNT}). Not with a "
        "`template`, which makes one message of all.",
        examples=["500"],
    )

    def rules(self, *, is_batch: bool) -> GroupRules:
        """Return how the worker is to group; `is_batch` says that events are posted as they are."""
        return GroupRules(self.by, self.wait_s, (self.max or BATCH_COUNT) if is_batch else GROUP_COUNT)
