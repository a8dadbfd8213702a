"""Events for PagerDuty: a problem is triggered and resolved under one key.

https://developer.pagerduty.com/docs/events-api-v2-overview
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, SecretStr

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import timestamp
from watcher.domain.event import EventType
from watcher.runtime.units import InvalidValueError
from watcher.sinks.alert import Alert, clean, cut, shorten, to_json
from watcher.sinks.template import Message, Template

SUMMARY_LENGTH = 1024
FIELD_LENGTH = 255

_NEW_KEY = "is routing_key that of an Events API v2 integration, and url that of its region?"

_ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")


def _routing_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if _ROUTING_KEY.fullmatch(key):
        return value
    problem = "is not a routing key" if len(key) == 32 else f"has {len(key)} characters"
    remedy = "copy the Integration Key of an Events API v2 integration: 32 letters and digits"
    raise InvalidValueError(problem, remedy=remedy, quote=False)


RoutingKey = Annotated[SecretStr, AfterValidator(_routing_key)]
"""Which PagerDuty service an event is for. Everybody who has it can page."""


class PagerDutyTemplate(Template):
    """A problem's opening and reminders trigger, its acknowledgement acknowledges, its closing resolves.

    What is no problem triggers under its own id. A test message triggers and resolves at once.
    """

    keeps_state = True
    defaults: ClassVar = {"rate_limit": "2/s", "url": "https://events.pagerduty.com/v2/enqueue"}
    remedies: ClassVar = dict.fromkeys((400, 413, 422), _NEW_KEY)

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one event, or two: the end of a problem that is trouble itself resolves first, then triggers."""
        messages: list[Message] = []
        for alert in (part for each in batch for part in Alert.of_delivery(each, self.public_url).apart()):
            key = alert.id if alert.problem is None else alert.problem["id"]
            is_taken = alert.type == EventType.PROBLEM_ACKNOWLEDGED
            if not (alert.closes or is_taken):
                messages.append(self._trigger(alert, key=key))
            if alert.closes or is_taken or alert.type == EventType.WATCHER_TEST:
                action = "acknowledge" if is_taken else "resolve"
                event = {"routing_key": self.routing_key, "event_action": action, "dedup_key": key}
                messages.append(Message(alert.id, to_json(event).encode()))
        return messages

    def _trigger(self, alert: Alert, *, key: str) -> Message:
        pipeline, links = alert.data.get("pipeline", {}).get("id"), alert.links
        source = "/".join(filter(None, (alert.data.get("account"), pipeline))) or alert.data.get("sink", "")
        payload = {
            "summary": cut(": ".join(filter(None, (alert.title, alert.error))), SUMMARY_LENGTH),
            "source": shorten(source, FIELD_LENGTH),
            "severity": alert.severity,
            "timestamp": timestamp(alert.time),
            "component": shorten(alert.nodes[0][0], FIELD_LENGTH) if alert.nodes else None,
            "group": shorten(alert.pipeline, FIELD_LENGTH) if alert.pipeline else None,
            "class": alert.type,
            "custom_details": _cleaned(alert.data),
        }
        event = {
            "routing_key": self.routing_key,
            "event_action": "trigger",
            "dedup_key": key,
            "client": "clerk-watcher",
            **({"links": [{"href": link, "text": name} for name, link in links.items()]} if links else {}),
            "payload": {name: value for name, value in payload.items() if value is not None},
        }
        return Message(alert.id, to_json(event).encode())


def _cleaned(value: Any) -> Any:
    """Return an event's data with all its texts as people may read them, also those that name labels."""
    match value:
        case str():
            return clean(value)
        case dict():
            return {clean(name): _cleaned(item) for name, item in value.items()}
        case list():
            return [_cleaned(item) for item in value]
    return value
