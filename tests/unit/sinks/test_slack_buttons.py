"""Buttons of a Slack app: presses over a real WebSocket, whose other end is Slack as its documentation has it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from fake_clock import FakeClock
from fake_slack import APP_TOKEN, CHANNEL, OTHER_CHANNEL, FakeSlack
from sample_events import PROBLEM, sample
from structlog.testing import capture_logs

from watcher.domain.delivery import MessagePlace, ProblemMessage
from watcher.domain.errors import LeaseExpiredError, StoreError, TransportFailedError
from watcher.domain.event import EventType
from watcher.domain.problems import Press
from watcher.sinks import slack_buttons
from watcher.sinks.protocol import SinkContext
from watcher.sinks.slack_bot import SlackBotSettings, SlackBotSink
from watcher.sinks.slack_buttons import DISCONNECTED_S, NEW_APP_TOKEN

OPENING = sample(EventType.PIPELINE_FAILING)


class Chat:
    """A sink with buttons. `says` is the answer to each press, `presses` are those that were recorded."""

    def __init__(self, slack: FakeSlack, **more: object) -> None:
        self.slack, self.clock = slack, FakeClock(0.0)
        self.presses: list[Press] = []
        self.says: str | Exception | None = ""
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.is_owner = True
        context = SinkContext(
            self.clock, press=self._press, name="chat", public_url="https://w.example", before_request=self._check
        )
        self.settings = SlackBotSettings.model_validate(slack.block(app_token=APP_TOKEN) | more)
        sink = self.settings.open(context)
        assert isinstance(sink, SlackBotSink)
        self.sink = sink

    async def _press(self, press: Press) -> str | None:
        await self.may_go_on.wait()
        self.presses.append(press)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def _check(self) -> None:
        if not self.is_owner:
            raise LeaseExpiredError("another process owns it")


@asynccontextmanager
async def a_chat(slack: FakeSlack, **more: object) -> AsyncIterator[Chat]:
    chat = Chat(slack, **more)
    try:
        yield chat
    finally:
        await chat.sink.close()


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack() as slack:
        slack.again_s = 0.2
        yield slack


@pytest.fixture
async def chat(slack: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Chat]:
    monkeypatch.setattr(slack_buttons, "OPEN_EVERY_S", 0.01)
    async with a_chat(slack) as chat:
        await slack.until(lambda: len(slack.sockets) == 1)
        await chat.sink.send([OPENING])
        yield chat


async def test_a_press_is_recorded_by_the_presser_s_name_and_then_confirmed(chat: Chat, slack: FakeSlack) -> None:
    assert slack.buttons() == ["Acknowledge"]
    chat.may_go_on.clear()
    id_ = await slack.press()
    assert id_ in slack.unconfirmed
    chat.may_go_on.set()
    await slack.until(lambda: id_ in slack.confirmed)
    press = chat.presses[0]
    assert (str(press.problem), press.event_count, press.gives_back) == (PROBLEM, 0, False)
    assert (press.by, press.channel, press.sink) == ("ann", CHANNEL, "chat")
    assert slack.answers == []


async def test_a_press_that_did_nothing_is_answered_to_the_presser_alone(chat: Chat, slack: FakeSlack) -> None:
    chat.says = "ada has acknowledged it."
    await slack.pressed(user="bob")
    await slack.until(lambda: slack.answers == [("bob", "ada has acknowledged it.")])


@pytest.mark.parametrize("says", [None, StoreError("no space")])
async def test_a_press_that_is_not_recorded_is_not_confirmed_and_comes_again(
    says: StoreError | None, chat: Chat, slack: FakeSlack
) -> None:
    chat.says = says
    id_ = await slack.press()
    await slack.until(lambda: slack.sent_counts[id_] == 3)
    assert len(chat.presses) >= 2
    assert id_ in slack.unconfirmed
    chat.says = ""
    await slack.until(lambda: id_ in slack.confirmed)


HOSTILE: dict[str, Any] = {
    "another team": {"team": {"id": "T99999999"}},
    "no team, and a person of another one": {"team": None, "user": {"id": "UEVE", "team_id": "T99999999"}},
    "a bot": {"user": {"id": "UEVE", "username": "SECRET", "is_bot": True, "team_id": "T0123456789"}},
    "a bot's id": {"user": {"id": "B0123", "username": "SECRET"}},
    "an unknown action": {"actions": [{"action_id": "SECRET", "value": f"{PROBLEM.replace('-', '')}.0"}]},
    "an unknown value": {"actions": [{"action_id": "acknowledge", "value": "SECRET"}]},
    "two actions": {"actions": [{"action_id": "acknowledge", "value": f"{PROBLEM.replace('-', '')}.0"}] * 2},
    "no action": {"actions": []},
    "another kind": {"type": "view_submission"},
    "a megabyte": {"actions": [{"action_id": "acknowledge", "value": "SECRET" * 180_000}]},
}


@pytest.mark.parametrize("more", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_payloads_are_confirmed_alone_and_not_logged(
    more: dict[str, Any], chat: Chat, slack: FakeSlack
) -> None:
    with capture_logs() as logs:
        await slack.pressed(slack.payload() | more)
        await slack.pressed(["SECRET"])
        await slack.pressed()  # the connection lives on
    assert len(chat.presses) == 1
    assert logs == []
    assert slack.answers == []


async def test_frames_that_are_no_envelopes_are_ignored(chat: Chat, slack: FakeSlack) -> None:
    (socket,) = slack.sockets
    for text in ("{", "[1]", "[" * 100_000, '{"type": "disconnect"', '{"envelope_id": 7, "payload": {}}', "null"):
        await socket.send_str(text)
    await socket.send_bytes(b"\xff")
    await slack.pressed()
    assert (len(chat.presses), slack.opened_count) == (1, 1)


async def test_a_press_in_another_channel_is_said_to_be_there(chat: Chat, slack: FakeSlack) -> None:
    await slack.pressed(slack.payload(channel={"id": OTHER_CHANNEL}))
    assert (chat.presses[0].channel, chat.presses[0].sink) == (OTHER_CHANNEL, None)


async def test_a_press_is_answered_although_another_process_owns_the_sink_by_now(chat: Chat, slack: FakeSlack) -> None:
    chat.is_owner, chat.says = False, "This problem has closed."
    with capture_logs() as logs:
        await slack.pressed(user="bob")
        await slack.until(lambda: slack.answers == [("bob", "This problem has closed.")])
    assert logs == []


@pytest.mark.parametrize("url", ["http://evil.example/SECRET", "https://127.0.0.1/x", "no url", "http://[", ""])
async def test_an_answer_goes_to_slack_alone(url: str, chat: Chat, slack: FakeSlack) -> None:
    chat.says = "This problem has closed."
    with capture_logs() as logs:
        await slack.pressed(slack.payload(response_url=url))
        await slack.pressed(user="bob")
        await slack.until(lambda: len(slack.answers) == 1)
    assert slack.answers[0][0] == "bob"
    assert logs == []


async def test_the_next_connection_is_open_before_the_announced_end_of_the_last(chat: Chat, slack: FakeSlack) -> None:
    for nth in range(1, 6):
        await slack.disconnect("refresh_requested" if nth % 2 else "warning")
        await slack.until(lambda: len(slack.sockets) == 2)
        await slack.pressed()
        await slack.sockets[0].close()
        await slack.until(lambda: len(slack.sockets) == 1)
        await slack.pressed()
    assert len(chat.presses) == 10
    assert chat.sink.trouble == ""


async def test_a_connection_that_ends_unannounced_is_opened_again(chat: Chat, slack: FakeSlack) -> None:
    await slack.sockets[0].close()
    await slack.until(lambda: slack.opened_count == 2 and len(slack.sockets) == 1)
    await slack.pressed()


async def test_connections_that_end_after_hello_are_no_connection(
    slack: FakeSlack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slack_buttons, "OPEN_EVERY_S", 0.01)
    slack.closes_at_once = True
    with capture_logs() as logs:
        async with a_chat(slack) as chat:
            await slack.until(lambda: slack.opened_count >= 3)
            async with asyncio.timeout(20):
                while chat.sink._buttons._sockets:  # type: ignore[union-attr]
                    await asyncio.sleep(0)
                chat.clock.advance(DISCONNECTED_S)
                while chat.sink.trouble != "no buttons: closed":
                    await asyncio.sleep(0)
    assert {(said["event"], said["answer"]) for said in logs} == {("buttons.failed", "closed")}


async def test_after_a_minute_without_a_connection_messages_have_a_link_instead(slack: FakeSlack) -> None:
    slack.no_buttons = "invalid_auth"
    with capture_logs() as logs:
        async with a_chat(slack) as chat:
            await slack.until(lambda: "apps.connections.open" in slack.calls)
            chat.clock.advance(DISCONNECTED_S - 1)
            assert chat.sink.trouble == ""
            await chat.sink.send([OPENING])
            assert slack.buttons() == ["Acknowledge"]
            chat.clock.advance(1)
            assert chat.sink.trouble == "no buttons: invalid_auth"
            await chat.sink.send([OPENING])
            assert slack.buttons() == ["Acknowledge"]  # that of the first message
            (links,) = [block for block in slack.posted()[1].content["blocks"] if block["type"] == "actions"]
            assert any("url" in each and each["text"]["text"] == "Acknowledge" for each in links["elements"])
            slack.no_buttons = None
            await slack.until(lambda: len(slack.sockets) == 1)
            await slack.pressed()
            assert chat.sink.trouble == ""
    (said,) = logs
    assert (said["event"], said["sink"], said["answer"]) == ("buttons.failed", "chat", "invalid_auth")
    assert said["remedy"] == NEW_APP_TOKEN
    assert "xapp" not in str({key: value for key, value in said.items() if key != "remedy"})


async def test_beside_the_button_the_link_says_details(chat: Chat, slack: FakeSlack) -> None:
    (links,) = [block for block in slack.posted()[0].content["blocks"] if block["type"] == "actions"]
    assert links["elements"][0]["text"]["text"] == "Acknowledge"
    assert [each["text"]["text"] for each in links["elements"] if "url" in each].count("Acknowledge") == 0


async def test_a_reply_has_no_button_and_so_its_link_says_acknowledge(chat: Chat, slack: FakeSlack) -> None:
    message = ProblemMessage(UUID(PROBLEM), MessagePlace(CHANNEL, slack.button()[0]))
    await chat.sink.send([replace(sample(EventType.PROBLEM_REMINDER), message=message, thread=message)])
    reply = list(slack.messages.values())[1]
    (links,) = [block for block in reply.content["blocks"] if block["type"] == "actions"]
    assert links["elements"][0]["text"]["text"] == "Acknowledge"
    assert "url" in links["elements"][0]


async def test_presses_that_have_arrived_are_recorded_before_the_end(slack: FakeSlack) -> None:
    async with a_chat(slack) as chat:
        await slack.until(lambda: len(slack.sockets) == 1)
        await chat.sink.send([OPENING])
        chat.may_go_on.clear()
        id_ = await slack.press()
        async with asyncio.timeout(20):
            while not chat.sink._buttons._presses:  # type: ignore[union-attr]
                await asyncio.sleep(0)
        closing = asyncio.create_task(chat.sink.close())
        await asyncio.sleep(0)
        chat.may_go_on.set()
        await closing
        await slack.until(lambda: not slack.sockets)
    assert slack.confirmed == [id_]


async def test_without_hello_or_lease_there_is_no_connection(slack: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    slack.hello = "bye"
    monkeypatch.setattr(slack_buttons, "OPEN_EVERY_S", 0.01)
    async with a_chat(slack) as chat:
        await slack.until(lambda: slack.opened_count >= 2)
        chat.is_owner = False
        chat.clock.advance(DISCONNECTED_S)
        async with asyncio.timeout(20):
            while chat.sink.trouble != "no buttons: LeaseExpiredError":
                await asyncio.sleep(0)


async def test_without_an_app_token_nothing_is_opened(slack: FakeSlack) -> None:
    async with a_chat(slack, app_token=None) as chat:
        await chat.sink.send([OPENING])
    assert (slack.calls, slack.buttons(), chat.sink.trouble) == (["chat.postMessage"], [], "")


async def test_a_trial_asks_for_both_tokens_and_opens_no_connection(slack: FakeSlack) -> None:
    settings = SlackBotSettings.model_validate(slack.block(app_token=APP_TOKEN))
    assert (await settings.connect()).startswith("takes the tokens; ")
    assert slack.calls == ["auth.test", "apps.connections.open"]
    assert slack.sockets == []
    slack.no_buttons = "not_allowed_token_type"
    with pytest.raises(TransportFailedError, match="not_allowed_token_type") as failure:
        await settings.connect()
    assert failure.value.remedy == NEW_APP_TOKEN
    slack.no_buttons = 503
    with pytest.raises(TransportFailedError, match="503") as failure:
        await settings.connect()
    assert failure.value.remedy != NEW_APP_TOKEN
