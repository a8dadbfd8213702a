"""A Slack app with its worker, store and Slack: the message of a problem stays the same one, whatever happens."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid5

import pytest
from fake_slack import TOKEN, FakeSlack
from sample_events import PIPELINE, PROBLEM, failed, sample
from stores import backlog_of
from structlog.testing import capture_logs
from worker_rig import NAMESPACE, Rig, ScriptedSink

from watcher.domain.delivery import Delivery
from watcher.domain.event import Event, EventKey, EventType, OutboxEntry
from watcher.domain.problems import Problem, ProblemChange
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

    before = 0

    def __init__(self, url: str, slack: FakeSlack) -> None:
        super().__init__(cast("Path", url))  # a store of either kind is opened by its URL
        self.slack = slack

    async def open(self, **more: object) -> None:
        self.settings = SlackBotSettings.model_validate(self.slack.block(rate_limit="1000/s", **more))
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
