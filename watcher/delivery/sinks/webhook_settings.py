"""Values of a webhook's settings: the routing key, and which templates there are with what defaults."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, SecretStr

from watcher.delivery.sinks.alertmanager import AlertmanagerTemplate
from watcher.delivery.sinks.pagerduty import ENQUEUE_URL, PagerDutyTemplate
from watcher.delivery.sinks.slack import SlackTemplate
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

_ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")


def _routing_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if _ROUTING_KEY.fullmatch(key):
        return value
    problem = "is not a routing key" if len(key) == 32 else f"has {len(key)} characters"  # noqa: PLR2004
    remedy = "copy the Integration Key of an Events API v2 integration: 32 letters and digits"
    raise InvalidValueError(problem, remedy=remedy, quote=False)


RoutingKey = Annotated[SecretStr, AfterValidator(_routing_key)]
"""Which PagerDuty service an event is for. Whoever has it can page."""
