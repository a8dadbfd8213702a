"""What people read in Microsoft Teams."""

from typing import Any

import pytest
from receivers_rules import check_teams
from sample_events import (
    HOSTILE,
    OPENED_AT,
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
from watcher.sinks.protocol import SendOutcome, SendResult
from watcher.sinks.teams import TeamsTemplate

LINK = "https://example.com/runs/1"


def cards(*batch: Delivery) -> list[dict[str, Any]]:
    return [check_teams(message.body) for message in TeamsTemplate().messages(batch)]


def runs_of(card: dict[str, Any]) -> list[dict[str, Any]]:
    return [run for element in card["body"] for run in element.get("inlines", ())]


def test_teams_shows_headline_error_facts_ids_and_a_button() -> None:
    (card,) = cards(failed(link=LINK))
    headline, error, *_ = runs = runs_of(card)
    assert (headline["text"], headline["color"]) == ("✕ Sales agent failed at Greeting", "Attention")
    assert error == {"type": "TextRun", "text": "upstream timeout after 30 s", "fontType": "Monospace"}
    (facts,) = (element["facts"] for element in card["body"] if element["type"] == "FactSet")
    assert "2 m 31 s" in [run["text"] for run in runs]
    assert facts[0] == {
        "title": "Ended",
        "value": "{{DATE(2026-11-24T12:00:31Z, SHORT)}} {{TIME(2026-11-24T12:00:31Z)}}",
    }
    assert execution_id() in runs[-1]["text"]
    assert card["actions"] == [{"type": "Action.OpenUrl", "title": "Open", "url": LINK}]


def test_a_group_at_teams_shows_clusters_the_newest_five_with_links_and_where_the_rest_is() -> None:
    (card,) = cards(*(failed(number, link=f"{LINK}{number}") for number in range(7)))
    texts = [run["text"] for run in runs_of(card)]
    assert texts[:6] == [
        "✕ 7 failed in Sales agent (12:00:31-12:00:31 UTC)",
        "7 \N{MULTIPLICATION SIGN} Greeting: upstream timeout after 30 s",
        "The newest 5:",
        "✕ Sales agent failed at Greeting",
        "upstream timeout after 30 s",
        execution_id(6),
    ]
    assert texts[-1] == "7 events, 12:00:31-12:00:31 UTC. All of them are on the watcher's stdout."
    links = [run["selectAction"]["url"] for run in runs_of(card) if "selectAction" in run]
    assert links == [f"{LINK}{number}" for number in (6, 5, 4, 3, 2)]


def test_names_and_errors_are_shown_at_teams_as_they_are_and_obeyed_nowhere() -> None:
    data = data_of(EventType.EXECUTION_FAILED) | {"labels": {"team": HOSTILE}}
    data["pipeline"]["name"] = HOSTILE[:60]
    data["execution"] |= {"status": HOSTILE, "failedNodes": [{"name": "Greeting", "error": HOSTILE}] * 2}
    (card,) = cards(sample(EventType.EXECUTION_FAILED, data=data))
    texts = [run["text"] for run in runs_of(card)]
    assert clean(HOSTILE) in texts
    assert f"team={clean(HOSTILE)}" in texts
    assert f"Greeting: {clean(HOSTILE)}" in texts


def test_the_largest_event_has_room_in_a_card_and_what_is_cut_says_so() -> None:
    data = data_of(EventType.EXECUTION_FAILED)
    data["labels"] = {"label": "漢" * 250, "other": "漢" * 250}
    data["link"] = "https://example.com/" + "x" * 2000
    data["execution"] |= {"failedNodes": [{"name": "漢" * 300, "error": "漢" * 1600}] * 9, "status": "漢" * 200}
    (message,) = TeamsTemplate().messages([oversized(data)])
    check_teams(message.body)
    assert "chars)" in message.body.decode()


def test_a_link_that_is_long_has_no_room_in_a_group_at_teams() -> None:
    data = data_of(EventType.EXECUTION_FAILED) | {"link": "https://example.com/" + "x" * 2000}
    data["execution"]["failedNodes"] = [{"name": "漢" * 300, "error": "漢" * 500}]
    (message,) = TeamsTemplate().messages([sample(EventType.EXECUTION_FAILED, data=data)] * 20)
    assert not any("selectAction" in run for run in runs_of(check_teams(message.body)))


def test_teams_says_since_when_a_problem_is_open_and_colours_what_is_over_green() -> None:
    (opening,) = cards(sample(EventType.PIPELINE_SILENT))
    assert runs_of(opening)[0]["color"] == "Warning"
    assert f"{OPENED_AT:%Y-%m-%dT%H:%M:%SZ}" in str(opening)
    (closing,) = cards(closing_overdue(EventType.EXECUTION_SUCCESS))
    assert runs_of(closing)[0]["color"] == "Good"


def test_a_group_is_one_card_for_good_news_and_bad() -> None:
    (card,) = cards(failed(1), closing_overdue(EventType.EXECUTION_SUCCESS, 2), failed(3))
    assert runs_of(card)[0]["text"].startswith("✕ 2 failed, 1 succeeded in Sales agent")


@pytest.mark.parametrize("status", [200, 202])
def test_what_a_flow_takes_has_yet_to_be_shown(status: int) -> None:
    assert TeamsTemplate().send_result(status, b"") == SendResult(SendOutcome.ACCEPTED, str(status))


@pytest.mark.parametrize("status", [401, 403, 404])
def test_of_a_flow_that_does_not_answer_to_its_url_a_person_hears_what_to_do(status: int) -> None:
    result = TeamsTemplate().send_result(status, b"")
    assert (result.outcome, "flow" in result.remedy) == (SendOutcome.RETRY, True)
