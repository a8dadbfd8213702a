"""One account's trouble, or one sink's, is nobody else's; and whatever people said, keys and paths show nowhere."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import receiver as sockets
from e2e import checks
from e2e.endpoint import PATH, SECRET, Answer
from e2e.programme import page
from e2e.stage import API_KEY, POLLING, RETRY, Document, Stage, all_have_ended, document_of, webhook, world_of

from watcher.simulator.faults import Fault, Faults
from watcher.simulator.responses import PRIVATE
from watcher.simulator.scenarios import HARSH

PATIENT = "60s"
"""What hangs is not given up in the time of a test: whoever waited for it would get nothing."""

TOKEN = "token-6f4922f45568161a"
DEAD_PATH = "/hooks/path-d3d9446802a44259"
OF_APPRISE = ("user-1f6a", "pass-77c2", "path-90be")
PRIVATE_WORDS = (PRIVATE, API_KEY, SECRET, SECRET.removeprefix("whsec_"), PATH, DEAD_PATH, TOKEN, *OF_APPRISE)


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
