from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sample_events import (
    AT,
    BLANKS,
    ERROR,
    HOSTILE,
    LATEST,
    OPENED_AT,
    PIPELINE,
    closing_overdue,
    data_of,
    execution_id,
    failed,
    of_text,
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

FAILED, FAILING, REMINDER = EventType.EXECUTION_FAILED, EventType.PIPELINE_FAILING, EventType.PROBLEM_REMINDER
LAST = {"execution": data_of(FAILED)["execution"]}

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
def test_every_event_has_its_headline_which_is_short_and_obeyed_by_nobody(type_: EventType) -> None:
    alert = read(sample(type_))
    assert alert.headline == HEADLINES[type_]
    assert alert.is_trouble is (alert.headline[0] not in "○▶‖✓◆C"), "name here the signs of good news"
    if alert.is_trouble:
        assert alert.sign == (("!", "yellow") if alert.severity is Severity.WARNING else ("✕", "red"))
    long = HOSTILE * 40
    headline = read(of_text(long, type_, reason=long, answer=long)).headline
    assert length(headline) <= HEADLINE_LENGTH
    assert headline.isprintable()


SLOW, SILENT, EXPENSIVE = EventType.PIPELINE_SLOW, EventType.PIPELINE_SILENT, EventType.EXECUTION_EXPENSIVE
OVERDUE, OVERSPENDING, CLOSED = EventType.EXECUTION_OVERDUE, EventType.PIPELINE_OVERSPENDING, EventType.PROBLEM_CLOSED
SUCCESS, LOST = sample(EventType.EXECUTION_SUCCESS), sample(EventType.EXECUTION_LOST)
UNWATCHED = sample(CLOSED, data=data_of(OVERDUE) | {"problem": problem_block(OVERDUE, closed=True)}, reason="removed")
NOTHING_NEW = sample(REMINDER, latest={"at": LATEST["at"], "execution": LATEST["execution"]}, **LAST)
TO_CLOSE: dict[str, Any] = {"closesWhen": "3 succeeded"}
NODELESS = {"failedNodes": None, "error": "of it"}
GONE = "its receiver is gone: what is sent to it waits until it is enabled or has a new url"
OF_TODAY = "Sales agent used 100 % of its tokens for today (1,612,345 of 2,000,000)"


SUCCEEDED, FAILED_TOO, LOST_TOO = map(closing_overdue, (EventType.EXECUTION_SUCCESS, FAILED, EventType.EXECUTION_LOST))
PAUSED, DEAD = closing_overdue(EventType.EXECUTION_PAUSED), EventType.DELIVERY_DEAD
SLOWER, STILL_OPEN = HEADLINES[SLOW][2:].partition(";")[0], "✕ Still open after 41 m: Sales agent keeps failing"
STILL, TOKENS = "Still open after 41 m", "Sales agent is expensive: 23,456 tokens"
OF_OVERDUE, JUST_NOW = data_of(OVERDUE), {"openedAt": timestamp(AT)}
WAITS = "what is sent to it waits; watcher test-sink ops says what to do"
ENDED_BEFORE: dict[str, Any] = {"lastEndedAt": timestamp(AT - timedelta(hours=3))}


@pytest.mark.parametrize(
    ("delivery", "said"),
    [
        (PAUSED, {"headline": "✓ Sales agent is paused, no longer overdue"}),
        (SUCCEEDED, {"headline": "✓ Sales agent succeeded, no longer overdue", "severity": Severity.INFO}),
        (SUCCEEDED, {"is_trouble": False, "closes": True, "overdue_text": "41 m"}),
        (FAILED_TOO, {"headline": "✕ Sales agent failed at Greeting", "severity": Severity.ERROR, "is_trouble": True}),
        (FAILED_TOO, {"closes": True, "overdue_text": "41 m"}),
        (LOST_TOO, {"headline": "✕ Sales agent: an execution is lost", "severity": Severity.ERROR}),
        (sample(SLOW, slowCount=1), {"title": "Sales agent is slow: running for 2 m 5 s, usually 40.0 s"}),
        (sample(SLOW, slowCount=2), {"title": f"{SLOWER}; 1 more is slow"}),
        (sample(SLOW, slowCount=1001), {"title": f"{SLOWER}; 1,000 more are slow"}),
        # a reminder of a slow pipeline says the limit, because another execution may be the slowest by now
        (
            sample(REMINDER, data=data_of(SLOW)),
            {"title": f"{STILL}: Sales agent is slow: usually 40.0 s, limit 2 m"},
        ),
        (sample(OVERSPENDING, percent=80), {"severity": Severity.WARNING}),
        (sample(OVERSPENDING, percent=100), {"severity": Severity.ERROR, "headline": f"✕ {OF_TODAY}"}),
        (sample(SILENT), {"error": "nothing has started since 2026-11-24 05:19:31 UTC"}),
        (sample(SILENT, silentSince=None), {"title": "Sales agent is silent: nothing starts"}),  # of version 1.0.0
        (sample(EXPENSIVE, tokensPerExecution=None), {"title": f"{TOKENS} in one execution"}),
        (sample(DEAD, count=1), {"title": "Sink ops: 1 dead letter (422)"}),
        (sample(DEAD), {"error": "correct url, or template", "severity": Severity.ERROR, "problem": None}),
        (UNWATCHED, {"headline": f"✓ Closed, no longer watched: {HEADLINES[OVERDUE][2:]}"}),
        (UNWATCHED, {"execution": execution_id(), "overdue_text": "41 m"}),
        (sample(EventType.PIPELINE_GAP, atMost=1234), {"error": "the API does not know it, at most 1,234 of them"}),
        (sample(EventType.ACCOUNT_DEGRADED), {"error": "it cannot be reached (timeout)"}),
        (sample(EventType.ACCOUNT_RECOVERED), {"error": ""}),
        (LOST, {"error": "the API does not know it"}),
        (sample(EventType.SINK_FAILING), {"error": WAITS}),
        (sample(EventType.SINK_DISABLED), {"error": GONE}),
        (sample(CLOSED), {"error": ""}),
        (sample(FAILING, **LAST), {"headline": "✕ Sales agent keeps failing, last at Greeting", "error": ERROR}),
        (NOTHING_NEW, {"headline": STILL_OPEN, "error": ""}),
        (sample(REMINDER, **TO_CLOSE), {"closes_when": "3 succeeded"}),
        (sample(REMINDER, **ENDED_BEFORE, **TO_CLOSE), {"closes_when": "3 succeeded; no execution has ended for 3 h"}),
        (sample(EventType.EXECUTION_SUCCESS, pipeline={"name": None}), {"headline": f"✓ {PIPELINE} succeeded"}),
        (failed(error="of the node", execution={"error": "of it"}), {"error": "of the node"}),
        (failed(execution={"failedNodes": [{"name": "Greeting"}], "error": "of it"}), {"error": "of it"}),
        (failed(execution=NODELESS), {"error": "of it"}),
        (failed(execution=NODELESS | {"error": None}), {"error": ""}),
        (sample(REMINDER, data=OF_OVERDUE, problem=JUST_NOW), {"dwell": "running for 4 m 5 s, limit 2 m"}),
        (sample(REMINDER, data=OF_OVERDUE), {"dwell": "running for 45 m 5 s, limit 2 m"}),
        (sample(REMINDER, data=OF_OVERDUE, limitSeconds=None), {"dwell": "running too long"}),  # of version 1.0.0
    ],
)
def test_an_alert_says_in_words_what_happened(delivery: Delivery, said: dict[str, object]) -> None:
    alert = read(delivery)
    assert {name: getattr(alert, name) for name in said} == said


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


@pytest.mark.parametrize("reason", [*AccountTrouble, *GapReason, *LostReason])
def test_no_reason_is_shown_by_its_code(reason: str) -> None:
    assert " " in read(sample(EventType.PIPELINE_GAP, reason=reason)).error


@pytest.mark.parametrize("type_", [REMINDER, EventType.PROBLEM_ACKNOWLEDGED])
def test_what_is_told_of_an_open_problem_says_its_newest_failure(type_: EventType) -> None:
    alert = read(sample(type_, link=f"https://h/{execution_id()}", latest=LATEST, **LAST))
    assert alert.headline.endswith("Sales agent keeps failing, last at Lookup")
    assert (alert.error, alert.nodes) == ("upstream returned 404", (("Lookup", "upstream returned 404"),))
    assert (alert.execution, alert.link) == (LATEST["execution"], f"https://h/{LATEST['execution']}")
    assert "Greeting" not in str(alert)


@pytest.mark.parametrize("blank", BLANKS)
def test_a_name_or_an_error_that_nobody_sees_is_as_none(blank: str) -> None:
    for block, headline, error in (
        ({"error": "out of credit"}, f"✕ {PIPELINE} failed at n1", "out of credit"),
        ({"error": blank, "failedNodes": []}, f"✕ {PIPELINE} failed", ""),
    ):
        alert = read(failed(node=blank, error=blank, pipeline={"name": blank}, execution=block))
        assert (alert.headline, alert.error) == (headline, error)


@pytest.mark.parametrize(
    ("link", "usable"),
    [
        ("https://example.com/runs/9a1b?x=1&y=[2]#a%20b", True),
        ("http://[::1]:8080/x", True),
        *((f"https://example.com/{path}", False) for path in ("a b", "<!channel>", '"', "ä", "x" * 3000)),
        ("javascript:alert(1)", False),
        (None, False),
    ],
)
def test_a_link_that_a_receiver_would_refuse_is_left_out(link: str | None, usable: bool) -> None:
    assert usable_link(link) == (link if usable else None)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((0, "0.0 s"), (5.14, "5.1 s"), (59.4, "59.4 s"), (59.7, "1 m"), (151, "2 m 31 s"), (3599.6, "1 h")),
        *((15_120, "4 h 12 m"), (86_400, "1 d"), (273_600, "3 d 4 h")),
    ],
)
def test_a_duration_is_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_text_is_cut_to_its_limit_and_a_group_of_warnings_is_one() -> None:
    news = notice(sample(OVERDUE), sample(EventType.EXECUTION_UNRECOGNIZED))
    assert (news.headline[0], news.severity) == ("!", Severity.WARNING)
    assert cut("x" * 1500, 1500) == "x" * 1500
    text = cut("x" * 2704, 1500)
    kept, _, mark = text.partition("…")
    assert (len(text), mark) == (1500, f" (+{2704 - len(kept):,} chars)")


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


TIMES = "\N{MULTIPLICATION SIGN}"
SPAN = "(12:00:31-12:00:31 UTC)"
OTHERS = [sample(OVERDUE), LOST, sample(EventType.EXECUTION_UNRECOGNIZED)]


@pytest.mark.parametrize(
    ("batch", "headline"),
    [
        ([failed(1), SUCCESS, SUCCESS], "✕ 2 succeeded, 1 failed in Sales agent"),
        (
            [*map(failed, range(3)), failed(3, pipeline={"id": "p", "name": "Other"}), *OTHERS],
            "✕ 4 failed, 1 overdue, 1 lost, 1 more in 2 pipelines",
        ),
        ([failed(1), failed(2), failed(3, pipeline={"id": "p"})], "✕ 3 failed in 2 pipelines"),
        ([failed(1), failed(2), failed(3, account="staging")], "✕ 3 failed in 2 pipelines"),
        ([failed(1), failed(2, pipeline={"name": "Sales"})], "✕ 2 failed in Sales"),  # it was renamed
    ],
)
def test_a_group_says_how_many_of_what_in_which_pipelines(batch: list[Delivery], headline: str) -> None:
    news = notice(*batch)
    assert news.headline == f"{headline} {SPAN}"
    assert (news.is_trouble, news.severity) == (True, Severity.ERROR)
    assert [event.headline for event in news.newest] == [read(each).headline for each in batch[-5:]]


WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu")


@pytest.mark.parametrize(
    ("batch", "clusters"),
    [
        ([failed(), SUCCESS, SUCCESS], [f"2 {TIMES} Sales agent succeeded", f"1 {TIMES} Greeting: {ERROR}"]),
        (
            [
                *(failed(number, error="422 slot taken") for number in range(8)),
                *(failed(number, error=f"upstream timeout after {number} s") for number in range(8, 27)),
            ],
            [
                f"19 {TIMES} Greeting: upstream timeout after 8 s (numbers and ids vary)",
                f"8 {TIMES} Greeting: 422 slot taken",
            ],
        ),
        (
            [failed(1, node="Step 2"), failed(2, node="Step 3"), failed(3, node="Step 3")],
            [f"2 {TIMES} Step 3: {ERROR}", f"1 {TIMES} Step 2: {ERROR}"],
        ),
        (
            [failed(number, error=WORDS[number % 12]) for number in range(1_000)],
            [
                *(f"84 {TIMES} Greeting: {word}" for word in WORDS[:4]),
                *(f"83 {TIMES} Greeting: epsilon", f"83 {TIMES} Greeting: zeta", f"498 {TIMES} other, of 6 kinds"),
            ],
        ),
    ],
)
def test_errors_alike_are_one_cluster_in_the_words_of_all_of_them(batch: list[Delivery], clusters: list[str]) -> None:
    assert notice(*batch).error.splitlines() == clusters


def test_a_message_has_its_moment_and_of_much_what_has_room() -> None:
    assert notice(sample(REMINDER, **LAST)).moment == ("Since", OPENED_AT)
    assert notice(failed()).moment == ("Ended", AT)
    assert notice(closing_overdue(EventType.EXECUTION_PAUSED)).facts["Was overdue"] == "41 m"
    link, labels = "https://example.com/".ljust(400, "x"), {f"label{number}": "x" * 250 for number in range(10)}
    nodes: dict[str, Any] = {"failedNodes": [{"name": "Greeting", "error": "x" * 1600}] * 5}
    long = failed(link=link, labels=labels, execution=nodes)
    one, two = notice(long), notice(long, long)
    assert (one.links["Open"], two.newest[0].link) == (link, "")
    assert ("chars)" in one.error, "chars)" in one.facts["Labels"]) == (True, True)
    assert [node[:12] for node in one.nodes] == ["Greeting: xx"] * 3
