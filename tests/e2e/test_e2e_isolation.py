"""Who has trouble, or comes in crowds, costs nobody else anything.

One account's trouble, or one sink's, is nobody else's, and whatever people said, keys and paths show nowhere. The rate
limit holds as the server counts it, over starts, kills, reloads and pauses; and strangers cost little of it.
"""

import asyncio
import resource
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import receiver as sockets
from e2e import checks
from e2e.endpoint import PATH, SECRET, Answer
from e2e.programme import page
from e2e.stage import API_KEY, POLLING, RETRY, Document, Stage, all_have_ended, document_of, webhook, world_of
from simulator_facts import busiest_second

from watcher.simulator.faults import Fault, Faults, Window
from watcher.simulator.responses import PRIVATE
from watcher.simulator.scenarios import HARSH

PATIENT = "60s"
"""What hangs is not given up in the time of a test: whoever waited for it would get nothing."""

TOKEN = "token-6f4922f45568161a"
DEAD_PATH = "/hooks/path-d3d9446802a44259"
OF_APPRISE = ("user-1f6a", "pass-77c2", "path-90be")
PRIVATE_WORDS = (PRIVATE, API_KEY, SECRET, SECRET.removeprefix("whsec_"), PATH, DEAD_PATH, TOKEN, *OF_APPRISE)

RATE = 20
PAUSE_S = 2


def apprise(receiver: sockets.Receiver, **settings: str) -> Document:
    url = f"json://user-1f6a:pass-77c2@127.0.0.1:{receiver.port}/path-90be"
    return {
        "type": "apprise",
        "url": url,
        "events": ["*"],
        "rate_limit": "1000/s",
        "timeout": "1s",
        "retry": RETRY,
        **settings,
    }


async def test_a_hanging_account_and_sinks_that_hang_drip_flood_or_refuse_delay_nobody_and_nothing_private_shows(
    stage: Stage, subtests: pytest.Subtests
) -> None:
    faults = replace(HARSH, windows=(), retry_after_s=1, slow_s=0.2)
    well = await stage.simulator(world_of(20, ends_after_s=3.0, ends_within_s=4.0), faults=faults)
    hanging = await stage.simulator(world_of(10, ends_within_s=60.0, seed=2), faults=Faults(odds={Fault.HANG: 1.0}))
    receiver, hung = await stage.receiver(), await stage.receiver(lambda _: Answer.HANG)
    slow = [await stage.receiver(lambda _, answer=answer: answer) for answer in (Answer.DRIP, Answer.MEGABYTE)]  # type: ignore[misc]
    refusing = await stage.receiver(lambda _: Answer.REFUSE)
    phones = [
        await stage.enter(sockets.Receiver(reply))
        for reply in (
            sockets.hangs,
            sockets.says(sockets.answer(403)),
            sockets.says(sockets.answer(200)),
        )
    ]
    sinks = {
        "ops": webhook(receiver, headers={"Authorization": f"Bearer {TOKEN}", "X-Team": TOKEN}),
        "hang": webhook(hung, timeout=PATIENT),
        "drip": webhook(slow[0]),
        "megabyte": webhook(slow[1]),
        "ill": webhook(refusing),
        "dead": webhook(receiver) | {"url": f"http://127.0.0.1:1{DEAD_PATH}"},
        "lost-phone": apprise(phones[0]),
        "ill-phone": apprise(phones[1]),
        "phone": apprise(phones[2]),
    }
    document = document_of({"well": well, "hanging": hanging}, sinks) | {"log": {"level": "debug"}}
    document["accounts"]["hanging"]["timeout"] = PATIENT
    document["polling"] = POLLING | {"lost_grace": "30s", "degraded_after": "30s"}

    life = await stage.start(document)
    pages = await life.started()
    with subtests.test("a hanging account delays no other"):
        await life.until(lambda: all_have_ended(receiver.events(), well.world), what="all was reported")
        assert hanging.request_log.entries
        assert "hang" not in hanging.request_log.summary()  # each is still unanswered
    with subtests.test("a sink that is ill delays no other, nor what is printed"):
        await life.until(lambda: all_have_ended(life.events(), well.world), what="all was printed")
        await life.until(
            lambda: all(all_have_ended(each.events(), well.world) for each in slow), what="the slow ones had all"
        )
        await life.until(lambda: _all_arrived(phones[2], receiver.kept()), what="the phone had all")
        asked = [each.event["id"] for each in hung.attempts]
        assert len(asked) == len(set(asked)) > 0  # each is still unanswered
        assert phones[0].requests
    shown = [(await page(f"{pages}{path}"))[1].encode() for path in ("/metrics", "/readyz?verbose")]
    kept_alive = await asyncio.to_thread(_files, stage.folder)
    assert await life.stop() == 0

    with subtests.test("everything that was answered was told"):
        assert checks.of_everything_answered(receiver.kept(), well) == []
        assert checks.of_all(well, life.emitted, receiver) == []
    with subtests.test("nothing private shows or is kept"):
        assert life.logged("poll.failed")
        assert {"403", "timeout"} <= {line["answer"] for line in life.logged("delivery.failed")}
        assert not life.logged("library.warned")
        assert "watcher.db-wal" in kept_alive
        places = {f"page {number}": content for number, content in enumerate(shown)}
        places |= {"stdout": life.stdout.lines.everything(), "stderr": life.stderr.lines.everything()}
        attempts = [attempt for each in (receiver, refusing, hung, *slow) for attempt in each.attempts]
        places |= {f"body {number}": attempt.body for number, attempt in enumerate(attempts)}
        places |= kept_alive | {f"{name} at the end": kept for name, kept in _files(stage.folder).items()}
        assert list(_found(places)) == []


def _all_arrived(receiver: sockets.Receiver, events: list[bytes]) -> bool:
    """Say whether each of these events was in a message."""
    everything = b"".join(request.body for request in receiver.requests)
    return all(event[event.index(b'"id":"') + 6 :][:36] in everything for event in events)


def _files(folder: Path) -> dict[str, bytes]:
    """Return all that the program keeps, by name: the configuration beside it is the user's."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".yaml"}


def _found(places: dict[str, bytes]) -> Iterator[str]:
    for place, content in places.items():
        yield from (f"{word} in {place}" for word in PRIVATE_WORDS if word.encode() in content)


async def test_no_second_sees_more_requests_than_the_limit(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(100, ends_after_s=60.0, ends_within_s=90.0))
    receiver = await stage.receiver()
    document = document_of({"default": simulator}, {"ops": webhook(receiver)}, rate_limit=f"{RATE}/s")
    document["polling"] = POLLING | {"degraded_after": "10s"}

    first = await stage.start(document)
    await first.until(lambda: len(simulator.request_log.entries) > 1.5 * RATE, what="it was busy")
    await first.kill()

    second = await stage.start(document)
    asked_count = len(simulator.request_log.entries)
    await second.until(lambda: len(simulator.request_log.entries) > asked_count + RATE, what="it was busy")
    window = Window(Fault.RATE_LIMITED_SECONDS, simulator.world.now_s(), float("inf"))
    simulator.dice.faults = Faults(windows=(window,), retry_after_s=1)
    await second.until(lambda: any(entry.fault for entry in simulator.request_log.entries), what="a 429")
    simulator.dice.faults = Faults()
    asked_count = len(simulator.request_log.entries)
    await second.until(lambda: len(simulator.request_log.entries) > asked_count + 5, what="it went on")
    second.send(signal.SIGSTOP)
    await asyncio.sleep(2.0)
    second.send(signal.SIGCONT)
    await asyncio.sleep(1.5)
    assert await second.stop() == 0

    assert busiest_second(simulator.request_log) >= 0.9 * RATE
    assert stage.within_pace(simulator.request_log, rate=RATE)
    assert checks.of_truth(receiver.kept(), simulator) == []
    assert checks.of_alternation(receiver.kept(), troubles_count=0) == []


@pytest.mark.ci
async def test_a_key_that_goes_to_another_account_is_not_used_beyond_its_pace(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(60, ends_after_s=60, ends_within_s=90))
    document = document_of({"old": simulator}, rate_limit=f"{RATE}/s")
    life = await stage.start(document)
    await life.until(lambda: len(simulator.request_log.entries) > RATE, what="it was busy")
    watches = [{**watch, "account": "new"} for watch in document["watch"]]
    stage.write({**document, "accounts": {"new": document["accounts"]["old"]}, "watch": watches})
    await life.until(lambda: life.logged("config.reloaded"), what="it was reloaded")
    asked = len(simulator.request_log.entries)
    await life.until(lambda: len(simulator.request_log.entries) > asked + 1.5 * RATE, what="it was busy again")
    assert stage.within_pace(simulator.request_log, rate=RATE)
    assert await life.stop() == 0


@pytest.mark.ci
async def test_one_start_after_another_keeps_the_pace_and_the_pause(
    stage: Stage,
) -> None:
    simulator = await stage.simulator(world_of(20, ends_after_s=60.0, ends_within_s=90.0))
    document = document_of({"default": simulator}, rate_limit="1/s")

    async def live_until_asked() -> None:
        asked_count = len(simulator.request_log.entries)
        life = await stage.start(document)
        await life.until(lambda: len(simulator.request_log.entries) > asked_count, what="a request was answered")
        await asyncio.sleep(0.2)  # for the answer to be read and written down; the next request is not due yet
        await life.kill()

    await live_until_asked()
    window = Window(Fault.RATE_LIMITED_SECONDS, simulator.world.now_s(), float("inf"))
    simulator.dice.faults = Faults(windows=(window,), retry_after_s=PAUSE_S)
    for _ in range(2):
        await live_until_asked()

    gaps = [later.at - earlier.at for earlier, later in pairwise(simulator.request_log.entries)]
    assert min(gaps) > 0.98
    assert gaps[-1] > PAUSE_S - 0.05


# Strangers at the port

FILES_COUNT = 256
METRICS = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.ci
async def test_a_crowd_that_says_nothing_or_reads_nothing_stops_no_poll_and_keeps_no_probe_waiting(
    stage: Stage,
) -> None:
    simulator = await stage.simulator(world_of(50, ends_within_s=90, ends_after_s=60))
    life = await stage.start(document_of({"default": simulator}))
    pages = await life.started()
    resource.prlimit(life.pid, resource.RLIMIT_NOFILE, (FILES_COUNT, FILES_COUNT))
    host, _, port = pages.removeprefix("http://").rpartition(":")
    crowd = [await asyncio.open_connection(host, int(port)) for _ in range(FILES_COUNT + 50)]
    for _, writer in crowd[-50:]:  # those that came last are the last to be let go of
        writer.transport.pause_reading()  # type: ignore[attr-defined] # it is a socket's
        writer.write(METRICS * 50)
    asked = len(simulator.request_log.entries)
    await life.until(lambda: len(simulator.request_log.entries) > asked + 100, what="it went on polling")
    assert await page(f"{pages}/readyz") == (200, "ok\n")
    assert psutil.Process(life.pid).num_fds() < FILES_COUNT
    for _, writer in crowd:
        writer.transport.abort()
    assert len(life.stderr.lines.lines) <= 4
    assert await life.stop() == 0
