"""What people ask of a running daemon, over a real store and real sockets; it looks when the test says."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from receiver import answer, says
from sample_events import PIPELINE
from stores import held, operator_of
from structlog.testing import capture_logs
from supervision import A, Setup, set_up
from virtual import FakeClock

from watcher.config.models import Settings
from watcher.daemon.operations import Operations
from watcher.daemon.reload import ConfigFollower
from watcher.domain.errors import StoreError
from watcher.store.operator_store import OperatorStore
from watcher.store.sql_store import SqlStore

TEAM = {"labels": {"team": "sales"}}


class Rig:
    """The owners of one process, and what people do with it."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.operator = operator_of(setup.store)
        self.operations: Any = None

    async def run(self, *, sinks: dict[str, Any], whole: bool = False, **more: Any) -> None:
        """Go by this configuration from now on."""
        setup = self.setup
        watch = {"account": "a", "pipeline": PIPELINE} | ({} if whole else {"executions": [A]})
        accounts = {"a": setup.account()}
        settings = Settings.model_validate({"accounts": accounts, "watch": [watch], "sinks": sinks, **more})
        follower = ConfigFollower(None, settings, metrics=setup.metrics, clock=setup.clock, fatal=setup.fatal.append)
        if self.operations is None:
            self.operations = Operations(setup.shared, setup.supervisor, follower)
        self.follower = self.operations._follower = follower
        await setup.supervisor.apply(settings)

    async def silence(self, match: dict[str, Any] | str = TEAM, *, for_s: float = 60.0, comment: str = "") -> int:
        match, now = match if isinstance(match, str) else json.dumps(match), self.setup.clock.now()
        ends_at = now + timedelta(seconds=for_s)
        made = await self.operator.add_silence(match, starts_at=now, ends_at=ends_at, by=None, comment=comment)
        return int(made.id)

    def silenced(self, *sinks: str) -> list[bool]:
        silences = self.setup.shared.silences
        return [bool(silences.active(sink, at=self.setup.clock.now())) for sink in sinks]

    async def said(self) -> list[tuple[str, str | None]]:
        """Look once; return what the log says of silences then."""
        with capture_logs() as logs:
            await self.operations.tick()
        return [(line["event"], line.get("comment")) for line in logs if line["event"].startswith("silence")]


@pytest.fixture
async def rig(store: SqlStore, clock: FakeClock) -> AsyncIterator[Rig]:
    async with set_up(store, clock, Setup) as setup:
        yield Rig(setup)


async def test_a_stored_silence_holds_from_the_next_look_on_through_reloads_until_it_ends(rig: Rig) -> None:
    ops = rig.setup.webhook()
    await rig.run(sinks={"ops": ops, "out": {"type": "stdout"}})
    await rig.silence(for_s=60)
    assert rig.silenced("ops") == [False]
    await rig.operations.tick()
    assert rig.silenced("ops", "out") == [True, False]
    await rig.run(sinks={"ops": ops, "more": rig.setup.webhook()})
    assert rig.silenced("ops", "more") == [True, True]
    rig.setup.clock.advance(60)
    assert rig.silenced("ops") == [False]
    number = await rig.silence({"sinks": ["more"]})
    await rig.operations.tick()
    assert rig.silenced("ops", "more") == [False, True]
    await rig.operator.end_silence(number)
    await rig.operations.tick()
    assert rig.silenced("more") == [False]


async def test_silences_are_known_first_and_while_the_store_is_away(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.run(sinks={})
    await rig.silence()
    await rig.operations.read_silences()
    await rig.run(sinks={"ops": rig.setup.webhook()})
    assert rig.silenced("ops") == [True]

    async def broken(_: object) -> None:
        raise StoreError("broken by the test")

    with monkeypatch.context() as patch:
        for name in ("silences", "load_actions"):
            patch.setattr(OperatorStore, name, broken)
        await rig.operations.tick()
    assert rig.silenced("ops") == [True]


async def test_the_log_says_when_a_silence_begins_and_ends_once(rig: Rig) -> None:
    begin = rig.setup.clock.now() + timedelta(seconds=10)
    file = {"from": begin.isoformat(), "until": (begin + timedelta(seconds=20)).isoformat()}
    silences = [{"match": {"events": ["execution.*"]}, "comment": "shop closed", **file}]
    await rig.run(sinks={}, silences=silences)
    assert await rig.said() == []
    await rig.silence(for_s=15, comment="deploy")
    assert await rig.said() == [("silence.began", "deploy")]
    assert await rig.said() == []
    rig.setup.clock.advance(10)
    assert await rig.said() == [("silence.began", "shop closed")]
    rig.setup.clock.advance(5)
    assert await rig.said() == [("silence.ended", "deploy")]
    await rig.run(sinks={})
    assert await rig.said() == [("silence.ended", "shop closed")]


async def test_a_silence_of_a_later_version_is_passed_over_and_said_once(rig: Rig) -> None:
    await rig.run(sinks={"ops": rig.setup.webhook()})
    await rig.silence({"events": ["goal.missed"]})
    assert await rig.said() == [("silence.unreadable", None)]
    assert await rig.said() == []
    await rig.silence()
    await rig.operations.tick()
    assert rig.silenced("ops") == [True]


async def test_a_list_is_read_once_for_all_who_asked(rig: Rig) -> None:
    page = b'{"data": [], "total": 0}'
    rig.setup.api.reply = says(answer(200, body=page))
    await rig.run(sinks={}, whole=True)
    await rig.setup.poll()
    await rig.setup.watcher().drain()  # of its first scan
    rig.setup.watcher()._draining = False
    for is_asked in (False, True):
        if is_asked:
            await rig.operator.request_action("scan", f"a/{PIPELINE}")
        await rig.operations.tick()
        rig.setup.clock.advance(0.3)
        await rig.setup.watcher().tick()
        assert bool(rig.setup.watcher()._in_flight_count) == is_asked
    assert "page=1" in await rig.setup.api.asked()
    assert await rig.operator.load_actions() == []


async def test_a_disabled_sink_is_enabled_where_it_is_owned(rig: Rig) -> None:
    rig.setup.hook.reply = says(answer(410))
    await rig.run(sinks={"ops": rig.setup.webhook()})
    await rig.setup.record()
    sent = await rig.setup.deliver()
    rig.setup.hook.reply = says(answer(204))
    while rig.setup.metrics.total("watcher_sink_up", sink="ops"):
        await rig.setup.worker().tick()
        await asyncio.sleep(0)  # the answer is read in between
    await rig.operator.request_action("enable", "ops")
    await rig.operations.tick()
    assert await rig.operator.load_actions() == []
    assert await rig.setup.deliver() == sent


async def test_what_another_replica_owns_is_left_to_it(rig: Rig) -> None:
    await rig.run(sinks={"ops": rig.setup.webhook()})
    asked = [("enable", "ops"), ("scan", f"a/{PIPELINE}")]
    for kind, name in asked:
        await rig.operator.request_action(kind, name)  # type: ignore[arg-type] # as it is
    rig.setup.supervisor.parts = list  # type: ignore[method-assign]
    await rig.operations.tick()
    assert await rig.operator.load_actions() == asked


@pytest.mark.parametrize(("status", "delivered"), [(204, True), (404, False)])
async def test_a_sink_is_sent_a_test_message(rig: Rig, status: int, delivered: bool) -> None:
    rig.setup.hook.reply = says(answer(status))
    away = {"type": "webhook", "url": "http://127.0.0.1:1/in"}
    await rig.run(sinks={"ops": rig.setup.webhook(), "away": away, "out": {"type": "stdout", "format": "json"}})
    result = await rig.operations.test_sink("ops")
    assert (result.delivered, result.answer) == (delivered, str(status))
    assert b'"watcher.test"' in rig.setup.hook.receiver.requests[-1].body
    unreached = await rig.operations.test_sink("away")
    assert (unreached.delivered, bool(unreached.answer)) == (False, True)
    assert (await rig.operations.test_sink("out")).delivered


async def test_a_store_that_takes_no_writes_and_a_refused_configuration_are_troubles(rig: Rig, path: Path) -> None:
    await rig.run(sinks={})
    assert rig.operations.troubles() == []
    rig.follower._reject(["watcher.yaml:3:1: sinks: is wrong", "watcher.yaml:9:1: watch: is wrong"])
    with held(path), pytest.raises(StoreError):
        await rig.operator.end_silence(1)
    rig.setup.clock.advance(5)
    rig.follower._reject(["watcher.yaml:3:1: sinks: is wrong", "watcher.yaml:9:1: watch: is wrong"])
    store, config = rig.operations.troubles()
    since = rig.setup.clock.now() - timedelta(seconds=5)
    assert (store.kind, store.since, "is locked by another program" in store.reason) == ("store", since, True)
    assert (config.kind, config.since, config.count) == ("config", since, 2)
    assert config.reason == "watcher.yaml:3:1: sinks: is wrong"


async def test_that_problems_were_acknowledged_is_counted(rig: Rig) -> None:
    await rig.run(sinks={})
    console = rig.operations.console()
    assert console.settings() is rig.follower.settings
    console.operator.on_acknowledged(3)
    assert rig.setup.metrics.total("watcher_events_total", type="problem.acknowledged") == 3
