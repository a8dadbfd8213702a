"""What must never leave the process or reach the store: whatever people said, keys, secrets, paths."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from e2e.endpoint import PATH, SECRET, Answer
from e2e.programme import outcome_of, page
from e2e.stage import API_KEY, POLLING, Stage, all_have_ended, document_of, webhook, world_of

from watcher.simulator.responses import PRIVATE
from watcher.simulator.scenarios import HARSH

TOKEN = "token-6f4922f45568161a"
DEAD_PATH = "/hooks/path-d3d9446802a44259"
PRIVATE_WORDS = (PRIVATE, API_KEY, SECRET, SECRET.removeprefix("whsec_"), PATH, DEAD_PATH, TOKEN)


async def test_nothing_private_shows_anywhere(stage: Stage) -> None:
    faults = replace(HARSH, windows=(), retry_after_s=1, slow_s=0.2)
    simulator = await stage.simulator(world_of(40, ends_within_s=4.0), faults=faults)
    receiver, ill = await stage.receiver(), await stage.receiver(lambda _: Answer.REFUSE)
    sinks = {
        "ops": webhook(receiver, headers={"Authorization": f"Bearer {TOKEN}", "X-Team": TOKEN}),
        "ill": webhook(ill),
        "dead": webhook(receiver) | {"url": f"http://127.0.0.1:1{DEAD_PATH}"},
    }
    document = document_of({"default": simulator}, sinks) | {"log": {"level": "debug"}}
    document["polling"] = POLLING | {"lost_grace": "30s", "degraded_after": "30s"}

    life = await stage.start(document)
    pages = await life.started()
    await life.until(lambda: all_have_ended(receiver.events(), simulator.world), what="all was reported")
    shown = [(await page(f"{pages}{path}"))[1].encode() for path in ("/metrics", "/readyz?verbose")]
    kept_alive = await asyncio.to_thread(_files, stage.folder)
    assert await life.stop() == 0

    assert life.logged("poll.failed")
    assert life.logged("delivery.failed")
    assert "watcher.db-wal" in kept_alive
    places = {f"page {number}": content for number, content in enumerate(shown)}
    places |= {"stdout": life.stdout.lines.everything(), "stderr": life.stderr.lines.everything()}
    places |= {f"body {number}": attempt.body for number, attempt in enumerate([*receiver.attempts, *ill.attempts])}
    places |= kept_alive | {f"{name} at the end": kept for name, kept in _files(stage.folder).items()}
    assert list(_found(places)) == []


async def test_a_configuration_that_is_wrong_shows_no_secret(stage: Stage) -> None:
    document = {
        "accounts": {"default": {"api_key": f"{API_KEY} {TOKEN}"}},
        "sinks": {
            "ops": {
                "type": "webhook",
                "url": f"ftp://hooks.example.com{PATH}",
                "secret": f"{SECRET}!",
                "headers": {"Authorization": f"Bearer\n{TOKEN}"},
            }
        },
    }
    outcome = await outcome_of("run", "--config", str(stage.write(document)), folder=stage.folder)
    assert outcome.code == 2
    assert outcome.stderr.count("\n") >= 4
    assert list(_found({"stdout": outcome.stdout.encode(), "stderr": outcome.stderr.encode()})) == []


def _files(folder: Path) -> dict[str, bytes]:
    """Return all that the program keeps, by name: the configuration beside it is the user's."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".yaml"}


def _found(places: dict[str, bytes]) -> Iterator[str]:
    for place, content in places.items():
        yield from (f"{word} in {place}" for word in PRIVATE_WORDS if word.encode() in content)
