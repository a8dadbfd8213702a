"""A report as people read it."""

from datetime import datetime
from typing import Any

import pytest
from receivers_rules import check_discord, check_slack, check_slack_blocks, check_teams, shown_texts
from sample_events import AT, HOSTILE, report_block, sample

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.problems import Severity
from watcher.sinks.alert import Alert, length, report_title
from watcher.sinks.apprise import MESSAGE_BYTES, plain_message
from watcher.sinks.chat import ERROR_LENGTH, notice_of_batch
from watcher.sinks.discord import DiscordTemplate
from watcher.sinks.report import report_lines, report_span
from watcher.sinks.slack import SlackTemplate
from watcher.sinks.slack_bot import messages_of
from watcher.sinks.stdout import event_line, reason_of
from watcher.sinks.teams import TeamsTemplate

TITLE = "Clerk agents, Mon 30 Nov: 1 of 18 needs a look"
TIMES = "\N{MULTIPLICATION SIGN}"
RATE, DURATIONS = "91.2 % of 342 succeeded, was 98.4 %", "median 12 s, p95 40 s"
LINES = [
    f"✕ Sales agent: failing; {RATE}; 12 {TIMES} Greeting: upstream timeout; {DURATIONS}",
    "✓ 17 are well",
    f"All 18: {RATE}; {DURATIONS}; 1 open problem; 51,200 tokens",
]
SPAN = "Sun 29 Nov 08:00 to Mon 30 Nov 08:00 (CET)"
LINK = "https://watcher.example.com"
ALL = 10**6


def delivery(**of_report: Any) -> Delivery:
    observed = {"observed": {"at": "2026-11-30T07:00:02.000Z"}}
    return sample(EventType.WATCHER_REPORT, data={"report": report_block(**of_report), **observed})


def test_a_title_says_the_day_and_how_many_pipelines_need_a_look() -> None:
    assert report_title(report_block()) == TITLE
    assert report_title(report_block(count=3)) == "Clerk agents, Mon 30 Nov: 3 of 20 need a look"
    assert report_title(report_block(count=0)) == "Clerk agents, Mon 30 Nov: all are well"


def test_a_report_has_a_line_for_each_pipeline_that_needs_a_look_one_for_the_others_and_totals() -> None:
    assert report_lines(report_block(), limit=ALL) == LINES
    assert report_span(report_block()) == SPAN
    well = report_block()["pipelines"][0] | {"needsLook": False}
    assert report_lines(report_block(count=0) | {"pipelines": [well]}, limit=ALL) == [
        "✓ 17 are well",
        LINES[2].replace("18", "17"),
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"state": "unknown", "ended": 0}, "? Sales agent: unknown; none ended"),
        (
            {"state": "well", "error": {"text": "boom", "count": 1_200}},
            f"✕ Sales agent: {RATE}; 1,200 {TIMES} boom; {DURATIONS}",
        ),
        (
            {"name": "", "id": "0b5c", "successRate": 0.9999, "error": None, "medianSeconds": 0.31, "p95Seconds": 151},
            "✕ 0b5c: failing; 99.9 % of 342 succeeded, was 98.4 %; median 0.3 s, p95 2 m 31 s",
        ),
        (
            {"name": "x" * 90, "error": {"node": "y" * 50, "text": "z" * 50, "count": 1}},
            f"✕ {'x' * 39}…: failing; {RATE}; 1 {TIMES} {'y' * 50}: {'z' * 7}…; {DURATIONS}",
        ),
    ],
)
def test_a_line_says_what_is_known_of_a_pipeline_and_no_more(changes: dict[str, Any], line: str) -> None:
    report = report_block()
    each = {key: value for key, value in (report["pipelines"][0] | changes).items() if value is not None}
    assert report_lines(report | {"pipelines": [each]}, limit=ALL)[0] == line


def test_what_has_no_room_is_counted() -> None:
    for limit in (200, 300, 1_000, ALL):
        lines = report_lines(report_block(count=20), limit=limit)
        shown_count = sum(line.startswith("✕") for line in lines)
        more = [line for line in lines if line.startswith("and ")]
        left = 20 - shown_count
        assert more == ([f"and {left} more need a look"] if left else [])
        assert sum(length(line) + 1 for line in lines) <= limit
    assert shown_count == 20
    one_more = report_block(count=2) | {"pipelines": report_block()["pipelines"]}
    assert "and 1 more needs a look" in report_lines(one_more, limit=ALL)


def test_without_a_zone_a_report_is_by_the_clock_of_the_machine_that_shows_it() -> None:
    report = {key: value for key, value in report_block().items() if key != "timezone"}
    here = datetime.fromisoformat(report["until"]).astimezone()
    assert report_span(report).endswith(f"{here:%a} {here.day} {here:%b %H:%M} ({here:%Z})")


def test_chats_show_a_report_as_a_warning_if_somebody_is_to_look_and_with_its_link() -> None:
    notice = notice_of_batch([delivery()])
    assert (notice.headline, notice.error.splitlines(), notice.footer) == (TITLE, LINES, SPAN)
    assert (notice.severity, notice.is_trouble, notice.facts, notice.moment) == (Severity.WARNING, False, {}, None)
    assert notice.links == {"Details": LINK}
    (message,) = SlackTemplate().messages([delivery()])
    blocks = check_slack(message.body)["blocks"]
    assert list(shown_texts(blocks)) == [TITLE, *LINES, SPAN, "Details"]
    assert blocks[-1]["elements"][0]["url"] == LINK
    (by_bot,) = messages_of([delivery()])
    check_slack_blocks(by_bot.content)
    assert by_bot.content["blocks"] == blocks
    (message,) = DiscordTemplate().messages([delivery()])
    embed = check_discord(message.body)["embeds"][0]
    assert (embed["title"], embed["url"], embed["color"], embed["footer"]["text"]) == (TITLE, LINK, 0x9F5F02, SPAN)
    assert embed["description"] == "```\n" + "\n".join(LINES) + "\n```"
    (message,) = TeamsTemplate().messages([delivery()])
    card = check_teams(message.body)
    assert [run["text"] for each in card["body"] for run in each["inlines"]] == [TITLE, *LINES, SPAN]
    assert card["actions"][0]["url"] == LINK


def test_apprise_shows_a_report_with_its_link() -> None:
    title, body, kind = plain_message([delivery()])
    assert (title, kind) == (TITLE, "warning")
    assert body == "\n\n".join(["\n".join(LINES), SPAN, f"Details: {LINK}"])
    _, body, _ = plain_message([delivery(count=20)])
    assert len(body.encode()) <= MESSAGE_BYTES
    assert body.endswith(LINK)


def test_a_link_that_no_receiver_takes_is_left_out() -> None:
    report = report_block() | {"link": "https://watcher.example.com/<>"}
    assert notice_of_batch([sample(EventType.WATCHER_REPORT, data={"report": report})]).links == {}


@pytest.mark.parametrize("text", [HOSTILE * 9, "*" * 300, "`" * 300, "🎉" * 300, "\x1b" * 300])
@pytest.mark.parametrize("count", [1, 20])
def test_every_chat_takes_a_report_whatever_is_in_it(text: str, count: int) -> None:
    batch = [delivery(name=text, error=text, count=count)]
    assert length(notice_of_batch(batch).error) <= ERROR_LENGTH
    for template, check in (
        (SlackTemplate(), check_slack),
        (DiscordTemplate(), check_discord),
        (TeamsTemplate(), check_teams),
    ):
        (message,) = template.messages(batch)
        check(message.body)


def test_on_a_terminal_a_report_is_one_line_that_holds_its_title() -> None:
    event = delivery().content
    line = event_line(event).plain
    assert "≡ watcher.report morning" in line
    assert line.endswith(TITLE)
    assert reason_of(event["data"]) == TITLE
    assert Alert.of(event).time == AT
