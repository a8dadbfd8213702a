"""What people read in Slack, Discord and Microsoft Teams."""

import json
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from receivers_rules import check_discord, check_slack, check_teams, shown_texts, texts_of
from sample_events import (
    AT,
    HOSTILE,
    OVERDUE_ENDS,
    PIPELINE,
    PROBLEM,
    closing_overdue,
    data_of,
    execution_id,
    failed,
    happened,
    problem_block,
    sample,
)
from yarl import URL

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.problems import PROBLEM_KINDS
from watcher.sinks.alert import clean
from watcher.sinks.chat import ChatTemplate
from watcher.sinks.discord import DiscordTemplate
from watcher.sinks.slack import SlackTemplate
from watcher.sinks.teams import TeamsTemplate

GRAVE = "\N{MODIFIER LETTER GRAVE ACCENT}"
LINK, PUBLIC = "https://example.com/runs/1", "https://watcher.example.com"
ERROR = "upstream timeout after 30 s"
IDS = f"pipeline {PIPELINE} · execution {execution_id()} · event {failed().event_id}"
CLUSTER = f"7 \N{MULTIPLICATION SIGN} Greeting: {ERROR}"
REST = "7 events, 12:00:31-12:00:31 UTC. All of them are on the watcher's stdout."
NEWEST_LINKS = [f"{LINK}{number}" for number in (2, 3, 4, 5, 6)]
SEVEN = [failed(number, link=f"{LINK}{number}") for number in range(7)]


def slack(*batch: Delivery) -> dict[str, Any]:
    (message,) = SlackTemplate().messages(batch)
    return check_slack(message.body)


def embed_of(*batch: Delivery) -> dict[str, Any]:
    (message,) = DiscordTemplate().messages(batch)
    embed: dict[str, Any] = check_discord(message.body)["embeds"][0]
    return embed


def card_of(*batch: Delivery) -> dict[str, Any]:
    (message,) = TeamsTemplate().messages(batch)
    return check_teams(message.body)


def runs_of(card: dict[str, Any]) -> list[dict[str, Any]]:
    return [run for element in card["body"] for run in element.get("inlines", ())]


def hostile() -> Delivery:
    data = data_of(EventType.EXECUTION_FAILED) | {"labels": {"team": HOSTILE}}
    data["pipeline"]["name"] = HOSTILE[:60]
    data["execution"] |= {"status": HOSTILE, "failedNodes": [{"name": "Greeting", "error": HOSTILE}] * 2}
    return sample(EventType.EXECUTION_FAILED, data=data)


def test_slack_shows_headline_error_facts_ids_and_a_button() -> None:
    payload = slack(failed(link=LINK))
    assert payload["text"] == f"✕ Sales agent failed at Greeting\n{ERROR}"
    kinds = [block["type"] for block in payload["blocks"]]
    assert kinds == ["header", "section", "section", "context", "actions"]
    assert list(shown_texts(payload["blocks"])) == [
        "✕ Sales agent failed at Greeting",
        ERROR,
        *("Status", "failed, was running", "Ran", "2 m 31 s", "Labels", "team=sales", "Account", "default"),
        *("Ended", "<!date^1795521631^{date_short_pretty} {time_secs}|2026-11-24 12:00:31 UTC>"),
        IDS,
        "Open",
    ]
    assert payload["blocks"][4]["elements"][0]["url"] == LINK


def test_discord_shows_headline_error_facts_ids_and_a_link() -> None:
    embed = embed_of(failed(link=LINK))
    assert (embed["title"], embed["url"], embed["color"]) == ("✕ Sales agent failed at Greeting", LINK, 0x960A20)
    assert embed["description"] == f"```\n{ERROR}\n```"
    facts = {field["name"]: field["value"] for field in embed["fields"]}
    assert list(facts) == ["Status", "Ran", "Labels", "Account", "Ended"]
    assert facts["Status"] == "`failed, was running`"
    assert (facts["Ran"], facts["Ended"]) == ("`2 m 31 s`", "<t:1795521631:R>")
    assert all(field["inline"] for field in embed["fields"])
    assert (embed["footer"]["text"], embed["timestamp"]) == (IDS, "2026-11-24T12:00:31.000Z")


def test_teams_shows_headline_error_facts_ids_and_a_button() -> None:
    card = card_of(failed(link=LINK))
    headline, error, *_ = runs = runs_of(card)
    assert (headline["text"], headline["color"]) == ("✕ Sales agent failed at Greeting", "Attention")
    assert error == {"type": "TextRun", "text": ERROR, "fontType": "Monospace"}
    (facts,) = (element["facts"] for element in card["body"] if element["type"] == "FactSet")
    shown = [run["text"] for run in runs]
    assert {"failed, was running", "2 m 31 s", "team=sales", "default"} <= set(shown)
    when = "{{DATE(2026-11-24T12:00:31Z, SHORT)}} {{TIME(2026-11-24T12:00:31Z)}}"
    assert facts[0] == {"title": "Ended", "value": when}
    assert runs[-1]["text"] == IDS
    assert card["actions"] == [{"type": "Action.OpenUrl", "title": "Open", "url": LINK}]


@pytest.mark.parametrize("kind", [EventType.PIPELINE_FAILING, EventType.PROBLEM_REMINDER, EventType.PROBLEM_CLOSED])
def test_a_chat_is_told_what_closes_a_problem_while_it_is_open(kind: EventType) -> None:
    data = data_of(kind) | {"closesWhen": "3 in a row succeeded"}
    if kind is EventType.PROBLEM_CLOSED:
        data |= {"problem": problem_block(EventType.PIPELINE_FAILING, closed=True)}
    payload = str(slack(sample(kind, data=data)))
    assert ("Closes when" in payload and "3 in a row succeeded" in payload) is (kind is not EventType.PROBLEM_CLOSED)


def test_a_group_at_slack_shows_clusters_the_newest_five_with_links_and_where_the_rest_is() -> None:
    payload = slack(*SEVEN)
    assert list(shown_texts(payload["blocks"]))[:7] == [
        "✕ 7 failed in Sales agent (12:00:31-12:00:31 UTC)",
        CLUSTER,
        "The newest 5:",
        "✕ Sales agent failed at Greeting",
        ERROR,
        f"2026-11-24 12:00:31 UTC · {execution_id(2)}",
        "Open",
    ]
    assert [block["accessory"]["url"] for block in payload["blocks"] if "accessory" in block] == NEWEST_LINKS
    assert payload["blocks"][-1]["elements"][0]["text"] == REST
    good = list(shown_texts(slack(*(closing_overdue(EventType.EXECUTION_SUCCESS, each) for each in (1, 2)))["blocks"]))
    when = f"2026-11-24 12:00:31 UTC · {execution_id(1)}"
    assert good[2:5] == ["The newest 2:", "✓ Sales agent succeeded, no longer overdue", when]
    assert "" not in good


@pytest.mark.parametrize(
    ("delays_s", "note"),
    [((0.8, 60.0), ""), ((0.8, 61.0), ", seen up to 1 m 1 s later"), ((61.0, 0.8), ", seen up to 1 m 1 s later")],
)
def test_a_group_says_when_its_events_happened_in_that_order_and_whether_they_were_seen_late(
    delays_s: tuple[float, float], note: str
) -> None:
    moments = [AT - timedelta(seconds=seconds) for seconds in (30, 90)]  # recorded in another order
    batch = [
        happened(failed(number), at, delay_s=delay_s)
        for number, (at, delay_s) in enumerate(zip(moments, delays_s, strict=True), 1)
    ]
    lines = list(shown_texts(slack(*batch)["blocks"]))
    span = f"11:59:01-12:00:01 UTC{note}"
    assert lines[0] == f"✕ 2 failed in Sales agent ({span})"
    assert lines[-1].startswith(f"2 events, {span}. ")
    times = [line for line in lines if " · " in line]
    assert times == [f"2026-11-24 11:59:01 UTC · {execution_id(2)}", f"2026-11-24 12:00:01 UTC · {execution_id(1)}"]


@pytest.mark.parametrize(("delay_s", "late"), [(60.0, []), (125.0, ["2 m 5 s later"])])
def test_a_message_says_whether_its_event_was_seen_more_than_a_minute_later(delay_s: float, late: list[str]) -> None:
    lines = list(shown_texts(slack(happened(failed(), AT, delay_s=delay_s))["blocks"]))
    assert [after for name, after in pairwise(lines) if name == "Seen"] == late


OPEN = [*map(sample, sorted(PROBLEM_KINDS)), sample(EventType.PROBLEM_REMINDER)]
NOT_OPEN = [
    *(sample(type_) for type_ in EventType if type_ not in {*PROBLEM_KINDS, EventType.PROBLEM_REMINDER}),
    *OVERDUE_ENDS,
]


@pytest.mark.parametrize("template", [SlackTemplate, DiscordTemplate, TeamsTemplate])
@pytest.mark.parametrize(
    ("delivery", "is_open"), [*((each, True) for each in OPEN), *((each, False) for each in NOT_OPEN)]
)
def test_a_message_that_opens_or_reminds_of_a_problem_has_a_link_to_acknowledge_it(
    template: type[ChatTemplate], delivery: Delivery, is_open: bool
) -> None:
    (message,) = template(public_url=PUBLIC).messages([delivery])
    assert (b"Acknowledge" in message.body.replace(b"Acknowledged", b"")) is is_open
    assert not is_open or (f"{PUBLIC}/problems/{PROBLEM}".encode() in message.body and b"Details" not in message.body)
    (without,) = template().messages([delivery])
    assert b"Acknowledge" not in without.body.replace(b"Acknowledged", b"")


def test_slack_shows_the_link_to_acknowledge_as_a_button_beside_the_link_of_the_account() -> None:
    data = data_of(EventType.EXECUTION_OVERDUE) | {"link": LINK}
    (message,) = SlackTemplate(public_url=PUBLIC).messages([sample(EventType.EXECUTION_OVERDUE, data=data)])
    buttons = check_slack(message.body)["blocks"][-1]["elements"]
    assert [(button["text"]["text"], button["url"]) for button in buttons] == [
        ("Open", LINK),
        ("Acknowledge", f"{PUBLIC}/problems/{PROBLEM}"),
    ]


def test_a_group_at_discord_shows_clusters_the_newest_five_with_links_and_where_the_rest_is() -> None:
    embed = embed_of(*SEVEN)
    assert embed["title"] == r"✕ 7 failed in Sales agent \(12\:00\:31-12\:00\:31 UTC\)"
    assert embed["description"] == f"```\n{CLUSTER}\n```\nThe newest 5:"
    value = f"`{ERROR}`\n`2026-11-24 12:00:31 UTC · {execution_id(2)}`\n[Open](<{LINK}2>)"
    assert embed["fields"][0] == {"name": "✕ Sales agent failed at Greeting", "value": value}
    assert (len(embed["fields"]), embed["footer"]["text"]) == (5, REST)


def test_a_group_at_teams_shows_clusters_the_newest_five_with_links_and_where_the_rest_is() -> None:
    runs = runs_of(card_of(*SEVEN))
    assert [run["text"] for run in runs][:6] == [
        "✕ 7 failed in Sales agent (12:00:31-12:00:31 UTC)",
        CLUSTER,
        "The newest 5:",
        "✕ Sales agent failed at Greeting",
        ERROR,
        f"2026-11-24 12:00:31 UTC · {execution_id(2)}",
    ]
    assert runs[-1]["text"] == REST
    assert [run["selectAction"]["url"] for run in runs if "selectAction" in run] == NEWEST_LINKS


def test_slack_is_shown_the_texts_of_others_as_they_are_and_obeys_none() -> None:
    payload, shown = slack(hostile()), clean(HOSTILE)
    assert payload["text"].endswith(shown.replace("<", "&lt;").replace(">", "&gt;"))
    assert payload["blocks"][1]["text"] == {"type": "plain_text", "text": shown, "emoji": False}
    assert payload["blocks"][0]["text"]["text"].startswith("✕ </x> *b* <!channel> @everyone [a](http://e)")
    assert f"Also failed:\nGreeting: {shown}" in texts_of(payload["blocks"])


def test_discord_escapes_names_and_shows_errors_in_code_that_they_cannot_end_and_pings_nobody() -> None:
    name = "*b* `c` <@1> @here :x: a: [l](http://e)"
    data = json.loads(hostile().body)["data"] | {"pipeline": {"id": PIPELINE, "name": name}}
    embed = embed_of(sample(EventType.EXECUTION_FAILED, data=data))
    assert embed["title"].startswith(r"✕ \*b\* \`c\` \<\@1\> \@here \:x: a: \[l\]\(http\://e\)")
    shown = clean(HOSTILE).replace("`", GRAVE)
    assert embed["description"] == f"```\n{shown}\n```\nAlso failed:\n```\nGreeting: {shown}\n```"


def test_teams_is_shown_the_texts_of_others_as_they_are_and_obeys_none() -> None:
    texts, shown = [run["text"] for run in runs_of(card_of(hostile()))], clean(HOSTILE)
    assert {shown, f"team={shown}", "Also failed:", f"Greeting: {shown}"} <= set(texts)


@pytest.mark.parametrize(
    ("delivery", "discord", "teams"),
    [
        (failed(), 0x960A20, "Attention"),
        (sample(EventType.PIPELINE_SILENT), 0x9F5F02, "Warning"),
        (closing_overdue(EventType.EXECUTION_SUCCESS), 0x067D51, "Good"),
    ],
)
def test_a_colour_says_how_bad_it_is(delivery: Delivery, discord: int, teams: str) -> None:
    assert (embed_of(delivery)["color"], runs_of(card_of(delivery))[0]["color"]) == (discord, teams)


@pytest.mark.parametrize("type_", set(EventType) - {EventType.WATCHER_REPORT})
def test_a_headline_of_nothing_but_markup_has_room_in_a_title_of_discord(type_: EventType) -> None:
    data = data_of(type_) | {"pipeline": {"id": PIPELINE, "name": "*" * 2000}, "answer": "*" * 2000}
    failure = {"status": "*" * 2000, "failedNodes": [{"name": "*" * 2000}]}
    embed = embed_of(sample(type_, data=data | {"execution": data.get("execution", {}) | failure}))
    assert embed["title"].count(r"\*") > 60


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", "wait=true"),
        ("?wait=true", "wait=true"),
        ("?thread_id=7", "thread_id=7&wait=true"),
        ("?wait=false", "wait=true"),
    ],
)
def test_discord_is_asked_whether_it_saved_the_message(query: str, asked: str) -> None:
    url = "https://discord.com/api/webhooks/1/t"
    assert str(DiscordTemplate().post_url(URL(url + query))) == f"{url}?{asked}"
