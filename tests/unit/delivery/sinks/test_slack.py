"""What people read in Slack."""

from datetime import datetime
from typing import Any

from receivers_rules import check_slack, texts_of
from sample_events import (
    HOSTILE,
    OPENED_AT,
    PIPELINE,
    closing_overdue,
    data_of,
    execution_id,
    failed,
    sample,
)

from watcher.delivery.sinks.alert_text import clean
from watcher.delivery.sinks.slack import SlackTemplate
from watcher.delivery.sinks.slack_blocks import MESSAGE_LENGTH
from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType


def slack(*batch: Delivery) -> list[dict[str, Any]]:
    return [check_slack(message.body) for message in SlackTemplate().messages(batch)]


def plain_texts(payload: dict[str, Any]) -> str:
    return "\n".join(texts_of(payload["blocks"]))


def test_slack_says_since_when_a_problem_is_open_though_its_execution_has_ended() -> None:
    failed = data_of(EventType.EXECUTION_FAILED)["execution"]
    reminder = data_of(EventType.PROBLEM_REMINDER) | {"execution": failed}
    (payload,) = slack(sample(EventType.PROBLEM_REMINDER, data=reminder))
    fields = next(block["fields"] for block in payload["blocks"] if "fields" in block)
    opened_at = datetime.fromisoformat(reminder["problem"]["openedAt"])
    assert fields[-1]["text"].startswith(f"Since\n<!date^{int(opened_at.timestamp())}^")


def test_slack_shows_headline_error_facts_ids_and_a_button() -> None:
    data = data_of(EventType.EXECUTION_FAILED) | {"link": "https://example.com/runs/1"}
    (payload,) = slack(sample(EventType.EXECUTION_FAILED, data=data))
    assert payload["text"] == "✕ Sales agent failed at Greeting\nupstream timeout after 30 s"
    kinds = [block["type"] for block in payload["blocks"]]
    assert kinds == ["header", "section", "section", "context", "actions"]
    fields = [field["text"] for field in payload["blocks"][2]["fields"]]
    assert fields[:3] == ["Status\nfailed, was running", "Ran\n2 m 31 s", "Seen after\n0.8 s"]
    assert fields[-1].startswith("Ended\n<!date^1795521631^")
    assert execution_id() in payload["blocks"][3]["elements"][0]["text"]
    assert payload["blocks"][4]["elements"][0]["url"] == "https://example.com/runs/1"


def test_people_see_the_texts_of_slacks_blocks_in_their_order() -> None:
    (message,) = SlackTemplate().messages([failed(link="https://example.com/runs/1")])
    assert SlackTemplate().preview(message.body) == [
        "✕ Sales agent failed at Greeting",
        "upstream timeout after 30 s",
        "Status: failed, was running      Ran: 2 m 31 s",
        "Seen after: 0.8 s                Labels: team=sales",
        "Account: default                 Severity: error",
        "Ended: 2026-11-24 12:00:31 UTC",
        f"pipeline {PIPELINE} · execution {execution_id()} · event {failed().event_id}",
        "[Open]",
    ]


def test_people_see_a_group_as_slack_shows_it() -> None:
    batch = [failed(number, link=f"https://example.com/runs/{number}") for number in range(7)]
    (message,) = SlackTemplate().messages(batch)
    lines = SlackTemplate().preview(message.body)
    assert lines[:6] == [
        "✕ 7 failed in Sales agent (12:00:31-12:00:31 UTC)",
        "7 \N{MULTIPLICATION SIGN} Greeting: upstream timeout after 30 s",
        "The newest 5:",
        "✕ Sales agent failed at Greeting   [Open]",
        "upstream timeout after 30 s",
        execution_id(6),
    ]
    assert lines[-1] == "7 events, 12:00:31-12:00:31 UTC. All of them are on the watcher's stdout."


def test_an_event_without_an_error_leaves_no_gap_in_a_group_at_slack() -> None:
    batch = [closing_overdue(EventType.EXECUTION_SUCCESS, 1), closing_overdue(EventType.EXECUTION_SUCCESS, 2)]
    (message,) = SlackTemplate().messages(batch)
    shown = SlackTemplate().preview(message.body)
    assert shown[2:5] == [
        "The newest 2:",
        "✓ Sales agent succeeded, no longer overdue",
        execution_id(2),
    ]
    assert "" not in shown


def test_names_and_errors_are_shown_at_slack_as_they_are_and_obeyed_nowhere() -> None:
    (payload,) = slack(failed(error=HOSTILE, pipeline={"id": PIPELINE, "name": HOSTILE[:60]}))
    shown = clean(HOSTILE)
    assert payload["text"].endswith(shown.replace("<", "&lt;").replace(">", "&gt;"))
    assert payload["blocks"][1]["text"] == {"type": "plain_text", "text": shown, "emoji": False}
    assert payload["blocks"][0]["text"]["text"].startswith("✕ </x> *b* <!channel> @everyone [a](http://e)")


def test_slack_says_since_when_a_problem_is_open_and_how_long_an_execution_was_overdue() -> None:
    (opening,) = slack(sample(EventType.PIPELINE_SILENT))
    assert f"Since\n<!date^{int(OPENED_AT.timestamp())}^" in plain_texts(opening)
    (closing,) = slack(closing_overdue(EventType.EXECUTION_PAUSED))
    assert "Was overdue\n41 m" in plain_texts(closing)


def test_slack_names_other_nodes_that_failed() -> None:
    data = data_of(EventType.EXECUTION_FAILED)
    data["execution"]["failedNodes"] += [{"name": "Booking", "error": "no slot"}]
    (payload,) = slack(sample(EventType.EXECUTION_FAILED, data=data))
    assert "Also failed:\nBooking: no slot" in plain_texts(payload)


def test_slack_gives_up_labels_first_then_other_nodes_then_the_end_of_the_error() -> None:
    data = data_of(EventType.EXECUTION_FAILED)
    data["labels"] = {f"label{number}": "x" * 250 for number in range(10)}
    (message,) = SlackTemplate().messages([sample(EventType.EXECUTION_FAILED, data=data)])
    assert "chars)" in message.body.decode()
    assert message.is_cut
    data["link"] = "https://example.com/" + "x" * 2000
    data["labels"] = {"label": '"' * 250, "other": '"' * 250}
    others = [{"name": "Booking", "error": '"' * 290}] * 4
    data["execution"]["failedNodes"] = [{"name": "Greeting", "error": '"' * 1500}, *others]
    (message,) = SlackTemplate().messages([sample(EventType.EXECUTION_FAILED, data=data)])
    texts = plain_texts(check_slack(message.body))
    assert (len(message.body.decode()) <= MESSAGE_LENGTH, message.is_cut) == (True, True)
    assert ("label=" in texts, "Booking" in texts, '"' * 1500 in texts) == (False, True, True)


def test_a_message_is_measured_with_an_emoji_as_two_characters_for_slack_does_not_say_how_it_counts() -> None:
    more = {"pipeline": {"id": PIPELINE, "name": "🎉" * 90}, "link": f"https://example.com/{'x' * 1350}"}
    (payload,) = slack(*(failed(number, error="🎉" * 500, **more) for number in range(5)))
    # With an emoji as one character there would be room for all five.
    assert sum("accessory" in block for block in payload["blocks"]) == 1


def test_good_and_bad_news_never_share_a_message_at_slack() -> None:
    bad, good = slack(failed(1), closing_overdue(EventType.EXECUTION_SUCCESS, 2), failed(3), failed(4))
    assert good["text"].startswith("✓ Sales agent succeeded, no longer overdue")
    assert bad["text"].startswith("✕ 3 failed in Sales agent")


def test_what_began_first_is_said_first_at_slack() -> None:
    overdue, over = sample(EventType.EXECUTION_OVERDUE), closing_overdue(EventType.EXECUTION_SUCCESS)
    assert [each["text"][0] for each in slack(overdue, over)] == ["◷", "✓"]
    assert [each["text"][0] for each in slack(over, overdue)] == ["✓", "◷"]


def test_a_group_at_slack_shows_clusters_the_newest_five_and_where_the_rest_is() -> None:
    batch = [failed(number, link=f"https://example.com/{number}") for number in range(5_000)]
    (payload,) = slack(*batch)
    texts = plain_texts(payload)
    assert payload["text"].startswith("✕ 5,000 failed in Sales agent (12:00:31-12:00:31 UTC)")
    assert "5,000 \N{MULTIPLICATION SIGN} Greeting: upstream timeout after 30 s" in texts
    buttons = [block["accessory"]["url"] for block in payload["blocks"] if "accessory" in block]
    assert buttons == [f"https://example.com/{number}" for number in (4999, 4998, 4997, 4996, 4995)]
    shown = sum(execution_id(number) in texts for number in range(5_000))
    assert f"{5_000 - shown:,} ids are left out here" in texts
    assert shown > 150
    assert not SlackTemplate().messages(batch)[0].is_cut


def test_a_group_of_one_looks_like_a_single_message() -> None:
    assert slack(failed())[0]["blocks"][0]["text"]["text"] == "✕ Sales agent failed at Greeting"
