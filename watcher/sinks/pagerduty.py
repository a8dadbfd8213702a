"""Events for PagerDuty: an incident is triggered, acknowledged and resolved under one key.

https://developer.pagerduty.com/docs/events-api-v2-overview
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, SecretStr

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import Json, timestamp
from watcher.domain.event import EventType
from watcher.domain.problems import PROBLEM_KINDS, Incident, Severity, severity_of
from watcher.runtime.units import InvalidValueError
from watcher.sinks.alert import Alert, clean, cut, shorten, to_json
from watcher.sinks.template import Message, Template

INCIDENT_WAIT_S = 10.0
"""How long an opening waits for others of its incident, unless `group.wait` is given."""

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
    """Says how an incident stands: triggers while a problem of it is open, acknowledges, resolves.

    An event that opens no problem triggers under its own id. A test message triggers and resolves at once.
    """

    keeps_state = True
    defaults: ClassVar = {
        "events": tuple(sorted(PROBLEM_KINDS)),
        "rate_limit": "2/s",
        "url": "https://events.pagerduty.com/v2/enqueue",
    }
    remedies: ClassVar = dict.fromkeys((400, 413, 422), _NEW_KEY)

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one event for an incident, and one for each delivery that is trouble beside that."""
        incident, messages = batch[0].incident, list[Message]()
        if incident is not None:
            messages.append(self._of_incident(incident, batch))
        for alert in (Alert.of_delivery(each, self.public_url) for each in batch):
            if incident is None or (alert.closes and alert.is_trouble):
                messages.append(self._trigger(alert.news(), key=alert.id))
            if alert.type is EventType.WATCHER_TEST:
                messages.append(self._message("resolve", key=alert.id, id_=alert.id))
        return messages

    def _of_incident(self, incident: Incident, batch: Sequence[Delivery]) -> Message:
        key, id_ = str(incident.key), str(batch[0].event_id)
        if not incident.problems:
            return self._message("resolve", key=key, id_=id_)
        if incident.acked_until is not None and self.clock.now() < incident.acked_until:
            return self._message("acknowledge", key=key, id_=id_)
        event = json.loads(incident.newest or batch[-1].body)
        reminders = [each.content for each in batch if each.type == EventType.PROBLEM_REMINDER]
        alert = Alert.of(reminders[-1] if reminders and len(incident.problems) == 1 else event, self.public_url)
        if any(each.rejections for each in batch):  # it may have refused what others call something
            details = {"open": _counts(incident)}
            payload = {
                "summary": summary_of(incident),
                "source": "clerk-watcher",
                "severity": highest(incident),
                "custom_details": details,
            }
            return self._message("trigger", key=key, id_=id_, payload=payload)
        if len(incident.problems) == 1:
            return self._trigger(alert, key=key, id_=id_)
        return self._trigger(alert, key=key, id_=id_, incident=incident)

    def _trigger(self, alert: Alert, *, key: str, id_: str | None = None, incident: Incident | None = None) -> Message:
        """Return what triggers for an event, or for an incident whose newest problem that opened."""
        pipeline, links = alert.data.get("pipeline", {}).get("id"), alert.links
        source = "/".join(filter(None, (alert.data.get("account"), pipeline))) or alert.data.get("sink", "")
        summary, details = ": ".join(filter(None, (alert.title, alert.error))), _cleaned(alert.data)
        if incident is not None:
            summary = summary_of(incident, newest=alert)
            details = {"open": _counts(incident), "newest": details}
        payload = {
            "summary": cut(summary, SUMMARY_LENGTH),
            "source": shorten(source, FIELD_LENGTH),
            "severity": alert.severity if incident is None else highest(incident),
            "timestamp": timestamp(alert.time),
            "component": shorten(alert.nodes[0][0], FIELD_LENGTH) if alert.nodes else None,
            "group": shorten(alert.pipeline, FIELD_LENGTH) if alert.pipeline else None,
            "class": alert.type,
            "custom_details": details,
        }
        more: Json = {"client": "clerk-watcher"}
        if links:
            more["links"] = [{"href": link, "text": name} for name, link in links.items()]
        payload = {name: value for name, value in payload.items() if value is not None}
        return self._message("trigger", key=key, id_=id_ or alert.id, **more, payload=payload)

    def _message(self, action: str, *, key: str, id_: str, **more: Any) -> Message:
        event = {"routing_key": self.routing_key, "event_action": action, "dedup_key": key, **more}
        return Message(id_, to_json(event).encode())


def highest(incident: Incident) -> Severity:
    """Return the severity of the worst of its open problems."""
    severities = list(Severity)
    return min((severity_of(each.problem.kind) for each in incident.problems), key=severities.index)


def summary_of(incident: Incident, *, newest: Alert | None = None) -> str:
    """Return how many of what are open, where, and what the newest is about, if that is given."""
    counted = (f"{count:,} {_NOUNS[kind][count > 1]}" for kind, count in _counts(incident).items())
    pipelines = {(each.account, each.pipeline) for each in incident.problems}
    accounts = {account for account, _ in pipelines}
    where = f" in account {clean(accounts.pop() or '')}" if len(accounts) == 1 and None not in accounts else ""
    if newest is None:
        return ", ".join(counted) + where
    if newest.pipeline and len(pipelines) == 1:
        where = f" in {shorten(newest.pipeline, FIELD_LENGTH)}"
    node = newest.nodes[0][0] if newest.nodes else ""
    what = ", ".join(filter(None, (newest.pipeline, ": ".join(filter(None, (node, newest.error))))))
    return f"{', '.join(counted)}{where}; newest: {what or newest.title}"


_NOUNS = {
    EventType.PIPELINE_FAILING: ("pipeline failing", "pipelines failing"),
    EventType.PIPELINE_SILENT: ("pipeline silent", "pipelines silent"),
    EventType.EXECUTION_OVERDUE: ("execution overdue", "executions overdue"),
    EventType.ACCOUNT_DEGRADED: ("account degraded", "accounts degraded"),
    EventType.SINK_FAILING: ("sink failing", "sinks failing"),
    EventType.SINK_DISABLED: ("sink disabled", "sinks disabled"),
}


def _counts(incident: Incident) -> Mapping[EventType, int]:
    return Counter(each.problem.kind for each in incident.problems)


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
