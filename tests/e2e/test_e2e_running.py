"""How the daemon starts, reloads and ends, moves to another store, and goes on with that of version 1.0.0."""

import asyncio
import json
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from copies import KINDS, first_store, run
from e2e import checks
from e2e.endpoint import Answer, Receiver, refuse, refusing_some, take
from e2e.programme import COMMAND, PATIENCE_S, Life, environment, outcome_of, page
from e2e.stage import API_KEY, API_KEYS, POLLING, Document, Stage, all_have_ended, document_of, webhook, world_of
from fake_slack import FakeSlack, Message
from postgres import EMPTY, WITH_PASSWORD
from receiver import Receiver as Listener
from simulator_facts import requests_of

from watcher.cli.event_loop import ONE_SIGNAL_S
from watcher.runtime.clock import Clock
from watcher.simulator.faults import Fault, Faults, Window
from watcher.simulator.world import Lifecycle, SimPipeline, StatusPhase, World

STALLING = "import time\nprint('importing', flush=True)\nwhile True:\n    time.sleep(0.01)\n"
"""Not `signal.pause`: a signal in the moment before it begins to wait would be heard only after the next one."""


SCRIPT = (str(Path(COMMAND[0]).with_name("watcher")),)


@pytest.fixture(autouse=True)
def hangups_are_not_ignored() -> Iterator[None]:
    """Let programs inherit the default, which `nohup` in front of the tests takes away."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


async def importing(*words: str, folder: Path) -> asyncio.subprocess.Process:
    """Start the program and return once it imports a module, which never ends."""
    (folder / "typer.py").write_text(STALLING)
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=folder,
        env=environment() | {"PYTHONPATH": os.fspath(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"importing\n"
    return process


@pytest.mark.parametrize(
    ("entry", "command", "signals", "code"),
    [
        (COMMAND, "run", [signal.SIGTERM], 0),
        (COMMAND, "--help", [signal.SIGTERM], 128 + signal.SIGTERM),
        (SCRIPT, "demo", [signal.SIGINT], 0),
        (SCRIPT, "simulate", [signal.SIGINT], 128 + signal.SIGINT),
        (COMMAND, "demo", [signal.SIGHUP], -signal.SIGHUP),
        (COMMAND, "check", [signal.SIGHUP], -signal.SIGHUP),
        (COMMAND, "run", [signal.SIGHUP, signal.SIGTERM], 0),  # which reads its file later
    ],
)
async def test_a_signal_while_modules_are_imported_ends_it_without_a_word_but_a_hangup_no_daemon(
    entry: tuple[str, ...], command: str, signals: list[signal.Signals], code: int, tmp_path: Path
) -> None:
    process = await importing(*entry, command, folder=tmp_path)
    for signum in signals:
        process.send_signal(signum)
    assert await process.communicate() == (b"", b"")
    assert process.returncode == code


async def test_what_is_in_flight_is_finished_and_never_sent_again(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(16, ends_after_s=1.0, ends_within_s=3.0))
    receiver = await stage.receiver(lambda _: Answer.SLOW)
    document = document_of({"default": simulator}, {"ops": webhook(receiver)})
    life = await stage.start(document)
    await life.until(lambda: receiver.attempts, what="something was in flight")
    assert await life.stop() == 0
    with closing(sqlite3.connect(stage.folder / "watcher.db")) as database:
        (waiting,) = database.execute("SELECT count(*) FROM delivery WHERE state = 'waiting'").fetchone()
    assert life.logged("stopped")[0]["waiting"] == waiting

    second = await stage.start(document)
    await second.started()
    await second.until(
        lambda: (
            all_have_ended(receiver.events(), simulator.world)
            and all_have_ended([*life.events(), *second.events()], simulator.world)
        ),
        what="all was reported, there and on stdout",
    )
    assert await second.stop() == 0
    assert len(receiver.attempts) == len(receiver.events())
    assert sorted(receiver.kept()) == sorted([*life.emitted, *second.emitted])
    assert checks.of_sequences(receiver.kept()) == []


@pytest.mark.ci
async def test_nothing_that_hangs_keeps_it_for_ever_and_a_second_signal_ends_it_at_once(stage: Stage) -> None:
    life = await _start_hanging(stage)
    assert await life.stop() == 0
    assert life.logged("drain.cut_short")
    again = await _start_hanging(stage)
    again.send(signal.SIGTERM)
    await again.until(lambda: again.logged("draining"), what="it drained")
    await asyncio.sleep(2 * ONE_SIGNAL_S)
    assert await again.stop(signal.SIGINT) == 128 + signal.SIGINT
    assert not again.logged("drain.cut_short")


HANGING_DISK = """
import os, time
from sqlalchemy.engine.default import DefaultDialect

commit = DefaultDialect.do_commit

def hang_or_commit(self, connection):
    while os.path.exists("the-disk-hangs"):
        time.sleep(0.01)
    commit(self, connection)

DefaultDialect.do_commit = hang_or_commit
"""


@pytest.mark.ci
async def test_a_disk_that_hangs_does_not_keep_it_for_ever(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    (stage.folder / "sitecustomize.py").write_text(HANGING_DISK)
    monkeypatch.setenv("PYTHONPATH", str(stage.folder))
    simulator = await stage.simulator(world_of(40, ends_after_s=2.0, ends_within_s=4.0))
    life = await stage.start(document_of({"default": simulator}))
    await life.until(lambda: life.emitted, what="something was reported")
    flag = stage.folder / "the-disk-hangs"
    flag.touch()
    await asyncio.sleep(1)  # nothing shows that it hangs
    probe = asyncio.create_task(_ask_for_ever(f"{await life.started()}/readyz"))  # it hangs on the disk, too
    assert await life.stop() == 0
    await probe
    said = [json.loads(line)["event"] for line in life.stderr.lines.lines if line.startswith(b"{")]
    assert said[-2:] == ["store.stuck", "stopped"]

    flag.unlink()
    second = await stage.start(document_of({"default": simulator}))
    await second.until(
        lambda: all_have_ended([*life.events(), *second.events()], simulator.world), what="all was reported"
    )
    assert checks.of_sequences([*life.emitted, *second.emitted]) == []


@pytest.mark.ci
async def test_a_terminal_that_is_closed_ends_it_and_a_hangup_before_reloads(stage: Stage) -> None:
    # Nothing changes meanwhile: an event that is written to a closed terminal would end it with 1.
    simulator = await stage.simulator(world_of(3, ends_within_s=9000.0, ends_after_s=6000.0))
    path = stage.write(document_of({"default": simulator}))
    terminal = await stage.terminal("run", "--config", str(path))
    await terminal.until("started")
    terminal.process.send_signal(signal.SIGHUP)
    await terminal.until("config.reloaded")
    terminal.hang_up()
    async with asyncio.timeout(PATIENCE_S):
        assert await terminal.process.wait() == 0


async def _ask_for_ever(url: str) -> None:
    with suppress(aiohttp.ClientError):
        while True:
            await page(url)


async def _start_hanging(stage: Stage) -> Life:
    """Start a daemon of which a poll, a delivery and a line on stdout hang."""
    simulator = await stage.simulator(world_of(40, ends_within_s=60.0))
    hanging = next(simulator.world.executions()).id
    simulator.dice.faults = Faults(windows=(Window(Fault.HANG, execution=hanging),))
    receiver = await stage.receiver(lambda _: Answer.HANG)
    document = document_of({"default": simulator}, {"ops": webhook(receiver, timeout="60s")})
    document["accounts"]["default"]["timeout"] = "60s"
    life = await stage.start(document)
    life.stdout.stop_reading()
    await life.until(
        lambda: len(receiver.attempts) == 16 and requests_of(simulator.request_log, hanging), what="everything hung"
    )
    return life


RATE = 40


async def reloaded(life: Life, *, times: int) -> None:
    await life.until(lambda: len(life.logged("config.reloaded")) >= times, what=f"reload {times}")


def swap_link(folder: Path, *, text: str, number: int) -> None:
    """Do as Kubernetes does with a ConfigMap: a new directory, and one link that is replaced."""
    (folder / f"..{number}").mkdir()
    (folder / f"..{number}" / "watcher.yaml").write_text(text)
    (folder / "..next").symlink_to(f"..{number}")
    (folder / "..next").rename(folder / "..data")


async def test_watches_sinks_and_keys_come_and_go_with_the_mounted_file(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(6, ends_after_s=60, ends_within_s=90))
    first, second = await stage.receiver(), await stage.receiver()
    document = document_of({"default": simulator}, {"first": webhook(first)})
    document["store"] = {"url": f"sqlite:///{stage.folder}/watcher.db"}
    key = stage.folder / "mount" / "key"
    key.parent.mkdir()
    key.write_text(f"{API_KEYS[0]}\n")
    del document["accounts"]["default"]["api_key"]
    document["accounts"]["default"]["api_key_file"] = str(key)
    watches = document["watch"]
    swap_link(key.parent, text=stage.write({**document, "watch": watches[:1]}).read_text(), number=1)
    (key.parent / "watcher.yaml").symlink_to("..data/watcher.yaml")
    life = await stage.begin("run", "--config", str(key.parent / "watcher.yaml"))
    await life.started()
    await life.until(lambda: len(first.events()) >= 2, what="two were reported")

    labelled = [{**watch, "labels": {"team": "ops"}} for watch in watches[1:]]
    after = {**document, "watch": labelled, "sinks": {"second": webhook(second)}}
    swap_link(key.parent, text=stage.write(after).read_text(), number=2)
    await reloaded(life, times=1)
    assert life.logged("config.reloaded")[0]["watches"] == 2
    await life.until(lambda: len(second.events()) >= 4, what="four were reported")
    assert {event["data"]["labels"]["team"] for event in second.events()} == {"ops"}
    assert {event["data"]["pipeline"]["id"] for event in first.events()} == {watches[0]["pipeline"]}
    log, gone = simulator.request_log.entries, set(watches[0]["executions"])
    asked = [entry for entry in log if entry.execution in gone]

    for text, type_ in (("a-key-that-is-refused", "account.degraded"), (API_KEYS[1], "account.recovered")):
        (key.parent / "next").write_text(f"{text}\n")
        (key.parent / "next").rename(key)  # as an editor does
        await life.until(lambda type_=type_: second.events(type_), what=f"{type_} was reported")  # type: ignore[misc]
    assert [entry for entry in log if entry.execution in gone] == asked
    assert await life.stop() == 0


async def test_a_bad_file_changes_nothing_and_is_loud_and_sighup_reads_it_again_whatever_it_looks_like(
    stage: Stage,
) -> None:
    simulator = await stage.simulator(world_of(3, ends_after_s=60, ends_within_s=90))
    unsigned = {"type": "webhook", "url": "http://127.0.0.1:9/hush"}
    document = document_of({"default": simulator}, {"ops": unsigned})
    life = await stage.start(document)
    pages = await life.started()
    assert "sinks.ops: has no secret" in life.logged("config.warning")[0]["problem"]  # likely a mistake, and it starts
    assert b"hush" not in life.stderr.lines.everything()
    stage.write({**document, "polling": {"min_interval": "5"}})
    await life.until(lambda: life.logged("config.rejected"), what="it was rejected")
    problem = life.logged("config.rejected")[0]["problem"]
    assert 'polling.min_interval: "5" is not a duration; write 500ms' in problem
    assert "watcher_config_last_reload_successful 0.0" in (await page(f"{pages}/metrics"))[1]
    asked = len(simulator.request_log.entries)
    await life.until(lambda: len(simulator.request_log.entries) > asked + 9, what="it went on looking")
    stage.write(document)
    await reloaded(life, times=1)
    assert "watcher_config_last_reload_successful 1.0" in (await page(f"{pages}/metrics"))[1]
    life.send(signal.SIGHUP)
    await reloaded(life, times=2)
    stage.write(document | {"http": {"listen": "127.0.0.1:1"}, "store": {"url": "sqlite:///other.db"}})
    life.send(signal.SIGHUP)
    await reloaded(life, times=3)
    assert {entry["key"] for entry in life.logged("config.needs_restart")} == {"http.listen", "store.url"}
    assert await life.stop() == 0


@pytest.mark.ci
async def test_a_change_of_what_hangs_holds_back_no_other_and_is_made_once_that_is_given_up(stage: Stage) -> None:
    well = await stage.simulator(world_of(6, ends_after_s=60, ends_within_s=90))
    hanging = await stage.simulator(world_of(3, ends_within_s=60, seed=2), faults=Faults(odds={Fault.HANG: 1.0}))
    hung, new, newer = await stage.receiver(lambda _: Answer.HANG), await stage.receiver(), await stage.receiver()
    document = document_of({"well": well, "hanging": hanging}, {"hung": webhook(hung, timeout="60s")})
    watches, account = document["watch"], document["accounts"]["hanging"]
    account["timeout"] = "60s"
    life = await stage.start({**document, "watch": watches[2:]})
    await life.started()
    await life.until(lambda: hung.attempts and hanging.request_log.entries, what="both hung")

    account["timeout"] = "59s"
    sinks = {"hung": webhook(hung, timeout="59s"), "new": webhook(new)}
    stage.write({**document, "watch": watches[1:], "sinks": sinks})
    await life.until(new.events, what="the new watch was reported to the new sink")
    stage.write({**document, "sinks": {**sinks, "newer": webhook(newer)}})
    await life.until(newer.events, what="the newer watch was reported to the newer sink")
    assert life.logged("config.reloaded") == []  # what hangs is still waited for
    await reloaded(life, times=1)
    assert len(life.logged("drain.cut_short")) == 2
    assert await life.stop() == 0


@pytest.mark.parametrize(
    ("count", "within_s"),
    [pytest.param(4, 3.0, marks=pytest.mark.ci), pytest.param(50, 60.0, marks=pytest.mark.soak)],
)
async def test_reloads_under_load_lose_nothing_and_repeat_nothing(stage: Stage, count: int, within_s: float) -> None:
    simulator = await stage.simulator(world_of(150, ends_after_s=2.0, ends_within_s=within_s))
    ops, extra = await stage.receiver(refusing_some(stage.dice)), await stage.receiver()
    document = document_of({"default": simulator}, {"ops": webhook(ops)}, rate_limit=f"{RATE}/s")
    life = await stage.start(document)
    await life.started()
    for number in range(count):
        stage.write(_changed(document, number=number, dice=stage.dice, extra=webhook(extra)))
        life.send(signal.SIGHUP)
        await asyncio.sleep(within_s / count)
    stage.write(document)
    life.send(signal.SIGHUP)
    await life.until(
        lambda: all(all_have_ended(events, simulator.world) for events in (ops.events(), life.events())),
        what="every end was reported",
    )
    assert await life.stop() == 0

    assert life.logged("config.rejected") == []
    assert checks.of_all(simulator, life.emitted, ops) == extra.forgeries == []
    assert {attempt.body for attempt in extra.attempts} <= set(life.emitted)
    assert len(set(life.emitted)) == len(life.emitted)
    assert [line for line in life.emitted if b"account." in line] == []
    assert stage.within_pace(simulator.request_log, rate=RATE)


def _changed(document: Document, *, number: int, dice: Random, extra: Document) -> Document:
    """Return the document with some watches and executions away, other labels, another sink, rate or key."""
    watches = [
        {
            **watch,
            "labels": {"round": str(number)},
            "executions": dice.sample(watch["executions"], k=dice.randint(1, 40)),
        }
        for watch in document["watch"]
    ]
    account = document["accounts"]["default"]
    sinks = {"ops": {**document["sinks"]["ops"], "timeout": f"{2 + number % 3}s"}}
    return {
        **document,
        "accounts": {"default": {**account, "api_key": API_KEYS[number % 2], "timeout": f"{2 + number % 2}s"}},
        "watch": watches[number % 2 :],
        "sinks": sinks | ({"extra": extra} if number % 2 else {}),
    }


SALES = SimPipeline("5a1e5000-0000-4000-8000-000000000001", "Sales agent")
ONBOARDING = SimPipeline("0b0a4d00-0000-4000-8000-000000000002", "Onboarding")
FAILED, HANGING, ENDS_MEANWHILE = (1, 2, 3), 4, 5
RAN_FOR_S, STOPPED_FOR_S = 330, 60


def execution(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def lifecycle(number: int, *phases: tuple[str, float]) -> Lifecycle:
    error = f"Greeting: error {number}" if phases[-1][0] == "failed" else None
    return Lifecycle(execution(number), tuple(StatusPhase(*phase) for phase in phases), error=error)


def world_as_it_was(*, started_s: float = 0.0) -> World:
    """Return the world that version 1.0.0 watched, from that second on."""
    world = World(Clock())
    for number in FAILED:
        world.add(lifecycle(number, ("running", 0), ("failed", 0.5)), pipeline=SALES, begins_s=started_s + 2 * number)
    world.add(lifecycle(HANGING, ("running", 0)), pipeline=ONBOARDING, begins_s=started_s)
    end = ("success", RAN_FOR_S + STOPPED_FOR_S / 2)
    world.add(lifecycle(ENDS_MEANWHILE, ("running", 0), end), pipeline=ONBOARDING, begins_s=started_s)
    return world


def document(
    base_url: str, *, hooks: dict[str, Receiver], pagers: dict[str, str], slack: dict[str, object]
) -> Document:
    """Return a configuration of version 1.0.0. `hooks` are receivers, `pagers` URLs, by the names of their sinks."""
    pager = {"type": "webhook", "template": "pagerduty", "routing_key": "k" * 32, "retry": {"schedule": ["1s"]}}
    sinks: Document = {name: webhook(hook, retry={"schedule": ["1s"]}) for name, hook in hooks.items()}
    sinks |= {name: pager | {"url": url, "rate_limit": "50/s"} for name, url in pagers.items()}
    sinks["archive"]["events"] = ["execution.failed"]
    sinks["audit"]["remind_every"] = "4h"
    return {
        "accounts": {"default": {"api_key": API_KEY, "base_url": base_url, "rate_limit": "50/s"}},
        "watch": [
            {"pipeline": SALES.id, "name": SALES.name, "rules": {"failing": {"consecutive": 3}}},
            {"pipeline": ONBOARDING.id, "name": ONBOARDING.name, "overdue_after": {"running": "5s"}},
        ],
        "polling": POLLING,
        "sinks": {**sinks, "chat": slack},
    }


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the URL of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/watcher.db"
        return
    with request.getfixturevalue("postgres").database(EMPTY) as url:
        yield url


@dataclass
class Before:
    """What version 1.0.0 left: deliveries as (sink, state, event), openings as (sink, problem), messages in Slack."""

    deliveries: list[tuple[str, str, str]]
    openings: set[tuple[str, str]]
    messages: list[tuple[str, str]]
    kinds: dict[str, str]
    """The kinds of the open problems."""
    failed: set[str]
    """The ids of the events `execution.failed`."""

    def ids(self, sink: str, state: str) -> list[str]:
        return [id_ for *of, id_ in self.deliveries if of == [sink, state]]

    def problems(self, sink: str) -> set[str]:
        return {id_ for name, id_ in self.openings if name == sink}


def as_it_was(url: str) -> Before:
    """Read what is in a store."""
    of_sink = "JOIN delivery ON delivery.number = event.id JOIN source ON source.id = delivery.sink_id"
    deliveries = run(url, f"SELECT source.name, delivery.state, event_id FROM event {of_sink}")
    opened = "event.stream = problem.stream AND event.sequence = problem.sequence"
    openings = run(url, f"SELECT source.name, problem.id FROM problem JOIN event ON {opened} {of_sink}")
    kinds = run(url, "SELECT id, kind FROM problem WHERE closed_at IS NULL")
    failed = run(url, "SELECT event_id FROM event WHERE type = 'execution.failed'")
    return Before(
        [(sink, state, str(UUID(bytes=id_))) for sink, state, id_ in deliveries],
        {(sink, str(UUID(bytes=id_))) for sink, id_ in openings},
        [(channel, number) for channel, number in run(url, "SELECT channel, number FROM problem_message")],
        {str(UUID(bytes=id_)): kind for id_, kind in kinds},
        {str(UUID(bytes=id_)) for (id_,) in failed},
    )


def incidents(pager: Listener) -> dict[str, str]:
    """Return what was last asked of each incident, by its key."""
    events = [json.loads(request.body) for request in pager.requests]
    return {event["dedup_key"]: event["event_action"] for event in events}


async def asked(pages: str, path: str) -> list[dict[str, Any]]:
    status, body = await page(f"{pages}/api/v1/{path}")
    assert status == 200, body
    items: list[dict[str, Any]] = json.loads(body)["items"]
    return items


@pytest.mark.ci
async def test_what_version_1_0_0_left_open_and_waiting_is_taken_over(sqlite_stage: Stage, url: str) -> None:
    stage = sqlite_stage
    stage.store_url = first_store(url, stopped_s_ago=STOPPED_FOR_S)
    before = as_it_was(url)
    assert Counter(before.kinds.values()) == {"pipeline.failing": 1, "execution.overdue": 2, "sink.failing": 2}
    simulator = await stage.simulator(world_as_it_was(started_s=-RAN_FOR_S - STOPPED_FOR_S))
    world, hooks = simulator.world, {name: await stage.receiver() for name in ("ops", "audit", "archive")}
    pagers = {name: await stage.listener(code=202) for name in ("phone", "night")}
    slack = await stage.enter(FakeSlack())
    slack.messages |= {place: Message({"text": "by version 1.0.0"}) for place in before.messages}
    slack.calls += ["chat.postMessage"] * 100  # so that new messages have other numbers

    urls = {name: pager.url for name, pager in pagers.items()}
    configuration = document(simulator.base_url, hooks=hooks, pagers=urls, slack=slack.block())
    configuration["watch"][0]["rules"]["failing"]["quiet_for"] = "1s"  # else its 5 minutes begin with the upgrade
    life = await stage.start(configuration)
    pages = await life.started()
    problems = {each["id"]: each for each in await asked(pages, "problems?state=open")}
    (failing,) = (id_ for id_, kind in before.kinds.items() if kind == "pipeline.failing")
    (acknowledged,) = (id_ for id_, each in problems.items() if "acknowledged" in each)
    assert problems[acknowledged]["execution"] == execution(HANGING)
    assert {failing, acknowledged} <= problems.keys() <= before.kinds.keys()
    assert [each["match"]["events"] for each in await asked(pages, "silences")] == [["execution.paused"]]

    waiting = before.ids("ops", "waiting")
    await life.until(lambda: len(hooks["ops"].events()) >= len(waiting), what="what waited has arrived")
    assert not hooks["archive"].events()
    (dead,) = before.ids("archive", "dead")
    replayed = await outcome_of(
        "replay", "--sink", "archive", "--state", "dead", "--yes", folder=stage.folder, environ={"WATCHER_URL": pages}
    )
    assert replayed.code == 0, replayed
    await life.until(hooks["archive"].events, what="the dead letter was sent again")

    hanging = world.find(execution(HANGING))
    assert hanging is not None
    ends = StatusPhase("success", world.now_s() - hanging.begins_s)  # from now on: its past stays as it was shown
    phases = (*hanging.lifecycle.phases, ends)
    world.replace(replace(hanging, lifecycle=replace(hanging.lifecycle, phases=phases)))
    for number in (6, 7, 8):
        begins_s = world.now_s() + 2 * (number - 6)
        world.add(lifecycle(number, ("running", 0), ("success", 0.5)), pipeline=SALES, begins_s=begins_s)

    def closed(name: str) -> set[str]:
        """Return the problems of which a receiver knows that they are over."""
        told = [event["data"].get("problem", {}) for event in hooks[name].events()]
        return {each["id"] for each in told if "closedAt" in each}

    def unresolved(name: str) -> set[str]:
        return {key for key, action in incidents(pagers[name]).items() if action != "resolve"}

    await life.until(
        lambda: (
            all(closed(name) >= before.problems(name) for name in hooks)
            and incidents(pagers["phone"]).keys() >= before.problems("phone")
            and unresolved("night") <= before.failed  # nothing resolves these, as with version 1.0.0
            and all(slack.messages[place].earlier for place in before.messages)
        ),
        what="all problems have closed everywhere",
    )
    assert await asked(pages, "problems?state=open") == []
    assert await life.stop() == 0

    for name, hook in hooks.items():
        ids = [event["id"] for attempt in hook.attempts for event in attempt.events]
        assert len(set(ids)) == len(ids), f"{name} was sent something twice"
        assert not set(ids) & {*before.ids(name, "delivered")}
        assert closed(name) == before.problems(name), "a closing goes exactly where its opening went"
    assert [event["id"] for event in hooks["archive"].events()] == [dead]
    assert {*waiting} <= {event["id"] for event in hooks["ops"].events()}
    assert (checks.of_sequences(hooks["ops"].kept()), checks.of_order(hooks["ops"].attempts)) == ([], [])
    assert incidents(pagers["phone"]) == dict.fromkeys(before.problems("phone"), "resolve")
    assert len(pagers["phone"].requests) == len(before.problems("phone")), "nothing paged again"
    assert incidents(pagers["night"]).keys() == before.problems("night") | before.failed
    assert [each.lines[0] for each in slack.posted()[len(before.messages) :]] == ["✕ Sink archive: 1 dead letter (422)"]


# A store that is moved there and back between the lives of the program

FIRST, LAST = "sqlite:///watcher.db", "sqlite:///moved.db"


async def moved(stage: Stage, source: str, target: str) -> None:
    outcome = await outcome_of("copy-store", source, target, folder=stage.folder)
    assert (outcome.code, outcome.stdout) == (0, ""), outcome.stderr
    assert f"Next: set store.url to {target} and start the daemon." in outcome.stderr


@pytest.mark.ci
async def test_events_that_wait_and_problems_that_are_open_move_along_and_nothing_is_told_twice(
    postgres_stage: Stage,
) -> None:
    stage, database = postgres_stage, postgres_stage.store_url
    simulator = await stage.simulator(world_of(30, ends_after_s=5.0, ends_within_s=9.0))
    receiver = await stage.receiver(refuse)
    document = document_of({"default": simulator}, {"ops": webhook(receiver)})
    for watch in document["watch"]:
        watch["overdue_after"] = {"running": "500ms"}

    async def begin(url: str) -> Life:
        life = await stage.start(document | {"store": {"url": url}})
        await life.started()
        return life

    first = await begin(FIRST)
    await first.until(lambda: len(first.events("execution.overdue")) >= 5, what="some were overdue")
    assert await first.stop() == 0
    assert receiver.events() == []

    await moved(stage, FIRST, database)
    receiver.choose = take
    second = await begin(database)
    waited = {event["id"] for event in first.events()}
    await second.until(lambda: waited <= {event["id"] for event in receiver.events()}, what="what waited had arrived")
    receiver.choose = refuse
    assert await second.stop() == 0

    await moved(stage, database, LAST)
    receiver.choose = take
    third = await begin(LAST)
    lives = (first, second, third)
    await third.until(
        lambda: (
            all_have_ended(receiver.events(), simulator.world)
            and all_have_ended([event for life in lives for event in life.events()], simulator.world)
        ),
        what="all had ended, there and on stdout",
    )
    assert await third.stop() == 0

    assert not [life.logged("store.created") for life in (second, third) if life.logged("store.created")]
    printed = [line for life in stage.lives for line in life.emitted]
    for bodies in (receiver.kept(), printed):
        statuses = [body for body in bodies if json.loads(body)["type"] != "execution.overdue"]
        assert checks.of_truth(statuses, simulator) == []
        assert checks.of_completeness(bodies, simulator) == []
        assert [body for body, count in Counter(bodies).items() if count > 1] == []
    assert checks.of_sequences([*receiver.kept(), *printed]) == []
    assert checks.of_order(receiver.attempts) == []
    problems = [event["data"]["problem"] for event in receiver.events() if "problem" in event["data"]]
    assert {Counter(each["id"] for each in problems)[each["id"]] for each in problems} == {2}, "opened, and closed"
    assert len([each for each in problems if "closedAt" in each]) * 2 == len(problems)


@pytest.mark.ci
async def test_a_refused_login_ends_it_and_shows_no_password(postgres_stage: Stage) -> None:
    stage = postgres_stage
    simulator = await stage.simulator(world_of(1, ends_within_s=1.0))
    await asyncio.to_thread((stage.folder / "db").write_text, "hunter2\n")
    url = stage.store_url.replace("postgres@", f"{WITH_PASSWORD}@")
    document = document_of({"default": simulator}) | {"store": {"url": url, "password_file": "db"}}
    life = await stage.start(document)
    assert await life.end(within_s=10) == 2
    said = life.stderr.lines.everything().decode()
    assert "password authentication failed" in said
    path: Path = stage.folder / "watcher.yaml"
    checked = await outcome_of("check", "--config", str(path), folder=stage.folder)
    assert checked.code == 0
    assert "hunter2" not in said + checked.stdout + checked.stderr
