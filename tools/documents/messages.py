"""Pictures of messages as their receivers show them, drawn from the very payloads that are posted."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sample_events import AT, OPENED_AT, PROBLEM, data_of, failed, happened, sample
from worker_rig import FakeClock

from documents.canvas import LEFT, LINE, LINK, MUTED, TEXT, WIDTH, Canvas
from watcher.domain.delivery import Delivery, MessagePlace, ProblemMessage
from watcher.domain.envelope import timestamp
from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import Incident, IncidentProblem, Problem
from watcher.sinks.alertmanager import AlertmanagerTemplate
from watcher.sinks.discord import DiscordTemplate
from watcher.sinks.pagerduty import PagerDutyTemplate
from watcher.sinks.slack import SlackTemplate, with_button
from watcher.sinks.slack_bot import messages_of
from watcher.sinks.teams import TeamsTemplate

SEVERITIES = {"critical": "#960a20", "error": "#960a20", "warning": "#9f5f02", "info": "#067d51"}
DATE = re.compile(r"<!date\^\d+\^[^|]*\|([^>]*)>")
TEAMS_DATE = re.compile(r"\{\{DATE\(([\d-]+)T([\d:]+)Z, SHORT\)\}\} \{\{TIME\([^)]*\)\}\}")
TEAMS_COLOURS = {"Attention": "#c4314b", "Warning": "#9f5f02", "Good": "#067d51"}


def slack_picture(*batch: Delivery, title: str) -> str:
    """Draw the one message that Slack gets for these events."""
    (message,) = SlackTemplate().messages(batch)
    canvas = Canvas()
    canvas.sender("APP  12:00")
    canvas.y += 26
    for block in json.loads(message.body)["blocks"]:
        _draw_block(canvas, block)
    return canvas.svg(title)


def slack_bot_picture() -> str:
    """Draw the message of a problem that is over, with its thread."""
    message = ProblemMessage(UUID(PROBLEM), MessagePlace("C0123456789", "1"), _failing().body)
    end, note = messages_of([replace(sample(EventType.PIPELINE_RECOVERED), message=message)])
    reminder, *_ = messages_of([_reminder()])
    failure, *_ = messages_of([failed()])
    canvas = Canvas()
    canvas.sender("APP  11:19  (edited)")
    canvas.y += 26
    for block in end.content["blocks"]:
        _draw_block(canvas, block)
    canvas.y += 6
    canvas.paragraph("3 replies", bold=True, colour=LINK)
    for reply in (failure, reminder, note):
        canvas.reply(reply.content["text"].split("\n")[0])
    return canvas.svg("A problem that is over, in Slack as an app")


def slack_buttons_picture() -> str:
    """Draw the message of an open problem, with its button."""
    (opening,) = messages_of([_failing()], "https://watcher.example.com", buttons_at=AT)
    assert opening.button is not None
    canvas = Canvas()
    canvas.sender("APP  12:00")
    canvas.y += 26
    for block in with_button(opening.content, opening.button)["blocks"]:
        _draw_block(canvas, block)
    return canvas.svg("An open problem in Slack, with a button to acknowledge it")


def _draw_block(canvas: Canvas, block: Mapping[str, Any]) -> None:
    match block:
        case {"type": "header"}:
            canvas.paragraph(block["text"]["text"], size=17, bold=True)
        case {"type": "section", "fields": fields}:
            _draw_fields(canvas, [DATE.sub(r"\1", each["text"]).split("\n", 1) for each in fields])
        case {"type": "section"}:
            if "accessory" in block:
                canvas.button(block["accessory"]["text"]["text"], x=WIDTH - LEFT - 62)
            canvas.paragraph(block["text"]["text"])
        case {"type": "context"}:
            canvas.paragraph(block["elements"][0]["text"], size=11, colour=MUTED)
        case {"type": "actions"}:
            canvas.y += 8
            canvas.button(block["elements"][0]["text"]["text"])
            canvas.y += 26


def _draw_fields(canvas: Canvas, fields: list[list[str]]) -> None:
    for number, (name, value) in enumerate(fields):
        column = LEFT + number % 2 * (WIDTH // 2)
        canvas.text(name, x=column, size=12, colour=MUTED)
        canvas.y += LINE
        canvas.text(value, x=column)
        canvas.y += LINE + 8 if number % 2 or number == len(fields) - 1 else -LINE
    canvas.y += 2


def discord_picture() -> str:
    """Draw the embed that Discord gets for a failure."""
    (message,) = DiscordTemplate().messages([failed(link="https://example.com/runs/1")])
    (embed,) = json.loads(message.body)["embeds"]
    canvas = Canvas()
    canvas.sender("APP  today at 12:00")
    canvas.y += 30
    top = canvas.y - 18
    canvas.paragraph(embed["title"], size=16, bold=True, colour=LINK)
    canvas.code(embed["description"].replace("```", "").strip())
    fields = [[each["name"], re.sub(r"<t:\d+:R>", "a few seconds ago", each["value"])] for each in embed["fields"]]
    _draw_fields(canvas, [[name, value.replace("`", "")] for name, value in fields])
    canvas.paragraph(f"{embed['footer']['text']} • {embed['timestamp'][:10]}", size=11, colour=MUTED)
    canvas.y -= 12
    canvas.bar(f"#{embed['color']:06x}", top=top)
    canvas.y += 12
    return canvas.svg("A failure in Discord")


def teams_picture() -> str:
    """Draw the card that Teams gets for a failure."""
    (message,) = TeamsTemplate().messages([failed(link="https://example.com/runs/1")])
    card = json.loads(message.body)["attachments"][0]["content"]
    canvas = Canvas()
    canvas.sender("12:00", name="Workflows")
    canvas.y += 26
    for element in card["body"]:
        _draw_element(canvas, element)
    canvas.y += 8
    canvas.button(card["actions"][0]["title"])
    canvas.y += 26
    return canvas.svg("A failure in Microsoft Teams")


def _draw_element(canvas: Canvas, element: Mapping[str, Any]) -> None:
    if element["type"] == "FactSet":
        for fact in element["facts"]:
            canvas.text(fact["title"], bold=True)
            canvas.text(TEAMS_DATE.sub(r"\1 \2", fact["value"]), x=LEFT + 140)
            canvas.y += LINE + 4
        canvas.y += 4
        return
    first, *_ = element["inlines"]
    text = "".join(run["text"] for run in element["inlines"])
    size = {"Large": 17, "Small": 11}.get(first.get("size"), 14)
    muted = MUTED if first.get("isSubtle") and len(element["inlines"]) == 1 else TEXT
    canvas.paragraph(text, size=size, bold="weight" in first, colour=TEAMS_COLOURS.get(first.get("color"), muted))


def pagerduty_picture() -> str:
    """Draw an incident of several problems, and its end."""
    template = PagerDutyTemplate(routing_key="k" * 32)
    kinds = [EventType.EXECUTION_OVERDUE] * 3 + [EventType.PIPELINE_FAILING] * 9
    problems = [
        IncidentProblem(
            Problem(UUID(int=number), kind, OPENED_AT, EventKey(b"s", 1)), "default", f"p{number}", _failing().body
        )
        for number, kind in enumerate(kinds)
    ]
    begins = replace(_failing(), incident=Incident(UUID(PROBLEM), problems))
    ends = replace(sample(EventType.PIPELINE_RECOVERED), incident=Incident(UUID(PROBLEM)))
    (trigger,) = (json.loads(message.body) for message in template.messages([begins]))
    (resolve,) = (json.loads(message.body) for message in template.messages([ends]))
    assert trigger["dedup_key"] == resolve["dedup_key"]
    payload, canvas = trigger["payload"], Canvas()
    canvas.paragraph(payload["summary"], size=17, bold=True)
    canvas.paragraph(f"SEVERITY {payload['severity'].upper()}", bold=True, colour=SEVERITIES[payload["severity"]])
    rows = {"Source": payload["source"], "Class": payload["class"], "Group": payload["group"]}
    _draw_fields(canvas, [[name, value] for name, value in rows.items()] + [["Client", trigger["client"]]])
    canvas.paragraph(f"Dedup key {trigger['dedup_key']}", size=11, colour=MUTED)
    canvas.paragraph("Custom details", bold=True)
    for name, value in _flat(payload["custom_details"]):
        canvas.paragraph(f"{name}: {json.dumps(value) if isinstance(value, list) else value}", size=12)
    end = f"Once all problems are over: event_action {resolve['event_action']}, with the same dedup key"
    canvas.paragraph(end, colour=MUTED)
    return canvas.svg("An incident at PagerDuty")


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield prefix + name, item


def alertmanager_picture() -> str:
    """Draw the alert of a problem as Alertmanager's page lists it, and when it ends."""
    clock = FakeClock()
    clock.elapsed_s = (AT - clock.now()).total_seconds()
    (message,) = AlertmanagerTemplate(clock=clock).messages([_failing()])
    (alert,) = json.loads(message.body)
    canvas = Canvas()
    canvas.paragraph(f'{alert["startsAt"]}   alertname="{alert["labels"].pop("alertname")}"', size=16, bold=True)
    for name, value in sorted(alert["labels"].items()):
        canvas.paragraph(f'{name}="{value}"', size=12, colour=LINK)
    for name, value in alert["annotations"].items():
        canvas.paragraph(f"{name}: {value}")
    end = f"Ends at {alert['endsAt']}; posted again each minute while the problem is open"
    canvas.paragraph(end, colour=MUTED)
    return canvas.svg("An alert at Alertmanager")


def _storm() -> list[Delivery]:
    errors = ["upstream timeout after {} s"] * 19 + ["422 slot taken"] * 8
    batch = []
    for number, error in enumerate(errors):
        data = data_of(EventType.EXECUTION_FAILED, number)
        node = {"id": "n", "name": "Booking" if "slot" in error else "Greeting", "error": error.format(30 + number)}
        data["execution"]["failedNodes"] = [node]
        link = {"link": f"https://example.com/runs/{number}"}
        delivery = sample(EventType.EXECUTION_FAILED, number=number, data=data | link)
        batch.append(happened(delivery, AT - timedelta(seconds=len(errors) - number)))
    return batch


def _failing() -> Delivery:
    """Return the opening of a problem, with the end that was one too many."""
    at = timestamp(OPENED_AT)
    last = data_of(EventType.EXECUTION_FAILED)["execution"] | {"finishedAt": at}
    data = data_of(EventType.PIPELINE_FAILING) | {"execution": last, "observed": {"at": at}}
    return sample(EventType.PIPELINE_FAILING, data=data)


def _reminder() -> Delivery:
    """Return a reminder half an hour after the problem was opened."""
    reminder = sample(EventType.PROBLEM_REMINDER)
    event = json.loads(reminder.body) | {"time": timestamp(OPENED_AT + timedelta(minutes=30))}
    return replace(reminder, body=json.dumps(event).encode())


MESSAGES: Mapping[str, Callable[[], str]] = {
    "slack.svg": lambda: slack_picture(failed(link="https://example.com/runs/1"), title="A failure in Slack"),
    "slack-recovered.svg": lambda: slack_picture(sample(EventType.PIPELINE_RECOVERED), title="A recovery in Slack"),
    "slack-bot.svg": slack_bot_picture,
    "slack-buttons.svg": slack_buttons_picture,
    "slack-group.svg": lambda: slack_picture(*_storm(), title="A group of failures in Slack"),
    "discord.svg": discord_picture,
    "teams.svg": teams_picture,
    "pagerduty.svg": pagerduty_picture,
    "alertmanager.svg": alertmanager_picture,
}
"""Each picture of a message, and what draws it."""
