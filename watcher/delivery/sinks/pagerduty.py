"""Events for PagerDuty: a problem is triggered and resolved under one key.

https://developer.pagerduty.com/docs/events-api-v2-overview
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from watcher.delivery.sinks.alert import Alert
from watcher.delivery.sinks.alert_text import Cutter, clean, fit, shorten, to_json
from watcher.delivery.sinks.digest import Digest
from watcher.delivery.sinks.http_post import Answer
from watcher.delivery.sinks.protocol import SendOutcome, SendResult
from watcher.delivery.sinks.template import Message, Template, result_of_status
from watcher.domain.delivery import Delivery
from watcher.domain.envelope import timestamp

SUMMARY_LENGTH = 1024
FIELD_LENGTH = 255
EVENT_BYTES = 500_000
"""PagerDuty takes 512 kB."""

_NEW_KEY = "is routing_key that of an Events API v2 integration, and url that of its region?"

_EVERYTHING, _WITHOUT_EVENT_IDS, _NEXT_TO_NOTHING = range(3)
"""How much of the details is left out."""

Json = dict[str, Any]


class PagerDutyTemplate(Template):
    """A problem's opening and reminders trigger, its closing resolves. What is no problem triggers under its own id."""

    defaults: ClassVar = {"rate_limit": "2/s", "url": "https://events.pagerduty.com/v2/enqueue"}

    def __init__(self, routing_key: str) -> None:
        """Send to the integration with this key."""
        self._routing_key = routing_key

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one event for each problem; of a group, the others share one event for bad news, one for good."""
        messages: list[Message] = []
        others = {False: Digest(), True: Digest()}
        for delivery in batch:
            alert = Alert.read(delivery.body)
            if alert.closes:
                messages.append(self._resolve(alert))
            if alert.problem is not None and not alert.closes:
                messages.append(self._trigger(alert, key=alert.problem["id"]))
            elif not alert.closes or (alert.is_trouble and not delivery.closes_only):
                others[alert.is_trouble].add(alert, event_id=delivery.event_id)
        return [*messages, *(self._trigger_others(part) for part in others.values() if part.count)]

    def send_result(self, answer: Answer) -> SendResult:
        """Return what its status code means."""
        result = result_of_status(answer.status)
        return replace(result, remedy=_NEW_KEY) if result.outcome is SendOutcome.REFUSED else result

    def preview(self, body: bytes) -> list[str]:
        """Return the incident without its details, or which one is resolved."""
        event = json.loads(body)
        key = f"dedup key {event['dedup_key']}"
        if event["event_action"] == "resolve":
            return [f"resolves {key}"]
        payload = event["payload"]
        facts = (
            f"{name} {payload[name]}"
            for name in ("severity", "source", "component", "group", "class")
            if name in payload
        )
        return [payload["summary"], " · ".join(facts), *(f"[{link['text']}]" for link in event.get("links", ())), key]

    def _resolve(self, alert: Alert) -> Message:
        assert alert.problem is not None
        event = {"routing_key": self._routing_key, "event_action": "resolve", "dedup_key": alert.problem["id"]}
        return Message(alert.id, _body(event))

    def _trigger(self, alert: Alert, *, key: str) -> Message:
        return _message(alert.id, partial(self._event_of, alert, key))

    def _trigger_others(self, group: Digest) -> Message:
        news = group.news
        if isinstance(news, Alert):
            return self._trigger(news, key=news.id)
        return _message(news.id, partial(self._event_of_group, news, news.id))

    def _event_of(self, alert: Alert, key: str, less: int, cut: Cutter) -> Json:
        pipeline = alert.data.get("pipeline", {}).get("id")
        source = "/".join(filter(None, (alert.data.get("account"), pipeline))) or alert.data.get("sink", "")
        details = {"event": alert.id, "execution": alert.execution}
        payload = {
            "summary": cut(": ".join(filter(None, (alert.title, alert.error))), SUMMARY_LENGTH),
            "source": shorten(source, FIELD_LENGTH),
            "severity": alert.severity,
            "timestamp": timestamp(alert.time),
            "component": shorten(alert.nodes[0][0], FIELD_LENGTH) if alert.nodes else None,
            "group": shorten(alert.pipeline, FIELD_LENGTH) if alert.pipeline else None,
            "class": alert.type,
            "custom_details": _cleaned(alert.data) if less == _EVERYTHING else details,
        }
        return self._event(key, payload, links=[alert.link] if alert.link else [])

    def _event_of_group(self, group: Digest, key: str, less: int, cut: Cutter) -> Json:
        newest = group.newest[0]
        clusters = [each.line for each in group.clusters]
        details: Json = {"count": group.count, "clusters": clusters, "executions": group.ids}
        if less == _EVERYTHING:
            details["events"] = [str(id_) for id_ in reversed(group.event_ids)]
        payload = {
            "summary": cut(f"{group.title}: {clusters[0]}", SUMMARY_LENGTH),
            "source": shorten(newest.data.get("account", ""), FIELD_LENGTH),
            "severity": group.severity,
            "timestamp": timestamp(newest.time),
            "class": newest.type,
            "custom_details": {"count": group.count} if less == _NEXT_TO_NOTHING else details,
        }
        return self._event(key, payload, links=[alert.link for alert in group.newest if alert.link])

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


def _message(id_: str, build: Callable[[int, Cutter], Json]) -> Message:
    levels = (_EVERYTHING, _WITHOUT_EVENT_IDS, _NEXT_TO_NOTHING)
    event, is_cut = fit(build, levels, most=EVENT_BYTES, size=lambda event: len(_body(event)))
    return Message(id_, _body(event), lambda: _body(_minimal(build(_NEXT_TO_NOTHING, Cutter()))), is_cut)


def _minimal(event: Json) -> Json:
    """Leave what PagerDuty requires, and the ids."""
    needed = ("summary", "source", "severity", "custom_details")
    payload = {name: event["payload"][name] for name in needed}
    return {name: event[name] for name in ("routing_key", "event_action", "dedup_key")} | {"payload": payload}


def _body(event: Json) -> bytes:
    return to_json(event).encode()
