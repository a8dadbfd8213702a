"""The owners over a real store and real sockets; their rounds run when the test says."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from receiver import Receiver, Reply, answer, hangs, says
from stores import source_change
from structlog.testing import capture_logs
from virtual import PIPELINE, FakeClock

from watcher.config.models import Settings
from watcher.daemon.build import Bells, Equipment
from watcher.daemon.supervisor import Owners
from watcher.delivery.sinks.stdout import StdoutOutput
from watcher.delivery.worker import SinkLane
from watcher.domain.errors import ConfigError, OwnershipLostError, StoreError
from watcher.domain.event_factory import EventFactory
from watcher.domain.models import EventType
from watcher.domain.routing import Router
from watcher.polling.account_poller import AccountWatcher
from watcher.runtime.backpressure import Backpressure
from watcher.runtime.metrics import Metrics
from watcher.runtime.scheduler import Round, Schedule
from watcher.store.sql_store import SqlStore

A, B = (f"9a1b0000-0000-4000-8000-00000000000{digit}" for digit in "ab")
LONG_S = 10.0
"""Nothing here takes as long unless it never ends."""

Block = dict[str, object]


class Endpoint:
    """An API or a webhook on a real socket, which says when it is asked."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.receiver = Receiver(self._reply)
        self._asked: asyncio.Queue[str] = asyncio.Queue()

    @property
    def quiet(self) -> bool:
        """Whether nobody asked since."""
        return self._asked.empty()

    async def asked(self) -> str:
        """Return the path of the next request, of one to a webhook the event's id."""
        async with asyncio.timeout(LONG_S):
            return await self._asked.get()

    async def _reply(self, writer: asyncio.StreamWriter) -> None:
        request = self.receiver.requests[-1]
        self._asked.put_nowait(request.headers.get("webhook-id") or request.line.split()[1])
        await self.reply(writer)


class NotedSchedule(Schedule):
    """Says which rounds are added. It is not started: nothing runs by itself."""

    def __init__(self, **parts: Any) -> None:  # noqa: ANN401 (those of a schedule)
        super().__init__(**parts)
        self._added: asyncio.Queue[str] = asyncio.Queue()

    def add(self, name: str, run: Round) -> None:
        super().add(name, run)
        self._added.put_nowait(name)

    async def added(self) -> str:
        """Return which round was added next."""
        async with asyncio.timeout(LONG_S):
            return await self._added.get()


class House:
    """The owners of one process and all they work with."""

    def __init__(self, store: SqlStore, clock: FakeClock, output: StdoutOutput) -> None:
        self.store = store
        self.clock = clock
        self.api = Endpoint(says(answer(404)))
        self.hook = Endpoint(says(answer(204)))
        self.metrics = Metrics()
        self.router = Router({})
        self.fatal: list[BaseException] = []
        fatal = self.fatal.append
        self.schedule = NotedSchedule(clock=clock, fatal=fatal, lag=lambda _lag_s: None)
        events = EventFactory(self.router)
        equipment = Equipment(store, clock, self.metrics, events, self.schedule, Backpressure(), fatal, Bells(), output)
        self.owners = Owners(equipment, drain_s=LONG_S)

    def account(self, **more: object) -> Block:
        return {"api_key": "k", "base_url": self.api.receiver.url, "timeout": "60s", **more}

    def webhook(self, **more: object) -> Block:
        return {"type": "webhook", "url": f"{self.hook.receiver.url}/in", "timeout": "60s", **more}

    async def apply(
        self, accounts: dict[str, Block] | None = None, *, watched: str = A, **more: dict[str, Any]
    ) -> None:
        """Apply a configuration of these accounts, the first of which watches an execution."""
        accounts = accounts or {"a": self.account()}
        watch = [{"account": next(iter(accounts)), "pipeline": PIPELINE, "executions": [watched]}]
        await self.owners.apply(Settings.model_validate({"accounts": accounts, "watch": watch, **more}))

    def rounds(self) -> set[str]:
        """Return what the daemon's clock would call."""
        return set(self.schedule.unborn())

    def named(self, label: str) -> set[str]:
        """Return whom the metrics name under that label."""
        samples = [sample for family in self.metrics.registry.collect() for sample in family.samples]
        return {sample.labels[label] for sample in samples if label in sample.labels}

    def watcher(self) -> AccountWatcher:
        (watcher,) = [part for part in self.owners.parts() if isinstance(part, AccountWatcher)]
        return watcher

    def lane(self) -> SinkLane:
        (lane,) = [part for part in self.owners.parts() if isinstance(part, SinkLane)]
        return lane

    async def look(self) -> str:
        """Let the watcher look; return what it asked for."""
        self.clock.advance(1.0)
        await self.watcher().round()
        return await self.api.asked()

    async def tell(self) -> None:
        """Record an event for the sink `ops`."""
        await self.store.record(source_change(await self.store.claim("account", "teller")))

    async def deliver(self) -> str:
        """Let the lane deliver what was told; return the event's id."""
        self.clock.advance(1.0)
        await self.lane().round()
        return await self.hook.asked()


@pytest.fixture
async def house(store: SqlStore, clock: FakeClock) -> AsyncIterator[House]:
    fd = os.open(os.devnull, os.O_WRONLY)
    output = StdoutOutput(fd)
    house = House(store, clock, output)
    async with house.api.receiver, house.hook.receiver:
        yield house
        house.owners._drain_s = 0.0
        await house.owners.stop()
    output.close()
    os.close(fd)
    assert house.fatal == []


class Slowly:
    """Answers once it is told to."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        await self.told.wait()
        await says(answer(204))(writer)


async def broken_off(applying: Coroutine[Any, Any, None], *, house: House, once_added: str) -> None:
    """Begin to apply a configuration, and break that off once it has added that round."""
    task = asyncio.create_task(applying)
    while await house.schedule.added() != once_added:
        pass
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def only_left(house: House, *, count: int) -> None:
    """Return once there are no more owners than that."""
    async with asyncio.timeout(LONG_S):
        while len(house.owners.parts()) > count:  # noqa: ASYNC110 (an owner that is gone sets no event)
            await asyncio.sleep(0)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Let another program hold the store meanwhile."""
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def refusing(path: Path, name: str) -> Iterator[None]:
    """Let the store give nobody the lease of that name meanwhile."""
    refused = f"BEFORE INSERT ON lease WHEN new.name = '{name}' BEGIN SELECT RAISE(ABORT, ''); END"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"CREATE TRIGGER refused {refused}")
        yield
        database.execute("DROP TRIGGER refused")


def served_s(path: Path) -> float:
    """Return for how long, as the store knows, the sink `ops` has been served."""
    with closing(sqlite3.connect(path)) as database:
        (clock_us,) = database.execute("SELECT clock_us FROM source WHERE kind = 'sink' AND name = 'ops'").fetchone()
        return float(clock_us) / 1e6


async def test_what_is_asked_for_is_owned_and_works(house: House) -> None:
    await house.apply(sinks={"ops": house.webhook()})
    assert house.rounds() == {"account:a", "sink:ops"}
    assert house.router.sinks_for(EventType.ACCOUNT_DEGRADED) == ("ops",)
    assert A in await house.look()
    await house.tell()
    assert await house.deliver()


async def test_what_another_process_owns_by_now_is_let_go_of_and_the_others_go_on(house: House) -> None:
    house.store.exclusive = False
    sinks = {"ops": house.webhook(), "more": house.webhook()}
    await house.apply({"a": house.account(), "b": house.account()}, sinks=sinks)
    house.api.reply = says(answer(200, body=f'{{"id": "{A}", "status": "running"}}'.encode()))
    await house.store.claim("account", "a")
    await house.store.claim("sink", "ops")
    await house.tell()
    with capture_logs() as logs:
        house.clock.advance(1.0)
        for name in sorted(house.rounds()):
            await house.schedule._loops[name].run()
        await only_left(house, count=2)
    assert house.rounds() == {"account:b", "sink:more"}
    lost = [entry for entry in logs if entry["event"] == "ownership.lost"]
    assert {(entry.get("account"), entry.get("sink")) for entry in lost} == {("a", None), (None, "ops")}
    assert len(lost) == 2


async def test_an_owner_that_finds_twice_that_it_lost_is_let_go_of_once(house: House) -> None:
    house.store.exclusive = False
    await house.apply(sinks={"ops": house.webhook()})
    await house.store.claim("sink", "ops")
    run = house.schedule._loops["sink:ops"].run
    with capture_logs() as logs:
        await asyncio.gather(run(), run())
        await only_left(house, count=1)
    assert house.rounds() == {"account:a"}
    assert [entry["event"] for entry in logs].count("ownership.lost") == 1


async def test_where_nobody_else_can_own_anything_what_is_lost_ends_the_daemon(house: House) -> None:
    await house.apply(sinks={"ops": house.webhook()})
    await house.store.claim("sink", "ops")
    await house.schedule._loops["sink:ops"].run()
    (error,) = house.fatal
    assert isinstance(error, OwnershipLostError)
    house.fatal.clear()


async def test_what_is_as_it_was_goes_on_undisturbed(house: House) -> None:
    await house.apply(sinks={"ops": house.webhook()})
    watcher, lane = house.watcher(), house.lane()
    await house.apply(sinks={"ops": house.webhook(rate_limit="9/s")})
    assert house.watcher() is watcher
    assert house.lane() is not lane


@pytest.mark.parametrize("more", [{"polling": {"max_interval": "50s"}}, {"store": {"retention": "29d"}}])
async def test_a_watcher_is_another_with_whatever_it_was_built_from(house: House, more: dict[str, Any]) -> None:
    await house.apply()
    watcher = house.watcher()
    await house.apply(**more)
    assert house.watcher() is not watcher
    assert house.rounds() == {"account:a"}


async def test_a_watcher_that_runs_is_handed_its_watches(house: House) -> None:
    await house.apply()
    watcher = house.watcher()
    await house.apply(watched=B)
    assert house.watcher() is watcher
    assert B in await house.look()
    await watcher.drain()
    assert house.api.quiet


async def test_what_is_asked_for_no_more_ends_and_is_forgotten(house: House) -> None:
    await house.apply({"a": house.account(), "b": house.account()}, sinks={"ops": house.webhook()})
    assert (house.named("account"), house.named("sink")) == ({"a", "b"}, {"ops"})
    await house.apply({"b": house.account()})
    assert house.rounds() == {"account:b"}
    assert (house.named("account"), house.named("sink")) == ({"b"}, set())


async def test_what_is_in_flight_is_finished_and_not_done_again(house: House) -> None:
    house.hook.reply = slowly = Slowly()
    await house.apply(sinks={"ops": house.webhook()})
    await house.tell()
    await house.deliver()
    changed = {"ops": house.webhook(rate_limit="9/s"), "new": house.webhook()}
    changing = asyncio.create_task(house.apply(sinks=changed))
    while await house.schedule.added() != "sink:new":
        pass
    assert "sink:ops" not in house.rounds()
    slowly.told.set()
    await changing
    await house.apply(sinks={"ops": changed["ops"]})
    house.clock.advance(1.0)
    await house.lane().round()
    await house.lane().drain()
    assert house.hook.quiet


async def test_what_does_not_end_in_time_is_broken_off_and_comes_due_again(house: House) -> None:
    house.hook.reply = house.api.reply = hangs
    await house.apply(sinks={"ops": house.webhook()})
    await house.tell()
    sent, asked = await house.deliver(), await house.look()
    house.owners._drain_s = 0.01
    with capture_logs() as logs:
        await house.apply({"a": house.account(rate_limit="9/s")}, sinks={"ops": house.webhook(rate_limit="9/s")})
    assert logs == [{"event": "drain.cut_short", "log_level": "warning", "at_most_s": 0.01}] * 2
    assert (await house.deliver(), await house.look()) == (sent, asked)


async def test_at_the_end_all_have_the_same_time_to_finish(house: House) -> None:
    house.hook.reply = house.api.reply = hangs
    await house.apply(sinks={"ops": house.webhook()})
    await house.tell()
    await house.deliver()
    await house.look()
    house.owners._drain_s = 0.01
    with capture_logs() as logs:
        await house.owners.stop()
    assert [entry["event"] for entry in logs] == ["drain.cut_short"]
    assert (house.owners.parts(), house.rounds()) == ([], set())


async def test_what_was_not_worth_a_write_before_is_written_at_the_end(house: House, path: Path) -> None:
    await house.apply(sinks={"ops": house.webhook()})
    house.clock.advance(60.0)
    await house.owners.stop()
    assert served_s(path) == 60.0


async def test_a_store_that_takes_nothing_holds_up_no_end(house: House, path: Path) -> None:
    await house.apply(sinks={"ops": house.webhook()})
    house.clock.advance(60.0)
    with held(path):
        await house.owners.stop()
    assert house.owners.parts() == []
    assert served_s(path) == 0.0


async def test_a_store_that_failed_just_now_is_not_asked_once_more(house: House, path: Path) -> None:
    await house.apply(sinks={"ops": house.webhook()})
    await house.tell()
    with held(path):
        await house.deliver()
        await house.lane().drain()
    house.clock.advance(60.0)  # when a lane would ask it again, and now it would answer
    await house.owners.stop()
    assert house.owners.parts() == []
    assert served_s(path) == 0.0


async def test_an_error_in_one_change_stops_no_other_and_the_next_try_goes_on_from_there(
    house: House, path: Path
) -> None:
    sinks = {"ops": house.webhook(), "more": house.webhook()}
    with refusing(path, "ops"), pytest.raises(StoreError, match="did not take this"):
        await house.apply(sinks=sinks)
    assert house.rounds() == {"account:a", "sink:more"}
    lane = house.lane()
    await house.apply(sinks=sinks)
    assert house.rounds() == {"account:a", "sink:more", "sink:ops"}
    assert lane in house.owners.parts()


async def test_of_several_errors_one_that_is_not_the_store_s_is_raised(
    house: House, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1")
    accounts = {"a": house.account(), "far": house.account(base_url="https://far.example")}
    with refusing(path, "ops"), pytest.raises(ConfigError, match="HTTPS_PROXY"):
        await house.apply(accounts, sinks={"ops": house.webhook()})
    assert house.rounds() == {"account:a"}


async def test_a_key_that_goes_to_another_account_is_used_by_that_one_only(house: House) -> None:
    await house.apply({"old": house.account()})
    old = house.watcher()
    await house.apply({"new": house.account()})
    await house.look()
    await old.round()
    await house.watcher().drain()
    assert house.api.quiet


async def test_a_newer_configuration_waits_for_no_drain_but_in_the_owner_that_drains(house: House) -> None:
    house.hook.reply = slowly = Slowly()
    await house.apply(sinks={"ops": house.webhook()})
    await house.tell()
    await house.deliver()
    between = {"ops": house.webhook(rate_limit="8/s"), "between": house.webhook()}
    await broken_off(house.apply(sinks=between), house=house, once_added="sink:between")
    newest = {"ops": house.webhook(rate_limit="9/s"), "newest": house.webhook()}
    applying = asyncio.create_task(house.apply(sinks=newest))
    assert await house.schedule.added() == "sink:newest"
    slowly.told.set()
    assert await house.schedule.added() == "sink:ops"
    await applying
    assert house.rounds() == {"account:a", "sink:newest", "sink:ops"}
    assert house.named("sink") == {"newest", "ops"}

    await house.apply(sinks={"ops": newest["ops"]})
    house.clock.advance(1.0)
    await house.lane().round()
    await house.lane().drain()
    assert house.hook.quiet


async def test_what_drains_begins_anew_even_if_it_is_wanted_again_as_it_was(house: House) -> None:
    house.hook.reply = slowly = Slowly()
    sinks = {"ops": house.webhook()}
    await house.apply(sinks=sinks)
    await house.tell()
    await house.deliver()
    await broken_off(house.apply(sinks={"other": house.webhook()}), house=house, once_added="sink:other")
    applying = asyncio.create_task(house.apply(sinks=sinks))
    slowly.told.set()
    await applying
    assert house.rounds() == {"account:a", "sink:ops"}


async def test_a_newer_configuration_gives_a_drain_no_more_time(house: House) -> None:
    house.hook.reply = hangs
    await house.apply(sinks={"ops": house.webhook()})
    await house.tell()
    await house.deliver()
    house.owners._drain_s = 0.5
    with capture_logs() as logs:
        await broken_off(house.apply(sinks={"other": house.webhook()}), house=house, once_added="sink:other")
        house.owners._drain_s = 10 * LONG_S
        async with asyncio.timeout(LONG_S):
            await house.apply()
    assert [entry["event"] for entry in logs] == ["drain.cut_short"]
    assert house.rounds() == {"account:a"}


async def test_the_end_waits_for_a_drain_of_an_earlier_configuration_as_long_as_that_did(house: House) -> None:
    house.hook.reply = hangs
    await house.apply(sinks={"ops": house.webhook()})
    await house.tell()
    await house.deliver()
    house.owners._drain_s = 0.5
    await broken_off(house.apply(sinks={"other": house.webhook()}), house=house, once_added="sink:other")
    house.owners._drain_s = 10 * LONG_S
    async with asyncio.timeout(LONG_S):
        await house.owners.stop()
    assert (house.owners.parts(), house.rounds()) == ([], set())


async def test_a_key_is_used_by_one_account_only_wherever_it_went_in_between(house: House) -> None:
    await house.apply({"old": house.account()})
    await broken_off(house.apply({"between": house.account()}), house=house, once_added="account:between")
    between = [part for part in house.owners.parts() if isinstance(part, AccountWatcher)]
    await house.apply({"newest": house.account()})
    await house.look()
    for watcher in between:
        await watcher.round()
    await house.watcher().drain()
    assert house.api.quiet
    assert (house.rounds(), house.named("account")) == ({"account:newest"}, {"newest"})


class BrokenError(Exception):
    """A bug that nobody foresaw."""


async def break_down() -> None:
    raise BrokenError


@pytest.mark.parametrize("method", ["drain", "cancel", "flush"])
async def test_an_owner_that_does_not_end_well_is_loud_and_in_nobody_s_way(
    house: House, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    await house.apply(sinks={"ops": house.webhook()})
    lane = house.lane()
    monkeypatch.setattr(lane, method, break_down)
    changed = {"ops": house.webhook(rate_limit="9/s")}
    with pytest.raises(BrokenError):
        await house.apply(sinks=changed)
    assert [type(error) for error in house.fatal] == [BrokenError]
    await house.apply(sinks=changed)
    assert house.lane() is not lane
    await house.tell()
    assert await house.deliver()
    house.fatal.clear()


async def test_an_owner_that_does_not_end_well_is_loud_though_nobody_waits_for_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.apply(sinks={"ops": house.webhook()})
    told = asyncio.Event()

    async def break_down_later() -> None:
        await told.wait()
        raise BrokenError

    monkeypatch.setattr(house.lane(), "drain", break_down_later)
    await broken_off(house.apply(sinks={"other": house.webhook()}), house=house, once_added="sink:other")
    told.set()
    with pytest.raises(BrokenError):
        await house.apply()
    await house.apply()
    assert [type(error) for error in house.fatal] == [BrokenError]
    house.fatal.clear()


async def test_at_the_end_one_that_does_not_end_well_keeps_no_other_from_it(
    house: House, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    await house.apply(sinks={"ops": house.webhook()})
    monkeypatch.setattr(house.watcher(), "drain", break_down)
    house.clock.advance(60.0)
    with pytest.raises(BrokenError):
        await house.owners.stop()
    assert (house.owners.parts(), served_s(path)) == ([], 60.0)
