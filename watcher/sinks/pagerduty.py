"""Events for PagerDuty: a problem is triggered and resolved under one key.

https://developer.pagerduty.com/docs/events-api-v2-overview
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from watcher.domain.delivery import Delivery, Part
from watcher.domain.envelope import timestamp
from watcher.domain.event import EventType
from watcher.sinks.alert import Alert
from watcher.sinks.alert_text import Cutter, clean, shorten, to_json
from watcher.sinks.digest import Digest
from watcher.sinks.http_post import Answer
from watcher.sinks.protocol import SendOutcome, SendResult
from watcher.sinks.template import Message, Template, json_object, result_of_status, with_code

SUMMARY_LENGTH = 1024
FIELD_LENGTH = 255
EXECUTIONS_COUNT = 5000
"""So many ids at most, for PagerDuty takes 512 kB."""

_NEW_KEY = "is routing_key that of an Events API v2 integration, and url that of its region?"

_STATUSES = frozenset({"invalid event", "throttle exceeded"})
"""The `status` of an answer that is an error."""

Json = dict[str, Any]


class PagerDutyTemplate(Template):
    """A problem's opening and reminders trigger, its closing resolves. What is no problem triggers under its own id.

    A test message triggers and resolves at once.
    """

    defaults: ClassVar = {"rate_limit": "2/s", "url": "https://events.pagerduty.com/v2/enqueue"}

    def __init__(self, routing_key: str) -> None:
        """Send to the integration with this key."""
        self._routing_key = routing_key

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one event for each problem; of a group, the others share one event for bad news, one for good."""
        messages: list[Message] = []
        others = {False: Digest(), True: Digest()}
        for delivery in batch:
            alert = Alert.of(delivery.content)
            if alert.type == EventType.WATCHER_TEST:
                messages += [self._trigger(alert, key=alert.id), self._resolve(alert, key=alert.id)]
                continue
            if alert.closes and alert.problem is not None:
                messages.append(self._resolve(alert, key=alert.problem["id"]))
            if alert.problem is not None and not alert.closes:
                messages.append(self._trigger(alert, key=alert.problem["id"]))
            elif not alert.closes or (alert.is_trouble and delivery.part is not Part.CLOSING):
                others[alert.is_trouble].add(alert, event_id=delivery.event_id)
        return [*messages, *(self._trigger_others(part) for part in others.values() if part.count)]

    def send_result(self, answer: Answer) -> SendResult:
        """Return what its status code means."""
        result = result_of_status(answer.status)
        if result.outcome is SendOutcome.REFUSED:
            result = replace(result, remedy=_NEW_KEY)
        return with_code(result, json_object(answer.said).get("status"), _STATUSES)

    def _resolve(self, alert: Alert, *, key: str) -> Message:
        event = {"routing_key": self._routing_key, "event_action": "resolve", "dedup_key": key}
        return Message(alert.id, _body(event))

    def _trigger(self, alert: Alert, *, key: str) -> Message:
        cut, pipeline = Cutter(), alert.data.get("pipeline", {}).get("id")
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
        event = self._event(key, payload, links=[alert.link] if alert.link else [])
        return Message(alert.id, _body(event), cut.has_cut)

    def _trigger_others(self, group: Digest) -> Message:
        news = group.news
        if isinstance(news, Alert):
            return self._trigger(news, key=news.id)
        cut, newest, clusters = Cutter(), group.newest[0], group.clusters
        payload = {
            "summary": cut(f"{group.title}: {clusters[0]}", SUMMARY_LENGTH),
            "source": shorten(newest.data.get("account", ""), FIELD_LENGTH),
            "severity": group.severity,
            "timestamp": timestamp(newest.time),
            "class": newest.type,
            "custom_details": {
                "count": group.count,
                "clusters": clusters,
                "executions": group.executions[::-1][:EXECUTIONS_COUNT],
            },
        }
        event = self._event(group.id, payload, links=[alert.link for alert in group.newest if alert.link])
        is_cut = cut.has_cut or group.count > EXECUTIONS_COUNT
        return Message(group.id, _body(event), is_cut)

    def _event(self, key: str, payload: Json, *, links: Sequence[str]) -> Json:
        event = {
            "routing_key": self._routing_key,
            "event_action": "trigger",
            "dedup_key": key,
            "client": "clerk-watcher",
            "links": [{"href": link, "text": "Open execution"} for link in links],
            "payload": {name: value for name, value in payload.items() if value is not None},
        }
        return {name: value for name, value in event.items() if value != []}


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


def _body(event: Json) -> bytes:
    return to_json(event).encode()
