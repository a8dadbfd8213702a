"""Events for PagerDuty: an incident is triggered, acknowledged and resolved with one `dedup_key`.

https://developer.pagerduty.com/docs/events-api-v2-overview
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, SecretStr

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import Json, present, timestamp
from watcher.domain.event import EventType, Severity
from watcher.domain.event_factory import with_latest
from watcher.domain.problems import PROBLEM_KINDS, Incident, IncidentProblem, ProblemChange, severity_of
from watcher.runtime.units import InvalidValueError
from watcher.sinks.alert import Alert, clean, cut, shorten, to_json, usable_link
from watcher.sinks.template import Message, Template

INCIDENT_WAIT_S = 10.0
"""The time that an opening waits for other openings of its incident, unless `group.wait` is given."""

EVENTS = tuple(sorted(PROBLEM_KINDS))
"""The events that PagerDuty gets by default: the openings. Nothing would resolve the incident of another event."""

NAMED_COUNT = 10
"""The most problems of an incident that its trigger names one by one."""

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
    raise InvalidValueError(problem, remedy=remedy)


RoutingKey = Annotated[SecretStr, AfterValidator(_routing_key)]
"""The key of a PagerDuty service. Everybody who has it can page."""


class PagerDutyTemplate(Template):
    """The requests about an incident: trigger while one of its problems is open, acknowledge, resolve.

    An event without an incident triggers one with the event's id as the key. A test message also resolves it at once.
    """

    keeps_state = True
    defaults: ClassVar = {"events": EVENTS, "rate_limit": "2/s", "url": "https://events.pagerduty.com/v2/enqueue"}
    remedies: ClassVar = dict.fromkeys((400, 413, 422), _NEW_KEY)

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return the requests about the batch's incident, and a trigger for each event that needs its own incident.

        An event needs its own if it has no incident, or if it closes a problem and is trouble itself.
        """
        incident, messages = batch[0].incident, list[Message]()
        if incident is not None:
            messages += self._of_incident(incident, batch)
        for alert in (Alert.of_delivery(each, self.public_url) for each in batch):
            if incident is None or (alert.closes and alert.is_trouble):
                news = alert if incident is None else alert.news()
                messages.append(self._trigger(news, key=alert.id, id_=alert.id))
            if alert.type is EventType.WATCHER_TEST:
                messages.append(self._message("resolve", key=alert.id, id_=alert.id))
        return messages

    def _of_incident(self, incident: Incident, batch: Sequence[Delivery]) -> list[Message]:
        """Return the requests for an incident as it is now. An opening triggers even an acknowledged incident."""
        key, id_ = str(incident.key), str(batch[0].event_id)
        if not incident.problems:
            return [self._message("resolve", key=key, id_=id_)]
        if incident.acked_until is None or self.clock.now() >= incident.acked_until:
            return [self._trigger_of(incident, batch, key=key, id_=id_)]
        trigger = [self._trigger_of(incident, batch, key=key, id_=id_)] if any(each.opens for each in batch) else []
        return [*trigger, self._message("acknowledge", key=key, id_=id_)]

    def _trigger_of(self, incident: Incident, batch: Sequence[Delivery], *, key: str, id_: str) -> Message:
        """Return the trigger of an incident.

        PagerDuty, or a proxy before it, may refuse a text from the API at every attempt. Such texts are left out after
        a refusal, and at every second attempt from the third on.
        """
        attempts, is_single = max(each.attempts for each in batch), len(incident.problems) == 1
        is_plain = any(each.rejections for each in batch) or (attempts >= 2 and attempts % 2 == 0)
        reminders = [each.content for each in batch if is_single and each.type == EventType.PROBLEM_REMINDER]
        newest = _as_now(incident.problems[-1]) or batch[-1].content
        alert = Alert.of(reminders[-1] if reminders else newest, self.public_url)
        if is_single and not is_plain:
            return self._trigger(alert, key=key, id_=id_)
        counts = Counter(each.problem.kind for each in incident.problems)
        severity = min(map(severity_of, counts), key=list(Severity).index)
        known: Json = {"summary": _summary(incident, counts, None if is_plain else alert), "severity": severity}
        if is_plain:
            payload = {**known, "source": "clerk-watcher", "custom_details": {"open": counts}}
            return self._message("trigger", key=key, id_=id_, payload=payload)
        known["custom_details"] = {"open": counts, "problems": self._worst(incident), "newest": _cleaned(alert.data)}
        page = usable_link(f"{self.public_url}/problems?incident={key}") if self.public_url else None
        links = {f"All {len(incident.problems):,} problems": page} if page else {}
        return self._trigger(alert, known, links={**links, **alert.links}, key=key, id_=id_)

    def _worst(self, incident: Incident) -> list[Json]:
        """Return the first ten open problems of an incident: the most severe first, then in the order of opening."""
        by_severity = sorted(incident.problems, key=lambda each: list(Severity).index(severity_of(each.problem.kind)))
        events = filter(None, map(_as_now, by_severity[:NAMED_COUNT]))
        alerts = [Alert.of(event, self.public_url) for event in events]
        return [
            present(
                {
                    "problem": cut(": ".join(filter(None, (alert.title, alert.error))), SUMMARY_LENGTH),
                    "severity": alert.severity,
                    "since": alert.problem and alert.problem["openedAt"],
                    "link": alert.link,
                    "page": alert.page,
                    "runbook": alert.links.get("Runbook"),
                }
            )
            for alert in alerts
        ]

    def _trigger(
        self,
        alert: Alert,
        known: Mapping[str, Any] | None = None,
        *,
        links: Mapping[str, str] | None = None,
        key: str,
        id_: str,
    ) -> Message:
        """Return the trigger for an event. The fields in `known`, and `links`, replace those of the event."""
        pipeline, links = alert.data.get("pipeline", {}).get("id"), alert.links if links is None else links
        source = "/".join(filter(None, (alert.data.get("account"), pipeline)))
        payload = {
            "summary": ": ".join(filter(None, (alert.title, alert.error))),
            "source": shorten(source or alert.data.get("sink", "clerk-watcher"), FIELD_LENGTH),
            "severity": alert.severity,
            "timestamp": timestamp(alert.time),
            "component": shorten(alert.nodes[0][0], FIELD_LENGTH) if alert.nodes else None,
            "group": shorten(alert.pipeline, FIELD_LENGTH) if alert.pipeline else None,
            "class": alert.type,
            "custom_details": _cleaned(alert.data),
            **(known or {}),
        }
        payload["summary"] = cut(payload["summary"], SUMMARY_LENGTH)
        more: Json = {"links": [{"href": link, "text": name} for name, link in links.items()]} if links else {}
        payload = {name: value for name, value in payload.items() if value is not None}
        return self._message("trigger", key=key, id_=id_, client="clerk-watcher", **more, payload=payload)

    def _message(self, action: str, *, key: str, id_: str, **more: Any) -> Message:
        event = {"routing_key": self.routing_key, "event_action": action, "dedup_key": key, **more}
        return Message(id_, to_json(event).encode())


def _as_now(each: IncidentProblem) -> Json | None:
    """Return the event that opened a problem, with the problem as it is now; `None` if the store has no such event."""
    if each.opening is None:
        return None
    event: Json = json.loads(each.opening)
    return event | {"data": with_latest(event["data"], ProblemChange(each.problem))}


def _summary(incident: Incident, counts: Mapping[EventType, int], newest: Alert | None) -> str:
    """Return how many problems of each kind are open, their account or pipeline, and the newest if it is given."""
    what = []
    for kind, count in sorted(counts.items(), key=lambda each: list(Severity).index(severity_of(each[0]))):
        noun, _, trouble = kind.partition(".")
        what.append(f"{count:,} {noun}{'s' if count > 1 else ''} {trouble}")
    accounts = {each.account for each in incident.problems}
    where = f" in account {clean(accounts.pop() or '')}" if len(accounts) == 1 and None not in accounts else ""
    if newest is None:
        return ", ".join(what) + where
    if newest.pipeline and len({each.pipeline for each in incident.problems}) == 1:
        where = f" in {newest.pipeline}"
    node = newest.nodes[0][0] if newest.nodes else ""
    latest = ", ".join(filter(None, (newest.pipeline, ": ".join(filter(None, (node, newest.error))))))
    return f"{', '.join(what)}{where}; newest: {latest or newest.title}"


def _cleaned(value: Any) -> Any:
    """Return an event's data with all texts cleaned, the names of labels included."""
    match value:
        case str():
            return clean(value)
        case dict():
            return {clean(name): _cleaned(item) for name, item in value.items()}
        case list():
            return [_cleaned(item) for item in value]
    return value
