"""A sink of each kind that is down for a day and back: everything arrives, and no other sink was late."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, cast
from uuid import UUID

import pytest
from contract.test_webhook_answers import KINDS as HTTP_KINDS
from contract.test_webhook_answers import MESSAGE
from fake_slack import FakeSlack
from receiver import Receiver, answer, resets
from sample_events import PROBLEM, data_of, sample
from worker_rig import FakeClock, Rig, ScriptedSink

from watcher.domain.event import Event, EventKey, EventType, OutboxEntry
from watcher.domain.problems import Problem, ProblemChange
from watcher.sinks.apprise import AppriseSettings
from watcher.sinks.protocol import SinkContext
from watcher.sinks.settings import RemoteSettings
from watcher.sinks.slack_bot import SlackBotSettings
from watcher.sinks.webhook import WebhookSettings

pytestmark = pytest.mark.untraced  # three times as long with coverage, and others run the same lines

KINDS: Mapping[str, Mapping[str, Any]] = {**HTTP_KINDS, "apprise": {"type": "apprise"}}
SETTINGS: Mapping[str, type[RemoteSettings]] = {"slack_bot": SlackBotSettings, "apprise": AppriseSettings}

DAY_S, EVERY_S = 86_400, 1200
EVENTS_COUNT = DAY_S // EVERY_S
EXECUTIONS_COUNT = 6
"""So many executions take turns, so that each has its next event two hours later."""

ABOUT_A_MINUTE_S = 76
"""As long as it takes at worst until all that waits may go; the pace comes on top."""

FAILING, RECOVERED = EventType.PIPELINE_FAILING, EventType.PIPELINE_RECOVERED
COURSE = (EventType.EXECUTION_RUNNING, EventType.EXECUTION_PAUSED, EventType.EXECUTION_FAILED)
PIPELINE_STREAM = b"pipeline"

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Target(Protocol):
    """Where a sink sends to."""

    url: str

    def fail(self, *, by_reset: bool) -> None:
        """Take nothing: answer 503, or break the connection."""
        ...

    def work(self) -> None:
        """Take everything."""
        ...

    def taken(self) -> list[str]:
        """Return what was taken, in that order."""
        ...


class HookTarget:
    """A receiver of HTTP requests."""

    def __init__(self, receiver: Receiver, *, url: str, says: bytes = b"ok") -> None:
        self.url = url
        self._receiver = receiver
        self._says = says
        self._taken: list[str] = []
        self.work()

    def fail(self, *, by_reset: bool) -> None:
        self._receiver.reply = resets if by_reset else self._refuse

    def work(self) -> None:
        self._receiver.reply = self._take

    def taken(self) -> list[str]:
        return self._taken

    async def _take(self, writer: asyncio.StreamWriter) -> None:
        request = self._receiver.requests[-1]
        self._taken.append(f"{request.headers.get('webhook-id')} {request.body.decode()}")
        writer.write(answer(200, body=self._says))

    @staticmethod
    async def _refuse(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(503))


class SlackTarget:
    """A workspace of Slack."""

    def __init__(self, slack: FakeSlack) -> None:
        self.url = slack.url
        self._slack = slack

    def fail(self, *, by_reset: bool) -> None:
        self._slack.down, self._slack.resets = not by_reset, by_reset

    def work(self) -> None:
        self._slack.down = self._slack.resets = False

    def taken(self) -> list[str]:
        return [json.dumps(each) for it in self._slack.messages.values() for each in (*it.earlier, it.content)]


@asynccontextmanager
async def target_of(kind: str) -> AsyncIterator[Target]:
    if kind == "slack_bot":
        async with FakeSlack() as slack:
            yield SlackTarget(slack)
        return
    async with Receiver() as receiver:
        url = f"json://127.0.0.1:{receiver.port}" if kind == "apprise" else receiver.url
        yield HookTarget(receiver, url=url, says=MESSAGE if kind == "discord" else b"ok")


def settings_of(kind: str, url: str) -> RemoteSettings:
    return SETTINGS.get(kind, WebhookSettings).model_validate({"type": "webhook", "url": url, **KINDS[kind]})


def open_sink(rig: Rig, settings: RemoteSettings) -> None:
    """Give a rig a real sink."""
    context = SinkContext(rig.clock, take_slot=lambda: rig.worker.take_slot())  # noqa: PLW0108 (it is there later)
    rig.sink = cast("ScriptedSink", settings.open(context))


def course_of_a_day() -> Iterator[Event]:
    """Yield the events of executions, each of which runs, is paused and fails."""
    for number in range(EVENTS_COUNT):
        turn, index = divmod(number, EXECUTIONS_COUNT)
        lap, step = divmod(turn, len(COURSE))
        execution = lap * EXECUTIONS_COUNT + index
        sent = sample(COURSE[step], number=number, data=data_of(COURSE[step], execution))
        yield Event(
            sent.event_id,
            COURSE[step],
            b"execution %d" % execution,
            step + 1,
            sent.body,
            b"execution %d" % execution,
            account=sent.content["data"]["account"],
            pipeline=sent.content["data"]["pipeline"]["id"],
        )


class World:
    """A sink of some kind, `ops`, and a plain webhook that always works, `other`: both are sent every event."""

    def __init__(self, path: Path, target: Target, beside: Target) -> None:
        self.target, self.beside = target, beside
        self.ops, self.other = Rig(path), Rig(path, name="other")
        self.clock: FakeClock = self.ops.clock
        self.recorded: list[Event] = []
        self.late: list[Event] = []

    async def start(self, kind: str) -> None:
        settings, plain = settings_of(kind, self.target.url), settings_of("plain", self.beside.url)
        self.rate_per_s = settings.rules.rate_per_s
        open_sink(self.ops, settings)
        await self.ops.start(rules=settings.rules)
        self.other.clock = self.clock
        open_sink(self.other, plain)
        await self.other.start_beside(self.ops, rules=plain.rules)

    async def stop(self) -> None:
        await self.other.worker.cancel()
        await self.ops.stop()
        for rig in (self.ops, self.other):
            await rig.sink.close()

    async def record(self, event: Event, *problems: ProblemChange) -> None:
        """Record an event, and do at once what both workers have to do."""
        group = self.ops.rules.group and self.ops.rules.group.group_of(event)
        await self.ops.write(
            OutboxEntry(event, ("ops", "other"), groups={"ops": group} if group else {}), problems=problems
        )
        self.recorded.append(event)
        await self.pass_by(0)
        if str(event.id) not in self.beside.taken()[-1]:
            self.late.append(event)

    async def pass_by(self, s: float) -> None:
        """Let time pass for both workers."""
        self.clock.passed_s += s
        await asyncio.gather(self.ops.go(), self.other.go())

    async def open_problem(self) -> None:
        self.problem = Problem(UUID(PROBLEM), FAILING, self.clock.now(), EventKey(PIPELINE_STREAM, 1))
        sent = sample(FAILING)
        event = Event(sent.event_id, FAILING, PIPELINE_STREAM, 1, sent.body, PIPELINE_STREAM, problem=UUID(PROBLEM))
        await self.record(event, ProblemChange(self.problem, None, is_new=True))

    async def close_problem(self) -> None:
        sent = sample(RECOVERED)
        event = Event(
            sent.event_id, RECOVERED, PIPELINE_STREAM, 2, sent.body, PIPELINE_STREAM, UUID(PROBLEM), closes=True
        )
        await self.record(event, ProblemChange(self.problem, self.clock.now(), is_new=False))

    async def until_nothing_waits(self, *, within_s: float) -> None:
        """Go on as the daemon's clock would."""
        until_s = self.clock.passed_s + within_s
        while (await self.ops.real_store.backlog()).get("ops") is not None:
            assert self.clock.passed_s <= until_s, "something still waits"
            self.clock.passed_s += max(0.002, await self.ops.go())

    def arrived(self, target: Target) -> dict[str, int]:
        """Return the ids of what arrived, and as the how-manieth each came first."""
        ids = {str(event.id) for event in self.recorded}
        found = (id_ for text in target.taken() for id_ in _ID.findall(text) if id_ in ids)
        return {id_: number for number, id_ in enumerate(dict.fromkeys(found))}

    def order(self) -> dict[bytes, list[int]]:
        """Return as the how-manieth the events of each stream came at the sink that was down."""
        arrived = self.arrived(self.target)
        order: dict[bytes, list[int]] = {}
        for event in self.recorded:
            order.setdefault(event.stream, []).append(arrived[str(event.id)])
        return order


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.mark.parametrize("kind", KINDS)
async def test_after_a_day_down_everything_arrives_in_order_and_no_other_sink_was_late(
    kind: str, tmp_path: Path
) -> None:
    async with target_of(kind) as target, target_of("plain") as beside:
        world = World(tmp_path / "watcher.db", target, beside)
        await world.start(kind)
        await world.pass_by(60)
        await world.open_problem()
        await world.pass_by(60)
        assert len(world.arrived(target)) == 1
        for number, event in enumerate(course_of_a_day()):
            target.fail(by_reset=number % 2 == 1)
            world.clock.passed_s += EVERY_S
            await world.record(event)
            await world.ops.worker.flush()
            if number == EVENTS_COUNT // 2:
                await world.close_problem()
        assert len(world.arrived(target)) == 1
        target.work()
        await world.until_nothing_waits(within_s=ABOUT_A_MINUTE_S + len(world.recorded) / world.rate_per_s)
        assert all(numbers == sorted(numbers) for numbers in world.order().values())
        assert world.late == []
        assert (world.ops.counted("dead"), world.other.counted("dead")) == (0, 0)
        assert [type_ for type_, _ in world.ops.emitted] == [EventType.SINK_FAILING, EventType.SINK_RECOVERED]
        assert world.other.emitted == []
        assert (world.ops.ends, world.other.ends) == ([], [])
        await world.stop()
