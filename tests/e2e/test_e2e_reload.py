"""The configuration changes under the running program: by hand, by mount, by signal, once and all the time."""

import asyncio
import signal
from pathlib import Path
from random import Random

import pytest
from e2e import checks
from e2e.endpoint import Answer, refusing_some
from e2e.programme import Life, page
from e2e.stage import API_KEYS, Document, Stage, all_have_ended, document_of, webhook, world_of

from watcher.simulator.faults import Fault, Faults

RATE = 40


async def reloaded(life: Life, *, times: int) -> None:
    await life.until(lambda: len(life.logged("config.reloaded")) >= times, what=f"reload {times}")


async def test_a_watch_and_a_sink_come_and_go_with_the_file(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(6, ends_after_s=60, ends_within_s=90))
    first, second = await stage.receiver(), await stage.receiver()
    document = document_of({"default": simulator}, {"first": webhook(first)})
    watches = document["watch"]
    life = await stage.start({**document, "watch": watches[:1]})
    await life.started()
    await life.until(lambda: len(first.events()) >= 2, what="two were reported")
    assert {event["data"]["pipeline"]["id"] for event in first.events()} == {watches[0]["pipeline"]}

    labelled = [{**watch, "labels": {"team": "ops"}} for watch in watches[1:]]
    stage.write({**document, "watch": labelled, "sinks": {"second": webhook(second)}})
    await reloaded(life, times=1)
    await life.until(lambda: len(second.events()) >= 4, what="four were reported")
    assert {event["data"]["labels"]["team"] for event in second.events()} == {"ops"}
    assert {event["data"]["pipeline"]["id"] for event in first.events()} == {watches[0]["pipeline"]}
    gone = set(watches[0]["executions"])
    asked = [entry for entry in simulator.request_log.entries if entry.execution in gone]
    await life.until(lambda: simulator.request_log.entries[-1].at > asked[-1].at + 2, what="time went by")
    assert [entry for entry in simulator.request_log.entries if entry.execution in gone] == asked
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


def swap_link(folder: Path, *, text: str, number: int) -> None:
    """Do as Kubernetes does with a ConfigMap: a new directory, and one link that is replaced."""
    (folder / f"..{number}").mkdir()
    (folder / f"..{number}" / "watcher.yaml").write_text(text)
    (folder / "..next").symlink_to(f"..{number}")
    (folder / "..next").rename(folder / "..data")


@pytest.mark.ci
async def test_a_mounted_directory_is_followed_through_its_link(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(3, ends_after_s=60, ends_within_s=90))
    document = document_of({"default": simulator}) | {"store": {"url": f"sqlite:///{stage.folder}/watcher.db"}}
    mount = stage.folder / "mount"
    mount.mkdir()
    swap_link(mount, text=stage.write(document).read_text(), number=1)
    (mount / "watcher.yaml").symlink_to("..data/watcher.yaml")
    life = await stage.begin("run", "--config", str(mount / "watcher.yaml"))
    await life.started()
    swap_link(mount, text=stage.write({**document, "watch": document["watch"][:1]}).read_text(), number=2)
    await reloaded(life, times=1)
    assert life.logged("config.reloaded")[0]["watches"] == 1
    assert await life.stop() == 0


@pytest.mark.ci
async def test_a_key_that_is_replaced_in_its_file_is_used_from_then_on(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(3, ends_after_s=60, ends_within_s=90))
    document = document_of({"default": simulator})
    account = document["accounts"]["default"]
    del account["api_key"]
    account["api_key_file"] = "secret/key"
    key = stage.folder / "secret" / "key"
    key.parent.mkdir()
    key.write_text("a-key-that-is-refused\n")
    life = await stage.start(document)
    await life.until(lambda: life.events("account.degraded"), what="the key was refused")
    (key.parent / "next").write_text(f"{API_KEYS[1]}\n")
    (key.parent / "next").rename(key)  # as an editor does
    await life.until(lambda: life.events("account.recovered"), what="the key was taken")
    assert await life.stop() == 0


@pytest.mark.ci
async def test_a_change_of_what_hangs_holds_back_no_other_change(stage: Stage) -> None:
    life = await _change_what_hangs(stage)
    await life.kill()


@pytest.mark.ci
async def test_what_hangs_is_given_up_in_time_and_the_change_is_made(stage: Stage) -> None:
    life = await _change_what_hangs(stage)
    await reloaded(life, times=1)
    assert len(life.logged("drain.cut_short")) == 2
    assert await life.stop() == 0


async def _change_what_hangs(stage: Stage) -> Life:
    """See other changes made while what hangs is still waited for."""
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
    await life.until(new.events, within_s=6, what="the new watch was reported to the new sink")
    stage.write({**document, "sinks": {**sinks, "newer": webhook(newer)}})
    await life.until(newer.events, within_s=6, what="the newer watch was reported to the newer sink")
    assert life.logged("config.reloaded") == []
    return life


@pytest.mark.ci
async def test_a_key_that_goes_to_another_account_is_not_used_beyond_its_pace(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(60, ends_after_s=60, ends_within_s=90))
    document = document_of({"old": simulator}, rate_limit=f"{RATE}/s")
    life = await stage.start(document)
    await life.until(lambda: len(simulator.request_log.entries) > RATE, what="it was busy")
    watches = [{**watch, "account": "new"} for watch in document["watch"]]
    stage.write({**document, "accounts": {"new": document["accounts"]["old"]}, "watch": watches})
    await reloaded(life, times=1)
    asked = len(simulator.request_log.entries)
    await life.until(lambda: len(simulator.request_log.entries) > asked + 1.5 * RATE, what="it was busy again")
    assert stage.within_pace(simulator, rate=RATE)
    assert await life.stop() == 0


@pytest.mark.parametrize(
    ("count", "within_s"),
    [(3, 3.0), pytest.param(8, 10.0, marks=pytest.mark.ci), pytest.param(50, 60.0, marks=pytest.mark.soak)],
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
    assert stage.within_pace(simulator, rate=RATE)


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
