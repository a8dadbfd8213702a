"""What people read in Slack."""

from datetime import datetime
from typing import Any

from receivers_rules import check_slack, shown_texts, texts_of
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

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.sinks.alert import clean
from watcher.sinks.slack import SlackTemplate


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
    assert fields[:3] == ["Status\nfailed, was running", "Ran\n2 m 31 s", "Labels\nteam=sales"]
    assert fields[-1].startswith("Ended\n<!date^1795521631^")
    assert execution_id() in payload["blocks"][3]["elements"][0]["text"]
    assert payload["blocks"][4]["elements"][0]["url"] == "https://example.com/runs/1"


def test_people_see_the_texts_of_slacks_blocks_in_their_order() -> None:
    (payload,) = slack(failed(link="https://example.com/runs/1"))
    assert list(shown_texts(payload["blocks"])) == [
        "✕ Sales agent failed at Greeting",
        "upstream timeout after 30 s",
        *("Status", "failed, was running", "Ran", "2 m 31 s", "Labels", "team=sales", "Account", "default"),
        *("Ended", "<!date^1795521631^{date_short_pretty} {time_secs}|2026-11-24 12:00:31 UTC>"),
        f"pipeline {PIPELINE} · execution {execution_id()} · event {failed().event_id}",
        "Open",
    ]


def test_a_group_at_slack_leaves_no_gap_and_names_each_of_the_newest_once() -> None:
    (payload,) = slack(*(failed(number, link=f"https://example.com/runs/{number}") for number in range(7)))
    lines = list(shown_texts(payload["blocks"]))
    assert lines[:7] == [
        "✕ 7 failed in Sales agent (12:00:31-12:00:31 UTC)",
        "7 \N{MULTIPLICATION SIGN} Greeting: upstream timeout after 30 s",
        "The newest 5:",
        "✕ Sales agent failed at Greeting",
        "upstream timeout after 30 s",
        execution_id(6),
        "Open",
    ]
    assert lines[-1] == "7 events, 12:00:31-12:00:31 UTC. All of them are on the watcher's stdout."
    assert [plain_texts(payload).count(execution_id(number)) for number in range(7)] == [0, 0, 1, 1, 1, 1, 1]
    (good,) = slack(*(closing_overdue(EventType.EXECUTION_SUCCESS, number) for number in (1, 2)))
    shown = list(shown_texts(good["blocks"]))
    assert shown[2:5] == ["The newest 2:", "✓ Sales agent succeeded, no longer overdue", execution_id(2)]
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


def test_slack_is_sent_what_has_room_and_what_is_cut_says_so() -> None:
    data = data_of(EventType.EXECUTION_FAILED)
    data["labels"] = {f"label{number}": "x" * 250 for number in range(10)}
    (message,) = SlackTemplate().messages([sample(EventType.EXECUTION_FAILED, data=data)])
    assert "chars)" in message.body.decode()
    data["link"] = "https://example.com/" + "x" * 2000
    data["execution"]["failedNodes"] = [{"name": "Greeting", "error": '"' * 1600}] * 9
    (message,) = SlackTemplate().messages([oversized(data)])
    texts = plain_texts(check_slack(message.body))
    assert ("label0=" in texts, texts.count("Greeting: "), '"' * 1480 in texts) == (True, 3, True)


def test_a_link_that_is_long_has_no_room_in_a_group_at_slack() -> None:
    (payload,) = slack(*(failed(number, link=f"https://example.com/{'x' * 400}") for number in range(2)))
    assert not any("accessory" in block for block in payload["blocks"])


def test_a_group_is_one_message_for_good_news_and_bad_at_slack() -> None:
    (payload,) = slack(failed(1), closing_overdue(EventType.EXECUTION_SUCCESS, 2), failed(3), failed(4))
    assert payload["text"].startswith("✕ 3 failed, 1 succeeded in Sales agent")
    assert "1 \N{MULTIPLICATION SIGN} Sales agent succeeded, no longer overdue" in plain_texts(payload)


def test_a_group_at_slack_shows_clusters_the_newest_five_and_where_the_rest_is() -> None:
    batch = [failed(number, link=f"https://example.com/{number}") for number in range(5_000)]
    (payload,) = slack(*batch)
    texts = plain_texts(payload)
    assert payload["text"].startswith("✕ 5,000 failed in Sales agent (12:00:31-12:00:31 UTC)")
    assert "5,000 \N{MULTIPLICATION SIGN} Greeting: upstream timeout after 30 s" in texts
    buttons = [block["accessory"]["url"] for block in payload["blocks"] if "accessory" in block]
    assert buttons == [f"https://example.com/{number}" for number in (4999, 4998, 4997, 4996, 4995)]
    assert sum(execution_id(number) in texts for number in range(5_000)) == 5


def test_a_group_of_one_looks_like_a_single_message() -> None:
    assert slack(failed())[0]["blocks"][0]["text"]["text"] == "✕ Sales agent failed at Greeting"
