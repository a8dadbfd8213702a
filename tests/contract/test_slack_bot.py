"""A Slack app with its worker, store and Slack: the message of a problem stays the same one, whatever happens."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid5

import pytest
from contract.conftest import on_both
from fake_slack import APP_TOKEN, CHANNEL, OTHER_CHANNEL, TOKEN, FakeSlack
from sample_events import PIPELINE, PROBLEM, failed, sample
from stores import backlog_of, operator_of
from structlog.testing import capture_logs
from worker_rig import NAMESPACE, Rig, ScriptedSink

from watcher.domain.delivery import Delivery, MessagePlace, ProblemMessage
from watcher.domain.event import Event, EventKey, EventType, OutboxEntry
from watcher.domain.problems import Press, Problem, ProblemChange
from watcher.sinks import slack_buttons
from watcher.sinks.protocol import SinkContext
from watcher.sinks.slack_bot import SlackBotSettings
from watcher.store.changes import SourceChange
from watcher.store.operator_store import CLOSED
from watcher.store.problems import write_messages
from watcher.store.sources import Source

FAILING, RECOVERED = EventType.PIPELINE_FAILING, EventType.PIPELINE_RECOVERED
STREAM = b"pipeline"
OPEN_HEAD, OVER_HEAD = "✕ Sales agent keeps failing", "✓ Sales agent recovered after 41 m (7 failed)"
FAILURE = "✕ Sales agent failed at Greeting"
DAY_S = 86_400


class SlackRig(Rig):
    """A worker of a Slack app, whose pipeline has events."""

    before = 0

    def __init__(self, url: str, slack: FakeSlack) -> None:
        super().__init__(cast("Path", url))  # a store of either kind is opened by its URL
        self.slack = slack

    async def open(self, **more: object) -> None:
        self.settings = SlackBotSettings.model_validate(self.slack.block(rate_limit="1000/s", **more))
        context = SinkContext(
            self.clock,
            take_slot=lambda: self.worker.take_slot(),  # noqa: PLW0108 (it is there later)
            press=self._press,
            name="ops",
        )
        self.sink = cast("ScriptedSink", self.settings.open(context))
        await self.start(rules=self.settings.rules)

    async def kill(self) -> None:
        await super().kill()
        await self.sink.close()

    async def _press(self, press: Press) -> str | None:
        return await operator_of(self.real_store).press(press)

    async def emit(self, delivery: Delivery, *, opens: bool = False, closes: bool = False) -> None:
        """Record an event of the pipeline, which may open or close its problem."""
        self.before += 1
        data = delivery.content["data"]
        event = Event(
            uuid5(NAMESPACE, str(self.before)),
            EventType(delivery.type),
            STREAM,
            self.before,
            delivery.body,
            ordering_key=STREAM if "problem" in data else delivery.event_id.bytes,
            problem=UUID(PROBLEM) if "problem" in data else None,
            closes=closes,
            account=data["account"],
            pipeline=data["pipeline"]["id"],
        )
        problem = Problem(UUID(PROBLEM), FAILING, self.clock.now(), EventKey(STREAM, self.before if opens else 1))
        edge = ProblemChange(problem, self.clock.now() if closes else None, is_new=opens)
        group = self.settings.rules.group and self.settings.rules.group.group_of(event)
        entry = OutboxEntry(event, ("ops",), groups={"ops": group} if group else {})
        problems = (edge,) if opens or closes else ()
        change = SourceChange(
            self._account, self.before - 1, self.before, None, (entry,), problems, pipeline=PIPELINE, rules="{}"
        )
        await self.real_store.record(change)


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack() as slack:
        yield slack


@pytest.fixture
async def rig(url: str, slack: FakeSlack) -> AsyncIterator[SlackRig]:
    rig = SlackRig(url, slack)
    await rig.open()
    yield rig
    await rig.kill()


async def test_whoever_takes_over_after_a_kill_goes_on_with_the_same_message(rig: SlackRig, slack: FakeSlack) -> None:
    await rig.emit(sample(FAILING), opens=True)
    await rig.go(1.0)
    await rig.kill()
    await rig.open()
    await rig.emit(failed())
    await rig.go(1.0)
    assert slack.heads() == [OPEN_HEAD, f"  {FAILURE}"]
    await rig.kill()
    await rig.open()
    await rig.emit(sample(RECOVERED), closes=True)
    await rig.emit(failed())
    await rig.go(1.0)
    assert slack.heads() == [OVER_HEAD, f"  {FAILURE}", f"  {OVER_HEAD}", FAILURE]


async def test_a_kill_before_the_answer_is_written_repeats_the_message(rig: SlackRig, slack: FakeSlack) -> None:
    await rig.emit(sample(FAILING), opens=True)
    rig.store.broken.add("settle")
    await rig.go(1.0)
    await rig.kill()
    await rig.open()
    await rig.emit(sample(RECOVERED), closes=True)
    await rig.go(1.0)
    assert slack.heads() == [OPEN_HEAD, OVER_HEAD, f"  {OVER_HEAD}"]


@pytest.mark.ci
@pytest.mark.parametrize("group", [None, {"wait": "30s"}])
async def test_after_a_day_without_slack_everything_is_said_and_nothing_stays_open(
    rig: SlackRig, slack: FakeSlack, group: dict[str, Any] | None
) -> None:
    await rig.kill()
    await rig.open(group=group)
    slack.down = True
    with capture_logs() as logs:
        await rig.emit(sample(FAILING), opens=True)
        for hour in range(24):
            await rig.emit(failed(hour))
            await rig.go(DAY_S / 24)
        await rig.emit(sample(RECOVERED), closes=True)
        assert not slack.messages
        slack.down = False
        for _ in range(40):
            await rig.go(5.0)
    over = [message for message in slack.posted() if message.lines[0] == OVER_HEAD]
    assert len(over) == 1
    assert over[0].earlier[0]["text"].startswith(OPEN_HEAD)
    assert slack.heads().count(f"  {OVER_HEAD}") == 1
    failures = [head for head in slack.heads() if " failed " in head and OVER_HEAD not in head]
    assert len(failures) in ([24] if group is None else [1, 2])  # perhaps the one that was tried, then the rest
    assert (await backlog_of(rig.real_store)).get("ops") is None
    assert TOKEN not in json.dumps(logs)


TAKEN = "◆ Acknowledged by ann: Sales agent keeps failing"


@pytest.fixture
async def pressed(rig: SlackRig, slack: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> SlackRig:
    """A rig with buttons, and one open problem."""
    monkeypatch.setattr(slack_buttons, "OPEN_EVERY_S", 0.01)
    slack.again_s = 0.2
    await rig.kill()
    await open_again(rig, slack)
    await rig.emit(sample(FAILING), opens=True)
    await rig.go(1.0)
    return rig


async def open_again(rig: SlackRig, slack: FakeSlack) -> None:
    await rig.open(app_token=APP_TOKEN)
    await slack.until(lambda: len(slack.sockets) == 1)


async def test_a_problem_is_acknowledged_and_given_back_in_slack(pressed: SlackRig, slack: FakeSlack) -> None:
    assert (slack.heads(), slack.buttons()) == ([OPEN_HEAD], ["Acknowledge"])
    for _ in range(2):
        await slack.pressed()
        await pressed.go(1.0)
        assert (slack.heads()[0], slack.buttons()) == (TAKEN, ["Give back"])
        await slack.pressed(user="bob")
        await pressed.go(1.0)
        assert (slack.heads()[0], slack.buttons()) == (OPEN_HEAD, ["Acknowledge"])
    assert slack.heads()[1:] == [f"  {TAKEN}"] * 2
    assert slack.answers == []
    await pressed.emit(sample(RECOVERED), closes=True)
    await pressed.go(1.0)
    assert (slack.heads()[0], slack.buttons()) == (OVER_HEAD, [])


@on_both
async def test_a_press_acts_once_whoever_presses_and_however_often_it_comes(
    pressed: SlackRig, slack: FakeSlack
) -> None:
    first = slack.payload()
    await asyncio.gather(*(slack.pressed(first) for _ in range(5)))
    await slack.pressed(user="bob")
    await slack.until(lambda: bool(slack.answers))
    assert slack.answers == [("bob", "ann has acknowledged it.")]
    await pressed.go(1.0)
    second = slack.payload(user="bob")
    await asyncio.gather(*(slack.pressed(second) for _ in range(5)))
    await pressed.go(1.0)
    await slack.pressed(first)  # Slack may send it again long after
    await slack.until(lambda: len(slack.answers) == 2)
    assert slack.answers[1] == ("ann", "That message was out of date. Press again.")
    await pressed.go(1.0)
    assert slack.heads() == [OPEN_HEAD, f"  {TAKEN}"]
    assert slack.buttons() == ["Acknowledge"]


async def test_a_press_on_what_has_closed_changes_nothing_and_says_so(pressed: SlackRig, slack: FakeSlack) -> None:
    late = slack.payload()
    await pressed.emit(sample(RECOVERED), closes=True)
    await slack.pressed(late)
    await slack.until(lambda: bool(slack.answers))
    assert slack.answers == [("ann", CLOSED)]
    await pressed.go(1.0)
    assert slack.heads() == [OVER_HEAD, f"  {OVER_HEAD}"]


async def test_a_press_in_a_channel_without_the_problem_s_message_is_ignored(
    pressed: SlackRig, slack: FakeSlack
) -> None:
    await slack.pressed(slack.payload(channel={"id": OTHER_CHANNEL}))
    unknown = [{"action_id": "acknowledge", "value": f"{'0' * 32}.0"}]
    await slack.pressed(slack.payload(actions=unknown))
    await pressed.go(1.0)
    assert (slack.heads(), slack.buttons(), slack.answers) == ([OPEN_HEAD], ["Acknowledge"], [])


async def test_a_press_before_the_message_is_in_the_store_comes_again(pressed: SlackRig, slack: FakeSlack) -> None:
    sink_id, place = await pressed.real_store.number_of(Source("sink", "ops")), MessagePlace(CHANNEL, slack.button()[0])

    async def know(place: MessagePlace | None) -> None:
        message = ProblemMessage(UUID(PROBLEM), place)
        await pressed.real_store.write(lambda connection: write_messages(connection, sink_id, [message]))

    await know(None)
    id_ = await slack.press()
    await slack.until(lambda: slack.sent_counts[id_] == 2)
    assert id_ in slack.unconfirmed
    await know(place)
    await slack.until(lambda: id_ in slack.confirmed)
    await pressed.go(1.0)
    assert slack.heads()[0] == TAKEN


async def test_what_somebody_gives_back_elsewhere_is_shown_in_slack(pressed: SlackRig, slack: FakeSlack) -> None:
    operator = operator_of(pressed.real_store)
    assert await operator.acknowledge(UUID(PROBLEM), by="ann", comment=None, until=None)
    await pressed.go(1.0)
    assert (slack.heads()[0], slack.buttons()) == (TAKEN, ["Give back"])
    assert await operator.unacknowledge(UUID(PROBLEM))
    await pressed.go(1.0)
    assert (slack.heads()[0], slack.buttons()) == (OPEN_HEAD, ["Acknowledge"])


async def test_a_message_that_missed_an_acknowledgement_which_has_expired_is_shown_again(
    pressed: SlackRig, slack: FakeSlack
) -> None:
    slack.down = True
    until = pressed.clock.now() + timedelta(seconds=30)
    assert await operator_of(pressed.real_store).acknowledge(UUID(PROBLEM), by="bob", comment=None, until=until)
    await pressed.go(60.0)
    slack.down = False
    await pressed.go(60.0)
    await slack.pressed()
    await slack.until(lambda: bool(slack.answers))
    assert slack.answers == [("ann", "That message was out of date. Press again.")]
    await pressed.go(1.0)
    await slack.pressed()
    await pressed.go(1.0)
    assert (slack.heads()[0], slack.buttons()) == (TAKEN, ["Give back"])


async def test_a_press_over_a_kill_acts_once(pressed: SlackRig, slack: FakeSlack) -> None:
    await pressed.kill()
    id_ = await slack.press()
    await open_again(pressed, slack)
    await slack.until(lambda: id_ in slack.confirmed)
    await pressed.go(1.0)
    assert (slack.heads(), slack.buttons()) == ([TAKEN, f"  {TAKEN}"], ["Give back"])
