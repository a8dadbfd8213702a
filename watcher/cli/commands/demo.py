"""`watcher demo`: it runs a simulated API, the real daemon, and a receiver that checks signatures, without a key."""

import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from aiohttp import web
from rich.console import Console

from watcher.cli.event_loop import run_until_stopped
from watcher.config.models import Settings
from watcher.daemon.app import run
from watcher.domain.execution import TERMINAL_STATUSES, Status
from watcher.runtime.clock import Clock
from watcher.runtime.logs import configure_logs
from watcher.runtime.units import Address
from watcher.simulator.scenarios import NAMES, example_config, populate
from watcher.simulator.server import Simulator
from watcher.simulator.world import World
from watcher.sinks.stdout import event_line, shows_whole_ids
from watcher.sinks.webhook import sign, signing_key
from watcher.web.server import HttpServer

FAILS_S = {"Support triage": 3600.0, "Payment chaser": 0.0}
"""The pipelines of `--forever` with a rule about failures. Executions that begin within the given seconds fail."""

TEAMS = dict.fromkeys(NAMES, "sales") | {"Support triage": "support", "Payment chaser": "billing"}
SLOW = "Onboarding"
"""The pipeline with a limit for overdue executions."""

SEEN_WITHIN_S = 3.0
"""Executions that ended within this time before the demo's end do not count as missed."""

LIFECYCLES_FIT_S = 25.0
"""Time within which all executions of the short demo end."""

REFUSED_SHARE = 0.08
"""Share of deliveries whose first attempt the receiver answers with 500, to show the retry."""

SECRET = "whsec_Y2xlcmstd2F0Y2hlciBkZW1vIHNpZ25pbmcgc2VjcmV0"  # noqa: S105 (the demo's own, for its own receiver)


def demo(
    *,
    forever: Annotated[bool, typer.Option("--forever", help="Go on until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the events as JSON, not as readable lines.")] = False,
) -> None:
    """Show everything at work for 30 seconds, without a key.

    It runs a simulated API, the daemon, and a receiver that checks signatures, and leaves nothing behind.

    Examples:
      watcher demo
      watcher demo --json | jq .type

    """
    configure_logs(level="error", format_="auto")
    plain = as_json or not sys.stdout.isatty()
    run_until_stopped(lambda stop: demonstrate(stop=stop, forever=forever, as_json=plain))


class DemoReceiver:
    """A webhook endpoint as a user would write it: it checks the signature, and ignores an id that came before."""

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        """Start without deliveries. `report` is called with each event that comes for the first time."""
        self.delivered: set[str] = set()
        self.refused: set[str] = set()
        self.unsigned_count = 0
        self.statuses: dict[str, str] = {}
        """The last status of each execution."""
        self._report = report
        self._dice = random.Random(7)

    async def receive(self, request: web.Request) -> web.Response:
        """Answer one delivery."""
        body, id_ = await request.read(), request.headers["webhook-id"]
        if id_ not in self.refused and self._dice.random() < REFUSED_SHARE:
            self.refused.add(id_)
            return web.Response(status=500)
        timestamp = request.headers["webhook-timestamp"]
        expected = sign(body, message_id=id_, timestamp=timestamp, keys=[signing_key(SECRET)])
        if request.headers["webhook-signature"] != expected:
            self.unsigned_count += 1
            return web.Response(status=401)
        if id_ not in self.delivered:
            self.delivered.add(id_)
            event: dict[str, Any] = json.loads(body)
            if execution := event["data"].get("execution"):
                self.statuses[execution["id"]] = execution["status"]
            self._report(event)
        return web.Response(status=204)


async def demonstrate(*, stop: asyncio.Event, forever: bool, as_json: bool) -> None:
    """Run simulator, daemon and receiver for 30 s, with `forever` until `stop`.

    Lines for people go to stdout. With `as_json` stdout gets the daemon's events and nothing else.
    """
    console = Console(highlight=False, soft_wrap=True, stderr=as_json)
    async with AsyncExitStack() as stack:
        world = World(Clock())
        fails = FAILS_S if forever else {}
        fit_s, count = (None, 40) if forever else (LIFECYCLES_FIT_S, 8)
        populate(world, fit_s=fit_s, executions_count=count, fails=fails, forever=forever)
        simulator = await stack.enter_async_context(Simulator(world))

        def show(event: Mapping[str, Any]) -> None:
            if not as_json:
                console.print(event_line(event, whole_ids=shows_whole_ids(console), note="  signature ok"))

        receiver = DemoReceiver(show)
        server = HttpServer([web.post("/clerk", receiver.receive)], clock=world.clock)
        sink_url = f"http://127.0.0.1:{await server.listen(Address('127.0.0.1', 0))}/clerk"
        stack.push_async_callback(server.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clerk-watcher-demo-")))
        document = example_config(world, base_url=simulator.base_url, fails=fails)
        # A simulator with a past has thousands of old executions: none of them is to be sent.
        document["polling"] = {"first_sight": "baseline" if forever else "notify"}
        settings = _settings(document, sink_url=sink_url, folder=folder, tells_stdout=as_json)
        console.print(f"demo: simulator on {simulator.base_url}, store temporary, no key needed")
        if not forever:
            asyncio.get_running_loop().call_later(30, stop.set)

        async def wait_for_stop() -> float:
            await stop.wait()
            return world.now_s()

        stopping = asyncio.create_task(wait_for_stop())
        await run(settings, stop=stop, started=lambda address: console.print(f"Dashboard: http://{address}"))
        due_s = await stopping - SEEN_WITHIN_S
        news = (execution for execution in world.executions() if execution.begins_s >= 0)
        truth = {execution.id: execution.phase_at(due_s).status for execution in news}
        console.print(summary(receiver, truth=truth))


def _settings(document: dict[str, Any], *, sink_url: str, folder: Path, tells_stdout: bool) -> Settings:
    for watch in document["watch"]:
        watch |= {"account": "default", "labels": {"team": TEAMS[watch["name"]]}}
        if watch["name"] == SLOW:
            watch["overdue_after"] = {"paused": "1m"}
    document["polling"] |= {"min_interval": "250ms", "max_interval": "1s"}
    document |= {
        "sinks": {
            # on a terminal the receiver prints the events
            "stdout": {"type": "stdout", "format": "json", "events": ["*" if tells_stdout else "watcher.test"]},
            "receiver": {"type": "webhook", "url": sink_url, "secret": SECRET},
        },
        "store": {"url": f"sqlite:///{folder}/demo.db"},
        "http": {"listen": "127.0.0.1:0"},
    }
    return Settings.model_validate(document)


def summary(receiver: DemoReceiver, *, truth: Mapping[str, str]) -> str:
    """Return the demo's last line: the numbers of executions, deliveries, and missed ends.

    `truth` has the actual status of each execution.
    """
    statuses = receiver.statuses
    ends = Counter(status for status in statuses.values() if status in TERMINAL_STATUSES)
    missed_count = sum(truth[id_] in TERMINAL_STATUSES and statuses.get(id_) != truth[id_] for id_ in truth)
    return (
        f"{len(statuses)} executions: {ends[Status.SUCCESS]} success, {ends[Status.FAILED]} failed, "
        f"{len(statuses) - ends.total()} open, {missed_count} ends missed · "
        f"{len(receiver.delivered)} events delivered, {len(receiver.refused)} after a retry, "
        f"{receiver.unsigned_count} with a wrong signature"
    )
