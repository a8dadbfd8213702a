"""What people read in Slack, Discord and Microsoft Teams."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from receivers_rules import check_discord, check_slack, check_teams, shown_texts, texts_of
from sample_events import (
    AT,
    ERROR,
    HOSTILE,
    OVERDUE_ENDS,
    PIPELINE,
    PROBLEM,
    closing_overdue,
    execution_id,
    failed,
    happened,
    of_text,
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
HEADLINE = "✕ Sales agent failed at Greeting"
IDS = f"pipeline {PIPELINE} · execution {execution_id()} · event {failed().event_id}"
CLUSTER = f"7 \N{MULTIPLICATION SIGN} Greeting: {ERROR}"
REST = "7 events, 12:00:31-12:00:31 UTC. All of them are on the watcher's stdout."
NEWEST_LINKS = [f"{LINK}{number}" for number in (2, 3, 4, 5, 6)]
SEVEN = [failed(number, link=f"{LINK}{number}") for number in range(7)]
OF_SEVEN = [
    *("✕ 7 failed in Sales agent (12:00:31-12:00:31 UTC)", CLUSTER, "The newest 5:"),
    *(HEADLINE, ERROR, f"2026-11-24 12:00:31 UTC · {execution_id(2)}"),
]


def slack(*batch: Delivery, public_url: str = "") -> dict[str, Any]:
    (message,) = SlackTemplate(public_url=public_url).messages(batch)
    return check_slack(message.body)


def lines_of(*batch: Delivery) -> list[str]:
    """Return what people read in Slack."""
    return list(shown_texts(slack(*batch)["blocks"]))


def embed_of(*batch: Delivery) -> dict[str, Any]:
    (message,) = DiscordTemplate().messages(batch)
    embed: dict[str, Any] = check_discord(message.body)["embeds"][0]
    return embed


def card_of(*batch: Delivery) -> dict[str, Any]:
    (message,) = TeamsTemplate().messages(batch)
    return check_teams(message.body)


def runs_of(card: dict[str, Any]) -> list[dict[str, Any]]:
    return [run for element in card["body"] for run in element.get("inlines", ())]


def test_teams_and_discord_show_headline_error_facts_ids_and_a_link() -> None:
    embed = embed_of(failed(link=LINK))
    assert (embed["title"], embed["url"], embed["color"]) == (HEADLINE, LINK, 0x960A20)
    assert embed["description"] == f"```\n{ERROR}\n```"
    facts = {field["name"]: field["value"] for field in embed["fields"]}
    assert list(facts) == ["Status", "Ran", "Labels", "Account", "Ended"]
    assert list(facts.values())[::2] == ["`failed, was running`", "`team=sales`", "<t:1795521631:R>"]
    assert all(field["inline"] for field in embed["fields"])
    assert (embed["footer"]["text"], embed["timestamp"]) == (IDS, "2026-11-24T12:00:31.000Z")
    card = card_of(failed(link=LINK))
    headline, error, *_ = runs = runs_of(card)
    assert (headline["text"], headline["color"]) == (HEADLINE, "Attention")
    assert error == {"type": "TextRun", "text": ERROR, "fontType": "Monospace"}
    (facts,) = (element["facts"] for element in card["body"] if element["type"] == "FactSet")
    assert {"failed, was running", "2 m 31 s", "team=sales", "default"} <= {run["text"] for run in runs}
    when = "{{DATE(2026-11-24T12:00:31Z, SHORT)}} {{TIME(2026-11-24T12:00:31Z)}}"
    assert facts[0] == {"title": "Ended", "value": when}
    assert runs[-1]["text"] == IDS
    assert card["actions"] == [{"type": "Action.OpenUrl", "title": "Open", "url": LINK}]


def test_a_group_shows_clusters_the_newest_five_with_links_and_where_the_rest_is() -> None:
    payload, embed, runs = slack(*SEVEN), embed_of(*SEVEN), runs_of(card_of(*SEVEN))
    assert lines_of(*SEVEN)[:7] == [*OF_SEVEN, "Open"]
    assert [block["accessory"]["url"] for block in payload["blocks"] if "accessory" in block] == NEWEST_LINKS
    assert payload["blocks"][-1]["elements"][0]["text"] == REST
    assert embed["title"] == r"✕ 7 failed in Sales agent \(12\:00\:31-12\:00\:31 UTC\)"
    assert embed["description"] == f"```\n{CLUSTER}\n```\nThe newest 5:"
    value = f"`{ERROR}`\n`2026-11-24 12:00:31 UTC · {execution_id(2)}`\n[Open](<{LINK}2>)"
    assert embed["fields"][0] == {"name": HEADLINE, "value": value}
    assert (len(embed["fields"]), embed["footer"]["text"]) == (5, REST)
    assert [run["text"] for run in runs][:6] == OF_SEVEN
    assert runs[-1]["text"] == REST
    assert [run["selectAction"]["url"] for run in runs if "selectAction" in run] == NEWEST_LINKS
    good = lines_of(*(closing_overdue(EventType.EXECUTION_SUCCESS, each) for each in (1, 2)))
    when = f"2026-11-24 12:00:31 UTC · {execution_id(1)}"
    assert good[2:5] == ["The newest 2:", "✓ Sales agent succeeded, no longer overdue", when]
    assert "" not in good


@pytest.mark.parametrize(
    ("delays_s", "note"),
    [((0.8, 60.0), ""), ((0.8, 61.0), ", seen up to 1 m 1 s later"), ((61.0, 0.8), ", seen up to 1 m 1 s later")],
)
def test_a_group_says_when_its_events_happened_and_if_they_were_seen_late(delays_s: Sequence[float], note: str) -> None:
    first, second = (AT - timedelta(seconds=seconds) for seconds in (30, 90))  # recorded in another order
    batch = (happened(failed(1), first, delay_s=delays_s[0]), happened(failed(2), second, delay_s=delays_s[1]))
    lines = lines_of(*batch)
    span = f"11:59:01-12:00:01 UTC{note}"
    assert lines[0] == f"✕ 2 failed in Sales agent ({span})"
    assert lines[-1].startswith(f"2 events, {span}. ")
    times = [f"2026-11-24 11:59:01 UTC · {execution_id(2)}", f"2026-11-24 12:00:01 UTC · {execution_id(1)}"]
    assert [line for line in lines if " · " in line] == times


@pytest.mark.parametrize(
    ("delivery", "name", "values"),
    [
        (happened(failed(), AT, delay_s=60.0), "Seen", []),
        (happened(failed(), AT, delay_s=125.0), "Seen", ["2 m 5 s later"]),
        (sample(EventType.PIPELINE_FAILING, closesWhen="3 succeeded"), "Closes when", ["3 succeeded"]),
        (sample(EventType.PROBLEM_REMINDER, closesWhen="3 succeeded"), "Closes when", ["3 succeeded"]),
        (
            sample(
                EventType.PROBLEM_CLOSED,
                closesWhen="3 succeeded",
                problem=problem_block(EventType.PIPELINE_FAILING, closed=True),
            ),
            "Closes when",
            [],
        ),
    ],
)
def test_a_message_says_if_it_was_late_and_what_closes_it(delivery: Delivery, name: str, values: list[str]) -> None:
    assert [after for fact, after in pairwise(lines_of(delivery)) if fact == name] == values


OPEN = PROBLEM_KINDS | {EventType.PROBLEM_REMINDER}


@pytest.mark.parametrize("template", [SlackTemplate, DiscordTemplate, TeamsTemplate])
@pytest.mark.parametrize("delivery", [*map(sample, EventType), *OVERDUE_ENDS], ids=lambda delivery: delivery.type)
def test_an_open_problem_has_a_link_to_acknowledge_it(template: type[ChatTemplate], delivery: Delivery) -> None:
    is_open = delivery.type in OPEN
    (message,), (without,) = (template(public_url=url).messages([delivery]) for url in (PUBLIC, ""))
    assert (b"Acknowledge" in message.body.replace(b"Acknowledged", b"")) is is_open
    assert not is_open or (f"{PUBLIC}/problems/{PROBLEM}".encode() in message.body and b"Details" not in message.body)
    assert b"Acknowledge" not in without.body.replace(b"Acknowledged", b"")


def test_slack_shows_headline_error_facts_ids_and_buttons() -> None:
    payload = slack(failed(link=LINK))
    assert payload["text"] == f"{HEADLINE}\n{ERROR}"
    assert [block["type"] for block in payload["blocks"]] == ["header", "section", "section", "context", "actions"]
    assert lines_of(failed(link=LINK)) == [
        *(HEADLINE, ERROR, "Status", "failed, was running", "Ran", "2 m 31 s", "Labels", "team=sales"),
        *("Account", "default", "Ended"),
        *("<!date^1795521631^{date_short_pretty} {time_secs}|2026-11-24 12:00:31 UTC>", IDS, "Open"),
    ]
    assert payload["blocks"][4]["elements"][0]["url"] == LINK
    buttons = slack(sample(EventType.EXECUTION_OVERDUE, link=LINK), public_url=PUBLIC)["blocks"][-1]["elements"]
    shown = [(button["text"]["text"], button["url"]) for button in buttons]
    assert shown == [("Open", LINK), ("Acknowledge", f"{PUBLIC}/problems/{PROBLEM}")]


def test_the_texts_of_others_are_shown_as_they_are_and_ping_nobody() -> None:
    hostile, shown = of_text(HOSTILE), clean(HOSTILE)
    payload, texts = slack(hostile), [run["text"] for run in runs_of(card_of(hostile))]
    assert payload["text"].endswith(shown.replace("<", "&lt;").replace(">", "&gt;"))
    assert payload["blocks"][1]["text"] == {"type": "plain_text", "text": shown, "emoji": False}
    assert payload["blocks"][0]["text"]["text"].startswith("✕ </x> *b* <!channel> @everyone [a](http://e)")
    assert any(f"Also failed:\n{shown}: {shown}" in text for text in texts_of(payload["blocks"]))
    assert {shown, "Also failed:", f"{shown}: {shown}"} <= set(texts)
    nodes = [{"name": "Greeting", "error": HOSTILE}] * 2
    name = "*b* `c` <@1> @here :x: a: [l](http://e)"
    embed = embed_of(failed(pipeline={"name": name}, execution={"failedNodes": nodes}))
    assert embed["title"].startswith(r"✕ \*b\* \`c\` \<\@1\> \@here \:x: a: \[l\]\(http\://e\)")
    shown = clean(HOSTILE).replace("`", GRAVE)
    assert embed["description"] == f"```\n{shown}\n```\nAlso failed:\n```\nGreeting: {shown}\n```"


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
    assert (
        embed_of(of_text("*" * 2000, type_, answer="*" * 2000, pipeline={"name": "*" * 2000}))["title"].count(r"\*")
        > 60
    )


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
