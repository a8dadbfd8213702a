"""What people read in Discord, and what Discord's headers ask for."""

import json
from typing import Any

import pytest
from receivers_rules import check_discord
from sample_events import (
    HOSTILE,
    OPENED_AT,
    PIPELINE,
    closing_overdue,
    data_of,
    execution_id,
    failed,
    oversized,
    sample,
)
from yarl import URL

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.sinks.alert import clean
from watcher.sinks.discord import DiscordTemplate
from watcher.sinks.protocol import SendOutcome, SendResult

MESSAGE = b'{"type":0,"content":"","embeds":[{"title":"x"}],"id":"1"}'
GRAVE = "\N{MODIFIER LETTER GRAVE ACCENT}"
LINK = "https://example.com/runs/1"


def embeds(*batch: Delivery) -> list[dict[str, Any]]:
    return [check_discord(message.body)["embeds"][0] for message in DiscordTemplate().messages(batch)]


def test_discord_shows_headline_error_facts_ids_and_a_link() -> None:
    (embed,) = embeds(failed(link=LINK))
    assert (embed["title"], embed["url"], embed["color"]) == ("✕ Sales agent failed at Greeting", LINK, 0x960A20)
    assert embed["description"] == "```\nupstream timeout after 30 s\n```"
    facts = {field["name"]: field["value"] for field in embed["fields"]}
    assert facts["Status"] == "`failed, was running`"
    assert (facts["Ran"], facts["Ended"]) == ("`2 m 31 s`", "<t:1795521631:R>")
    assert all(field["inline"] for field in embed["fields"])
    assert execution_id() in embed["footer"]["text"]
    assert embed["timestamp"] == "2026-11-24T12:00:31.000Z"


def test_what_an_embed_says_of_an_event() -> None:
    (embed,) = embeds(failed(link=LINK))
    assert [each["name"] for each in embed["fields"]] == ["Status", "Ran", "Labels", "Account", "Ended"]
    ids = f"pipeline {PIPELINE} · execution {execution_id()} · event {failed().event_id}"
    assert embed["footer"]["text"] == ids


def test_a_group_at_discord_shows_clusters_the_newest_five_with_links_and_where_the_rest_is() -> None:
    (embed,) = embeds(*(failed(number, link=f"{LINK}{number}") for number in range(7)))
    assert embed["title"] == r"✕ 7 failed in Sales agent \(12\:00\:31-12\:00\:31 UTC\)"
    error = "upstream timeout after 30 s"
    assert embed["description"] == f"```\n7 \N{MULTIPLICATION SIGN} Greeting: {error}\n```\nThe newest 5:"
    value = f"`{error}`\n`{execution_id(6)}`\n[Open](<{LINK}6>)"
    assert embed["fields"][0] == {"name": "✕ Sales agent failed at Greeting", "value": value}
    assert len(embed["fields"]) == 5
    rest = "7 events, 12:00:31-12:00:31 UTC. All of them are on the watcher's stdout."
    assert embed["footer"]["text"] == rest


def test_names_are_escaped_and_errors_stand_in_code_that_they_cannot_end_and_nobody_is_pinged() -> None:
    error = f"``` {HOSTILE}"
    (embed,) = embeds(failed(error=error, pipeline={"id": PIPELINE, "name": "*b* `c` <@1> @here :x: a: [l](http://e)"}))
    assert embed["title"].startswith(r"✕ \*b\* \`c\` \<\@1\> \@here \:x: a: \[l\]\(http\://e\)")
    assert embed["description"] == f"```\n{clean(error).replace('`', GRAVE)}\n```"
    (message,) = DiscordTemplate().messages([failed()])
    assert json.loads(message.body)["allowed_mentions"] == {"parse": []}


@pytest.mark.parametrize("type_", EventType)
def test_a_headline_of_nothing_but_markup_has_room_in_a_title(type_: EventType) -> None:
    data = data_of(type_) | {"pipeline": {"id": PIPELINE, "name": "*" * 2000}, "answer": "*" * 2000}
    failure = {"status": "*" * 2000, "failedNodes": [{"name": "*" * 2000}]}
    (embed,) = embeds(sample(type_, data=data | {"execution": data.get("execution", {}) | failure}))
    assert embed["title"].count(r"\*") > 60


def test_the_largest_event_has_room_in_an_embed_and_what_is_cut_says_so() -> None:
    data = data_of(EventType.EXECUTION_FAILED)
    data["labels"] = {"label": "漢" * 250, "other": "漢" * 250}
    nodes = [{"name": "*" * 300, "error": "漢" * 1600}] * 9
    data["execution"] |= {"failedNodes": nodes, "status": "漢" * 200}
    (message,) = DiscordTemplate().messages([oversized(data)])
    (embed,) = check_discord(message.body)["embeds"]
    assert "chars)" in embed["description"]
    assert ("Labels" in str(embed["fields"]), "Also failed" in embed["description"]) == (True, True)
    assert len(message.body) > 6000  # bytes are not what counts


def test_discord_says_since_when_a_problem_is_open_and_colours_what_is_over_green() -> None:
    (opening,) = embeds(sample(EventType.PIPELINE_SILENT))
    assert opening["color"] == 0x9F5F02
    assert {"name": "Since", "value": f"<t:{int(OPENED_AT.timestamp())}:R>", "inline": True} in opening["fields"]
    (closing,) = embeds(closing_overdue(EventType.EXECUTION_SUCCESS))
    assert closing["color"] == 0x067D51


def test_a_link_that_is_too_long_for_discord_is_left_out() -> None:
    (embed,) = embeds(failed(link=f"https://example.com/{'x' * 2100}"))
    assert "url" not in embed
    (group,) = embeds(*(failed(number, link=f"https://example.com/{'x' * 1000}") for number in range(2)))
    assert "Open" not in str(group["fields"])


def test_a_group_is_one_message_for_good_news_and_bad_at_discord() -> None:
    (embed,) = embeds(failed(1), closing_overdue(EventType.EXECUTION_SUCCESS, 2), failed(3))
    assert embed["title"].startswith("✕ 2 failed, 1 succeeded in Sales agent")


def test_a_webhook_that_was_deleted_is_tried_again_and_a_person_hears_what_to_do() -> None:
    result = DiscordTemplate().send_result(404, b'{"message": "Unknown Webhook", "code": 10015}')
    assert (result.outcome, "make a new one" in result.remedy) == (SendOutcome.RETRY, True)


def test_a_long_message_whose_beginning_alone_was_read_is_one() -> None:
    assert DiscordTemplate().send_result(200, MESSAGE[:40]) == SendResult(SendOutcome.DELIVERED, "200")


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://discord.com/api/webhooks/1/t", "https://discord.com/api/webhooks/1/t?wait=true"),
        ("https://discord.com/api/webhooks/1/t?wait=true", "https://discord.com/api/webhooks/1/t?wait=true"),
        (
            "https://discord.com/api/webhooks/1/t?thread_id=7",
            "https://discord.com/api/webhooks/1/t?thread_id=7&wait=true",
        ),
        ("https://discord.com/api/webhooks/1/t?wait=false", "https://discord.com/api/webhooks/1/t?wait=true"),
    ],
)
def test_discord_is_asked_whether_it_saved_the_message(url: str, asked: str) -> None:
    assert str(DiscordTemplate().post_url(URL(url))) == asked
