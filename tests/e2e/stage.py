"""What a test plays on: a simulator and receivers in this process, the program in its own, and its configuration."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import yaml
from e2e.endpoint import SECRET, Answer, Attempt, Receiver, take
from e2e.programme import Board, Life, begin
from e2e.terminal import Terminal, on_terminal
from receiver import Receiver as Listener
from receiver import answer, says
from simulator_facts import busiest_second

from watcher.runtime.clock import Clock
from watcher.simulator.faults import Faults
from watcher.simulator.scenarios import CALM, pipeline_named
from watcher.simulator.server import LoggedRequest, RequestLog, Simulator
from watcher.simulator.world import BRISK, Kind, World, make_lifecycle

API_KEY = "key-e2e-8f14e45fceea167a"
API_KEYS = (API_KEY, f"{API_KEY}-2")
"""One per account: every simulator takes any of them."""

POLLING = {"min_interval": "100ms", "max_interval": "1s", "lost_grace": "2s", "degraded_after": "2s"}
RETRY = {"schedule": ["100ms", "200ms", "400ms"]}

PULSE_S = 0.005

FAILING = pipeline_named("Sales agent", seed=1)
"""The pipeline of `failing_world`."""

ENDS = frozenset({"execution.success", "execution.failed"})

Document = dict[str, Any]
Part = TypeVar("Part")


class Stage:
    """Everything a test needs, cleared away at its end."""

    def __init__(
        self, folder: Path, stack: AsyncExitStack, *, dice: Random, store_url: str = "sqlite:///watcher.db"
    ) -> None:
        self.folder = folder
        self.dice = dice
        self.store_url = store_url
        self.board = Board()
        self.lives: list[Life] = []
        self._pulse = _Pulse()
        self._stack = stack

    async def enter(self, part: AbstractAsyncContextManager[Part]) -> Part:
        """Return any other part, which is cleared away like the rest."""
        return await self._stack.enter_async_context(part)

    async def simulator(self, world: World, *, faults: Faults = CALM, api_keys: Sequence[str] = API_KEYS) -> Simulator:
        await self._stack.enter_async_context(self._pulse)
        simulator = Simulator(world, faults=faults, api_keys=api_keys)
        simulator.request_log = _Noticed(self.board.notice)
        return await self._stack.enter_async_context(simulator)

    async def receiver(self, choose: Callable[[Attempt], Answer] = take) -> Receiver:
        return await self._stack.enter_async_context(Receiver(self.board.notice, choose=choose))

    async def listener(self, *, code: int = 200, body: bytes = b"") -> Listener:
        """Return a receiver of anything, which gives one answer."""
        reply = says(answer(code, body=body))

        async def notice(writer: asyncio.StreamWriter) -> None:
            self.board.notice()
            await reply(writer)

        return await self.enter(Listener(notice))

    def within_pace(self, log: RequestLog, *, rate: float, keys_each: int = 1) -> bool:
        """Say whether no second saw more requests of an account than the rate allows.

        What came while this process had no processor is seen to come at once, so that much longer is the second.
        """
        busiest = busiest_second(log, keys_each=keys_each)
        return busiest <= rate * 1.05 * (1 + self._pulse.longest_stall_s) + 2

    def write(self, document: Document, *, name: str = "watcher") -> Path:
        """Write a configuration that keeps everything in this test's folder, whole at once: nobody reads half of it."""
        path = self.folder / f"{name}.yaml"
        ours: Document = {"http": {"listen": "127.0.0.1:0"}, "store": {"url": self.store_url}}
        written = path.with_suffix(".new")
        written.write_text(yaml.safe_dump(ours | document), encoding="utf-8")
        return written.replace(path)

    async def start(
        self, document: Document, *, name: str = "watcher", environ: Mapping[str, str] | None = None
    ) -> Life:
        """Start the daemon, and do not wait until it has. `environ` is added to its environment."""
        path = await asyncio.to_thread(partial(self.write, document, name=name))
        return await self.begin("run", "--config", str(path), environ=environ)

    async def begin(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Life:
        """Start any command; `environ` is added to its environment."""
        life = await begin(*arguments, folder=self.folder, board=self.board, environ=environ)
        self._stack.push_async_callback(life.clear_away)
        self.lives.append(life)
        return life

    async def terminal(self, *arguments: str, columns: int = 100, **variables: str) -> Terminal:
        """Start any command on a terminal so wide."""
        terminal = await on_terminal(*arguments, folder=self.folder, board=self.board, columns=columns, **variables)
        self._stack.push_async_callback(terminal.clear_away)
        return terminal


class _Pulse:
    """Notes for how long this process at most did not get to do anything."""

    def __init__(self) -> None:
        self.longest_stall_s = 0.0
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._beating = self._beating or asyncio.create_task(self._beat())

    async def __aexit__(self, *_: object) -> None:
        assert self._beating is not None
        self._beating.cancel()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(PULSE_S)
            self.longest_stall_s = max(self.longest_stall_s, loop.time() - before - PULSE_S)


class _Noticed(RequestLog):
    """A request log that says when something was written into it."""

    def __init__(self, notice: Callable[[], None]) -> None:
        super().__init__()
        self._notice = notice

    def close(self, entry: LoggedRequest) -> None:
        super().close(entry)
        self._notice()


def world_of(count: int, *, ends_within_s: float, seed: int = 1, ends_after_s: float = 1.0) -> World:
    """Return a world of `count` executions, all under way from the start, which end at moments spread over a span."""
    world, rng = World(Clock()), Random(f"{seed}/ends")
    pipelines = [pipeline_named(name, seed=seed) for name in ("Sales agent", "Onboarding", "Support triage")]
    for index in range(count):
        lifecycle = make_lifecycle(seed, index=index, pace=BRISK)
        length_s = rng.uniform(ends_after_s, ends_within_s)
        world.add(lifecycle.stretched(length_s / lifecycle.length_s()), pipeline=pipelines[index % len(pipelines)])
    return world


def failing_world(count: int = 3, *, last_at_s: float = 3.0) -> World:
    """Return a world of one pipeline so many of whose executions fail, one after the other until then."""
    world = World(Clock())
    for index in range(count):
        lifecycle = make_lifecycle(1, index=index, kind=Kind.FAILING, pace=BRISK)
        begins_s = last_at_s * (index + 1) / count
        world.add(lifecycle.stretched(0.5 / lifecycle.length_s()), pipeline=FAILING, begins_s=begins_s)
    return world


def webhook(receiver: Receiver, **settings: object) -> Document:
    return {
        "type": "webhook",
        "url": receiver.url,
        "secret": SECRET,
        "rate_limit": "1000/s",
        "timeout": "2s",
        "retry": RETRY,
        **settings,
    }


def grouped(receiver: Receiver, *, wait_s: float, most: int, **settings: object) -> Document:
    """Return a sink that is sent all that an account has in common."""
    return webhook(receiver, group={"by": ["account"], "wait": f"{round(wait_s * 1000)}ms", "max": most}, **settings)


def document_of(
    simulators: Mapping[str, Simulator], sinks: Mapping[str, Document] | None = None, *, rate_limit: str = "200/s"
) -> Document:
    """Return a configuration that watches every execution of these simulators, one account each."""
    return {
        "accounts": {
            name: {"api_key": key, "base_url": simulator.base_url, "rate_limit": rate_limit, "timeout": "2s"}
            for key, (name, simulator) in zip(API_KEYS, simulators.items(), strict=False)
        },
        "watch": [watch for name, simulator in simulators.items() for watch in watches_of(simulator.world, name)],
        "polling": POLLING,
        "sinks": sinks or {},
    }


def watches_of(world: World, account_name: str) -> Sequence[Document]:
    executions: dict[str, list[str]] = {}
    for execution in world.executions():
        executions.setdefault(execution.pipeline.id, []).append(execution.id)
    return [{"pipeline": pipeline, "account": account_name, "executions": ids} for pipeline, ids in executions.items()]


def all_have_ended(events: Sequence[Mapping[str, Any]], world: World) -> bool:
    """Say whether an end was reported of every execution."""
    ended = {event["subject"] for event in events if event["type"] in ENDS}
    return len(ended) == sum(1 for _ in world.executions())
