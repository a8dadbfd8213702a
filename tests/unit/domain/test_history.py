"""What counts in the history of a pipeline, and what is made of it."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from time import process_time

import pytest

from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot, FailedNode, LostReason
from watcher.domain.history import (
    HOUR_US,
    EndedExecution,
    Totals,
    ended_execution,
    error_kind_of,
    has_changed,
    kind_without_node,
    sum_up,
    totals_of,
)
from watcher.domain.timestamps import Micros, to_us

STARTED = datetime(2026, 11, 30, 2, 59, 50, tzinfo=UTC)
FINISHED = STARTED + timedelta(seconds=12.5)
THREE = to_us(datetime(2026, 11, 30, 3, tzinfo=UTC))


def record(status: str, **more: object) -> ExecutionRecord:
    """Return an execution that was seen to end a minute after it did."""
    ended = {"started_at": to_us(STARTED), "ended_at": to_us(FINISHED), "end_seen_at": to_us(FINISHED) + 60_000_000}
    return ExecutionRecord("e", "p", status=status, **ended | more)  # type: ignore[arg-type]


def facts(status: str, **more: object) -> ExecutionSnapshot:
    dates = {"started_at": STARTED, "finished_at": FINISHED, "began_at": to_us(STARTED)}
    return ExecutionSnapshot("e", status, **dates | more)  # type: ignore[arg-type]


def test_a_success_counts_with_its_duration_and_tokens_in_the_hour_in_which_it_ended() -> None:
    ended = ended_execution(record("success"), facts("success", ai_tokens_used=512.0))
    assert ended[:6] == EndedExecution(to_us(STARTED), to_us(FINISHED), "success", 512, 12.5)[:6]
    hours = totals_of([ended], HOUR_US)
    assert hours[Micros(THREE - HOUR_US)] == Totals(Counter(started=1))
    assert (hours[THREE].success, hours[THREE].started, hours[THREE].tokens) == (1, 0, 512)
    assert hours[THREE].quantile(0.5) == pytest.approx(12.5, rel=0.05)


def test_a_failure_counts_with_the_first_node_that_failed_and_no_duration() -> None:
    node = FailedNode("n1", "Greeting", "upstream timeout after 30 s")
    ended = ended_execution(record("failed"), facts("failed", failed_nodes=(node,), error="Greeting: …"))
    assert (ended.status, ended.duration_s, ended.node, ended.text) == ("failed", None, node, "Greeting: …")
    kind = error_kind_of("Greeting", "upstream timeout after 31 s")
    assert ended.error == kind._replace(text="upstream timeout after 30 s")
    bare = ended_execution(record("failed"), facts("failed", error="boom"))
    assert bare.error is not None
    assert (bare.error.node, bare.error.text) == (None, "boom")


def test_an_end_that_nobody_knows_counts_as_unrecognized_and_a_lost_execution_as_no_end() -> None:
    rubbish = ended_execution(record("success"), facts("success", ai_tokens_used=1e18))
    assert rubbish.tokens == 1_000_000_000  # so that the sum of an hour fits into the store
    odd = ended_execution(record("cancelled"), facts("cancelled", ai_tokens_used=-3.0))
    lost = ended_execution(record("running", lost=LostReason.NOT_FOUND), None)
    hours = totals_of([odd, lost], HOUR_US)
    assert (hours[THREE].counts["unrecognized"], hours[THREE].ended, hours[THREE].tokens) == (1, 1, 0)
    assert hours[Micros(THREE - HOUR_US)].started == 2


def test_without_dates_of_the_api_an_execution_counts_by_when_it_was_seen() -> None:
    bare = ExecutionSnapshot("e", "success")
    ended = ended_execution(record("success"), bare)
    assert (ended.started_at, ended.ended_at, ended.duration_s) == (to_us(STARTED), to_us(FINISHED), None)
    unseen = ended_execution(record("success", started_at=None), bare)
    assert unseen.started_at == unseen.ended_at


def test_a_quantile_is_within_a_tenth_of_the_true_one() -> None:
    random = Random(7)
    for spread in (0.1, 1.0, 2.5):
        true = sorted(random.lognormvariate(2.0, spread) for _ in range(999))
        counted = Totals()
        for seconds in true:
            for hour in totals_of([EndedExecution(THREE, THREE, "success", 0, seconds)], HOUR_US).values():
                counted.add(hour)
        for share in (0.5, 0.95):
            assert counted.quantile(share) == pytest.approx(true[round(share * 999) - 1], rel=0.1)
    assert Totals().quantile(0.5) is None
    shortest = totals_of([EndedExecution(THREE, THREE, "success", 0, 0.0)], HOUR_US)[THREE]
    assert shortest.quantile(0.5) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("upstream timeout after 30 s", "upstream timeout after 5 s"),
        (
            "contact 9a1b0000-0000-4000-8000-000000000001 opted out",
            "contact 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f opted out",
        ),
        ("no answer from https://a.example/x?y=1", "no answer from http://b.example"),
        ("mail to bob@example.com bounced", "mail to alice@example.org bounced"),
        ('the field "name" is missing', "the field 'phone' is missing"),
        ("failed at 2026-11-30T03:00:00Z", "failed at 2026-12-01T04:10:00.5Z"),
        ("first\nsecond 1\nat line one", "first\nsecond 2\nsomething else"),
        ("HTTP 502 from upstream", "HTTP 503 from upstream"),  # no number tells two kinds apart
        ("Error at line 12, column 5: unexpected token", "Error at line 873, column 41: unexpected token"),
        ("no “Anna Müller” in the CRM", "no “Bob” in the CRM"),
        ("failed on Mon, 30 Nov 2026 03:00:00 GMT", "failed on Tue, 01 Dec 2026 04:10:00 GMT"),
        (
            "Rate limit reached for gpt-4o in organization org-AbC1 on tokens per min: Used 29500. Try again in 1.4s.",
            "Rate limit reached for gpt-4o in organization org-9zZ on tokens per min: Used 99. Try again in 860ms.",
        ),
        ("Incorrect API key provided: sk-abc1***xyz9", "Incorrect API key provided: sk-99qq***k1k2"),
        ("The 'To' number +15551234567 is not valid", "The 'To' number +4917012345678 is not valid"),
        (
            'duplicate key violates unique constraint "contact_pkey"\nDETAIL: Key (email)=(bob@example.com) exists.',
            'duplicate key violates unique constraint "mail_key"\nDETAIL: Key (email)=(al.ice@example.org) exists.',
        ),
        (
            "could not connect to server 10.0.0.7:5432: refused",
            "could not connect to server 192.168.1.20:5433: refused",
        ),
        ("slack: message to C0123ABCD failed: is_archived", "slack: message to C9876ZYXW failed: is_archived"),
        (
            '{"error":{"code":"rate_limit","message":"wait 3 s"},"request":"abc"}',
            '{"error":{"code":"rate_limit","message":"wait 20 s"},"request":"xyz"}',
        ),
        (
            "TypeError: x is undefined\n    at run (/app/dist/node.js:10:5)",
            "TypeError: x is undefined\n    at run (/app/dist/node.js:99:17)\n    at main",
        ),
    ],
)
def test_errors_that_differ_in_ids_and_the_like_are_of_one_kind(one: str, other: str) -> None:
    assert error_kind_of("Greeting", one).fingerprint == error_kind_of("Greeting", other).fingerprint
    assert error_kind_of("Greeting", one).fingerprint != error_kind_of("Closing", other).fingerprint
    assert error_kind_of("Greeting", one).text == "\n".join(one.splitlines()[:2])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("the model can't answer", "the model won't answer"),
        ("502 Bad Gateway", "503 Service Unavailable"),
        ("Rate limit reached on tokens per min", "Rate limit reached on requests per min"),
        ("[HTTP 400] The 'To' number is not valid", "[HTTP 400] The message body is required"),
        ('relation "contacts" does not exist', 'column "contacts" does not exist'),
        ("slack: channel_not_found", "slack: not_in_channel"),
        ('400: {"error": "invalid_auth"}', '400: {"error": "channel_not_found"}'),
        ('{"error":{"type":"a","message":"slow down"}}', '{"error":{"type":"a","message":"no such key"}}'),
        ("boom\n  at first (a.js:1:1)", "boom\n  at second (a.js:1:1)"),
        ("the user's plan doesn't allow this", "the user's card doesn't allow this"),
        ("quota exceeded", "quota exceeded\nraise the limit"),
    ],
)
def test_errors_of_other_words_are_of_another_kind(one: str, other: str) -> None:
    assert error_kind_of("Greeting", one).fingerprint != error_kind_of("Greeting", other).fingerprint


def test_a_text_is_cut_and_its_kind_without_the_node_is_that_of_the_text_alone() -> None:
    for text in ("x" * 5000, f"{'x' * 299} and more", "no answer\n\nat line 7", "", " boom "):
        kind = error_kind_of("Greeting", text)
        assert len(kind.text) <= 300
        assert kind_without_node(kind.text) == error_kind_of(None, text)


def test_hours_are_summed_up_from_the_one_that_begins_at_a_moment_until_another_moment() -> None:
    hours = {Micros(THREE + n * HOUR_US): Totals(Counter(success=1, failed=n), Counter({n % 2: 1})) for n in range(4)}
    first, last = (sum_up(hours, Micros(THREE + n * HOUR_US), Micros(THREE + (n + 6) * HOUR_US)) for n in (-3, 3))
    assert (first.success, first.failed, first.durations) == (3, 3, {0: 2, 1: 1})
    assert (last.success, last.failed) == (1, 3)
    assert hours[Micros(THREE)].durations == {0: 1}


@pytest.mark.parametrize(
    ("now", "before", "changed"),
    [((90, 100), (98, 100), True), ((97, 100), (98, 100), False), ((9, 10), (10, 10), False), ((5, 5), (7, 7), False)],
)
def test_rates_differ_unless_it_may_be_chance(now: tuple[int, int], before: tuple[int, int], changed: bool) -> None:
    one, other = (Totals(Counter(success=good, failed=all_ - good)) for good, all_ in (now, before))
    assert has_changed(one, other) is changed
    assert not has_changed(one, Totals())


@pytest.mark.parametrize(
    "text", ["@." * 150, "@" * 300, "a@" * 150, "://" * 100, '"error":"' * 33, "„" * 300, "“" * 300]
)
def test_a_text_that_is_made_to_take_long_has_its_kind_at_once(text: str) -> None:
    began_at = process_time()
    for _ in range(10):
        error_kind_of("Greeting", text)
    assert process_time() - began_at < 0.3
