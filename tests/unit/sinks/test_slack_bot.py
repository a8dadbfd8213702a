"""One message for each problem: posted, updated, answered in its thread, over a real socket to Slack's Web API."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trustme
from fake_slack import CHANNEL, OTHER_CHANNEL, TOKEN, FakeSlack
from receiver import Receiver, answer, says, sink_to
from sample_events import ERROR, PROBLEM, closing_overdue, data_of, failed, hostile_failures, problem_block, sample
from structlog.testing import capture_logs
from tls import own_ca, serving

from watcher.domain.delivery import Delivery, MessagePlace, Part, ProblemMessage
from watcher.domain.event import EventType
from watcher.runtime.http_client import REMEDIES as CONNECTION_REMEDIES
from watcher.sinks.protocol import SendOutcome, SendResult, Sink
from watcher.sinks.settings import PemFile
from watcher.sinks.slack_api import ERROR_REMEDIES
from watcher.sinks.slack_bot import SlackBotSettings, SlackBotSink
from watcher.sinks.template import MINIMAL_NEXT

FAILING, FAILED = EventType.PIPELINE_FAILING, EventType.EXECUTION_FAILED
DELIVERED = SendResult(SendOutcome.DELIVERED, "200")
HEAD = "✕ Sales agent keeps failing, last at Greeting"
FAILURE = "✕ Sales agent failed at Greeting"
RECOVERED = "✓ Sales agent recovered after 41 m (7 failed)"


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack() as slack:
        yield slack


@pytest.fixture
async def sink(slack: FakeSlack) -> AsyncIterator[Sink]:
    async with sink_to(**slack.block()) as sink:
        yield sink


LAST = {"execution": data_of(FAILED)["execution"]}
OPENING, OVERDUE = sample(FAILING, **LAST), sample(EventType.EXECUTION_OVERDUE)
POSTED, UPDATED = "chat.postMessage", "chat.update"


async def opened(sink: Sink, opening: Delivery = OPENING) -> ProblemMessage:
    """Post a problem; return what is kept of it, as the store gives it back."""
    result = await sink.send([opening])
    (message,) = result.messages
    assert result == replace(DELIVERED, messages=(message,))
    return replace(message, opening=opening.body)


def of(message: ProblemMessage | None, type_: EventType = EventType.PIPELINE_RECOVERED, **changes: Any) -> Delivery:
    return replace(sample(type_, **changes), message=message)


def overdue_end(type_: EventType, message: ProblemMessage | None, **more: Any) -> Delivery:
    return replace(closing_overdue(type_), message=message, **more)


NO_LONGER = "✓ Sales agent is no longer overdue, after 41 m"
TAKEN = "◆ Acknowledged by ada until 2026-11-24 14:00 UTC: Sales agent keeps failing, last at Greeting"
REMINDED = "✕ Still open after 41 m: Sales agent keeps failing"
WORSE = problem_block(EventType.SINK_FAILING)
ONLY_CLOSES = {"part": Part.CLOSING, "only_closes": True}
WHAT_FOLLOWS: dict[str, tuple[Delivery, Delivery, list[str], list[str], str]] = {
    "a reminder": (OPENING, of(None, EventType.PROBLEM_REMINDER), [HEAD, f"  {REMINDED}"], [POSTED], ERROR),
    "who took it": (
        *(OPENING, of(None, EventType.PROBLEM_ACKNOWLEDGED, **LAST), [TAKEN, f"  {TAKEN}"]),
        *([UPDATED, POSTED], ERROR),
    ),
    "the end": (*(OPENING, of(None), [RECOVERED, f"  {RECOVERED}"], [UPDATED, POSTED]), f"It was: {HEAD[2:]}: {ERROR}"),
    "an end that is trouble itself: the end first": (
        *(OVERDUE, overdue_end(FAILED, None), [NO_LONGER, f"  {NO_LONGER}", FAILURE], [UPDATED, POSTED, POSTED]),
        "It was: Sales agent has been running for 45 m 5 s, limit 2 m",
    ),
    "an end that was not asked for": (
        *(OVERDUE, overdue_end(FAILED, None, **ONLY_CLOSES), [NO_LONGER, f"  {NO_LONGER}"], [UPDATED, POSTED]),
        f"It was: Sales agent has been running for 45 m 5 s, limit 2 m. Then: {FAILURE[2:]}: {ERROR}",
    ),
    "what makes it worse": (
        sample(EventType.SINK_FAILING),
        of(None, EventType.SINK_DISABLED, problem=WORSE),
        ["✕ Sink ops is failing (503)", "  ✕ Sink ops is disabled (503)"],
        [POSTED],
        "what is sent to it waits; watcher test-sink ops says what to do",
    ),
    "the opening itself, sent before": (OPENING, OPENING, [HEAD], [UPDATED], ERROR),
}
"""By what follows on an opening: both, the messages then, the calls for it, and the second line of the message."""


@pytest.mark.parametrize(("opening", "delivery", "heads", "calls", "line"), WHAT_FOLLOWS.values(), ids=WHAT_FOLLOWS)
async def test_what_follows_is_what_the_message_becomes_or_is_in_its_thread(
    slack: FakeSlack, sink: Sink, opening: Delivery, delivery: Delivery, heads: list[str], calls: list[str], line: str
) -> None:
    message = await opened(sink, opening)
    assert await sink.send([replace(delivery, message=message)]) == DELIVERED
    assert slack.heads() == heads
    assert slack.posted()[0].lines[1] == line
    assert heads[0] != TAKEN or "looking at it" in slack.posted()[0].lines
    assert slack.calls == [POSTED, *calls]


async def test_what_opens_a_problem_is_posted_to_be_acknowledged_on_our_page(slack: FakeSlack, sink: Sink) -> None:
    message = await opened(sink)
    assert message.problem == UUID(PROBLEM)
    assert message.place is not None
    assert slack.messages[message.place].lines[:2] == [HEAD, ERROR]
    async with sink_to(**slack.block(), public_url="https://watcher.example.com") as linked:
        message = await opened(linked)
        *_, posted = slack.posted()
        assert posted.lines[-1] == "Acknowledge"
        await linked.send([of(message, EventType.PROBLEM_ACKNOWLEDGED)])
    *_, posted = slack.posted()
    assert posted.lines[-1] == "Details"


@pytest.mark.parametrize("word", ["lost", "unrecognized"])
async def test_other_ends_that_are_trouble_are_both_the_end_first(slack: FakeSlack, sink: Sink, word: str) -> None:
    message = await opened(sink, OVERDUE)
    assert await sink.send([overdue_end(EventType(f"execution.{word}"), message)]) == DELIVERED
    first, note, own = slack.heads()
    assert (first, note, own[:1] in "✕?!") == (NO_LONGER, f"  {NO_LONGER}", True)


async def test_failures_of_a_pipeline_that_keeps_failing_go_into_its_thread(slack: FakeSlack, sink: Sink) -> None:
    await sink.send([failed(1)])
    thread = await opened(sink)
    assert await sink.send([replace(failed(2), thread=thread)]) == DELIVERED
    group = [replace(failed(number), thread=thread) for number in (3, 4)]
    assert await sink.send(group) == DELIVERED
    assert slack.heads()[:3] == [FAILURE, HEAD, f"  {FAILURE}"]
    assert slack.heads()[3].startswith("  ✕ 2 failed in Sales agent")


@pytest.mark.parametrize(
    ("delivery", "head"),
    [
        (of(None), RECOVERED),
        (overdue_end(FAILED, None, part=Part.NEWS), FAILURE),
        (overdue_end(FAILED, None, part=Part.CLOSING), NO_LONGER),
    ],
)
async def test_without_a_message_there_is_a_new_one(
    slack: FakeSlack, sink: Sink, delivery: Delivery, head: str
) -> None:
    assert await sink.send([delivery]) == DELIVERED
    assert slack.heads() == [head]


async def test_a_group_is_one_message_and_if_refused_has_no_minimal_form(slack: FakeSlack, sink: Sink) -> None:
    thread = await opened(sink)
    group = [failed(1), replace(failed(2), thread=thread), sample(EventType.EXECUTION_SUCCESS)]
    assert await sink.send(group) == DELIVERED
    first, digest = slack.heads()
    assert (first, digest.startswith("✕ 2 failed, 1 succeeded in Sales agent")) == (HEAD, True)
    slack.says.append("invalid_blocks")
    assert await sink.send([failed(1), failed(2)]) == SendResult(SendOutcome.REFUSED, "invalid_blocks")


async def test_hostile_texts_stay_texts(sink: Sink) -> None:
    message = await opened(sink)
    for delivery in hostile_failures(3, count=20):
        end = of(replace(message, opening=delivery.body))
        assert await sink.send([delivery]) == await sink.send([end]) == DELIVERED  # the fake refuses markup


@pytest.mark.parametrize(
    ("type_", "is_kept"),
    [(EventType.PIPELINE_RECOVERED, False), (EventType.PROBLEM_REMINDER, True), (FAILED, False), (FAILING, True)],
)
@pytest.mark.parametrize("how", ["deleted", "refused", "archived"])
async def test_a_message_that_is_gone_is_posted_anew(
    slack: FakeSlack, type_: EventType, how: str, *, is_kept: bool
) -> None:
    async with sink_to(**slack.block(channel=OTHER_CHANNEL)) as other:
        message = await opened(other)
    if how == "archived":
        slack.archived.add(OTHER_CHANNEL)
    else:
        slack.messages.clear()
        slack.says.append("thread_not_found" if how == "refused" else None)
    delivery = failed() if type_ is FAILED else sample(type_)
    is_failure = type_ is FAILED
    delivery = replace(delivery, thread=message if is_failure else None, message=None if is_failure else message)
    channel = OTHER_CHANNEL if how == "deleted" else CHANNEL  # a reply to what was deleted is a message there
    async with sink_to(**slack.block(channel=channel)) as sink:
        with capture_logs() as logs:
            result = await sink.send([delivery])
    assert result.outcome is SendOutcome.DELIVERED
    ((place_of_new, new),) = [
        (place, each) for place, each in slack.messages.items() if how != "archived" or place[0] == CHANNEL
    ]
    assert new.thread is None
    assert result.messages == (ProblemMessage(UUID(PROBLEM), MessagePlace(*place_of_new) if is_kept else None),)
    assert [log["event"] for log in logs] == ["message.gone"]


async def test_news_without_a_message_become_one_and_the_end_stays_in_its_channel(slack: FakeSlack, sink: Sink) -> None:
    result = await sink.send([of(None, EventType.PROBLEM_REMINDER)])
    (message,) = result.messages
    await sink.send([of(message)])
    assert slack.heads() == [RECOVERED, f"  {RECOVERED}"]
    message = await opened(sink)
    async with sink_to(**slack.block(channel=OTHER_CHANNEL)) as moved:
        await moved.send([of(message)])
        await moved.send([failed()])
    assert [channel for channel, _ in slack.messages][2:] == [CHANNEL, CHANNEL, OTHER_CHANNEL]


@pytest.mark.parametrize("error", ["edit_window_closed", "cant_update_message"])
async def test_the_thread_of_what_cannot_be_updated_says_it_is_over(slack: FakeSlack, sink: Sink, error: str) -> None:
    message = await opened(sink)
    slack.says.append(error)
    with capture_logs() as logs:
        assert (await sink.send([of(message)])).outcome is SendOutcome.DELIVERED
    assert slack.heads() == [HEAD, f"  {RECOVERED}"]
    assert [log["event"] for log in logs] == ["message.fixed"]


@pytest.mark.parametrize("error", ["ratelimited", "rate_limited"])
async def test_too_many_requests_pause_the_sink(slack: FakeSlack, sink: Sink, error: str) -> None:
    slack.says.append(error)
    assert await sink.send([failed()]) == SendResult(SendOutcome.BUSY, error, 30)


NOT_SLACK = "is url that of Slack's Web API?"
OF_SLACK = "see whether url is that of Slack's Web API, and whether the app may post in the channel"


@pytest.mark.parametrize(
    ("reply", "said", "remedy"),
    [
        (answer(200, body=b"<html>"), "200 without ok", NOT_SLACK),
        (answer(200, body=b"[" * 4000), "200 without ok", NOT_SLACK),
        (answer(200, body=b'{"ok":false,"error":"a_word_of_its_own"}'), "200 with an unknown error", OF_SLACK),
        (answer(404), "404", NOT_SLACK),
        (answer(202, body=b'{"ok":true}'), "202", NOT_SLACK),
    ],
)
async def test_what_is_no_answer_of_slack_is_tried_again(reply: bytes, said: str, remedy: str) -> None:
    async with Receiver(says(reply)) as receiver, sink_to(**FakeSlack.block_at(receiver.url)) as sink:
        assert await sink.send([failed()]) == SendResult(SendOutcome.RETRY, said, remedy=remedy)
        assert len(receiver.requests) == 1


@pytest.mark.parametrize("place", [{}, {"channel": CHANNEL, "ts": 1}])
async def test_where_a_message_is_is_kept_only_if_it_looks_like_that(place: dict[str, object]) -> None:
    said = json.dumps({"ok": True, **place}).encode()
    async with Receiver(says(answer(200, body=said))) as receiver, sink_to(**FakeSlack.block_at(receiver.url)) as sink:
        assert await sink.send([OPENING]) == DELIVERED


def again(delivery: Delivery, **more: Any) -> Delivery:
    """Return a delivery whose message was refused."""
    return replace(delivery, attempts=1, rejections=1, **more)


@pytest.mark.parametrize("error", ["invalid_blocks", "msg_too_long"])
async def test_what_is_refused_goes_in_minimal_form_next(slack: FakeSlack, sink: Sink, error: str) -> None:
    message = await opened(sink)
    slack.says.extend([error, None, error, None, None, error, error])
    refused = SendResult(SendOutcome.REFUSED, error, minimal_left=True, remedy=MINIMAL_NEXT)
    assert await sink.send([failed()]) == refused
    assert await sink.send([again(failed())]) == DELIVERED
    assert await sink.send([of(message)]) == refused
    assert await sink.send([again(of(message))]) == DELIVERED  # the end in the message itself, then its note
    assert await sink.send([failed()]) == refused
    assert await sink.send([again(failed())]) == replace(refused, minimal_left=False, remedy="")
    first, own, note = slack.messages.values()
    assert (first.lines[0], len(first.lines)) == (RECOVERED, 2)
    assert (own.lines[0].startswith(FAILURE), note.lines) == (True, [RECOVERED])


async def test_what_was_taken_before_a_refusal_is_not_sent_again(slack: FakeSlack, sink: Sink) -> None:
    (message,) = (await sink.send([OVERDUE])).messages
    both = overdue_end(FAILED, message)
    slack.says.extend([None, None, "invalid_blocks"])  # to the trouble itself, after the end and its note
    assert (await sink.send([both])).minimal_left
    assert await sink.send([again(both)]) == DELIVERED
    assert slack.calls == [POSTED, UPDATED, *[POSTED] * 3]


async def test_the_next_attempt_goes_on_behind_what_was_taken(slack: FakeSlack) -> None:
    slots: list[int] = []

    def take_slot() -> float:
        slots.append(len(slack.calls))
        return 0.0

    async with sink_to(**slack.block(), take_slot=take_slot) as sink:
        (message,) = (await sink.send([OVERDUE])).messages
        both = overdue_end(FAILED, message)
        slack.says.extend([None, "internal_error", None, "ratelimited"])
        assert (await sink.send([both])).outcome is SendOutcome.RETRY
        assert (await sink.send([replace(both, attempts=1)])).outcome is SendOutcome.BUSY
        assert await sink.send([replace(both, attempts=2)]) == DELIVERED
    assert [len(slack.messages[place].earlier) for place in slack.messages] == [1, 0, 0]
    assert slots == [2, 4]


def test_it_asks_for_what_is_worth_a_message_at_one_a_second() -> None:
    settings = SlackBotSettings.model_validate({"type": "slack_bot", "token": TOKEN, "channel": CHANNEL})
    assert settings.rules.rate_per_s == 1
    assert settings.rules.keeps_messages
    assert SlackBotSink.keeps_state
    assert "execution.failed" in settings.events
    assert "execution.success" not in settings.events
    assert settings.target == "https://slack.com"
    assert TOKEN not in repr(settings)
    assert ERROR_REMEDIES["not_in_channel"] == "invite the app to the channel: /invite @its-name"


@pytest.mark.parametrize("error", ["not_in_channel", "channel_not_found", "is_archived"])
async def test_an_error_of_its_channel_makes_no_message_gone(slack: FakeSlack, sink: Sink, error: str) -> None:
    message = await opened(sink)
    slack.says.append(error)
    assert await sink.send([of(message)]) == SendResult(SendOutcome.RETRY, error, remedy=ERROR_REMEDIES[error])
    assert slack.heads() == [HEAD]


async def test_slack_is_reached_as_the_rules_of_its_connections_say(slack: FakeSlack, tmp_path: Path) -> None:
    own_ca(tmp_path)
    tls = {"ca_file": PemFile("ca.pem", tmp_path / "ca.pem", (tmp_path / "ca.pem").read_text())}
    async with Receiver(tls=serving(trustme.CA(), "127.0.0.1")) as foreign:
        for more, kind in (({"allow_private": "false"}, "private"), ({"url": f"{foreign.url}/api", "tls": tls}, "tls")):
            async with sink_to(**slack.block() | more) as sink:
                result = await sink.send([failed()])
            assert (result.outcome, result.answer) == (SendOutcome.RETRY, kind)
            assert result.remedy.endswith(CONNECTION_REMEDIES[kind])
    assert not slack.calls
    assert not foreign.requests
