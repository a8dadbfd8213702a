"""Alerts for Alertmanager. It keeps alerts in memory only: the alerts of open problems are posted again every minute.

A problem is one alert. Its opening, its refreshes and its closing have the same labels, made from the problem's kind
and subject. An event without a problem is an alert that lasts 15 minutes, a test message one that lasts a minute.
https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml
"""

import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import ClassVar

from yarl import URL

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import Json, group_id, timestamp
from watcher.domain.event import EventType
from watcher.domain.event_factory import with_latest
from watcher.domain.problems import ProblemChange, SentOpening, severity_of
from watcher.sinks.alert import Alert, clean, to_json
from watcher.sinks.template import Message, Template

PATH = "/api/v2/alerts"
ALERTS_COUNT = 256
"""The most problems in one refresh, and the most events in one group. Prometheus sends as many alerts at once."""

REFRESH_EVERY_S = 60.0
LASTS = timedelta(minutes=3)
"""The time from the last post of an open problem to the end of its alert: two refreshes in a row may fail."""

POINT_LASTS = timedelta(minutes=15)
"""The time from the request to the end of an alert without a problem. Counted from the event, it might be past."""

TEST_LASTS = timedelta(minutes=1)
"""The same time for a test message: more than the usual `group_wait`, so that people hear of the test and its end."""

NODES_COUNT = 4

_UNFIT = re.compile(r"[^a-zA-Z0-9_]")


class AlertmanagerTemplate(Template):
    """One alert per event, or two if the event closes a problem and is trouble itself; one request per batch."""

    refresh_every_s = REFRESH_EVERY_S
    keeps_state = True
    group_count: ClassVar = ALERTS_COUNT
    defaults: ClassVar = {"rate_limit": "100/s"}

    def post_url(self, url: URL) -> URL:
        """Return the URL with the path of Alertmanager's API. The settings may leave the path out."""
        if url.path.rstrip("/").endswith(PATH):
            return url
        return url.with_path(f"{url.raw_path.rstrip('/')}{PATH}", encoded=True, keep_query=True)

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one request, or none for acknowledgements alone. They are left out: an alert cannot show them."""
        batch = [each for each in batch if each.type != EventType.PROBLEM_ACKNOWLEDGED]
        if not batch:
            return []
        alerts = [part for each in batch for part in Alert.of_delivery(each, self.public_url).apart()]
        ids = [each.event_id for each in batch]
        id_ = ids[0] if len(ids) == 1 else group_id(ids)
        return [Message(str(id_), to_json(list(map(self._of_event, alerts))).encode())]

    def refreshes(self, openings: Sequence[SentOpening]) -> list[Message]:
        """Return one request for every 256 problems."""
        parts = (openings[start : start + ALERTS_COUNT] for start in range(0, len(openings), ALERTS_COUNT))
        return [
            Message(str(group_id(each.problem.id for each in part)), to_json(list(map(self._refresh, part))).encode())
            for part in parts
        ]

    def _of_event(self, alert: Alert, closed_at: datetime | None = None) -> Json:
        now = self.clock.now()
        if alert.problem is None:
            lasts = TEST_LASTS if alert.type is EventType.WATCHER_TEST else POINT_LASTS
            return _alert(alert, alert.type, min(alert.time, now), now + lasts)
        if alert.closes:
            closed_at = datetime.fromisoformat(alert.problem["closedAt"])
        opened_at = datetime.fromisoformat(alert.problem["openedAt"])
        return _alert(alert, EventType(alert.problem["kind"]), opened_at, closed_at or now + LASTS)

    def _refresh(self, sent: SentOpening) -> Json:
        event = json.loads(sent.body)
        event["data"] = with_latest(event["data"], ProblemChange(sent.problem))
        return self._of_event(Alert.of(event, self.public_url), sent.closed_at)


def _alert(alert: Alert, kind: EventType, starts_at: datetime, ends_at: datetime) -> Json:
    """Return an alert in the form of the API. It never ends before it starts, even if the wall clock was set back."""
    links = alert.links
    more = [": ".join(filter(None, node)) for node in alert.nodes[1 : 1 + NODES_COUNT]]
    more += [f"Closes when {alert.closes_when}"] if alert.closes_when else []
    annotations = {
        "summary": alert.title,
        "event_id": alert.id,
        "description": "\n".join(filter(None, map(clean, (alert.error, *more)))),
        "node": clean(alert.nodes[0][0]) if alert.nodes else "",
        "runbook_url": links.get("Runbook", ""),
        "link": alert.link or "" if alert.page else "",  # without a page of ours the link is the `generatorURL`
    }
    return {
        "labels": _labels(alert, kind),
        "annotations": {name: text for name, text in annotations.items() if text},
        "startsAt": timestamp(min(starts_at, ends_at)),
        "endsAt": timestamp(ends_at),
        **({"generatorURL": leads_to} if (leads_to := alert.page or alert.link) else {}),
    }


def _labels(alert: Alert, kind: EventType) -> dict[str, str]:
    """Return the labels that identify an alert. They must not change while it lasts. Ours replace the user's."""
    data = alert.data
    labels = {}
    for given, value in sorted(data.get("labels", {}).items()):
        name = _UNFIT.sub("_", given)
        labels[f"_{name}" if name[:1].isdigit() else name] = clean(value)
    own = {
        "alertname": f"Clerk{''.join(part.capitalize() for part in re.split('[._]', kind))}",
        "severity": severity_of(kind, percent=data.get("percent", 100)),
        "account": data.get("account"),
        "pipeline": data.get("pipeline", {}).get("id"),
        "execution": data.get("execution", {}).get("id") if kind.startswith("execution.") else None,
        "sink": data.get("sink"),
        "error_kind": data["error"]["fingerprint"] if kind is EventType.PIPELINE_NEW_ERROR else None,
    }
    labels |= {name: clean(value) for name, value in own.items() if value is not None}
    return {name: value for name, value in labels.items() if value}
