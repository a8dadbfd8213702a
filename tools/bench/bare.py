"""The bare loop: as many workers as the watcher has requests in flight, each of which gets, parses and forgets."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import cycle

import aiohttp
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from bench.answers import PIPELINE
from watcher.runtime.http_client import USER_AGENT


class _Execution(BaseModel):
    """The fewest fields by which somebody could watch an execution."""

    model_config = ConfigDict(alias_generator=to_camel)
    id: str
    status: str
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None


async def _work(session: aiohttp.ClientSession, *, base_url: str, turns: Iterator[str]) -> None:
    for execution in turns:
        url = f"{base_url}/public/pipelines/{PIPELINE}/executions/{execution}"
        async with session.get(url, allow_redirects=False) as response:
            assert _Execution.model_validate_json(await response.read()).id == execution


async def _ask(base_url: str, *, executions: Sequence[str], workers: int) -> None:
    turns = cycle(executions)
    async with aiohttp.ClientSession(
        headers={"apiKey": "bench", "User-Agent": USER_AGENT, "Accept": "application/json"},
        timeout=aiohttp.ClientTimeout(total=10),
        connector=aiohttp.TCPConnector(limit=workers),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        await asyncio.gather(*(_work(session, base_url=base_url, turns=turns) for _ in range(workers)))


def ask_for_ever(base_url: str, executions: Sequence[str], workers: int) -> None:
    """Ask for the executions in turn until the process is ended."""
    asyncio.run(_ask(base_url, executions=executions, workers=workers))
