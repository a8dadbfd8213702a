"""A report as people read it."""

from datetime import datetime
from typing import Any

import pytest
from receivers_rules import check_discord, check_slack, check_slack_blocks, check_teams, shown_texts
from sample_events import AT, HOSTILE, report_block, sample

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType, Severity
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
RATE, DURATIONS = "91.2 % of 342 succeeded, was 98.4 %", "median 12 s, p95 40 s"
LINES = [
    "✕ Sales agent keeps failing, last at Greeting: upstream timeout, since Sun 22:10",
    "✓ 17 are well",
    f"All 18: {RATE}; {DURATIONS}; 1 open problem; 51,200 tokens",
]
SPAN = "Sun 29 Nov 08:00 to Mon 30 Nov 08:00 (CET)"
LINK = "https://watcher.example.com"
ALL = 10**6


def before(**of_report: Any) -> dict[str, Any]:
    """Return a report as version 1.1.0 stored it."""
    new = {"happened", "lineCount"}
    return {key: value for key, value in report_block(**of_report).items() if key not in new}


def delivery(**of_report: Any) -> Delivery:
    observed = {"observed": {"at": "2026-11-30T07:00:02.000Z"}}
    return sample(EventType.WATCHER_REPORT, data={"report": report_block(**of_report), **observed})


@pytest.mark.parametrize(
    ("counts", "looks"),
    [
        ((0, 1, 0), "1 account needs a look"),
        ((0, 0, 2), "2 sinks need a look"),
        ((3, 1, 2), "3 of 20, 1 account, 2 sinks need a look"),
    ],
)
def test_a_title_counts_accounts_and_sinks_that_need_a_look(counts: tuple[int, int, int], looks: str) -> None:
    count, accounts, sinks = counts
    line = report_block()["happened"][0]
    abouts = ["account"] * accounts + ["sink"] * sinks
    lasting = [line | {"about": about, "names": [f"{number}"]} for number, about in enumerate(abouts)] * 2
    report = report_block(count=count) | {"happened": lasting}
    assert report_title(report) == f"Clerk agents, Mon 30 Nov: {looks}"
    notice = notice_of_batch([sample(EventType.WATCHER_REPORT, data={"report": report})])
    assert notice.severity is Severity.WARNING


def test_a_title_says_the_day_and_how_many_need_a_look_also_of_version_1_1_0() -> None:
    assert report_title(report_block()) == TITLE
    assert report_title(report_block(count=3)) == "Clerk agents, Mon 30 Nov: 3 of 20 need a look"
    assert report_title(report_block(count=0)) == "Clerk agents, Mon 30 Nov: all are well"
    assert report_lines(before(), limit=ALL) == ["and 1 more", *LINES[1:]]
    assert report_title(before()) == TITLE


OVER, ERROR = "2026-11-30T05:00:00Z", "upstream timeout"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"from": OVER}, LINES[0].replace("Sun 22:10", "06:00")),
        ({"what": "25 x", "until": "2026-11-29T21:11:00Z"}, f"✓ 25 x: {ERROR}, Sun 22:10 to 22:11, over"),
        ({"what": "a, b (5 times)", "until": OVER}, f"✓ a, b (5 times): {ERROR}, Sun 22:10 to 06:00, over"),
        ({"from": "2026-11-12T05:00:00Z"}, LINES[0].replace("Sun 22:10", "12 Nov 06:00")),
        ({"what": "x" * 190, "error": "z" * 90}, f"✕ {'x' * 119}…: {'z' * 79}…, since Sun 22:10"),
        ({"kind": "execution.overdue"}, LINES[0].replace("✕", "!")),
        ({"acknowledged": True}, LINES[0].replace("✕", "◆")),
        ({"kind": "pipeline.new_error", "what": "a", "until": "2026-11-29T21:10:00Z"}, f"! a: {ERROR}, Sun 22:10"),
        ({"kind": "unknown", "error": "", "what": "a is unknown"}, "? a is unknown, since Sun 22:10"),
    ],
)
def test_a_line_says_who_has_which_trouble_and_when(changes: dict[str, Any], line: str) -> None:
    report = report_block()
    report["happened"] = [report["happened"][0] | changes]
    assert report_lines(report, limit=ALL)[0] == line


def test_what_has_no_room_is_counted_what_is_over_first() -> None:
    for limit in (200, 300, 1_000, ALL):
        lines = report_lines(report_block(count=20), limit=limit)
        left = 20 - sum(line.startswith("✕") for line in lines)
        assert [line for line in lines if line.startswith("and ")] == ([f"and {left} more"] if left else [])
        assert sum(length(line) + 1 for line in lines) <= limit
    assert not left
    report = report_block(count=2)
    report["happened"][1] = report["happened"][1] | {"until": "2026-11-29T21:11:00Z"}
    assert report_lines(report, limit=240)[:2] == [LINES[0], "and 1 more"]


def test_a_report_has_lines_and_totals_by_the_clock_of_its_zone_or_here() -> None:
    assert report_lines(report_block(), limit=ALL) == LINES
    assert report_span(report_block()) == SPAN
    well = report_block()["pipelines"][0] | {"needsLook": False}
    assert report_lines(report_block(count=0) | {"pipelines": [well]}, limit=ALL) == [
        "✓ 17 are well",
        LINES[2].replace("18", "17"),
    ]
    report = {key: value for key, value in report_block().items() if key != "timezone"}
    here = datetime.fromisoformat(report["until"]).astimezone()
    assert report_span(report).endswith(f"{here:%a} {here.day} {here:%b %H:%M} ({here:%Z})")


def test_chats_show_a_report_as_a_warning_if_somebody_is_to_look_and_with_its_link() -> None:
    notice = notice_of_batch([delivery()])
    assert (notice.headline, notice.error.splitlines(), notice.footer) == (TITLE, LINES, SPAN)
    assert (notice.severity, notice.is_trouble, notice.facts, notice.moment) == (Severity.WARNING, False, {}, None)
    assert notice.links == {"Details": LINK}
    blocks = check_slack(SlackTemplate().messages([delivery()])[0].body)["blocks"]
    assert list(shown_texts(blocks)) == [TITLE, *LINES, SPAN, "Details"]
    assert blocks[-1]["elements"][0]["url"] == LINK
    (by_bot,) = messages_of([delivery()])
    check_slack_blocks(by_bot.content)
    assert by_bot.content["blocks"] == blocks
    embed = check_discord(DiscordTemplate().messages([delivery()])[0].body)["embeds"][0]
    assert (embed["title"], embed["url"], embed["color"], embed["footer"]["text"]) == (TITLE, LINK, 0x9F5F02, SPAN)
    assert embed["description"] == "```\n" + "\n".join(LINES) + "\n```"
    card = check_teams(TeamsTemplate().messages([delivery()])[0].body)
    assert [run["text"] for each in card["body"] for run in each["inlines"]] == [TITLE, *LINES, SPAN]
    assert card["actions"][0]["url"] == LINK


def test_apprise_shows_a_report_with_its_link_if_that_is_usable() -> None:
    title, body, kind = plain_message([delivery()])
    assert (title, kind) == (TITLE, "warning")
    assert body == "\n\n".join(["\n".join(LINES), SPAN, f"Details: {LINK}"])
    _, body, _ = plain_message([delivery(count=20)])
    assert len(body.encode()) <= MESSAGE_BYTES
    assert body.endswith(LINK)
    report = report_block() | {"link": "https://watcher.example.com/<>"}
    assert notice_of_batch([sample(EventType.WATCHER_REPORT, data={"report": report})]).links == {}


@pytest.mark.parametrize("text", [HOSTILE * 9, "*" * 300, "`" * 300, "🎉" * 300, "\x1b" * 300])
@pytest.mark.parametrize("count", [1, 20])
def test_every_chat_takes_a_report_whatever_is_in_it(text: str, count: int) -> None:
    batch = [delivery(name=text, error=text, count=count)]
    assert length(notice_of_batch(batch).error) <= ERROR_LENGTH
    for template, check in (
        (SlackTemplate, check_slack),
        (DiscordTemplate, check_discord),
        (TeamsTemplate, check_teams),
    ):
        check(template().messages(batch)[0].body)


def test_on_a_terminal_a_report_is_one_line_that_holds_its_title() -> None:
    event = delivery().content
    line = event_line(event).plain
    assert "≡ watcher.report morning" in line
    assert line.endswith(TITLE)
    assert reason_of(event["data"]) == TITLE
    assert Alert.of(event).time == AT
