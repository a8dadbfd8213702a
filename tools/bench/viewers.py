"""Twenty people who look at the first page while 200 events a second are recorded and sent."""

import asyncio
import re
import socket
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import aiohttp
import psutil

from bench.answers import PIPELINE_ROWS, pipeline_ids
from bench.counters import Counters
from bench.figures import Figure, at_least, at_most, shown
from bench.load_server import serve_load
from bench.processes import cpu_s, daemon, events_of, lines_in, server, wait_until
from bench.receiver import receive
from bench.workspaces import Wish, Workspaces

PIPELINES = pipeline_ids(20)
RATE_PER_S = 25
CHANGED_ONE_IN = 4.8
"""Of the rows shown: that makes some 200 changes a second."""

VIEWERS_COUNT = 20
ASKED_EVERY_S = 2.0
IN_TIME = re.compile(r'^watcher_poll_lateness_seconds_(?:bucket\{.*le="(0\.25|\+Inf)"\}) (\S+)$', re.MULTILINE)


class _Viewed(NamedTuple):
    """What one run showed. Times in milliseconds, `cpu` in percent of a core."""

    answers_ms: Sequence[float]
    in_time_share: float
    events_per_s: float
    unchanged_share: float
    cpu: float


def measure_viewers(workspaces: Workspaces, repetitions: Sequence[int], *, watched_s: float) -> Iterator[Figure]:
    """Measure whether polls are in time while 20 pages ask again every 2 s, and how long the pages take."""
    runs = [_run(workspaces, viewers=VIEWERS_COUNT, watched_s=watched_s) for _ in repetitions]
    alone = [_run(workspaces, viewers=0, watched_s=watched_s) for _ in repetitions]
    yield at_least(0.99, "polls no later than 250 ms, while 20 pages are open", [each.in_time_share for each in runs])
    yield at_most(
        100, "an answer to a page, median, ms", [sorted(each.answers_ms)[len(each.answers_ms) // 2] for each in runs]
    )
    yield shown("  the longest, ms", [max(each.answers_ms) for each in runs])
    yield shown("  answers that nothing changed, %", [100 * each.unchanged_share for each in runs])
    yield shown("  events per second", [each.events_per_s for each in runs])
    yield shown("  % of a core", [each.cpu for each in runs])
    yield shown("  % of a core without pages", [each.cpu for each in alone])
    yield shown("  polls no later than 250 ms without pages", [each.in_time_share for each in alone])


def _run(workspaces: Workspaces, *, viewers: int, watched_s: float) -> _Viewed:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with server(serve_load) as api, server(receive) as hook:
        wish = Wish(base_url=api.url, pipelines=PIPELINES, rate_per_s=RATE_PER_S, sink_url=hook.url, listen=address)
        config = workspaces.make(wish)
        with daemon(config) as process:
            wait_until(lambda: lines_in(events_of(config)) >= len(PIPELINES) * PIPELINE_ROWS)
            api.change_every = CHANGED_ONE_IN
            return asyncio.run(_look(f"http://{address}", process, api, viewers=viewers, watched_s=watched_s))


async def _look(url: str, process: psutil.Process, api: Counters, *, viewers: int, watched_s: float) -> _Viewed:
    answers: list[tuple[float, bool]] = []
    async with aiohttp.ClientSession() as session:
        await asyncio.sleep(ASKED_EVERY_S)
        before, changed, spent_s = await _late(session, url), api.changed_count, cpu_s(process)
        began_at = time.monotonic()
        until = began_at + watched_s
        looking = [
            _view(session, url, answers, after_s=ASKED_EVERY_S * nth / viewers, until=until) for nth in range(viewers)
        ]
        await asyncio.gather(asyncio.sleep(watched_s), *looking)
        after, wall_s = await _late(session, url), time.monotonic() - began_at
        (in_time, polls) = (after[0] - before[0], after[1] - before[1])
        return _Viewed(
            [ms for ms, _ in answers] or [0.0],
            in_time / polls,
            (api.changed_count - changed) / wall_s,
            sum(same for _, same in answers) / max(1, len(answers)),
            100 * (cpu_s(process) - spent_s) / wall_s,
        )


async def _view(
    session: aiohttp.ClientSession, url: str, answers: list[tuple[float, bool]], *, after_s: float, until: float
) -> None:
    """Ask for the first page every 2 s, as its script does."""
    await asyncio.sleep(after_s)
    known: str | None = None
    while time.monotonic() < until:
        began_at = time.monotonic()
        headers = {"Accept": "text/html"} | ({} if known is None else {"If-None-Match": known})
        async with session.get(f"{url}/", headers=headers) as answer:
            await answer.read()
            if answer.status not in {200, 304}:
                raise RuntimeError(f"a page answered {answer.status}")
            answers.append((1000 * (time.monotonic() - began_at), answer.status == 304))
            known = answer.headers["ETag"]
        await asyncio.sleep(ASKED_EVERY_S)


async def _late(session: aiohttp.ClientSession, url: str) -> tuple[float, float]:
    """Return how many polls were no later than 250 ms, and how many there were."""
    async with session.get(f"{url}/metrics") as answer:
        found = dict(IN_TIME.findall(await answer.text()))
    return float(found["0.25"]), float(found["+Inf"])
