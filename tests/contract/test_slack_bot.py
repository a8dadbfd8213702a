"""A Slack app with its worker, store and Slack: the message of a problem stays the same one, whatever happens."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid5

import pytest
from fake_slack import TOKEN, FakeSlack
from sample_events import PIPELINE, PROBLEM, failed, sample
from structlog.testing import capture_logs
from worker_rig import NAMESPACE, FakeClock, Rig, ScriptedSink

from watcher.domain.delivery import Delivery
from watcher.domain.event import Event, EventKey, EventType, OutboxEntry
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.rules import RuleState
from watcher.sinks.protocol import SinkContext
from watcher.sinks.slack_bot import SlackBotSettings
from watcher.store.changes import SourceChange

FAILING, RECOVERED = EventType.PIPELINE_FAILING, EventType.PIPELINE_RECOVERED
STREAM = b"pipeline"
OPEN_HEAD, OVER_HEAD = "✕ Sales agent keeps failing", "✓ Sales agent recovered after 41 m (7 failed)"
FAILURE = "✕ Sales agent failed at Greeting"
DAY_S = 86_400


class SlackRig(Rig):
    """A worker of a Slack app, whose pipeline has events."""

    def __init__(self, url: str, slack: FakeSlack, clock: FakeClock, *, before: int = 0, **more: object) -> None:
        super().__init__(cast("Path", url))  # a store of either kind is opened by its URL
        self.clock = clock
        self.before = before
        self.settings = SlackBotSettings.model_validate(slack.block(rate_limit="1000/s", **more))

    async def open(self) -> None:
        context = SinkContext(self.clock, take_slot=lambda: self.worker.take_slot())  # noqa: PLW0108 (it is there later)
        self.sink = cast("ScriptedSink", self.settings.open(context))
        await self.start(rules=self.settings.rules)

    async def kill(self) -> None:
        await super().kill()
        await self.sink.close()

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
            lane=STREAM if "problem" in data else delivery.event_id.bytes,
            problem=UUID(PROBLEM) if "problem" in data else None,
            closes=closes,
            account=data["account"],
            pipeline=data["pipeline"]["id"],
        )
        problem = Problem(UUID(PROBLEM), FAILING, self.clock.now(), EventKey(STREAM, self.before if opens else 1))
        edge = ProblemChange(problem, self.clock.now() if closes else None, is_new=opens)
        group = self.settings.rules.group and self.settings.rules.group.group_of(event)
        entry, state = OutboxEntry(event, ("ops",), groups={"ops": group} if group else {}), RuleState()
        problems = (edge,) if opens or closes else ()
        change = SourceChange(
            self._account, self.before - 1, self.before, None, (entry,), problems, pipeline=PIPELINE, rules=state
        )
        await self.real_store.record(change)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack() as slack:
        yield slack


async def test_whoever_takes_over_after_a_kill_goes_on_with_the_same_message(
    url: str, slack: FakeSlack, clock: FakeClock
) -> None:
    first = SlackRig(url, slack, clock)
    await first.open()
    await first.emit(sample(FAILING), opens=True)
    await first.go(1.0)
    await first.kill()
    second = SlackRig(url, slack, clock, before=first.before)
    await second.open()
    await second.emit(failed())
    await second.go(1.0)
    assert slack.heads() == [OPEN_HEAD, f"  {FAILURE}"]
    await second.kill()
    third = SlackRig(url, slack, clock, before=second.before)
    await third.open()
    await third.emit(sample(RECOVERED), closes=True)
    await third.emit(failed())
    await third.go(1.0)
    assert slack.heads() == [OVER_HEAD, f"  {FAILURE}", f"  {OVER_HEAD}", FAILURE]
    await third.kill()


async def test_a_kill_before_the_answer_is_written_repeats_the_message_and_goes_on_with_the_last(
    url: str, slack: FakeSlack, clock: FakeClock
) -> None:
    first = SlackRig(url, slack, clock)
    await first.open()
    await first.emit(sample(FAILING), opens=True)
    first.store.broken.add("settle")
    await first.go(1.0)
    await first.kill()
    second = SlackRig(url, slack, clock, before=first.before)
    await second.open()
    await second.emit(sample(RECOVERED), closes=True)
    await second.go(1.0)
    assert slack.heads() == [OPEN_HEAD, OVER_HEAD, f"  {OVER_HEAD}"]
    await second.kill()


@pytest.mark.parametrize("group", [None, {"wait": "30s"}])
async def test_after_a_day_without_slack_everything_is_said_and_nothing_stays_open(
    url: str, slack: FakeSlack, clock: FakeClock, group: dict[str, Any] | None
) -> None:
    rig = SlackRig(url, slack, clock, group=group)
    await rig.open()
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
    assert len(failures) == (24 if group is None else 2)  # what was due with the one that was tried, then the rest
    assert (await rig.real_store.backlog()).get("ops") is None
    assert TOKEN not in json.dumps(logs)
    await rig.kill()


async def test_a_channel_that_refuses_says_what_to_do_and_is_tried_until_it_takes_it(
    url: str, slack: FakeSlack, clock: FakeClock
) -> None:
    rig = SlackRig(url, slack, clock)
    await rig.open()
    members, slack.members = slack.members, set()
    await rig.emit(sample(FAILING), opens=True)
    with capture_logs() as logs:
        await rig.go(1.0)
    (warning,) = [log for log in logs if log["event"] == "delivery.failed"]
    assert (warning["answer"], warning["remedy"]) == (
        "not_in_channel",
        "invite the app to the channel: /invite @its-name",
    )
    slack.members = members
    await rig.go(60.0)
    assert slack.heads() == [OPEN_HEAD]
    await rig.kill()


async def test_what_is_refused_takes_no_more_than_the_rate_and_is_a_dead_letter_in_the_end(
    url: str, slack: FakeSlack, clock: FakeClock
) -> None:
    rig = SlackRig(url, slack, clock)
    rig.settings = SlackBotSettings.model_validate(slack.block(rate_limit="1/s"))
    await rig.open()
    slack.says.extend(["invalid_blocks"] * 100)
    for number in range(5):
        await rig.emit(failed(number))
    counts = []
    for _ in range(400):
        await rig.go(1.0)
        counts.append(len(slack.calls))
    backlog = (await rig.real_store.backlog()).get("ops")
    await rig.kill()
    assert all(count <= second + 1 for second, count in enumerate(counts, start=1))
    assert (counts[-1], backlog) == (5 * 5, None)  # each whole message once, then its minimal form
