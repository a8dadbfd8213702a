from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sample_events import (
    AT,
    BLANKS,
    HOSTILE,
    LATEST,
    OPENED_AT,
    PIPELINE,
    closing_overdue,
    data_of,
    execution_id,
    failed,
    problem_block,
    sample,
)

from watcher.domain.delivery import Delivery, Part
from watcher.domain.envelope import timestamp
from watcher.domain.event import AccountTrouble, EventType, GapReason, Severity
from watcher.domain.execution import LostReason
from watcher.domain.problems import TROUBLED_ENDS
from watcher.sinks.alert import HEADLINE_LENGTH, Alert, cut, in_words, length, shorten, usable_link
from watcher.sinks.chat import Notice, notice_of_batch

HEADLINES = {
    EventType.EXECUTION_NEW: "○ Sales agent: a new execution",
    EventType.EXECUTION_RUNNING: "▶ Sales agent is running",
    EventType.EXECUTION_PAUSED: "‖ Sales agent is paused",
    EventType.EXECUTION_SUCCESS: "✓ Sales agent succeeded",
    EventType.EXECUTION_FAILED: "✕ Sales agent failed at Greeting",
    EventType.EXECUTION_UNRECOGNIZED: "! Sales agent has the undocumented status unrecognized",
    EventType.EXECUTION_OVERDUE: "! Sales agent has been running for 45 m 5 s, limit 2 m",
    EventType.EXECUTION_LOST: "✕ Sales agent: an execution is lost",
    EventType.PIPELINE_FAILING: "✕ Sales agent keeps failing",
    EventType.PIPELINE_RECOVERED: "✓ Sales agent recovered after 41 m (7 failed)",
    EventType.PIPELINE_SILENT: "! Sales agent is silent: nothing has started for 6 h 41 m, limit 6 h",
    EventType.PIPELINE_ACTIVE: "✓ Sales agent is active again after 41 m",
    EventType.EXECUTION_EXPENSIVE: "! Sales agent is expensive: 23,456 tokens (limit 20,000) in one execution",
    EventType.PIPELINE_SLOW: "! Sales agent is slow: running for 2 m 5 s, usually 40.0 s; 2 more are slow",
    EventType.PIPELINE_ON_TIME: "✓ Sales agent is on time again after 41 m",
    EventType.PIPELINE_OVERSPENDING: "! Sales agent used 80 % of its tokens for today (1,612,345 of 2,000,000)",
    EventType.PIPELINE_NEW_ERROR: "! Sales agent failed with a new error at Greeting",
    EventType.PIPELINE_GAP: "! Sales agent: executions may have been missed",
    EventType.ACCOUNT_DEGRADED: "✕ Account default: the API cannot be used",
    EventType.ACCOUNT_RECOVERED: "✓ Account default recovered after 41 m",
    EventType.SINK_FAILING: "✕ Sink ops is failing (503)",
    EventType.SINK_RECOVERED: "✓ Sink ops recovered after 41 m",
    EventType.SINK_DISABLED: "✕ Sink ops is disabled (503)",
    EventType.DELIVERY_DEAD: "✕ Sink ops: 3 dead letters (422)",
    EventType.PROBLEM_REMINDER: "✕ Still open after 41 m: Sales agent keeps failing",
    EventType.PROBLEM_ACKNOWLEDGED: "◆ Acknowledged by ada until 2026-11-24 14:00 UTC: Sales agent keeps failing",
    EventType.PROBLEM_CLOSED: "✓ Closed, no longer watched: Sales agent keeps failing",
    EventType.WATCHER_REPORT: "Clerk agents, Mon 30 Nov: 1 of 18 needs a look",
    EventType.WATCHER_TEST: "✓ Test message from clerk-watcher to its sink ops",
}


def read(delivery: Delivery) -> Alert:
    return Alert.of(delivery.content)


@pytest.mark.parametrize("type_", EventType)
def test_every_event_has_its_headline(type_: EventType) -> None:
    assert read(sample(type_)).headline == HEADLINES[type_]


@pytest.mark.parametrize("type_", EventType)
def test_no_headline_has_more_than_150_characters_or_one_that_is_obeyed(type_: EventType) -> None:
    data = data_of(type_)
    long = HOSTILE * 40
    for block, key in (("pipeline", "name"), ("execution", "status")):
        if block in data:
            data[block][key] = long
    for key in ("reason", "answer"):
        data[key] = long
    if "execution" in data:
        data["execution"]["failedNodes"] = [{"name": long, "error": long}]
    headline = read(sample(type_, data=data)).headline
    assert length(headline) <= HEADLINE_LENGTH
    assert headline.isprintable()


@pytest.mark.parametrize("type_", sorted(EventType))
def test_the_sign_of_trouble_and_its_colour_are_those_of_its_severity(type_: EventType) -> None:
    alert = read(sample(type_))
    signs = {Severity.WARNING: ("!", "yellow"), Severity.ERROR: ("✕", "red"), Severity.CRITICAL: ("✕", "red")}
    if alert.is_trouble and type_ is not EventType.PROBLEM_ACKNOWLEDGED:
        assert alert.sign == signs[alert.severity]


def test_a_group_of_warnings_is_a_warning() -> None:
    news = notice(sample(EventType.EXECUTION_OVERDUE), sample(EventType.EXECUTION_UNRECOGNIZED))
    assert (news.headline[0], news.severity) == ("!", Severity.WARNING)


def test_news_is_bad_or_good() -> None:
    good = {type_ for type_ in EventType if not read(sample(type_)).is_trouble}
    signs = {type_: headline[0] for type_, headline in HEADLINES.items()}
    assert good == {type_ for type_, sign in signs.items() if sign in "○▶‖✓◆C"}, "name here the signs of good news"


@pytest.mark.parametrize(
    ("type_", "headline", "is_trouble", "severity"),
    [
        (EventType.EXECUTION_PAUSED, "✓ Sales agent is paused, no longer overdue", False, Severity.INFO),
        (EventType.EXECUTION_SUCCESS, "✓ Sales agent succeeded, no longer overdue", False, Severity.INFO),
        (EventType.EXECUTION_FAILED, "✕ Sales agent failed at Greeting", True, Severity.ERROR),
        (EventType.EXECUTION_LOST, "✕ Sales agent: an execution is lost", True, Severity.ERROR),
    ],
)
def test_what_ends_an_overdue_execution_is_good_news_unless_it_is_trouble(
    type_: EventType, headline: str, is_trouble: bool, severity: Severity
) -> None:
    alert = read(closing_overdue(type_))
    assert (alert.headline, alert.is_trouble, alert.severity) == (headline, is_trouble, severity)
    assert alert.closes
    assert alert.overdue_text == "41 m"


@pytest.mark.parametrize("type_", sorted(TROUBLED_ENDS))
def test_of_an_end_that_is_trouble_itself_a_sink_may_hear_one_part_alone(type_: EventType) -> None:
    whole = closing_overdue(type_)
    closing, news = (Alert.of_delivery(replace(whole, part=part)) for part in (Part.CLOSING, Part.NEWS))
    assert Alert.of_delivery(whole).apart() == (closing, news)
    assert closing.headline == "✓ Sales agent is no longer overdue, after 41 m"
    assert (closing.closes, closing.is_trouble, closing.error, closing.severity) == (True, False, "", Severity.INFO)
    alone = read(sample(type_))
    assert (news.headline, news.severity) == (alone.headline, alone.severity)
    assert (news.problem, news.closes, news.overdue_text) == (None, False, None)


@pytest.mark.parametrize(("slow_count", "more"), [(1, ""), (2, "; 1 more is slow"), (1001, "; 1,000 more are slow")])
def test_a_slow_pipeline_says_for_how_long_its_slowest_execution_runs(slow_count: int, more: str) -> None:
    data = data_of(EventType.PIPELINE_SLOW) | {
        "slowCount": slow_count,
        "problem": problem_block(EventType.PIPELINE_SLOW) | {"openedAt": timestamp(AT)},
    }
    assert read(sample(EventType.PIPELINE_SLOW, data=data)).title == (
        f"Sales agent is slow: running for 2 m 5 s, usually 40.0 s{more}"
    )


def test_a_reminder_of_a_slow_pipeline_says_the_limit_because_another_execution_may_be_the_slowest() -> None:
    data = data_of(EventType.PIPELINE_SLOW) | {"problem": problem_block(EventType.PIPELINE_SLOW)}
    title = read(sample(EventType.PROBLEM_REMINDER, data=data)).title
    assert title.endswith("Sales agent is slow: usually 40.0 s, limit 2 m")


@pytest.mark.parametrize(("percent", "severity", "sign"), [(80, Severity.WARNING, "!"), (100, Severity.ERROR, "✕")])
def test_a_day_is_an_error_only_once_all_of_its_tokens_are_used(percent: int, severity: Severity, sign: str) -> None:
    data = data_of(EventType.PIPELINE_OVERSPENDING) | {"percent": percent}
    alert = read(sample(EventType.PIPELINE_OVERSPENDING, data=data))
    used = f"{sign} Sales agent used {percent} % of its tokens for today (1,612,345 of 2,000,000)"
    assert (alert.headline, alert.severity) == (used, severity)


def test_events_of_an_earlier_version_say_what_they_know() -> None:
    for type_, unknown, title in (
        (EventType.PIPELINE_SILENT, "silentSince", "Sales agent is silent: nothing starts"),
        (
            EventType.EXECUTION_EXPENSIVE,
            "tokensPerExecution",
            "Sales agent is expensive: 23,456 tokens in one execution",
        ),
    ):
        data = data_of(type_)
        del data[unknown]
        assert read(sample(type_, data=data)).title == title


def test_a_silent_pipeline_says_since_when_nothing_has_started() -> None:
    error = read(sample(EventType.PIPELINE_SILENT)).error
    assert error == "nothing has started since 2026-11-24 05:19:31 UTC"


def test_one_dead_letter_is_not_several_and_its_error_is_what_to_do() -> None:
    alert = read(sample(EventType.DELIVERY_DEAD, data=data_of(EventType.DELIVERY_DEAD) | {"count": 1}))
    assert (alert.title, alert.error) == ("Sink ops: 1 dead letter (422)", "correct url, or template")
    assert (alert.severity, alert.problem) == (Severity.ERROR, None)


def test_what_is_no_longer_watched_still_names_its_execution() -> None:
    closed = {"problem": problem_block(EventType.EXECUTION_OVERDUE, closed=True), "reason": "removed"}
    data = data_of(EventType.EXECUTION_OVERDUE) | closed
    alert = read(sample(EventType.PROBLEM_CLOSED, data=data))
    assert (alert.execution, alert.overdue_text) == (execution_id(), "41 m")
    assert alert.headline == "✓ Closed, no longer watched: Sales agent has been running for 45 m 5 s, limit 2 m"


@pytest.mark.parametrize(
    ("open_for", "limit_s", "said"),
    [
        (timedelta(), 120.0, "running for 4 m 5 s, limit 2 m"),
        (timedelta(hours=4), 120.0, "running for 4 h 4 m, limit 2 m"),
        (timedelta(hours=4), None, "running too long"),
    ],
)
def test_an_overdue_execution_says_for_how_long_it_has_been_so_by_now(
    open_for: timedelta, limit_s: float | None, said: str
) -> None:
    data = data_of(EventType.EXECUTION_OVERDUE)
    data["problem"]["openedAt"] = timestamp(AT - open_for)
    if limit_s is None:  # as version 1.0.0 wrote it
        del data["limitSeconds"]
    assert read(sample(EventType.PROBLEM_REMINDER, data=data)).dwell == said


@pytest.mark.parametrize(
    ("execution", "error"),
    [
        ({"failedNodes": [{"name": "Greeting", "error": "of the node"}], "error": "of it"}, "of the node"),
        ({"failedNodes": [{"name": "Greeting"}], "error": "of it"}, "of it"),
        ({"error": "of it"}, "of it"),
        ({}, ""),
    ],
)
def test_the_error_is_the_nodes_or_the_executions(execution: dict[str, object], error: str) -> None:
    data = data_of(EventType.EXECUTION_FAILED) | {"execution": {"id": "x", "status": "failed", **execution}}
    assert read(sample(EventType.EXECUTION_FAILED, data=data)).error == error


def test_a_gap_says_how_many_at_most() -> None:
    data = data_of(EventType.PIPELINE_GAP) | {"atMost": 1234}
    assert read(sample(EventType.PIPELINE_GAP, data=data)).error == "the API does not know it, at most 1,234 of them"


@pytest.mark.parametrize("reason", [*AccountTrouble, *GapReason, *LostReason])
def test_no_reason_is_shown_by_its_code(reason: str) -> None:
    data = data_of(EventType.PIPELINE_GAP) | {"reason": reason}
    assert " " in read(sample(EventType.PIPELINE_GAP, data=data)).error


@pytest.mark.parametrize(
    ("type_", "error"),
    [
        (EventType.ACCOUNT_DEGRADED, "it cannot be reached (timeout)"),
        (EventType.ACCOUNT_RECOVERED, ""),
        (EventType.EXECUTION_LOST, "the API does not know it"),
        (EventType.SINK_FAILING, "what is sent to it waits; watcher test-sink ops says what to do"),
        (
            EventType.SINK_DISABLED,
            "its receiver is gone: what is sent to it waits until it is enabled or has a new url",
        ),
        (EventType.PROBLEM_CLOSED, ""),
    ],
)
def test_why_is_in_words_and_what_is_over_has_none(type_: EventType, error: str) -> None:
    assert read(sample(type_)).error == error


def test_a_pipeline_that_keeps_failing_says_at_which_node_and_why() -> None:
    last = data_of(EventType.EXECUTION_FAILED)["execution"]
    alert = read(sample(EventType.PIPELINE_FAILING, data=data_of(EventType.PIPELINE_FAILING) | {"execution": last}))
    assert alert.headline == "✕ Sales agent keeps failing, last at Greeting"
    assert alert.error == "upstream timeout after 30 s"


@pytest.mark.parametrize("type_", [EventType.PROBLEM_REMINDER, EventType.PROBLEM_ACKNOWLEDGED])
def test_what_is_told_of_an_open_problem_says_its_newest_failure(type_: EventType) -> None:
    first = data_of(EventType.EXECUTION_FAILED)["execution"]
    more = {"execution": first, "link": f"https://h/{first['id']}", "latest": LATEST}
    alert = read(sample(type_, data=data_of(type_) | more))
    assert alert.headline.endswith("Sales agent keeps failing, last at Lookup")
    assert (alert.error, alert.nodes) == ("upstream returned 404", (("Lookup", "upstream returned 404"),))
    assert (alert.execution, alert.link) == (LATEST["execution"], f"https://h/{LATEST['execution']}")
    assert "Greeting" not in str(alert)


def test_a_newest_failure_of_which_nothing_is_known_says_nothing_of_the_first() -> None:
    opened_by = {"execution": data_of(EventType.EXECUTION_FAILED)["execution"]}
    latest = {"latest": {"at": LATEST["at"], "execution": LATEST["execution"]}}
    alert = read(sample(EventType.PROBLEM_REMINDER, data=data_of(EventType.PROBLEM_REMINDER) | opened_by | latest))
    assert (alert.headline, alert.error) == ("✕ Still open after 41 m: Sales agent keeps failing", "")


def test_a_reminder_says_what_closes_its_problem_and_since_when_no_execution_has_ended() -> None:
    data = data_of(EventType.PROBLEM_REMINDER) | {"closesWhen": "3 succeeded"}
    assert read(sample(EventType.PROBLEM_REMINDER, data=data)).closes_when == "3 succeeded"
    data["lastEndedAt"] = timestamp(AT - timedelta(hours=3))
    alert = read(sample(EventType.PROBLEM_REMINDER, data=data))
    assert alert.closes_when == "3 succeeded; no execution has ended for 3 h"


def test_a_pipeline_without_a_name_is_called_by_its_id() -> None:
    data = data_of(EventType.EXECUTION_SUCCESS)
    del data["pipeline"]["name"]
    assert read(sample(EventType.EXECUTION_SUCCESS, data=data)).headline.startswith("✓ 0b5c8f1e-")


@pytest.mark.parametrize("blank", BLANKS)
def test_a_name_or_an_error_that_nobody_sees_is_as_none(blank: str) -> None:
    data = data_of(EventType.EXECUTION_FAILED)
    data["pipeline"]["name"] = blank
    data["execution"] |= {"error": "out of credit", "failedNodes": [{"id": "n1", "name": blank, "error": blank}]}
    alert = read(sample(EventType.EXECUTION_FAILED, data=data))
    assert (alert.headline, alert.error) == (f"✕ {PIPELINE} failed at n1", "out of credit")
    data["execution"] |= {"error": blank, "failedNodes": []}
    alert = read(sample(EventType.EXECUTION_FAILED, data=data))
    assert (alert.headline, alert.error) == (f"✕ {PIPELINE} failed", "")


@pytest.mark.parametrize(
    ("link", "usable"),
    [
        ("https://example.com/runs/9a1b?x=1&y=[2]#a%20b", True),
        ("http://[::1]:8080/x", True),
        ("https://example.com/a b", False),
        ("https://example.com/<!channel>", False),
        ('https://example.com/"', False),
        ("https://example.com/ä", False),
        ("javascript:alert(1)", False),
        ("https://example.com/" + "x" * 3000, False),
        (None, False),
    ],
)
def test_a_link_that_a_receiver_would_refuse_is_left_out(link: str | None, usable: bool) -> None:
    assert usable_link(link) == (link if usable else None)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (5.14, "5.1 s"),
        (59.4, "59.4 s"),
        (59.7, "1 m"),
        (151, "2 m 31 s"),
        (3599.6, "1 h"),
        (15_120, "4 h 12 m"),
        (86_400, "1 d"),
        (273_600, "3 d 4 h"),
    ],
)
def test_a_duration_is_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_text_is_cut_to_its_limit_and_says_what_is_missing() -> None:
    assert cut("x" * 1500, 1500) == "x" * 1500
    text = cut("x" * 2704, 1500)
    kept, _, mark = text.partition("…")
    assert len(text) == 1500
    assert mark == f" (+{2704 - len(kept):,} chars)"


@pytest.mark.parametrize("limit", range(150, 154))
def test_an_emoji_counts_as_two_characters_and_is_never_cut_in_half(limit: int) -> None:
    text = "\U0001f600" * 200
    kept, _, mark = cut(text, limit).partition("…")
    assert limit - 3 <= length(f"{kept}…{mark}") <= limit
    assert (set(kept), mark) == ({"\U0001f600"}, f" (+{200 - len(kept)} chars)")
    name = shorten(text, limit)
    assert limit - 1 <= length(name) <= limit
    assert set(name) == {"\U0001f600", "…"}
    assert (shorten(text[:75], 150), cut(text[:75], 150)) == (text[:75], text[:75])


def notice(*deliveries: Delivery) -> Notice:
    return notice_of_batch(deliveries)


def test_good_news_and_bad_share_one_message() -> None:
    news = notice(failed(1), sample(EventType.EXECUTION_SUCCESS, number=2), sample(EventType.EXECUTION_SUCCESS))
    assert news.headline == "✕ 2 succeeded, 1 failed in Sales agent (12:00:31-12:00:31 UTC)"
    assert (news.is_trouble, news.severity) == (True, Severity.ERROR)
    assert news.error.splitlines()[0] == "2 \N{MULTIPLICATION SIGN} Sales agent succeeded"


def test_errors_alike_are_one_cluster_in_the_words_of_all_of_them() -> None:
    news = notice(
        *(failed(number, error="422 slot taken") for number in range(8)),
        *(failed(number, error=f"upstream timeout after {number} s") for number in range(8, 27)),
    )
    assert news.headline == "✕ 27 failed in Sales agent (12:00:31-12:00:31 UTC)"
    assert news.error.splitlines() == [
        "19 \N{MULTIPLICATION SIGN} Greeting: upstream timeout after 8 s (numbers and ids vary)",
        "8 \N{MULTIPLICATION SIGN} Greeting: 422 slot taken",
    ]


def test_of_many_clusters_the_rest_is_one_and_the_counts_add_up() -> None:
    words = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu")
    news = notice(*(failed(number, error=words[number % len(words)]) for number in range(1_000)))
    assert len(news.error.splitlines()) == 7
    assert news.error.splitlines()[-1].endswith(" other, of 6 kinds")
    assert sum(int(line.partition(" ")[0]) for line in news.error.splitlines()) == 1_000


def test_the_same_error_at_two_nodes_is_two_clusters() -> None:
    data = data_of(EventType.EXECUTION_FAILED)
    data["execution"]["failedNodes"][0]["name"] = "Step 2"
    other = data_of(EventType.EXECUTION_FAILED)
    other["execution"]["failedNodes"][0]["name"] = "Step 3"
    news = notice(*(sample(EventType.EXECUTION_FAILED, data=each) for each in (data, other, other)))
    assert [line.partition(":")[0][-6:] for line in news.error.splitlines()] == ["Step 3", "Step 2"]


def test_a_group_says_how_many_of_what() -> None:
    news = notice(
        *(failed(number) for number in range(3)),
        failed(3, pipeline={"id": "p", "name": "Other"}),
        sample(EventType.EXECUTION_OVERDUE),
        sample(EventType.EXECUTION_LOST),
        sample(EventType.EXECUTION_UNRECOGNIZED),
    )
    assert news.headline == "✕ 4 failed, 1 overdue, 1 lost, 1 more in 2 pipelines (12:00:31-12:00:31 UTC)"
    assert news.severity is Severity.ERROR
    assert [event.headline for event in news.newest][-2:] == [
        "✕ Sales agent: an execution is lost",
        "! Sales agent has the undocumented status unrecognized",
    ]


@pytest.mark.parametrize("other", [{"pipeline": {"id": "p", "name": "Sales agent"}}, {"account": "staging"}])
def test_pipelines_of_one_name_are_counted_by_their_ids(other: dict[str, Any]) -> None:
    headline = notice(failed(1), failed(2), failed(3, **other)).headline
    assert headline == "✕ 3 failed in 2 pipelines (12:00:31-12:00:31 UTC)"


def test_a_pipeline_that_was_renamed_is_counted_once_by_its_newest_name() -> None:
    headline = notice(failed(1), failed(2, pipeline={"id": PIPELINE, "name": "Sales"})).headline
    assert headline == "✕ 2 failed in Sales (12:00:31-12:00:31 UTC)"


def test_a_message_says_since_when_a_problem_is_open_and_how_long_an_execution_was_overdue() -> None:
    reminder = data_of(EventType.PROBLEM_REMINDER) | {"execution": data_of(EventType.EXECUTION_FAILED)["execution"]}
    assert notice(sample(EventType.PROBLEM_REMINDER, data=reminder)).moment == ("Since", OPENED_AT)
    assert notice(failed()).moment == ("Ended", AT)
    assert notice(closing_overdue(EventType.EXECUTION_PAUSED)).facts["Was overdue"] == "41 m"


def test_of_much_a_message_has_what_has_room() -> None:
    data = data_of(EventType.EXECUTION_FAILED) | {"link": "https://example.com/".ljust(400, "x")}
    data["labels"] = {f"label{number}": "x" * 250 for number in range(10)}
    data["execution"]["failedNodes"] = [{"name": "Greeting", "error": "x" * 1600}] * 5
    long = sample(EventType.EXECUTION_FAILED, data=data)
    one, two = notice(long), notice(long, long)
    assert (one.links["Open"], two.newest[0].link) == (data["link"], "")
    assert ("chars)" in one.error, "chars)" in one.facts["Labels"]) == (True, True)
    assert [node[:12] for node in one.nodes] == ["Greeting: xx"] * 3
