"""The real Alertmanager, as Debian packages it or its own release names it, in a process of its own."""

import asyncio
import json
import re
import shutil
import signal
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
import yaml

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
START_S = 60.0

installed = pytest.mark.skipif(
    PROGRAM is None, reason="prometheus-alertmanager is not installed: apt-get install prometheus-alertmanager"
)
"""For tests that need it."""

_LISTENS = re.compile(rb'msg="Listening on" .*?address=127\.0\.0\.1:(\d+)')


class Alertmanager:
    """Runs while it is entered, on a port of its own, and notifies `hook` of each alert that fires or is resolved."""

    def __init__(self, folder: Path, *, hook: str) -> None:
        self._folder = folder
        self._config = folder / "alertmanager.yml"
        self._port = 0
        self._process: asyncio.subprocess.Process | None = None
        route = {"receiver": "hook", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"}
        receiver = {"name": "hook", "webhook_configs": [{"url": hook, "send_resolved": True}]}
        self._config.write_text(yaml.safe_dump({"route": route, "receivers": [receiver]}), encoding="utf-8")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()

    async def start(self) -> None:
        """Start it, the second time on the same port."""
        assert PROGRAM is not None
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM,
            f"--config.file={self._config}",
            f"--storage.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--cluster.listen-address=",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stderr is not None
        said = b""
        async with asyncio.timeout(START_S):
            while (listens := _LISTENS.search(said)) is None:
                line = await self._process.stderr.readline()
                assert line, f"Alertmanager ended: {said.decode()}"
                said += line
        self._port = int(listens[1])

    async def kill(self) -> None:
        """End it as a power failure would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.communicate()

    async def alerts(self) -> dict[str, dict[str, Any]]:
        """Return the alerts that hold now, by `alertname` and `execution`, as its API v2 shows them."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/api/v2/alerts") as response:
            assert response.status == 200
            return {_name(alert["labels"]): alert for alert in await response.json()}

    async def until(self, names: AbstractSet[str], *, within_s: float) -> None:
        """Return once the alerts that hold are these."""
        async with asyncio.timeout(within_s):
            while set(await self.alerts()) != names:
                await asyncio.sleep(0.05)


class Notifications:
    """What Alertmanager notified its hook of, as `firing ClerkPipelineFailing`, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def names(self, status: str) -> list[str]:
        """Return the alerts it was notified of with this status."""
        return [line.partition(" ")[2] for line in self.lines if line.startswith(status)]

    def take(self, body: bytes) -> None:
        self.lines += [f"{alert['status']} {_name(alert['labels'])}" for alert in json.loads(body)["alerts"]]


def _name(labels: dict[str, str]) -> str:
    return " ".join(filter(None, (labels["alertname"], labels.get("execution"))))
