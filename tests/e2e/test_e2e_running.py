"""How the daemon starts, reloads and ends, whatever hangs meanwhile."""

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import aiohttp
import pytest
from e2e import checks
from e2e.endpoint import Answer, refusing_some
from e2e.programme import COMMAND, PATIENCE_S, Life, environment, page
from e2e.stage import API_KEYS, Document, Stage, all_have_ended, document_of, webhook, world_of
from simulator_facts import requests_of

from watcher.cli.shell import ONE_SIGNAL_S
from watcher.simulator.faults import Fault, Faults, Window

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
    document = document_of({"default": simulator})
    life = await stage.start(document)
    pages = await life.started()
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
